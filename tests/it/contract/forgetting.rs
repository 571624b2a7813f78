//! Naming all open buckets, and forgetting a source in them.

use super::closing::half_closed;
use super::{close_to_end, due, sealed, written};
use crate::world::{DAY, MINUTE, POLICY, T0, WRITER, World, delta, key, moments, wide_delta, wide_source};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Period};
use meanwhile::stats::moments::Moments;
use meanwhile::store::{Answer, Closed, Frame, PAGE_SOURCES, When};
use std::collections::BTreeSet;

async fn buckets(world: &World) -> (BTreeSet<Bucket>, usize) {
    let (mut found, mut pages, mut cursor) = (BTreeSet::new(), 0, None);
    loop {
        let page = world.store.buckets(0, cursor.as_deref()).await.unwrap();
        found.extend(page.buckets);
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            return (found, pages);
        }
    }
}

async fn forget(world: &World, source: &str, buckets: &[Bucket]) -> usize {
    world.store.forget(0, source, buckets).await.unwrap()
}

pub(super) async fn every_open_bucket_is_named(world: World) {
    assert_eq!(buckets(&world).await, (BTreeSet::new(), 1));
    let mut expected = BTreeSet::new();
    // Also of periods that nobody asks for any more, and of a day of another zone.
    let odd = [
        Bucket { period: Period::Seconds(7_200), start: T0, end: T0 + 7_200_000 },
        Bucket { period: Period::Year, start: T0 - DAY, end: T0 + DAY },
        Bucket { period: Period::Day, start: T0 - 1, end: T0 + DAY },
    ];
    let minutes = (0..2_500).map(|n| world.bucket("1m", T0 - n * MINUTE));
    let all: Vec<Bucket> = minutes.chain(odd).collect();
    for some in all.chunks(500) {
        world.put(some.iter().map(|bucket| delta(*bucket, "a", &[1.0])).collect()).await;
        expected.extend(some.iter().copied());
    }
    let (found, pages) = buckets(&world).await;
    assert!(found == expected, "{} of {} are named", found.len(), expected.len());
    assert!(pages > 1, "a call is bounded");
    let life = sealed(&world, all[0]).await;
    world.store.ack(0, life).await.unwrap();
    assert_eq!(world.store.close(0, life, &world.family(life.bucket), 0, When::Now).await.unwrap(), Closed::Done);
    let (found, _) = buckets(&world).await;
    assert!(!found.contains(&all[0]) && found.contains(&world.bucket("1h", all[0].start)), "closed, and moved up");
}

pub(super) async fn what_lives_hold_of_a_source_is_removed(mut world: World) {
    let lives = [0, 1, 2].map(|n| world.bucket("1m", T0 + n * MINUTE));
    let both = |bucket: Bucket| {
        let mut deltas = delta(bucket, "a", &[1.0]);
        deltas.sources.push(("a b".into(), moments(&[2.0])));
        deltas
    };
    world.put(vec![both(lives[0]), both(lives[1]), delta(lives[2], "a b", &[2.0])]).await;
    let before = (due(&world).await, world.open(&["a b"]).await);
    assert_eq!(forget(&world, "a", &lives[1..]).await, 1);
    assert_eq!(forget(&world, "a", &lives).await, 1);
    assert_eq!(forget(&world, "a", &lives).await, 0, "it may be repeated");
    assert_eq!(forget(&world, "b", &lives).await, 0, "another id");
    assert_eq!(forget(&world, "a", &[]).await, 0);
    assert_eq!(forget(&world, "a", &[world.bucket("1h", T0)]).await, 0, "no such life");
    assert!(world.open(&["a"]).await.lives.iter().all(|l| l.moments == [None]));
    assert_eq!((due(&world).await, world.open(&["a b"]).await), before, "nothing else has changed");
    world.crash().await;
    assert!(world.open(&["a"]).await.lives.iter().all(|l| l.moments == [None]), "it lasts");
    // A life of which nothing is left is written and closed like any other.
    assert_eq!(forget(&world, "a b", &lives).await, 3);
    let life = written(&world, lives[0]).await;
    world.set(lives[0].end + POLICY.lateness);
    close_to_end(&world, life).await;
}

pub(super) async fn a_forgotten_source_leaves_a_closing_life(world: World) {
    let life = half_closed(&world, T0).await;
    let hour = world.bucket("1h", T0);
    let sources: Vec<String> = (0..2 * PAGE_SOURCES + 500).map(wide_source).collect();
    // Some have moved up, some not: each is in one of the two.
    for source in sources.iter().step_by(100) {
        let found = (forget(&world, source, &[life.bucket]).await, forget(&world, source, &[hour]).await);
        assert!(matches!(found, (1, 0) | (0, 1)), "{source}: {found:?}");
    }
    close_to_end(&world, life).await;
    let names: Vec<&str> = sources.iter().map(String::as_str).collect();
    let [open] = &world.open(&names).await.lives[..] else { panic!("the hour alone") };
    let counts = |forgotten: bool| {
        let which = open.moments.iter().enumerate().filter(move |(i, _)| (i % 100 == 0) == forgotten);
        which.map(|(_, m)| m.as_ref().map_or(0.0, |m| m.count)).collect::<Vec<_>>()
    };
    assert!(counts(true).iter().all(|count| *count == 0.0), "{:?}", counts(true));
    assert!(counts(false).iter().all(|count| *count == 1.0));
}

pub(super) async fn a_forgotten_source_starts_anew(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0, 2.0])]).await;
    let first = written(&world, minute).await;
    forget(&world, "a", &[minute]).await;
    world.put(vec![delta(minute, "a", &[4.0])]).await;
    let second = sealed(&world, minute).await;
    assert_eq!(second.generation, first.generation);
    assert!(second.revision > first.revision);
    let page = world.store.page(0, minute, second.generation, None).await.unwrap().unwrap();
    assert_eq!(page.sources, [("a".into(), moments(&[4.0]))]);
}

pub(super) async fn keys_outlive_the_source(world: World) {
    let minute = world.bucket("1m", T0);
    let keyed = |sequence: u64, elapsed: Millis| {
        Frame::new(WRITER, sequence, elapsed, vec![key(1, 1)], vec![wide_delta(minute, 0..2)])
    };
    let elapsed = world.head().await.elapsed;
    assert_eq!(world.apply(&keyed(1, elapsed)).await, Answer::Applied);
    assert_eq!(forget(&world, &wide_source(0), &[minute]).await, 1);
    assert_eq!(world.apply(&keyed(2, elapsed)).await, Answer::Seen(vec![(0, [1; 16])]));
    assert!(matches!(world.apply(&keyed(1, elapsed)).await, Answer::Dup { .. }));
    let [open] = &world.open(&[&wide_source(0), &wide_source(1)]).await.lives[..] else { panic!("one life") };
    assert_eq!(open.moments, [None, Some(Moments::of(1.0))]);
}
