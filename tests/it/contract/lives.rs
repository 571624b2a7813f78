//! Which generation a life gets.

use crate::world::{DAY, HOUR, MINUTE, POLICY, T0, World, delta};
use meanwhile::stats::calendar::Bucket;
use meanwhile::store::{Closed, Policy, TOMBSTONE_TTL};

/// The generation of the open life of a bucket.
async fn generation(world: &World, bucket: Bucket) -> i64 {
    let lives = world.open(&[]).await.lives;
    lives.iter().find(|l| l.life.bucket == bucket).unwrap_or_else(|| panic!("{bucket:?} is not open")).life.generation
}

async fn put(world: &World, bucket: Bucket) -> i64 {
    world.put(vec![delta(bucket, "a", &[1.0])]).await;
    generation(world, bucket).await
}

pub(super) async fn a_first_life_carries_the_epoch(world: World) {
    let epoch = world.head().await.epoch.unwrap();
    assert_eq!(epoch, T0);
    assert_eq!(put(&world, world.bucket("1m", T0)).await, epoch);
    assert_eq!(put(&world, world.bucket("1m", T0 + HOUR)).await, epoch);
    // The last instant at which it is not late.
    let bucket = world.bucket("1m", T0 + MINUTE);
    world.set(bucket.end + POLICY.lateness - 1);
    assert_eq!(put(&world, bucket).await, epoch);
}

pub(super) async fn a_late_life_gets_a_new_generation(world: World) {
    let epoch = world.head().await.epoch.unwrap();
    let late = |n: i64| world.bucket("1m", T0 - n * MINUTE);
    // In the millisecond of the founding: the epoch counts as given.
    assert_eq!(put(&world, late(5)).await, epoch + 1);
    world.set(late(1).end + POLICY.lateness);
    assert_eq!(put(&world, late(1)).await, epoch + POLICY.lateness);
    // In the same millisecond the highest one given decides.
    assert_eq!(put(&world, late(2)).await, epoch + POLICY.lateness + 1);
    world.pass(HOUR);
    assert_eq!(put(&world, late(3)).await, world.now());
    assert_eq!(put(&world, late(1)).await, epoch + POLICY.lateness, "a life keeps its generation");
}

/// Else an import would run ahead of the clock, and of the generations of a store that goes on for this one.
pub(super) async fn lives_that_begin_together_share_a_generation(world: World) {
    let epoch = world.head().await.epoch.unwrap();
    let late = |n: i64| world.bucket("1m", T0 - n * MINUTE);
    world.put((5..8).map(|n| delta(late(n), "a", &[1.0])).collect()).await;
    for n in 5..8 {
        assert_eq!(generation(&world, late(n)).await, epoch + 1);
    }
    assert_eq!(put(&world, late(9)).await, epoch + 2);
}

pub(super) async fn lateness_is_judged_by_now_and_not_by_the_clock(world: World) {
    let epoch = world.head().await.epoch.unwrap();
    world.pass(10 * MINUTE);
    world.put(vec![]).await;
    world.set(T0 - HOUR);
    assert!(put(&world, world.bucket("1m", T0)).await > epoch);
}

pub(super) async fn a_coarse_life_gets_a_new_generation(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, minute).await;
    world.set(minute.end + POLICY.lateness);
    let life = super::written(&world, minute).await;
    assert_eq!(super::close(&world, life, 0).await, Closed::Done);
    // Although the hour is not late.
    assert_eq!(generation(&world, world.bucket("1h", T0)).await, world.now());
}

/// Writes and closes a bucket of which the time is over.
async fn end(world: &World, bucket: Bucket) {
    let life = super::written(world, bucket).await;
    super::close_to_end(world, life).await;
}

pub(super) async fn a_closed_bucket_begins_a_new_generation(world: World) {
    let minute = world.bucket("1m", T0);
    let mut last = put(&world, minute).await;
    world.set(minute.end + POLICY.lateness);
    for _ in 0..3 {
        end(&world, minute).await;
        let next = put(&world, minute).await;
        assert!(next > last, "{next} after {last}");
        last = next;
    }
}

pub(super) async fn a_tombstone_outlives_a_longer_lateness(mut world: World) {
    let minute = world.bucket("1m", T0);
    let first = put(&world, minute).await;
    world.set(minute.end + POLICY.lateness);
    end(&world, minute).await;
    // Under the new rule the bucket is not late any more, but it has been closed.
    world.reopen(Policy { lateness: DAY, ..POLICY }).await;
    let second = put(&world, minute).await;
    assert!(second > first, "the tombstone was not seen");
    // Its time to live alone does not end it while the bucket is not late.
    world.reopen(POLICY).await;
    end(&world, minute).await;
    world.reopen(Policy { lateness: DAY, ..POLICY }).await;
    world.elapse(TOMBSTONE_TTL + MINUTE).await;
    assert!(put(&world, minute).await > second, "the tombstone was forgotten too early");
}

pub(super) async fn a_longer_lateness_makes_no_second_first_life(mut world: World) {
    let [minute, next] = [T0, T0 + MINUTE].map(|t| world.bucket("1m", t));
    let first = put(&world, minute).await;
    world.set(minute.end + POLICY.lateness);
    end(&world, minute).await;
    world.elapse(TOMBSTONE_TTL + MINUTE).await;
    // Nothing tells any more that it has closed, but that it may have.
    world.reopen(Policy { lateness: DAY, ..POLICY }).await;
    assert!(put(&world, minute).await > first, "the sink has a row of this generation");
    assert_eq!(put(&world, next).await, first, "a later bucket cannot have been forgotten");
}
