//! The log of acks: what the sink has got, in the order in which it was said.

use super::{ack, close_to_end, sealed, written};
use crate::world::{MINUTE, POLICY, SECOND, T0, World, delta};
use meanwhile::store::{AckLog, Acked, LOG_LIVES, Life};

async fn log(world: &World, after: Option<i64>, limit: usize) -> AckLog {
    world.store.acked(0, after, limit).await.unwrap()
}

fn lives(log: &AckLog) -> Vec<Life> {
    log.lives.iter().map(|(_, life)| *life).collect()
}

pub(super) async fn every_first_ack_of_a_revision_is_logged(world: World) {
    let empty = log(&world, None, 9).await;
    assert_eq!((empty.lives.len(), empty.whole, empty.last), (0, true, 0));
    let [first, second] = [0, 1].map(|n| world.bucket("1m", T0 + n * MINUTE));
    world.put(vec![delta(first, "a", &[1.0]), delta(second, "a", &[1.0])]).await;
    world.set(second.end + POLICY.grace);
    let second_life = written(&world, second).await;
    let first_life = sealed(&world, first).await;
    world.put(vec![delta(first, "a", &[2.0])]).await;
    assert_eq!(ack(&world, first_life).await, Acked::Dirty);
    // Said again, and of another life, it is not.
    assert_eq!(ack(&world, second_life).await, Acked::Clean);
    assert_eq!(ack(&world, Life { revision: first_life.revision + 1, ..first_life }).await, Acked::Ignored);
    world.pass(SECOND);
    let corrected = written(&world, first).await;

    let all = log(&world, Some(0), 9).await;
    assert_eq!(lives(&all), [second_life, first_life, corrected]);
    let marks: Vec<i64> = all.lives.iter().map(|(mark, _)| *mark).collect();
    assert!(marks.is_sorted_by(|a, b| a < b) && all.whole && all.last == marks[2], "{all:?}");
    assert_eq!(all.epoch, world.store.head(0, crate::world::WRITER).await.unwrap().epoch);
    assert_eq!(lives(&log(&world, Some(0), 2).await), [second_life, first_life]);
    assert_eq!(lives(&log(&world, Some(marks[0]), 9).await), [first_life, corrected]);
    assert_eq!(lives(&log(&world, Some(marks[2]), 9).await), []);
    assert_eq!(log(&world, None, 9).await, AckLog { lives: vec![], ..all });
}

pub(super) async fn a_closed_life_stays_in_the_log(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    world.set(minute.end + POLICY.lateness);
    let life = written(&world, minute).await;
    close_to_end(&world, life).await;
    assert_eq!(lives(&log(&world, Some(0), 9).await), [life]);
}

pub(super) async fn a_full_log_says_what_it_has_dropped(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let mut marks = Vec::new();
    for _ in 0..LOG_LIVES + 2 {
        // A new revision each time.
        world.put(vec![delta(minute, "a", &[1.0])]).await;
        let life = sealed(&world, minute).await;
        assert_eq!(ack(&world, life).await, Acked::Clean);
        marks.push(log(&world, None, 0).await.last);
    }
    let whole = async |after: i64| log(&world, Some(after), 1).await.whole;
    assert!(!whole(0).await && !whole(marks[0]).await && !whole(marks[1]).await);
    assert!(whole(marks[2]).await && whole(*marks.last().unwrap()).await);
    let first = log(&world, Some(0), 1).await;
    assert_eq!(first.lives[0].0, marks[2], "the oldest that is kept");
}
