//! A store that starts again, went back in time, or has lost everything.

use super::{due, sealed, written};
use crate::world::{HOUR, MINUTE, OTHER_WRITER, POLICY, SECOND, T0, WRITER, World, delta, key};
use meanwhile::store::{Answer, Closed, Frame};

pub(super) async fn nothing_is_taken_before_the_founding(mut world: World) {
    world.wipe().await;
    let head = world.head().await;
    assert_eq!((head.epoch, head.sequence), (None, 0));
    let deltas = vec![delta(world.bucket("1m", T0), "a", &[1.0])];
    // Not even looked at: neither the hole in the sequence nor the age.
    for (sequence, received) in [(1, head.elapsed), (5, head.elapsed), (1, head.elapsed - HOUR)] {
        let frame = Frame::new(WRITER, sequence, received, vec![key(1, 1)], deltas.clone());
        assert_eq!(world.apply(&frame).await, Answer::Lost);
    }
    assert_eq!(world.head().await.epoch, None);
    assert_eq!(world.open(&["a"]).await.lives, []);
    let due = due(&world).await;
    assert_eq!((due.buckets, due.next), (vec![], None));
    assert_eq!(world.store.found(0).await.unwrap(), T0);
    let frame = Frame::new(WRITER, 1, world.head().await.elapsed, vec![key(1, 1)], deltas);
    assert_eq!(world.apply(&frame).await, Answer::Applied);
}

pub(super) async fn founding_again_keeps_the_epoch(world: World) {
    world.put(vec![delta(world.bucket("1m", T0), "a", &[1.0])]).await;
    world.pass(HOUR);
    assert_eq!(world.store.found(0).await.unwrap(), T0);
    let head = world.head().await;
    assert_eq!((head.epoch, head.sequence), (Some(T0), 1));
    assert_eq!(world.open(&["a"]).await.lives.len(), 1);
}

pub(super) async fn a_restart_keeps_everything(mut world: World) {
    let minute = world.bucket("1m", T0);
    let deltas = vec![delta(minute, "a", &[1.0]), delta(world.bucket("1m", T0 - HOUR), "b", &[2.0])];
    let frame = Frame::new(WRITER, 1, world.head().await.elapsed, vec![key(1, 1)], deltas);
    assert_eq!(world.apply(&frame).await, Answer::Applied);
    world.pass(SECOND);
    sealed(&world, minute).await;
    let before = (world.head().await, world.open(&["a", "b"]).await, due(&world).await);
    world.crash().await;
    assert_eq!((world.head().await, world.open(&["a", "b"]).await, due(&world).await), before);
    assert_eq!(world.apply(&frame).await, Answer::Dup { checksum: frame.checksum });
    let retry = Frame { writer: OTHER_WRITER, ..frame };
    assert_eq!(world.apply(&retry).await, Answer::Seen(vec![(0, [1; 16])]));
}

pub(super) async fn a_store_that_went_back_shows_a_gap(mut world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let saved = world.save().await;
    world.put(vec![delta(minute, "a", &[2.0])]).await;
    world.put(vec![delta(minute, "a", &[3.0])]).await;
    world.restore(&saved).await;
    let head = world.head().await;
    assert_eq!((head.epoch, head.sequence), (Some(T0), 1));
    let next = Frame::new(WRITER, 4, head.elapsed, vec![], vec![delta(minute, "a", &[4.0])]);
    assert_eq!(world.apply(&next).await, Answer::Gap { last: 1 });
    // Under another name the node goes on.
    let renamed = Frame { writer: OTHER_WRITER, sequence: 1, ..next };
    assert_eq!(world.apply(&renamed).await, Answer::Applied);
}

pub(super) async fn a_store_that_lost_everything_says_so(mut world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    world.set(minute.end + POLICY.lateness);
    let life = written(&world, minute).await;
    world.pass(MINUTE);
    world.wipe().await;
    let head = world.head().await;
    assert_eq!((head.epoch, head.sequence), (None, 0));
    let frame = Frame::new(WRITER, 2, head.elapsed, vec![], vec![delta(minute, "a", &[1.0])]);
    assert_eq!(world.apply(&frame).await, Answer::Lost);
    assert_eq!(super::close(&world, life, 0).await, Closed::Gone);
    let epoch = world.store.found(0).await.unwrap();
    assert!(epoch > life.generation, "a new epoch is newer than every life before");
    assert_eq!(world.apply(&frame).await, Answer::Gap { last: 0 });
    let first = Frame { sequence: 1, ..frame };
    assert_eq!(world.apply(&first).await, Answer::Applied);
    assert!(sealed(&world, minute).await.generation > life.generation);
}
