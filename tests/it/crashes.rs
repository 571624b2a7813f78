//! `kill -9` in the middle of the work: of the service during an import, of Redis during an import.
//! Each reading is counted once afterwards, whoever repeats what.
//!
//! The moments come from a seed. Buckets of the import are long over, so they are sealed, written and
//! closed while it runs: a kill meets every step of that too.

use crate::http::{Client, array, reading};
use crate::seeded::Seeded;
use crate::service::{On, Service, eventually};
use crate::sink_files;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

const FLAGS: [&str; 6] = ["--periods", "1m,1h,1d", "--grace", "100ms", "--lateness", "1s"];
const SOURCES: u64 = 5;
/// Batches of an import are of 1,000 lines.
const BATCHES: u64 = 25;
const KILLS: u64 = 6;

/// Integers over some hours of three days, so that every sum is exact, and per source what they
/// come to.
fn readings(seed: u64, dir: &Path) -> (PathBuf, Vec<(u64, f64)>) {
    let mut seeded = Seeded::new(seed);
    let (mut text, mut totals) = (String::new(), vec![(0, 0.0); SOURCES as usize]);
    for _ in 0..BATCHES * 1_000 {
        let (source, value) = (seeded.below(SOURCES), seeded.below(1_000));
        let (day, hour, minute) = (seeded.below(3) + 1, seeded.below(4), seeded.below(5));
        let time = format!("2025-10-{day:02}T{hour:02}:{minute:02}:30Z");
        writeln!(text, r#"{{"source":"s{source}","value":{value},"timestamp":"{time}"}}"#).unwrap();
        let total: &mut (u64, f64) = &mut totals[source as usize];
        *total = (total.0 + 1, total.1 + value as f64);
    }
    let path = dir.join("readings.ndjson");
    std::fs::write(&path, text).unwrap();
    (path, totals)
}

/// Sees that all periods agree with the totals, in answers and, once they have closed, in files.
fn check_totals(service: &Service, totals: &[(u64, f64)]) {
    let client = service.client();
    let answered = |period: &str| (0..SOURCES).map(|i| client.total(&format!("s{i}"), period)).collect::<Vec<_>>();
    for period in ["1m", "1h", "1d"] {
        assert_eq!(answered(period), totals, "{period}");
    }
    let closed = || (0..SOURCES).all(|i| client.get(&format!("/v1/state?source=s{i}")).ok().body.trim() == "[]");
    eventually("every bucket has closed", || closed().then_some(()));
    for period in ["1m", "1h", "1d"] {
        let written: Vec<_> =
            (0..SOURCES).map(|i| sink_files::total(&service.sink(), period, &format!("s{i}"))).collect();
        assert_eq!((answered(period), written), (totals.to_vec(), totals.to_vec()), "{period}");
    }
}

/// Waits until a source has so many readings, or the import has ended; then a little longer.
fn wait_for(count: u64, service: &Service, import: &mut Child, moments: &mut Seeded) {
    eventually("the import gets on", || {
        let rows = service.client().get("/v1/stats?source=s0&period=1d");
        let rows = if rows.status == 200 { rows.json()["rows"].clone() } else { Value::Null };
        let counted: u64 = rows.as_array().into_iter().flatten().filter_map(|row| row["count"].as_u64()).sum();
        (counted >= count || import.try_wait().unwrap().is_some()).then_some(())
    });
    sleep(Duration::from_millis(moments.below(40)));
}

/// How many readings the first source has when it is time for each of the kills.
fn stages(totals: &[(u64, f64)]) -> impl Iterator<Item = u64> {
    let all = totals[0].0;
    (0..KILLS).map(move |kill| all * kill / KILLS)
}

fn the_service_is_killed_during_an_import(on: On) {
    let mut service = Service::start(on, &FLAGS);
    let dir = tempfile::tempdir().unwrap();
    let (file, totals) = readings(3, dir.path());
    let words = ["import", file.to_str().unwrap(), "--retry-for", "0s"];
    let mut moments = Seeded::new(4);
    let mut broken_off = 0;
    for stage in stages(&totals) {
        let mut import = service.command(&words).stderr(Stdio::null()).spawn().unwrap();
        wait_for(stage, &service, &mut import, &mut moments);
        service.kill();
        broken_off += u32::from(!import.wait().unwrap().success());
        service.start_again();
    }
    assert!(broken_off > 1, "the imports were through before the kills: make the file longer");
    eventually("an import is through", || service.command(&words).output().unwrap().status.success().then_some(()));
    check_totals(&service, &totals);
}

#[test]
fn the_service_is_killed_during_an_import_embedded() {
    the_service_is_killed_during_an_import(On::Embedded);
}

#[test]
fn the_service_is_killed_during_an_import_redis() {
    the_service_is_killed_during_an_import(On::Redis);
}

#[test]
fn redis_is_killed_during_an_import() {
    let mut service = Service::start(On::Redis, &FLAGS);
    let dir = tempfile::tempdir().unwrap();
    let (file, totals) = readings(5, dir.path());
    let mut moments = Seeded::new(6);
    let mut import = service.command(&["import", file.to_str().unwrap()]).stderr(Stdio::null()).spawn().unwrap();
    let mut met = 0;
    for stage in stages(&totals) {
        wait_for(stage, &service, &mut import, &mut moments);
        met += u32::from(import.try_wait().unwrap().is_none());
        service.redis().restart();
    }
    assert!(met > 1, "the import was through before the kills: make the file longer");
    assert!(import.wait().unwrap().success(), "the import goes on by itself");
    check_totals(&service, &totals);
}

/// Posts keyed batches of ten ones until told to stop or nobody answers; returns how many were
/// acknowledged.
fn post_until_gone(client: &Client, name: &str, stop: &AtomicBool) -> u64 {
    for batch in 0.. {
        let key = format!("{name}-{batch}");
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key.as_str())];
        let body = array((0..10).map(|_| reading(name, 1.0)));
        match client.try_post("", &headers, body.as_bytes()) {
            Ok(answer) if answer.status == 200 && !stop.load(Ordering::SeqCst) => {}
            Ok(answer) if answer.status == 200 => return batch + 1,
            _ => return batch,
        }
    }
    unreachable!("the loop ends only by returning")
}

fn a_stop_under_load(on: On) {
    let mut service = Service::start(on, &["--grace", "200ms"]);
    let stop = Arc::new(AtomicBool::new(false));
    let names = ["a", "b", "c", "d"];
    let posting = names.map(|name| {
        let (client, stop) = (service.client(), Arc::clone(&stop));
        thread::spawn(move || post_until_gone(&client, name, &stop))
    });
    let counted = |service: &Service, name| service.client().total(name, "1d").0;
    eventually("some are counted", || names.iter().all(|name| counted(&service, name) > 20).then_some(()));
    service.stop();
    stop.store(true, Ordering::SeqCst);
    let acknowledged = posting.map(|thread| thread.join().unwrap());
    service.start_again();
    let client = service.client();
    for (name, batches) in names.into_iter().zip(acknowledged) {
        // One more may have been counted and its answer lost.
        let got = counted(&service, name);
        assert!(got == 10 * batches || got == 10 * (batches + 1), "{name}: {got}, {batches} batches acknowledged");
        // The client finds out by repeating it, as it may repeat what was acknowledged.
        let body = array((0..10).map(|_| reading(name, 1.0)));
        client.post_keyed(&format!("{name}-{batches}"), &body).ok();
        let last = client.post_keyed(&format!("{name}-{}", batches - 1), &body).ok().json();
        assert_eq!((&last["duplicate"], counted(&service, name)), (&true.into(), 10 * (batches + 1)));
    }
}

#[test]
fn a_stop_under_load_embedded() {
    a_stop_under_load(On::Embedded);
}

#[test]
fn a_stop_under_load_redis() {
    a_stop_under_load(On::Redis);
}

#[test]
fn two_services_on_the_same_files() {
    let service = Service::start(On::Embedded, &[]);
    let sink = format!("csv:{}", service.sink().display());
    let check = |store: &str, sink: &str, fragment: &str| {
        let words = ["serve", "--listen", "127.0.0.1:0", "--store", store, "--sink", sink];
        let ended = service.command(&words).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("error: ") && said.contains(fragment), "{said}");
    };
    let dir = tempfile::tempdir().unwrap();
    let (own_store, own_sink) =
        (format!("embedded:{}/s", dir.path().display()), format!("csv:{}/c", dir.path().display()));
    check(&own_store, &sink, "another meanwhile uses");
    check(&service.store(), &own_sink, "another");
    check(&service.store(), &sink, "another");
    // The first one noticed nothing.
    service.client().post(&reading("a", 1.0)).ok();
}
