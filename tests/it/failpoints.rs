//! The service ends itself at every named step between a request and a closed bucket, once each; afterwards
//! each reading is counted once, in answers and in files.
//!
//! `crashes.rs` kills it at moments nobody has chosen, `tests/soak/` does both for as long as one likes.

use crate::http::{Client, array, reading, reading_at};
use crate::service::{On, Service};
use crate::sink_files;
use meanwhile::failpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const PERIODS: [&str; 3] = ["1s", "1m", "1d"];
const FLAGS: [&str; 6] = ["--periods", "1s,1m,1d", "--grace", "50ms", "--lateness", "100ms"];

/// Posts batches under keys until told to stop: readings of now, first also of a day that is over, so that
/// it closes and is compacted. Returns how many were acknowledged.
fn post_batches(client: &Client, name: &str, stop: &AtomicBool) -> u64 {
    let mut batch = 0;
    while !stop.load(Ordering::SeqCst) {
        let second =
            if batch < 3 { reading_at("a", 2.0, &format!("2025-10-01T00:00:{batch:02}Z")) } else { reading("a", 2.0) };
        client.post_until_counted(&format!("{name}-{batch}"), &array([reading("a", 1.0), second]));
        batch += 1;
    }
    batch
}

fn it_ends_itself_at(service: &mut Service, name: &str) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    service.start_again_until(&format!("{name}:1"));
    let posting = {
        let (client, stop, name) = (service.client(), Arc::clone(&stop), name.to_owned());
        thread::spawn(move || post_batches(&client, &name, &stop))
    };
    service.wait_for_failpoint();
    service.start_again();
    stop.store(true, Ordering::SeqCst);
    posting.join().expect("a client has failed, see above")
}

fn every_step(on: On) {
    let mut service = Service::start(on, &FLAGS);
    let client = service.client();
    let mut batches = 0;
    for name in failpoint::NAMES {
        if on == On::Redis && name.starts_with("embedded-") {
            continue;
        }
        service.kill();
        batches += it_ends_itself_at(&mut service, name);
        let expected = (2 * batches, 3.0 * batches as f64);
        for period in PERIODS {
            assert_eq!(client.total("a", period), expected, "{period}, after {name}");
        }
    }
    // What the dead have sealed would be due again after half a minute.
    service.run(&["drain"]);
    for period in PERIODS {
        assert_eq!(sink_files::total(&service.sink(), period, "a"), (2 * batches, 3.0 * batches as f64), "{period}");
    }
}

#[test]
fn every_step_embedded() {
    every_step(On::Embedded);
}

#[test]
fn every_step_redis() {
    every_step(On::Redis);
}

#[test]
fn a_failpoint_that_does_not_exist_is_refused() {
    for wrong in ["here:1", "sealed", "sealed:0", "sealed:x"] {
        let started = crate::service::command(&["serve"]).env("MEANWHILE_FAILPOINT", wrong).output().unwrap();
        assert_eq!(started.status.code(), Some(1), "{wrong}");
        assert!(String::from_utf8_lossy(&started.stderr).contains("write NAME:N"), "{started:?}");
    }
}
