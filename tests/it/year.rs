//! A year of history, out of order, through a service that takes readings of today meanwhile and is
//! killed: in both sinks the rows are those that the readings come to, exactly, and the repetition of the
//! import changes none.
//!
//! Three sources, a reading every ten minutes. The finest period is an hour, since minutes would be six
//! times as many buckets. Imports of a few hours with more kills are in `crashes.rs`.

use crate::exact_rows::{Sink, Truth};
use crate::http::{Client, array, reading};
use crate::operations::metric;
use crate::seeded::Seeded;
use crate::service::{On, Service, eventually};
use meanwhile::stats::calendar::Calendar;
use meanwhile::stats::timestamp;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

const PERIODS: [&str; 4] = ["1h", "1d", "1w", "1mo"];
const SOURCES: [&str; 3] = ["cellar", "roof", "yard"];
const ZONE: &str = "Europe/Berlin";
/// 2025-01-01T00:00:00Z.
const FIRST: i64 = 1_735_689_600_000;
const TEN_MINUTES: i64 = 600_000;
const STEPS: i64 = 365 * 144;
/// Readings that come far from their neighbours in the file.
const ASTRAY: u64 = 50;
/// Between two batches of today.
const PAUSE: Duration = Duration::from_millis(20);

/// Writes the year: its fortnights in any order, the readings of each in any order, one in fifty anywhere.
fn history(dir: &Path) -> (PathBuf, Truth) {
    let zone = ZONE.parse().unwrap();
    let mut truth = Truth::new(Calendar::new(PERIODS.iter().map(|p| p.parse().unwrap()).collect(), zone).unwrap());
    let mut seeded = Seeded::new(21);
    let fortnights: Vec<u64> = (0..27).map(|_| seeded.below(u64::MAX)).collect();
    let mut lines = Vec::new();
    for step in 0..STEPS {
        for source in SOURCES {
            let time = FIRST + step * TEN_MINUTES + seeded.below(60_000).cast_signed();
            // Around a million, where a naive sum of squares has few digits left.
            let value = 1_000_000.0 + seeded.below(400) as f64 / 10.0;
            truth.add(source, value, time);
            let astray = seeded.below(ASTRAY) == 0;
            let fortnight = if astray { seeded.below(u64::MAX) } else { fortnights[(step / (14 * 144)) as usize] };
            let time = timestamp::format(time);
            let line = format!(r#"{{"source":"{source}","value":{value},"timestamp":"{time}"}}"#);
            lines.push((fortnight, seeded.below(u64::MAX), line));
        }
    }
    lines.sort_unstable();
    let text = lines.iter().fold(String::new(), |mut text, (_, _, line)| {
        writeln!(text, "{line}").unwrap();
        text
    });
    let path = dir.join("history.ndjson");
    std::fs::write(&path, text).unwrap();
    (path, truth)
}

/// Posts batches of today under keys until told to stop; how many readings each source has then.
fn live(client: &Client, stop: &AtomicBool) -> u64 {
    for batch in 0.. {
        let body = array(SOURCES.iter().map(|source| reading(source, 1.0)));
        client.post_until_counted(&format!("live-{batch}"), &body);
        if stop.load(Ordering::SeqCst) {
            return batch + 1;
        }
        sleep(PAUSE);
    }
    unreachable!("the loop ends only by returning")
}

/// Readings of the year that are counted.
fn of_the_year(client: &Client) -> u64 {
    let rows = |source| {
        let answer = client.get(&format!("/v1/stats?source={source}&period=1mo&from=2024-12-01&to=2026-02-01"));
        if answer.status == 200 { answer.json()["rows"].as_array().cloned().unwrap_or_default() } else { Vec::new() }
    };
    SOURCES.iter().flat_map(rows).map(|row| row["count"].as_u64().unwrap()).sum()
}

fn import(service: &mut Service, file: &Path, readings: u64) {
    let words = ["import", file.to_str().unwrap()];
    let mut import = service.command(&words).stderr(Stdio::null()).spawn().unwrap();
    let client = service.client();
    eventually("a sixth of the year is counted", || {
        assert!(import.try_wait().unwrap().is_none(), "the import was through before the kill");
        let accepted = metric(&client, "meanwhile_readings_total{outcome=\"accepted\"}");
        accepted.is_some_and(|accepted| accepted > readings as f64 / 6.0).then_some(())
    });
    service.kill();
    service.start_again();
    assert!(import.wait().unwrap().success(), "the import goes on by itself");
}

fn year(on: On, sink: &Sink) {
    // Its buckets close while their neighbours in the file are still coming. What a kill finds sealed waits for
    // 30 s, so it is to come before, on most machines; `crashes.rs` has those in the middle of a rollover.
    let flags = ["--periods", &PERIODS.join(","), "--timezone", ZONE, "--grace", "1500ms", "--lateness", "1s"];
    let mut service = sink.start(on, &flags);
    let dir = tempfile::tempdir().unwrap();
    let (file, truth) = history(dir.path());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (client, stop) = (service.client(), Arc::clone(&stop));
        thread::spawn(move || live(&client, &stop))
    };
    import(&mut service, &file, truth.readings());
    let said = service.command(&["import", file.to_str().unwrap()]).output().unwrap().stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("157,680 of them had been counted already"), "{said}");
    let client = service.client();
    eventually("the whole year is written", || {
        let all = ["1w", "1mo"].iter().all(|period| sink.counted(&service, period) == truth.readings());
        all.then_some(())
    });
    stop.store(true, Ordering::SeqCst);
    let today = writer.join().unwrap();
    let rows: Vec<usize> = PERIODS.iter().map(|period| truth.check(&service, sink, period)).collect();
    // Winter time at both ends: the year begins an hour into its first day, and ends an hour into the next.
    assert_eq!(rows, [3 * 8_760, 3 * 366, 3 * 53, 3 * 13]);
    for source in SOURCES {
        let (count, sum) = client.total(source, "1mo");
        let history = truth.readings() / 3;
        assert_eq!(count, history + today, "{source}: {sum}");
    }
    assert_eq!(of_the_year(&client), truth.readings());
    assert!(!service.log().contains("went back"), "{}", service.log());
}

#[test]
fn year_in_files_redis() {
    year(On::Redis, &Sink::Files);
}

#[test]
fn year_in_a_table_embedded() {
    year(On::Embedded, &Sink::table());
}
