//! Readings that are vectors: they merge as numbers do, and two lengths of one source never meet, however far up.

use super::{close, close_to_end, written};
use crate::world::{DAY, HOUR, MINUTE, POLICY, SECOND, T0, World, delta, key, moments, wide_source};
use meanwhile::stats::calendar::Bucket;
use meanwhile::stats::layout;
use meanwhile::stats::moments::Moments;
use meanwhile::store::kin::{Clash, Kin};
use meanwhile::store::{Answer, BucketDeltas, Closed, Frame};
use std::collections::BTreeSet;

fn vectors(values: &[&[f64]]) -> Moments {
    let mut moments = Moments::EMPTY;
    for values in values {
        moments.push_vector(values);
    }
    moments
}

fn vector(bucket: Bucket, source: &str, values: &[&[f64]]) -> BucketDeltas {
    BucketDeltas { bucket, sources: vec![(source.into(), vectors(values))] }
}

/// The next frame, which says which buckets meet.
async fn frame(world: &World, deltas: Vec<BucketDeltas>) -> Frame {
    let head = world.head().await;
    let frame = Frame::new(crate::world::WRITER, head.sequence + 1, head.elapsed, Vec::new(), deltas);
    Frame { kin: Some(Kin::of(&world.calendar, &frame.deltas)), ..frame }
}

async fn put(world: &World, deltas: Vec<BucketDeltas>) {
    let frame = frame(world, deltas).await;
    assert_eq!(world.apply(&frame).await, Answer::Applied);
}

/// Sees that these deltas are refused for the one source in them, of which there are readings of `held` numbers.
async fn check_refused(world: &World, deltas: BucketDeltas, held: usize) {
    let before = (world.open(&["a", "b"]).await, world.head().await.sequence);
    let refused = world.apply(&frame(world, vec![deltas.clone()]).await).await;
    assert_eq!(refused, Answer::Unlike(vec![Clash { delta: 0, source: 0, held }]), "{deltas:?}");
    assert_eq!((world.open(&["a", "b"]).await, world.head().await.sequence), before, "it changed something");
}

pub(super) async fn vectors_and_numbers_merge_side_by_side(world: World) {
    let minute = world.bucket("1m", T0);
    let mut both = vector(minute, "a", &[&[1.0, 2.0], &[3.0, -5.0]]);
    both.sources.push(("b".into(), moments(&[4.0])));
    let long: Vec<f64> = (0..64).map(f64::from).collect();
    both.sources.push(("c".into(), vectors(&[&long])));
    put(&world, vec![both.clone()]).await;
    both.sources.rotate_left(1);
    put(&world, vec![both]).await;
    let lives = world.open(&["a", "b", "c"]).await.lives;
    let expected = [
        vectors(&[&[1.0, 2.0], &[3.0, -5.0], &[1.0, 2.0], &[3.0, -5.0]]),
        moments(&[4.0, 4.0]),
        vectors(&[&long, &long]),
    ];
    assert_eq!(lives[0].moments, expected.map(Some));
}

pub(super) async fn vectors_move_up_into_hour_and_day(world: World) {
    for minute in 0..3 {
        let x = minute as f64;
        put(&world, vec![vector(world.bucket("1m", T0 + minute * MINUTE), "a", &[&[x + 0.1, 1e9 - x, 7.0]])]).await;
    }
    world.set(T0 + HOUR + DAY);
    let mut expected = Moments::EMPTY;
    (0..3).for_each(|x| expected.merge(&vectors(&[&[f64::from(x) + 0.1, 1e9 - f64::from(x), 7.0]])));
    for (period, lives) in [("1m", 3), ("1h", 1)] {
        for i in 0..lives {
            let life = written(&world, world.bucket(period, T0 + i * MINUTE)).await;
            close_to_end(&world, life).await;
        }
    }
    let page = written(&world, world.bucket("1d", T0)).await;
    let page = world.store.page(0, page.bucket, page.generation, None).await.unwrap().unwrap();
    assert_eq!(page.sources.len(), 1);
    assert_eq!(layout::encode(&page.sources[0].1), layout::encode(&expected), "byte for byte");
}

pub(super) async fn a_frame_with_vectors_says_which_buckets_meet(mut world: World) {
    let minute = world.bucket("1m", T0);
    let plain = |deltas| async { Frame { kin: None, ..frame(&world, deltas).await } };
    // Nobody asks of a store that has only seen numbers.
    assert_eq!(world.apply(&plain(vec![delta(minute, "b", &[1.0])]).await).await, Answer::Applied);
    assert_eq!(world.apply(&plain(vec![vector(minute, "a", &[&[1.0, 2.0]])]).await).await, Answer::Mixed);
    assert_eq!(world.apply(&plain(vec![delta(minute, "b", &[1.0])]).await).await, Answer::Applied);
    put(&world, vec![vector(minute, "a", &[&[1.0, 2.0]])]).await;
    world.reopen(POLICY).await;
    let bare = Frame { kin: None, ..frame(&world, vec![delta(minute, "b", &[1.0])]).await };
    assert_eq!(world.apply(&bare).await, Answer::Mixed);
    let empty = Frame { keys: vec![key(1, 1)], deltas: vec![], kin: None, ..bare };
    assert_eq!(world.apply(&empty).await, Answer::Applied, "nothing meets anything");
}

pub(super) async fn another_length_in_the_same_bucket_is_refused(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, vec![vector(minute, "a", &[&[1.0, 2.0]]), delta(world.bucket("1m", T0 + MINUTE), "b", &[1.0])]).await;
    check_refused(&world, vector(minute, "a", &[&[1.0, 2.0, 3.0]]), 2).await;
    check_refused(&world, delta(minute, "a", &[1.0]), 2).await;
    check_refused(&world, vector(world.bucket("1m", T0 + MINUTE), "b", &[&[1.0, 2.0]]), 1).await;
    put(&world, vec![vector(minute, "a", &[&[3.0, 4.0]])]).await;
}

pub(super) async fn another_length_is_refused_wherever_the_two_would_meet(world: World) {
    let minute = |n| world.bucket("1m", T0 + n * MINUTE);
    // In another minute of the same hour; of another hour; neither hour nor day has anything yet.
    put(&world, vec![vector(minute(0), "a", &[&[1.0, 2.0]])]).await;
    check_refused(&world, delta(minute(1), "a", &[1.0]), 2).await;
    check_refused(&world, vector(minute(90), "a", &[&[1.0, 2.0, 3.0]]), 2).await;
    put(&world, vec![vector(minute(90), "a", &[&[1.0, 2.0]])]).await;
    // Not in that of another day.
    let tomorrow = world.bucket("1m", T0 + DAY);
    put(&world, vec![delta(tomorrow, "a", &[1.0])]).await;
    // Moved up into the hour, and then into the day.
    world.set(T0 + 2 * DAY);
    for bucket in [minute(0), minute(90), world.bucket("1h", T0), world.bucket("1h", T0 + 90 * MINUTE)] {
        let life = written(&world, bucket).await;
        close_to_end(&world, life).await;
        check_refused(&world, delta(minute(2), "a", &[1.0]), 2).await;
        check_refused(&world, delta(minute(500), "a", &[1.0]), 2).await;
    }
    let day = written(&world, world.bucket("1d", T0)).await;
    close_to_end(&world, day).await;
    put(&world, vec![delta(minute(2), "a", &[1.0])]).await;
}

pub(super) async fn every_source_of_another_length_is_named(world: World) {
    let (first, second) = (world.bucket("1m", T0), world.bucket("1m", T0 + MINUTE));
    let wide = |bucket, from: usize, to: usize, values: &[f64]| BucketDeltas {
        bucket,
        sources: (from..to).map(|i| (wide_source(i).into(), vectors(&[values]))).collect(),
    };
    put(&world, vec![wide(first, 0, 900, &[1.0, 2.0])]).await;
    put(&world, vec![delta(second, "b", &[1.0])]).await;
    let mut mixed = wide(second, 898, 903, &[1.0, 2.0, 3.0]);
    mixed.sources.push(("b".into(), moments(&[1.0])));
    let bad = frame(&world, vec![delta(first, "c", &[1.0]), mixed]).await;
    let clash = |source| Clash { delta: 1, source, held: 2 };
    assert_eq!(world.apply(&bad).await, Answer::Unlike(vec![clash(0), clash(1)]));
    assert_eq!(world.open(&["c"]).await.lives[0].moments, [None]);
}

/// 60 sources of 64 numbers: pages, chunks of a close and looks end where some megabytes are read or merged.
pub(super) async fn large_states_come_in_parts(world: World) {
    let long: Vec<f64> = (0..64).map(f64::from).collect();
    let large = |bucket, from: usize, to: usize| BucketDeltas {
        bucket,
        sources: (from..to).map(|i| (wide_source(i).into(), vectors(&[&long]))).collect(),
    };
    let minute = |n| world.bucket("1m", T0 + n * MINUTE);
    for from in (0..60).step_by(3) {
        put(&world, vec![large(minute(0), from, from + 3)]).await;
        put(&world, vec![large(minute(1), from, from + 3)]).await;
    }
    let sources: Vec<String> = (0..60).map(wide_source).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let open = world.open(&sources).await;
    assert_eq!((open.lives.len(), open.until), (1, Some(T0 + MINUTE)), "all of one start, and no more");
    assert_eq!(open.lives[0].moments, vec![Some(vectors(&[&long])); 60]);
    world.set(T0 + HOUR + DAY);
    let life = written(&world, minute(0)).await;
    let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = world.store.page(0, life.bucket, life.generation, cursor.as_deref()).await.unwrap().unwrap();
        seen.extend(page.sources.into_iter().map(|(source, moments)| (source, moments.count as u64)));
        (cursor, pages) = (page.next, pages + 1);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), pages > 1 || world.is_oracle()), (60, true), "{pages} pages");
    let (mut chunks, mut at) = (1, 0);
    while let Closed::More(next) = close(&world, life, at).await {
        (chunks, at) = (chunks + 1, next);
    }
    assert!(chunks >= 15 || world.is_oracle(), "{chunks} chunks");
    let life = written(&world, minute(1)).await;
    close_to_end(&world, life).await;
    let hour = world.bucket("1h", T0);
    let lives = world.store.open(0, &[wide_source(59).into()], &[hour.period], T0, T0 + HOUR).await.unwrap().lives;
    assert_eq!(lives[0].moments, [Some(vectors(&[&long, &long]))]);
}

pub(super) async fn a_forgotten_source_may_come_with_another_length(world: World) {
    let minute = world.bucket("1m", T0);
    put(&world, vec![vector(minute, "a", &[&[1.0, 2.0]])]).await;
    assert_eq!(world.store.forget(0, "a", &[minute]).await.unwrap(), 1);
    put(&world, vec![delta(minute, "a", &[1.0])]).await;
    check_refused(&world, vector(minute, "a", &[&[1.0, 2.0]]), 1).await;
    world.pass(SECOND);
}
