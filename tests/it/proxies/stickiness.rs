//! Who stays with which instance, and what happens to polling clients without that.

use super::Site;
use super::front::Front;
use super::machine::Kind;
use crate::http::Client;
use crate::sockets::{Mode, Sockets};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CLIENTS: usize = 30;

/// The id of a new session, and the instance that has it.
fn session(client: &Client, key: &str) -> (String, String) {
    let answer = client.get(&format!("/socket.io/?EIO=4&transport=polling{key}")).ok();
    let open: Value = serde_json::from_str(answer.body.strip_prefix('0').unwrap()).unwrap();
    (open["sid"].as_str().unwrap().to_owned(), answer.headers["x-instance"].clone())
}

/// The second request of a session.
fn goes_on(client: &Client, key: &str, (sid, instance): &(String, String)) -> Result<(), String> {
    let answer = client.get(&format!("/socket.io/?EIO=4&transport=polling&sid={sid}{key}"));
    if answer.status == 200 {
        assert_eq!(&answer.headers["x-instance"], instance, "a session is known where it began");
        return Ok(());
    }
    assert_eq!(answer.status, 400, "{answer:?}");
    Err(answer.json()["message"].as_str().unwrap().to_owned())
}

/// One after the other to the next instance: the second request of a session meets one that does not know it.
#[test]
fn round_robin_breaks_polling() {
    let site = Site::start(3);
    let mut sockets = Sockets::start();
    for (kind, change) in [
        (Kind::Nginx, ("hash $sticky_key consistent;", "")),
        (Kind::Haproxy, ("balance hdr(X-Sticky-Key)", "balance roundrobin")),
    ] {
        let front = Front::changed(kind, &site.ports(), &[change]);
        let client = Client::new(front.url());
        for n in 0..10 {
            let key = format!("&client=k{n}");
            let begun = session(&client, &key);
            assert_eq!(goes_on(&client, &key, &begun), Err("Session ID unknown".to_owned()), "{kind:?}");
        }
        let id = format!("{kind:?}");
        sockets.begin(&id, &front.url(), 4, &json!({"transports": ["polling"], "reconnection": false}));
        let (event, args) = sockets.next(&id);
        assert_eq!(event, "connect_error", "{args}");
        // A client that never polls has one connection, and minds nothing.
        sockets.connect(&format!("{id} ws"), &front.url(), 4, Mode::Websocket);
    }
}

/// All come from one address, as from an office: each stays where it is, and all instances have some.
#[test]
fn a_key_of_the_client_holds_it_behind_one_address() {
    let site = Site::start(3);
    let mut sockets = Sockets::start();
    for kind in [Kind::Nginx, Kind::Haproxy] {
        let front = Front::start(kind, &site.ports());
        let client = Client::new(front.url());
        let mut used = BTreeSet::new();
        for n in 0..CLIENTS {
            let key = format!("&client=k{n}");
            let begun = session(&client, &key);
            assert_eq!(goes_on(&client, &key, &begun), Ok(()), "{kind:?} {n}");
            used.insert(begun.1);
        }
        assert_eq!(used.len(), 3, "{kind:?}: {used:?}");
        for mode in Mode::ALL {
            let id = format!("{kind:?} {mode:?}");
            let transports = match mode {
                Mode::Polling => json!(["polling"]),
                Mode::Upgrade => json!(["polling", "websocket"]),
                Mode::Websocket => json!(["websocket"]),
            };
            let options = json!({"transports": transports, "reconnection": false, "query": {"client": id}});
            sockets.begin(&id, &front.url(), 4, &options);
            sockets.connected(&id, mode);
            assert_eq!(sockets.ask(&id, &json!(["subscribe", "a"])), "ok");
        }
    }
}

/// Its name in a cookie does the same; without either it is the address, and all else goes anywhere.
#[test]
fn a_cookie_and_the_address_hold_too() {
    let site = Site::start(3);
    for kind in [Kind::Nginx, Kind::Haproxy] {
        let front = Front::start(kind, &site.ports());
        let instance = |path: &str, words: &[&str]| {
            let url = format!("{}{path}", front.url());
            let said = front.curl(&[words, &["-o", "/dev/null", "-w", "%header{x-instance}", &url]].concat());
            assert!(!said.is_empty(), "no instance is named");
            said
        };
        let handshake = "/socket.io/?EIO=4&transport=polling";
        let cookie = |n: usize| format!("other=1; client=k{n}");
        let mut used = BTreeSet::new();
        for n in 0..CLIENTS {
            let first = instance("/healthz", &["-b", &cookie(n)]);
            assert_eq!(first, instance(handshake, &["-b", &cookie(n)]), "{kind:?} {n}");
            used.insert(first);
        }
        assert_eq!(used.len(), 3, "{kind:?}: {used:?}");
        let without = |path: &str| (0..CLIENTS).map(|_| instance(path, &[])).collect::<BTreeSet<String>>();
        assert_eq!((without(handshake).len(), without("/healthz").len()), (1, 3), "{kind:?}");
        // The parameter is stronger than the cookie.
        let client = Client::new(front.url());
        let (_, named) = session(&client, "&client=k7");
        assert_eq!(instance("/healthz?client=k7", &["-b", &cookie(8)]), named, "{kind:?}");
    }
}

/// By address alone a whole office is on one instance; clients need no key.
#[test]
fn ip_hash_holds_all_of_one_address_at_one_instance() {
    let site = Site::start(3);
    let front = Front::start(Kind::NginxIpHash, &site.ports());
    let client = Client::new(front.url());
    let mut used = BTreeSet::new();
    for n in 0..CLIENTS {
        let begun = session(&client, &format!("&client=k{n}"));
        assert_eq!(goes_on(&client, "", &begun), Ok(()));
        used.insert(begun.1);
    }
    assert_eq!(used.len(), 1, "{used:?}");
    let mut sockets = Sockets::start();
    for mode in Mode::ALL {
        used.insert(sockets.connect(&format!("{mode:?}"), &front.url(), 4, mode));
    }
    assert_eq!(used.len(), 1, "{used:?}");
}
