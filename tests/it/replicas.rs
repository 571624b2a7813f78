//! A Redis with a replica: with `--acks replica` nothing is acknowledged or written before the replica has
//! it, so that a failover loses nothing; without, a failover can lose, and that is said.

mod switch;

use crate::http::{Client, reading};
use crate::senders::{Senders, check_total};
use crate::servers::RedisServer;
use crate::service::{Service, command, eventually};
use crate::sink_files;
use crate::world::{OTHER_WRITER, POLICY, T0, WRITER, calendar, delta, key};
use meanwhile::config::Acks;
use meanwhile::store::redis::RedisStore;
use meanwhile::store::{Answer, Frame, Store, StoreError, keys};
use serde_json::json;
use std::thread;
use switch::Switch;

/// Buckets close while the tests look on.
const SHORT: [&str; 6] = ["--periods", "1s,1m,1h", "--grace", "100ms", "--lateness", "500ms"];
/// Batches that are acknowledged by a primary which has no replica any more.
const LOST: u64 = 10;

fn service(url: &str, flags: &[&str]) -> Service {
    Service::start_beside(&[&["--store", url][..], flags].concat(), &[])
}

fn metric(client: &Client, name: &str) -> f64 {
    let page = client.get("/metrics").ok().body;
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect("the metric")
}

#[test]
fn without_a_replica_nothing_is_acknowledged_and_nothing_doubled() {
    let primary = RedisServer::start_durable();
    let replica = RedisServer::start_replica_of(&primary);
    let service = service(&primary.url(), &["--acks", "replica"]);
    let client = service.client();
    let taken = client.post_keyed("first", &reading("a", 1.0)).ok().json();
    assert_eq!(taken, json!({"accepted": 1, "duplicate": false, "durability": "disk", "acks": "replica"}));
    assert_eq!(client.get("/readyz").ok().json()["store"]["acks"], "replica");

    replica.promote();
    let doubtful = {
        let client = client.clone();
        thread::spawn(move || client.post_keyed("doubtful", &reading("a", 2.0)))
    };
    eventually("the door is shut", || service.log().contains("requests are turned away").then_some(()));
    let refused = client.post_keyed("refused", &reading("a", 4.0));
    assert_eq!((refused.status, &refused.json()["type"]), (503, &json!("/problems/not-applied")));
    assert!(client.get("/readyz").json()["store"]["trouble"].as_str().unwrap().contains("no replica"), "{refused:?}");
    let doubtful = doubtful.join().unwrap();
    assert_eq!((doubtful.status, &doubtful.json()["type"]), (504, &json!("/problems/outcome-unknown")));
    assert!(doubtful.json()["detail"].as_str().unwrap().contains("no replica has confirmed it"), "{doubtful:?}");
    // What the primary has nobody acknowledges, not even as counted before.
    assert_eq!(client.post_keyed("doubtful", &reading("a", 2.0)).status, 503);
    assert_eq!(client.post_keyed("first", &reading("a", 1.0)).status, 503);

    replica.follow(&primary);
    client.post_until_counted("doubtful", &reading("a", 2.0));
    client.post_until_counted("refused", &reading("a", 4.0));
    for (key, value) in [("first", 1.0), ("doubtful", 2.0), ("refused", 4.0)] {
        assert_eq!(client.post_keyed(key, &reading("a", value)).ok().json()["duplicate"], true, "{key}");
    }
    assert_eq!(client.total("a", "1d"), (3, 7.0));
    assert_eq!(metric(&client, "meanwhile_store_losses_total"), 0.0);
}

/// The clock as the last call wrote it that writes.
fn written(primary: &RedisServer) -> i64 {
    primary.ask(&["HGET", &keys::head(0), "clock"]).trim().parse().unwrap()
}

/// A server from 7.2 on waits for the writes of the connection that asks: what was counted over another is
/// confirmed only if the answer about it is a write of its own. Older ones wait for all
/// that was written by the last command of that connection.
#[tokio::test]
async fn every_answer_about_readings_waits_for_a_replica() {
    let primary = RedisServer::start_durable();
    let replica = RedisServer::start_replica_of(&primary);
    let connect =
        async || RedisStore::connect(&primary.url(), POLICY, None).await.unwrap().acknowledging(Acks::Replica);
    let (store, other) = (connect().await, connect().await);
    store.found(0).await.unwrap();
    let frame = async |writer, value| {
        let head = store.head(0, writer).await.unwrap();
        let bucket = calendar("1m").bucket("1m".parse().unwrap(), T0);
        Frame::new(writer, 1, head.elapsed, vec![key(1, 1)], vec![delta(bucket, "a", &[value])])
    };
    let (first, again) = (frame(WRITER, 1.0).await, frame(OTHER_WRITER, 1.0).await);
    let answers = [
        (&store, &first, Answer::Applied),
        (&other, &first, Answer::Dup { checksum: first.checksum }),
        (&other, &again, Answer::Seen(vec![(0, [1; 16])])),
    ];
    for (store, frame, expected) in answers {
        replica.signal("STOP");
        let before = written(&primary);
        let unknown = store.apply(0, frame).await;
        assert!(matches!(unknown, Err(StoreError::Unknown(_))), "{expected:?} is {unknown:?} without a replica");
        assert!(written(&primary) > before, "{expected:?} has written nothing to wait for");
        let before = written(&primary);
        let unknown = store.barrier(0).await;
        assert!(written(&primary) > before, "the barrier has written nothing to wait for");
        assert!(matches!(unknown, Err(StoreError::Unknown(_))), "a barrier without a replica: {unknown:?}");
        replica.signal("CONT");
        let expected = if expected == Answer::Applied { Answer::Dup { checksum: first.checksum } } else { expected };
        eventually_async(async || store.apply(0, frame).await.ok(), expected).await;
        store.barrier(0).await.unwrap();
    }
}

/// Until it answers, and with this.
async fn eventually_async(ask: impl AsyncFn() -> Option<Answer>, expected: Answer) {
    for _ in 0..100 {
        if let Some(answer) = ask().await {
            assert_eq!(answer, expected);
            return;
        }
    }
    panic!("no answer: {expected:?} was to come");
}

#[test]
fn rows_wait_for_the_replica_too() {
    let primary = RedisServer::start_durable();
    let replica = RedisServer::start_replica_of(&primary);
    let service = service(&primary.url(), &[&["--acks", "replica"][..], &SHORT].concat());
    let client = service.client();
    client.post_keyed("before", &reading("b", 1.0)).ok();
    replica.signal("STOP");
    let pending = {
        let client = client.clone();
        thread::spawn(move || client.post_until_counted("pending", &reading("a", 1.0)))
    };
    let row = || sink_files::total(&service.sink(), "1s", "a");
    let waits = || service.log().contains("the rollover waits, finished buckets stay in the store: the store did not");
    eventually("the rollover comes to the bucket", || (waits() || row() != (0, 0.0)).then_some(()));
    assert_eq!(row(), (0, 0.0), "written before a replica had it");
    replica.signal("CONT");
    pending.join().unwrap();
    eventually("the row is written", || (row() == (1, 1.0)).then_some(()));
    assert_eq!(client.total("a", "1h"), (1, 1.0));
}

#[test]
fn a_failover_loses_nothing_that_was_acknowledged() {
    let mut primary = RedisServer::start_durable();
    let mut replica = RedisServer::start_replica_of(&primary);
    let switch = Switch::to(primary.port());
    let service = service(&switch.url(), &[&["--acks", "replica"][..], &SHORT].concat());
    let senders = Senders::start(&[&service]);
    for _ in 0..3 {
        // The old primary goes on for a while, and senders with it.
        replica.promote();
        eventually("what it takes is not confirmed", || (service.client().get("/readyz").status == 503).then_some(()));
        primary.kill();
        primary = std::mem::replace(&mut replica, RedisServer::start_durable());
        switch.turn_to(primary.port());
        replica.follow(&primary);
        senders.go_on();
    }
    check_total(&service, senders.finish());
    assert_eq!(metric(&service.client(), "meanwhile_store_losses_total"), 0.0, "{}", service.log());
}

#[test]
fn without_waiting_a_failover_can_lose_and_that_is_said() {
    let mut primary = RedisServer::start_durable();
    let replica = RedisServer::start_replica_of(&primary);
    let switch = Switch::to(primary.port());
    let service = service(&switch.url(), &["--periods", "1d"]);
    let client = service.client();
    client.post_keyed("kept", &reading("a", 1.0)).ok();
    replica.attached_to(&primary);
    replica.promote();
    for batch in 0..LOST {
        let taken = client.post_keyed(&format!("lost-{batch}"), &reading("a", 1.0)).ok().json();
        assert_eq!(taken, json!({"accepted": 1, "duplicate": false, "durability": "disk"}));
    }
    primary.kill();
    switch.turn_to(replica.port());
    eventually("the loss is noticed", || (metric(&client, "meanwhile_store_losses_total") == 1.0).then_some(()));
    assert_eq!(metric(&client, "meanwhile_store_lost_frames_total"), LOST as f64);
    assert!(service.log().contains("what it confirmed between the two may be lost"), "{}", service.log());
    assert_eq!(client.total("a", "1d"), (1, 1.0));
    // Who repeats them counts them again, once.
    for batch in (0..LOST).chain(0..LOST) {
        client.post_until_counted(&format!("lost-{batch}"), &reading("a", 1.0));
    }
    assert_eq!(client.post_keyed("kept", &reading("a", 1.0)).ok().json()["duplicate"], true);
    assert_eq!(client.total("a", "1d"), (1 + LOST, (1 + LOST) as f64));
}

#[test]
fn check_warns_of_a_store_without_replica() {
    let primary = RedisServer::start_durable();
    let check = || {
        let dir = tempfile::tempdir().unwrap();
        let words = ["check", "--acks", "replica", "--store", &primary.url()];
        let output = command(&words).current_dir(dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check();
    assert!(code == Some(0) && said.contains("no replica is attached"), "{said}");
    let service = service(&primary.url(), &["--acks", "replica"]);
    assert!(service.log().contains("nothing is acknowledged before a replica confirms it"), "{}", service.log());
    let _replica = RedisServer::start_replica_of(&primary);
    let (code, said) = check();
    assert!(code == Some(0) && !said.contains("warning"), "{said}");
    service.client().post_until_counted("k", &reading("a", 1.0));
}
