//! Queries against a store and a sink in memory: what moves, what is newer, what belongs together.
//!
//! `world.rs` is the store and the sink; the tests drive it by hand. Times are minutes since 1970,
//! so that minute 60 begins the second hour.

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
    Query::new(Arc::clone(world) as Arc<dyn Store>, Arc::clone(world) as Arc<dyn Sink>, calendar)
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
    check(&world, &ask("a", "1m"), "a@0 1 Closed").await;
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
    check(&world, &ask("a", "1m"), "a@0 2 Closed").await;
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
    assert_eq!(query(&world).stats(&ask("a", "1m")).await, Err(QueryError::Moving));
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

#[tokio::test]
async fn a_range_takes_buckets_by_their_start() {
    let world = World::new("1m,1h", "UTC");
    for minute in [0, 59, 60, 119, 120] {
        world.lock().read("a", minute * MINUTE, 1.0);
    }
    let range = |period: &str, from: Millis, to: Millis| StatsQuery {
        from: Some(from * MINUTE),
        to: Some(to * MINUTE),
        ..ask("a", period)
    };
    check(&world, &range("1m", 59, 120), "a@59 1 Open, a@60 1 Open, a@119 1 Open").await;
    check(&world, &range("1h", 0, 61), "a@0 2 Open, a@60 2 Open").await;
    check(&world, &range("1h", 1, 60), "").await;
    check(&world, &range("30m", 1, 91), "a@30 1 Open, a@60 1 Open, a@90 1 Open").await;
    check(&world, &range("30m", 60, 60), "").await;
    check(&world, &range("1d", 0, 1), "a@0 5 Open").await;
    check(&world, &range("1m", Millis::MIN / MINUTE, Millis::MAX / MINUTE), &{
        let all = query(&world).stats(&ask("a", "1m")).await.unwrap();
        brief(&all)
    })
    .await;
}

#[tokio::test]
async fn a_period_that_is_not_stored_merges_what_tiles_it() {
    let world = World::new("1m,1h", "UTC");
    for minute in 0..150 {
        world.lock().read("a", minute * MINUTE, 1.0);
        let bucket = world.bucket("1m", minute * MINUTE);
        match minute {
            0..60 => world.lock().close(bucket),
            60..120 => world.lock().write(bucket),
            _ => {}
        }
    }
    check(&world, &ask("a", "30m"), "a@0 30 Closed, a@30 30 Closed, a@60 30 Settling, a@90 30 Settling, a@120 30 Open")
        .await;
    check(&world, &ask("a", "1d"), "a@0 150 Open").await;
    let page = query(&world).stats(&ask("a", "1y")).await.unwrap();
    assert_eq!((brief(&page).as_str(), page.rows[0].bucket.end), ("a@0 150 Open", 365 * DAY));
    let finer = query(&world).stats(&ask("a", "10s")).await;
    assert_eq!(finer, Err(QueryError::Period { period: "10s".parse().unwrap(), stored: "1m, 1h".into() }));
}

/// Half an hour of summer time: days of one half of the year are tiled by hours, of the other by
/// minutes only. Days before the zone had a whole offset cannot be answered, if they have data.
#[tokio::test]
async fn each_bucket_is_answered_by_what_tiles_it() {
    let world = World::new("30m,1h", "Australia/Lord_Howe");
    for day in 0..365 {
        let t = 20_000 * DAY + day * DAY;
        world.lock().read("a", t, 1.0);
        let (half, hour) = (world.bucket("30m", t), world.bucket("1h", t));
        world.lock().close(half);
        world.lock().close(hour);
    }
    let page = query(&world).stats(&ask("a", "1d")).await.unwrap();
    assert_eq!((page.rows.len(), page.next), (365, None));
    assert!(page.rows.iter().all(|row| row.moments.count == 1.0 && row.state == State::Closed));
    let before_standard_time = -27_500 * DAY;
    world.lock().read("a", before_standard_time, 1.0);
    assert!(matches!(query(&world).stats(&ask("a", "1d")).await, Err(QueryError::Period { .. })));
    let since = StatsQuery { from: Some(0), ..ask("a", "1d") };
    assert_eq!(query(&world).stats(&since).await.unwrap().rows.len(), 365);
}

/// All pages, one after another, are the whole answer; `rows` is the most one call of the sink gave.
async fn check_pages(world: &Arc<World>, asked: &StatsQuery, limit: usize, rows: usize) {
    let whole = query(world).stats(asked).await.unwrap();
    assert_eq!(whole.next, None);
    world.lock().most_rows = 0;
    let (mut paged, mut cursor) = (Vec::new(), None);
    for _ in 0..2_000 {
        let page = query(world).stats(&StatsQuery { limit, cursor, ..asked.clone() }).await.unwrap();
        assert!(page.rows.len() <= limit);
        paged.extend(page.rows);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert!(paged == whole.rows, "{limit} rows a page give {} of {} rows", paged.len(), whole.rows.len());
    assert!(world.lock().most_rows <= rows, "{} rows read at once", world.lock().most_rows);
}

fn ten_hours() -> Arc<World> {
    let world = World::new("1m,1h", "UTC");
    for minute in 0..600 {
        let t = minute * MINUTE;
        for source in ["a", "b", "c"] {
            world.lock().read(source, t, minute as f64);
        }
        let bucket = world.bucket("1m", t);
        if minute % 7 != 0 {
            world.lock().close(bucket);
        }
    }
    world
}

#[tokio::test]
async fn pages_are_the_whole_answer() {
    let world = ten_hours();
    for limit in [1, 2, 3, 7, 100, 599, 1_799] {
        check_pages(&world, &ask("a,b,c", "1m"), limit, limit + 7).await;
    }
    check_pages(&world, &ask("a,b,c", "1h"), 4, 11).await;
    check_pages(&world, &ask("b,c", "15m"), 3, 2_000).await;
    check_pages(&world, &ask("a", "1d"), 1, 2_000).await;
}

/// 86 minutes are open: looks of 10 lives, or of fewer than one hour has, still miss nothing.
#[tokio::test]
async fn looks_that_do_not_reach_the_end_leave_nothing_out() {
    let world = ten_hours();
    let periods = ["1m", "15m", "1h", "1d"];
    let mut whole = Vec::new();
    for period in periods {
        whole.push(query(&world).stats(&ask("a,b,c", period)).await.unwrap().rows);
    }
    for open_buckets in [2, 10, 50] {
        world.lock().open_buckets = open_buckets;
        for (period, whole) in periods.iter().zip(&whole) {
            let (mut rows, mut cursor) = (Vec::new(), None);
            loop {
                let asked = StatsQuery { cursor, ..ask("a,b,c", period) };
                let page = query(&world).stats(&asked).await.unwrap();
                rows.extend(page.rows);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(&rows, whole, "{period} in looks of {open_buckets}");
        }
    }
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

#[tokio::test]
async fn rows_that_arrive_while_pages_are_turned_move_nothing() {
    let world = World::new("1m", "UTC");
    for minute in 0..4 {
        world.lock().read("b", minute * MINUTE, 1.0);
    }
    let page = |cursor: Option<String>| StatsQuery { limit: 2, cursor, ..ask("b", "1m") };
    let first = check(&world, &page(None), "b@0 1 Open, b@1 1 Open").await;
    world.lock().read("b", MINUTE / 2, 1.0);
    world.lock().read("b", -MINUTE, 1.0);
    let minute = world.bucket("1m", 2 * MINUTE);
    world.lock().close(minute);
    let second = check(&world, &page(first.next), "b@2 1 Closed, b@3 1 Open").await;
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn one_side_down() {
    let world = World::new("1m", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.0);
    world.lock().close(minute);
    world.lock().read("a", MINUTE, 1.0);
    let whole = check(&world, &ask("a", "1m"), "a@0 1 Closed, a@1 1 Open").await;
    assert!(!whole.partial);
    world.lock().store_down = true;
    assert!(check(&world, &ask("a", "1m"), "a@0 1 Settling").await.partial);
    assert!(check(&world, &ask("a", "1d"), "a@0 1 Settling").await.partial);
    assert!(check(&world, &ask("nobody", "1m"), "").await.partial, "the store may know it");
    assert!(query(&world).sources("", 10, None).await.unwrap().partial);
    world.lock().sink_down = true;
    for period in ["1m", "1d"] {
        assert!(matches!(query(&world).stats(&ask("a", period)).await, Err(QueryError::Unavailable(_))));
    }
    assert!(matches!(query(&world).sources("", 10, None).await, Err(QueryError::Unavailable(_))));
    assert!(matches!(query(&world).state(&"a".into()).await, Err(QueryError::Unavailable(_))));
    world.lock().store_down = false;
    assert!(check(&world, &ask("a", "1m"), "a@1 1 Open").await.partial);
    assert!(check(&world, &ask("a", "1d"), "a@0 1 Open").await.partial);
    assert!(query(&world).sources("", 10, None).await.unwrap().partial);
}

#[tokio::test]
async fn an_unknown_source_is_an_error_and_a_silent_one_is_not() {
    let world = World::new("1m", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("kitchen", 0, 1.0);
    world.lock().close(minute);
    world.lock().read("kitchen2", 0, 1.0);
    let later = |sources: &str| StatsQuery { from: Some(MINUTE), ..ask(sources, "1m") };
    check(&world, &later("kitchen,kitchen2"), "").await;
    let near = vec!["kitchen".into(), "kitchen2".into()];
    let expected = QueryError::UnknownSource { id: "kitchn".into(), near };
    assert_eq!(query(&world).stats(&later("kitchen,kitchn")).await, Err(expected.clone()));
    assert_eq!(query(&world).stats(&ask("kitchen,kitchn", "1m")).await, Err(expected.clone()));
    assert_eq!(query(&world).state(&"kitchn".into()).await, Err(expected));
    // The id of a source is the beginning of another one's, and not a source.
    assert!(query(&world).stats(&ask("kitch", "1m")).await.is_err());
    assert_eq!(query(&world).state(&"kitchen".into()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn sources_of_both_sides_with_their_spans() {
    let world = World::new("1m", "UTC");
    let minute = world.bucket("1m", 0);
    for source in ["attic", "kitchen", "kitchen2"] {
        world.lock().read(source, 0, 1.0);
    }
    world.lock().close(minute);
    for source in ["cellar", "kitchen", "kitchen3"] {
        world.lock().read(source, 5 * MINUTE, 1.0);
    }
    let query = query(&world);
    let check = async |prefix: &str, limit: usize, cursor: Option<String>, expected: &str| {
        let page = query.sources(prefix, limit, cursor.as_deref()).await.unwrap();
        let brief = |s: &crate::sink::SourceSpan| format!("{} {}-{}", s.source, s.first / MINUTE, s.last / MINUTE);
        assert_eq!(page.sources.iter().map(brief).collect::<Vec<_>>().join(", "), expected, "{prefix:?}");
        page.next
    };
    let all = "attic 0-0, cellar 5-5, kitchen 0-5, kitchen2 0-0, kitchen3 5-5";
    assert_eq!(check("", 10, None, all).await, None);
    assert_eq!(check("", 5, None, all).await, None);
    assert_eq!(check("kitchen", 10, None, "kitchen 0-5, kitchen2 0-0, kitchen3 5-5").await, None);
    assert_eq!(check("x", 10, None, "").await, None);
    let next = check("", 2, None, "attic 0-0, cellar 5-5").await;
    let next = check("", 2, next, "kitchen 0-5, kitchen2 0-0").await;
    assert_eq!(check("", 2, next, "kitchen3 5-5").await, None);
    assert_eq!(query.sources("", 2, Some("x")).await, Err(QueryError::Cursor));
}

#[tokio::test]
async fn the_state_of_a_source_is_each_life_by_itself() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.5);
    world.lock().close(minute);
    world.lock().read("a", MINUTE, 2.0);
    let next = world.bucket("1m", MINUTE);
    world.lock().write(next);
    let states = query(&world).state(&"a".into()).await.unwrap();
    let brief: Vec<_> = states.iter().map(|s| (s.bucket.period.to_string(), s.moments, s.written)).collect();
    assert_eq!(brief, [("1h".into(), Moments::of(1.5), false), ("1m".into(), Moments::of(2.0), true)]);
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
