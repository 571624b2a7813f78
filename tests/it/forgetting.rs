//! `DELETE /v1/sources/{id}`: a source is gone from answers, store and files, and nothing else is.

use crate::http::{Client, array, reading, reading_at};
use crate::service::{On, Service, eventually};
use crate::sink_files;
use serde_json::json;
use std::fs;

const OLD: &str = "2026-03-02T10:17:00Z";

fn known(client: &Client) -> Vec<String> {
    let page = client.get("/v1/sources").ok().json();
    page["sources"].as_array().unwrap().iter().map(|span| span["source"].as_str().unwrap().to_owned()).collect()
}

fn encoded(id: &str) -> String {
    id.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn gone_for_good(on: On) {
    let mut service = Service::start(on, &["--hold", "0s", "--grace", "1h", "--lateness", "1d"]);
    let client = service.client();
    let (id, other) = ("kitchen", "kitchen.2");
    // Some rows in the files, some of those open again, others only open.
    let batch =
        |value: f64| array([id, other].into_iter().flat_map(|s| [reading(s, value), reading_at(s, value, OLD)]));
    client.post_keyed("first", &batch(1.0)).ok();
    service.run(&["drain"]);
    client.post_keyed("second", &batch(2.0)).ok();
    let answer = client.delete("/v1/sources/kitchen").ok().json();
    let (states, rows) = (answer["states"].as_u64().unwrap(), answer["rows"].as_u64().unwrap());
    assert_eq!((&answer["source"], states), (&json!(id), 2), "the minutes of now and of old: {answer}");
    assert!((6..=7).contains(&rows), "two minutes, hours and days: {answer}");

    let check = |client: &Client, sink: &std::path::Path| {
        assert_eq!(client.get("/v1/stats?source=kitchen").status, 404);
        assert_eq!(client.get("/v1/state?source=kitchen").status, 404);
        assert_eq!(known(client), [other]);
        for period in ["1m", "1h", "1d"] {
            assert_eq!(sink_files::total(sink, period, id), (0, 0.0), "{period}");
            assert_eq!(client.total(other, period), (4, 6.0), "{period}");
        }
        assert!(!fs::read_to_string(sink.join("sources.csv")).unwrap().contains("kitchen,"));
    };
    check(&client, &service.sink());
    // What was counted is not counted again.
    assert_eq!(client.post_keyed("second", &batch(2.0)).ok().json()["duplicate"], true);
    check(&client, &service.sink());
    assert_eq!(client.delete("/v1/sources/kitchen").status, 404);
    service.kill();
    service.start_again();
    check(&client, &service.sink());
    service.run(&["drain"]);
    check(&client, &service.sink());
    // It starts anew.
    client.post(&reading_at(id, 5.0, OLD)).ok();
    assert_eq!(client.total(id, "1d"), (1, 5.0));
    service.run(&["drain"]);
    for period in ["1m", "1h", "1d"] {
        assert_eq!(sink_files::total(&service.sink(), period, id), (1, 5.0), "{period}");
    }
    assert_eq!(known(&client), [id, other]);
}

#[test]
fn gone_for_good_embedded() {
    gone_for_good(On::Embedded);
}

#[test]
fn gone_for_good_redis() {
    gone_for_good(On::Redis);
}

#[test]
fn any_id_can_be_named() {
    let service = Service::start(On::Embedded, &["--hold", "0s", "--grace", "1h"]);
    let client = service.client();
    let ids = [
        "a/b",
        "/a",
        "a/",
        "..",
        "a//b",
        "<img src=x onerror=alert(1)>",
        "Zürich 🌡",
        "100%",
        "a?b#c",
        "=1+1",
        "+",
        " ",
    ];
    let all = array(ids.iter().map(|id| json!({"source": id, "value": 1, "timestamp": OLD}).to_string()));
    client.post(&all).ok();
    service.run(&["drain"]);
    client.post(&all).ok();
    for (i, id) in ids.iter().enumerate() {
        let answer = client.delete(&format!("/v1/sources/{}", encoded(id))).ok().json();
        assert_eq!(answer, json!({"source": id, "states": 1, "rows": 3}));
        assert_eq!(known(&client).len(), ids.len() - i - 1, "{id}");
    }
    // A slash may stand as it is.
    client.post(&reading("house/attic", 1.0)).ok();
    client.delete("/v1/sources/house/attic").ok();
    assert_eq!(known(&client), [""; 0]);
    assert_eq!(client.delete("/v1/sources/%FF").status, 400);
    assert_eq!(client.delete("/v1/sources/").status, 404);
    assert_eq!(client.delete("/v1/sources").status, 405);
}

#[test]
fn an_unknown_one_is_named_with_those_like_it() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    client.post(&reading("kitchen", 1.0)).ok();
    let answer = client.delete("/v1/sources/kichen");
    assert_eq!((answer.status, &answer.json()["near"]), (404, &json!(["kitchen"])), "{answer:?}");
    assert_eq!(client.total("kitchen", "1d"), (1, 1.0));
}

/// A row that had seen more than the store has left would make what comes after look older.
#[test]
fn what_was_cut_off_loses_nothing_that_comes_after() {
    let service = Service::start(On::Embedded, &["--hold", "0s", "--grace", "1h", "--lateness", "2h"]);
    let client = service.client();
    client.post(&array([reading_at("a", 1.0, OLD)])).ok();
    service.run(&["drain"]);
    // Written, and open.
    let earlier = (chrono::Utc::now() - chrono::TimeDelta::minutes(90)).to_rfc3339();
    client.post(&array((0..3).map(|_| reading_at("a", 1.0, &earlier)))).ok();
    eventually("it is written", || {
        let rows = client.get("/v1/stats?source=a&period=1m").ok().json();
        (rows["rows"].as_array().unwrap().last().unwrap()["state"] == "settling").then_some(())
    });
    let date = service.sink().join("period=1m/date=2026-03-02");
    let file = fs::read_dir(&date).unwrap().next().unwrap().unwrap().path();
    let content = fs::read(&file).unwrap();
    fs::write(&file, [&content[..], b"nonsense\n"].concat()).unwrap();
    assert_eq!(client.delete("/v1/sources/a").status, 503);
    fs::write(&file, content).unwrap();
    client.post(&reading_at("a", 1.0, &earlier)).ok();
    service.run(&["drain"]);
    let rows = client.get("/v1/stats?source=a&period=1m").ok().json();
    assert_eq!(rows["rows"].as_array().unwrap().last().unwrap()["count"], 4);
}

#[test]
fn what_could_not_be_forgotten_can_be_repeated() {
    let mut service = Service::start(On::Redis, &["--hold", "0s", "--grace", "1h"]);
    let client = service.client();
    client.post(&reading("a", 1.0)).ok();
    service.run(&["drain"]);
    client.post(&reading("a", 1.0)).ok();
    service.redis().kill();
    let answer = client.delete("/v1/sources/a");
    assert_eq!((answer.status, &answer.json()["type"]), (503, &json!("/problems/unavailable")), "{answer:?}");
    service.redis().restart();
    crate::service::eventually("the store is back", || (client.get("/readyz").status == 200).then_some(()));
    let again = crate::service::eventually("it is forgotten", || {
        let answer = client.delete("/v1/sources/a");
        (answer.status != 503).then_some(answer)
    });
    assert_eq!(again.ok().json()["states"], 1);
    assert_eq!(known(&client), [""; 0]);
}
