//! Sources that fall silent and come back: `silent:PATTERN` with `--silent-after`.

use crate::events::{Event, Events};
use crate::http::{array, reading};
use crate::servers::RedisServer;
use crate::service::{On, Service, eventually};
use crate::sockets::{Mode, Sockets};
use serde_json::{Value, json};

const FLAGS: [&str; 8] = ["--periods", "1s,1m", "--grace", "100ms", "--lateness", "200ms", "--silent-after", "2s"];

/// The next event of a channel, which has this name and source; since when.
#[track_caller]
fn told(events: &mut Events, channel: &str, name: &str, source: &str) -> String {
    let Event { name: came, data, .. } = events.next().unwrap();
    assert_eq!((came.as_str(), &data["channel"], &data["source"]), (name, &json!(channel), &json!(source)), "{data}");
    assert!(data["for_ms"].as_i64().is_some_and(|so_long| name == "back" || so_long > 2_000), "{data}");
    data["since"].as_str().unwrap().to_owned()
}

fn silence(tells: &Service, takes: &Service) {
    let client = takes.client();
    client.post(&array([reading("kitchen", 1.0), reading("cellar", 2.0)])).ok();
    let mut all = Events::of(&tells.url(), &["silent:*"]);
    let mut one = Events::of(&tells.url(), &["silent:kitchen", "silent:attic"]);
    let since = told(&mut all, "silent:*", "silent", "cellar");
    assert_eq!(told(&mut all, "silent:*", "silent", "kitchen"), since);
    assert_eq!(told(&mut one, "silent:kitchen", "silent", "kitchen"), since);
    client.post(&reading("kitchen", 3.0)).ok();
    assert_eq!(told(&mut all, "silent:*", "back", "kitchen"), since);
    assert_eq!(told(&mut one, "silent:kitchen", "back", "kitchen"), since);
    let again = told(&mut all, "silent:*", "silent", "kitchen");
    assert!(again > since, "{again}");
    // Who comes now is told of both, and of a source that is forgotten no more.
    let mut late = Events::of(&tells.url(), &["silent:*"]);
    assert_eq!(told(&mut late, "silent:*", "silent", "cellar"), since);
    assert_eq!(told(&mut late, "silent:*", "silent", "kitchen"), again);
    tells.client().delete("/v1/sources/cellar").ok();
    eventually("it is not told of any more", || {
        let next = Events::of(&tells.url(), &["silent:*"]).next().unwrap().data;
        (next["source"] == "kitchen").then_some(())
    });
}

#[test]
fn silence_embedded() {
    let service = Service::start(On::Embedded, &FLAGS);
    silence(&service, &service);
}

/// Whoever takes the readings.
#[test]
fn silence_on_another_instance() {
    let redis = RedisServer::start_durable();
    let url = redis.url();
    let node = |role: &str| Service::start_beside(&[&["--store", &url, "--role", role][..], &FLAGS].concat(), &[]);
    let (tells, takes) = (node("all"), node("ingest"));
    silence(&tells, &takes);
    let refused = takes.client().get("/v1/stream?channel=silent:*");
    assert_eq!((refused.status, &refused.json()["type"]), (503, &json!("/problems/no-sink")));
}

#[test]
fn silence_over_socket_io() {
    let service = Service::start(On::Embedded, &FLAGS);
    service.client().post(&reading("kitchen", 1.0)).ok();
    let mut sockets = Sockets::start();
    sockets.connect("a", &service.url(), 4, Mode::Websocket);
    assert_eq!(sockets.ask("a", &json!(["subscribe", "silent:k*"])), "ok");
    let silent = sockets.told("a", "silent");
    assert_eq!((&silent["channel"], &silent["source"]), (&json!("silent:k*"), &json!("kitchen")), "{silent}");
    assert!(silent["for_ms"].as_i64() > Some(2_000), "{silent}");
    service.client().post(&reading("kitchen", 2.0)).ok();
    assert_eq!(sockets.told("a", "back")["since"], silent["since"]);
    let many: Vec<String> = (0..10).map(|n| format!("silent:{n}")).collect();
    let refused = sockets.ask("a", &json!(["subscribe", many]));
    assert!(refused.contains("10 patterns"), "{refused}");
}

#[test]
fn nobody_is_told_unless_it_is_said_when() {
    let service = Service::start(On::Embedded, &[]);
    let refused = |channel: &str, hint: &str| {
        let problem: Value = service.client().get(&format!("/v1/stream?channel={channel}")).json();
        assert_eq!((&problem["status"], &problem["parameter"]), (&json!(400), &json!("channel")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{problem}");
    };
    refused("silent:*", "--silent-after");
    refused("silent:", "the id of a source");
    assert_eq!(service.client().publish("silent:a", b"no").status, 400);
}
