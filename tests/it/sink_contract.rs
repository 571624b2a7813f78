//! The promises of the sink contract, one test each, for the CSV files and for PostgreSQL.
//!
//! A test is listed once more at the end; the list makes it two, one per sink. What only one of them
//! can suffer is in `postgres_faults.rs` and in the sink's own tests.

use crate::postgres_server::Database;
use crate::seeded::Seeded;
use crate::servers::temporary;
use crate::world::{DAY, HOUR, MINUTE, T0};
use meanwhile::sink::csv::CsvSink;
use meanwhile::sink::postgres::PostgresSink;
use meanwhile::sink::{RowQuery, Sink, WriteReport};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Period, Zone};
use meanwhile::stats::layout;
use meanwhile::stats::moments::{MAX_ABS_VALUE, Moments};
use meanwhile::stats::row::{LifeRow, Row, Update};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

const MINUTES: Period = Period::Seconds(60);
const HOURS: Period = Period::Seconds(3600);
/// Ids that are hard to keep apart, to quote or to order.
const IDS: [&str; 12] =
    ["", "'", "\"", "\\", "%_", "B", "a", "a{b=c,d=e}", "ab", "=1+1", "ünïcode ☃", "\u{10ffff}\u{1f600}"];

/// A sink under test, with what holds its rows.
pub(crate) struct Place {
    pub(crate) sink: Arc<dyn Sink>,
    _dir: Option<TempDir>,
}

impl Place {
    fn csv() -> Self {
        let dir = temporary();
        Self { sink: Arc::new(CsvSink::open(dir.path(), Zone::utc()).unwrap()), _dir: Some(dir) }
    }

    async fn postgres() -> Self {
        let sink = PostgresSink::new(&Database::new().url(), "postgres".to_owned()).unwrap();
        sink.prepare().await.unwrap();
        Self { sink: Arc::new(sink), _dir: None }
    }

    async fn write(&self, lives: &[LifeRow]) -> WriteReport {
        self.sink.write(lives.to_vec()).await.unwrap()
    }

    /// Sees what a write reports: written, same, older.
    async fn check_write(&self, lives: &[LifeRow], expected: (usize, usize, usize)) {
        let (written, same, older) = expected;
        assert_eq!(self.write(lives).await, WriteReport { written, same, older, refused: 0 });
    }

    async fn rows(&self, sources: &[&str], period: Period) -> Vec<Row> {
        self.sink.rows(&query(sources, period, 0, T0 + 1_000 * DAY, 0)).await.unwrap()
    }
}

pub(crate) fn life(source: &str, start: Millis, generation: i64, revision: i64, values: &[f64]) -> LifeRow {
    let mut moments = Moments::EMPTY;
    for &value in values {
        moments.push(value);
    }
    LifeRow { source: source.into(), bucket: bucket(MINUTES, start), generation, revision, moments }
}

fn bucket(period: Period, start: Millis) -> Bucket {
    Bucket { period, start, end: start + if period == HOURS { HOUR } else { MINUTE } }
}

fn query(sources: &[&str], period: Period, from: Millis, to: Millis, limit: usize) -> RowQuery {
    RowQuery { sources: sources.iter().map(|&source| source.into()).collect(), period, from, to, limit, doubles: 0 }
}

async fn versions_decide(place: Place) {
    place.check_write(&[life("a", T0, 5, 10, &[1.0])], (1, 0, 0)).await;
    place.check_write(&[life("a", T0, 5, 10, &[1.0])], (0, 1, 0)).await;
    place.check_write(&[life("a", T0, 5, 11, &[1.0, 2.0])], (1, 0, 0)).await;
    place.check_write(&[life("a", T0, 5, 12, &[1.0])], (0, 0, 1)).await;
    place.check_write(&[life("a", T0, 5, 10, &[1.0, 2.0])], (0, 0, 1)).await;
    place.check_write(&[life("a", T0, 5, 12, &[1.0, 2.0])], (1, 0, 0)).await;
    place.check_write(&[life("a", T0, 4, 99, &[1.0, 2.0, 3.0])], (0, 0, 1)).await;
    let rows = place.rows(&["a"], MINUTES).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].version(), rows[0].base.clone(), rows[0].state.sum.hi), ((5, 2.0, 12), None, 3.0));
}

async fn a_later_life_is_added(place: Place) {
    let (first, second) = (life("a", T0, 1, 10, &[0.1, 0.2]), life("a", T0, 7, 20, &[0.3]));
    place.check_write(std::slice::from_ref(&first), (1, 0, 0)).await;
    place.check_write(std::slice::from_ref(&second), (1, 0, 0)).await;
    place.check_write(&[second], (0, 1, 0)).await;
    place.check_write(&[life("a", T0, 7, 21, &[0.3, 0.4])], (1, 0, 0)).await;
    place.check_write(std::slice::from_ref(&first), (0, 0, 1)).await;
    place.check_write(&[life("a", T0, 9, 30, &[0.5])], (1, 0, 0)).await;
    let row = &place.rows(&["a"], MINUTES).await[0];
    let mut both = first.moments;
    both.merge(&life("", T0, 0, 0, &[0.3, 0.4]).moments);
    assert_eq!(row.base, Some(both.clone()), "the lives before the newest");
    both.merge(&Moments::of(0.5));
    assert_eq!((&row.state, row.version()), (&both, (9, 1.0, 30)));
}

fn vector(start: Millis, generation: i64, revision: i64, values: &[&[f64]]) -> LifeRow {
    let mut moments = Moments::EMPTY;
    for values in values {
        moments.push_vector(values);
    }
    LifeRow { moments, ..life("v", start, generation, revision, &[]) }
}

async fn vectors_stand_beside_numbers(place: Place) {
    let nasty = [f64::MIN_POSITIVE, MAX_ABS_VALUE, -0.1, 1.0 / 3.0];
    let lives = [
        vector(T0, 1, 1, &[&[0.1, 2.0], &[0.3, -7.0]]),
        life("a", T0, 1, 1, &[1.0]),
        vector(T0 + MINUTE, 1, 1, &[&nasty]),
    ];
    place.check_write(&lives, (3, 0, 0)).await;
    place.check_write(&lives, (0, 3, 0)).await;
    let more = vector(T0, 1, 2, &[&[0.1, 2.0], &[0.3, -7.0], &[0.5, 0.0]]);
    place.check_write(std::slice::from_ref(&more), (1, 0, 0)).await;
    let later = vector(T0, 5, 9, &[&[1.5, 2.5]]);
    place.check_write(std::slice::from_ref(&later), (1, 0, 0)).await;
    let rows = place.rows(&["v", "a"], MINUTES).await;
    let mut both = more.moments.clone();
    both.merge(&later.moments);
    assert_eq!((&rows[1].state, &rows[1].base), (&both, &Some(more.moments)));
    assert_eq!((&rows[0].state, &rows[2].state), (&lives[1].moments, &lives[2].moments));
}

async fn a_life_of_another_length_is_set_aside(place: Place) {
    place.check_write(&[vector(T0, 1, 1, &[&[0.1, 2.0]])], (1, 0, 0)).await;
    let before = place.rows(&["v"], MINUTES).await;
    let lives = [vector(T0, 5, 9, &[&[1.0, 2.0, 3.0]]), life("a", T0, 5, 9, &[1.0])];
    let report = place.write(&lives).await;
    assert_eq!(report, WriteReport { written: 1, same: 0, older: 0, refused: 1 });
    assert_eq!(place.rows(&["v"], MINUTES).await, before, "the row stays");
}

/// Rows of 64 numbers are read in parts of some megabytes, corrected and added to like any others.
async fn large_rows_come_in_parts(place: Place) {
    const SOURCES: usize = 48;
    let long = |n: usize| -> Vec<f64> { (0..64).map(|i| (n * 64 + i) as f64 / 7.0).collect() };
    let lives = |generation, revision, readings: &[usize]| -> Vec<LifeRow> {
        let values: Vec<Vec<f64>> = readings.iter().map(|n| long(*n)).collect();
        let values: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
        let life = |n: usize| LifeRow {
            source: format!("s{n:02}").into(),
            ..vector(T0 + (n % 2).cast_signed() as i64 * MINUTE, generation, revision, &values)
        };
        (0..SOURCES).map(life).chain([life_of_number(generation, revision, readings)]).collect()
    };
    let rows = SOURCES + 1;
    place.check_write(&lives(1, 10, &[0]), (rows, 0, 0)).await;
    place.check_write(&lives(1, 10, &[0]), (0, rows, 0)).await;
    place.check_write(&lives(1, 11, &[0, 1]), (rows, 0, 0)).await;
    place.check_write(&lives(5, 20, &[2]), (rows, 0, 0)).await;
    place.check_write(&lives(1, 11, &[0, 1]), (0, 0, rows)).await;
    let ids: Vec<Arc<str>> = lives(1, 10, &[0]).into_iter().map(|life| life.source).collect();
    let query = RowQuery { sources: ids, period: MINUTES, from: 0, to: T0 + DAY, limit: 0, doubles: 0 };
    let all = place.sink.rows(&query).await.unwrap();
    assert_eq!((all.len(), all.iter().map(|row| row.state.count).sum::<f64>()), (rows, 3.0 * rows as f64));
    assert!(all.iter().all(|row| row.version() == (5, 1.0, 20) && row.base.as_ref().map(|b| b.count) == Some(2.0)));
    // As many as have so many doubles, the last of them beyond it.
    for (doubles, expected) in [(7, 1), (4_424, 2), (4_425, 3), (1_000_000, rows)] {
        let some = RowQuery { doubles, ..query.clone() };
        let found = place.sink.rows(&some).await.unwrap();
        assert_eq!(found, all[..expected], "{doubles}");
        assert_eq!(some.is_filled_by(&found), expected < rows, "{doubles}");
    }
    let (mut scanned, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = place.sink.scan(after.as_deref(), 20_000).await.unwrap();
        assert!(page.rows.len() < 48, "a page of {}", page.rows.len());
        (scanned, after, pages) = ([scanned, page.rows].concat(), page.next, pages + 1);
        if after.is_none() {
            break;
        }
    }
    scanned.sort_by(|a, b| (a.bucket.start, &a.source).cmp(&(b.bucket.start, &b.source)));
    assert_eq!((scanned == all, pages), (true, 2));
    for partition in place.sink.compactable(T0 + 9 * DAY).await.unwrap() {
        place.sink.compact(&partition).await.unwrap();
    }
    assert_eq!(place.sink.rows(&query).await.unwrap(), all, "compacted");
    assert_eq!(place.sink.forget("s07").await.unwrap(), 1);
    assert_eq!(place.sink.rows(&query).await.unwrap().len(), rows - 1);
}

/// Before all others.
fn life_of_number(generation: i64, revision: i64, readings: &[usize]) -> LifeRow {
    life("a", T0, generation, revision, &readings.iter().map(|n| *n as f64).collect::<Vec<_>>())
}

async fn one_call_may_hold_several_versions(place: Place) {
    let lives = [
        life("a", T0, 1, 10, &[1.0]),
        life("b", T0, 1, 10, &[1.0]),
        life("a", T0, 1, 11, &[1.0, 2.0]),
        life("a", T0, 7, 20, &[4.0]),
    ];
    place.check_write(&lives, (4, 0, 0)).await;
    let rows = place.rows(&["a", "b"], MINUTES).await;
    let shown: Vec<(f64, Option<f64>)> =
        rows.iter().map(|row| (row.state.sum.hi, row.base.as_ref().map(|b| b.sum.hi))).collect();
    assert_eq!(shown, [(7.0, Some(3.0)), (1.0, None)]);
}

async fn every_double_arrives_bit_for_bit(place: Place) {
    let values =
        [f64::MIN_POSITIVE, 5e-324, 0.1, 1.0 / 3.0, MAX_ABS_VALUE, -MAX_ABS_VALUE, 1e16, 9_007_199_254_740_993.0];
    let lives: Vec<LifeRow> =
        (0..).zip(1..=values.len()).map(|(n, upto)| life("a", T0 + n * MINUTE, 1, 1, &values[..upto])).collect();
    place.check_write(&lives, (lives.len(), 0, 0)).await;
    for (row, life) in place.rows(&["a"], MINUTES).await.iter().zip(&lives) {
        assert_eq!(layout::encode(&row.state), layout::encode(&life.moments));
    }
}

async fn rows_come_in_order_and_up_to_a_limit(place: Place) {
    let mut lives = Vec::new();
    for minute in [3, 0, 2, 1] {
        lives.extend(["b", "a", "B"].map(|id| life(id, T0 + minute * MINUTE, 1, 1, &[1.0])));
    }
    lives.push(LifeRow { bucket: bucket(HOURS, T0), ..life("a", T0, 1, 1, &[1.0]) });
    place.check_write(&lives, (13, 0, 0)).await;
    let check = async |sources: &[&str], from: Millis, to: Millis, limit: usize, expected: &str| {
        let query = query(sources, MINUTES, T0 + from * MINUTE, T0 + to * MINUTE, limit);
        let rows = place.sink.rows(&query).await.unwrap();
        let shown = |row: &Row| format!("{}{}", row.source, (row.bucket.start - T0) / MINUTE);
        assert_eq!(rows.iter().map(shown).collect::<Vec<_>>().join(" "), expected, "{query:?}");
    };
    check(&["a", "b", "B"], 0, 2, 0, "B0 a0 b0 B1 a1 b1").await;
    check(&["b", "a"], 0, 9, 3, "a0 b0 a1").await;
    check(&["a"], 1, 3, 0, "a1 a2").await;
    check(&["a"], 1, 9, 1, "a1").await;
    check(&["a", "nobody"], 3, 4, 5, "a3").await;
    check(&["nobody"], 0, 9, 5, "").await;
    check(&[], 0, 9, 5, "").await;
    assert_eq!(place.rows(&["a"], HOURS).await.len(), 1);
    assert_eq!(place.rows(&["a"], Period::Day).await.len(), 0);
}

async fn sources_come_in_the_order_of_bytes(place: Place) {
    let ids: Vec<String> = IDS.iter().map(|id| format!("x{id}")).collect();
    let lives: Vec<LifeRow> = ids.iter().map(|id| life(id, T0 + MINUTE, 1, 1, &[1.0])).collect();
    place.write(&lives).await;
    place.write(&[life(&ids[0], T0 + HOUR, 1, 1, &[1.0]), life("a", T0, 1, 1, &[1.0])]).await;
    place.write(&[life(&ids[0], T0, 1, 1, &[1.0])]).await;
    let check = async |prefix: &str, after: Option<&str>, limit: usize| {
        let mut expected: Vec<&str> = ids.iter().map(String::as_str).chain(["a"]).collect();
        expected.sort_unstable();
        expected.retain(|id| id.starts_with(prefix) && after.is_none_or(|after| *id > after));
        expected.truncate(limit);
        let found = place.sink.sources(prefix, after, limit).await.unwrap();
        assert_eq!(
            found.iter().map(|span| &*span.source).collect::<Vec<_>>(),
            expected,
            "{prefix:?} {after:?} {limit}"
        );
    };
    check("", None, 100).await;
    for limit in [1, 2, 5] {
        check("x", None, limit).await;
        check("xa", Some("xa"), limit).await;
        check("x", Some("xB"), limit).await;
        check("x", Some("a"), limit).await;
    }
    for id in &ids {
        check(id, None, 3).await;
        check("", Some(id), 3).await;
        let rows = place.rows(&[id], MINUTES).await;
        assert!(!rows.is_empty() && rows.iter().all(|row| *row.source == **id), "{id}");
    }
    check("z", None, 1).await;
    check("x", Some("z"), 1).await;
    let first = &place.sink.sources(&ids[0], None, 1).await.unwrap()[0];
    assert_eq!((first.first, first.last), (T0, T0 + HOUR));
}

async fn a_large_write_is_whole(place: Place) {
    let lives = |values: &[f64]| -> Vec<LifeRow> {
        (0..12_345)
            .map(|n| life(&format!("s{n}"), T0 + (n % 7) * MINUTE, 1, values.len().cast_signed() as i64, values))
            .collect()
    };
    place.check_write(&lives(&[1.0]), (12_345, 0, 0)).await;
    place.check_write(&lives(&[1.0, 2.0]), (12_345, 0, 0)).await;
    place.check_write(&lives(&[1.0, 2.0]), (0, 12_345, 0)).await;
    assert_eq!(place.sink.sources("", None, 20_000).await.unwrap().len(), 12_345);
    let ids: Vec<String> = (0..12_345).map(|n| format!("s{n}")).collect();
    let rows = place.rows(&ids.iter().map(String::as_str).collect::<Vec<_>>(), MINUTES).await;
    assert_eq!((rows.len(), rows.iter().map(|row| row.state.count).sum::<f64>()), (12_345, 24_690.0));
}

/// Random lives, in any order and repeated, against a map and the one rule.
async fn random_schedules_agree_with_the_rule(place: Place) {
    let mut seeded = Seeded::new(7);
    let mut oracle: BTreeMap<(Millis, Arc<str>), Row> = BTreeMap::new();
    for _ in 0..120 {
        let mut lives: Vec<LifeRow> = Vec::new();
        for _ in 0..=seeded.below(12) {
            let (source, minute) = (["a", "b", "c"][seeded.below(3) as usize], seeded.below(3).cast_signed());
            let values: Vec<f64> = (0..=seeded.below(3)).map(|_| seeded.below(1_000) as f64 / 7.0).collect();
            let (generation, revision) = (1 + seeded.below(4).cast_signed(), seeded.below(4).cast_signed());
            lives.push(life(source, T0 + minute * MINUTE, generation, revision, &values));
        }
        // Versions of one life that come in one call arrive in their order, as from the store.
        lives.sort_by_key(|life| (life.generation, life.moments.count as i64, life.revision));
        let mut expected = (0, 0, 0);
        for life in &lives {
            let key = (life.bucket.start, Arc::clone(&life.source));
            match Row::update(oracle.get(&key), life) {
                Update::Write(row) => {
                    expected.0 += 1;
                    oracle.insert(key, row);
                }
                Update::Unlike(unlike) => panic!("{unlike}"),
                Update::Same => expected.1 += 1,
                Update::Older => expected.2 += 1,
            }
        }
        place.check_write(&lives, expected).await;
    }
    assert_eq!(place.rows(&["a", "b", "c"], MINUTES).await, oracle.into_values().collect::<Vec<_>>());
}

/// Makes a test of each promise for each sink.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod csv {
            $(#[test] fn $promise() { super::block_on(async { super::$promise(super::Place::csv()).await }); })*
        }
        mod postgres {
            $(#[test] fn $promise() { super::block_on(async { super::$promise(super::Place::postgres().await).await }); })*
        }
    };
}

promises!(
    versions_decide,
    a_later_life_is_added,
    vectors_stand_beside_numbers,
    a_life_of_another_length_is_set_aside,
    large_rows_come_in_parts,
    one_call_may_hold_several_versions,
    every_double_arrives_bit_for_bit,
    rows_come_in_order_and_up_to_a_limit,
    sources_come_in_the_order_of_bytes,
    a_large_write_is_whole,
    random_schedules_agree_with_the_rule,
);

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
