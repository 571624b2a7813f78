//! Scenario 2: The plain client: `subscribe`, `message`, `unsubscribe`, on one server; messages come from outside, by `PUBLISH`.

use super::stage::{Program, server, tell};
use crate::servers::RedisServer;
use crate::service::eventually;

#[test]
fn the_plain_client_subscribes_and_leaves() {
    println!("2. The plain client on one server");
    let redis = RedisServer::start_durable();
    let service = server(&redis, &[]);
    let client = Program::script("client.js", &[&service.url(), "somechannel", "1"]);
    client.subscribed("somechannel");
    assert_eq!(redis.ask(&["PUBSUB", "NUMSUB", "somechannel"]).trim().replace('\n', " "), "somechannel 1");
    tell("conn.emit('subscribe', 'somechannel') is all it says; Redis has one subscriber, the server.");

    redis.cli(&["PUBLISH", "somechannel", "hello from outside"]);
    client.says("hello from outside");
    tell("redis-cli PUBLISH somechannel \"hello from outside\": it prints the message, as it was sent.");

    client.says("left somechannel");
    redis.cli(&["PUBLISH", "somechannel", "too late"]);
    eventually("the channel is left", || redis.ask(&["PUBSUB", "CHANNELS"]).trim().is_empty().then_some(()));
    let another = Program::script("client.js", &[&service.url(), "somechannel", "1"]);
    another.subscribed("somechannel");
    redis.cli(&["PUBLISH", "somechannel", "for the next"]);
    another.says("for the next");
    tell("On its first message it unsubscribes; the second is for nobody, and the server leaves the channel.");
}
