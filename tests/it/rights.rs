//! A user of Redis with the rights in `deploy/redis-users.acl`: enough for everything the service does, and for
//! nothing else.

use crate::events::Events;
use crate::http::{array, reading, reading_at};
use crate::servers::RedisServer;
use crate::service::Service;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const OLD: &str = "2026-03-02T10:17:00Z";
const PASSWORD: &str = "of-the-service";

/// What the file grants, behind `ACL SETUSER`.
fn grant() -> String {
    let file = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/redis-users.acl")).unwrap();
    let line = file.lines().find_map(|line| line.strip_prefix("user ")).expect("a user");
    line.replace("CHANGE-ME", PASSWORD)
}

/// The commands in the sources, in small letters.
fn commands() -> BTreeSet<String> {
    let store = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store"));
    let sources = ["redis", "lua"].iter().flat_map(|name| fs::read_dir(store.join(name)).unwrap());
    let files = sources.map(|entry| entry.unwrap().path()).chain([store.join("redis.rs")]);
    let text: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let called = ["redis.call('", "redis::cmd(\""].into_iter().flat_map(|call| text.split(call).skip(1));
    let name = |rest: &str| rest.split(['\'', '"']).next().unwrap().to_lowercase();
    // The library itself subscribes.
    called.map(name).chain(["subscribe", "unsubscribe"].map(str::to_owned)).collect()
}

#[test]
fn what_is_granted_is_what_is_used() {
    let grant = grant();
    // Of commands with two words all that is granted is the use made of them.
    let rights =
        grant.split(' ').filter_map(|word| Some(word.strip_prefix('+')?.split('|').next().unwrap().to_owned()));
    assert_eq!(rights.collect::<BTreeSet<_>>(), commands());
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
