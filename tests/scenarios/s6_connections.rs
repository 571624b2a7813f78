//! Scenario 6: Four processes and 1,000 clients behind nginx; and what `worker_connections 64` allows.

use super::stage::{Proxy, port, servers, tell};
use crate::raw::Raw;
use crate::servers::RedisServer;
use std::collections::BTreeMap;

const CLIENTS: usize = 1_000;
const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client with a WebSocket, and the instance it is on; or why there is none.
fn connect(url: &str) -> Result<(Raw, String), Option<u16>> {
    let mut socket = Raw::connect(url.strip_prefix("http://").unwrap().parse().unwrap());
    socket.send(HANDSHAKE);
    let answer = socket.answer().ok_or(None)?;
    if answer.status != 101 {
        return Err(Some(answer.status));
    }
    let instance = answer.headers.iter().find_map(|line| line.strip_prefix("x-instance: ")).expect("a name").to_owned();
    Ok((socket, instance))
}

#[test]
fn a_thousand_clients_and_a_limit() {
    println!("6. Four processes and 1,000 clients behind nginx");
    let redis = RedisServer::start_durable();
    let nodes = servers(&redis, 4);
    let ports: Vec<u16> = nodes.iter().map(port).collect();

    let (nginx, url) = Proxy::balancer(&ports, &[]);
    let (mut sockets, mut counted) = (Vec::new(), BTreeMap::<String, usize>::new());
    for _ in 0..CLIENTS {
        let (socket, instance) = connect(&url).expect("there is room");
        sockets.push(socket);
        *counted.entry(instance).or_default() += 1;
    }
    let shares: Vec<usize> = counted.values().copied().collect();
    assert_eq!(shares.len(), 4, "{counted:?}");
    assert!(shares.iter().all(|share| (200..=300).contains(share)), "{counted:?}");
    tell(&format!("1,000 clients with a WebSocket each, in turn: the four processes have {shares:?}."));
    drop((sockets, nginx));

    let (nginx, url) = Proxy::balancer(&ports, &[("worker_connections 4096;", "worker_connections 64;".to_owned())]);
    let mut sockets = Vec::new();
    let refused = loop {
        assert!(sockets.len() < 64, "nginx has no limit");
        match connect(&url) {
            Ok(socket) => sockets.push(socket),
            Err(refused) => break refused,
        }
    };
    // Each client takes two connections, and the port one.
    assert!((30..=31).contains(&sockets.len()), "{}", sockets.len());
    assert!(nginx.said().contains("64 worker_connections are not enough"), "{}", nginx.said());
    let answer = refused.map_or("no answer at all".to_owned(), |status| format!("{status}"));
    tell(&format!(
        "With worker_connections 64 there is room for {}: nginx counts the connection of the client and the one",
        sockets.len()
    ));
    tell(&format!(
        "to the server, and the port it listens on. The next client gets {answer}, and the log of nginx says why."
    ));
}
