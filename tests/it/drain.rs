//! `meanwhile drain`, the tool for a change of zone, periods or store and for shutting down for good:
//! afterwards nothing is open and the files have everything.
//!
//! What can come in between is in `draining.rs`.

use crate::http::{Client, array, reading, reading_at};
use crate::servers::temporary;
use crate::service::{On, Service, eventually};
use crate::sink_files;
use serde_json::{Value, json};
use std::fs;
use std::process::Output;

const PERIODS: [&str; 3] = ["1m", "1h", "1d"];

/// Sees that files and answers agree in all periods.
#[track_caller]
fn check_totals(service: &Service, source: &str, expected: (u64, f64)) {
    for period in PERIODS {
        assert_eq!(sink_files::total(&service.sink(), period, source), expected, "{period} in the files");
        assert_eq!(service.client().total(source, period), expected, "{period}");
    }
}

fn open_buckets(client: &Client) -> Value {
    client.get("/readyz").ok().json()["rollover"]["open_buckets"].clone()
}

fn a_quiet_service(on: On) {
    // Nothing closes by itself while this runs.
    let mut service = Service::start(on, &["--grace", "1h", "--lateness", "1d", "--hold", "0s"]);
    let client = service.client();
    let old = "2026-03-02T10:17:00Z";
    assert_eq!(client.get("/v1/drain").ok().json()["state"], "never");
    let batch = || array([reading("a", 1.0), reading_at("a", 2.0, old), reading("b", 4.0)]);
    client.post_keyed("first", &batch()).ok();
    check_said(&service.run(&["drain"]), 6);
    assert_eq!(client.get("/v1/state?source=a").ok().json(), json!([]));
    assert_eq!(open_buckets(&client), 0);
    check_totals(&service, "a", (2, 3.0));
    check_totals(&service, "b", (1, 4.0));
    let closed = client.rows("a", "1m").iter().all(|row| row["state"] == "closed");
    assert!(closed, "{:?}", client.rows("a", "1m"));

    // Nothing is left to do, and nothing is done twice.
    assert_eq!(service.run(&["drain"]), "buckets written: 0, closed: 0; rows written: 0\n");
    client.post_keyed("first", &batch()).ok();
    assert_eq!(open_buckets(&client), 0, "a duplicate opens nothing");
    // What comes later begins the buckets anew, and the rows become the sum.
    client.post_keyed("second", &array([reading("a", 8.0), reading_at("a", 16.0, old)])).ok();
    assert_eq!(client.total("a", "1d"), (4, 27.0), "at once");
    service.run(&["drain"]);
    check_totals(&service, "a", (4, 27.0));
    let day = eventually("the old day is in its final form", || {
        let dir = service.sink().join("period=1m/date=2026-03-02");
        (!dir.join("tail.csv").exists()).then(|| fs::read_to_string(dir.join("rows.csv")).unwrap())
    });
    assert_eq!(day.lines().count(), 2, "a header and a row: {day}");
    // A stop and a start change nothing.
    service.stop();
    service.start_again();
    check_totals(&service, "a", (4, 27.0));
}

/// The minutes of now and of old, two hours and two days; one more of each if a clock ticked over.
#[track_caller]
fn check_said(said: &str, least: u64) {
    let closed = said.split("closed: ").nth(1).and_then(|rest| rest.split(';').next()?.parse::<u64>().ok());
    assert!(closed.is_some_and(|closed| (least..=least + 3).contains(&closed)), "{said}");
    assert!(said.starts_with(&format!("buckets written: {}, closed", closed.unwrap())), "{said}");
}

#[test]
fn a_quiet_service_embedded() {
    a_quiet_service(On::Embedded);
}

#[test]
fn a_quiet_service_redis() {
    a_quiet_service(On::Redis);
}

fn another_zone_and_other_periods(on: On) {
    let mut service = Service::start(on, &["--periods", "1m,1h,1d", "--hold", "0s"]);
    let client = service.client();
    let times = ["2026-03-01T10:17:00Z", "2026-03-01T23:30:00Z"];
    client.post(&array(times.map(|time| reading_at("a", 1.0, time)))).ok();
    service.run(&["drain"]);
    service.stop();
    // The second reading is of the next day there.
    service.start_with(&["--periods", "10s,1h,1d", "--timezone", "Europe/Berlin", "--hold", "0s"]);
    client.post(&array(times.map(|time| reading_at("a", 2.0, time)))).ok();
    let rows = |period: &str| -> Vec<(String, u64, f64)> {
        let rows = client.rows("a", period).into_iter();
        rows.map(|row| {
            let (count, sum) = (row["count"].as_u64().unwrap(), row["sum"].as_f64().unwrap());
            (row["start"].as_str().unwrap().to_owned(), count, sum)
        })
        .collect()
    };
    let row = |start: &str, count: u64, sum: f64| (start.to_owned(), count, sum);
    let check = |when: &str| {
        let days = [
            row("2026-02-28T23:00:00Z", 1, 2.0),
            row("2026-03-01T00:00:00Z", 2, 2.0),
            row("2026-03-01T23:00:00Z", 1, 2.0),
        ];
        assert_eq!(rows("1d"), days, "{when}: the days of both zones");
        let hours = [row("2026-03-01T10:00:00Z", 2, 3.0), row("2026-03-01T23:00:00Z", 2, 3.0)];
        assert_eq!(rows("1h"), hours, "{when}");
        assert_eq!(rows("10s"), times.map(|time| row(time, 1, 2.0)), "{when}");
    };
    check("open");
    service.run(&["drain"]);
    check("drained");
    for (period, sum) in [("1m", 2.0), ("10s", 4.0), ("1h", 6.0), ("1d", 6.0)] {
        assert_eq!(sink_files::total(&service.sink(), period, "a").1, sum, "{period} in the files");
    }
}

#[test]
fn another_zone_and_other_periods_embedded() {
    another_zone_and_other_periods(On::Embedded);
}

#[test]
fn another_zone_and_other_periods_redis() {
    another_zone_and_other_periods(On::Redis);
}

/// A bucket that lasts through all of it: every store has a part, none of them knows of the others. The
/// first is older than what the second writes, and is still to be newer when its turn comes again.
#[test]
fn another_store_and_back() {
    let mut service = Service::start(On::Redis, &["--periods", "1mo", "--hold", "0s"]);
    let dir = temporary();
    let other = format!("embedded:{}", dir.path().display());
    let stores: [&[&str]; 4] = [&[], &["--store", &other], &[], &["--store", &other]];
    let mut total = (0, 0.0);
    for (round, store) in stores.into_iter().enumerate() {
        if round > 0 {
            service.stop();
            service.start_with(&[&["--periods", "1mo", "--hold", "0s"], store].concat());
        }
        if round > 0 {
            let value = f64::from(1 << round);
            service.client().post(&reading("a", value)).ok();
            total = (total.0 + 1, total.1 + value);
        }
        assert_eq!(service.client().total("a", "1mo"), total, "in round {round}, at once");
        service.run(&["drain"]);
        assert_eq!(sink_files::total(&service.sink(), "1mo", "a"), total, "in round {round}");
    }
}

#[test]
fn a_sink_that_is_away_loses_nothing() {
    let service = Service::start(On::Embedded, &["--grace", "1h"]);
    let client = service.client();
    let place = service.sink().join("period=1h");
    fs::write(&place, "").unwrap();
    client.post(&reading("a", 1.0)).ok();
    let refused = client.post_to("/v1/drain");
    assert_eq!((refused.status, &refused.json()["type"]), (503, &json!("/problems/unavailable")), "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(client.get("/v1/drain").ok().json()["state"], "failed");
    let Output { status, stdout, stderr } = service.command(&["drain"]).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout), (Some(1), vec![]), "{said}");
    assert!(said.contains("period=1h") && said.contains("repeat"), "{said}");
    assert_eq!(client.total("a", "1d"), (1, 1.0), "it is still counted");
    fs::remove_file(place).unwrap();
    let drained = client.post_to("/v1/drain").ok().json();
    assert_eq!((&drained["state"], &drained["still_open"]), (&json!("done"), &json!(0)), "{drained}");
    check_totals(&service, "a", (1, 1.0));
}

#[test]
fn a_drain_goes_on_without_its_client() {
    let service = Service::start(On::Embedded, &["--grace", "1h", "--hold", "500ms"]);
    let client = service.client();
    client.post(&reading("a", 1.0)).ok();
    let started = client.post_to("/v1/drain?wait=0");
    assert_eq!((started.status, &started.json()["state"]), (202, &json!("running")), "{started:?}");
    let joined = client.post_to("/v1/drain").ok().json();
    assert_eq!(
        (&joined["state"], &joined["buckets_closed"], &joined["buckets_left"]),
        (&json!("done"), &json!(3), &json!(0))
    );
    assert_eq!(client.get("/v1/drain").ok().json(), joined);
    check_totals(&service, "a", (1, 1.0));
    for (query, status) in [("?wait=21", 400), ("?wait=-1", 400), ("?wait=x", 400), ("?till=1", 400), ("?wait=20", 200)]
    {
        assert_eq!(client.post_to(&format!("/v1/drain{query}")).status, status, "{query}");
    }
}

#[test]
fn a_stop_breaks_it_off() {
    let mut service = Service::start(On::Embedded, &["--grace", "1h", "--hold", "2s"]);
    let client = service.client();
    client.post(&reading("a", 1.0)).ok();
    let waiting = std::thread::spawn({
        let client = service.client();
        move || client.post_to("/v1/drain")
    });
    let running = || (client.get("/v1/drain").ok().json()["state"] == "running").then_some(());
    eventually("it has begun", running);
    service.stop();
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("the service is stopping"), "{answer:?}");
    service.start_with(&["--grace", "1h", "--hold", "0s"]);
    assert_eq!(service.client().get("/v1/drain").ok().json()["state"], "never");
    assert_eq!(service.client().total("a", "1d"), (1, 1.0));
    service.run(&["drain"]);
    check_totals(&service, "a", (1, 1.0));
}
