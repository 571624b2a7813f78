//! Any set of sources over any range: `GET /v1/summary` and `meanwhile summary` against plain sums of the readings.
//!
//! On both stores and in both sinks, while some buckets are open. What moves between the looks is in the unit tests of
//! `query/`.

use crate::exact_rows::Sink;
use crate::http::{Client, array, reading_at};
use crate::service::{On, Service, eventually};
use meanwhile::stats::timestamp;
use serde_json::Value;

/// 2026-06-01T00:00:00Z, a Monday.
const FIRST: i64 = 1_780_272_000_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAYS: i64 = 40;
const SOURCES: [&str; 3] = ["east.wind", "north.wind", "roof"];

/// One reading of each source every seven hours and eleven minutes; whole numbers, so that any sum of them is exact.
fn readings() -> impl Iterator<Item = (usize, i64, f64)> {
    let step = 7 * HOUR + 11 * MINUTE;
    let times = (0..).map(move |n| (n, FIRST + n * step)).take_while(|(_, t)| *t < FIRST + DAYS * 24 * HOUR);
    times.flat_map(|(n, t)| (0..SOURCES.len()).map(move |i| (i, t, (n * 13 % 97) as f64 + i as f64)))
}

const LINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.ndjson");
const PERIODS: &str = "1m,1h,1d,1w,1mo";

fn filled(sink: &Sink, on: On, periods: &str) -> Service {
    let service = sink.start(on, &["--periods", periods, "--grace", "200ms", "--lateness", "200ms"]);
    let client = service.client();
    let body = array(readings().map(|(i, t, value)| reading_at(SOURCES[i], value, &timestamp::format(t))));
    client.post(&body).ok();
    eventually("the hours, and the days if there are any, are closed", || {
        let period = if periods == PERIODS { "1d" } else { "1h" };
        let rows = client.get(&format!("/v1/stats?source=roof&period={period}")).ok().json();
        rows["rows"].as_array().unwrap().iter().all(|row| row["state"] == "closed").then_some(())
    });
    service
}

/// Count and sum of the readings of some sources in `[from, to)`.
fn truth(sources: &[usize], from: i64, to: i64) -> (u64, f64) {
    let inside = readings().filter(|(i, t, _)| sources.contains(i) && (from..to).contains(t));
    inside.fold((0, 0.0), |(count, sum), (_, _, value)| (count + 1, sum + value))
}

fn of(row: &Value) -> (u64, f64) {
    (row["count"].as_u64().unwrap(), row["sum"].as_f64().unwrap())
}

fn get(client: &Client, query: &str) -> Value {
    client.get(&format!("/v1/summary?{query}")).ok().json()
}

fn any_range(on: On, sink: &Sink) {
    let service = filled(sink, on, PERIODS);
    let client = service.client();
    // Minutes, hours, days, weeks and months at the ends of the range.
    for (from, to) in [(0, DAYS * 24 * 60), (61, 50_000), (17 * 60, 18 * 60), (1_439, 44_641), (10_080, 30_240)] {
        let (from, to) = (FIRST + from * MINUTE, FIRST + to * MINUTE);
        let answer = get(&client, &format!("prefix=&from={from}&to={to}"));
        let covered = [&answer["covered"]["from"], &answer["covered"]["to"]];
        assert_eq!(covered, [&timestamp::format(from), &timestamp::format(to)], "{answer}");
        let rows = answer["rows"].as_array().unwrap();
        for (i, source) in SOURCES.iter().enumerate() {
            let row = rows.iter().find(|row| row["source"] == *source);
            assert_eq!(row.map_or((0, 0.0), of), truth(&[i], from, to), "{source}: {answer}");
        }
        let all = get(&client, &format!("prefix=&by=none&from={from}&to={to}"));
        let expected = truth(&[0, 1, 2], from, to);
        assert_eq!(all["rows"].as_array().unwrap().first().map_or((0, 0.0), of), expected, "{all}");
        // The days together are the range.
        let days = get(&client, &format!("prefix=&by=period&period=1d&from={from}&to={to}"));
        let sum = |(count, sum), row: &Value| (count + of(row).0, sum + of(row).1);
        assert_eq!(days["rows"].as_array().unwrap().iter().fold((0, 0.0), sum), expected, "{days}");
    }
    let answer = get(&client, "source=roof&prefix=n&by=none");
    assert_eq!((answer["sources"].as_u64(), of(&answer["rows"][0])), (Some(2), truth(&[1, 2], 0, i64::MAX)));
    let inside = get(&client, &format!("source=roof&from={}&to={}", FIRST + 30_000, FIRST + HOUR + 1));
    assert_eq!(
        (&inside["covered"]["from"], &inside["covered"]["to"]),
        (&"2026-06-01T00:00:00Z".into(), &"2026-06-01T01:01:00Z".into())
    );
    // A reading of now: its minute is open, and counts.
    client.post(r#"{"source": "roof", "value": 1000}"#).ok();
    let (count, sum) = truth(&[2], 0, i64::MAX);
    let answer = get(&client, "source=roof");
    assert_eq!((of(&answer["rows"][0]), &answer["rows"][0]["state"]), ((count + 1, sum + 1_000.0), &"open".into()));
}

#[test]
fn any_range_in_files_redis() {
    any_range(On::Redis, &Sink::Files);
}

#[test]
fn any_range_in_a_table_embedded() {
    any_range(On::Embedded, &Sink::table());
}

/// Days and months come to a list of minutes and hours, and a reading to each of them.
fn a_period_that_is_added_later(on: On, sink: &Sink) {
    let mut service = filled(sink, on, "1m,1h");
    let url = match sink {
        Sink::Files => service.sink().to_str().map(|dir| format!("csv:{dir}")).unwrap(),
        Sink::Table(database) => database.url(),
    };
    service.stop();
    let flags = ["--sink", &url, "--periods", "1m,1h,1d,1mo", "--grace", "200ms", "--lateness", "200ms"];
    service.start_with(&flags);
    let client = service.client();
    client.post(&reading_at("roof", 1_000.0, &timestamp::format(FIRST + 3 * HOUR))).ok();
    eventually("its month is closed", || {
        let rows = client.rows("roof", "1mo");
        assert_eq!(rows.len(), 1, "the month of the late reading alone");
        (rows[0]["state"] == "closed").then(|| assert_eq!(of(&rows[0]), (1, 1_000.0)))
    });
    let (count, sum) = truth(&[2], 0, i64::MAX);
    let all = get(&client, "source=roof&by=none");
    assert_eq!(of(&all["rows"][0]), (count + 1, sum + 1_000.0), "{all}");
    let june = get(&client, "source=roof&from=2026-06-01&to=2026-07-01&by=period&period=1d");
    let days = june["rows"].as_array().unwrap();
    assert_eq!(days.iter().fold(0, |count, row| count + of(row).0), truth(&[2], 0, FIRST + 30 * 24 * HOUR).0 + 1);
    // It is known as long as the store is, and what is stored all along counts as it did.
    service.stop();
    service.start_again();
    assert_eq!(get(&service.client(), "source=roof&by=none")["rows"], all["rows"]);
}

#[test]
fn a_period_that_is_added_later_in_files_redis() {
    a_period_that_is_added_later(On::Redis, &Sink::Files);
}

#[test]
fn a_period_that_is_added_later_in_a_table_embedded() {
    a_period_that_is_added_later(On::Embedded, &Sink::table());
}

#[test]
fn a_summary_on_the_command_line() {
    let service = filled(&Sink::Files, On::Embedded, PERIODS);
    let words = ["summary", "--prefix", "", "--from", "2026-06-02", "--to", "2026-06-05"];
    let table = service.run(&words);
    assert!(table.starts_with("source      count"), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    let csv = service.run(&[&words[..], &["--format", "csv", "--by", "period", "--period", "1d"]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("source,start,end,count,sum,mean"), "{csv}");
    assert!(lines[1].starts_with(",2026-06-02T00:00:00Z,2026-06-03T00:00:00Z,"), "{csv}");
    assert_eq!(lines.len(), 4, "{csv}");
    let served =
        service.client().get("/v1/summary?prefix=&from=2026-06-02&to=2026-06-05&by=period&period=1d&format=csv");
    assert_eq!(served.ok().body, csv, "the service and the command write the same table");
    let json: Value = serde_json::from_str(&service.run(&["summary", "roof", "--format", "json"])).unwrap();
    assert_eq!(of(&json["rows"][0]), truth(&[2], 0, i64::MAX));
    let rounded =
        service.command(&["summary", "roof", "--from", "2026-06-01T00:00:30Z", "--by", "none"]).output().unwrap();
    let note = String::from_utf8(rounded.stderr).unwrap();
    assert!(note.contains("covered: 2026-06-01 00:00:00 to "), "{note}");
    let usage = service.command(&["summary"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// What is known is answered, and that it may not be all is said.
#[test]
fn while_the_store_is_away() {
    let mut service = filled(&Sink::Files, On::Redis, PERIODS);
    service.redis().kill();
    let client = service.client();
    let query = "source=roof&from=2026-06-02&to=2026-06-05";
    let json = get(&client, query);
    assert_eq!((&json["partial"], json["rows"].as_array().map(Vec::len)), (&true.into(), Some(1)), "{json}");
    let csv = client.get(&format!("/v1/summary?{query}&format=csv")).ok();
    assert_eq!((csv.headers.get("meanwhile-partial").map(String::as_str), csv.body.lines().count()), (Some("true"), 2));
    let compared = client.get("/v1/compare?source=roof&against=east.wind&to=2026-06-05").ok().json();
    assert_eq!(compared["partial"], true, "{compared}");
    let (status, error) = {
        let verified = service.command(&["verify", LINES]).output().unwrap();
        (verified.status.code(), String::from_utf8(verified.stderr).unwrap())
    };
    assert!(status == Some(1) && error.contains("could not ask both its store and its sink"), "{error}");
}

#[test]
fn what_a_summary_refuses() {
    let service = filled(&Sink::Files, On::Embedded, PERIODS);
    let client = service.client();
    let refused = |query: &str, parameter: &str, hint: &str| {
        let answer = client.get(&format!("/v1/summary?{query}"));
        let problem = answer.json();
        assert_eq!((answer.status, &problem["parameter"]), (400, &parameter.into()), "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{problem}");
    };
    refused("", "source", "?prefix= is all sources");
    refused("source=", "source", "empty");
    refused(&vec!["source=a"; 101].join("&"), "source", "at most 100");
    refused("source=roof&by=day", "by", "source, period, none");
    refused("source=roof&period=1d", "period", "by=period");
    refused("source=roof&by=period&period=1s", "period", "1m, 1h");
    refused("source=roof&by=period&period=1m&from=2000-01-01", "period", "coarser period");
    refused("source=roof&format=text", "format", "json or csv");
    refused("source=roof&from=2&to=1", "from", "after to");
    assert_eq!(client.get("/v1/summary?source=rof").status, 404);
}
