//! Scenario 8: A defect in a handler, in an event of a socket and in the rollover, found in the error log.

use super::stage::{server, tell};
use crate::servers::RedisServer;
use crate::service::{Service, eventually};
use crate::sockets::{Mode, Sockets};
use serde_json::{Value, json};

/// An instance that has a defect at this place, once.
fn defective(redis: &RedisServer, place: &str, flags: &[&str]) -> Service {
    let store = redis.url();
    let flags = [&["--store", &store][..], flags].concat();
    Service::start_beside(&flags, &[("MEANWHILE_FAILPOINT", &format!("{place}:1"))])
}

#[test]
fn defects_are_found_in_the_error_log() {
    println!("8. Defects, and the error log");
    let redis = RedisServer::start_durable();
    let handler = defective(&redis, "state-asked", &["--role", "ingest"]);
    let answer = handler.client().get("/v1/state?source=kitchen");
    let id = answer.json()["error_id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.status, 500);
    assert_eq!(handler.client().get("/v1/state?source=kitchen").ok().json(), json!([]));
    tell(&format!(
        "A handler panics: the client is answered 500 with error_id {id} and nothing else; the next request is well."
    ));

    let event = defective(&redis, "event-begun", &["--role", "ingest"]);
    let mut sockets = Sockets::start();
    sockets.connect("a", &event.url(), 4, Mode::Websocket);
    let refused = sockets.ask("a", &json!(["subscribe", "my channel"]));
    assert!(refused.contains("logged as error"), "{refused}");
    assert_eq!(sockets.ask("a", &json!(["subscribe", "my channel"])), "ok");
    tell("An event of a socket panics: its client is told the id, and the same connection goes on.");

    let mut rollover = server(&redis, &[]);
    rollover.kill();
    rollover.start_again_until("ticking:1");
    assert_eq!(rollover.ended(), Some(1), "{}", rollover.log());
    tell(
        "The rollover panics: the process notes it and ends with status 1, so that whoever watches it starts it again.",
    );

    let views = ["/v1/state", "rollover", "socket event subscribe"];
    let rows = eventually("all are in the store", || {
        let rows: Value = serde_json::from_str(&handler.run(&["errors", "--format", "json"])).unwrap();
        let mut seen: Vec<&str> = rows.as_array().unwrap().iter().filter_map(|row| row["view"].as_str()).collect();
        seen.sort_unstable();
        (seen == views).then(|| rows.clone())
    });
    assert!(rows.as_array().unwrap().iter().all(|row| row["class"] == "panic"), "{rows}");
    tell("meanwhile errors, asked of any instance:");
    for line in handler.run(&["errors"]).lines() {
        tell(line);
    }
}
