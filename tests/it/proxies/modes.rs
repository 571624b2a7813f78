//! The ways to connect, through the balancer, with the official clients of three generations.

use super::Site;
use super::front::Front;
use super::machine::Kind;
use crate::sockets::{Mode, Sockets, check_clients};
use serde_json::json;

const WAYS: [(Mode, &[&str]); 3] =
    [(Mode::Polling, &["polling"]), (Mode::Upgrade, &["polling", "websocket"]), (Mode::Websocket, &["websocket"])];

/// What one client says all others hear, whichever instance they are on and however they got there.
#[test]
fn clients_of_all_ages_talk_through_the_balancer() {
    let site = Site::start(3);
    for kind in [Kind::Nginx, Kind::Haproxy] {
        let front = Front::start(kind, &site.ports());
        let mut sockets = Sockets::start();
        let mut ids = Vec::new();
        for version in [4, 2, 1] {
            for (mode, transports) in WAYS {
                let id = format!("{version} {mode:?}");
                let options = json!({"transports": transports, "reconnection": false, "query": {"client": id}});
                sockets.begin(&id, &front.url(), version, &options);
                sockets.connected(&id, mode);
                assert_eq!(sockets.ask(&id, &json!(["subscribe", "a"])), "ok");
                ids.push(id);
            }
        }
        for speaker in &ids {
            assert_eq!(sockets.ask(speaker, &json!(["publish", "a", speaker])), "ok");
            for id in &ids {
                sockets.check_message(id, &json!(speaker), "a");
            }
        }
    }
}

/// A proxy on the way that lets no Upgrade through: clients notice it, stay on polling, and nothing is lost by it.
#[test]
fn without_upgrade_clients_stay_on_polling() {
    let site = Site::start(2);
    let upgrade = "proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection $connection_upgrade;\n";
    let front = Front::changed(Kind::Nginx, &site.ports(), &[(upgrade, "")]);
    let mut sockets = Sockets::start();
    for version in [4, 2, 1] {
        let id = version.to_string();
        let options = json!({"reconnection": false, "query": {"client": id}});
        sockets.begin(&id, &front.url(), version, &options);
        let name = sockets.connected(&id, Mode::Polling);
        let node = &site.nodes[site.instances().iter().position(|instance| *instance == name).unwrap()];
        for n in 0..20 {
            assert_eq!(sockets.ask(&id, &json!(["subscribe", format!("{n}")])), "ok");
        }
        node.client().publish("7", b"hello").ok();
        sockets.check_message(&id, &json!("hello"), "7");
        // Which the operator sees.
        check_clients(&node.client(), "polling", 1.0);
        check_clients(&node.client(), "websocket", 0.0);
        sockets.disconnect(&id);
        check_clients(&node.client(), "polling", 0.0);
    }
}
