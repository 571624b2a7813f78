//! Channels over Socket.IO, with the official clients of three generations in all their ways to connect.

use crate::http::{array, reading, reading_at};
use crate::raw::Raw;
use crate::servers::RedisServer;
use crate::service::{On, Service, eventually};
use crate::sockets::{Mode, Sockets, bytes, check_clients};
use serde_json::json;

/// An instance on this store.
fn node(redis: &RedisServer, flags: &[&str]) -> Service {
    Service::start_beside(&[&["--store", &redis.url()][..], flags].concat(), &[])
}

fn instance(service: &Service) -> String {
    service.client().get("/healthz").headers["x-instance"].clone()
}

#[track_caller]
fn nobody_is_left(redis: &RedisServer, nodes: &[Service]) {
    for service in nodes {
        for transport in ["polling", "websocket"] {
            check_clients(&service.client(), transport, 0.0);
        }
    }
    eventually("the channels are left", || redis.ask(&["PUBSUB", "CHANNELS"]).trim().is_empty().then_some(()));
}

/// Two clients on two instances, `a` and `b`, do everything that can be done with messages.
fn clients_talk(version: u32) {
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[]), node(&redis, &["--role", "ingest"])];
    let mut sockets = Sockets::start();
    for mode in Mode::ALL {
        for (id, service) in ["a", "b"].iter().zip(&nodes) {
            assert_eq!(sockets.connect(id, &service.url(), version, mode), instance(service));
            check_clients(&service.client(), if mode == Mode::Polling { "polling" } else { "websocket" }, 1.0);
        }
        // Clients of version 1 send other characters than ASCII in a way of their own while they poll.
        let zurich = if version == 1 && mode == Mode::Polling { "Zurich*" } else { "Zürich*" };
        // The plain client: no answer is asked for, and what it asks for is done in its order.
        sockets.emit("a", &json!(["subscribe", "my channel"]));
        assert_eq!(sockets.ask("a", &json!(["subscribe", "my channel"])), "ok");
        assert_eq!(sockets.ask("b", &json!(["subscribe", [zurich, "my channel"]])), "ok");
        assert_eq!(redis.ask(&["PUBSUB", "NUMSUB", "my channel"]).trim().replace('\n', " "), "my channel 2");
        redis.cli(&["PUBLISH", "my channel", "zw\u{f6}lf\n\"Glocken\""]);
        for id in ["a", "b"] {
            sockets.check_message(id, &json!("zw\u{f6}lf\n\"Glocken\""), "my channel");
        }
        // Where the protocol has no way for them, other bytes than UTF-8 are replaced.
        let binary = |sent: &str, text: &str| {
            if version < 4 && mode == Mode::Polling { json!(text) } else { bytes(sent) }
        };
        nodes[0].client().publish("my%20channel", &[0, 0xff, b'x']).ok();
        assert_eq!(sockets.ask("a", &json!(["publish", "my channel", bytes("/wA=")])), "ok");
        assert_eq!(sockets.ask("b", &json!(["publish", "my channel", {"a": [1.5, null]}])), "ok");
        for id in ["a", "b"] {
            sockets.check_message(id, &binary("AP94", "\0\u{fffd}x"), "my channel");
            sockets.check_message(id, &binary("/wA=", "\u{fffd}\0"), "my channel");
            sockets.check_message(id, &json!(r#"{"a":[1.5,null]}"#), "my channel");
        }
        for n in 0..200 {
            sockets.emit("b", &json!(["publish", zurich, n.to_string()]));
        }
        for n in 0..200 {
            sockets.check_message("b", &json!(n.to_string()), zurich);
        }
        let long = "\u{1}".repeat(65_536);
        assert_eq!(sockets.ask("a", &json!(["publish", "my channel", long])), "ok");
        sockets.check_message("b", &json!(long), "my channel");
        sockets.check_message("a", &json!(long), "my channel");
        // Not a second one after that.
        sockets.emit("b", &json!(["unsubscribe", "nobody's"]));
        assert_eq!(sockets.ask("b", &json!(["unsubscribe", "my channel"])), "ok");
        redis.cli(&["PUBLISH", "my channel", "without b"]);
        redis.cli(&["PUBLISH", zurich, "with b"]);
        sockets.check_message("a", &json!("without b"), "my channel");
        sockets.check_message("b", &json!("with b"), zurich);
        // What is refused is said, to who asks and to who does not.
        let refused = sockets.ask("a", &json!(["publish", "live:kitchen", "x"]));
        assert!(refused.contains("the service's own"), "{refused}");
        let refused = sockets.ask("b", &json!(["subscribe", "live:kitchen"]));
        assert!(refused.contains(&format!("ask {}", nodes[0].url())), "{refused}");
        sockets.emit("a", &json!(["subscribe", ""]));
        let refused = sockets.told("a", "refused");
        assert_eq!(refused, json!({"event": "subscribe", "reason": "\"\": a channel has a name"}));
        for id in ["a", "b"] {
            sockets.disconnect(id);
            assert_eq!(sockets.next(id).0, "disconnect");
        }
        nobody_is_left(&redis, &nodes);
    }
}

#[test]
fn clients_of_today_talk() {
    clients_talk(4);
}

#[test]
fn clients_of_version_2_talk() {
    clients_talk(2);
}

#[test]
fn clients_of_version_1_talk() {
    clients_talk(1);
}

/// Statistics have events of their own; who comes back goes on where it stopped.
#[test]
fn statistics_move() {
    let service = Service::start(On::Redis, &["--periods", "1s,1m", "--grace", "100ms", "--lateness", "500ms"]);
    let client = service.client();
    let mut sockets = Sockets::start();
    sockets.connect("a", &service.url(), 4, Mode::Websocket);
    sockets.connect("b", &service.url(), 2, Mode::Polling);
    for id in ["a", "b"] {
        assert_eq!(sockets.ask(id, &json!(["subscribe", {"channel": ["live:Zürich"]}])), "ok");
        assert_eq!(sockets.told(id, "live"), json!({"channel": "live:Zürich", "rows": []}));
        assert_eq!(sockets.ask(id, &json!(["unsubscribe", "live:Zürich"])), "ok");
        assert_eq!(sockets.ask(id, &json!(["subscribe", "closed:Zürich"])), "ok");
    }
    client.post(&array([reading("Zürich", 1.0), reading("other", 2.0)])).ok();
    let closed = sockets.told("a", "closed");
    assert_eq!(closed["channel"], "closed:Zürich");
    assert_eq!((&closed["row"]["source"], &closed["row"]["count"]), (&json!("Zürich"), &json!(1)));
    assert_eq!(sockets.told("b", "closed"), closed);
    for id in ["a", "b"] {
        sockets.disconnect(id);
    }
    client.post(&reading("Zürich", 2.0)).ok();
    sockets.connect("c", &service.url(), 4, Mode::Upgrade);
    assert_eq!(sockets.ask("c", &json!(["subscribe", {"channel": "closed:Zürich", "since": closed["id"]}])), "ok");
    let mut recovered = false;
    let missed = loop {
        match sockets.next("c") {
            (event, args) if event == "recovered" => {
                assert_eq!(args, json!([{"channel": "closed:Zürich", "recovered": true}]));
                recovered = true;
            }
            (_, args) if args[0]["row"]["period"] == "1s" && args[0]["row"]["start"] != closed["row"]["start"] => {
                break args[0].clone();
            }
            (event, args) => assert_eq!((event.as_str(), &args[0]["channel"]), ("closed", &json!("closed:Zürich"))),
        }
    };
    assert!(recovered || missed["id"] != closed["id"], "{missed}");
}

/// Who wants present rows seldom hears everything else as it comes.
#[test]
fn present_rows_come_as_seldom_as_wanted() {
    let service = Service::start(On::Embedded, &["--periods", "1d"]);
    let client = service.client();
    let mut sockets = Sockets::start();
    for id in ["seldom", "often"] {
        sockets.connect(id, &service.url(), 4, Mode::Websocket);
    }
    let seldom = json!({"channel": ["live:a", "b"], "rate_ms": 3_600_000});
    assert_eq!(sockets.ask("seldom", &json!(["subscribe", seldom])), "ok");
    assert_eq!(sockets.ask("often", &json!(["subscribe", "live:a"])), "ok");
    assert_eq!(sockets.told("seldom", "live")["rows"], json!([]));
    assert_eq!(sockets.told("often", "live")["rows"], json!([]));
    for count in 1..=3 {
        client.post(&reading("a", 1.0)).ok();
        assert_eq!(sockets.told("often", "live")["rows"][0]["count"], count);
        client.publish("b", b"heard").ok();
        sockets.check_message("seldom", &json!("heard"), "b");
    }
    // What waits for its time is forgotten with the channel, and so is its time.
    assert_eq!(sockets.ask("seldom", &json!(["unsubscribe", "live:a"])), "ok");
    assert_eq!(sockets.ask("seldom", &json!(["subscribe", "live:a"])), "ok");
    assert_eq!(sockets.told("seldom", "live")["rows"][0]["count"], 3);
    let refused = sockets.ask("seldom", &json!(["subscribe", {"channel": "live:c", "rate_ms": 3_600_001}]));
    assert!(refused.starts_with("rate_ms: 3600001: it is a number of milliseconds"), "{refused}");
}

/// A client that goes on in one channel while it hears another one: nothing is lost of either.
#[test]
fn one_channel_more_with_what_was_missed_there() {
    let service = Service::start(On::Redis, &["--periods", "1h", "--grace", "50ms", "--lateness", "100ms"]);
    let client = service.client();
    let mut sockets = Sockets::start();
    sockets.connect("a", &service.url(), 4, Mode::Websocket);
    assert_eq!(sockets.ask("a", &json!(["subscribe", ["closed:a", "closed:b"]])), "ok");
    let write = |source: &str| client.post(&reading_at(source, 1.0, "2026-01-05")).ok();
    let sources = |event: &serde_json::Value| event["row"]["source"].as_str().unwrap().to_owned();
    write("b");
    let first = sockets.told("a", "closed");
    assert_eq!(sources(&first), "b");
    assert_eq!(sockets.ask("a", &json!(["unsubscribe", "closed:b"])), "ok");
    for source in ["b", "a", "b", "a"] {
        write(source);
        if source == "a" {
            assert_eq!(sources(&sockets.told("a", "closed")), "a");
        }
    }
    let more = json!({"channel": "closed:b", "since": first["id"]});
    assert_eq!(sockets.ask("a", &json!(["subscribe", more])), "ok");
    let missed = sockets.told("a", "closed");
    assert_eq!((sources(&missed), &missed["row"]["count"]), ("b".to_owned(), &json!(3)));
    assert_eq!(sockets.told("a", "recovered"), json!({"channel": "closed:b", "recovered": true}));
    for source in ["a", "b"] {
        write(source);
        assert_eq!(sources(&sockets.told("a", "closed")), source);
    }
}

/// For those who try out proxies and clients: a greeting, and back comes what was sent.
#[test]
fn a_demo_greets_and_sends_back() {
    let service = Service::start(On::Embedded, &["--demo"]);
    let mut sockets = Sockets::start();
    for (n, version) in [4, 2, 1].into_iter().enumerate() {
        for mode in [Mode::Polling, Mode::Websocket] {
            let id = format!("{n} {mode:?}");
            let instance = sockets.connect(&id, &service.url(), version, mode);
            assert_eq!(sockets.told(&id, "message"), json!(format!("hello from {instance}")));
            for message in [json!("zw\u{f6}lf"), json!({"a": [1.5, null]}), json!(7)] {
                // Clients of version 1 send other characters than ASCII in a way of their own while they poll.
                let message = if version == 1 { json!(message.to_string().replace('\u{f6}', "o")) } else { message };
                sockets.emit(&id, &json!(["message", message]));
                assert_eq!(sockets.told(&id, "message"), message);
            }
        }
    }
    let service = Service::start(On::Embedded, &[]);
    sockets.connect("none", &service.url(), 4, Mode::Websocket);
    sockets.emit("none", &json!(["message", "nobody answers"]));
    assert_eq!(sockets.ask("none", &json!(["subscribe", "a"])), "ok");
    service.client().publish("a", b"next").ok();
    sockets.check_message("none", &json!("next"), "a");
}

/// At a stop connections are closed as if the network had failed, so that clients come back by themselves.
#[test]
fn clients_come_back_after_a_stop() {
    let mut service = Service::start(On::Embedded, &[]);
    let mut sockets = Sockets::start();
    let ways = [(4, Mode::Polling), (4, Mode::Upgrade), (4, Mode::Websocket), (2, Mode::Upgrade), (1, Mode::Websocket)];
    for (n, (version, mode)) in ways.into_iter().enumerate() {
        let transports = if mode == Mode::Websocket { json!(["websocket"]) } else { json!(["polling", "websocket"]) };
        let transports = if mode == Mode::Polling { json!(["polling"]) } else { transports };
        sockets.begin(&n.to_string(), &service.url(), version, &json!({"transports": transports}));
        sockets.connected(&n.to_string(), mode);
    }
    service.stop();
    assert!(!service.log().contains("stopped with requests in flight"), "{}", service.log());
    for n in 0..ways.len() {
        let reason = sockets.next(&n.to_string());
        let lost = ["transport close", "transport error"].map(|why| ("disconnect".to_owned(), json!([why])));
        assert!(lost.contains(&reason), "{n}: {reason:?}");
    }
    service.start_again();
    for (n, (_, mode)) in ways.into_iter().enumerate() {
        let id = n.to_string();
        while sockets.next(&id).0 != "connect" {}
        while sockets.next(&id).0 != "welcome" {}
        assert_eq!(sockets.ask(&id, &json!(["subscribe", "a"])), "ok", "{mode:?}");
    }
    service.client().publish("a", b"there again").ok();
    for n in 0..ways.len() {
        let id = n.to_string();
        while sockets.next(&id) != ("message".to_owned(), json!(["there again", "a"])) {}
    }
}

#[test]
fn nothing_is_left_of_clients_that_were_killed() {
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[])];
    let mut sockets = Sockets::start();
    for (n, version) in [4, 2, 1, 4, 4, 4].into_iter().enumerate() {
        sockets.connect(&n.to_string(), &nodes[0].url(), version, Mode::Websocket);
        assert_eq!(sockets.ask(&n.to_string(), &json!(["subscribe", ["common", n.to_string()]])), "ok");
    }
    check_clients(&nodes[0].client(), "websocket", 6.0);
    sockets.kill();
    nobody_is_left(&redis, &nodes);
}

/// More than is carried out at once is refused, by name, and what was taken is carried out.
#[test]
fn a_client_that_asks_too_much() {
    let redis = RedisServer::start_durable();
    let nodes = [node(&redis, &[])];
    let mut sockets = Sockets::start();
    sockets.connect("a", &nodes[0].url(), 4, Mode::Websocket);
    assert_eq!(sockets.ask("a", &json!(["publish", "a", "x"])), "ok");
    redis.signal("STOP");
    for _ in 0..1_100 {
        sockets.begin_asking("a", &json!(["publish", "a", "x"]));
    }
    let refused = sockets.told("a", "ack");
    assert!(refused.as_str().unwrap().contains("too much at once"), "{refused}");
    redis.signal("CONT");
    while sockets.told("a", "ack") != "ok" {}
    sockets.disconnect("a");
    nobody_is_left(&redis, &nodes);
}

/// The bytes of a client of our own.
fn raw(service: &Service) -> Raw {
    Raw::connect(service.url().strip_prefix("http://").unwrap().parse().unwrap())
}

/// A text in a frame of a WebSocket, with a mask that changes nothing.
fn frame(text: &str) -> Vec<u8> {
    assert!(text.len() < 126);
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[test]
fn a_websocket_that_is_not_read() {
    const MESSAGES: usize = 6_000;
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let mut slow = raw(&service);
    slow.send(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = slow.answer().unwrap();
    assert_eq!((answer.status, answer.has("upgrade: websocket")), (101, true), "{answer:?}");
    for (packet, answer) in [("40", "40{"), (r#"421["subscribe","a"]"#, r#"431["ok"]"#)] {
        slow.send(frame(packet));
        let mut heard = String::new();
        while !heard.contains(answer) {
            heard.push(slow.byte() as char);
        }
    }
    let before = service.resident_kib();
    let text = "x".repeat(4_000);
    for _ in 0..MESSAGES {
        client.publish("a", text.as_bytes()).ok();
    }
    let grown = service.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1_024, "{grown} KiB more for one client and 24 MB of messages");
    check_clients(&client, "websocket", 1.0);
    drop(slow);
    check_clients(&client, "websocket", 0.0);
}

/// However many messages wait for a client, there is room for what the protocol has to say.
#[test]
fn a_client_that_does_not_ask() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let mut slow = raw(&service);
    let ask = |raw: &mut Raw, sid: &str| {
        raw.send(format!("GET /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: here\r\n\r\n"));
        let answer = raw.answer().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let open: serde_json::Value = serde_json::from_str(ask(&mut slow, "").strip_prefix('0').unwrap()).unwrap();
    let sid = format!("&sid={}", open["sid"].as_str().unwrap());
    let say = |raw: &mut Raw, packet: &str| {
        let length = packet.len();
        raw.send(format!(
            "POST /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n{packet}"
        ));
        assert_eq!(raw.answer().unwrap().body, "ok");
    };
    for (packet, answer) in [("40", "40{"), (r#"421["subscribe","a"]"#, r#"431["ok"]"#)] {
        say(&mut slow, packet);
        let mut heard = String::new();
        while !heard.contains(answer) {
            heard += &ask(&mut slow, &sid);
        }
    }
    for n in 0..100 {
        client.publish("a", n.to_string().as_bytes()).ok();
    }
    // Is answered by the library.
    say(&mut slow, "40/other,");
    let mut expected = (0..100).map(|n| format!(r#"42["message","{n}","a"]"#)).peekable();
    let mut listen = |raw: &mut Raw| {
        let mut others = String::new();
        for packet in ask(raw, &sid).split('\u{1e}') {
            if packet.starts_with("42") {
                assert_eq!(Some(packet), expected.next().as_deref());
            } else {
                others.push_str(packet);
            }
        }
        (others, expected.peek().is_some())
    };
    let (others, mut more) = listen(&mut slow);
    assert!(more && others.contains("Invalid namespace"), "there was no room for it: {others}");
    while more {
        more = listen(&mut slow).1;
    }
}

#[test]
fn what_is_no_client_is_told_so() {
    let service = Service::start(On::Embedded, &[]);
    let check = |path: &str, part: &str| {
        let answer = service.client().get(path);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains(part), "{path}: {answer:?}");
        assert!(answer.headers.contains_key("x-instance"), "{path}: {answer:?}");
    };
    check("/socket.io/", "Transport unknown");
    check("/socket.io/?EIO=4&transport=flash", "Transport unknown");
    check("/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA", "Session ID unknown");
    // The way of version 0.9.
    check("/socket.io/1/?t=1", "Unsupported protocol version");
}
