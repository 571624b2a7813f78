//! When a bucket is due, and what seal and ack do to its revision and its due time.

use super::{ack, due, seal, sealed, written};
use crate::world::{HOUR, MINUTE, POLICY, SECOND, T0, World, delta};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Bucket;
use meanwhile::store::{Acked, Closed, Life, MAX_DIRTY, Sealed, VISIBILITY, WAITING_RECHECK};

async fn put(world: &World, bucket: Bucket) {
    world.put(vec![delta(bucket, "a", &[1.0])]).await;
}

/// Sees that a bucket, the only one with work, is due from `at` on and not before.
async fn check_due(world: &World, bucket: Bucket, at: Millis) {
    let before = due(world).await;
    assert_eq!((before.buckets, before.next), (vec![], Some(at)), "at {}", world.now() - T0);
    world.set(at - 1);
    assert_eq!(due(world).await.buckets, []);
    world.set(at);
    assert_eq!(due(world).await.buckets, [bucket]);
}

pub(super) async fn a_bucket_is_due_after_its_grace(world: World) {
    assert_eq!(due(&world).await.next, None);
    let minute = world.bucket("1m", T0);
    world.pass(10 * SECOND);
    put(&world, minute).await;
    check_due(&world, minute, minute.end + POLICY.grace).await;
}

pub(super) async fn stragglers_delay_for_a_minute_at_most(world: World) {
    let minute = world.bucket("1m", T0);
    world.set(T0 + 10 * SECOND);
    put(&world, minute).await;
    for (at, expected) in [(58, 65), (62, 67), (64, 69), (66, 70), (69, 70)] {
        world.set(T0 + at * SECOND);
        put(&world, minute).await;
        assert_eq!(due(&world).await.next, Some(T0 + expected * SECOND), "after a reading at {at} s");
    }
    check_due(&world, minute, T0 + 10 * SECOND + MAX_DIRTY).await;
}

pub(super) async fn a_late_life_is_due_when_idle(world: World) {
    let minute = world.bucket("1m", T0 - HOUR);
    put(&world, minute).await;
    assert_eq!(due(&world).await.next, Some(T0 + POLICY.grace));
    for at in 1..15 {
        world.set(T0 + at * 4 * SECOND);
        put(&world, minute).await;
        assert_eq!(due(&world).await.buckets, []);
    }
    check_due(&world, minute, T0 + MAX_DIRTY).await;
}

pub(super) async fn a_sealed_bucket_is_due_again_after_the_visibility(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, minute).await;
    world.set(minute.end + POLICY.grace);
    sealed(&world, minute).await;
    check_due(&world, minute, minute.end + POLICY.grace + VISIBILITY).await;
}

pub(super) async fn an_acked_bucket_is_due_at_its_close(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, minute).await;
    world.set(minute.end + POLICY.grace);
    written(&world, minute).await;
    check_due(&world, minute, minute.end + POLICY.lateness).await;
}

pub(super) async fn a_dirty_ack_is_due_again(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, minute).await;
    world.set(minute.end + POLICY.grace);
    let life = sealed(&world, minute).await;
    world.pass(SECOND);
    put(&world, minute).await;
    assert_eq!(ack(&world, life).await, Acked::Dirty);
    let next = due(&world).await;
    let soon = next.buckets == [minute] || next.next.is_some_and(|t| t <= world.now() + POLICY.grace);
    assert!(soon, "not due again: {next:?}");
}

pub(super) async fn the_longest_due_come_first_and_no_more_than_asked(world: World) {
    let minutes = [3, 1, 2].map(|n| world.bucket("1m", T0 - n * HOUR));
    for minute in minutes {
        put(&world, minute).await;
        world.pass(SECOND);
    }
    world.pass(POLICY.grace);
    assert_eq!(due(&world).await.buckets, minutes);
    let two = world.store.due(0, 2).await.unwrap();
    assert_eq!((two.buckets, two.next), (minutes[..2].to_vec(), None));
}

pub(super) async fn a_coarse_bucket_waits_for_its_descendants(world: World) {
    let old = T0 - 50 * HOUR;
    let [minute, hour, day] = ["1m", "1h", "1d"].map(|p| world.bucket(p, old));
    world.put(vec![delta(day, "a", &[1.0]), delta(minute, "a", &[1.0])]).await;
    world.pass(POLICY.grace);
    assert_eq!(seal(&world, day).await, Sealed::Waiting, "the minute is a grandchild");
    assert_eq!(due(&world).await.buckets, [minute]);
    assert_eq!(due(&world).await.next, Some(world.now() + WAITING_RECHECK));
    // A minute and an hour outside of the day do not hinder it.
    let life = written(&world, minute).await;
    super::close_to_end(&world, life).await;
    put(&world, world.bucket("1m", day.start - 1)).await;
    put(&world, world.bucket("1h", day.end)).await;
    assert_eq!(seal(&world, day).await, Sealed::Waiting, "the hour has the minute's readings now");
    let life = written(&world, hour).await;
    super::close_to_end(&world, life).await;
    sealed(&world, day).await;
}

pub(super) async fn a_bucket_that_waits_is_not_due_before_its_time(world: World) {
    let hour = world.bucket("1h", T0);
    let minute = world.bucket("1m", T0);
    put(&world, hour).await;
    put(&world, minute).await;
    assert_eq!(seal(&world, hour).await, Sealed::Waiting);
    world.set(hour.end + POLICY.grace - 1);
    assert_eq!(due(&world).await.buckets, [minute]);
    world.set(hour.end + POLICY.grace);
    assert_eq!(due(&world).await.buckets, [minute, hour]);
}

pub(super) async fn the_close_of_the_last_child_makes_the_parent_due(world: World) {
    let hour = world.bucket("1h", T0);
    let minute = world.bucket("1m", hour.end - MINUTE);
    world.set(minute.start);
    put(&world, minute).await;
    put(&world, hour).await;
    world.set(minute.end + POLICY.lateness);
    let life = written(&world, minute).await;
    assert_eq!(seal(&world, hour).await, Sealed::Waiting);
    world.pass(SECOND);
    assert_eq!(super::close(&world, life, 0).await, Closed::Done);
    // Dirty since the hour's own reading, two minutes ago: due at once.
    assert_eq!(due(&world).await.buckets, [hour]);
    let life = written(&world, hour).await;
    // Clean before it, the hour is due once it was idle.
    put(&world, minute).await;
    world.pass(POLICY.grace);
    let child = written(&world, minute).await;
    assert_eq!(super::close(&world, life, 0).await, Closed::Waiting);
    assert_eq!(super::close(&world, child, 0).await, Closed::Done);
    check_due(&world, hour, world.now() + POLICY.grace).await;
}

pub(super) async fn a_seal_raises_the_revision_only_if_dirty(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, minute).await;
    world.set(minute.end + POLICY.grace);
    let first = sealed(&world, minute).await;
    assert_eq!(first.revision, world.now());
    world.pass(SECOND);
    assert_eq!(seal(&world, minute).await, Sealed::Sealed { life: first, acked: false });
    assert_eq!(ack(&world, first).await, Acked::Clean);
    assert_eq!(seal(&world, minute).await, Sealed::Sealed { life: first, acked: true });
    put(&world, minute).await;
    let second = Life { revision: world.now(), ..first };
    assert_eq!(seal(&world, minute).await, Sealed::Sealed { life: second, acked: false });
    assert_eq!(seal(&world, world.bucket("1m", T0 + HOUR)).await, Sealed::Gone);
}

pub(super) async fn revisions_rise_while_the_clock_stands_back(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, minute).await;
    let first = sealed(&world, minute).await;
    put(&world, minute).await;
    let second = sealed(&world, minute).await;
    assert_eq!(second.revision, first.revision + 1, "in the same millisecond");
    world.pass(-HOUR);
    put(&world, minute).await;
    let third = sealed(&world, minute).await;
    assert_eq!(third.revision, second.revision + 1);
    assert_eq!(third.generation, first.generation);
}

pub(super) async fn an_ack_counts_only_for_the_present_revision(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, minute).await;
    world.set(minute.end + POLICY.lateness);
    let old = sealed(&world, minute).await;
    put(&world, minute).await;
    let life = sealed(&world, minute).await;
    let before = (due(&world).await, world.open(&["a"]).await);
    for wrong in [
        old,
        Life { revision: life.revision + 1, ..life },
        Life { generation: life.generation + 1, ..life },
        Life { generation: life.generation - 1, ..life },
        Life { bucket: world.bucket("1m", T0 + MINUTE), ..life },
        Life { bucket: Bucket { end: minute.end + 1, ..minute }, ..life },
    ] {
        assert_eq!(ack(&world, wrong).await, Acked::Ignored, "{wrong:?}");
        assert_eq!((due(&world).await, world.open(&["a"]).await), before, "{wrong:?} changed something");
    }
    assert_eq!(super::close(&world, life, 0).await, Closed::Refused, "no ack has counted");
    assert_eq!(ack(&world, life).await, Acked::Clean);
    assert_eq!(ack(&world, life).await, Acked::Clean, "an ack may be repeated");
    assert_eq!(super::close(&world, life, 0).await, Closed::Done);
    assert_eq!(ack(&world, life).await, Acked::Ignored);
}
