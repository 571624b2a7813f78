//! What `apply` answers, in which order it checks, and that a refusal changes nothing.

use super::closing::half_closed;
use crate::world::{HOUR, MINUTE, OTHER_WRITER, POLICY, SECOND, T0, WRITER, World, delta, key, moments};
use meanwhile::stats::double_double::DoubleDouble;
use meanwhile::stats::moments::Moments;
use meanwhile::store::{Answer, BucketDeltas, Frame, KeyRecord, Late, Life, OpenLife, Policy, StoreError, WriterId};

/// What a refused frame must leave as it was.
type Contents = (u64, u64, Vec<OpenLife>, Vec<meanwhile::stats::calendar::Bucket>, Option<i64>);

async fn contents(world: &World) -> Contents {
    let other = world.store.head(0, OTHER_WRITER).await.unwrap();
    let due = super::due(world).await;
    (world.head().await.sequence, other.sequence, world.open(&["a", "b"]).await.lives, due.buckets, due.next)
}

/// Sends a frame and sees that it is answered like this and changes nothing.
async fn check(world: &World, frame: &Frame, expected: Answer) {
    let before = contents(world).await;
    assert_eq!(world.apply(frame).await, expected);
    assert_eq!(contents(world).await, before, "{expected:?} changed something");
}

/// A frame received now.
async fn frame(
    world: &World,
    writer: WriterId,
    sequence: u64,
    keys: Vec<KeyRecord>,
    deltas: Vec<BucketDeltas>,
) -> Frame {
    Frame::new(writer, sequence, world.head().await.elapsed, keys, deltas)
}

pub(super) async fn a_frame_is_applied_whole(world: World) {
    let (first, second) = (world.bucket("1m", T0), world.bucket("1m", T0 + MINUTE));
    let mut both = delta(first, "a", &[1.0]);
    both.sources.push(("b".into(), moments(&[2.0])));
    world.put(vec![both, delta(second, "b", &[3.0])]).await;
    world.put(vec![delta(first, "a", &[5.0, 7.0])]).await;
    let got: Vec<_> = world.open(&["a", "b"]).await.lives.into_iter().map(|l| (l.life.bucket, l.moments)).collect();
    let expected = [
        (first, vec![Some(moments(&[1.0, 5.0, 7.0])), Some(moments(&[2.0]))]),
        (second, vec![None, Some(moments(&[3.0]))]),
    ];
    assert_eq!(got, expected);
    assert_eq!(world.head().await.sequence, 2);
}

pub(super) async fn a_frame_that_was_applied_is_a_duplicate(world: World) {
    let bucket = world.bucket("1m", T0);
    let first = frame(&world, WRITER, 1, vec![], vec![delta(bucket, "a", &[1.0])]).await;
    let second = frame(&world, WRITER, 2, vec![], vec![delta(bucket, "a", &[2.0])]).await;
    assert_eq!(world.apply(&first).await, Answer::Applied);
    check(&world, &first, Answer::Dup { checksum: first.checksum }).await;
    assert_eq!(world.apply(&second).await, Answer::Applied);
    check(&world, &second, Answer::Dup { checksum: second.checksum }).await;
    // The checksum is that of the last frame, so that a writer sees that somebody else has its id.
    check(&world, &first, Answer::Dup { checksum: second.checksum }).await;
    let stranger = frame(&world, WRITER, 2, vec![], vec![delta(bucket, "b", &[2.0])]).await;
    assert_ne!(stranger.checksum, second.checksum);
    check(&world, &stranger, Answer::Dup { checksum: second.checksum }).await;
    // Each writer has its own sequence.
    let other = frame(&world, OTHER_WRITER, 1, vec![], vec![delta(bucket, "a", &[1.0])]).await;
    assert_eq!(world.apply(&other).await, Answer::Applied);
}

pub(super) async fn a_hole_in_the_sequence_is_a_gap(world: World) {
    let deltas = vec![delta(world.bucket("1m", T0), "a", &[1.0])];
    check(&world, &frame(&world, WRITER, 2, vec![], deltas.clone()).await, Answer::Gap { last: 0 }).await;
    world.put(deltas.clone()).await;
    check(&world, &frame(&world, WRITER, 3, vec![], deltas.clone()).await, Answer::Gap { last: 1 }).await;
    check(&world, &frame(&world, OTHER_WRITER, 2, vec![], deltas).await, Answer::Gap { last: 0 }).await;
}

pub(super) async fn an_empty_frame_takes_its_place(world: World) {
    let empty = frame(&world, WRITER, 1, vec![], vec![]).await;
    assert_eq!(world.apply(&empty).await, Answer::Applied);
    assert_eq!(world.head().await.sequence, 1);
    check(&world, &empty, Answer::Dup { checksum: empty.checksum }).await;
    assert_eq!(super::due(&world).await.next, None);
}

pub(super) async fn a_frame_older_than_half_the_ttl_is_stale(world: World) {
    let deltas = vec![delta(world.bucket("1m", T0), "a", &[1.0])];
    let slow = frame(&world, WRITER, 1, vec![], deltas).await;
    world.elapse(POLICY.idempotency_ttl / 2 + 1).await;
    check(&world, &slow, Answer::Stale).await;
    let just = Frame { received: slow.received + 1, ..slow.clone() };
    assert_eq!(world.apply(&just).await, Answer::Applied);
    // What was applied is a duplicate for ever, never stale.
    check(&world, &slow, Answer::Dup { checksum: slow.checksum }).await;
}

pub(super) async fn counted_keys_are_named_with_their_fingerprint(world: World) {
    let bucket = world.bucket("1m", T0);
    let deltas = || vec![delta(bucket, "a", &[1.0])];
    let first = frame(&world, WRITER, 1, vec![key(1, 1), key(2, 2)], deltas()).await;
    assert_eq!(world.apply(&first).await, Answer::Applied);
    let mixed = frame(&world, WRITER, 2, vec![key(3, 3), key(2, 9), key(1, 1)], deltas()).await;
    check(&world, &mixed, Answer::Seen(vec![(1, [2; 16]), (2, [1; 16])])).await;
    // The frame without them goes under the same sequence: nothing of the other was recorded.
    let rebuilt = frame(&world, WRITER, 2, vec![key(3, 3)], deltas()).await;
    assert_eq!(world.apply(&rebuilt).await, Answer::Applied);
    check(&world, &mixed, Answer::Dup { checksum: rebuilt.checksum }).await;
}

pub(super) async fn keys_hold_for_every_writer_and_bucket(world: World) {
    let deltas = |t| vec![delta(world.bucket("1m", t), "a", &[1.0])];
    let first = frame(&world, WRITER, 1, vec![key(1, 1)], deltas(T0)).await;
    assert_eq!(world.apply(&first).await, Answer::Applied);
    // A retry of readings without timestamps after the minute is over, at another node.
    world.pass(20 * SECOND);
    let retry = frame(&world, OTHER_WRITER, 1, vec![key(1, 1)], deltas(T0 + MINUTE)).await;
    check(&world, &retry, Answer::Seen(vec![(0, [1; 16])])).await;
    // Also after the bucket has closed.
    world.set(T0 + 2 * MINUTE);
    let life = super::written(&world, world.bucket("1m", T0)).await;
    super::close_to_end(&world, life).await;
    check(&world, &retry, Answer::Seen(vec![(0, [1; 16])])).await;
}

pub(super) async fn a_closing_bucket_takes_no_readings(world: World) {
    let life = half_closed(&world, T0).await;
    let sequence = world.head().await.sequence + 1;
    let free = world.bucket("1m", world.now());
    let deltas = vec![delta(free, "a", &[1.0]), delta(life.bucket, "b", &[1.0])];
    let late = frame(&world, WRITER, sequence, vec![key(1, 1)], deltas).await;
    check(&world, &late, Answer::Closing(vec![life])).await;
    super::close_to_end(&world, life).await;
    assert_eq!(world.apply(&late).await, Answer::Applied);
}

pub(super) async fn late_buckets_are_refused_by_index(mut world: World) {
    let (late, fresh) = (world.bucket("1m", T0), world.bucket("1m", T0 + MINUTE));
    // Late is late, in the store or not.
    world.put(vec![delta(late, "a", &[1.0])]).await;
    world.reopen(Policy { late: Late::Refuse, ..POLICY }).await;
    world.set(late.end + POLICY.lateness - 1);
    world.put(vec![delta(late, "a", &[1.0])]).await;
    world.set(late.end + POLICY.lateness);
    let earlier = world.bucket("1m", T0 - MINUTE);
    let deltas = vec![delta(fresh, "a", &[1.0]), delta(late, "a", &[1.0]), delta(earlier, "b", &[1.0])];
    let sequence = world.head().await.sequence + 1;
    check(&world, &frame(&world, WRITER, sequence, vec![key(1, 1)], deltas.clone()).await, Answer::Late(vec![1, 2]))
        .await;
    // Late stays late when the clock goes back.
    world.pass(-HOUR);
    check(&world, &frame(&world, WRITER, sequence, vec![], deltas[1..].to_vec()).await, Answer::Late(vec![0, 1])).await;
    let rest = frame(&world, WRITER, sequence, vec![key(1, 1)], deltas[..1].to_vec()).await;
    assert_eq!(world.apply(&rest).await, Answer::Applied);
}

pub(super) async fn a_result_that_is_not_finite_is_refused(world: World) {
    let bucket = world.bucket("1m", T0);
    let of = |count: f64, sum: f64| Moments { count, sum: DoubleDouble { hi: sum, lo: 0.0 }, ..moments(&[1.0]) };
    let two = |m: Moments| BucketDeltas { bucket, sources: vec![("a".into(), moments(&[1.0])), ("b".into(), m)] };
    for (i, huge) in [of(1.0, f64::MAX), of(9e15, 1.0)].into_iter().enumerate() {
        let source = ["a", "b"][i];
        world.put(vec![BucketDeltas { bucket, sources: vec![(source.into(), huge.clone())] }]).await;
        let before = contents(&world).await;
        let mut deltas = two(moments(&[1.0]));
        deltas.sources[i].1 = huge;
        let bad = frame(&world, WRITER, before.0 + 1, vec![key(1, 1)], vec![deltas]).await;
        let answer = world.store.apply(0, &bad).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
        assert_eq!(contents(&world).await, before, "a refused frame changed something");
    }
}

pub(super) async fn the_order_of_checking(mut world: World) {
    let counted = frame(&world, WRITER, 1, vec![key(1, 1)], vec![]).await;
    assert_eq!(world.apply(&counted).await, Answer::Applied);
    let life: Life = half_closed(&world, T0).await;
    world.reopen(Policy { late: Late::Refuse, ..POLICY }).await;
    // The frame breaks every rule; each step mends the one that is found first.
    let last = world.head().await.sequence;
    let late = world.bucket("1m", T0 - MINUTE);
    let fresh = world.bucket("1m", world.now());
    let deltas = vec![delta(fresh, "a", &[1.0]), delta(life.bucket, "a", &[1.0]), delta(late, "a", &[1.0])];
    let again = Frame { keys: vec![key(1, 1)], ..counted.clone() };
    let mut bad = Frame { received: again.received - POLICY.idempotency_ttl, deltas, ..again };
    let before = world.store.apply(0, &bad).await.unwrap();
    assert!(matches!(before, Answer::Dup { .. }), "{before:?}");
    bad.sequence = last + 2;
    check(&world, &bad, Answer::Gap { last }).await;
    bad.sequence = last + 1;
    check(&world, &bad, Answer::Stale).await;
    bad.received = world.head().await.elapsed;
    check(&world, &bad, Answer::Seen(vec![(0, [1; 16])])).await;
    bad.keys.clear();
    check(&world, &bad, Answer::Closing(vec![life])).await;
    bad.deltas.remove(1);
    check(&world, &bad, Answer::Late(vec![1])).await;
    bad.deltas.remove(1);
    assert_eq!(world.apply(&bad).await, Answer::Applied);
}
