//! The two clocks: `now`, which never goes back, and `elapsed`, which no step of the clock moves far.

use crate::world::{HOUR, MINUTE, OTHER_WRITER, POLICY, SECOND, T0, WRITER, World, delta, key};
use meanwhile::stats::Millis;
use meanwhile::store::{Answer, Frame, KeyRecord, MAX_ADVANCE};

/// A store forgets in slices, but it must forget: memory is bounded.
const FORGOTTEN_WITHIN: Millis = 2 * HOUR;

pub(super) async fn now_never_goes_back_and_elapsed_takes_small_steps(world: World) {
    let start = world.head().await;
    assert_eq!(start.now, T0);
    // (step of the clock, how far `elapsed` moves, `now` after it)
    let steps = [
        (3 * SECOND, 3 * SECOND, T0 + 3 * SECOND),
        (HOUR, MAX_ADVANCE, T0 + 3 * SECOND + HOUR),
        (-2 * HOUR, 0, T0 + 3 * SECOND + HOUR),
        (2 * SECOND, 2 * SECOND, T0 + 5 * SECOND + HOUR),
        (HOUR, MAX_ADVANCE, T0 + 10 * SECOND + HOUR),
        (3 * HOUR, MAX_ADVANCE, T0 + 5 * SECOND + 3 * HOUR),
    ];
    let mut elapsed = start.elapsed;
    for (step, advance, now) in steps {
        world.pass(step);
        world.put(vec![]).await;
        elapsed += advance;
        let head = world.head().await;
        assert_eq!((head.elapsed, head.now), (elapsed, now), "after a step of {step} ms");
        let due = super::due(&world).await;
        assert_eq!((due.elapsed, due.now), (elapsed, now));
    }
}

pub(super) async fn reading_calls_do_not_move_the_clocks(world: World) {
    let bucket = world.bucket("1m", T0);
    world.put(vec![delta(bucket, "a", &[1.0])]).await;
    let start = world.head().await;
    for _ in 0..3 {
        world.pass(4 * SECOND);
        world.open(&["a"]).await;
        world.store.page(0, bucket, start.epoch.unwrap(), None).await.unwrap();
        world.head().await;
    }
    // Twelve seconds since the last call that counts.
    assert_eq!(world.head().await.elapsed, start.elapsed + MAX_ADVANCE);
    world.put(vec![]).await;
    assert_eq!(world.head().await.elapsed, start.elapsed + MAX_ADVANCE);
    world.pass(SECOND);
    assert_eq!(world.head().await.elapsed, start.elapsed + MAX_ADVANCE + SECOND);
}

/// Counts a key, with `ttl`.
async fn count(world: &World, ttl: Millis) -> Frame {
    let keys = vec![KeyRecord { ttl, ..key(1, 1) }];
    let deltas = vec![delta(world.bucket("1m", T0), "a", &[1.0])];
    let frame = Frame::new(WRITER, 1, world.head().await.elapsed, keys, deltas);
    assert_eq!(world.apply(&frame).await, Answer::Applied);
    frame
}

/// The same request again, received now by another node.
async fn retry(world: &World, frame: &Frame) -> Answer {
    let head = world.store.head(0, OTHER_WRITER).await.unwrap();
    let frame = Frame::new(OTHER_WRITER, head.sequence + 1, head.elapsed, frame.keys.clone(), frame.deltas.clone());
    world.apply(&frame).await
}

async fn check_seen(world: &World, frame: &Frame) {
    assert_eq!(retry(world, frame).await, Answer::Seen(vec![(0, [1; 16])]), "elapsed {}", world.head().await.elapsed);
}

async fn check_forgotten(world: &World, frame: &Frame) {
    let limit = world.head().await.elapsed + FORGOTTEN_WITHIN;
    while retry(world, frame).await != Answer::Applied {
        world.elapse(MINUTE).await;
        assert!(world.head().await.elapsed < limit, "the key is kept for ever");
    }
}

pub(super) async fn a_key_expires_by_elapsed(world: World) {
    // At a time at which no slice of keys would begin or end.
    world.elapse(7 * SECOND + 1).await;
    let counted = count(&world, POLICY.idempotency_ttl).await;
    check_seen(&world, &counted).await;
    // A repetition that was sent in the last moment may be on its way for half as long.
    world.elapse(POLICY.idempotency_ttl + POLICY.idempotency_ttl / 2 - 1).await;
    check_seen(&world, &counted).await;
    check_forgotten(&world, &counted).await;
}

pub(super) async fn a_step_of_the_clock_expires_no_key(world: World) {
    let counted = count(&world, POLICY.idempotency_ttl).await;
    for step in [10 * HOUR, -30 * HOUR, 10 * HOUR] {
        world.pass(step);
        super::due(&world).await;
        check_seen(&world, &counted).await;
    }
    // The steps forward were worth two advances.
    world.elapse(POLICY.idempotency_ttl - 2 * MAX_ADVANCE - 1).await;
    check_seen(&world, &counted).await;
}

pub(super) async fn a_key_may_ask_for_a_longer_time(world: World) {
    let counted = count(&world, 5 * POLICY.idempotency_ttl).await;
    world.elapse(5 * POLICY.idempotency_ttl - 1).await;
    check_seen(&world, &counted).await;
}
