//! A user of Redis with the rights in `deploy/redis-users.acl`: enough for everything the service does, and for
//! nothing else.

use crate::events::Events;
use crate::http::{array, reading, reading_at};
use crate::servers::RedisServer;
use crate::service::Service;
use serde_json::json;
use std::fs;
use std::process::Command;

const OLD: &str = "2026-03-02T10:17:00Z";
const PASSWORD: &str = "of-the-service";

/// What the file grants, behind `ACL SETUSER`.
fn grant() -> String {
    let file = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/redis-users.acl")).unwrap();
    let line = file.lines().find_map(|line| line.strip_prefix("user ")).expect("a user");
    line.replace("CHANGE-ME", PASSWORD)
}

#[test]
fn the_granted_rights_are_enough_and_no_more() {
    let redis = RedisServer::start_durable();
    let grant = grant();
    redis.cli(&[&["ACL", "SETUSER"][..], &grant.split(' ').collect::<Vec<_>>()].concat());
    let store = redis.url().replace("//", &format!("//meanwhile:{PASSWORD}@"));
    let service = Service::start_beside(&["--store", &store, "--hold", "0s"], &[]);
    let client = service.client();
    assert_eq!(client.post(&reading("cellar", 1.0)).ok().json()["durability"], "disk");

    let statistics = Events::of(&service.url(), &["live:kitchen", "closed:kitchen"]);
    let mut events = Events::of(&service.url(), &["news"]);
    client.publish("news", b"hello").ok();
    assert_eq!(events.message("news"), "hello");
    // New, old, late; counted once.
    client.post_keyed("a", &array([reading("kitchen", 1.0), reading_at("kitchen", 2.0, OLD)])).ok();
    assert_eq!(
        client.post_keyed("a", &array([reading("kitchen", 1.0), reading_at("kitchen", 2.0, OLD)])).ok().json()["duplicate"],
        json!(true)
    );
    service.run(&["drain"]);
    client.post(&reading_at("kitchen", 3.0, OLD)).ok();
    service.run(&["drain"]);
    assert_eq!(client.total("kitchen", "1d").0, 3);
    for path in ["/v1/state?source=kitchen", "/v1/sources", "/v1/nodes", "/metrics"] {
        client.get(path).ok();
    }
    client.delete("/v1/sources/kitchen").ok();
    let mut check = service.command(&["check", "--store", &store]);
    assert!(check.output().unwrap().status.success());
    drop((events, statistics));
    // Everything that was refused stands in this log; the name of the client's library is nobody's need.
    let refused = redis.ask(&["ACL", "LOG"]);
    let objects = refused.lines().skip_while(|line| *line != "object");
    assert!(objects.filter(|line| line.contains("setinfo")).count() == refused.matches("object").count(), "{refused}");

    // None is granted that it does without. What waits for a replica, for children of a day, for an hour to be over
    // and for a channel to be left alone does not run here.
    let run = redis.ask(&["INFO", "commandstats"]);
    let is_run = |right: &str| {
        run.contains(&format!("cmdstat_{right}:"))
            || ["wait", "hexists", "zcount", "unlink", "unsubscribe"].contains(&right)
    };
    let idle: Vec<_> =
        grant.split(' ').filter_map(|word| word.strip_prefix('+')).filter(|right| !is_run(right)).collect();
    assert!(idle.is_empty(), "fewer rights would do: {idle:?}");

    redis.cli(&["SET", "other", "of another program"]);
    let script = redis.ask(&["SCRIPT", "LOAD", "return redis.call('HGETALL', 'other')"]);
    for words in [
        &["GET", "other"][..],
        &["HGETALL", "other"],
        &["EVALSHA", script.trim(), "0"],
        &["EVAL", "return 1", "0"],
        &["KEYS", "*"],
        &["FLUSHALL"],
        &["SHUTDOWN"],
        &["CONFIG", "SET", "appendonly", "no"],
        &["ACL", "LIST"],
        &["MONITOR"],
        &["REPLICAOF", "NO", "ONE"],
    ] {
        let mut ask = Command::new("redis-cli");
        ask.args(["-p", &redis.port().to_string(), "--user", "meanwhile"]).env("REDISCLI_AUTH", PASSWORD).args(words);
        let said = String::from_utf8(ask.output().unwrap().stdout).unwrap();
        assert!(said.contains("NOPERM") || said.contains("can't access"), "{words:?}: {said}");
    }
}
