//! Channels: what is published reaches everybody who listens, statistics move while somebody watches, and nothing is
//! left of who has gone.

use crate::events::Events;
use crate::http::{Client, array, reading, reading_at};
use crate::operations::metric;
use crate::postgres_server::Database;
use crate::servers::{RedisServer, temporary};
use crate::service::{On, Service, eventually};
use crate::world::copy;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;

/// An instance on this store.
fn node(redis: &RedisServer, flags: &[&str]) -> Service {
    Service::start_beside(&[&["--store", &redis.url()][..], flags].concat(), &[])
}

fn subscribed_channels(redis: &RedisServer) -> Vec<String> {
    redis.ask(&["PUBSUB", "CHANNELS"]).lines().map(str::to_owned).filter(|name| !name.is_empty()).collect()
}

fn subscribers(redis: &RedisServer) -> usize {
    redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().filter(|line| line.starts_with("id=")).count()
}

fn everybody_hears(url: &str, speaker: &Client) {
    let mut both = Events::of(url, &["my%20channel", "Z%C3%BCrich*"]);
    let mut one = Events::of(url, &["Z%C3%BCrich*"]);
    assert_eq!(speaker.publish("my%20channel", b"hello").ok().json(), json!({"channel": "my channel", "bytes": 5}));
    speaker.publish("nobody", b"is there").ok();
    speaker.publish("Z%C3%BCrich*", "zw\u{f6}lf\n\"Glocken\"".as_bytes()).ok();
    assert_eq!(both.message("my channel"), "hello");
    for events in [&mut both, &mut one] {
        assert_eq!(events.message("Zürich*"), "zwölf\n\"Glocken\"");
    }
    for n in 0..200 {
        speaker.publish("my%20channel", n.to_string().as_bytes()).ok();
    }
    for n in 0..200 {
        assert_eq!(both.message("my channel"), n.to_string(), "in their order");
    }
}

#[test]
fn everybody_hears_embedded() {
    let service = Service::start(On::Embedded, &[]);
    everybody_hears(&service.url(), &service.client());
}

#[test]
fn everybody_hears_on_every_instance_and_from_outside() {
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[]), node(&redis, &["--role", "ingest"])];
    everybody_hears(&nodes[0].url(), &nodes[1].client());
    everybody_hears(&nodes[1].url(), &nodes[1].client());
    let mut listeners = nodes.each_ref().map(|node| Events::of(&node.url(), &["other%20channel"]));
    redis.cli(&["PUBLISH", "other channel", "from outside"]);
    nodes[0].run(&["publish", "other channel", "from the command line"]);
    for events in &mut listeners {
        assert_eq!(events.message("other channel"), "from outside");
        assert_eq!(events.message("other channel"), "from the command line");
    }
}

#[test]
fn one_connection_whatever_the_number_of_channels() {
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[]), node(&redis, &["--role", "ingest"])];
    assert_eq!(subscribers(&redis), 0, "nobody listens");
    let listen = |round: usize| -> Vec<Events> {
        let listen = |n: usize| {
            let channels: Vec<String> = (0..50).map(|k| format!("channel-{round}-{}", 50 * n + k)).collect();
            let mut channels: Vec<&str> = channels.iter().map(String::as_str).collect();
            // Twice is once.
            channels.extend(["common", "common"]);
            Events::of(&nodes[n % 2].url(), &channels)
        };
        (0..8).map(listen).collect()
    };
    let mut listeners = listen(0);
    assert_eq!(subscribers(&redis), 2, "one of each instance");
    assert_eq!(subscribed_channels(&redis).len(), 401);
    assert_eq!(redis.ask(&["PUBSUB", "NUMSUB", "common"]).trim().replace('\n', " "), "common 2");
    redis.cli(&["PUBLISH", "common", "once"]);
    redis.cli(&["PUBLISH", "common", "more"]);
    for events in &mut listeners {
        assert_eq!((events.message("common"), events.message("common")), ("once".to_owned(), "more".to_owned()));
    }
    drop(listeners);
    drop(listen(1));
    eventually("the channels are left", || subscribed_channels(&redis).is_empty().then_some(()));
    eventually("the clients are gone", || {
        nodes
            .iter()
            .all(|node| metric(&node.client(), "meanwhile_live_clients{transport=\"events\"}") == Some(0.0))
            .then_some(())
    });
    let mut again = Events::of(&nodes[0].url(), &["channel-0-1"]);
    redis.cli(&["PUBLISH", "channel-0-1", "again"]);
    assert_eq!(again.message("channel-0-1"), "again");
}

#[test]
fn what_was_missed_while_redis_was_away_is_said() {
    let mut redis = RedisServer::start_durable();
    let service = node(&redis, &[]);
    let mut events = Events::of(&service.url(), &["a", "b"]);
    redis.restart();
    let mut gaps = [events.next().unwrap(), events.next().unwrap()].map(|event| {
        assert_eq!(event.name, "gap", "{event:?}");
        event.data
    });
    gaps.sort_by_key(|gap| gap["channel"].as_str().unwrap().to_owned());
    assert_eq!(gaps, [json!({"channel": "a", "missed": null}), json!({"channel": "b", "missed": null})]);
    redis.cli(&["PUBLISH", "b", "there again"]);
    assert_eq!(events.message("b"), "there again");
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(events.next().unwrap().name, "gap");
    assert_eq!(events.next().unwrap().name, "gap");
    service.client().publish("a", b"and again").ok();
    assert_eq!(events.message("a"), "and again");
}

/// Messages are left out for a client that does not read; it is told how many, and everybody else gets all.
#[test]
fn a_client_that_does_not_read() {
    const MESSAGES: usize = 6_000;
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let mut slow = Events::of(&service.url(), &["a"]);
    let before = service.resident_kib();
    let text = "x".repeat(4_000);
    for n in 0..MESSAGES {
        client.publish("a", format!("{n} {text}").as_bytes()).ok();
    }
    let grown = service.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1_024, "{grown} KiB more for one client and 24 MB of messages");
    client.publish("a", b"the end").ok();
    let (mut heard, mut missed, mut next) = (0, 0, 0);
    loop {
        let event = slow.next().unwrap();
        if event.name == "gap" {
            let more = event.data["missed"].as_u64().unwrap() as usize;
            missed += more;
            next += more;
            continue;
        }
        let text = event.data["message"].as_str().unwrap();
        if text == "the end" {
            break;
        }
        assert_eq!(text.split(' ').next(), Some(next.to_string().as_str()), "the gap stands where they are missing");
        heard += 1;
        next += 1;
        // What is left out at the end of a gap comes with the next message.
        if next == MESSAGES {
            client.publish("a", b"the end").ok();
        }
    }
    assert!(missed > 0 && heard > 0, "{heard} were heard, {missed} missed");
    assert!(heard + missed >= MESSAGES, "{heard} + {missed}");
}

fn statistics_move(on: On) {
    let mut service = Service::start(on, &["--periods", "1h,1d"]);
    let client = service.client();
    let mut watching = Events::of(&service.url(), &["live:kitchen", "live:nobody%20knows"]);
    for _ in 0..2 {
        let empty = watching.next().unwrap();
        assert_eq!((empty.name.as_str(), &empty.data["rows"]), ("live", &json!([])), "{empty:?}");
    }
    let mut counts = |expected: u64| loop {
        let event = watching.next().unwrap();
        assert_eq!((event.name.as_str(), &event.data["channel"]), ("live", &json!("live:kitchen")), "{event:?}");
        let rows = event.data["rows"].as_array().unwrap();
        let periods: Vec<&str> = rows.iter().map(|row| row["period"].as_str().unwrap()).collect();
        assert_eq!(periods, ["1h", "1d"]);
        assert!(rows.iter().all(|row| row["source"] == "kitchen" && row["state"] == "open"), "{rows:?}");
        let count = rows.iter().map(|row| row["count"].as_u64().unwrap()).max().unwrap();
        assert!(count <= expected, "{rows:?}");
        if rows.iter().all(|row| row["count"] == expected) {
            return rows.clone();
        }
    };
    client.post(&reading("kitchen", 21.5)).ok();
    assert_eq!(counts(1)[0]["mean"], 21.5);
    client.post(&array([reading("kitchen", 22.5), reading("cellar", 9.0)])).ok();
    let rows = counts(2);
    assert_eq!((&rows[1]["mean"], &rows[1]["var_pop"]), (&json!(22.0), &json!(0.25)));
    // Who comes later sees them at once.
    let mut second = Events::of(&service.url(), &["live:kitchen"]);
    assert_eq!(second.next().unwrap().data["rows"], json!(rows));
    for _ in 0..500 {
        client.post(&reading("kitchen", 1.0)).ok();
    }
    counts(502);
    service.stop();
    assert!(second.next().is_none_or(|event| event.name == "live"), "a stream ends with the service");
}

#[test]
fn statistics_move_embedded() {
    statistics_move(On::Embedded);
}

#[test]
fn statistics_move_redis() {
    statistics_move(On::Redis);
}

#[test]
fn who_comes_right_after_the_last_one_has_gone_sees_the_present_rows() {
    let service = Service::start(On::Embedded, &[]);
    for _ in 0..20 {
        let mut watching = Events::of(&service.url(), &["live:kitchen"]);
        assert_eq!(watching.next().unwrap().data["rows"], json!([]));
    }
}

#[test]
fn names_that_are_refused() {
    let redis = RedisServer::start_durable();
    let holder = node(&redis, &[]);
    let service = node(&redis, &["--role", "ingest"]);
    let client = service.client();
    let check = |answer: crate::http::Answer, status: u16, part: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{answer:?}");
    };
    check(client.get("/v1/stream"), 400, "channel: it is missing");
    check(client.get("/v1/stream?channel="), 400, "a channel has a name");
    check(client.get("/v1/stream?channel=live:"), 400, "the id of a source");
    check(client.get("/v1/stream?channel=closed:"), 400, "the id of a source");
    check(client.get("/v1/stream?channel=closed:a"), 503, &format!("ask {}", holder.url()));
    let many: Vec<String> = (0..101).map(|n| format!("channel={n}")).collect();
    check(client.get(&format!("/v1/stream?{}", many.join("&"))), 400, "100 channels");
    check(client.get("/v1/stream?channel=live:a"), 503, &format!("ask {}", holder.url()));
    check(client.publish("live:a", b"x"), 400, "are the service's own");
    check(client.publish("", b"x"), 400, "a channel has a name");
    check(client.publish("a", &vec![b'x'; 65_537]), 413, "more than 64 KiB");
    client.publish("a", &vec![b'x'; 65_536]).ok();
    // What others say under our names is not heard.
    let mut watching = Events::of(&holder.url(), &["live:a", "a"]);
    assert_eq!(watching.next().unwrap().name, "live");
    redis.cli(&["PUBLISH", "live:a", "false"]);
    redis.cli(&["PUBLISH", "a", "true"]);
    assert_eq!(watching.message("a"), "true");
}

/// Buckets close while the tests look on.
const SHORT: [&str; 6] = ["--periods", "1s,1m", "--grace", "100ms", "--lateness", "500ms"];
/// And these, of readings of the past, at once.
const ONLY_HOURS: [&str; 6] = ["--periods", "1h", "--grace", "50ms", "--lateness", "100ms"];

/// Source, start, generation and revision: a row in one version.
fn version(row: &Value) -> (String, String, i64, i64) {
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    (text("source"), text("start"), row["generation"].as_i64().unwrap(), row["revision"].as_i64().unwrap())
}

fn closed_buckets_are_told_of(on: On) {
    let service = Service::start(on, &SHORT);
    let client = service.client();
    let mut events = Events::of(&service.url(), &["closed:a", "closed:b"]);
    client.post(&array([reading("a", 1.0), reading("b", 2.0), reading("other", 3.0)])).ok();
    for source in ["a", "b"] {
        let event = events.next().unwrap();
        assert_eq!((event.name.as_str(), &event.data["channel"]), ("closed", &json!(format!("closed:{source}"))));
        let row = &event.data["row"];
        assert_eq!((&row["source"], &row["period"], &row["count"]), (&json!(source), &json!("1s"), &json!(1)));
        assert!(row["state"] != "open", "{row}");
    }
    // A late reading corrects the row.
    let start = client.rows("a", "1s")[0]["start"].as_str().unwrap().to_owned();
    client.post(&reading_at("a", 5.0, &start)).ok();
    let event = events.next().unwrap();
    assert_eq!((&event.data["row"]["start"], &event.data["row"]["count"]), (&json!(start), &json!(2)), "{event:?}");
}

#[test]
fn closed_buckets_are_told_of_embedded() {
    closed_buckets_are_told_of(On::Embedded);
}

#[test]
fn closed_buckets_are_told_of_redis() {
    closed_buckets_are_told_of(On::Redis);
}

/// Clients are cut off again and again, with service and store; each goes on where it stopped, and in the end has heard of
/// every row in its last version, and of no version twice.
fn clients_go_on_where_they_stopped(on: On) {
    const ROUNDS: usize = 4;
    let mut service = Service::start(on, &SHORT);
    let sources = ["a", "b.c", "Zürich"];
    let encoded = ["a", "b.c", "Z%C3%BCrich"];
    let channels = encoded.map(|id| format!("closed:{id}"));
    let channels = channels.each_ref().map(String::as_str);
    let mut heard: Vec<(String, String, i64, i64)> = Vec::new();
    let mut last: Option<String> = None;
    let mut posted = 0;
    for round in 0..ROUNDS {
        let mut events = match &last {
            None => Events::of(&service.url(), &channels),
            Some(id) => Events::after(&service.url(), &channels, id),
        };
        let until = heard.len() + 7;
        let mut recovered = 0;
        while heard.len() < until || (round > 0 && recovered < sources.len()) {
            service.client().post(&array(sources.map(|id| reading(id, 1.0)))).ok();
            posted += 1;
            let event = events.next().unwrap();
            if event.name == "recovered" {
                assert_eq!(event.data["recovered"], true, "{event:?}");
                recovered += 1;
                continue;
            }
            assert_eq!(event.name, "closed", "{event:?}");
            heard.push(version(&event.data["row"]));
            last = event.id;
        }
        assert_eq!(recovered, if round == 0 { 0 } else { sources.len() });
        drop(events);
        service.client().post(&array(sources.map(|id| reading(id, 1.0)))).ok();
        posted += 1;
        service.kill();
        if on == On::Redis {
            service.redis().restart();
        }
        service.start_again();
    }
    // Until everything that was counted is closed, and told of.
    let client = service.client();
    let all = || sources.iter().zip(encoded).flat_map(|(_, id)| client.rows(id, "1s")).collect::<Vec<_>>();
    eventually("all is closed", || all().iter().all(|row| row["state"] == "closed").then_some(()));
    let mut events = Events::after(&service.url(), &channels, last.as_ref().unwrap());
    let mut recovered = 0;
    while recovered < sources.len() {
        let event = events.next().unwrap();
        match event.name.as_str() {
            "closed" if event.data["row"]["period"] == "1s" => heard.push(version(&event.data["row"])),
            "closed" => {}
            "recovered" => recovered += 1,
            other => panic!("{other}: {event:?}"),
        }
    }
    let count: u64 = all().iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(count, posted * sources.len() as u64);
    for row in all() {
        assert!(heard.contains(&version(&row)), "nobody was told of {row}");
    }
    let distinct: BTreeSet<_> = heard.iter().collect();
    assert_eq!(distinct.len(), heard.len(), "a version was told of twice: {heard:?}");
}

#[test]
fn clients_go_on_where_they_stopped_embedded() {
    clients_go_on_where_they_stopped(On::Embedded);
}

#[test]
fn clients_go_on_where_they_stopped_redis() {
    clients_go_on_where_they_stopped(On::Redis);
}

/// A row that was corrected twice in the meantime is told of once.
#[test]
fn what_was_corrected_meanwhile_is_told_of_once() {
    let service = Service::start(On::Embedded, &["--periods", "1h,1d", "--grace", "50ms", "--lateness", "100ms"]);
    let client = service.client();
    let mut events = Events::of(&service.url(), &["closed:a"]);
    let mut count = 0;
    let mut post_and_wait = || {
        client.post(&reading_at("a", 1.0, "2026-01-05")).ok();
        count += 1;
        eventually("it is written", || {
            let row = &client.rows("a", "1h")[0];
            (row["count"] == count && row["state"] != "open").then_some(())
        });
    };
    post_and_wait();
    let first = events.next().unwrap();
    assert_eq!(first.data["row"]["count"], 1, "{first:?}");
    drop(events);
    post_and_wait();
    post_and_wait();
    let mut events = Events::after(&service.url(), &["closed:a"], first.id.as_ref().unwrap());
    let mut told = Vec::new();
    loop {
        let event = events.next().unwrap();
        if event.name == "recovered" {
            break;
        }
        told.push((event.data["row"]["period"].clone(), event.data["row"]["count"].clone()));
    }
    let hours: Vec<_> = told.iter().filter(|(period, _)| period == "1h").collect();
    assert_eq!(hours, [&(json!("1h"), json!(3))], "{told:?}");
}

#[test]
fn who_comes_back_with_another_stores_place_is_told() {
    let service = Service::start(On::Embedded, &SHORT);
    let mut events = Events::after(&service.url(), &["closed:a"], "1.5.a");
    let event = events.next().unwrap();
    assert_eq!((event.name.as_str(), &event.data["recovered"]), ("recovered", &json!(false)));
    let answer = service.client().get("/v1/stream?channel=closed:a&since=x");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("since: \"x\": it is not the id of an event"));
}

/// One id stands for all channels of a client: whatever it is cut off after, what comes behind it has all the rest.
#[test]
fn clients_of_several_channels_are_cut_off_after_each_event() {
    let service = Service::start(On::Embedded, &ONLY_HOURS);
    let client = service.client();
    let written = |source: &str| {
        client.post(&reading_at(source, 1.0, "2026-01-05")).ok();
        eventually("it is written", || (client.rows(source, "1h")[0]["state"] != "open").then_some(()));
    };
    let channels = ["closed:a", "closed:b", "closed:c"];
    let mut events = Events::of(&service.url(), &channels);
    written("c");
    let mut last = events.next().unwrap().id.unwrap();
    drop(events);
    for source in ["b", "a"] {
        written(source);
    }
    let mut heard = Vec::new();
    loop {
        let event = Events::after(&service.url(), &channels, &last).next().unwrap();
        if event.name == "recovered" {
            assert_eq!(event.data["recovered"], true, "{event:?}");
            break;
        }
        heard.push(event.data["row"]["source"].as_str().unwrap().to_owned());
        last = event.id.unwrap();
    }
    assert_eq!(heard, ["b", "a"], "in the order of the log");
}

/// A client that has no room for the second of several names of one row hears the row under each of them once.
#[test]
fn who_falls_behind_under_several_names_hears_nothing_twice() {
    const NAMES: [&str; 5] = ["closed:ab", "closed:a*", "closed:*b", "closed:?b", "closed:a?"];
    const HOURS: usize = 1_000;
    let service = Service::start(On::Embedded, &ONLY_HOURS);
    // How many names there are decides at which of them the room ends.
    let mut clients: Vec<_> = (2..=NAMES.len()).map(|n| (n, Events::of(&service.url(), &NAMES[..n]))).collect();
    let readings = (0..HOURS).map(|hour| {
        let (month, day) = (1 + hour / 24 / 28, 1 + hour / 24 % 28);
        reading_at("ab", 1.0, &format!("2026-{month:02}-{day:02}T{:02}:00:00Z", hour % 24))
    });
    service.client().post(&array(readings)).ok();
    eventually("all is written", || {
        let rows = service.client().rows("ab", "1h");
        (rows.len() == HOURS && rows.iter().all(|row| row["state"] == "closed")).then_some(())
    });
    for (names, events) in &mut clients {
        let mut heard = BTreeSet::new();
        for _ in 0..*names * HOURS {
            let event = events.next().unwrap();
            assert_eq!(event.name, "closed", "{event:?}");
            let told = (event.data["channel"].to_string(), event.data["row"]["start"].to_string());
            assert!(heard.insert(told), "told of twice, with {names} names: {event:?}");
        }
    }
    service.client().post(&reading_at("ab", 1.0, "2026-06-01")).ok();
    for (_, events) in &mut clients {
        assert_eq!(events.next().unwrap().data["row"]["start"], "2026-06-01T00:00:00Z", "nothing else was left");
    }
}

/// A store that has lost its last moments counts on from before: what clients who stayed were told of has the place of
/// what comes now.
#[test]
fn clients_who_stay_hear_that_the_store_went_back() {
    let mut redis = RedisServer::start_durable();
    let service = node(&redis, &ONLY_HOURS);
    let mut events = Events::of(&service.url(), &["closed:a", "closed:*"]);
    let mut hour = 0;
    let mut post_and_hear = |events: &mut Events| {
        hour += 1;
        let start = format!("2026-01-05T{hour:02}:00:00Z");
        service.client().post(&reading_at("a", 1.0, &start)).ok();
        for _ in 0..2 {
            let event = events.next().unwrap();
            assert_eq!((event.name.as_str(), &event.data["row"]["start"]), ("closed", &json!(start)), "{event:?}");
        }
    };
    post_and_hear(&mut events);
    let saved = temporary();
    copy(&redis.dir().join("appendonlydir"), saved.path());
    for _ in 0..3 {
        post_and_hear(&mut events);
    }
    redis.kill();
    copy(saved.path(), &redis.dir().join("appendonlydir"));
    redis.restart();
    let mut gaps = [(); 2].map(|()| events.next().unwrap());
    gaps.sort_by_key(|gap| gap.data["channel"].to_string());
    let expected =
        ["closed:*", "closed:a"].map(|channel| ("gap".to_owned(), json!({"channel": channel, "missed": null})));
    assert_eq!(gaps.map(|gap| (gap.name, gap.data)), expected);
    post_and_hear(&mut events);
}

/// What one instance has told, another one that reads the log a moment later does not tell again.
#[test]
fn clients_that_change_the_instance_hear_nothing_twice() {
    const ROUNDS: usize = 12;
    let redis = RedisServer::start_durable();
    let database = Database::new();
    let url = database.url();
    let sink = ["--sink", &url];
    let nodes = [0, 1].map(|_| node(&redis, &[&SHORT[..], &sink[..]].concat()));
    let _others = nodes.each_ref().map(|node| Events::of(&node.url(), &["closed:a"]));
    let mut events = Events::of(&nodes[0].url(), &["closed:a"]);
    let mut heard = Vec::new();
    for round in 1..=ROUNDS {
        nodes[0].client().post(&reading("a", 1.0)).ok();
        let id = loop {
            let event = events.next().unwrap();
            assert!(event.name == "closed" || event.name == "recovered", "{event:?}");
            if event.name == "closed" {
                heard.push((event.data["row"]["period"].to_string(), version(&event.data["row"])));
                break event.id.unwrap();
            }
        };
        events = Events::after(&nodes[round % 2].url(), &["closed:a"], &id);
    }
    let distinct: BTreeSet<_> = heard.iter().collect();
    assert_eq!(distinct.len(), heard.len(), "a version was told of twice: {heard:?}");
}

/// A client that is let in after the service was told to stop does not hold it up.
#[test]
fn streams_that_are_about_to_begin_end_with_the_service() {
    let mut service = Service::start(On::Redis, &[]);
    service.redis().signal("STOP");
    let mut stream = TcpStream::connect(service.url().strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"GET /v1/stream?channel=closed:a HTTP/1.0\r\n\r\n").unwrap();
    eventually("it has come", || {
        (metric(&service.client(), "meanwhile_live_clients{transport=\"events\"}") == Some(1.0)).then_some(())
    });
    service.signal("TERM");
    eventually("it stops", || service.log().contains("stopping: ").then_some(()));
    service.redis().signal("CONT");
    assert_eq!(service.ended(), Some(0), "{}", service.log());
    assert!(!service.log().contains("requests in flight"), "{}", service.log());
}
