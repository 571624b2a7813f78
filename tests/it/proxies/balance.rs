//! How many clients each instance gets, and that everybody can see it.

use super::Site;
use super::crowd::Crowd;
use super::front::Front;
use super::machine::Kind;
use crate::http::Client;
use crate::raw::Raw;
use crate::sockets::{Mode, Sockets, check_clients};
use std::collections::BTreeSet;

const CLIENTS: usize = 1_000;

/// Of a thousand clients none of four instances has more than one and a half of what another has.
#[test]
fn a_thousand_clients_are_shared_out_over_four_instances() {
    let site = Site::start(4);
    let names: BTreeSet<String> = site.instances().into_iter().collect();
    for kind in [Kind::Nginx, Kind::Haproxy] {
        let front = Front::start(kind, &site.ports());
        let crowd = Crowd::gather(&front.url(), CLIENTS, None);
        let counted = crowd.by_instance();
        println!("{}: {counted:?}", kind.file());
        assert_eq!(counted.keys().cloned().collect::<BTreeSet<_>>(), names);
        let (least, most) = (counted.values().min().unwrap(), counted.values().max().unwrap());
        assert!(*most as f64 <= 1.5 * *least as f64, "{}: {counted:?}", kind.file());
        // What the instances count is what the clients were told.
        for (node, name) in site.nodes.iter().zip(site.instances()) {
            check_clients(&node.client(), "websocket", counted[&name] as f64);
            check_clients(&node.client(), "polling", 0.0);
        }
        drop(crowd);
        site.nodes.iter().for_each(|node| check_clients(&node.client(), "websocket", 0.0));
    }
}

/// nginx counts what it listens on, and each client twice: with its connection to an instance.
#[test]
fn a_worker_of_nginx_has_half_as_many_clients_as_connections() {
    const CONNECTIONS: usize = 64;
    // What the file says, and the one without TLS.
    const LISTENERS: usize = 3;
    let site = Site::start(1);
    let connections = format!("worker_connections {CONNECTIONS};");
    let changes = [("worker_processes auto;", "worker_processes 1;"), ("worker_connections 20000;", &connections)];
    let front = Front::changed(Kind::Nginx, &[site.ports()[0]; 3], &changes);
    let mut sockets = Vec::new();
    let refused = loop {
        assert!(sockets.len() < CONNECTIONS, "nginx has no limit");
        let mut socket = Raw::connect(front.url().strip_prefix("http://").unwrap().parse().unwrap());
        socket.send(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        match socket.answer() {
            Some(answer) if answer.status == 101 => sockets.push(socket),
            refused => break refused.map(|answer| answer.status),
        }
    };
    println!("{} clients, then {refused:?}", sockets.len());
    assert_eq!(sockets.len(), (CONNECTIONS - LISTENERS) / 2);
    assert!(front.log().contains("64 worker_connections are not enough"), "{}", front.log());
}

/// In its usual mode nearly every client gets its WebSocket, and where one does not the metric says it.
#[test]
fn clients_that_do_not_choose_end_with_a_websocket() {
    const CLIENTS: usize = 20;
    let site = Site::start(3);
    let front = Front::start(Kind::Nginx, &site.ports());
    let mut sockets = Sockets::start();
    for n in 0..CLIENTS {
        let options = serde_json::json!({"reconnection": false, "query": {"client": format!("k{n}")}});
        sockets.begin(&n.to_string(), &front.url(), 4, &options);
    }
    for n in 0..CLIENTS {
        sockets.connected(&n.to_string(), Mode::Upgrade);
    }
    let count = |transport: &str| -> f64 {
        let series = format!("meanwhile_live_clients{{transport=\"{transport}\"}}");
        site.nodes.iter().map(|node| crate::operations::metric(&node.client(), &series).unwrap_or_default()).sum()
    };
    crate::service::eventually("nine of ten have one", || {
        let (websocket, polling) = (count("websocket"), count("polling"));
        (websocket + polling == CLIENTS as f64 && websocket > 0.9 * CLIENTS as f64).then_some(())
    });
}

/// Whatever is asked for, and whether it is answered well.
#[test]
fn every_answer_names_its_instance() {
    let site = Site::start(3);
    let names = site.instances();
    for kind in [Kind::Nginx, Kind::NginxIpHash, Kind::Haproxy] {
        let front = Front::start(kind, &site.ports());
        let client = Client::new(front.url());
        let page = if kind == Kind::Haproxy { "/meanwhile/" } else { "/" };
        for path in
            ["/healthz", "/v1/nodes", "/v1/stats?source=nobody", "/v1/stats", "/v1/nothing", "/socket.io/", page]
        {
            let answer = client.get(path);
            assert!(names.contains(&answer.headers["x-instance"]), "{kind:?} {path}: {answer:?}");
        }
    }
}
