//! Connections on which nothing happens, and events that must not wait.
//!
//! Signs of life come more often than any proxy of `deploy/` loses its patience. To see in less than a minute that they
//! are what keeps a connection, proxies are started with less patience: with a little more than the time between two
//! signs, and with less.

use super::Site;
use super::files::number;
use super::front::Front;
use super::machine::Kind;
use crate::events::Events;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

/// Seconds between two signs of life of a stream.
const STREAM: u64 = 15;

/// Seconds between two of Socket.IO, as a client is told.
fn ping_interval(front: &Front) -> u64 {
    let answer = crate::http::Client::new(front.url()).get("/socket.io/?EIO=4&transport=polling").ok();
    let open: Value = serde_json::from_str(answer.body.strip_prefix('0').unwrap()).unwrap();
    open["pingInterval"].as_u64().unwrap() / 1_000
}

#[test]
fn the_proxies_have_more_patience_than_there_is_silence() {
    let site = Site::start(1);
    let ports = site.ports();
    let front = Front::start(Kind::Nginx, &[ports[0], ports[0], ports[0]]);
    let longest = ping_interval(&front).max(STREAM);
    for (file, word) in [
        ("nginx-proxy.conf", "proxy_read_timeout"),
        ("nginx-proxy.conf", "proxy_send_timeout"),
        ("haproxy.cfg", "timeout client"),
        ("haproxy.cfg", "timeout server"),
        ("haproxy.cfg", "timeout tunnel"),
        ("stunnel.conf", "TIMEOUTidle"),
    ] {
        let patience = number(file, word);
        assert!(patience >= 2 * longest, "{file}: {word} {patience} s, and {longest} s of silence");
    }
    // A connection that is used again must not be one that the instance is about to close.
    assert!(number("nginx.conf", "keepalive_timeout") < 60);
    assert!(number("haproxy.cfg", "timeout connect") < 5);
}

/// Reads signs of life of a stream; how many came before it ended.
fn stream(url: &str, enough: usize) -> usize {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    write!(stream, "GET /v1/stream?channel=a HTTP/1.0\r\n\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter(|line| line == ":").take(enough).count()
}

/// The same for the pings of a WebSocket, of which the first comes at once.
fn socket(url: &str, enough: usize) -> usize {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    write!(
        stream,
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let masked = |text: &str| [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat();
    stream.write_all(&masked("40")).unwrap();
    let mut pings = 0;
    let mut window = [0; 3];
    let mut byte = [0];
    while pings < enough && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        window = [window[1], window[2], byte[0]];
        // A text of one byte, which is 2.
        if window == [0x81, 1, b'2'] {
            pings += 1;
            stream.write_all(&masked("3")).unwrap();
        }
    }
    pings
}

/// Three signs of life are further apart than the patience of these proxies: it is the signs that keep a connection.
#[test]
fn signs_of_life_keep_silent_connections() {
    let site = Site::start(1);
    let ports = [site.ports()[0]; 3];
    let with = |kind, changes: &[(&str, &str)]| Front::changed(kind, &ports, changes);
    let fronts = [
        with(Kind::Nginx, &[("proxy_read_timeout 1h;", "proxy_read_timeout 18s;")]),
        with(Kind::Nginx, &[("proxy_read_timeout 1h;", "proxy_read_timeout 28s;")]),
        with(Kind::Nginx, &[("proxy_read_timeout 1h;", "proxy_read_timeout 5s;")]),
        with(
            Kind::Haproxy,
            &[("timeout client 75s", "timeout client 18s"), ("timeout server 75s", "timeout server 18s")],
        ),
        with(Kind::Haproxy, &[("timeout tunnel 1h", "timeout tunnel 28s")]),
        with(
            Kind::Haproxy,
            &[
                ("timeout tunnel 1h", "timeout tunnel 5s"),
                ("timeout client 75s", "timeout client 5s"),
                ("timeout server 75s", "timeout server 5s"),
            ],
        ),
    ];
    let urls = fronts.each_ref().map(Front::url);
    thread::scope(|scope| {
        // Which proxy, and how many signs come through it before it gives up, or enough of them.
        let urls = &urls;
        let streams =
            [(0, 2), (3, 2), (2, 0), (5, 0)].map(|case| (case, scope.spawn(move || stream(&urls[case.0], 2))));
        let sockets =
            [(1, 3), (4, 3), (2, 1), (5, 1)].map(|case| (case, scope.spawn(move || socket(&urls[case.0], 3))));
        for (case, signs) in streams.into_iter().chain(sockets) {
            assert_eq!(signs.join().unwrap(), case.1, "{case:?}");
        }
    });
}

/// nginx collects answers for clients that are slow, on its disk if need be, but not streams, which say that it must not:
/// so the service knows who is slow, and leaves out what is too much.
#[test]
fn nginx_collects_no_events_for_a_slow_client() {
    const MESSAGES: usize = 2_000;
    let site = Site::start(1);
    let client = site.nodes[0].client();
    let front = Front::start(Kind::Nginx, &[site.ports()[0]; 3]);
    let mut events = Events::of(&front.url(), &["a"]);
    // Each is heard before the next is sent: nothing else could push it along.
    for n in 0..20 {
        client.publish("a", n.to_string().as_bytes()).ok();
        assert_eq!(events.message("a"), n.to_string());
    }
    // Now it does not read. This is more than fits into all that is on the way, and less than nginx has room for.
    let text = "x".repeat(8_000);
    for _ in 0..MESSAGES {
        client.publish("a", text.as_bytes()).ok();
    }
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < MESSAGES {
        let event = events.next().expect("an event");
        if let Some(more) = event.data["missed"].as_u64() {
            missed += more as usize;
        } else {
            assert_eq!(event.data["message"], text, "{}", event.name);
            heard += 1;
        }
    }
    assert!(missed > 0 && heard + missed == MESSAGES, "{heard} heard, {missed} missed");
}
