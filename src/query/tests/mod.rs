//! Queries against a store and a sink in memory: what moves, what is newer, what belongs together.
//!
//! Pages are in `pages.rs`, sources in `sources.rs`. `world.rs` is the store and the sink; the
//! tests drive it by hand. Times are minutes since 1970, so that minute 60 begins the second hour.

mod pages;
mod sources;
mod summaries;
pub(crate) mod world;

use super::*;
use crate::stats::row::Row;
use proptest::prelude::*;
use std::collections::BTreeMap;
use world::{Held, World};

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

pub(crate) fn query(world: &Arc<World>) -> Query {
    let calendar = Arc::new(world.lock().calendar.clone());
    Query::new(Arc::clone(world) as Arc<dyn Store>, Some(Arc::clone(world) as Arc<dyn Sink>), calendar)
}

fn ask(sources: &str, period: &str) -> StatsQuery {
    StatsQuery {
        sources: sources.split(',').map(Arc::from).collect(),
        period: Some(period.parse().unwrap()),
        limit: PAGE_ROWS,
        ..StatsQuery::default()
    }
}

/// A row as `source@minute count state`.
fn brief(page: &StatsPage) -> String {
    let row = |r: &StatsRow| format!("{}@{} {} {:?}", r.source, r.bucket.start / MINUTE, r.moments.count, r.state);
    page.rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

async fn check(world: &Arc<World>, asked: &StatsQuery, expected: &str) -> StatsPage {
    let page = query(world).stats(asked).await.unwrap();
    assert_eq!(brief(&page), expected, "{asked:?}");
    page
}

#[tokio::test]
async fn a_bucket_from_open_to_closed() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.0);
    check(&world, &ask("a", "1m"), "a@0 1 Open").await;
    world.lock().write(minute);
    check(&world, &ask("a", "1m"), "a@0 1 Settling").await;
    world.lock().close(minute);
    check(&world, &ask("a", "1m"), "a@0 1 Closed").await;
    check(&world, &ask("a", "1h"), "a@0 1 Open").await;
    let finest = StatsQuery { period: None, ..ask("a", "1h") };
    check(&world, &finest, "a@0 1 Closed").await;
}

#[tokio::test]
async fn a_bucket_that_moves_between_the_looks_is_read_again() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.0);
    world.lock().between.push_back(Box::new(move |state| state.close(minute)));
    let from_there = StatsQuery { from: Some(0), ..ask("a", "1m") };
    check(&world, &from_there, "a@0 1 Closed").await;
    assert_eq!(world.lock().looks, 3, "the second look is the first one of the next attempt");
}

/// The life is still there, closing; its revision came to the sink only after the sink was read.
#[tokio::test]
async fn a_source_that_moves_out_of_a_closing_life_is_read_again() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.0);
    world.lock().read("b", 0, 1.0);
    world.lock().write(minute);
    world.lock().read("a", 0, 2.0);
    world.lock().between.push_back(Box::new(move |state| {
        state.write(minute);
        state.move_up(minute, "a");
    }));
    check(&world, &ask("a,b", "1m"), "a@0 2 Closed, b@0 1 Settling").await;
}

#[tokio::test]
async fn a_closing_child_counts_once() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    for source in ["a", "b"] {
        world.lock().read(source, 0, 1.0);
        world.lock().read(source, MINUTE, 1.0);
    }
    world.lock().write(minute);
    world.lock().move_up(minute, "a");
    check(&world, &ask("a,b", "1h"), "a@0 2 Open, b@0 2 Open").await;
    check(&world, &ask("a,b", "1m"), "a@0 1 Closed, b@0 1 Settling, a@1 1 Open, b@1 1 Open").await;
}

/// They need not wait for it, nor those after it once it stands still.
#[tokio::test]
async fn what_starts_before_a_moving_bucket_is_answered() {
    let world = World::new("1m,1h", "UTC");
    let (first, third) = (world.bucket("1m", 0), world.bucket("1m", 2 * MINUTE));
    for minute in 0..4 {
        world.lock().read("a", minute * MINUTE, 1.0);
    }
    world.lock().close(first);
    for _ in 0..3 {
        world.lock().between.push_back(Box::new(move |state| {
            state.close(third);
            state.read("a", 2 * MINUTE, 1.0);
        }));
    }
    check(&world, &ask("a", "1m"), "a@0 1 Closed, a@1 1 Open, a@2 4 Open, a@3 1 Open").await;
}

#[tokio::test]
async fn what_never_stands_still_is_an_error() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.0);
    for _ in 0..20 {
        world.lock().between.push_back(Box::new(move |state| {
            state.close(minute);
            state.read("a", 0, 1.0);
        }));
    }
    let from_there = StatsQuery { from: Some(0), ..ask("a", "1m") };
    assert_eq!(query(&world).stats(&from_there).await, Err(QueryError::Moving));
}

fn readings(count: usize) -> Moments {
    let mut moments = Moments::EMPTY;
    (0..count).for_each(|_| moments.push(1.0));
    moments
}

/// A life and a row of one minute as (generation, count, revision); the row has two readings of
/// earlier lives as its base. `expected`: readings, state, generation, revision.
async fn check_rule(life: (i64, usize, i64), row: (i64, usize, i64), expected: (f64, State, i64, i64)) {
    let world = World::new("1m", "UTC");
    let bucket = world.bucket("1m", 0);
    let sources = [(Arc::from("a"), readings(life.1))].into();
    world.lock().lives.insert(bucket, Held { generation: life.0, revision: life.2, written: true, sources });
    let sunk = Row {
        source: "a".into(),
        bucket,
        generation: row.0,
        gen_count: row.1 as f64,
        revision: row.2,
        base: Some(readings(2)),
        state: readings(2 + row.1),
    };
    world.lock().rows.insert((bucket, "a".into()), sunk);
    let page = query(&world).stats(&ask("a", "1m")).await.unwrap();
    let got = &page.rows[0];
    assert_eq!((got.moments.count, got.state, got.generation, got.revision), expected, "{life:?} over {row:?}");
}

#[tokio::test]
async fn the_newer_of_life_and_row() {
    // The same life: more readings, then the later revision; the base stays.
    check_rule((5, 4, 11), (5, 3, 10), (6.0, State::Settling, 5, 11)).await;
    check_rule((5, 3, 11), (5, 3, 10), (5.0, State::Settling, 5, 11)).await;
    check_rule((5, 3, 10), (5, 3, 10), (5.0, State::Settling, 5, 10)).await;
    check_rule((5, 3, 9), (5, 3, 10), (5.0, State::Settling, 5, 10)).await;
    check_rule((5, 2, 99), (5, 3, 10), (5.0, State::Settling, 5, 10)).await;
    // A newer life has the whole row as its base, however few its readings.
    check_rule((6, 1, 1), (5, 3, 10), (6.0, State::Settling, 6, 1)).await;
    // An older one is a store that went back: the row alone.
    check_rule((4, 9, 99), (5, 3, 10), (5.0, State::Closed, 5, 10)).await;
}

#[tokio::test]
async fn a_coarse_answer_is_its_own_state_and_every_open_descendant_once() {
    let world = World::new("1m,1h,1d,1w,1mo", "UTC");
    for t in [0, MINUTE, HOUR, DAY] {
        world.lock().read("a", t, 1.0);
    }
    let expected = [("1h", "a@0 2 Open, a@60 1 Open, a@1440 1 Open"), ("1d", "a@0 3 Open, a@1440 1 Open")];
    for (period, expected) in expected {
        check(&world, &ask("a", period), expected).await;
    }
    let (first, hour, day) = (world.bucket("1m", 0), world.bucket("1h", 0), world.bucket("1d", 0));
    world.lock().close(first);
    check(&world, &ask("a", "1d"), "a@0 3 Open, a@1440 1 Open").await;
    world.lock().close(hour);
    check(&world, &ask("a", "1mo"), "a@0 4 Open").await;
    world.lock().write(day);
    check(&world, &ask("a", "1d"), "a@0 3 Settling, a@1440 1 Open").await;
    // A reading that is late for the closed minute is in its hour and its day at once.
    world.lock().read("a", 0, 1.0);
    check(&world, &ask("a", "1m"), "a@0 2 Open, a@1 1 Open, a@60 1 Open, a@1440 1 Open").await;
    check(&world, &ask("a", "1h"), "a@0 3 Settling, a@60 1 Open, a@1440 1 Open").await;
    check(&world, &ask("a", "1d"), "a@0 4 Settling, a@1440 1 Open").await;
    // Weeks begin on Monday, three days before 1970; both parents of the day have everything.
    check(&world, &ask("a", "1w"), "a@-4320 5 Open").await;
    check(&world, &ask("a", "1mo"), "a@0 5 Open").await;
}

/// A bucket read in pieces: the child moves up after the piece with its parent was read.
#[tokio::test]
async fn what_moves_between_two_pieces_of_a_look_is_read_again() {
    let world = World::new("1m,1h", "UTC");
    for minute in 0..4 {
        world.lock().read("a", minute * MINUTE, 1.0);
    }
    world.lock().open_buckets = 2;
    let last = world.bucket("1m", 3 * MINUTE);
    world.lock().between.push_back(Box::new(move |state| state.close(last)));
    check(&world, &ask("a", "1h"), "a@0 4 Open").await;
}

proptest! {
    /// Whatever was written, closed or read late, and even while the query is under way: every
    /// period answers with every reading, once.
    #[test]
    fn any_split_between_store_and_sink_gives_the_same_totals(
        steps in prop::collection::vec((0i64..200, 0u8..6), 1..60),
        during in prop::collection::vec((0i64..200, 2u8..5), 0..4),
        open_buckets in 1usize..20,
    ) {
        let world = World::new("1m,5m,15m,1h", "UTC");
        let mut counts: BTreeMap<i64, f64> = BTreeMap::new();
        let periods = ["1m", "5m", "15m", "1h"];
        let bucket = |minute: i64| world.bucket(periods[minute as usize % 4], minute * MINUTE);
        for &(minute, kind) in &steps {
            match kind {
                0..3 => {
                    world.lock().read("a", minute * MINUTE, minute as f64);
                    *counts.entry(minute).or_default() += 1.0;
                }
                3 => { let b = bucket(minute); world.lock().write(b) }
                _ => { let b = bucket(minute); world.lock().close(b) }
            }
        }
        prop_assume!(!counts.is_empty());
        world.lock().open_buckets = open_buckets * 4;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for period in ["1m", "5m", "10m", "15m", "30m", "1h", "1d"] {
            for &(minute, kind) in &during {
                let b = bucket(minute);
                let step: world::Step = if kind == 2 { Box::new(move |s| s.write(b)) } else { Box::new(move |s| s.close(b)) };
                world.lock().between.push_back(step);
            }
            let (mut got, mut cursor) = (BTreeMap::new(), None);
            loop {
                let asked = StatsQuery { limit: 7, cursor, ..ask("a", period) };
                let page = runtime.block_on(query(&world).stats(&asked)).unwrap();
                for row in page.rows {
                    prop_assert!(got.insert(row.bucket.start, row.moments.count).is_none());
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            let mut expected: BTreeMap<i64, f64> = BTreeMap::new();
            for (minute, count) in &counts {
                *expected.entry(world.bucket(period, minute * MINUTE).start).or_default() += count;
            }
            prop_assert_eq!(got, expected, "{}", period);
        }
    }
}
