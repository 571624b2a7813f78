//! Ranges, periods that are not stored, and pages; the store and the sink are `world.rs`.

use super::*;

#[tokio::test]
async fn a_range_takes_buckets_by_their_start() {
    let world = World::new("1m,1h", "UTC");
    for minute in [0, 2, 59, 60, 119, 120] {
        world.lock().read("a", minute * MINUTE, 1.0);
    }
    let range = |period: &str, from: Millis, to: Millis| StatsQuery {
        from: Some(from * MINUTE),
        to: Some(to * MINUTE),
        ..ask("a", period)
    };
    check(&world, &range("1m", 59, 120), "a@59 1 Open, a@60 1 Open, a@119 1 Open").await;
    check(&world, &range("1h", 0, 61), "a@0 3 Open, a@60 2 Open").await;
    check(&world, &range("1h", 1, 60), "").await;
    check(&world, &range("30m", 1, 91), "a@30 1 Open, a@60 1 Open, a@90 1 Open").await;
    check(&world, &range("30m", 60, 60), "").await;
    check(&world, &range("1d", 0, 1), "a@0 6 Open").await;
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
    let hour = world.bucket("1h", 0);
    world.lock().close(hour);
    check(&world, &ask("a", "1d"), "a@0 150 Open").await;
    let page = query(&world).stats(&ask("a", "1y")).await.unwrap();
    assert_eq!((brief(&page).as_str(), page.rows[0].bucket.end), ("a@0 150 Open", 365 * DAY));
    let finer = query(&world).stats(&ask("a", "10s")).await;
    assert_eq!(finer, Err(QueryError::Period { period: "10s".parse().unwrap(), stored: "1m, 1h".into() }));
    let world = World::new("1mo", "UTC");
    world.lock().read("a", 0, 1.0);
    assert!(matches!(query(&world).stats(&ask("a", "1d")).await, Err(QueryError::Period { .. })));
}

/// Half an hour of summer time: days of one half of the year are tiled by hours, of the other by
/// minutes only. Days before the zone had a whole offset cannot be answered, if they have data.
#[tokio::test]
async fn each_bucket_is_answered_by_what_tiles_it() {
    let world = World::new("30m,1h", "Australia/Lord_Howe");
    let mut expected: BTreeMap<Millis, f64> = BTreeMap::new();
    // A quarter of an hour before and after 13:30 UTC, where winter days begin; summer days do at 13:00.
    for quarter in (0..2 * 365).map(|i| 20_100 * DAY + i / 2 * DAY + 53 * 15 * MINUTE + i % 2 * 30 * MINUTE) {
        world.lock().read("a", quarter, quarter as f64);
        *expected.entry(world.bucket("1d", quarter).start).or_default() += quarter as f64;
        let (half, hour) = (world.bucket("30m", quarter), world.bucket("1h", quarter));
        world.lock().close(half);
        world.lock().close(hour);
    }
    let page = query(&world).stats(&ask("a", "1d")).await.unwrap();
    let got: BTreeMap<Millis, f64> = page.rows.iter().map(|row| (row.bucket.start, row.moments.sum.hi)).collect();
    assert_eq!((got, page.next), (expected, None));
    assert!(page.rows.iter().all(|row| row.state == State::Closed));
    let before_standard_time = -27_500 * DAY;
    world.lock().read("a", before_standard_time, 1.0);
    assert!(matches!(query(&world).stats(&ask("a", "1d")).await, Err(QueryError::Period { .. })));
    let since = StatsQuery { from: Some(0), ..ask("a", "1d") };
    assert_eq!(query(&world).stats(&since).await.unwrap().rows.len(), page.rows.len());
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

/// 86 minutes are open: looks of 10 lives, or of fewer than one hour has, still miss nothing; a page
/// that would take too many looks ends early.
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
    world.lock().open_buckets = 2;
    assert!(query(&world).stats(&ask("a,b,c", "1m")).await.unwrap().next.is_some());
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
