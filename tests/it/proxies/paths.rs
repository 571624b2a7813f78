//! What is asked for by path and by name: TLS and the way to it, several applications on one port, instances under
//! prefixes.

use super::Site;
use super::front::Front;
use super::machine::Kind;
use crate::events::Events;
use crate::http::Client;
use crate::servers::temporary;
use crate::service::{On, Service, command, eventually};
use crate::sockets::{Mode, Sockets};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

/// A reading sent with `curl` to an address, and the answer.
fn posted(front: &Front, url: &str, words: &[&str]) -> Value {
    let body = r#"{"source":"kitchen","value":21.5}"#;
    let said = front.curl(&[words, &["-d", body, &format!("{url}/v1/readings")]].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Everything over TLS: readings, answers, a stream, and Socket.IO in each mode.
fn check_secure(site: &Site, front: &Front) {
    let url = front.secure_url();
    assert_eq!(posted(front, &url, &[])["accepted"], 1);
    let rows = front.curl(&[&format!("{url}/v1/stats?source=kitchen&period=1m&format=ndjson")]);
    assert_eq!(serde_json::from_str::<Value>(&rows).unwrap()["sum"], 21.5);
    let (_curl, mut events) = front.curling(&["-N", &format!("{url}/v1/stream?channel=a")]);
    assert!(events.any(|line| line == "event: welcome"));
    site.nodes[0].client().publish("a", b"over TLS").ok();
    assert!(events.any(|line| line.contains("over TLS")));
    check_sockets(&url, &front.certificate());
}

/// Official clients that trust this certificate, in each mode.
fn check_sockets(url: &str, certificate: &Path) {
    let certificate = fs::read_to_string(certificate).unwrap();
    let mut sockets = Sockets::start();
    let ways = [
        (Mode::Polling, json!(["polling"])),
        (Mode::Upgrade, json!(["polling", "websocket"])),
        (Mode::Websocket, json!(["websocket"])),
    ];
    for (mode, transports) in ways {
        let id = format!("{mode:?}");
        let key = json!({"client": "k"});
        let options = json!({"transports": transports, "reconnection": false, "ca": certificate, "query": key});
        sockets.begin(&id, url, 4, &options);
        sockets.connected(&id, mode);
        assert_eq!(sockets.ask(&id, &json!(["subscribe", "a"])), "ok");
        assert_eq!(sockets.ask(&id, &json!(["publish", "a", id])), "ok");
        sockets.check_message(&id, &json!(id), "a");
        sockets.disconnect(&id);
    }
}

/// No proxy at all; what else there is to it is in `tests/it/encrypted.rs`.
#[test]
fn tls_ends_at_an_instance() {
    let dir = temporary();
    let out = dir.path().to_str().unwrap();
    let made = command(&["dev-cert", "--out", out, "--name", "127.0.0.1"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [cert, key] = ["meanwhile-cert.pem", "meanwhile-key.pem"].map(|name| format!("{out}/{name}"));
    let service = Service::start(On::Embedded, &["--tls-cert", &cert, "--tls-key", &key]);
    check_sockets(&service.url(), Path::new(&cert));
}

#[test]
fn tls_ends_at_nginx() {
    let site = Site::start(3);
    check_secure(&site, &Front::start(Kind::Nginx, &site.ports()));
}

#[test]
fn tls_ends_at_haproxy() {
    let site = Site::start(3);
    check_secure(&site, &Front::start(Kind::Haproxy, &site.ports()));
}

/// stunnel takes 443, HAProxy gets what was said, with the address of the client.
#[test]
fn tls_ends_at_stunnel_before_haproxy() {
    let site = Site::start(3);
    let haproxy = Front::start(Kind::Haproxy, &site.ports());
    let behind = format!("127.0.0.1:{}", haproxy.tunnel_port());
    let stunnel = Front::changed(Kind::Stunnel, &[], &[("127.0.0.1:8443", &behind)]);
    check_secure(&site, &stunnel);
    // Without what stunnel says first HAProxy takes nothing.
    let bare = Front::changed(Kind::Stunnel, &[], &[("127.0.0.1:8443", &behind), ("protocol = proxy\n", "")]);
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| posted(&bare, &bare.secure_url(), &[])));
    assert!(said.is_err(), "{said:?}");
}

/// Without TLS everybody is sent on, and what is sent arrives as it was meant.
#[test]
fn a_post_to_the_plain_port_arrives_as_a_post() {
    let site = Site::start(3);
    for (kind, prefix) in [
        (Kind::Nginx, ""),
        (Kind::NginxIpHash, ""),
        (Kind::NginxPrefixes, "/server2"),
        (Kind::Haproxy, ""),
        (Kind::Haproxy, "/meanwhile"),
    ] {
        let front = Front::start(kind, &site.ports());
        let answer = Client::new(front.plain_url()).without_following(&format!("{prefix}/v1/readings?a=b"));
        assert_eq!(answer.status, 307, "{kind:?}: {answer:?}");
        assert_eq!(answer.headers["location"], format!("{}{prefix}/v1/readings?a=b", front.secure_url()));
        let url = format!("{}{prefix}", front.plain_url());
        assert_eq!(posted(&front, &url, &["-L"]), json!({"accepted": 1, "duplicate": false, "durability": "disk"}));
    }
    assert_eq!(site.nodes[0].client().total("kitchen", "1m"), (5, 5.0 * 21.5));
}

/// Another web application, which says what it was asked for.
fn other_application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let asked = format!("the other application: {}", lines.next().unwrap_or_default());
            let _ = lines.find(String::is_empty);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", asked.len());
            let _ = (&stream).write_all((head + &asked).as_bytes());
        }
    });
    port
}

/// By path, and by the name of the host, on one port.
#[test]
fn several_applications_on_one_port() {
    let site = Site::start(3);
    let main = format!("server main 127.0.0.1:{}", other_application());
    let front = Front::changed(Kind::Haproxy, &site.ports(), &[("server main 127.0.0.1:8000", &main)]);
    let client = Client::new(front.url());
    for path in ["/", "/shop", "/v1", "/meanwhiles", "/socket.iox"] {
        assert_eq!(client.get(path).ok().body, format!("the other application: GET {path} HTTP/1.1"));
    }
    client.post(r#"{"source":"kitchen","value":1}"#).ok();
    for path in ["/meanwhile/", "/meanwhile"] {
        assert!(client.get(path).ok().body.contains("<title>"), "{path}");
    }
    for path in ["/meanwhile/page.js", "/meanwhile/v1/nodes", "/v1/nodes", "/healthz", "/openapi.json"] {
        assert!(client.get(path).ok().headers.contains_key("x-instance"), "{path}");
    }
    let mut events = Events::of(&front.url(), &["a"]);
    let mut sockets = Sockets::start();
    let ways = [("a", "/socket.io", Mode::Upgrade), ("b", "/meanwhile/socket.io", Mode::Websocket)];
    for (id, path, mode) in ways {
        let transports = if mode == Mode::Upgrade { json!(["polling", "websocket"]) } else { json!(["websocket"]) };
        sockets.begin(id, &front.url(), 4, &json!({"path": path, "transports": transports, "query": {"client": id}}));
        sockets.connected(id, mode);
        assert_eq!(sockets.ask(id, &json!(["subscribe", "a"])), "ok");
    }
    client.publish("a", b"hello").ok();
    assert_eq!(events.message("a"), "hello");
    for id in ["a", "b"] {
        sockets.check_message(id, &json!("hello"), "a");
    }
    // All of a name of its own is the service's.
    let at = |host: &str| front.curl(&["-H", &format!("Host: {host}"), &format!("{}/", front.url())]);
    assert!(at("Statistics.example.org:443").contains("<title>"));
    assert!(at("www.example.org").starts_with("the other application"));
}

/// Each instance under its prefix, with everything it has.
#[test]
fn instances_under_prefixes() {
    let site = Site::start(3);
    let names = site.instances();
    let front = Front::start(Kind::NginxPrefixes, &site.ports());
    let mut sockets = Sockets::start();
    for (n, name) in names.iter().enumerate() {
        let prefix = format!("/server{}", n + 1);
        let client = Client::new(format!("{}{prefix}", front.url()));
        assert_eq!(&client.get("/healthz").ok().headers["x-instance"], name);
        client.post(r#"{"source":"kitchen","value":1}"#).ok();
        assert!(client.get("/").ok().body.contains("<title>"));
        assert!(client.get("/page.css").ok().body.contains('{'));
        let mut events = Events::of(&format!("{}{prefix}", front.url()), &["a"]);
        let ways = [
            (Mode::Polling, json!(["polling"])),
            (Mode::Upgrade, json!(["polling", "websocket"])),
            (Mode::Websocket, json!(["websocket"])),
        ];
        for (mode, transports) in ways {
            let id = format!("{n} {mode:?}");
            let options =
                json!({"path": format!("{prefix}/socket.io"), "transports": transports, "reconnection": false});
            sockets.begin(&id, &front.url(), 4, &options);
            assert_eq!(&sockets.connected(&id, mode), name);
            assert_eq!(sockets.ask(&id, &json!(["subscribe", "b"])), "ok");
            client.publish("b", id.as_bytes()).ok();
            sockets.check_message(&id, &json!(id), "b");
            sockets.disconnect(&id);
        }
        client.publish("a", b"hello").ok();
        assert_eq!(events.message("a"), "hello");
    }
    assert_eq!(Client::new(front.url()).get("/elsewhere").status, 404);
    eventually("all is counted", || (site.nodes[0].client().total("kitchen", "1m") == (3, 3.0)).then_some(()));
}
