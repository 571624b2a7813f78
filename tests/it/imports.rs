//! `meanwhile import` beyond the first steps: from standard input over restarts of the service, and
//! `--dry-run`, which says beforehand what an import comes to.
//!
//! Imports of files during crashes are in `crashes.rs`.

use crate::service::{On, Service, command, eventually};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Output, Stdio};
use std::sync::mpsc;
use std::thread;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.csv");
const WIDE: [&str; 6] = ["--time", "time", "--source", "{greenhouse}.{column}", "--values", "temperature,humidity"];
/// Batches of 1,000 lines that go through a pipe.
const BATCHES: u64 = 24;

/// Lines of a batch: integers, so that sums are exact.
fn batch(number: u64) -> String {
    (0..1_000).fold(String::new(), |mut text, i| {
        let (value, minute) = (number * 1_000 + i, i % 60);
        writeln!(text, r#"{{"source":"s","value":{value},"timestamp":"2025-10-01T05:{minute:02}:00Z"}}"#).unwrap();
        text
    })
}

fn write_batches(pipe: &mut ChildStdin, numbers: std::ops::Range<u64>) {
    for number in numbers {
        pipe.write_all(batch(number).as_bytes()).unwrap();
    }
    pipe.flush().unwrap();
}

/// Whoever writes into the pipe cannot write it again: what was read is counted in the end, once,
/// although the service is killed in the middle, and is away while more is written.
fn standard_input_survives_restarts(on: On) {
    let mut service = Service::start(on, &["--grace", "100ms", "--lateness", "500ms"]);
    let mut import = service.command(&["import", "-", "--format", "ndjson"]);
    let mut import = import.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = import.stdin.take().unwrap();
    let (said, heard) = mpsc::channel();
    let stderr = BufReader::new(import.stderr.take().unwrap());
    let listener = thread::spawn(move || stderr.lines().for_each(|line| said.send(line.unwrap()).unwrap_or_default()));
    let thirds = [BATCHES / 3, 2 * BATCHES / 3];
    write_batches(&mut pipe, 0..thirds[0]);
    eventually("some are counted", || (service.client().total("s", "1d").0 > 2_000).then_some(()));
    for rest in [thirds[0]..thirds[1], thirds[1]..BATCHES] {
        service.kill();
        // More than fits into the pipe: the import reads on only when it has been acknowledged.
        let writer = thread::spawn(move || {
            write_batches(&mut pipe, rest);
            pipe
        });
        let retrying = heard.iter().find(|line| line.contains("trying again")).expect("the import goes on");
        assert!(retrying.ends_with("trying again until it is acknowledged"), "{retrying}");
        assert!(import.try_wait().unwrap().is_none());
        service.start_again();
        pipe = writer.join().unwrap();
    }
    drop(pipe);
    let summary = heard.iter().find(|line| line.contains("readings accepted")).expect("a summary");
    assert!(summary.starts_with("24,000 lines, 24,000 readings accepted"), "{summary}");
    assert!(import.wait().unwrap().success());
    listener.join().unwrap();
    let n = BATCHES * 1_000;
    for period in ["1m", "1h", "1d"] {
        assert_eq!(service.client().total("s", period), (n, (n * (n - 1) / 2) as f64), "{period}");
    }
}

#[test]
fn standard_input_survives_restarts_embedded() {
    standard_input_survives_restarts(On::Embedded);
}

#[test]
fn standard_input_survives_restarts_redis() {
    standard_input_survives_restarts(On::Redis);
}

/// Exit status, standard output and standard error of a dry run where no service is.
fn dry_run(words: &[&str]) -> (Option<i32>, String, String) {
    let mut import = command(&[&["import", "--dry-run"], words].concat());
    let Output { status, stdout, stderr } = import.env("MEANWHILE_URL", "http://127.0.0.1:1").output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn number(cell: &str) -> u64 {
    cell.replace(',', "").parse().unwrap()
}

/// A dry run needs no service, and announces the rows that the import then makes.
#[test]
fn a_dry_run_says_what_the_import_comes_to() {
    let zone = ["--timezone", "Europe/Berlin", "--periods", "10m,1h,1d,1mo"];
    let (status, report, said) = dry_run(&[&[TABLE], &WIDE[..], &zone].concat());
    assert_eq!((status, said.as_str()), (Some(0), ""), "{report}");
    let announced = "576 lines, 1,146 readings, 6 empty cells skipped; nothing was sent\nfrom 2026-05-31T22:00:00Z to ";
    assert!(report.starts_with(announced), "{report}");

    let service = Service::start(On::Embedded, &["--periods", "10m,1h,1d,1mo", "--timezone", "Europe/Berlin"]);
    service.run(&[&["import", TABLE], &WIDE[..]].concat());
    let ids = ["north.humidity", "north.temperature", "south.humidity", "south.temperature"];
    let cells = |first: &str| -> Vec<String> {
        let line = report.lines().find(|line| line.split_whitespace().next() == Some(first));
        line.unwrap_or_else(|| panic!("{first} is not in {report}")).split_whitespace().map(str::to_owned).collect()
    };
    for id in ids {
        let rows = service.client().rows(id, "1d");
        let extreme = |name: &str, pick: fn(f64, f64) -> f64| {
            rows.iter().map(|row| row[name].as_f64().unwrap()).reduce(pick).unwrap()
        };
        let cells = cells(id);
        assert_eq!(number(&cells[1]), service.client().total(id, "1d").0, "{id}");
        let got = (cells[2].parse().unwrap(), cells[3].parse().unwrap());
        assert_eq!(got, (extreme("min", f64::min), extreme("max", f64::max)), "{id}");
    }
    for period in ["10m", "1h", "1d", "1mo"] {
        let rows: usize = ids.iter().map(|id| service.client().rows(id, period).len()).sum();
        assert_eq!(number(&cells(period)[1]), rows as u64, "{period}");
    }
}

#[test]
fn a_dry_run_names_all_bad_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let table = file(
        "a.csv",
        &("source,value,timestamp\na,x,2026-07-01\n".to_owned() + &"a,1,2026-07-01\n".repeat(1_500) + "b,2,soon\n"),
    );
    let lines = file("b.ndjson", "{\"source\":\"a\",\"value\":1}\n\n{\"source\":\"a\"}\n");
    let (status, report, said) = dry_run(&[&table, &lines]);
    assert_eq!(status, Some(1), "{said}");
    assert!(report.starts_with("1,505 lines, 1,501 readings; nothing was sent"), "{report}");
    for expected in [
        "bad lines or cells: 3; an import stops at the batch of the first".to_owned(),
        format!("\n{table}:2: value: \"x\" is not a finite number"),
        format!("\n{table}:1503: timestamp is neither RFC 3339"),
        format!("\n{lines}:3: value is missing"),
    ] {
        assert!(said.contains(&expected), "{said} lacks {expected}");
    }
    let seconds = file("s.csv", "source,value,timestamp\na,1,1795150800\n");
    let (status, _, said) = dry_run(&[&seconds]);
    assert!(status == Some(1) && said.contains("it looks like seconds"), "{said}");
    let (status, report, said) = dry_run(&[&seconds, "--precision", "s"]);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert!(report.contains("from 2026-11-20T05:00:00Z to 2026-11-20T05:00:00Z"), "{report}");
    let (status, report, said) = dry_run(&[&lines, "--from-line", "4"]);
    assert_eq!((status, report.as_str(), said.as_str()), (Some(0), "0 lines, 0 readings; nothing was sent\n", ""));
    let (status, _, said) = dry_run(&[TABLE]);
    assert!(status == Some(1) && said.contains("say --source TEMPLATE --values COLS"), "{said}");
    let (status, _, said) = dry_run(&[&table, "--periods", "7m"]);
    assert!(status == Some(2) && said.contains("7m does not divide a day"), "{said}");
}
