//! Scenario 5: `GROUP_A` over two servers: its members hear each other wherever they are, and when a server dies its clients go on
//! by the other one.

use super::stage::{Program, Proxy, instance, port, servers, tell};
use crate::servers::RedisServer;

#[test]
fn a_group_over_two_servers_of_which_one_dies() {
    println!("5. GROUP_A over two servers");
    let redis = RedisServer::start_durable();
    let mut nodes = servers(&redis, 2);
    let ports: Vec<u16> = nodes.iter().map(port).collect();
    let (_nginx, url) = Proxy::balancer(&ports, &[("# ip_hash;", "ip_hash;".to_owned())]);

    let balanced = Program::script("client.js", &[&url, "GROUP_A", "100"]);
    let on = balanced.subscribed("GROUP_A");
    let (dying, staying) = if on == instance(&nodes[0]) { (0, 1) } else { (1, 0) };
    let direct = Program::script("client.js", &[&nodes[staying].url(), "GROUP_A", "100"]);
    assert_eq!(direct.subscribed("GROUP_A"), instance(&nodes[staying]));
    tell("Two members: one came by nginx and is on one server, the other on the other one.");

    let group = redis.ask(&["PUBSUB", "NUMSUB", "GROUP_A"]);
    assert_eq!(group.trim().replace('\n', " "), "GROUP_A 2");
    redis.cli(&["PUBLISH", "GROUP_A", "hello everybody"]);
    for member in [&balanced, &direct] {
        member.says("hello everybody");
    }
    tell("A message to GROUP_A reaches both.");

    nodes[dying].kill();
    balanced.says("disconnected");
    assert_eq!(balanced.subscribed("GROUP_A"), instance(&nodes[staying]));
    redis.cli(&["PUBLISH", "GROUP_A", "still here?"]);
    for member in [&balanced, &direct] {
        member.says("still here?");
    }
    tell(
        "The first server is killed: its member is disconnected, comes back by nginx to the other server, subscribes again",
    );
    tell("in its `connect` handler, and hears the next message.");
}
