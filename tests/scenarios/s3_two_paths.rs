//! Scenario 3: nginx with two servers on one port, `/server1/` and `/server2/`, an echo from one to the other, and a plain port
//! that answers 307, so that a POST arrives as a POST.

use super::stage::{Program, Proxy, curl, port, servers, tell};
use crate::servers::{RedisServer, free_port};

#[test]
fn two_servers_under_two_paths() {
    println!("3. nginx with /server1/ and /server2/ on one port");
    let redis = RedisServer::start_durable();
    let nodes = servers(&redis, 2);
    let [plain, front] = [free_port(), free_port()];
    let changes = [
        ("127.0.0.1:8081", format!("127.0.0.1:{plain}")),
        ("127.0.0.1:8080", format!("127.0.0.1:{front}")),
        ("$host:8080", format!("$host:{front}")),
        ("127.0.0.1:8000", format!("127.0.0.1:{}", port(&nodes[0]))),
        ("127.0.0.1:8001", format!("127.0.0.1:{}", port(&nodes[1]))),
    ];
    let _nginx = Proxy::start("nginx", "nginx-prefixes.conf", &changes, front);
    let url = format!("http://127.0.0.1:{front}");

    let paths = ["/server1/socket.io", "/server2/socket.io"];
    let clients = paths.map(|path| Program::script("client.js", &[&url, "echo", "2", path]));
    let instances = clients.each_ref().map(|client| client.subscribed("echo"));
    assert_eq!(instances, [super::stage::instance(&nodes[0]), super::stage::instance(&nodes[1])]);
    tell("One client with { path: '/server1/socket.io' }, one with /server2: each is on its own server.");

    Program::script("publisher.js", &[&url, "echo", paths[1]]).ended();
    for client in &clients {
        client.says("first message");
        client.says("second message");
    }
    tell("What one says by /server2 the other hears by /server1: the servers share a Redis.");

    let address = format!("http://127.0.0.1:{plain}/server1/v1/readings");
    let (status, _) = curl(&["-d", r#"{"source": "kitchen", "value": 21.5}"#, &address]);
    assert_eq!(status, 307);
    let (status, body) = curl(&["-L", "-d", r#"{"source": "kitchen", "value": 21.5}"#, &address]);
    assert!(status == 200 && body.contains("\"accepted\":1"), "{status}: {body}");
    let (_, state) = curl(&[&format!("{url}/server2/v1/state?source=kitchen")]);
    assert!(state.contains("\"count\":1"), "{state}");
    tell(
        "A POST to the plain port is answered 307; curl -L sends it again, as a POST with its body, and it is counted once.",
    );
}
