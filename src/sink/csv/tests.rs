//! The CSV sink as its callers see it, on real files.
//!
//! Crashes are made by hand: the files as they are at a step, and a start on them.

mod forget;
mod removal;

use super::disk::Disk;
use super::*;
use crate::stats::calendar::{Bucket, Calendar, Period};
use crate::stats::moments::Moments;
use crate::stats::timestamp;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

const MINUTE: Period = Period::Seconds(60);
/// 2026-11-20T00:00:00Z.
const DAY: Millis = 1_795_132_800_000;
const DATE_DIR: &str = "period=1m/date=2026-11-20";

fn life(source: &str, minute: i64, generation: i64, revision: i64, values: &[f64]) -> LifeRow {
    let mut moments = Moments::EMPTY;
    for &value in values {
        moments.push(value);
    }
    let start = DAY + minute * 60_000;
    let bucket = Bucket { period: MINUTE, start, end: start + 60_000 };
    LifeRow { source: source.into(), bucket, generation, revision, moments }
}

fn open(dir: &TempDir) -> CsvSink {
    CsvSink::open(dir.path(), Zone::utc()).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn write(sink: &CsvSink, lives: &[LifeRow]) -> Result<WriteReport, SinkError> {
    block_on(sink.write(lives.to_vec()))
}

/// (written, same, older) of a write that succeeds.
fn check_write(sink: &CsvSink, lives: &[LifeRow], expected: (usize, usize, usize)) {
    let report = write(sink, lives).unwrap();
    assert_eq!((report.written, report.same, report.older), expected);
}

fn query(sources: &[&str], from: Millis, to: Millis, limit: usize) -> RowQuery {
    RowQuery { sources: sources.iter().map(|&s| s.into()).collect(), period: MINUTE, from, to, limit, doubles: 0 }
}

fn all_rows(sink: &CsvSink, sources: &[&str]) -> Vec<Row> {
    block_on(sink.rows(&query(sources, Millis::MIN, Millis::MAX, 0))).unwrap()
}

/// Rows of some sources as `source@minute generation/gen_count/revision count sum`.
fn check_rows(sink: &CsvSink, sources: &[&str], expected: &[&str]) {
    let shown = |row: &Row| {
        let (g, n, r) = row.version();
        let minute = (row.bucket.start - DAY) / 60_000;
        format!("{}@{minute} {g}/{n}/{r} {} {}", row.source, row.state.count, row.state.sum.hi)
    };
    let rows: Vec<String> = all_rows(sink, sources).iter().map(shown).collect();
    assert_eq!(rows, expected);
}

fn file(dir: &TempDir, name: &str) -> PathBuf {
    dir.path().join(DATE_DIR).join(name)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn day() -> Partition {
    Partition { period: MINUTE, from: DAY, to: DAY + 86_400_000 }
}

fn unavailable(result: Result<WriteReport, SinkError>, expected: &str) {
    match result {
        Err(SinkError::Unavailable(message)) => assert!(message.contains(expected), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_rows_than_are_appended_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let lives: Vec<LifeRow> = (0..10_001).map(|n| life(&format!("s{n:05}"), n / 6_000, 1, 1, &[n as f64])).collect();
    let sink = open(&dir);
    check_write(&sink, &lives, (lives.len(), 0, 0));
    check_write(&sink, &lives, (0, lives.len(), 0));
    check_rows(
        &sink,
        &["s00000", "s09999", "s10000"],
        &["s00000@0 1/1/1 1 0", "s09999@1 1/1/1 1 9999", "s10000@1 1/1/1 1 10000"],
    );
    assert_eq!(text(&file(&dir, "tail.csv")).lines().count(), 1 + lives.len());
}

#[test]
fn nasty_ids_and_doubles_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let ids = ["=1+1", "'", "''a", "a,b", "\"q\"", " a ", "Zürich 🌡", "\u{feff}x", "temp{city=\"a,b\"}", "-", "@", "#"];
    let values = [0.1, -0.0, 1e140, -1e140, 5e-324, 10_000_000.2, 1.0 / 3.0];
    let lives: Vec<LifeRow> = ids.iter().map(|id| life(id, 0, 1, 1, &values)).collect();
    let sink = open(&dir);
    check_write(&sink, &lives, (ids.len(), 0, 0));
    let check = |sink: &CsvSink| {
        for (id, life) in ids.iter().zip(&lives) {
            let rows = all_rows(sink, &[id]);
            assert_eq!(rows.len(), 1, "{id}");
            assert_eq!((&*rows[0].source, &rows[0].state, rows[0].bucket), (*id, &life.moments, life.bucket));
        }
    };
    check(&sink);
    drop(sink);
    let sink = open(&dir);
    check(&sink);
    block_on(sink.compact(&day())).unwrap();
    check(&sink);
    check_write(&sink, &lives, (0, ids.len(), 0));
}

#[test]
fn corrections_later_lives_and_repetitions() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    check_write(
        &sink,
        &[life("a", 0, 1, 10, &[1.0]), life("b", 0, 1, 10, &[5.0]), life("a", 1, 1, 11, &[7.0])],
        (3, 0, 0),
    );
    let before = text(&file(&dir, "tail.csv"));
    check_write(&sink, &[life("a", 0, 1, 10, &[1.0])], (0, 1, 0));
    check_write(&sink, &[life("a", 0, 0, 99, &[1.0])], (0, 0, 1));
    assert_eq!(text(&file(&dir, "tail.csv")), before, "neither writes a line");
    check_write(&sink, &[life("a", 0, 1, 12, &[1.0, 2.0])], (1, 0, 0));
    check_write(&sink, &[life("a", 0, 5, 13, &[4.0]), life("c", 0, 5, 13, &[6.0])], (2, 0, 0));
    let expected = ["a@0 5/1/13 3 7", "b@0 1/1/10 1 5", "c@0 5/1/13 1 6", "a@1 1/1/11 1 7"];
    check_rows(&sink, &["a", "b", "c"], &expected);
    drop(sink);
    // Another process finds the rows in the file.
    let sink = open(&dir);
    check_rows(&sink, &["a", "b", "c"], &expected);
    check_write(&sink, &[life("a", 0, 5, 13, &[4.0])], (0, 1, 0));
    check_write(&sink, &[life("a", 0, 5, 14, &[4.0, 8.0])], (1, 0, 0));
    // And in the compacted file.
    block_on(sink.compact(&day())).unwrap();
    check_write(&sink, &[life("a", 0, 6, 15, &[16.0]), life("d", 0, 6, 15, &[1.0])], (2, 0, 0));
    check_rows(&sink, &["a", "d"], &["a@0 6/1/15 5 31", "d@0 6/1/15 1 1", "a@1 1/1/11 1 7"]);
}

#[test]
fn one_life_given_twice_in_one_call() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let (less, more) = (life("a", 0, 1, 10, &[1.0]), life("a", 0, 1, 10, &[1.0, 2.0]));
    check_write(&sink, &[less.clone(), more.clone(), more, less], (2, 1, 1));
    check_rows(&sink, &["a"], &["a@0 1/2/10 2 3"]);
}

/// What another sink has of a life that came to these earlier ones.
fn row(lives: &[LifeRow]) -> Row {
    lives
        .iter()
        .fold(None, |row, life| match Row::update(row.as_ref(), life) {
            crate::stats::row::Update::Write(row) => Some(row),
            other => panic!("{other:?}"),
        })
        .unwrap()
}

/// (written, same, older) of a put that succeeds.
fn check_put(sink: &CsvSink, rows: &[Row], expected: (usize, usize, usize)) {
    let report = block_on(sink.put(rows.to_vec())).unwrap();
    assert_eq!((report.written, report.same, report.older), expected);
}

#[test]
fn whole_rows_take_the_place_of_smaller_versions() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let first = life("a", 0, 1, 10, &[1.0]);
    let late = row(&[first.clone(), life("a", 0, 5, 13, &[0.1, 0.2])]);
    let rows = [late.clone(), row(&[life("b", 1, 1, 11, &[7.0])]), row(&[life("b", -2000, 1, 11, &[9.0])])];
    check_write(&sink, std::slice::from_ref(&first), (1, 0, 0));
    check_put(&sink, &rows, (3, 0, 0));
    check_put(&sink, &rows, (0, 3, 0));
    check_put(&sink, &[row(&[first])], (0, 0, 1));
    assert_eq!(all_rows(&sink, &["a"]), std::slice::from_ref(&late), "base, version and state as they came");
    drop(sink);
    let sink = open(&dir);
    assert_eq!(all_rows(&sink, &["a"]), [late]);
    check_put(&sink, &rows, (0, 3, 0));
    // The life goes on in the store, which knows nothing of the copy.
    check_write(&sink, &[life("a", 0, 5, 14, &[0.1, 0.2, 4.0])], (1, 0, 0));
    check_rows(&sink, &["a", "b"], &["b@-2000 1/1/11 1 9", "a@0 5/3/14 4 5.3", "b@1 1/1/11 1 7"]);
    assert_eq!(block_on(sink.sources("", None, 9)).unwrap().len(), 2);
}

/// All rows, page by page, each page by a sink that was just opened.
fn pages(dir: &TempDir, limit: usize) -> Vec<Row> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = block_on(open(dir).scan(after.as_deref(), limit)).unwrap();
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

#[test]
fn a_scan_gives_the_newest_version_of_every_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let day = |mut life: LifeRow| {
        life.bucket = Bucket { period: Period::Day, start: DAY, end: DAY + 86_400_000 };
        life
    };
    let ids = ["b", "a", "c d", "ü"];
    let old: Vec<LifeRow> = ids.iter().map(|id| life(id, -2000, 1, 1, &[1.0])).collect();
    check_write(&sink, &old, (4, 0, 0));
    block_on(sink.compact(&Partition { from: DAY - 2 * 86_400_000, to: DAY - 86_400_000, ..self::day() })).unwrap();
    let mut longer = life("a", 3, 1, 1, &[5.0]);
    longer.bucket.end += 1;
    check_write(&sink, &[life("a", 3, 1, 1, &[1.0]), longer, day(life("a", 0, 1, 1, &[1.0]))], (3, 0, 0));
    for revision in 2..5 {
        let values = vec![0.1; revision as usize];
        let lives: Vec<LifeRow> = ids.iter().map(|id| life(id, 3, 1, revision, &values)).collect();
        check_write(&sink, &lives, (4, 0, 0));
    }
    drop(sink);
    let shown: Vec<String> = pages(&dir, 1_000)
        .iter()
        .map(|row| {
            let Bucket { period, start, end } = row.bucket;
            format!("{period} {}@{} {} {}", row.source, (start - DAY) / 60_000, end - start, row.revision)
        })
        .collect();
    let minutes = ["a@-2000 60000 1", "b@-2000 60000 1", "c d@-2000 60000 1", "ü@-2000 60000 1"];
    let corrected = ["a@3 60000 4", "a@3 60001 1", "b@3 60000 4", "c d@3 60000 4", "ü@3 60000 4"];
    let mut expected: Vec<String> = minutes.iter().chain(&corrected).map(|row| format!("1m {row}")).collect();
    expected.push("1d a@0 86400000 1".to_owned());
    assert_eq!(shown, expected);
    for limit in 1..12 {
        assert_eq!(pages(&dir, limit), pages(&dir, 1_000), "{limit} a page");
    }
    match block_on(open(&dir).scan(Some("1m yesterday"), 1)) {
        Err(SinkError::Refused(message)) => assert!(message.contains("\"1m yesterday\" is no place"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_scan_holds_one_index_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let days: Vec<LifeRow> = (0..5).map(|day| life("a", day * 1_440, 1, 1, &[1.0])).collect();
    check_write(&sink, &days, (5, 0, 0));
    drop(sink);
    let sink = open(&dir);
    for partition in block_on(sink.compactable(Millis::MAX)).unwrap() {
        block_on(sink.compact(&partition)).unwrap();
    }
    drop(sink);
    fs::remove_file(dir.path().join(SOURCES_FILE)).unwrap();
    let sink = open(&dir);
    let loaded = || lock(&sink.shared.writer).loaded();
    assert_eq!(loaded(), 0, "a start that reads all rows keeps no index of what is in its final form");
    let mut after = None;
    for _ in 0..days.len() {
        after = block_on(sink.scan(after.as_deref(), 1)).unwrap().next;
        assert_eq!(loaded(), 1);
    }
    assert_eq!(block_on(sink.scan(after.as_deref(), 1)).unwrap(), RowPage::default());
    assert_eq!(loaded(), 0);
}

#[test]
fn a_bucket_of_another_calendar_is_another_row() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let normal = life("a", 0, 1, 10, &[1.0]);
    let mut longer = normal.clone();
    longer.bucket.end += 3_600_000;
    check_write(&sink, &[normal, longer], (2, 0, 0));
    assert_eq!(all_rows(&sink, &["a"]).len(), 2);
}

#[test]
fn ranges_limits_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let minutes = [-1441, -1, 0, 1, 1439, 1440];
    let lives: Vec<LifeRow> = minutes.iter().flat_map(|&m| ["b", "a"].map(|s| life(s, m, 1, 1, &[1.0]))).collect();
    check_write(&sink, &lives, (12, 0, 0));
    drop(sink);
    // Once without an index of the older days, once with.
    let sink = open(&dir);
    for _ in 0..2 {
        let check = |sources: &[&str], from: i64, to: i64, limit: usize, expected: &[(&str, i64)]| {
            let at =
                |minute: i64| if minute.abs() > 10_000 { minute.signum() * Millis::MAX } else { DAY + minute * 60_000 };
            let rows = block_on(sink.rows(&query(sources, at(from), at(to), limit))).unwrap();
            let got: Vec<(&str, i64)> = rows.iter().map(|r| (&*r.source, (r.bucket.start - DAY) / 60_000)).collect();
            assert_eq!(got, expected, "{sources:?} {from}..{to}");
        };
        check(&["a"], -99_999, 99_999, 0, &minutes.map(|m| ("a", m)));
        check(&["a", "b"], -99_999, 99_999, 3, &[("a", -1441), ("b", -1441), ("a", -1)]);
        check(&["a"], 0, 1439, 0, &[("a", 0), ("a", 1)]);
        check(&["b", "x"], -1, 1, 0, &[("b", -1), ("b", 0)]);
        check(&["a"], 1439, 1441, 1, &[("a", 1439)]);
        check(&["a"], 5, 5, 0, &[]);
        check(&["a"], 6, 5, 0, &[]);
        check(&[], -99_999, 99_999, 0, &[]);
        for partition in block_on(sink.compactable(DAY + 86_400_000)).unwrap() {
            block_on(sink.compact(&partition)).unwrap();
        }
    }
    let hours = RowQuery { period: Period::Seconds(3600), ..query(&["a"], Millis::MIN, Millis::MAX, 0) };
    assert_eq!(block_on(sink.rows(&hours)).unwrap(), []);
}

#[test]
fn the_oldest_rows_come_first_where_a_date_comes_twice() {
    let dir = tempfile::tempdir().unwrap();
    let sink = CsvSink::open(dir.path(), "America/St_Johns".parse().unwrap()).unwrap();
    // A minute after midnight the clocks went back to a minute after eleven.
    let midnight = timestamp::parse("2010-11-07T02:30:00Z", &Zone::utc()).unwrap();
    let minutes = [-1, 0, 1, 61].map(|m| (midnight - DAY) / 60_000 + m);
    check_write(&sink, &minutes.map(|m| life("a", m, 1, 1, &[1.0])), (4, 0, 0));
    assert_eq!(partition::list(dir.path(), MINUTE).unwrap().len(), 2);
    let rows = block_on(sink.rows(&query(&["a"], Millis::MIN, Millis::MAX, 2))).unwrap();
    let starts: Vec<i64> = rows.iter().map(|row| (row.bucket.start - midnight) / 60_000).collect();
    assert_eq!(starts, [-1, 0]);
}

#[test]
fn a_partition_is_compactable_when_its_last_bucket_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let month = Calendar::new(vec![Period::Month], Zone::utc()).unwrap().bucket(Period::Month, DAY);
    let mut monthly = life("a", 0, 1, 1, &[1.0]);
    monthly.bucket = month;
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0]), monthly], (2, 0, 0));
    let check = |now: &str, expected: &[&str]| {
        let now = timestamp::parse(now, &Zone::utc()).unwrap();
        let found = block_on(sink.compactable(now)).unwrap();
        let found: Vec<String> = found.iter().map(|p| format!("{} {}", p.period, timestamp::format(p.from))).collect();
        assert_eq!(found, expected, "{now}");
    };
    check("2026-11-20T23:59:59.999Z", &[]);
    check("2026-11-21", &["1m 2026-11-20T00:00:00Z"]);
    check("2026-12-01", &["1m 2026-11-20T00:00:00Z", "1mo 2026-11-01T00:00:00Z"]);
    for partition in block_on(sink.compactable(Millis::MAX)).unwrap() {
        block_on(sink.compact(&partition)).unwrap();
        block_on(sink.compact(&partition)).unwrap();
    }
    check("2027-01-01", &[]);
    check_write(&sink, &[life("a", 3, 2, 2, &[1.0])], (1, 0, 0));
    check("2027-01-01", &["1m 2026-11-20T00:00:00Z"]);
}

/// A sink with corrections and a later life, and what its compacted file must be.
fn before_compaction() -> (TempDir, CsvSink, String) {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    for lives in [
        vec![life("b", 5, 1, 10, &[1.0]), life("a", 5, 1, 10, &[2.0])],
        vec![life("a", 1, 1, 11, &[3.0])],
        vec![life("b", 5, 1, 12, &[1.0, 4.0])],
        vec![life("a", 5, 2, 13, &[8.0])],
    ] {
        write(&sink, &lives).unwrap();
    }
    let tail = text(&file(&dir, "tail.csv"));
    let lines: Vec<&str> = tail.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 6);
    // Header; a@1; a@5 in its second life; b@5 corrected: the lines as they were appended.
    let expected = [lines[0], lines[3], lines[5], lines[4]].concat();
    (dir, sink, expected)
}

const COMPACTED: [&str; 3] = ["a@1 1/1/11 1 3", "a@5 2/1/13 2 10", "b@5 1/2/12 2 5"];

#[test]
fn compacting_leaves_one_line_per_row_byte_for_byte() {
    let (dir, sink, expected) = before_compaction();
    block_on(sink.compact(&day())).unwrap();
    assert_eq!(text(&file(&dir, "rows.csv")), expected);
    let names = partition::names(&dir.path().join(DATE_DIR)).unwrap();
    assert_eq!(names, ["rows.csv"]);
    check_rows(&sink, &["a", "b"], &COMPACTED);
    assert!(text(&dir.path().join(SOURCES_FILE)).contains("a,2026-11-20T00:01:00Z,2026-11-20T00:05:00Z\n"));
    // A later life makes a tail, and the file is made anew from both.
    check_write(&sink, &[life("b", 5, 1, 14, &[1.0, 4.0, 9.0])], (1, 0, 0));
    let tail = text(&file(&dir, "tail.csv"));
    block_on(sink.compact(&day())).unwrap();
    let corrected = tail.lines().nth(1).unwrap();
    let expected: Vec<&str> = expected.lines().take(3).chain([corrected]).collect();
    assert_eq!(text(&file(&dir, "rows.csv")).lines().collect::<Vec<_>>(), expected);
}

/// Stops a compaction at a step by making the files it has then, and starts anew.
fn check_crash(step: &str, make: impl FnOnce(&TempDir, &str)) {
    let (dir, sink, expected) = before_compaction();
    drop(sink);
    make(&dir, &expected);
    let sink = open(&dir);
    check_rows(&sink, &["a", "b"], &COMPACTED);
    let half_made = [dir.path(), &dir.path().join(DATE_DIR)].map(|path| partition::names(path).unwrap()).concat();
    assert!(!half_made.iter().any(|name| disk::is_temporary(name)), "{step}: {half_made:?}");
    assert_eq!(block_on(sink.compactable(Millis::MAX)).unwrap(), [day()], "{step}");
    check_write(&sink, &[life("a", 5, 2, 13, &[8.0]), life("b", 5, 1, 12, &[1.0, 4.0])], (0, 2, 0));
    block_on(sink.compact(&day())).unwrap();
    assert_eq!(text(&file(&dir, "rows.csv")), expected, "{step}");
    assert_eq!(partition::names(&dir.path().join(DATE_DIR)).unwrap(), ["rows.csv"], "{step}");
    assert_eq!(block_on(sink.sources("", None, 9)).unwrap().len(), 2, "{step}");
}

#[test]
fn a_crash_at_any_step_of_compacting_loses_nothing() {
    check_crash("sources half written", |dir, _| fs::write(dir.path().join("sources.csv.tmp"), "sour").unwrap());
    check_crash("rows half written", |dir, rows| {
        fs::write(file(dir, "rows.csv.tmp"), &rows[..rows.len() / 2]).unwrap();
    });
    check_crash("rows written", |dir, rows| fs::write(file(dir, "rows.csv.tmp"), rows).unwrap());
    check_crash("rows in place, tail there", |dir, rows| fs::write(file(dir, "rows.csv"), rows).unwrap());
}

#[test]
fn what_is_appended_during_a_compaction_stays() {
    let (dir, sink, _) = before_compaction();
    let work = compact::begin(&sink.shared.writer, &day()).unwrap().unwrap();
    check_write(&sink, &[life("c", 7, 1, 20, &[1.0]), life("b", 5, 1, 20, &[1.0, 4.0, 16.0])], (2, 0, 0));
    compact::write_new(&work, |_| true).unwrap();
    compact::finish(&mut lock(&sink.shared.writer), &work).unwrap();
    let expected = ["a@1 1/1/11 1 3", "a@5 2/1/13 2 10", "b@5 1/3/20 3 21", "c@7 1/1/20 1 1"];
    check_rows(&sink, &["a", "b", "c"], &expected);
    assert_eq!(block_on(sink.compactable(Millis::MAX)).unwrap(), [day()]);
    block_on(sink.compact(&day())).unwrap();
    assert!(!file(&dir, "tail.csv").exists());
    check_rows(&sink, &["a", "b", "c"], &expected);
}

#[test]
fn a_torn_last_line_is_cut_off_and_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0])], (1, 0, 0));
    let good = text(&file(&dir, "tail.csv"));
    check_write(&sink, &[life("b", 0, 1, 1, &[2.0])], (1, 0, 0));
    let whole = text(&file(&dir, "tail.csv"));
    drop(sink);
    fs::write(file(&dir, "tail.csv"), &whole[..whole.len() - 3]).unwrap();
    let sink = open(&dir);
    assert_eq!(text(&file(&dir, "tail.csv")), good);
    assert_eq!(text(&file(&dir, "tail.csv.torn")), format!("{}\n", &whole[good.len()..whole.len() - 3]));
    check_rows(&sink, &["a", "b"], &["a@0 1/1/1 1 1"]);
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0]), life("b", 0, 1, 1, &[2.0])], (1, 1, 0));
    assert_eq!(text(&file(&dir, "tail.csv")), whole);
}

#[test]
fn lines_with_holes_are_taken_out_and_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0])], (1, 0, 0));
    let good = text(&file(&dir, "tail.csv"));
    check_write(&sink, &[life("b", 0, 1, 1, &[2.0]), life("c", 0, 1, 1, &[3.0])], (2, 0, 0));
    let whole = text(&file(&dir, "tail.csv"));
    drop(sink);
    // The end of the block that was begun is not there, the next block is.
    let hole = format!("{good}{}{}", "\0".repeat(20), &whole[good.len() + 20..]);
    fs::write(file(&dir, "tail.csv"), hole).unwrap();
    let sink = open(&dir);
    check_rows(&sink, &["a", "b", "c"], &["a@0 1/1/1 1 1", "c@0 1/1/1 1 3"]);
    check_write(&sink, &[life("b", 0, 1, 1, &[2.0]), life("c", 0, 1, 1, &[3.0])], (1, 1, 0));
    check_rows(&sink, &["a", "b", "c"], &["a@0 1/1/1 1 1", "b@0 1/1/1 1 2", "c@0 1/1/1 1 3"]);
    assert!(!text(&file(&dir, "tail.csv")).contains('\0'));
}

#[test]
fn a_directory_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    match CsvSink::open(dir.path(), Zone::utc()) {
        Err(SinkError::Refused(message)) => {
            assert!(message.starts_with(&format!("another meanwhile uses {}", dir.path().display())), "{message}");
        }
        other => panic!("{other:?}"),
    }
    drop(sink);
    open(&dir);
}

/// Takes half of the bytes and then finds the disk full.
fn full(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(&bytes[..bytes.len() / 2])?;
    Err(io::Error::from(io::ErrorKind::StorageFull))
}

fn broken_sync(_: &File) -> io::Result<()> {
    Err(io::Error::other("input/output error"))
}

fn set_disk(sink: &CsvSink, disk: Disk) {
    lock(&sink.shared.writer).disk = disk;
}

#[test]
fn a_full_disk_leaves_the_files_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let first: Vec<LifeRow> = (0..10).map(|m| life("a", m, 1, 1, &[1.0])).collect();
    set_disk(&sink, Disk { append: full, ..Disk::REAL });
    unavailable(write(&sink, &first), "tail.csv: no storage space");
    assert!(!file(&dir, "tail.csv").exists(), "not even its header");
    assert_eq!(all_rows(&sink, &["a"]), []);
    set_disk(&sink, Disk::REAL);
    check_write(&sink, &first, (10, 0, 0));
    let good = text(&file(&dir, "tail.csv"));
    let next: Vec<LifeRow> = (0..20).map(|m| life("a", m, 1, 2, &[1.0, 2.0])).collect();
    set_disk(&sink, Disk { append: full, ..Disk::REAL });
    unavailable(write(&sink, &next), "tail.csv: no storage space");
    assert_eq!(text(&file(&dir, "tail.csv")), good);
    assert_eq!(all_rows(&sink, &["a"]).len(), 10);
    set_disk(&sink, Disk::REAL);
    check_write(&sink, &next, (20, 0, 0));
    assert_eq!(all_rows(&sink, &["a"]).iter().map(|row| row.state.count).sum::<f64>(), 40.0);
}

#[test]
fn after_a_failed_fsync_the_durable_part_lives_in_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let tail = file(&dir, "tail.csv");
    set_disk(&sink, Disk { sync: broken_sync, ..Disk::REAL });
    unavailable(write(&sink, &[life("a", 0, 1, 1, &[1.0])]), "cannot sync");
    set_disk(&sink, Disk::REAL);
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0])], (1, 0, 0));
    let (good, suspect) = (text(&tail), disk::id(&tail).unwrap());
    set_disk(&sink, Disk { sync: broken_sync, ..Disk::REAL });
    unavailable(write(&sink, &[life("b", 0, 1, 1, &[1.0])]), "cannot sync");
    unavailable(write(&sink, &[life("b", 0, 1, 1, &[1.0])]), "tail.csv.tmp: input/output error");
    check_rows(&sink, &["a"], &["a@0 1/1/1 1 1"]);
    set_disk(&sink, Disk::REAL);
    check_write(&sink, &[life("b", 0, 1, 1, &[1.0])], (1, 0, 0));
    assert!(text(&tail).starts_with(&good));
    assert_eq!(text(&tail).lines().count(), 3, "the line that was not durable is there once");
    assert_ne!(disk::id(&tail).unwrap(), suspect, "and in a new file");
    check_rows(&sink, &["a", "b"], &["a@0 1/1/1 1 1", "b@0 1/1/1 1 1"]);
}

/// One bucket on each of some days.
fn days(days: std::ops::Range<i64>, revision: i64, values: &[f64]) -> Vec<LifeRow> {
    days.map(|day| life("a", day * 1_440, 1, revision, values)).collect()
}

#[test]
fn all_files_of_a_write_are_synced() {
    static SYNCED: AtomicUsize = AtomicUsize::new(0);
    let counting = |file: &File| {
        SYNCED.fetch_add(1, Ordering::SeqCst);
        file.sync_data()
    };
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    set_disk(&sink, Disk { sync: counting, ..Disk::REAL });
    for (revision, values) in [(1, &[1.0][..]), (2, &[1.0, 2.0])] {
        check_write(&sink, &days(0..40, revision, values), (40, 0, 0));
        assert_eq!(SYNCED.swap(0, Ordering::SeqCst), 40, "each once");
    }
    assert_eq!(all_rows(&sink, &["a"]).len(), 40);
    set_disk(&sink, Disk { sync: broken_sync, ..Disk::REAL });
    unavailable(write(&sink, &days(0..40, 3, &[1.0, 2.0, 3.0])), "cannot sync");
    set_disk(&sink, Disk::REAL);
    check_write(&sink, &days(0..40, 3, &[1.0, 2.0, 3.0]), (40, 0, 0));
    for day in all_rows(&sink, &["a"]) {
        let path = partition::DateDir::of(&day.bucket, &Zone::utc()).path(dir.path()).join("tail.csv");
        assert_eq!(text(&path).lines().count(), 4, "a header and three revisions: what was not durable is gone");
    }
}

#[test]
fn what_was_appended_before_a_failure_is_synced_before_it_is_believed() {
    static APPENDED: AtomicUsize = AtomicUsize::new(0);
    static SYNCED: AtomicUsize = AtomicUsize::new(0);
    let second_is_full = |file: &mut File, bytes: &[u8]| {
        if APPENDED.fetch_add(1, Ordering::SeqCst) == 1 { full(file, bytes) } else { file.write_all(bytes) }
    };
    let counting = |file: &File| {
        SYNCED.fetch_add(1, Ordering::SeqCst);
        file.sync_data()
    };
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    set_disk(&sink, Disk { append: second_is_full, sync: counting, ..Disk::REAL });
    unavailable(write(&sink, &days(0..2, 1, &[1.0])), "no storage space");
    assert_eq!(SYNCED.load(Ordering::SeqCst), 0);
    check_write(&sink, &days(0..2, 1, &[1.0]), (1, 1, 0));
    assert_eq!(SYNCED.load(Ordering::SeqCst), 2, "that of the first day too");
}

#[test]
fn what_an_earlier_process_left_is_synced_before_it_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let lives = [life("a", 0, 1, 1, &[1.0])];
    check_write(&sink, &lives, (1, 0, 0));
    lock(&sink.shared.writer).forget(partition::DateDir::of(&lives[0].bucket, &Zone::utc()));
    let before = disk::id(&file(&dir, "tail.csv")).unwrap();
    set_disk(&sink, Disk { sync: broken_sync, ..Disk::REAL });
    unavailable(write(&sink, &lives), "cannot sync");
    set_disk(&sink, Disk::REAL);
    check_write(&sink, &lives, (0, 1, 0));
    assert_ne!(disk::id(&file(&dir, "tail.csv")).unwrap(), before, "the file whose fsync failed is not trusted");
}

#[test]
fn files_deleted_or_replaced_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let lives = [life("a", 0, 1, 1, &[1.0]), life("b", 0, 1, 1, &[1.0])];
    check_write(&sink, &lives, (2, 0, 0));
    fs::remove_file(file(&dir, "tail.csv")).unwrap();
    check_write(&sink, &lives, (2, 0, 0));
    check_rows(&sink, &["a"], &["a@0 1/1/1 1 1"]);
    let lines = text(&file(&dir, "tail.csv"));
    let without_b: Vec<&str> = lines.split_inclusive('\n').filter(|line| !line.starts_with("b,")).collect();
    fs::remove_file(file(&dir, "tail.csv")).unwrap();
    fs::write(file(&dir, "tail.csv"), without_b.concat()).unwrap();
    check_rows(&sink, &["a", "b"], &["a@0 1/1/1 1 1"]);
    check_write(&sink, &lives, (1, 1, 0));
    fs::remove_dir_all(dir.path().join("period=1m")).unwrap();
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0]), life("a", 1, 1, 1, &[1.0])], (2, 0, 0));
    // The same lines in another order: what was known of their places is not used.
    let lines = text(&file(&dir, "tail.csv"));
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    fs::remove_file(file(&dir, "tail.csv")).unwrap();
    fs::write(file(&dir, "tail.csv"), [lines[0], lines[2], lines[1], lines[2]].concat()).unwrap();
    assert_eq!(block_on(sink.rows(&query(&["a"], DAY, DAY + 60_000, 0))).unwrap().len(), 1);
}

#[test]
fn a_damaged_line_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0])], (1, 0, 0));
    drop(sink);
    let damaged = text(&file(&dir, "tail.csv")).replace(",2026-11-20T00:00:00Z", ",never");
    fs::write(file(&dir, "tail.csv"), damaged).unwrap();
    match CsvSink::open(dir.path(), Zone::utc()) {
        Err(SinkError::Refused(message)) => assert!(message.contains("tail.csv is damaged at byte 105"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sources_are_known_after_a_restart_and_without_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let check = |sink: &CsvSink| {
        let spans = block_on(sink.sources("", None, 10)).unwrap();
        let minutes = |t: Millis| (t - DAY) / 60_000;
        let spans: Vec<_> = spans.iter().map(|s| (&*s.source, minutes(s.first), minutes(s.last))).collect();
        assert_eq!(spans, [("'a", -2000, 7), ("b", 3, 3)]);
    };
    check_write(
        &sink,
        &[life("'a", -2000, 1, 1, &[1.0]), life("'a", 7, 1, 1, &[1.0]), life("b", 3, 1, 1, &[1.0])],
        (3, 0, 0),
    );
    check(&sink);
    drop(sink);
    let sink = open(&dir);
    check(&sink);
    for partition in block_on(sink.compactable(DAY)).unwrap() {
        block_on(sink.compact(&partition)).unwrap();
    }
    drop(sink);
    let path = dir.path().join(SOURCES_FILE);
    for damage in
        [|_: &Path| (), |path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "x\n").unwrap()]
    {
        damage(&path);
        check(&open(&dir));
    }
}

#[test]
fn directories_keep_the_zone_they_were_begun_in() {
    let dir = tempfile::tempdir().unwrap();
    let sink = CsvSink::open(dir.path(), "Europe/Berlin".parse().unwrap()).unwrap();
    check_write(&sink, &[life("a", -30, 1, 1, &[1.0])], (1, 0, 0));
    assert!(file(&dir, "tail.csv").exists(), "half past eleven in UTC is the next day in Berlin");
    drop(sink);
    let sink = open(&dir);
    check_write(&sink, &[life("a", -30, 2, 2, &[2.0])], (1, 0, 0));
    check_rows(&sink, &["a"], &["a@-30 2/1/2 2 3"]);
    drop(sink);
    fs::write(dir.path().join(ZONE_FILE), "Nowhere\n").unwrap();
    assert!(matches!(CsvSink::open(dir.path(), Zone::utc()), Err(SinkError::Refused(_))));
}

#[test]
fn a_large_bucket_is_written_page_by_page_without_reading_back() {
    const PAGE: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    let read_back = |sink: &CsvSink| lock(&sink.shared.writer).read_back;
    let page = |page: usize, minute: i64, revision: i64| -> Vec<LifeRow> {
        (0..PAGE).map(|i| life(&format!("s{:06}", page * PAGE + i), minute, 1, revision, &[1.0])).collect()
    };
    check_write(&sink, &page(0, 1, 1), (PAGE, 0, 0));
    for p in 0..100 {
        check_write(&sink, &page(p, 0, 1), (PAGE, 0, 0));
    }
    for p in 0..3 {
        check_write(&sink, &page(p, 0, 2), (PAGE, 0, 0));
        check_write(&sink, &page(p, 0, 2), (0, PAGE, 0));
    }
    assert_eq!(read_back(&sink), 0);
    check_write(&sink, &page(0, 1, 2), (PAGE, 0, 0));
    assert_eq!(read_back(&sink), PAGE, "another bucket, forgotten since, is read back once and alone");
    drop(sink);
    let sink = open(&dir);
    check_write(&sink, &page(0, 2, 1), (PAGE, 0, 0));
    assert_eq!(read_back(&sink), 0, "a new bucket reads nothing");
    block_on(sink.compact(&day())).unwrap();
    assert_eq!(text(&file(&dir, "rows.csv")).lines().count(), 1 + 102 * PAGE);
}

#[test]
fn readers_miss_nothing_while_others_write_and_compact() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(&dir);
    check_write(&sink, &[life("a", 0, 1, 1, &[1.0])], (1, 0, 0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen, mut looks) = (0, 0);
            while !done.load(Ordering::SeqCst) {
                let now = all_rows(&sink, &["a"]).len();
                assert!(now >= seen, "{now} rows after {seen}");
                (seen, looks) = (now, looks + 1);
            }
            looks
        });
        for minute in 1..120 {
            check_write(&sink, &[life("a", minute, 1, 1, &[1.0]), life("x", minute, 1, 1, &[1.0])], (2, 0, 0));
            if minute % 10 == 0 {
                block_on(sink.compact(&day())).unwrap();
            }
        }
        done.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(all_rows(&sink, &["a"]).len(), 120);
}
