//! Gaps: empty buckets as rows (`fill=null|previous`), and sources that have fallen silent.

use crate::exact_rows::Sink;
use crate::http::{Client, array, reading, reading_at};
use crate::service::{On, Service, eventually};
use serde_json::Value;

/// Days in Berlin around the change of the clocks, with gaps; `b` begins later and ends earlier.
const READINGS: [(&str, f64, &str); 5] = [
    ("a", 1.0, "2026-03-27T12:00"),
    ("a", 2.0, "2026-03-31T12:00"),
    ("b", 5.0, "2026-03-28T12:00"),
    ("b", 7.0, "2026-03-30T12:00"),
    ("a", 3.0, "2026-04-01T12:00"),
];

fn filled(on: On, sink: &Sink) -> Service {
    let flags = ["--periods", "1h,1d", "--timezone", "Europe/Berlin", "--grace", "200ms", "--lateness", "200ms"];
    let service = sink.start(on, &flags);
    let readings = READINGS.iter().map(|(source, value, time)| reading_at(source, *value, time));
    service.client().post(&array(readings)).ok();
    eventually("the days are closed", || {
        let rows = service.client().rows("a", "1d");
        (rows.len() == 3 && rows.iter().all(|row| row["state"] == "closed")).then_some(())
    });
    service
}

/// All pages of a question as `source start count mean`, in `limit` rows each.
fn pages(client: &Client, query: &str, limit: usize) -> Vec<String> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/stats?{query}&limit={limit}{cursor}")).ok().json();
        let page_rows = page["rows"].as_array().unwrap();
        assert!(page_rows.len() <= limit, "{page}");
        rows.extend(page_rows.iter().map(|row| {
            assert_eq!(row["filled"].as_bool().unwrap_or(false), row["state"] == "empty", "{row}");
            let start = row["start"].as_str().unwrap();
            format!("{} {} {} {}", row["source"].as_str().unwrap(), &start[5..13], row["count"], row["mean"])
        }));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

fn gaps(on: On, sink: &Sink) {
    let service = filled(on, sink);
    let client = service.client();
    // The 29th has 23 hours: from then on a day begins at 22 o'clock.
    let null = [
        "a 03-26T23 1 1.0",
        "b 03-26T23 0 null",
        "a 03-27T23 0 null",
        "b 03-27T23 1 5.0",
        "a 03-28T23 0 null",
        "b 03-28T23 0 null",
        "a 03-29T22 0 null",
        "b 03-29T22 1 7.0",
        "a 03-30T22 1 2.0",
        "b 03-30T22 0 null",
        "a 03-31T22 1 3.0",
        "b 03-31T22 0 null",
    ];
    let previous = [
        "a 03-26T23 1 1.0",
        "b 03-26T23 0 null",
        "a 03-27T23 0 1.0",
        "b 03-27T23 1 5.0",
        "a 03-28T23 0 1.0",
        "b 03-28T23 0 5.0",
        "a 03-29T22 0 1.0",
        "b 03-29T22 1 7.0",
        "a 03-30T22 1 2.0",
        "b 03-30T22 0 7.0",
        "a 03-31T22 1 3.0",
        "b 03-31T22 0 7.0",
    ];
    // However the answer is cut into pages.
    for limit in [1, 2, 3, 5, 12, 10_000] {
        let query = "source=b&source=a&period=1d";
        assert_eq!(pages(&client, &format!("{query}&fill=null"), limit), null, "{limit}");
        assert_eq!(pages(&client, &format!("{query}&fill=previous"), limit), previous, "{limit}");
    }
    assert_eq!(pages(&client, "source=a&period=1d&fill=none", 10_000).len(), 3);
    // One source, within a range, of a period that is stored and of one that is not.
    let query = "source=a&period=1d&from=2026-03-30&fill=null";
    assert_eq!(pages(&client, query, 1), ["a 03-30T22 1 2.0", "a 03-31T22 1 3.0"]);
    let halves = pages(&client, "source=a&period=12h&fill=previous", 3);
    assert_eq!(halves.len(), 11, "{halves:?}");
    assert!(halves[1..8].iter().all(|row| row.ends_with(" 0 1.0")), "{halves:?}");
    let page = client.get("/v1/stats?source=a&period=1d&fill=previous&format=csv").ok().body;
    let empty = "a,1d,2026-03-27T23:00:00Z,2026-03-28T23:00:00Z,0,,1.0,0.0,,0.0,,1.0,1.0,,empty,,";
    assert_eq!(page.lines().nth(2), Some(empty), "{page}");
    // The first row is not of the first source.
    let query = "source=b&source=a&period=1d&from=2026-03-28&fill=null";
    for limit in [1, 10_000] {
        assert_eq!(pages(&client, query, limit), null[2..], "{limit}");
    }
    // The cursor of another question, and one with something behind it.
    let cursor = client.get(&format!("/v1/stats?{query}&limit=1")).ok().json()["next"].as_str().unwrap().to_owned();
    for question in [format!("source=a&cursor={cursor}"), format!("source=b&source=a&cursor={cursor}00")] {
        let refused = client.get(&format!("/v1/stats?{question}&period=1d&from=2026-03-28&fill=null"));
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    // A cursor that no page gave; sources that have come or gone make one of any.
    let cursor = format!("{}7fffffffffffffff", "0".repeat(8));
    let refused = client.get(&format!("/v1/stats?source=a&fill=previous&cursor={cursor}"));
    assert!(matches!(refused.status, 400 | 404), "{refused:?}");
}

#[test]
fn gaps_in_files_redis() {
    gaps(On::Redis, &Sink::Files);
}

#[test]
fn gaps_in_a_table_embedded() {
    gaps(On::Embedded, &Sink::table());
}

#[test]
fn gaps_on_the_command_line() {
    let service = filled(On::Embedded, &Sink::Files);
    let words = ["query", "a", "--period", "1d", "--from", "2026-03-01"];
    let table = service.run(&[&words[..], &["--fill", "null"]].concat());
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 7, "{table}");
    assert!(lines[2].starts_with("2026-03-28 ") && lines[2].ends_with("empty"), "{table}");
    let json: Vec<Value> =
        serde_json::from_str(&service.run(&[&words[..], &["--fill", "previous", "--format", "json"]].concat()))
            .unwrap();
    assert_eq!((&json[1]["mean"], &json[1]["filled"], &json[0]["filled"]), (&1.0.into(), &true.into(), &Value::Null));
    let text = service.run(&[&words[..], &["--fill", "null", "--format", "text"]].concat());
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!(service.run(&words).lines().count(), 4);
}

#[test]
fn silent_sources() {
    let service = filled(On::Embedded, &Sink::Files);
    let client = service.client();
    client.post(&reading("now", 1.0)).ok();
    eventually("the new source is listed", || service.run(&["sources"]).contains("now").then_some(()));
    let silent = client.get("/v1/sources?silent_for=10m").ok().json();
    let ids: Vec<&str> = silent["sources"].as_array().unwrap().iter().map(|s| s["source"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b"]);
    let table = service.run(&["sources", "--silent", "10m"]);
    assert!(table.contains("a  ") && !table.contains("now"), "{table}");
    assert_eq!(service.run(&["sources", "--silent", "366d"]), "");
    assert_eq!(client.get("/v1/sources?silent_for=soon").status, 400);
}
