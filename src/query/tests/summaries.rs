//! Summaries against plain sums of the readings: any range, while buckets open, close and move up.

use super::check as check_rows;
use super::*;
use crate::stats::complete::Complete;

async fn sum(world: &Arc<World>, asked: &SummaryQuery) -> Result<(Vec<SummaryRow>, Summary), QueryError> {
    let mut summary = Arc::new(query(world)).summary(asked, &|_| true, 0).await?;
    let mut rows = Vec::new();
    while let Some(more) = summary.next().await? {
        rows.extend(more);
    }
    Ok((rows, summary))
}

fn asked(sources: &str, by: By) -> SummaryQuery {
    let sources = sources.split(',').filter(|id| !id.is_empty()).map(Arc::from).collect();
    SummaryQuery { sources, prefix: None, from: None, to: None, by }
}

/// Rows as `source@start..end count state`, in minutes.
async fn check(world: &Arc<World>, asked: &SummaryQuery, expected: &str) -> Summary {
    let (rows, summary) = sum(world, asked).await.unwrap();
    let row = |r: &SummaryRow| {
        let source = r.source.as_deref().unwrap_or("-");
        format!("{source}@{}..{} {} {:?}", r.start / MINUTE, r.end / MINUTE, r.moments.count, r.state)
    };
    assert_eq!(rows.iter().map(row).collect::<Vec<_>>().join(", "), expected, "{asked:?}");
    summary
}

/// Minutes 0, 1 and 60 of `a`, minute 1 of `b`; minute 0 and then its hour are closed.
fn world() -> Arc<World> {
    let world = World::new("1m,1h", "UTC");
    for (source, minute) in [("a", 0), ("a", 1), ("b", 1), ("a", 60)] {
        world.lock().read(source, minute * MINUTE, minute as f64);
    }
    let (minute, hour) = (world.bucket("1m", 0), world.bucket("1h", 0));
    world.lock().close(minute);
    world.lock().write(hour);
    world
}

#[tokio::test]
async fn by_source_by_period_and_all_together() {
    let world = world();
    let all = SummaryQuery { prefix: Some(String::new()), ..asked("", By::Source) };
    let summary = check(&world, &all, "a@0..120 3 Open, b@0..120 1 Open").await;
    assert_eq!((summary.sources(), summary.partial()), (2, false));
    let hours: Vec<Tile> = summary.tiles().collect();
    assert_eq!(hours, [Tile { period: Period::Seconds(3_600), from: 0, to: 2 * HOUR }]);
    check(&world, &SummaryQuery { by: By::None, ..all.clone() }, "-@0..120 4 Open").await;
    let hourly = SummaryQuery { by: By::Period("1h".parse().unwrap()), ..all.clone() };
    check(&world, &hourly, "-@0..60 3 Open, -@60..120 1 Open").await;
    check(&world, &asked("b", By::Source), "b@0..60 1 Open").await;
    // A bucket of the period has what lies in the range, and says so; one without readings has no row.
    let cut = SummaryQuery { from: Some(MINUTE), to: Some(61 * MINUTE), ..hourly };
    check(&world, &cut, "-@1..60 2 Open, -@60..61 1 Open").await;
    let empty = SummaryQuery { from: Some(10 * MINUTE), to: Some(20 * MINUTE), ..asked("a", By::None) };
    check(&world, &empty, "").await;
    let nothing = SummaryQuery { prefix: Some("c".into()), ..asked("", By::None) };
    assert_eq!(check(&world, &nothing, "").await.covered(), None);
}

#[tokio::test]
async fn what_is_covered_is_whole_buckets() {
    let inside = SummaryQuery { from: Some(30_000), to: Some(60 * MINUTE + 1), ..asked("a", By::Source) };
    let summary = check(&world(), &inside, "a@0..61 3 Open").await;
    assert_eq!(summary.covered(), Some((0, 61 * MINUTE)));
}

#[tokio::test]
async fn ranges_without_anything_in_them() {
    let before = SummaryQuery { to: Some(-HOUR), ..asked("a", By::Source) };
    let summary = check(&world(), &before, "").await;
    assert_eq!((summary.covered(), summary.tiles().count()), (Some((0, 0)), 0), "an end before the first bucket");
    let world = World::new("1d", "UTC");
    world.lock().read("a", 0, 1.0);
    let all = SummaryQuery { from: Some(Millis::MIN), to: Some(Millis::MAX), ..asked("a", By::Source) };
    let (rows, summary) = sum(&world, &all).await.unwrap();
    assert_eq!((rows.len(), summary.covered()), (1, Some((EARLIEST, LATEST))));
}

#[tokio::test]
async fn what_is_refused() {
    let world = world();
    let unknown = sum(&world, &asked("a,c", By::Source)).await.err().unwrap();
    assert!(matches!(unknown, QueryError::UnknownSource { .. }), "{unknown}");
    let far = SummaryQuery { from: Some(-30_000 * DAY), ..asked("a", By::Period("1m".parse().unwrap())) };
    let refused = |error: QueryError, name: &str| {
        assert!(matches!(error, QueryError::Refused { parameter, .. } if parameter == name), "{error}");
    };
    refused(sum(&world, &far).await.err().unwrap(), "period");
    let minutes = World::new("1m", "UTC");
    minutes.lock().read("a", 0, 1.0);
    let far = SummaryQuery { by: By::None, ..far };
    refused(sum(&minutes, &far).await.err().unwrap(), "from");
    let too_fine = asked("a", By::Period("10s".parse().unwrap()));
    assert!(matches!(sum(&world, &too_fine).await, Err(QueryError::Period { .. })));
    world.lock().sink_down = true;
    assert!(check(&world, &asked("a", By::Source), "a@0..120 3 Open").await.partial());
}

/// Days are added to hours at noon of the second day; then comes a late reading of the first one.
#[tokio::test]
async fn a_period_that_was_added_later() {
    let world = World::new("1h", "UTC");
    let mut complete = Complete::default();
    complete.store(&world.lock().calendar, 0);
    let read = |t: Millis| {
        world.lock().read("a", t, 1.0);
        let hour = world.bucket("1h", t);
        world.lock().close(hour);
    };
    (0..36).for_each(|hour| read(hour * HOUR));
    let more = World::new("1h,1d", "UTC").lock().calendar.clone();
    complete.store(&more, 36 * HOUR);
    world.lock().calendar = more;
    world.lock().complete = complete;
    (36..80).for_each(|hour| read(hour * HOUR));
    read(5 * HOUR);
    for day in 0..3 {
        let day = world.bucket("1d", day * DAY);
        world.lock().close(day);
    }
    let days = ask("a", "1d");
    check_rows(&world, &days, "a@0 1 Closed, a@1440 12 Closed, a@2880 24 Closed, a@4320 8 Open").await;
    check(&world, &asked("a", By::None), "-@0..5760 81 Open").await;
    let daily = asked("a", By::Period(Period::Day));
    let expected = "-@0..1440 25 Closed, -@1440..2880 24 Closed, -@2880..4320 24 Closed, -@4320..5760 8 Open";
    check(&world, &daily, expected).await;
    let second = SummaryQuery { from: Some(DAY), to: Some(2 * DAY), ..asked("a", By::Source) };
    let summary = check(&world, &second, "a@1440..2880 24 Closed").await;
    let hours = Tile { period: Period::Seconds(3_600), from: DAY, to: 2 * DAY };
    assert_eq!(summary.tiles().collect::<Vec<_>>(), [hours]);
    world.lock().store_down = true;
    assert!(check(&world, &second, "a@1440..2880 12 Settling").await.partial(), "which hours count cannot be asked");
}

/// A look takes so many sources as a store promises to read at once.
#[tokio::test]
async fn more_sources_than_a_look_takes() {
    let world = World::new("1m,1h", "UTC");
    for source in 0..250 {
        world.lock().read(&format!("s{source:03}"), 0, 1.0);
        world.lock().read(&format!("s{source:03}"), MINUTE, 1.0);
    }
    let minute = world.bucket("1m", 0);
    world.lock().between.push_back(Box::new(move |state| state.close(minute)));
    let all = SummaryQuery { prefix: Some("s".into()), ..asked("", By::None) };
    check(&world, &all, "-@0..60 500 Open").await;
}

/// Of a day with 200 open minutes: fewer sources at once than there are.
#[tokio::test]
async fn the_states_of_a_look_are_bounded() {
    for open_buckets in [2_000, 50] {
        let world = World::new("1m,1d", "UTC");
        for source in 0..700 {
            let source: Arc<str> = format!("s{source:03}").into();
            (0..200).for_each(|minute| world.lock().read(&source, minute * MINUTE, 1.0));
        }
        world.lock().open_buckets = open_buckets;
        let all = SummaryQuery { prefix: Some("s".into()), ..asked("", By::None) };
        check(&world, &all, "-@0..1440 140000 Open").await;
        let most = world.lock().most_states;
        // Between two calls of the sink are the second look of one piece and the first of the next.
        assert!((20_000..=2 * 60_000).contains(&most), "{most}");
    }
}

/// A window gives up after ten looks between which something has moved.
#[tokio::test(start_paused = true)]
async fn what_stands_still_at_last_is_summed_up() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.0);
    for _ in 0..15 {
        world.lock().between.push_back(Box::new(move |state| {
            state.close(minute);
            state.read("a", 0, 1.0);
        }));
    }
    check(&world, &asked("a", By::None), "-@0..60 16 Open").await;
}

#[tokio::test]
async fn too_many_sources() {
    let world = World::new("1m", "UTC");
    world.lock().read("a", 0, 1.0);
    let minute = world.bucket("1m", 0);
    world.lock().write(minute);
    let row = world.lock().rows.pop_first().unwrap().1;
    for source in 0..=crate::query::MAX_SUMMARY_SOURCES {
        let source: Arc<str> = format!("s{source:06}").into();
        let row = Row { source: Arc::clone(&source), ..row.clone() };
        world.lock().rows.insert((minute, source), row);
    }
    let all = SummaryQuery { prefix: Some("s".into()), ..asked("", By::None) };
    let refused = sum(&world, &all).await.err().unwrap();
    assert!(matches!(refused, QueryError::Refused { parameter: "prefix", .. }), "{refused}");
}

proptest! {
    /// Random readings, of which random buckets are written and closed before and between the looks: every range has
    /// exactly its readings.
    #[test]
    fn any_range_while_buckets_move(
        readings in prop::collection::vec((0..3usize, 0..600i64, -50..50i32), 1..60),
        closed in prop::collection::vec(0..600i64, 0..20),
        moving in prop::collection::vec(0..600i64, 0..6),
        (from, length) in (0..500i64, 1..400i64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new("1m,10m,1h", "UTC");
            for (source, minute, value) in &readings {
                world.lock().read(["a", "b", "c"][*source], minute * MINUTE, f64::from(*value));
            }
            for minute in &closed {
                let bucket = world.bucket("1m", minute * MINUTE);
                world.lock().close(bucket);
                let bucket = world.bucket("10m", minute * MINUTE);
                world.lock().write(bucket);
            }
            for minute in &moving {
                let bucket = world.bucket("1m", minute * MINUTE);
                world.lock().between.push_back(Box::new(move |state| state.close(bucket)));
            }
            let known: Vec<&str> = ["a", "b", "c"].into_iter().enumerate()
                .filter(|(i, _)| readings.iter().any(|(source, ..)| source == i)).map(|(_, id)| id).collect();
            let (from, to) = (from * MINUTE, (from + length) * MINUTE);
            let asked = SummaryQuery { from: Some(from), to: Some(to), ..asked(&known.join(","), By::Source) };
            let (rows, summary) = sum(&world, &asked).await.unwrap();
            assert_eq!(summary.covered(), Some((from, to)));
            for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
                let of = |(source, minute, value): &(usize, i64, i32)|
                    (*source == i && (from..to).contains(&(minute * MINUTE))).then_some(f64::from(*value));
                let values: Vec<f64> = readings.iter().filter_map(of).collect();
                let row = rows.iter().find(|row| row.source.as_deref() == Some(id));
                let got = row.map_or((0.0, 0.0), |row| (row.moments.count, row.moments.sum.hi));
                assert_eq!(got, (values.len() as f64, values.iter().sum()), "{id}");
            }
        });
    }
}
