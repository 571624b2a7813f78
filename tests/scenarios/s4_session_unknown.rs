//! Scenario 4: Three servers behind nginx in turn: a polling client gets "Session ID unknown". With `ip_hash` it is well; and
//! the publisher of two messages on `my channel` reaches it by whatever server.

use super::stage::{Program, Proxy, port, servers, tell};
use crate::http::Client;
use crate::servers::RedisServer;

#[test]
fn in_turn_and_by_address() {
    println!("4. Three servers behind nginx");
    let redis = RedisServer::start_durable();
    let nodes = servers(&redis, 3);
    let ports: Vec<u16> = nodes.iter().map(port).collect();

    let (nginx, url) = Proxy::balancer(&ports, &[]);
    let client = Client::new(url);
    let first = client.get("/socket.io/?EIO=4&transport=polling").ok();
    let (_, rest) = first.body.split_once("\"sid\":\"").expect("a session");
    let session = rest.split_once('"').unwrap().0;
    let second = client.get(&format!("/socket.io/?EIO=4&transport=polling&sid={session}"));
    assert_eq!(second.status, 400, "{second:?}");
    assert!(second.body.contains("Session ID unknown"), "{second:?}");
    assert_ne!(first.headers["x-instance"], second.headers["x-instance"]);
    tell(
        "In turn: the first request of a polling client begins a session on one server, the second goes to the next one:",
    );
    tell(&format!("400 {}", second.body));
    drop(nginx);

    let (_nginx, url) = Proxy::balancer(&ports, &[("# ip_hash;", "ip_hash;".to_owned())]);
    let clients = ["a", "b"].map(|_| Program::script("client.js", &[&url, "my channel", "2"]));
    let instances = clients.each_ref().map(|client| client.subscribed("my channel"));
    assert_eq!(instances[0], instances[1]);
    tell(
        "With ip_hash both requests go to one server, and the client is subscribed. So is a second one, on the same server:",
    );
    tell("everybody with one address is, which is why deploy/nginx.conf goes by a key of the client's own instead.");

    Program::script("publisher.js", &[&nodes[2].url(), "my channel"]).ended();
    for client in &clients {
        client.says("first message");
        client.says("second message");
        client.says("left my channel");
    }
    tell("The publisher, connected to any of the three, says two messages on `my channel`: both clients print both.");
}
