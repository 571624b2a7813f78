//! Who shares a store: registered, heard of again, gone; and what all of them know of the rows.

use crate::world::{HOUR, SECOND, World};
use meanwhile::stats::complete::Complete;
use meanwhile::store::nodes::{NODE_TTL, Node, NodeSink, Registered};
use std::collections::BTreeMap;

fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        role: "all".to_owned(),
        address: "http://127.0.0.1:8080".to_owned(),
        version: "0.1.0".to_owned(),
        sink: Some(NodeSink { name: "csv:a \"b\" c".to_owned(), exclusive: true, identity: "1:2 3".to_owned() }),
        settings: BTreeMap::from([("periods".to_owned(), "1m,1h".to_owned())]),
    }
}

fn check(list: &[Registered], expected: &[(&str, u64)]) {
    let names: Vec<(&str, u64)> = list.iter().map(|entry| (entry.node.id.as_str(), entry.number)).collect();
    assert_eq!(names, expected);
}

pub(super) async fn who_came_first_is_named_first(world: World) {
    check(&world.store.register(&node("b")).await.unwrap(), &[("b", 1)]);
    check(&world.store.register(&node("a")).await.unwrap(), &[("b", 1), ("a", 2)]);
    // Again, with something new to say.
    let changed = Node { sink: None, ..node("b") };
    let list = world.store.register(&changed).await.unwrap();
    check(&list, &[("b", 1), ("a", 2)]);
    assert_eq!((&list[0].node, &list[1].node), (&changed, &node("a")));
    check(&world.store.leave("b").await.unwrap(), &[("a", 2)]);
    check(&world.store.leave("nobody").await.unwrap(), &[("a", 2)]);
    check(&world.store.register(&node("b")).await.unwrap(), &[("a", 2), ("b", 3)]);
}

pub(super) async fn who_is_not_heard_of_is_gone(world: World) {
    world.store.register(&node("a")).await.unwrap();
    world.elapse(NODE_TTL - SECOND).await;
    let list = world.store.register(&node("b")).await.unwrap();
    check(&list, &[("a", 1), ("b", 2)]);
    assert_eq!((list[0].heard, list[1].heard), (NODE_TTL - SECOND, 0));
    world.elapse(SECOND).await;
    check(&world.store.leave("nobody").await.unwrap(), &[("b", 2)]);
    // Back from a long pause, it comes after those that are there.
    check(&world.store.register(&node("a")).await.unwrap(), &[("b", 2), ("a", 3)]);
}

pub(super) async fn a_step_of_the_clock_takes_nobody_off_the_list(world: World) {
    world.store.register(&node("a")).await.unwrap();
    for step in [HOUR, -2 * HOUR] {
        world.pass(step);
        check(&world.store.leave("nobody").await.unwrap(), &[("a", 1)]);
    }
}

pub(super) async fn a_store_without_epoch_has_a_list_too(mut world: World) {
    world.wipe().await;
    check(&world.store.register(&node("a")).await.unwrap(), &[("a", 1)]);
    assert_eq!(world.head().await.epoch, None);
}

pub(super) async fn since_when_rows_are_complete_is_kept(mut world: World) {
    assert_eq!(world.store.complete().await.unwrap(), Complete::default());
    let mut complete = Complete::default();
    complete.store(&world.calendar, 0);
    world.store.keep_complete(&complete).await.unwrap();
    complete.remove(&world.calendar, world.calendar.periods()[0], HOUR);
    world.store.keep_complete(&complete).await.unwrap();
    world.crash().await;
    assert_eq!(world.store.complete().await.unwrap(), complete);
}
