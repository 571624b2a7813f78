//! Several instances on one Redis: readings to any of them, one that writes rows, and what happens when
//! one of them dies, sleeps, has a wrong clock, or does not fit to the others.

use crate::http::{Client, array, reading, reading_at};
use crate::senders::{Senders, check_total};
use crate::servers::{RedisServer, temporary};
use crate::service::{Service, command, eventually};
use crate::sink_files;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Buckets close while the tests look on.
const SHORT: [&str; 6] = ["--periods", "1s,1m,1h", "--grace", "100ms", "--lateness", "500ms"];

/// An instance on this store with these flags beside those of [`SHORT`].
fn node(redis: &RedisServer, flags: &[&str]) -> Service {
    let url = redis.url();
    Service::start_beside(&[&["--store", &url][..], &SHORT, flags].concat(), &[])
}

fn instances(client: &Client) -> Vec<Value> {
    client.get("/v1/nodes").ok().json()["nodes"].as_array().unwrap().clone()
}

#[test]
fn readings_to_any_instance_while_they_die() {
    let redis = RedisServer::start_durable();
    let mut nodes = [node(&redis, &[]), node(&redis, &["--role", "ingest"]), node(&redis, &["--role", "ingest"])];
    let senders = Senders::start(&nodes.each_ref());
    for _ in 0..2 {
        for node in &mut nodes {
            node.kill();
            senders.go_on();
            node.start_again();
            senders.go_on();
        }
    }
    check_total(&nodes[0], senders.finish());
    // Not those that died.
    let alive = |node: &Service| node.client().get("/healthz").headers["x-instance"].clone();
    let mut alive = nodes.each_ref().map(alive);
    alive.sort();
    eventually("the dead are off the list", || {
        let list = instances(&nodes[1].client());
        let mut names: Vec<_> = list.iter().map(|node| node["instance"].as_str().unwrap().to_owned()).collect();
        names.sort();
        (names == alive).then_some(())
    });
}

#[test]
fn an_instance_that_sleeps_over_the_close_of_its_buckets() {
    let redis = RedisServer::start_durable();
    let [sink, sleeper] = [node(&redis, &[]), node(&redis, &["--role", "ingest"])];
    let senders = Senders::start(&[&sleeper, &sink]);
    for _ in 0..2 {
        sleeper.signal("STOP");
        // Until everything that was open then has closed.
        let last = sink.client().rows("a", "1s").last().unwrap()["start"].clone();
        eventually("its buckets have closed", || {
            senders.go_on();
            let rows = sink.client().rows("a", "1s");
            rows.iter().find(|row| row["start"] == last).filter(|row| row["state"] == "closed").map(drop)
        });
        sleeper.signal("CONT");
        senders.go_on();
    }
    check_total(&sink, senders.finish());
}

/// A library that shifts the clock of a process that loads it.
pub(crate) fn clock_library(dir: &Path) -> String {
    let library = dir.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/nodes/clock.c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).status();
    assert!(made.is_ok_and(|made| made.success()), "a C compiler is needed, as for the program itself");
    library.to_str().unwrap().to_owned()
}

#[test]
fn wrong_clocks_change_no_row() {
    let (redis, dir) = (RedisServer::start_durable(), temporary());
    let library = clock_library(dir.path());
    let url = redis.url();
    let wrong = |flags: &[&str], offset: &str| {
        let flags = [&["--store", &url][..], &SHORT, flags].concat();
        Service::start_beside(&flags, &[("LD_PRELOAD", &library), ("CLOCK_OFFSET", offset)])
    };
    // The one that writes rows is an hour ahead, another an hour behind.
    let (ahead, behind, right) =
        (wrong(&[], "3600"), wrong(&["--role", "ingest"], "-3600"), node(&redis, &["--role", "ingest"]));
    let second = || meanwhile::clock::Clock::System.now() / 1_000 * 1_000;
    let at = |t: i64| format!(r#"{{"source":"a","value":1,"timestamp":{t}}}"#);
    // Only what a reading without time means is decided by the clock of who takes it.
    ahead.client().post(&reading("b", 1.0)).ok();
    let state = ahead.client().get("/v1/state?source=b").ok().json();
    let now = meanwhile::stats::timestamp::format(second() + 3_000_000);
    assert!(state[0]["start"].as_str().unwrap() > now.as_str(), "its clock is not shifted: {state}");
    let mut posted = 0;
    for batch in 0..30 {
        let (key, body) = (format!("k{batch}"), at(second()));
        // What is now for others is the future for it, and says so; nothing of it is counted.
        let refused = behind.client().post_keyed(&key, &body);
        assert_eq!((refused.status, refused.json()["type"].clone()), (400, json!("/problems/invalid-readings")));
        for (node, duplicate) in [(&ahead, false), (&right, true), (&ahead, true)] {
            assert_eq!(node.client().post_keyed(&key, &body).ok().json()["duplicate"], duplicate, "{key}");
        }
        posted += 1;
        // Of an hour ago all of them know.
        behind.client().post_keyed(&format!("old{batch}"), &at(second() - 3_600_000)).ok();
        posted += 1;
        thread::sleep(Duration::from_millis(50));
    }
    let expected = (posted, posted as f64);
    eventually("all seconds are written and closed", || {
        let rows = ahead.client().rows("a", "1s");
        (!rows.is_empty() && rows.iter().all(|row| row["state"] == "closed")).then_some(())
    });
    assert_eq!(sink_files::total(&ahead.sink(), "1s", "a"), expected);
    assert_eq!(ahead.client().total("a", "1h"), expected);
    // Nothing was written before its time: the present hour is open, whatever the clock of who writes says.
    assert_eq!(ahead.client().rows("a", "1h").last().unwrap()["state"], "open");
}

/// A start that must fail; what it says.
fn refused(redis: &RedisServer, flags: &[&str]) -> String {
    let dir = temporary();
    let sink = format!("csv:{}", dir.path().join("csv").display());
    let words = ["serve", "--listen", "127.0.0.1:0", "--store", &redis.url(), "--sink", &sink];
    let ended = command(&[&words[..], flags].concat()).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    said
}

#[test]
fn who_does_not_fit_is_refused_while_the_other_is_there() {
    let redis = RedisServer::start_durable();
    let mut first = node(&redis, &["--advertise", "http://first:80/"]);
    let check = |flags: &[&str], parts: &[&str]| {
        let said = refused(&redis, &[&SHORT, flags].concat());
        for part in parts.iter().chain(&["error: instance ", " at http://first:80 "]) {
            assert!(said.contains(part), "{said} lacks {part}");
        }
    };
    let sink = format!("has the sink csv:{} on this store", first.sink().display());
    check(&[], &[&sink, "--role ingest"]);
    check(&["--role", "rollover"], &[&sink]);
    // The last of two flags would count; so these are instead of SHORT.
    let said = refused(&redis, &["--role", "ingest", "--periods", "1s,1h", "--timezone", "Asia/Tokyo"]);
    let differences = "with grace 100ms, this one has 5s; lateness 500ms, this one has 1m; \
                       periods 1s,1m,1h, this one has 1s,1h; timezone UTC, this one has Asia/Tokyo: give all";
    assert!(said.contains(differences), "{said}");
    // Who stops leaves its place at once; who dies leaves it to whoever has its directory.
    first.stop();
    let mut other = node(&redis, &["--timezone", "Asia/Tokyo"]);
    assert!(!other.log().contains("waiting"), "{}", other.log());
    other.kill();
    other.set_flags(&[&["--store", &redis.url()][..], &SHORT].concat());
    other.start_again();
    assert!(!other.log().contains("waiting"), "{}", other.log());
}

#[test]
fn who_sleeps_for_long_loses_its_place() {
    let redis = RedisServer::start_durable();
    let mut first = node(&redis, &[]);
    first.client().post(&array([reading("a", 1.0), reading("a", 2.0)])).ok();
    first.signal("STOP");
    let second = node(&redis, &[]);
    let waited = second.log();
    assert!(waited.contains("has the sink csv:") && waited.contains("off the list after 15 s: waiting"), "{waited}");
    first.signal("CONT");
    assert_eq!(first.ended(), Some(1), "{}", first.log());
    assert!(first.log().contains("another instance has taken this one's place"), "{}", first.log());
    let list = instances(&second.client());
    assert_eq!(list.len(), 1, "{list:?}");
    second.client().post(&reading("a", 4.0)).ok();
}

#[test]
fn each_role_does_its_part_and_names_who_does_the_rest() {
    let redis = RedisServer::start_durable();
    let ingest = node(&redis, &["--role", "ingest"]);
    let client = ingest.client();
    assert!(ingest.log().contains("no instance with a sink shares the store"), "{}", ingest.log());
    client.post_keyed("k", &reading_at("a", 1.0, "2026-01-01")).ok();
    let nowhere = client.get("/v1/stats?source=a");
    assert_eq!((nowhere.status, &nowhere.json()["type"]), (503, &json!("/problems/no-sink")));
    assert!(nowhere.json()["detail"].as_str().unwrap().contains("start one with --role rollover"), "{nowhere:?}");

    let rollover = node(&redis, &["--role", "rollover"]);
    eventually("they know of each other", || (instances(&client).len() == 2).then_some(()));
    for path in ["/v1/stats?source=a", "/v1/sources"] {
        let elsewhere = client.get(path);
        assert_eq!((elsewhere.status, &elsewhere.json()["type"]), (503, &json!("/problems/no-sink")), "{path}");
        assert_eq!(elsewhere.json()["address"], rollover.url(), "{path}");
    }
    // What is open is in the store, which every instance can ask.
    assert_eq!(client.get("/v1/state?source=b").ok().json(), json!([]));
    client.post(&reading("b", 1.0)).ok();
    assert_ne!(client.get("/v1/state?source=b").ok().json(), json!([]));
    let ready = client.get("/readyz").ok().json();
    assert_eq!((&ready["sink"], &ready["rollover"]), (&Value::Null, &Value::Null));
    let asked = ingest.command(&["query", "a"]).output().unwrap();
    let said = String::from_utf8(asked.stderr).unwrap();
    let remedy = format!("ask {}, which has csv:{}", rollover.url(), rollover.sink().display());
    assert!(asked.status.code() == Some(1) && said.contains(&remedy) && said.contains("--url"), "{said}");

    let refused = rollover.client().post_keyed("k", &reading_at("a", 1.0, "2026-01-01"));
    assert_eq!((refused.status, &refused.json()["type"]), (503, &json!("/problems/no-ingest")));
    assert_eq!((&refused.json()["address"], &refused.headers["retry-after"]), (&json!(ingest.url()), &"1".to_owned()));
    eventually("the rows are written", || (sink_files::total(&rollover.sink(), "1h", "a") == (1, 1.0)).then_some(()));
    assert_eq!(rollover.client().total("a", "1h"), (1, 1.0));
    let shown = |node: &Value| (node["role"].clone(), node["this"].clone(), node["sink"]["exclusive"].clone());
    let list: Vec<_> = instances(&client).iter().map(shown).collect();
    assert_eq!(list, [(json!("ingest"), json!(true), Value::Null), (json!("rollover"), json!(false), json!(true))]);
}

#[test]
fn check_says_what_an_instance_would_be() {
    let redis = RedisServer::start_durable();
    let url = redis.url();
    let said =
        command(&["check", "--role", "ingest", "--store", &url, "--sink", "csv:/proc/nowhere"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("another instance has the sink (--role ingest)"), "{said}");
}
