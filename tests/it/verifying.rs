//! `meanwhile verify`: rows against the files they came from, and each difference by name.

use crate::exact_rows::Sink;
use crate::http::reading_at;
use crate::service::{On, Service};
use meanwhile::clock::Clock;
use meanwhile::stats::timestamp;
use std::process::Output;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.csv");
const LINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.ndjson");
const COLUMNS: [&str; 6] = ["--time", "time", "--source", "{greenhouse}.{column}", "--values", "temperature,humidity"];

/// Exit status, standard output and standard error.
fn outcome(service: &Service, words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = service.command(words).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn table(on: On, sink: &Sink) {
    let service = sink.start(on, &["--grace", "200ms", "--lateness", "200ms"]);
    service.run(&[&["import", TABLE][..], &COLUMNS].concat());
    let verify = [&["verify", TABLE][..], &COLUMNS].concat();
    let daily = [&verify[..], &["--period", "1d"]].concat();
    for words in [&verify, &daily] {
        let (status, said, error) = outcome(&service, words);
        assert_eq!(status, Some(0), "{said}{error}");
        assert!(said.contains(" from 1,146 readings") && said.ends_with(": all equal\n"), "{said}");
    }
    // A reading more, less or another one: each field that differs is named with both numbers.
    let more = reading_at("north.temperature", 15.2, "2026-06-01T12:00:00Z");
    service.client().post(&more).ok();
    let (status, said, error) = outcome(&service, &daily);
    assert_eq!(status, Some(1), "{said}{error}");
    let fields: Vec<&str> =
        said.lines().map(|line| line.split("  ").nth(2).unwrap().split(':').next().unwrap()).collect();
    assert_eq!(fields, ["count", "sum", "mean", "var_pop"], "{said}");
    assert!(said.starts_with("north.temperature  2026-06-01T00:00:00Z  count: stored 97, exact 96\n"), "{said}");
    assert!(error.contains("error: 4 differences in 12 rows of 1d"), "{error}");
}

#[test]
fn a_table_in_files_redis() {
    table(On::Redis, &Sink::Files);
}

#[test]
fn a_table_in_a_table_embedded() {
    table(On::Embedded, &Sink::table());
}

#[test]
fn lines_that_were_never_imported_are_missing_rows() {
    let service = Service::start(On::Embedded, &["--grace", "200ms"]);
    let words = ["verify", LINES, "--period", "1d"];
    let (status, said, _) = outcome(&service, &words);
    assert_eq!(status, Some(1));
    assert!(said.lines().next().unwrap().ends_with("the row is missing, of 12 readings"), "{said}");
    service.run(&["import", LINES]);
    let (status, said, error) = outcome(&service, &words);
    assert_eq!(status, Some(0), "{said}{error}");
}

/// More rows than a page has, none of which is written.
#[test]
fn many_rows_that_are_open() {
    let service = Service::start(On::Embedded, &["--periods", "1s", "--grace", "1d", "--lateness", "1d"]);
    let now = Clock::System.now();
    let line = |n: i64| reading_at("a", n as f64, &timestamp::format(now - 10_050_000 + n * 1_000)) + "\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seconds.ndjson");
    std::fs::write(&path, (0..10_050).map(line).collect::<String>()).unwrap();
    let path = path.to_str().unwrap();
    service.run(&["import", path]);
    let (status, said, error) = outcome(&service, &["verify", path]);
    assert_eq!(status, Some(0), "{said}{error}");
    assert!(said.starts_with("10,050 rows of 1s from 10,050 readings"), "{said}");
    assert!(error.contains("not closed yet: 10,050 rows"), "{error}");
}

#[test]
fn what_cannot_be_verified() {
    let service = Service::start(On::Embedded, &[]);
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str, status: i32, hint: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let (code, said, error) = outcome(&service, &["verify", path.to_str().unwrap()]);
        assert_eq!(code, Some(status), "{said}{error}");
        assert!(error.contains(hint), "{error}");
    };
    check("now.ndjson", "{\"source\": \"a\", \"value\": 1}\n", 1, "now.ndjson:1: this reading has no timestamp");
    check("now.csv", "source,value\na,1\n", 1, "no timestamp");
    let bad = "{\"source\": \"a\", \"value\": 1, \"timestamp\": 0}\n{\"source\": \"a\"}\n";
    check("bad.ndjson", bad, 1, "bad.ndjson:2: value is missing");
    check("bad.csv", "source,value,timestamp\na,x,0\n", 1, "\"x\" is not a finite number");
    check("what.txt", "", 2, "--format csv");
    assert_eq!(outcome(&service, &["verify", "-", "--format", "csv"]).0, Some(2));
}

fn vectors(on: On, sink: &Sink) {
    let service = sink.start(on, &["--periods", "1m,1h", "--grace", "200ms", "--lateness", "200ms"]);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, lines: &[String]| {
        let path = dir.path().join(name);
        std::fs::write(&path, lines.concat()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let line = |source: &str, value: &str, n: i64| {
        format!(
            "{{\"source\": \"{source}\", \"value\": {value}, \"timestamp\": {}}}\n",
            1_780_272_000_000_i64 + 7_000 * n
        )
    };
    let vector = |n: i64| format!("[{}, {}, {}]", 1e9 + n as f64 / 7.0, n * n % 13, 0.1 - n as f64 / 11.0);
    let lines: Vec<String> =
        (0..60).flat_map(|n| [line("imu", &vector(n), n), line("room", &format!("{}.1", n % 5), n)]).collect();
    let readings = file("readings.ndjson", &lines);
    service.run(&["import", &readings]);
    for period in ["1m", "1h"] {
        let (status, said, error) = outcome(&service, &["verify", &readings, "--period", period]);
        assert_eq!(status, Some(0), "{said}{error}");
        assert!(said.contains(" from 120 readings") && said.ends_with(": all equal\n"), "{said}");
    }
    // One that came in addition, and one that is of another length than the row.
    let more = format!(r#"{{"source": "imu", "value": [1e9, 5, 0.25], "timestamp": "{}"}}"#, "2026-06-01T00:00:01Z");
    service.client().post(&more).ok();
    let (status, said, error) = outcome(&service, &["verify", &readings, "--period", "1m"]);
    assert_eq!(status, Some(1), "{said}{error}");
    assert!(said.starts_with("imu  2026-06-01T00:00:00Z  count: stored 10, exact 9\n"), "{said}");
    assert!(said.contains("  mean[1]: stored ") && said.contains("  covar_pop[0][2]: stored "), "{said}");
    let numbers = file("numbers.ndjson", &[line("imu", "1", 0)]);
    let (status, said, _) = outcome(&service, &["verify", &numbers]);
    assert_eq!(status, Some(1));
    assert!(said.contains("length: stored are readings of 3 numbers, and these are of 1 number"), "{said}");
    let mixed = file("mixed.ndjson", &[line("imu", "[1, 2]", 0), line("imu", "1", 1)]);
    let (status, _, error) = outcome(&service, &["verify", &mixed]);
    assert_eq!(status, Some(1));
    assert!(error.contains("mixed.ndjson:2: 1 number of \"imu\", whose bucket has readings of 2 numbers"), "{error}");
}

#[test]
fn vectors_in_files_redis() {
    vectors(On::Redis, &Sink::Files);
}

#[test]
fn vectors_in_a_table_embedded() {
    vectors(On::Embedded, &Sink::table());
}
