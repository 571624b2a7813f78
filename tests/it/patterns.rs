//! Patterns of channels: `closed:*` hears of all sources, however many are written at once, and goes on where it
//! stopped.

use crate::events::{Event, Events};
use crate::http::{array, reading, reading_at};
use crate::postgres_server::Database;
use crate::service::{On, Service, eventually};
use serde_json::json;
use std::collections::BTreeSet;

/// Nothing moves up, and what is posted is written soon.
const HOURS: [&str; 6] = ["--periods", "1h", "--grace", "50ms", "--lateness", "100ms"];

#[track_caller]
fn closed(event: Option<Event>) -> (String, String) {
    let event = event.expect("an event");
    assert_eq!(event.name, "closed", "{event:?}");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (text(&event.data["channel"]), text(&event.data["row"]["source"]))
}

fn patterns_hear_what_they_stand_for(service: &Service) {
    let client = service.client();
    let all = "closed:*";
    let mut events = Events::of(&service.url(), &["closed:g%2F*", all, "closed:g%2F%3F", "closed:a%5C*b"]);
    let mut hears = |source: &str, channels: &[&str]| {
        client.post(&reading_at(source, 1.0, "2026-01-05")).ok();
        let heard: BTreeSet<_> = channels.iter().map(|_| closed(events.next())).collect();
        let expected = channels.iter().map(|channel| ((*channel).to_owned(), source.to_owned())).collect();
        assert_eq!(heard, expected);
    };
    // Each of them is new to the service.
    hears("g/1", &["closed:g/*", all, "closed:g/?"]);
    hears("g/north", &["closed:g/*", all]);
    hears("G/1", &[all]);
    hears("a*b", &[r"closed:a\*b", all]);
    hears("axb", &[all]);
    hears("Zürich", &[all]);
    // And known by now.
    hears("g/1", &["closed:g/*", all, "closed:g/?"]);
}

#[test]
fn patterns_hear_what_they_stand_for_embedded() {
    patterns_hear_what_they_stand_for(&Service::start(On::Embedded, &HOURS));
}

#[test]
fn patterns_hear_what_they_stand_for_redis_and_postgres() {
    let database = Database::new();
    let url = database.url();
    patterns_hear_what_they_stand_for(&Service::start(On::Redis, &[&HOURS[..], &["--sink", &url]].concat()));
}

/// Which sources were heard of, each version of a row once. A bucket may be written before all of it has arrived, and
/// again then.
#[derive(Default)]
struct Heard {
    sources: BTreeSet<(String, String)>,
    versions: BTreeSet<String>,
}

impl Heard {
    #[track_caller]
    fn add(&mut self, event: &Event) {
        assert_eq!(event.name, "closed", "{event:?}");
        let row = &event.data["row"];
        let channel = &event.data["channel"];
        self.sources.insert((row["source"].to_string(), row["start"].to_string()));
        let version = format!("{channel} {} {} {} {}", row["source"], row["start"], row["generation"], row["revision"]);
        assert!(self.versions.insert(version), "it comes twice: {event:?}");
    }
}

/// A client that reads hears of every row, though more are written at once than may wait for it.
#[test]
fn nothing_is_left_out_for_who_reads() {
    const SOURCES: usize = 3_000;
    let service = Service::start(On::Redis, &HOURS);
    let client = service.client();
    let mut listeners = [&["closed:*"][..], &["closed:s7", "closed:s??"][..]]
        .map(|channels| (Events::of(&service.url(), channels), Heard::default()));
    for (round, time) in (1..).zip(["2026-01-05T00:00:00Z", "2026-01-05T01:00:00Z", "2026-01-05T02:00:00Z"]) {
        client.post(&array((0..SOURCES).map(|n| reading_at(&format!("s{n}"), 1.0, time)))).ok();
        for ((events, heard), expected) in listeners.iter_mut().zip([SOURCES, 91]) {
            while heard.sources.len() < round * expected {
                heard.add(&events.next().unwrap());
            }
        }
    }
}

/// A pattern goes on where it stopped, at sources it has never heard of, too.
#[test]
fn patterns_go_on_where_they_stopped() {
    const SOURCES: usize = 700;
    let service = Service::start(On::Embedded, &HOURS);
    let client = service.client();
    let mut events = Events::of(&service.url(), &["closed:s*"]);
    client.post(&array([reading_at("s", 1.0, "2026-01-04"), reading_at("other", 1.0, "2026-01-04")])).ok();
    let mut last = events.next().unwrap().id.unwrap();
    drop(events);
    for hour in ["00", "01", "02"] {
        let time = format!("2026-01-05T{hour}:00:00Z");
        client.post(&array((0..SOURCES).map(|n| reading_at(&format!("s{n}"), 1.0, &time)))).ok();
    }
    eventually("all is written", || {
        let rows = [0, SOURCES - 1].map(|n| client.rows(&format!("s{n}"), "1h")).concat();
        (rows.len() == 6 && rows.iter().all(|row| row["state"] == "closed")).then_some(())
    });
    // Cut off in the middle, again and again.
    let mut heard = Heard::default();
    loop {
        let mut events = Events::after(&service.url(), &["closed:s*"], &last);
        for _ in 0..1_000 {
            let event = events.next().unwrap();
            if event.name == "recovered" {
                assert_eq!(event.data, json!({"channel": "closed:s*", "recovered": true}));
                assert_eq!(heard.sources.len(), 3 * SOURCES);
                return;
            }
            heard.add(&event);
            last = event.id.unwrap();
        }
    }
}

#[test]
fn patterns_that_are_refused() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let check = |query: &str, part: &str| {
        let answer = client.get(&format!("/v1/stream?{query}"));
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{answer:?}");
    };
    check("channel=live:*", "patterns are for closed: and silent: only");
    check("channel=live:a%3F", "patterns are for closed: and silent: only");
    let many: Vec<String> = (0..11).map(|n| format!("channel=closed:{n}*")).collect();
    check(&many.join("&"), "10 patterns");
    // A name of messages is a name.
    let mut events = Events::of(&service.url(), &["news.*"]);
    client.publish("news.a", b"not heard").ok();
    client.publish("news.*", b"heard").ok();
    assert_eq!(events.message("news.*"), "heard");
    client.post(&reading("a*b", 1.0)).ok();
    let mut events = Events::of(&service.url(), &["live:a%5C*b"]);
    let mut rows = json!([]);
    while rows == json!([]) {
        let event = events.next().unwrap();
        assert_eq!(event.data["channel"], r"live:a\*b");
        rows = event.data["rows"].clone();
    }
    assert_eq!(rows[0]["source"], "a*b");
}
