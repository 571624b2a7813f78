//! `--late refuse` from the outside: a reading that is too late is named by its line in every format, a
//! repetition is answered like the request, and a reading with several root buckets is counted in all or none.

use crate::http::{Client, reading, reading_at};
use crate::service::{On, Service, eventually};
use meanwhile::clock::Clock;
use meanwhile::stats::timestamp;
use serde_json::{Value, json};

const OLD: &str = "2024-02-29T12:00:00Z";
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const TABLE: &str = "text/csv";

fn post(client: &Client, key: &str, kind: &str, query: &str, body: &str) -> Value {
    let headers = [("Content-Type", kind), ("Idempotency-Key", key)];
    client.try_post(query, &headers, body.as_bytes()).unwrap().ok().json()
}

fn lines(rejected: &[u64]) -> Value {
    rejected.iter().map(|line| json!({"line": line, "code": "too_late"})).collect()
}

fn now() -> String {
    timestamp::format(Clock::System.now())
}

/// Readings of a source of its own: 1 and 4 come in time, 2 and 8 do not.
fn in_every_format(on: On) {
    let service = Service::start(on, &["--late", "refuse"]);
    let client = service.client();
    let check = |source: &str, kind: &str, query: &str, body: &str, rejected: &[u64]| {
        for duplicate in [false, true] {
            let answer = post(&client, source, kind, query, body);
            assert_eq!(answer["rejected"], lines(rejected), "{source}: {answer}");
            assert_eq!((&answer["accepted"], &answer["duplicate"]), (&json!(2), &json!(duplicate)), "{source}");
        }
        assert_eq!(client.total(source, "1d"), (2, 5.0), "{source}");
    };
    let readings = |s: &str| [reading(s, 1.0), reading_at(s, 2.0, OLD), reading(s, 4.0), reading_at(s, 8.0, OLD)];
    check("json", JSON, "", &format!("[{}]", readings("json").join(",")), &[2, 4]);
    check("ndjson", LINES, "", &readings("ndjson").join("\n\n"), &[3, 7]);
    let table = format!("source,value,timestamp\ncsv,2,{OLD}\ncsv,1,{0}\ncsv,8,{OLD}\ncsv,4,{0}\n", now());
    check("csv", TABLE, "", &table, &[2, 4]);
    // Both readings of a line of a wide table.
    let wide = format!("t,place,x,y\n{OLD},wide,2,8\n{0},wide,1,\n{0},wide,4,\n", now());
    let answer = post(&client, "wide", TABLE, "?time=t&source={place}.{column}&values=x,y", &wide);
    assert_eq!((&answer["rejected"], &answer["accepted"]), (&lines(&[2, 2]), &json!(2)), "{answer}");
    assert_eq!((client.total("wide.x", "1d"), client.total("wide.y", "1d")), ((2, 5.0), (0, 0.0)));
    // A request of which nothing is left, and another body under its key.
    for duplicate in [false, true] {
        let answer = post(&client, "all", JSON, "", &reading_at("all", 1.0, OLD));
        assert_eq!((&answer["rejected"], &answer["accepted"]), (&lines(&[1]), &json!(0)), "{answer}");
        assert_eq!(answer["duplicate"], duplicate, "{answer}");
    }
    assert_eq!(client.post_keyed("all", &reading("all", 1.0)).status, 422);
    assert_eq!(client.total("all", "1d"), (0, 0.0));
}

#[test]
fn in_every_format_embedded() {
    in_every_format(On::Embedded);
}

#[test]
fn in_every_format_redis() {
    in_every_format(On::Redis);
}

/// What a request brought in time is too late when it is repeated: the answer is that of the request.
fn repeated_later(on: On) {
    let mut service =
        Service::start(on, &["--late", "refuse", "--periods", "1s,1m", "--grace", "50ms", "--lateness", "3s"]);
    let client = service.client();
    let time = now();
    // Parts of 2,000 readings: the middle one comes too late as a whole.
    let reading = |i: usize| reading_at("a", 1.0, if i % 2 == 1 || (2_000..4_000).contains(&i) { OLD } else { &time });
    let body = (0..5_000).map(reading).collect::<Vec<_>>().join("\n");
    let first = post(&client, "a", LINES, "", &body);
    assert_eq!((&first["accepted"], first["rejected"].as_array().unwrap().len()), (&json!(1_500), 3_500));
    eventually("it would be too late", || {
        let later = post(&client, &format!("later-{}", now()), JSON, "", &reading_at("b", 1.0, &time));
        (later["accepted"] == 0).then_some(())
    });
    service.kill();
    service.start_again();
    let again = post(&client, "a", LINES, "", &body);
    assert_eq!(
        again,
        json!({"accepted": 1_500, "duplicate": true, "durability": "disk", "rejected": first["rejected"]})
    );
    assert_eq!(client.total("a", "1m"), (1_500, 1_500.0));
}

#[test]
fn repeated_later_embedded() {
    repeated_later(On::Embedded);
}

#[test]
fn repeated_later_redis() {
    repeated_later(On::Redis);
}

/// Half an hour off the grid, days are made of no hours: an hour is too late long before its day.
fn hours_beside_days(on: On) {
    let clock = Clock::System.now();
    let hour_in = |minutes: i64| (clock / 60_000 + minutes).rem_euclid(1_440) / 60;
    // Where it is day now: two hours ago was the same day.
    let zone = if (3..22).contains(&hour_in(330)) { "Asia/Kolkata" } else { "Pacific/Marquesas" };
    let service = Service::start(on, &["--late", "refuse", "--periods", "1h,1d", "--timezone", zone]);
    let client = service.client();
    let two_hours_ago = timestamp::format(clock - 7_200_000);
    let body = format!("{}\n{}", reading_at("a", 2.0, &two_hours_ago), reading("a", 1.0));
    for duplicate in [false, true] {
        let answer = post(&client, "a", LINES, "", &body);
        assert_eq!((&answer["rejected"], &answer["duplicate"]), (&lines(&[1]), &json!(duplicate)), "{answer}");
        for period in ["1h", "1d"] {
            assert_eq!(client.total("a", period), (1, 1.0), "{period} in {zone}");
        }
    }
}

#[test]
fn hours_beside_days_embedded() {
    hours_beside_days(On::Embedded);
}

#[test]
fn hours_beside_days_redis() {
    hours_beside_days(On::Redis);
}
