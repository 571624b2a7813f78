//! The sample data of three stations: made by its script byte for byte, and brought in the way its
//! page says, it comes to exactly the rows that stand beside it.
//!
//! The expected rows are rational arithmetic of another language, rounded once. Count, sum, mean,
//! minimum and maximum must be the same double, the variances agree within 1e-11; a test prints how
//! many digits agree at least. Crashes, clocks and odd tables are in other files.

use crate::service::{On, Service, eventually};
use crate::sink_files;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/stations");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/sample-data");
const VALUES: &str =
    "pier.temperature,ridge.temperature,square.temperature,pier.pressure,ridge.pressure,square.pressure";
const PERIODS: [&str; 3] = ["1h", "1d", "1mo"];
/// Of the variances.
const RELATIVE_ERROR: f64 = 1e-11;

/// The cells of a row by column.
type Row = BTreeMap<String, String>;

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn the_script_makes_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new("python3").arg(SCRIPT).arg(dir.path()).status();
    assert!(made.unwrap_or_else(|error| panic!("python3 is needed for this test; install it: {error}")).success());
    let [made, committed] = [dir.path(), Path::new(FOLDER)].map(|folder| {
        let inside = |(path, bytes): (PathBuf, _)| (path.strip_prefix(folder).unwrap().to_owned(), bytes);
        files(folder).into_iter().map(inside).collect::<BTreeMap<_, _>>()
    });
    assert_eq!(made.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>());
    for (path, bytes) in &made {
        assert!(*bytes == committed[path], "{} differs: run scripts/sample-data sample-data/stations", path.display());
    }
}

fn rows(text: &str) -> Vec<Row> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn expected(period: &str) -> Vec<Row> {
    rows(&fs::read_to_string(format!("{FOLDER}/expected/{period}.csv")).unwrap())
}

/// A row of an answer as its text has it.
fn as_text(row: &Value) -> Row {
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    row.as_object().unwrap().iter().map(|(name, value)| (name.clone(), cell(value))).collect()
}

fn double(row: &Row, name: &str) -> f64 {
    row[name].parse().unwrap_or_else(|_| panic!("{name} of {row:?}"))
}

/// Compares a row with the one that is expected; returns the largest relative error of its variances.
fn check(got: &Row, expected: &Row) -> f64 {
    for name in ["source", "start", "end", "count"] {
        assert_eq!(got[name], expected[name], "{name}: {got:?}, expected {expected:?}");
    }
    for name in ["sum", "mean", "min", "max"] {
        let same = double(got, name).to_bits() == double(expected, name).to_bits();
        assert!(same, "{name}: {got:?}, expected {expected:?}");
    }
    let error = |name: &str| (double(got, name) - double(expected, name)).abs() / double(expected, name);
    let worst = error("var_pop").max(error("var_samp"));
    assert!(worst <= RELATIVE_ERROR, "{worst:e}: {got:?}, expected {expected:?}");
    worst
}

/// Brings in what came in time, then what was late.
fn bring_in(service: &Service) {
    let table = format!("{FOLDER}/stations.csv");
    service.run(&["import", &table, "--time", "time", "--source", "{column}", "--values", VALUES]);
    let mut seen = BTreeSet::new();
    for line in fs::read_to_string(format!("{FOLDER}/late.tsv")).unwrap().lines() {
        let (key, readings) = line.split_once('\t').unwrap();
        let answer = service.client().post_keyed(key, readings).ok().json();
        assert_eq!(answer["duplicate"], !seen.insert(key.to_owned()), "{key}: {answer}");
    }
    assert_eq!(seen.len(), 15);
}

/// Sees that the service answers with the expected rows.
fn check_answers(service: &Service) -> f64 {
    let mut worst: f64 = 0.0;
    for period in PERIODS {
        let expected = expected(period);
        let sources: BTreeSet<&String> = expected.iter().map(|row| &row["source"]).collect();
        let answered = sources.iter().flat_map(|source| service.client().rows(source, period));
        let answered: Vec<Row> = answered.map(|row| as_text(&row)).collect();
        assert_eq!(answered.len(), expected.len(), "{period}");
        worst = answered.iter().zip(&expected).map(|(got, expected)| check(got, expected)).fold(worst, f64::max);
    }
    worst
}

/// Sees that the files of the sink have the expected rows, in one line each.
fn check_files(service: &Service) {
    for period in PERIODS {
        let expected = expected(period);
        let lines = eventually(&format!("the files of {period} are compacted"), || {
            let lines = sink_files::lines(&service.sink(), period);
            let counted = lines.values().map(|versions| versions[0].count).sum::<u64>();
            let all = expected.iter().map(|row| row["count"].parse::<u64>().unwrap()).sum::<u64>();
            (counted == all && lines.values().all(|versions| versions.len() == 1)).then_some(lines)
        });
        assert_eq!(lines.len(), expected.len(), "{period}");
        for row in &expected {
            let line = &lines[&(row["source"].clone(), row["start"].clone())][0];
            let number = |text: &str| text.parse::<f64>().unwrap().to_bits();
            let got = [&line.sum, &line.mean, &line.min, &line.max].map(|text| number(text));
            let wanted = ["sum", "mean", "min", "max"].map(|name| number(&row[name]));
            assert_eq!((line.count.to_string(), got), (row["count"].clone(), wanted), "{line:?}, expected {row:?}");
        }
    }
}

fn stations(on: On) {
    let flags = ["--periods", "1m,1h,1d,1mo", "--timezone", "Europe/Berlin", "--grace", "200ms", "--lateness", "1s"];
    let service = Service::start(on, &flags);
    bring_in(&service);
    let while_open = check_answers(&service);
    check_files(&service);
    let worst = while_open.max(check_answers(&service));
    println!("largest relative error of a variance: {worst:e}");
}

#[test]
fn stations_embedded() {
    stations(On::Embedded);
}

#[test]
fn stations_redis() {
    stations(On::Redis);
}
