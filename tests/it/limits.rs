//! Every limit of a request, just below it and just above it, and more connections than there are places,
//! against the binary as a user runs it.
//!
//! What a client does too slowly is in `connections.rs`, where the loop runs with short times; the limits of
//! timestamps and values are in `bad_input.rs`.

use crate::http::{Answer, Client, reading};
use crate::raw::Raw;
use crate::service::{On, Service, eventually};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
const MIB: usize = 1 << 20;

fn address(service: &Service) -> SocketAddr {
    service.url().trim_start_matches("http://").parse().unwrap()
}

fn post(client: &Client, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let Answer { status, body, .. } = client.try_post("", headers, body).expect("an answer");
    (status, body)
}

/// A request of exactly so many bytes up to the end of its headers.
fn head_of(bytes: usize, in_the_path: bool) -> String {
    let (path, filler) = if in_the_path { ("/v1/sources?prefix=", "") } else { ("/v1/sources", "X-Filler: ") };
    let rest = " HTTP/1.1\r\nHost: here\r\n";
    let room = bytes - "GET ".len() - path.len() - rest.len() - filler.len() - "\r\n".len();
    if in_the_path {
        format!("GET {path}{}{rest}\r\n", "x".repeat(room))
    } else {
        format!("GET {path}{rest}{filler}{}\r\n\r\n", "x".repeat(room - "\r\n".len()))
    }
}

#[test]
fn heads() {
    let service = Service::start(On::Embedded, &[]);
    let check = |request: &str, expected: (u16, &str)| {
        let mut raw = Raw::connect(address(&service));
        raw.send(request);
        let answer = raw.answer().expect("an answer");
        assert_eq!((answer.status, answer.problem().as_str()), expected, "{} bytes", request.len());
        answer
    };
    let limit = 16 * 1024;
    let too_large = (431, "headers-too-large");
    assert_eq!(head_of(limit, false).len(), limit);
    assert_eq!(head_of(limit, true).len(), limit);
    check(&head_of(limit, false), (200, ""));
    let answer = check(&head_of(limit + 1, false), too_large);
    assert!(answer.has("connection: close") && answer.body.contains("16 KiB"), "{answer:?}");
    check(&head_of(limit, true), (200, ""));
    check(&head_of(limit + 1, true), too_large);
    // The answer arrives although most of the head has not been read.
    check(&head_of(100 * limit, false), too_large);
    let lines = |n: usize| format!("GET /v1/sources HTTP/1.1\r\n{}\r\n", "X-Filler: x\r\n".repeat(n));
    check(&lines(100), (200, ""));
    check(&lines(101), too_large);
    check("nonsense\r\n\r\n", (400, "unreadable-request"));
    check("GET /v1/sources HTTP/1.1\r\nno colon\r\n\r\n", (400, "unreadable-request"));
    // The first request on a connection is nothing special.
    let mut raw = Raw::connect(address(&service));
    raw.send("GET /v1/sources HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(raw.answer().unwrap().status, 200);
    raw.send(head_of(limit + 1, false));
    assert_eq!(raw.answer().unwrap().problem(), "headers-too-large");
    assert!(raw.is_closed());
}

#[test]
fn bodies_and_lines() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let check = |headers: &[(&str, &str)], body: &[u8], expected: (u16, &str)| {
        let (status, answer) = post(&client, headers, body);
        assert!(status == expected.0 && answer.contains(expected.1), "{} bytes: {status} {answer}", body.len());
    };
    // Spaces are nothing in JSON, so a body may have any length.
    let padded = |bytes: usize| {
        let mut body = reading("padded", 1.0).into_bytes();
        body.resize(bytes, b' ');
        body
    };
    let too_large = (413, "/problems/body-too-large");
    check(&[JSON], &padded(16 * MIB), (200, "\"accepted\":1"));
    check(&[JSON], &padded(16 * MIB + 1), too_large);
    check(&[NDJSON], &padded(16 * MIB + 1), too_large);
    let lines = |n: usize| format!("{}\n", reading("counted", 1.0)).repeat(n).into_bytes();
    check(&[NDJSON], &lines(200_000), (200, "\"accepted\":200000"));
    check(&[NDJSON], &lines(200_001), (413, "/problems/too-many-readings"));
    assert_eq!(client.total("counted", "1d").0, 200_000);
    assert_eq!(client.total("padded", "1d").0, 1);
    // A body that announces too much is refused before a byte of it has come.
    let mut raw = Raw::connect(address(&service));
    let head = |bytes: usize| {
        format!(
            "POST /v1/readings HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: {bytes}\r\n\
             Content-Type: application/json\r\n\r\n"
        )
    };
    raw.send(head(16 * MIB + 1));
    assert_eq!(raw.answer().expect("an answer").problem(), "body-too-large");
    let mut raw = Raw::connect(address(&service));
    raw.send(head(16 * MIB));
    assert_eq!(raw.answer().expect("an answer").status, 100);
}

#[test]
fn ids_and_keys() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let check = |headers: &[(&str, &str)], body: &str, expected: u16| {
        let (status, answer) = post(&client, headers, body.as_bytes());
        assert_eq!(status, expected, "{answer}");
    };
    check(&[JSON], &reading(&"i".repeat(256), 1.0), 200);
    check(&[JSON], &reading(&"i".repeat(257), 1.0), 400);
    check(&[JSON], &reading(&"é".repeat(128), 1.0), 200);
    check(&[JSON], &reading(&format!("{}i", "é".repeat(128)), 1.0), 400);
    check(&[JSON], &reading("i", 1.0), 200);
    check(&[JSON], &reading("", 1.0), 400);
    check(&[JSON, ("Idempotency-Key", &"k".repeat(255))], &reading("a", 1.0), 200);
    check(&[JSON, ("Idempotency-Key", &"k".repeat(256))], &reading("a", 1.0), 400);
    check(&[JSON, ("Idempotency-Key", "k")], &reading("a", 1.0), 200);
    check(&[JSON, ("Idempotency-Key", "")], &reading("a", 1.0), 400);
    check(&[JSON, ("Idempotency-TTL", "7d"), ("Idempotency-Key", "ttl")], &reading("a", 1.0), 200);
    check(&[JSON, ("Idempotency-TTL", "169h"), ("Idempotency-Key", "ttl")], &reading("a", 1.0), 400);
}

/// Connections that only take up places, in greater number than there are: whoever has something to say
/// is heard.
#[test]
fn a_flood_of_connections_disturbs_no_post() {
    let service = Service::start(On::Embedded, &["--max-connections", "20"]);
    let client = service.client();
    let mut flood: Vec<TcpStream> = Vec::new();
    for n in 1..=200 {
        let mut raw = Raw::connect(address(&service));
        if n % 2 == 0 {
            raw.send("POST /v1/readings HTTP/1.1\r\nHost:");
        }
        flood.push(raw.into_stream());
        if n % 10 == 0 {
            // On a kept connection, which may have given way, and on a new one.
            client.post_until_counted(&format!("key-{n}"), &reading("heard", 1.0));
            service.client().post(&reading("heard", 1.0)).ok();
        }
    }
    assert_eq!(service.client().total("heard", "1d"), (40, 40.0));
    assert!(service.log().contains("the service has its 20 connections (--max-connections)"), "{}", service.log());
}

/// Without descriptors nothing can be accepted; when they are back, everything goes on.
#[test]
fn a_service_without_descriptors_waits_for_them() {
    let service = Service::start(On::Embedded, &[]);
    let limit = |soft: &str| {
        let pid = service.pid().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status().unwrap();
        assert!(set.success());
    };
    let mut kept = Raw::connect(address(&service));
    let ask = "GET /v1/sources HTTP/1.1\r\nHost: here\r\n\r\n";
    kept.send(ask);
    assert_eq!(kept.answer().unwrap().status, 200);
    limit("3");
    let mut waiting = Raw::connect(address(&service));
    waiting.send(ask);
    eventually("the log says why", || service.log().contains("cannot accept connections").then_some(()));
    // It was the oldest without a request, and closing it was all that could be done.
    assert!(kept.is_closed());
    limit("1000");
    assert_eq!(waiting.answer().unwrap().status, 200);
    service.client().post(&reading("after", 1.0)).ok();
}

#[test]
fn connections_leave_descriptors_for_files() {
    let service = Service::start_under(&["-n", "150"], On::Embedded, &[]);
    assert!(service.log().contains("50 connections are taken at once, not 10000"), "{}", service.log());
    let _flood: Vec<Raw> = (0..200).map(|_| Raw::connect(address(&service))).collect();
    service.client().post(&reading("heard", 1.0)).ok();
    assert_eq!(service.client().total("heard", "1d"), (1, 1.0));
    assert!(!service.log().contains("cannot accept"), "{}", service.log());
}
