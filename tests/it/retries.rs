//! Requests that come more than once under one `Idempotency-Key` are counted once: one after the
//! other, at the same time, over a restart, in several parts.
//!
//! What crashes and outages do to retries is in `crashes.rs` and `outages.rs`.

use crate::http::{array, reading, reading_at};
use crate::service::{On, Service};
use std::thread;

/// Requests at the same time under one key.
const AT_ONCE: usize = 20;
/// More than one part of 2,000.
const LARGE: usize = 5_000;

fn one_key(on: On) {
    let mut service = Service::start(on, &[]);
    let client = service.client();
    let twice = array([reading("a", 2.0), reading("a", 3.0)]);
    let duplicate = |answer: serde_json::Value| answer["duplicate"].as_bool().unwrap();
    let first = client.post_keyed("one", &twice).ok().json();
    assert_eq!((first["accepted"].as_u64(), duplicate(first)), (Some(2), false));
    let second = client.post_keyed("one", &twice).ok().json();
    assert_eq!((second["accepted"].as_u64(), duplicate(second)), (Some(2), true));
    assert_eq!(client.total("a", "1d"), (2, 5.0));

    let threads: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (client, body) = (client.clone(), reading("b", 1.0));
            thread::spawn(move || duplicate(client.post_keyed("at-once", &body).ok().json()))
        })
        .collect();
    let duplicates = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|&duplicate| duplicate).count();
    assert_eq!((duplicates, client.total("b", "1d")), (AT_ONCE - 1, (1, 1.0)));

    let large = array((0..LARGE).map(|i| reading(&format!("large-{}", i % 7), 1.0)));
    assert!(!duplicate(client.post_keyed("large", &large).ok().json()));
    service.stop();
    service.start_again();
    assert!(duplicate(client.post_keyed("one", &twice).ok().json()));
    assert!(duplicate(client.post_keyed("large", &large).ok().json()));
    service.kill();
    service.start_again();
    assert!(duplicate(client.post_keyed("large", &large).ok().json()));
    let all: u64 = (0..7).map(|i| client.total(&format!("large-{i}"), "1d").0).sum();
    assert_eq!((all, client.total("a", "1d"), client.total("b", "1d")), (LARGE as u64, (2, 5.0), (1, 1.0)));

    // Another body under the key, first part alike.
    let other = array((0..LARGE).map(|i| reading(&format!("large-{}", i % 7), if i < LARGE - 1 { 1.0 } else { 2.0 })));
    let refused = client.post_keyed("large", &other);
    assert_eq!((refused.status, refused.json()["type"].as_str()), (422, Some("/problems/key-reused")));
    assert_eq!((0..7).map(|i| client.total(&format!("large-{i}"), "1d").0).sum::<u64>(), LARGE as u64);
}

#[test]
fn one_key_embedded() {
    one_key(On::Embedded);
}

#[test]
fn one_key_redis() {
    one_key(On::Redis);
}

fn late_readings_are_refused_by_line(on: On) {
    let service = Service::start(on, &["--late", "refuse"]);
    let client = service.client();
    let old = "2024-02-29T12:00:00Z";
    let body = array([reading("a", 1.0), reading_at("a", 2.0, old), reading("a", 3.0), reading_at("b", 4.0, old)]);
    let answer = client.post_keyed("late", &body).ok().json();
    let line = |line: u64| serde_json::json!({"line": line, "code": "too_late"});
    assert_eq!(answer["rejected"], serde_json::json!([line(2), line(4)]), "{answer}");
    assert_eq!((&answer["accepted"], client.total("a", "1d")), (&2.into(), (2, 4.0)));
    assert_eq!(client.total("b", "1d"), (0, 0.0));
}

#[test]
fn late_readings_are_refused_by_line_embedded() {
    late_readings_are_refused_by_line(On::Embedded);
}

#[test]
fn late_readings_are_refused_by_line_redis() {
    late_readings_are_refused_by_line(On::Redis);
}
