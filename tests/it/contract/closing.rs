//! The close: when it may begin, that its chunks lose and double nothing, and what others see of it.

use super::{ack, close, close_to_end, due, seal, sealed, written};
use crate::world::{
    HOUR, MINUTE, POLICY, SECOND, T0, WRITER, World, calendar, delta, moments, wide_delta, wide_source,
};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Bucket;
use meanwhile::store::{Acked, Answer, Closed, Frame, Life, PAGE_SOURCES, Sealed};
use std::sync::Arc;

/// Sources of a life that closes in three chunks or more.
const WIDE: usize = 2 * PAGE_SOURCES + 500;

/// Fills a bucket with [`WIDE`] sources, in frames of permitted size.
async fn fill(world: &World, bucket: Bucket) {
    for part in [0..WIDE / 2, WIDE / 2..WIDE] {
        world.put(vec![wide_delta(bucket, part)]).await;
    }
}

/// A minute of which the first chunk has moved up.
pub(super) async fn half_closed(world: &World, t: Millis) -> Life {
    let minute = world.bucket("1m", t);
    fill(world, minute).await;
    world.set(world.now().max(minute.end + POLICY.lateness));
    let life = written(world, minute).await;
    assert!(matches!(close(world, life, 0).await, Closed::More(_)));
    life
}

/// Sees that of every wide source exactly `each` readings are in the open lives of these periods.
async fn check_total(world: &World, periods: &[&str], each: f64, when: &str) {
    let sources: Vec<Arc<str>> = (0..WIDE).map(|i| wide_source(i).into()).collect();
    let periods: Vec<_> = periods.iter().map(|p| p.parse().unwrap()).collect();
    let lives = world.store.open(0, &sources, &periods, Millis::MIN, Millis::MAX).await.unwrap().lives;
    for (i, source) in sources.iter().enumerate() {
        let count: f64 = lives.iter().filter_map(|l| l.moments[i].as_ref()).map(|m| m.count).sum();
        assert_eq!(count, each, "readings of {source} {when}");
    }
}

const TREE: [&str; 3] = ["1m", "1h", "1d"];

pub(super) async fn a_close_is_refused_until_all_is_written(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let refused = async |life: Life, why: &str| {
        let before = (due(&world).await, world.open(&["a"]).await);
        assert_eq!(close(&world, life, 0).await, Closed::Refused, "{why}");
        assert_eq!((due(&world).await, world.open(&["a"]).await), before, "{why}: something changed");
    };
    world.set(minute.end + POLICY.lateness - 1);
    let life = sealed(&world, minute).await;
    refused(life, "neither acked nor past its time").await;
    assert_eq!(ack(&world, life).await, Acked::Clean);
    refused(life, "one millisecond too early").await;
    world.pass(1);
    refused(Life { revision: life.revision - 1, ..life }, "an older revision").await;
    refused(Life { generation: life.generation - 1, ..life }, "another generation").await;
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    refused(life, "dirty").await;
    let newer = sealed(&world, minute).await;
    refused(newer, "not acked").await;
    refused(life, "acked, but no longer the present revision").await;
    assert_eq!(ack(&world, newer).await, Acked::Clean);
    assert_eq!(close(&world, newer, 0).await, Closed::Done);
}

pub(super) async fn a_close_waits_for_descendants(world: World) {
    let old = T0 - 50 * HOUR;
    let [minute, hour, day] = ["1m", "1h", "1d"].map(|p| world.bucket(p, old));
    world.put(vec![delta(day, "a", &[1.0])]).await;
    let life = written(&world, day).await;
    world.put(vec![delta(minute, "a", &[2.0])]).await;
    assert_eq!(close(&world, life, 0).await, Closed::Waiting);
    let child = written(&world, minute).await;
    close_to_end(&world, child).await;
    assert_eq!(close(&world, life, 0).await, Closed::Waiting, "the hour is open now");
    let child = written(&world, hour).await;
    close_to_end(&world, child).await;
    assert_eq!(close(&world, life, 0).await, Closed::Refused, "it has got the minute's reading");
    let life = written(&world, day).await;
    assert_eq!(close(&world, life, 0).await, Closed::Done);
}

pub(super) async fn a_close_moves_up_and_ends(world: World) {
    let (first, second) = (world.bucket("1m", T0), world.bucket("1m", T0 + MINUTE));
    let hour = world.bucket("1h", T0);
    world.put(vec![delta(first, "a", &[1.0]), delta(second, "a", &[2.0])]).await;
    world.set(second.end + POLICY.lateness);
    let mut generation = None;
    for (minute, expected) in [(first, moments(&[1.0])), (second, moments(&[1.0, 2.0]))] {
        let life = written(&world, minute).await;
        assert_eq!(close(&world, life, 0).await, Closed::Done);
        let lives = world.open(&["a"]).await.lives;
        assert!(lives.iter().all(|l| l.life.bucket != minute));
        let parent = lives.iter().find(|l| l.life.bucket == hour).expect("the hour is open");
        assert_eq!(parent.moments, [Some(expected)]);
        assert!(!parent.written);
        assert_eq!(*generation.get_or_insert(parent.life.generation), parent.life.generation);
    }
    assert_eq!(due(&world).await.next, Some(hour.end + POLICY.grace));
}

pub(super) async fn every_chunk_keeps_the_total(world: World) {
    let life = half_closed(&world, T0).await;
    check_total(&world, &TREE, 1.0, "after the first chunk").await;
    let mut chunks = 1;
    let mut cursor = 0;
    while let Closed::More(next) = close(&world, life, cursor).await {
        cursor = next;
        chunks += 1;
        check_total(&world, &TREE, 1.0, "between chunks").await;
    }
    check_total(&world, &TREE, 1.0, "after the close").await;
    check_total(&world, &["1m"], 0.0, "in minutes after the close").await;
    assert!(chunks >= 2, "closed in {chunks} chunks");
    let hour = sealed(&world, world.bucket("1h", T0)).await;
    assert!(hour.generation > life.generation);
}

/// A life of which every chunk is full ends with the last of them, not with an empty one behind it.
pub(super) async fn a_close_of_full_chunks_ends_with_the_last(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![wide_delta(minute, 0..PAGE_SOURCES)]).await;
    world.set(world.now().max(minute.end + POLICY.lateness));
    let life = written(&world, minute).await;
    let sources: Vec<String> = (0..PAGE_SOURCES).map(wide_source).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let mut cursor = 0;
    while let Closed::More(next) = close(&world, life, cursor).await {
        cursor = next;
        let lives = world.open(&sources).await.lives;
        let left = lives.iter().filter(|open| open.life.bucket == minute).flat_map(|open| &open.moments).flatten();
        assert!(left.count() > 0, "nothing is left, and it is not said");
    }
}

/// Whoever drives the close may die after any chunk, and the store with it; the next one begins
/// with cursor 0.
pub(super) async fn a_crash_between_chunks_changes_nothing(mut world: World) {
    for crash_after in 1..=3u8 {
        let each = f64::from(crash_after);
        let minute = world.now();
        let life = half_closed(&world, minute).await;
        let mut cursor = 0;
        for _ in 1..crash_after {
            match close(&world, life, cursor).await {
                Closed::More(next) => cursor = next,
                other => assert_eq!(other, Closed::Done),
            }
        }
        world.crash().await;
        check_total(&world, &TREE, each, "after a crash").await;
        while let Closed::More(_) = close(&world, life, 0).await {
            check_total(&world, &TREE, each, "between chunks with cursor 0").await;
        }
        assert_eq!(close(&world, life, 0).await, Closed::Gone);
        check_total(&world, &TREE, each, "after the close").await;
    }
}

pub(super) async fn a_closing_life_stays_due_and_is_not_sealed(world: World) {
    let life = half_closed(&world, T0).await;
    assert_eq!(due(&world).await.buckets, [life.bucket]);
    assert_eq!(seal(&world, life.bucket).await, Sealed::Closing(life));
    assert_eq!(due(&world).await.buckets, [life.bucket], "a seal does not put it off");
    assert_eq!(seal(&world, world.bucket("1h", T0)).await, Sealed::Waiting, "it counts as an open child");
    ack(&world, life).await;
    assert_eq!(due(&world).await.buckets, [life.bucket], "an ack does not put it off");
    let wrong = Life { revision: life.revision + 1, ..life };
    assert_eq!(close(&world, wrong, 0).await, Closed::Refused);
    check_total(&world, &TREE, 1.0, "after all this").await;
    close_to_end(&world, life).await;
    assert_eq!(due(&world).await.buckets, []);
}

pub(super) async fn a_late_reading_in_the_middle_comes_after(world: World) {
    let life = half_closed(&world, T0).await;
    let head = world.head().await;
    let late = Frame::new(WRITER, head.sequence + 1, head.elapsed, vec![], vec![wide_delta(life.bucket, 0..WIDE / 2)]);
    assert_eq!(world.apply(&late).await, Answer::Closing(vec![life]));
    check_total(&world, &TREE, 1.0, "after the refusal").await;
    close_to_end(&world, life).await;
    assert_eq!(world.apply(&late).await, Answer::Applied);
    let second = sealed(&world, life.bucket).await;
    assert!(second.generation > life.generation);
    world.put(vec![wide_delta(life.bucket, WIDE / 2..WIDE)]).await;
    let second = written(&world, life.bucket).await;
    assert_eq!(close(&world, life, 0).await, Closed::Refused, "the life of before");
    close_to_end(&world, second).await;
    check_total(&world, &["1h"], 2.0, "after two lives").await;
}

pub(super) async fn a_closing_parent_is_finished_first(world: World) {
    let [minute, hour, day] = ["1m", "1h", "1d"].map(|p| world.bucket(p, T0));
    fill(&world, minute).await;
    world.set(hour.end + POLICY.lateness);
    let child = written(&world, minute).await;
    close_to_end(&world, child).await;
    let parent = written(&world, hour).await;
    assert!(matches!(close(&world, parent, 0).await, Closed::More(_)));
    // The minute is not closing: it takes a late reading while its hour moves up.
    fill(&world, minute).await;
    check_total(&world, &TREE, 2.0, "in a new minute").await;
    let child = written(&world, minute).await;
    for _ in 0..2 {
        assert_eq!(close(&world, child, 0).await, Closed::ParentClosing(parent));
        check_total(&world, &TREE, 2.0, "while the parent is closing").await;
    }
    assert_eq!(seal(&world, hour).await, Sealed::Closing(parent), "it is to be finished, child or not");
    // Chunks of the parent go on although a child is open.
    close_to_end(&world, parent).await;
    check_total(&world, &TREE, 2.0, "with the parent gone").await;
    close_to_end(&world, child).await;
    let again = written(&world, hour).await;
    assert!(again.generation > parent.generation);
    close_to_end(&world, again).await;
    check_total(&world, &["1d"], 2.0, "in the day").await;
    sealed(&world, day).await;
}

pub(super) async fn two_parents_get_each_reading_once(mut world: World) {
    world.calendar = calendar("1d,1w,1mo");
    let old = T0 - 100 * 24 * HOUR;
    for round in 1..=2u8 {
        let each = f64::from(round);
        let day = world.bucket("1d", old + Millis::from(round - 1) * 24 * HOUR);
        assert_eq!(world.family(day).parents, [world.bucket("1w", old), world.bucket("1mo", old)]);
        fill(&world, day).await;
        world.pass(SECOND);
        let life = written(&world, day).await;
        loop {
            match close(&world, life, 0).await {
                Closed::More(_) => {
                    check_total(&world, &["1d", "1w"], each, "in day and week").await;
                    check_total(&world, &["1d", "1mo"], each, "in day and month").await;
                }
                Closed::Done => break,
                other => panic!("{other:?}"),
            }
        }
        check_total(&world, &["1w"], each, "in the week").await;
        check_total(&world, &["1mo"], each, "in the month").await;
    }
    // The first parent is closing when a late day comes: that day waits for it.
    let day = world.bucket("1d", old);
    world.pass(SECOND);
    let week = written(&world, world.bucket("1w", old)).await;
    assert!(matches!(close(&world, week, 0).await, Closed::More(_)));
    world.put(vec![delta(day, "late", &[1.0])]).await;
    let life = written(&world, day).await;
    assert_eq!(close(&world, life, 0).await, Closed::ParentClosing(week));
    let late = world.open(&["late"]).await.lives;
    assert_eq!(late.iter().filter(|l| l.moments[0].is_some()).count(), 1, "no parent has got it yet");
}

pub(super) async fn a_close_repeated_moves_nothing(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    world.set(minute.end + POLICY.lateness);
    let life = written(&world, minute).await;
    assert_eq!(close(&world, life, 0).await, Closed::Done);
    let before = (due(&world).await, world.open(&["a"]).await);
    for cursor in [0, 1, 1_000] {
        assert_eq!(close(&world, life, cursor).await, Closed::Gone);
    }
    assert_eq!((due(&world).await, world.open(&["a"]).await), before);
}
