//! Many channels, many clients, and many that come and go.

use crate::events::Events;
use crate::http::{array, reading_at};
use crate::operations::metric;
use crate::raw::Raw;
use crate::servers::RedisServer;
use crate::service::{On, Service, eventually};
use crate::sockets::check_clients;
use serde_json::json;
use std::collections::BTreeSet;
use std::thread;

const MANY: [&str; 4] = ["--max-connections", "5000", "--max-connections-per-address", "5000"];

fn node(redis: &RedisServer, flags: &[&str]) -> Service {
    Service::start_beside(&[&["--store", &redis.url()][..], &MANY, flags].concat(), &[])
}

/// Does something with each number below `count`, several at a time, and returns the results in their order.
fn all_at_once<T: Send>(count: usize, each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    const THREADS: usize = 8;
    thread::scope(|scope| {
        let part = |k: usize| {
            scope.spawn({
                let each = &each;
                move || (k * count / THREADS..(k + 1) * count / THREADS).map(each).collect::<Vec<T>>()
            })
        };
        let parts: Vec<_> = (0..THREADS).map(part).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

fn subscribed_channels(redis: &RedisServer) -> usize {
    redis.ask(&["PUBSUB", "CHANNELS"]).lines().filter(|name| !name.is_empty()).count()
}

fn subscribers(redis: &RedisServer) -> usize {
    redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().filter(|line| line.starts_with("id=")).count()
}

#[track_caller]
fn nobody_is_left(redis: &RedisServer, nodes: &[Service]) {
    for service in nodes {
        for transport in ["events", "websocket"] {
            check_clients(&service.client(), transport, 0.0);
        }
    }
    eventually("the channels are left", || (subscribed_channels(redis) == 0).then_some(()));
}

#[test]
fn ten_thousand_channels_over_one_connection() {
    const CLIENTS: usize = 100;
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[])];
    let mut clients = all_at_once(CLIENTS, |n| {
        let channels: Vec<String> = (0..100).map(|k| format!("channel-{}", 100 * n + k)).collect();
        Events::of(&nodes[0].url(), &channels.iter().map(String::as_str).collect::<Vec<_>>())
    });
    assert_eq!(subscribed_channels(&redis), 100 * CLIENTS);
    assert_eq!(subscribers(&redis), 1);
    for (n, events) in clients.iter_mut().enumerate() {
        let channel = format!("channel-{}", 100 * n + 57);
        redis.cli(&["PUBLISH", &channel, "heard"]);
        assert_eq!(events.message(&channel), "heard");
    }
    drop(clients);
    nobody_is_left(&redis, &nodes);
}

#[test]
fn three_thousand_subscribers_of_one_channel() {
    const CLIENTS: usize = 3_000;
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[]), node(&redis, &["--role", "ingest"])];
    let mut clients = all_at_once(CLIENTS, |n| Events::of(&nodes[n % 2].url(), &["common"]));
    assert_eq!(
        redis.ask(&["PUBSUB", "NUMSUB", "common"]).trim().replace('\n', " "),
        "common 2",
        "instances are counted"
    );
    for n in 0..5 {
        nodes[n % 2].client().publish("common", n.to_string().as_bytes()).ok();
    }
    for events in &mut clients {
        for n in 0..5 {
            assert_eq!(events.message("common"), n.to_string());
        }
    }
    drop(clients);
    nobody_is_left(&redis, &nodes);
}

/// A WebSocket of Socket.IO that is subscribed to a channel.
fn websocket(service: &Service, channel: &str) -> Raw {
    let mut raw = Raw::connect(service.url().strip_prefix("http://").unwrap().parse().unwrap());
    raw.send(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(raw.answer().unwrap().status, 101);
    let subscribe = format!(r#"421["subscribe","{channel}"]"#);
    for (packet, answer) in [("40", "40{"), (&*subscribe, r#"431["ok"]"#)] {
        // Under a mask that changes nothing.
        raw.send([&[0x81, 0x80 | packet.len() as u8, 0, 0, 0, 0], packet.as_bytes()].concat());
        let mut heard = String::new();
        while !heard.contains(answer) {
            heard.push(raw.byte() as char);
        }
    }
    raw
}

#[test]
fn two_thousand_that_come_and_go() {
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[])];
    let before = redis.ask(&["CLIENT", "LIST"]).lines().count();
    all_at_once(1_000, |n| {
        drop(websocket(&nodes[0], &format!("channel-{}", n % 50)));
        drop(Events::of(&nodes[0].url(), &[&format!("channel-{}", n % 50), "closed:*", "closed:a", "live:a"]));
    });
    nobody_is_left(&redis, &nodes);
    // One that hears and one that publishes may have come.
    let after = redis.ask(&["CLIENT", "LIST"]).lines().count();
    assert!(after <= before + 2, "{before} connections to Redis, and {after}");
    assert!(metric(&nodes[0].client(), "meanwhile_live_clients{transport=\"polling\"}") == Some(0.0));
}

/// A thousand clients come back at once after ten thousand rows: each hears of all of its own.
#[test]
fn a_thousand_come_back_after_ten_thousand_rows() {
    const CLIENTS: usize = 1_000;
    const SOURCES: usize = 100;
    const HOURS: usize = 100;
    let flags = [&["--periods", "1h", "--grace", "50ms", "--lateness", "100ms"][..], &MANY].concat();
    let service = Service::start(On::Redis, &flags);
    let client = service.client();
    let mut events = Events::of(&service.url(), &["closed:first"]);
    client.post(&reading_at("first", 1.0, "2026-01-01")).ok();
    let since = events.next().unwrap().id.unwrap();
    let times = (0..HOURS).map(|hour| format!("2026-01-{:02}T{:02}:00:00Z", 2 + hour / 24, hour % 24));
    let readings = times.flat_map(|time| (0..SOURCES).map(move |n| reading_at(&format!("s{n}"), 1.0, &time)));
    let readings: Vec<String> = readings.collect();
    for part in readings.chunks(2_000) {
        client.post(&array(part.iter().cloned())).ok();
    }
    eventually("all is written", || {
        let rows = client.rows(&format!("s{}", SOURCES - 1), "1h");
        (rows.len() == HOURS && rows.iter().all(|row| row["state"] == "closed")).then_some(())
    });
    let before = service.peak_kib();
    let recover = |channel: &str, expected: usize, events: &mut Events| {
        let mut heard = BTreeSet::new();
        loop {
            let event = events.next().unwrap();
            if event.name == "recovered" {
                assert_eq!(event.data, json!({"channel": channel, "recovered": true}));
                break;
            }
            assert_eq!(event.name, "closed", "{event:?}");
            heard.insert((event.data["row"]["source"].to_string(), event.data["row"]["start"].to_string()));
        }
        assert_eq!(heard.len(), expected, "{channel}");
    };
    let channel = |n: usize| format!("closed:s{}", n % SOURCES);
    let mut clients = thread::scope(|scope| {
        // A few of them want to hear of all sources.
        for channel in ["closed:*", "closed:s*"] {
            let mut events = Events::after(&service.url(), &[channel], &since);
            scope.spawn(move || recover(channel, SOURCES * HOURS, &mut events));
        }
        let mut clients = all_at_once(CLIENTS, |n| Events::after(&service.url(), &[&channel(n)], &since));
        for (n, events) in clients.iter_mut().enumerate() {
            recover(&channel(n), HOURS, events);
        }
        clients
    });
    let grown = service.peak_kib().saturating_sub(before);
    assert!(grown < 128 * 1_024, "{grown} KiB more for {CLIENTS} clients");
    // They hear what comes next like everybody.
    client.post(&reading_at("s7", 1.0, "2026-02-01")).ok();
    for n in [7, 107, 907] {
        assert_eq!(clients[n].next().unwrap().data["row"]["start"], "2026-02-01T00:00:00Z");
    }
}
