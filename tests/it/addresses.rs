//! Whose address the service goes by: that of the connection, or the one that a trusted proxy names, within HTTP or by
//! the PROXY protocol.
//!
//! What it goes by is read in the log, and seen in how connections are counted. The rules for every form of header
//! stand beside the code, in `src/http/server/`.

use crate::raw::Raw;
use crate::servers::{free_port, temporary};
use crate::service::{Killed, On, Service, eventually};
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// A path that is not there: the log of its failure names the client.
const ASK: &str = "GET /nothing HTTP/1.1\r\nHost: here\r\n";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// From 198.51.100.7 to 10.0.0.1.
const V2_PROXIED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x0a\0\0\x01\x12\x67\0\x50";

fn start(flags: &[&str]) -> Service {
    Service::start(On::Embedded, &[&["--log", "info,meanwhile=debug"], flags].concat())
}

fn address(service: &Service) -> SocketAddr {
    service.url().trim_start_matches("http://").parse().unwrap()
}

/// Asks over a connection that begins with some bytes, and checks whom the log names.
#[track_caller]
fn check_client(service: &Service, begin: &[u8], headers: &str, id: &str, expected: &str) {
    let mut raw = Raw::connect(address(service));
    raw.send([begin, format!("{ASK}X-Request-Id: {id}\r\n{headers}\r\n").as_bytes()].concat());
    assert_eq!(raw.answer().expect("an answer").status, 404, "{begin:?} {headers:?}");
    check_logged(service, id, expected);
}

#[track_caller]
fn check_logged(service: &Service, id: &str, expected: &str) {
    let line = eventually("the failure is logged", || {
        service.log().lines().find(|line| line.contains(&format!("\"{id}\""))).map(str::to_owned)
    });
    assert!(line.contains(&format!("client={expected} ")), "{expected}: {line}");
}

#[test]
fn who_is_not_trusted_speaks_for_itself_alone() {
    let service = start(&["--trusted-proxies", "192.0.2.0/24", "--proxy-protocol"]);
    check_client(&service, b"", "X-Forwarded-For: 198.51.100.7\r\nX-Real-IP: 198.51.100.7\r\n", "plain", "127.0.0.1");
    for begin in [&b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 80\r\n"[..], V2_PROXIED, V2_LOCAL] {
        let mut raw = Raw::connect(address(&service));
        raw.send([begin, ASK.as_bytes(), b"\r\n"].concat());
        assert_eq!(raw.answer().expect("an answer").problem(), "unreadable-request", "{begin:?}");
        assert!(raw.is_closed());
    }
}

#[test]
fn a_trusted_proxy_names_its_clients() {
    let service = start(&["--trusted-proxies", "loopback,10.0.0.0/8"]);
    let forged = "X-Forwarded-For: 1.2.3.4, 198.51.100.7, 10.0.0.9\r\nX-Real-IP: 1.2.3.4\r\n";
    check_client(&service, b"", forged, "listed", "198.51.100.7");
    check_client(&service, b"", "X-Real-IP: 198.51.100.8\r\n", "real", "198.51.100.8");
    check_client(&service, b"", "", "nobody", "127.0.0.1");
}

#[test]
fn the_proxy_protocol_names_the_client_of_a_connection() {
    let service = start(&["--trusted-proxies", "loopback", "--proxy-protocol"]);
    check_client(&service, b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 80\r\n", "", "v1", "198.51.100.7");
    check_client(&service, b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n", "", "v1-6", "2001:db8::7");
    check_client(&service, V2_PROXIED, "", "v2", "198.51.100.7");
    check_client(&service, V2_LOCAL, "", "local", "127.0.0.1");
    check_client(&service, b"PROXY UNKNOWN\r\n", "", "unknown", "127.0.0.1");
    // A client that was named is no proxy, whatever it says; a proxy in front of the proxy is.
    check_client(&service, V2_PROXIED, "X-Forwarded-For: 1.2.3.4\r\n", "forged", "198.51.100.7");
    check_client(&service, V2_LOCAL, "X-Forwarded-For: 1.2.3.4\r\n", "further", "1.2.3.4");
    for without in ["GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n", "PROXY TCP5 nonsense\r\n\r\n"] {
        let mut raw = Raw::connect(address(&service));
        raw.send(without);
        let answer = raw.answer().expect("an answer");
        assert_eq!((answer.status, answer.problem().as_str()), (400, "unreadable-request"), "{without}");
        assert!(answer.body.contains("--proxy-protocol") && raw.is_closed(), "{answer:?}");
    }
}

/// All come from one address, and yet each client has its own share.
#[test]
fn connections_are_counted_for_those_who_are_named() {
    let service = start(&["--trusted-proxies", "loopback", "--proxy-protocol", "--max-connections-per-address", "2"]);
    let connect = |client: &str| {
        let mut raw = Raw::connect(address(&service));
        raw.send(format!("PROXY TCP4 {client} 10.0.0.1 4711 80\r\n"));
        raw.send("GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n");
        assert_eq!(raw.answer().expect("an answer").status, 200);
        raw
    };
    let mut others = [connect("198.51.100.8"), connect("198.51.100.8")];
    let mut first = connect("198.51.100.7");
    let mut second = connect("198.51.100.7");
    let _third = connect("198.51.100.7");
    assert!(first.is_closed());
    for raw in others.iter_mut().chain([&mut second]) {
        raw.send("GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n");
        assert_eq!(raw.answer().expect("an answer").status, 200);
    }
}

#[test]
fn haproxy_speaks_it() {
    let service = start(&["--trusted-proxies", "loopback", "--proxy-protocol"]);
    let dir = temporary();
    let mut versions = Vec::new();
    for (version, send) in [("v1", "send-proxy"), ("v2", "send-proxy-v2")] {
        let (port, file) = (free_port(), dir.path().join(version));
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             listen it\n bind 127.0.0.1:{port}\n server s {} {send} check check-send-proxy inter 100ms\n",
            address(&service)
        );
        fs::write(&file, text).unwrap();
        let haproxy = Command::new("haproxy").arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).spawn();
        versions.push((version, port, Killed(haproxy.expect("haproxy is needed for this test"))));
    }
    for (version, port, _haproxy) in &versions {
        let url = format!("http://127.0.0.1:{port}/nothing");
        eventually("haproxy passes on", || {
            let curl = Command::new("curl")
                .args(["-sS", "--interface", "127.0.0.77", "-o", "/dev/null", "-w", "%{http_code}", "-H"])
                .args([&format!("X-Request-Id: {version}-asks"), &url])
                .output()
                .unwrap();
            (curl.stdout == b"404").then_some(())
        });
        check_logged(&service, &format!("{version}-asks"), "127.0.0.77");
    }
}
