//! What `page` and `open` show.

use super::{ack, sealed, written};
use crate::world::{HOUR, MINUTE, POLICY, T0, World, delta, moments, wide_delta, wide_source};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Bucket;
use meanwhile::stats::moments::Moments;
use meanwhile::store::{Life, OPEN_BUCKETS, OPEN_STATES, PAGE_SOURCES};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All pages of a life; of a source that comes twice the greater count is right.
async fn pages(world: &World, life: Life) -> BTreeMap<Arc<str>, Moments> {
    let mut all = BTreeMap::<Arc<str>, Moments>::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = world.store.page(0, life.bucket, life.generation, cursor.as_deref()).await.unwrap();
        let page = page.expect("the life is there");
        // Redis may give a little more than asked for.
        assert!(page.sources.len() <= 2 * PAGE_SOURCES, "a page of {} sources", page.sources.len());
        for (source, moments) in page.sources {
            let known = all.entry(source).or_default();
            if moments.count >= known.count {
                *known = moments;
            }
        }
        if page.next.is_none() {
            return all;
        }
        cursor = page.next;
    }
}

pub(super) async fn pages_hold_every_source_once(world: World) {
    let minute = world.bucket("1m", T0);
    let count = 2 * PAGE_SOURCES + 500;
    world.put(vec![wide_delta(minute, 0..count / 2)]).await;
    world.put(vec![wide_delta(minute, count / 2..count)]).await;
    world.put(vec![delta(minute, "Zürich {max}", &[0.1, 1e9])]).await;
    let got = pages(&world, sealed(&world, minute).await).await;
    let mut expected: BTreeMap<Arc<str>, Moments> =
        (0..count).map(|i| (wide_source(i).into(), Moments::of(1.0))).collect();
    expected.insert("Zürich {max}".into(), moments(&[0.1, 1e9]));
    assert!(got == expected, "{} of {} sources, or other moments", got.len(), expected.len());
}

pub(super) async fn a_page_of_another_generation_is_refused(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    world.set(minute.end + POLICY.lateness);
    let first = written(&world, minute).await;
    let page = |generation| world.store.page(0, minute, generation, None);
    assert!(page(first.generation).await.unwrap().is_some());
    assert_eq!(page(first.generation + 1).await.unwrap(), None);
    super::close_to_end(&world, first).await;
    assert_eq!(page(first.generation).await.unwrap(), None, "no life at all");
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    assert_eq!(page(first.generation).await.unwrap(), None, "another life");
    let other = Bucket { end: minute.end + 1, ..minute };
    let second = sealed(&world, minute).await;
    assert_eq!(world.store.page(0, other, second.generation, None).await.unwrap(), None, "another end, another bucket");
}

pub(super) async fn a_page_may_be_newer_than_the_seal(world: World) {
    let minute = world.bucket("1m", T0);
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    let life = sealed(&world, minute).await;
    world.put(vec![delta(minute, "a", &[2.0])]).await;
    assert_eq!(pages(&world, life).await, BTreeMap::from([("a".into(), moments(&[1.0, 2.0]))]));
}

pub(super) async fn lives_are_told_by_period_and_start(world: World) {
    let hour = |n: i64| world.bucket("1h", T0 + n * HOUR);
    let minute = |n: i64| world.bucket("1m", T0 + n * MINUTE);
    let buckets = [minute(0), minute(1), minute(60), hour(0), hour(1), minute(-1)];
    world.put(buckets.map(|b| delta(b, "a", &[1.0])).to_vec()).await;
    let check = async |periods: [&str; 2], from: Millis, to: Millis, expected: &[Bucket]| {
        let periods = periods.map(|p| p.parse().unwrap());
        let open = world.store.open(0, &["a".into(), "b".into()], &periods, from, to).await.unwrap();
        let got: Vec<_> = open.lives.iter().map(|l| l.life.bucket).collect();
        assert_eq!(got, expected, "{periods:?} from {from} to {to}");
        assert!(open.lives.iter().all(|l| l.moments == [Some(moments(&[1.0])), None]));
        assert_eq!(open.until, None);
    };
    check(["1m", "1h"], T0, T0 + HOUR, &[minute(0), minute(1), hour(0)]).await;
    check(["1h", "1m"], T0, T0 + HOUR + 1, &[hour(0), hour(1), minute(0), minute(1), minute(60)]).await;
    check(["1h", "1m"], T0 + 1, T0 + HOUR, &[minute(1)]).await;
    check(["1d", "1m"], T0 - MINUTE, T0, &[minute(-1)]).await;
    check(["1m", "1h"], T0, T0, &[]).await;
}

pub(super) async fn an_open_life_says_whether_it_was_written(world: World) {
    let minute = world.bucket("1m", T0);
    let check = async |expected: bool, revision: Option<i64>| {
        let lives = world.open(&["a"]).await.lives;
        assert_eq!(lives.len(), 1);
        assert_eq!(lives[0].written, expected);
        if let Some(revision) = revision {
            assert_eq!(lives[0].life.revision, revision);
        }
    };
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    check(false, None).await;
    let life = sealed(&world, minute).await;
    check(false, Some(life.revision)).await;
    ack(&world, life).await;
    check(true, Some(life.revision)).await;
    // Some revision of it is in the sink, also while a newer one is not.
    world.put(vec![delta(minute, "a", &[1.0])]).await;
    check(true, Some(life.revision)).await;
    let newer = sealed(&world, minute).await;
    check(true, Some(newer.revision)).await;
}

pub(super) async fn a_long_range_is_read_in_several_looks(world: World) {
    check_looks(&world, 1, OPEN_BUCKETS).await;
}

/// So that Redis never stalls: each life costs a look-up for each source.
pub(super) async fn a_look_for_many_sources_takes_fewer_lives(world: World) {
    check_looks(&world, 40, OPEN_STATES / 40).await;
}

/// Sees that `most` lives and two more are read in several looks of at most so many, each once.
async fn check_looks(world: &World, sources: usize, most: usize) {
    let sources: Vec<Arc<str>> =
        (0..sources).map(|i| if i == 0 { "a".into() } else { wide_source(i).into() }).collect();
    let count = Millis::try_from(most).unwrap() + 1;
    let minute = |i: Millis| world.bucket("1m", T0 + i * MINUTE);
    world.put((0..count).map(|i| delta(minute(i), "a", &[1.0])).collect()).await;
    world.put(vec![delta(world.bucket("1h", T0), "a", &[1.0])]).await;
    let periods = ["1h", "1m"].map(|p| p.parse().unwrap());
    let (mut from, mut got, mut looks) = (Some(T0), Vec::new(), 0);
    while let Some(start) = from {
        let open = world.store.open(0, &sources, &periods, start, Millis::MAX).await.unwrap();
        assert!(open.lives.len() <= most, "{} lives in one look", open.lives.len());
        assert!(open.until.is_none_or(|until| until > start), "no progress");
        got.extend(open.lives.iter().map(|l| l.life.bucket));
        from = open.until;
        looks += 1;
    }
    assert!(looks > 1);
    got.sort_unstable();
    let mut expected: Vec<Bucket> = (0..count).map(minute).collect();
    expected.push(world.bucket("1h", T0));
    assert!(got == expected, "{} lives instead of {}, or not each once", got.len(), expected.len());
}
