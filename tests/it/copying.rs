//! `meanwhile copy`: rows go from one directory to another to the bit, however often it is cut off, and
//! a service goes on with them.
//!
//! Rows are compared as the lines of the files, by any reader of CSV.

use crate::http::{array, reading_at};
use crate::postgres_server::Database;
use crate::servers::temporary;
use crate::service::{On, Service, command, eventually};
use meanwhile::sink::Sink;
use meanwhile::sink::csv::CsvSink;
use meanwhile::stats::calendar::{Bucket, Period, Zone};
use meanwhile::stats::moments::Moments;
use meanwhile::stats::row::Row;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.csv");
const TIMES: [&str; 4] = ["--grace", "100ms", "--lateness", "500ms"];

/// The newest line of every row, cell by cell, by period, source, start and end.
fn rows(sink: &Path) -> BTreeMap<[String; 4], Vec<String>> {
    let mut newest: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (period, file) in files(sink) {
        for record in csv::Reader::from_path(file).unwrap().records() {
            let line: Vec<String> = record.unwrap().iter().map(str::to_owned).collect();
            assert_eq!(line.len(), 16);
            let row = [period.clone(), line[0].clone(), line[1].clone(), line[2].clone()];
            match newest.get(&row) {
                Some(held) if version(held) >= version(&line) => {}
                _ => drop(newest.insert(row, line)),
            }
        }
    }
    newest
}

fn version(line: &[String]) -> (i64, f64, i64) {
    (line[13].parse().unwrap(), line[14].parse().unwrap(), line[15].parse().unwrap())
}

/// The files of rows with their period.
fn files(sink: &Path) -> Vec<(String, PathBuf)> {
    let entries =
        |dir: &Path| -> Vec<PathBuf> { fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let mut files = Vec::new();
    for period in entries(sink).iter().filter(|path| path.is_dir()) {
        let name = period.file_name().unwrap().to_str().unwrap().strip_prefix("period=").unwrap();
        for file in entries(period).iter().flat_map(|date| entries(date)) {
            files.extend(file.extension().is_some_and(|ext| ext == "csv").then(|| (name.to_owned(), file.clone())));
        }
    }
    files
}

fn copy(from: &Path, to: &Path, more: &[&str]) -> Command {
    let [from, to] = [from, to].map(|dir| format!("csv:{}", dir.display()));
    let mut command = command(&["copy", "--from", &from, "--to", &to]);
    command.args(more);
    command
}

/// Runs a copy to its end; what it said.
#[track_caller]
fn check(mut command: Command, code: i32, fragments: &[&str]) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{command:?}: {said}");
    assert!(stdout.is_empty(), "{command:?}");
    for fragment in fragments {
        assert!(said.contains(fragment), "{command:?}: {said} lacks {fragment}");
    }
}

fn all_closed(service: &Service) {
    let none = |source| service.client().get(&format!("/v1/state?source={source}")).ok().body.trim() == "[]";
    let closed = || (none("north.temperature") && none("south.temperature")).then_some(());
    eventually("all buckets have closed", closed);
}

/// A stopped service that has sample data in three periods, one row of it in a second life.
fn stopped_service() -> Service {
    let mut service = Service::start(On::Embedded, &TIMES);
    let words = ["import", TABLE, "--time", "time", "--source", "{greenhouse}.{column}", "--values", "temperature"];
    service.run(&words);
    all_closed(&service);
    service.client().post(&array([reading_at("north.temperature", 0.1, "2026-06-01T00:00:30Z")])).ok();
    all_closed(&service);
    service.stop();
    service
}

#[test]
fn through_a_table_and_back() {
    let service = stopped_service();
    let (files, database, home) = (format!("csv:{}", service.sink().display()), Database::new(), temporary());
    let (table, back) = (database.url(), home.path().join("back"));
    let copy = |from: &str, to: &str, more: &[&str]| {
        let mut command = command(&["copy", "--from", from, "--to", to]);
        command.args(more);
        command
    };
    check(copy(&files, &table, &["--timezone", "UTC"]), 2, &["--timezone: a table has no directories to name"]);
    check(copy(&files, &table, &[]), 0, &["726 rows written, 0 already there, 0 older"]);
    check(copy(&files, &table, &[]), 0, &["0 rows written, 726 already there, 0 older"]);
    let to = format!("csv:{}", back.display());
    check(copy(&table, &to, &[]), 2, &["--timezone: say by which zone the new directory names its dates"]);
    check(copy(&table, &to, &["--timezone", "UTC"]), 0, &["726 rows written, 0 already there, 0 older"]);
    assert_eq!(rows(&back), rows(&service.sink()));
    let of = |source| format!("{source}.temperature,2026-06-01T00:00:00Z,2026-06-03T23:45:00Z\n");
    let sources = fs::read_to_string(back.join("sources.csv")).unwrap();
    assert_eq!(sources, format!("source,first,last\n{}{}", of("north"), of("south")));
    check(copy(&table, &table, &[]), 2, &["are the same sink"]);
    // What the table refuses stays out, and is not passed over in silence.
    database.sql("TRUNCATE bucket_stats; ALTER TABLE bucket_stats ADD CHECK (period <> '1d')");
    check(copy(&files, &table, &[]), 1, &["720 rows written", "6 rows the table would not take", "dead_letters"]);
    check(copy("postgres://nobody@127.0.0.1:1/x", &to, &["--timezone", "UTC"]), 1, &["--from postgres://***@"]);
}

#[test]
fn a_service_goes_on_with_the_copy() {
    let mut service = stopped_service();
    let (from, home) = (service.sink(), temporary());
    let to = home.path().join("deep/new");
    let answers =
        |service: &Service| ["1m", "1h", "1d"].map(|period| service.client().rows("north.temperature", period));
    service.start_again();
    let before = answers(&service);
    service.stop();
    // 288 quarters of hours, 72 hours and 3 days of two sources.
    check(copy(&from, &to, &[]), 0, &["726 rows written, 0 already there, 0 older"]);
    let copied = rows(&to);
    assert_eq!(copied.len(), 726);
    assert!(copied.values().any(|line| !line[12].is_empty()), "there are rows with a base");
    assert_eq!(copied, rows(&from));
    assert!(files(&to).iter().all(|(_, file)| file.ends_with("rows.csv")), "in their final form");
    let text = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(text(&to, "sources.csv"), text(&from, "sources.csv"));
    assert_eq!(text(&to, ".zone"), "UTC\n");
    check(copy(&from, &to, &[]), 0, &["0 rows written, 726 already there, 0 older"]);

    let sink = format!("csv:{}", to.display());
    service.set_flags(&[&TIMES[..], &["--sink", &sink]].concat());
    service.start_again();
    assert_eq!(answers(&service), before);
    let late = |value| reading_at("north.temperature", value, "2026-06-01T00:00:45Z");
    service.client().post(&late(0.2)).ok();
    eventually("a late reading is in the copied row", || {
        let row =
            &rows(&to)[&["1m", "north.temperature", "2026-06-01T00:00:00Z", "2026-06-01T00:01:00Z"].map(str::to_owned)];
        (row[3] == "3" && row[14] == "1").then_some(())
    });
    all_closed(&service);
    service.stop();
    // The copy is newer now, in three rows; the other way round it is the source.
    check(copy(&from, &to, &[]), 0, &["0 rows written, 723 already there, 3 older"]);
    check(copy(&to, &from, &[]), 0, &["3 rows written, 723 already there, 0 older"]);
    assert_eq!(rows(&to), rows(&from));
}

#[test]
fn the_target_has_dates_of_its_own() {
    let service = stopped_service();
    let (from, home) = (service.sink(), temporary());
    let tokyo = home.path().join("tokyo");
    check(copy(&from, &tokyo, &["--timezone", "Asia/Tokyo"]), 0, &["726 rows written"]);
    assert_eq!(rows(&tokyo), rows(&from));
    assert_eq!(fs::read_to_string(tokyo.join(".zone")).unwrap(), "Asia/Tokyo\n");
    assert!(tokyo.join("period=1m/date=2026-06-04").exists(), "midnight there is nine hours earlier");
    assert!(!from.join("period=1m/date=2026-06-04").exists());
    // It keeps them, and a new one takes its zone from the source.
    check(copy(&from, &tokyo, &[]), 0, &["0 rows written, 726 already there"]);
    check(
        copy(&from, &tokyo, &["--timezone", "UTC"]),
        2,
        &["--timezone", "those of Asia/Tokyo", "leave --timezone out"],
    );
    let third = home.path().join("third");
    check(copy(&tokyo, &third, &[]), 0, &["726 rows written"]);
    assert_eq!(fs::read_to_string(third.join(".zone")).unwrap(), "Asia/Tokyo\n");
    assert_eq!(rows(&third), rows(&from));
}

#[test]
fn a_directory_in_use_is_refused() {
    let mut service = stopped_service();
    let (used, home) = (service.sink(), temporary());
    let other = home.path().join("other");
    check(copy(&used, &other, &[]), 0, &["726 rows"]);
    service.start_again();
    for (from, to, flag) in [(&used, &home.path().join("new"), "--from"), (&other, &used, "--to")] {
        let flag = format!("{flag} csv:{}", used.display());
        check(copy(from, to, &[]), 1, &[&flag, "another meanwhile uses", "stop it"]);
    }
    assert!(!home.path().join("new").exists(), "nothing was made");
}

#[test]
fn a_directory_that_cannot_be_written_says_what_to_do() {
    let (home, new) = (temporary(), temporary());
    let (backup, new) = (home.path().join("backup"), new.path().join("new"));
    drop(CsvSink::open(&backup, Zone::utc()).unwrap());
    // Where nobody may make a file, root neither.
    fs::remove_file(backup.join(".lock")).unwrap();
    std::os::unix::fs::symlink("/sys/none", backup.join(".lock")).unwrap();
    check(copy(&backup, &new, &[]), 1, &["--from csv:", "backup/.lock cannot be written", "locked first", "cp -a"]);
    assert!(!new.exists(), "nothing was made");
}

#[test]
fn slips_are_named_before_anything_is_touched() {
    let (home, other) = (temporary(), temporary());
    let (sink, files) = (home.path().join("sink"), other.path().join("files"));
    drop(CsvSink::open(&sink, Zone::utc()).unwrap());
    fs::create_dir(&files).unwrap();
    fs::write(files.join("letter.txt"), "Dear").unwrap();
    let new = home.path().join("new");
    check(copy(&home.path().join("none"), &new, &[]), 1, &["--from csv:", "there is no such directory"]);
    check(copy(&files, &new, &[]), 1, &["--from csv:", "no sink has been in this directory", ".zone"]);
    check(copy(&sink, &files, &[]), 1, &["--to csv:", "other files", "a new or an empty one"]);
    check(copy(&sink, &files.join("letter.txt"), &[]), 1, &["--to csv:", "letter.txt", "choose another directory"]);
    check(copy(&sink, &sink, &[]), 2, &["--from and --to are the same sink"]);
    check(copy(&sink, &home.path().join("./sink/../sink"), &[]), 2, &["are the same sink"]);
    check(copy(&sink, &new, &["--timezone", "Mars"]), 2, &["Mars", "Europe/Berlin"]);
    for (url, reason) in [("mysql://me:hush@h/db", "mysql://***@h/db\" is not a sink"), ("csv:", "needs a directory")] {
        for flags in [["--from", url, "--to", "csv:x"], ["--from", "csv:x", "--to", url]] {
            let output = command(&[&["copy"], &flags[..]].concat()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(reason) && said.contains("csv:DIR") || url == "csv:", "{said}");
            assert!(said.contains(if flags[1] == url { "--from: " } else { "--to: " }), "{said}");
            assert!(!said.contains("hush"), "{said}");
        }
    }
    check(command(&["copy", "--from", "csv:x"]), 2, &["--to"]);
    assert!(!new.exists());
    assert_eq!(fs::read_dir(&files).unwrap().count(), 1);
    // An empty sink is no failure, an empty directory a target.
    fs::create_dir(&new).unwrap();
    check(copy(&sink, &new, &[]), 0, &["0 rows written, 0 already there, 0 older"]);
}

/// More rows than two pages of a copy.
const MINUTES: i64 = 250;
const SOURCES: usize = 200;

async fn large_sink(dir: &Path) {
    let sink = CsvSink::open(dir, Zone::utc()).unwrap();
    for minute in 0..MINUTES {
        let start = 1_700_000_040_000 + minute * 60_000;
        let bucket = Bucket { period: Period::Seconds(60), start, end: start + 60_000 };
        let row = |source: usize| {
            let state = Moments::of(source as f64 + 0.1);
            let (generation, revision) = (start, start + 1);
            let source = format!("source-{source}").into();
            Row { source, bucket, generation, gen_count: 1.0, revision, base: None, state }
        };
        sink.put((0..SOURCES).map(row).collect()).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_that_was_killed_is_repeated() {
    let home = temporary();
    let (from, to) = (home.path().join("from"), home.path().join("to"));
    large_sink(&from).await;
    let tail_bytes = || {
        let lengths = files(&to).into_iter().filter_map(|(_, file)| fs::metadata(file).ok());
        lengths.map(|file| file.len()).sum::<u64>()
    };
    let mut reached = 0;
    for _ in 0..2 {
        let mut copying = copy(&from, &to, &[]).stderr(Stdio::null()).spawn().unwrap();
        eventually("it has written something more", || (to.exists() && tail_bytes() > reached).then_some(()));
        copying.kill().unwrap();
        assert_eq!(copying.wait().unwrap().code(), None, "it was killed in the middle");
        reached = tail_bytes();
    }
    check(copy(&from, &to, &[]), 0, &["already there, 0 older"]);
    let copied = rows(&to);
    assert_eq!(copied.len(), SOURCES * MINUTES as usize);
    assert_eq!(copied, rows(&from));
    let sum: usize = files(&to).iter().map(|(_, file)| fs::read_to_string(file).unwrap().lines().count() - 1).sum();
    assert_eq!(sum, copied.len(), "one line per row");
}
