//! Who may listen and speak while he stays connected: over Socket.IO and on streams, until his token ends.

use crate::events::Events;
use crate::servers::RedisServer;
use crate::service::{On, Service};
use crate::sockets::{Mode, Sockets};
use crate::tokens::Tokens;
use serde_json::{Value, json};
use std::fs;

fn start(tokens: &Tokens, flags: &[&str]) -> Service {
    Service::start(On::Embedded, &[&["--auth-file", &tokens.flag()], flags].concat())
}

fn options(token: &str) -> Value {
    json!({"transports": ["websocket"], "reconnection": false, "auth": {"token": token}})
}

/// A client of today with a token.
fn connect(sockets: &mut Sockets, id: &str, service: &Service, token: &str) {
    sockets.begin(id, &service.url(), 4, &options(token));
    sockets.connected(id, Mode::Websocket);
}

/// Waits until the service has read a token that may not query.
fn known(service: &Service, token: &str) {
    let header = format!("Bearer {token}");
    crate::service::eventually("the token is known", || {
        let answer = service.client().ask("GET", "/v1/sources", &[("Authorization", &header)], "");
        (answer.status == 403).then_some(())
    });
}

#[test]
fn tokens_come_in_every_way_clients_have() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "live"]);
    tokens.create_user("ann", "correct horse", &["--scope", "live"]);
    let service = start(&tokens, &[]);
    let mut sockets = Sockets::start();
    let header = |token: &str| json!({"extraHeaders": {"Authorization": format!("Bearer {token}")}});
    let ways = [
        (4, json!({"auth": {"token": token}})),
        (4, json!({"auth": {"user": "ann", "password": "correct horse"}})),
        (4, header(&token)),
        (4, json!({"query": {"token": token}})),
        (2, json!({"query": {"token": token}})),
        (1, json!({"query": format!("token={token}")})),
    ];
    for (n, (version, way)) in ways.iter().enumerate() {
        for (mode, transport) in [(Mode::Polling, "polling"), (Mode::Websocket, "websocket")] {
            let id = format!("{n}{transport}");
            let mut options = way.clone();
            options["transports"] = json!([transport]);
            sockets.begin(&id, &service.url(), *version, &options);
            sockets.connected(&id, mode);
            assert_eq!(sockets.ask(&id, &json!(["subscribe", "news"])), "ok");
            sockets.disconnect(&id);
        }
    }
    let wrong = [
        (4, json!({})),
        (4, json!({"auth": {"token": "mw_wrong"}})),
        (4, json!({"auth": {"user": "ann", "password": "wrong horse"}})),
        (4, json!({"auth": {"user": "ann"}})),
        (4, header("mw_wrong")),
        (4, json!({"query": {"token": "mw_wrong"}})),
        (2, json!({})),
    ];
    for (n, (version, way)) in wrong.iter().enumerate() {
        let id = format!("wrong{n}");
        let mut options = way.clone();
        options["reconnection"] = false.into();
        options["transports"] = json!(["polling"]);
        sockets.begin(&id, &service.url(), *version, &options);
        let (event, said) = sockets.next(&id);
        assert!(matches!(event.as_str(), "connect_error" | "error"), "{way}: {event} {said}");
    }
    let log = service.log();
    assert!(!log.contains(&token) && !log.contains("mw_wrong") && !log.contains("horse"), "{log}");
}

#[test]
fn only_its_own_channels() {
    let tokens = Tokens::new();
    let flags = ["--scope", "live,publish", "--channels", "news*", "--channels", "live:*", "--sources", "green*"];
    let token = tokens.create("board", &flags);
    let service = start(&tokens, &[]);
    let mut sockets = Sockets::start();
    connect(&mut sockets, "a", &service, &token);
    for (event, channel, allowed) in [
        ("subscribe", "news1", true),
        ("subscribe", "old", false),
        ("subscribe", "live:green1", true),
        ("subscribe", "live:red", false),
        ("subscribe", "closed:green1", false),
        ("subscribe", "user:bob", false),
        ("subscribe", "user:board", true),
        ("unsubscribe", "news1", true),
        ("unsubscribe", "old", false),
        ("publish", "old", false),
        ("publish", "user:bob", false),
    ] {
        let words = if event == "publish" { json!([event, channel, "x"]) } else { json!([event, channel]) };
        let said = sockets.ask("a", &words);
        let refused = said.contains(&format!("the channel \"{channel}\" is not among those"));
        assert_eq!((said == "ok", refused), (allowed, !allowed), "{event} {channel}: {said}");
    }
    // All that a pattern stands for has to be its own.
    let flags = ["--scope", "live", "--channels", "closed:*", "--sources", "green*"];
    let patterns = tokens.create("patterns", &flags);
    known(&service, &patterns);
    connect(&mut sockets, "p", &service, &patterns);
    for (channel, allowed) in
        [("closed:green*", true), ("closed:greenhouse/?", true), ("closed:gree*", false), ("closed:*", false)]
    {
        let said = sockets.ask("p", &json!(["subscribe", channel]));
        assert_eq!((said == "ok", said.contains("not among")), (allowed, !allowed), "{channel}: {said}");
    }
    sockets.emit("a", &json!(["subscribe", ["news2", "old"]]));
    let refused = loop {
        // Rows of the source come meanwhile.
        let (event, args) = sockets.next("a");
        if event == "refused" {
            break args[0].clone();
        }
        assert_eq!(event, "live");
    };
    assert_eq!(refused["event"], "subscribe");
    // All of them or none.
    assert_eq!(sockets.ask("a", &json!(["publish", "news2", "x"])), "ok");
    assert!(sockets.ask("a", &json!(["publish", "user:board", "y"])).contains("not among"));
}

#[test]
fn one_reaches_another_on_another_instance() {
    let tokens = Tokens::new();
    let ann = tokens.create("ann", &["--scope", "publish", "--channels", "user:*"]);
    let bob = tokens.create("bob", &["--scope", "publish", "--channels", "user:ann"]);
    let redis = RedisServer::start_durable();
    let node = |flags: &[&str]| {
        let flag = tokens.flag();
        let given = ["--store", &redis.url(), "--auth-file", &flag];
        Service::start_beside(&[&given[..], flags].concat(), &[])
    };
    let nodes = [node(&[]), node(&["--role", "ingest"])];
    let mut sockets = Sockets::start();
    connect(&mut sockets, "ann", &nodes[0], &ann);
    connect(&mut sockets, "bob", &nodes[1], &bob);
    assert_eq!(sockets.ask("ann", &json!(["publish", "user:bob", "hello"])), "ok");
    sockets.check_message("bob", &json!("hello"), "user:bob");
    assert_eq!(sockets.ask("bob", &json!(["publish", "user:ann", "yes?"])), "ok");
    sockets.check_message("ann", &json!("yes?"), "user:ann");
    assert!(sockets.ask("bob", &json!(["publish", "user:eve", "x"])).contains("not among"));
    assert!(sockets.ask("bob", &json!(["subscribe", "user:ann"])).contains("not among"));
}

#[test]
fn rights_that_go_are_gone_where_one_is_connected() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "live", "--channels", "a", "--channels", "b"]);
    let service = start(&tokens, &[]);
    let mut sockets = Sockets::start();
    connect(&mut sockets, "s", &service, &token);
    assert_eq!(sockets.ask("s", &json!(["subscribe", ["a", "b"]])), "ok");
    let mut stream = Events::of(&service.url(), &["a", &format!("b&token={token}")]);
    let text = fs::read_to_string(tokens.path()).unwrap();
    fs::write(tokens.path(), text.replace(r#"["a", "b"]"#, r#"["b"]"#)).unwrap();
    let refused = sockets.told("s", "refused");
    assert_eq!(refused["reason"], "the channel \"a\" is not among those this token may listen to");
    let refused = stream.next().unwrap();
    assert_eq!((refused.name.as_str(), &refused.data["channel"]), ("refused", &json!("a")));
    let publisher = tokens.create("speaker", &["--scope", "publish"]);
    let publish = |channel: &str| {
        let header = format!("Bearer {publisher}");
        crate::service::eventually("the speaker is known", || {
            let headers = [("Authorization", header.as_str())];
            let answer = service.client().ask("POST", &format!("/v1/publish?channel={channel}"), &headers, "x");
            (answer.status == 200).then_some(())
        });
    };
    publish("a");
    publish("b");
    sockets.check_message("s", &json!("x"), "b");
    assert_eq!(stream.message("b"), "x");

    tokens.revoke("board");
    let refused = sockets.told("s", "refused");
    assert_eq!(refused["event"], "connect", "{refused}");
    assert_eq!(sockets.next("s"), ("disconnect".to_owned(), json!(["io server disconnect"])));
    assert_eq!(stream.next().unwrap().name, "refused");
    assert!(stream.next().is_none(), "it is over");
}

#[test]
fn a_token_that_ends_ends_its_connections() {
    let tokens = Tokens::new();
    let service = start(&tokens, &[]);
    let token = tokens.create("short", &["--scope", "live", "--expires", "8s"]);
    known(&service, &token);
    let mut sockets = Sockets::start();
    connect(&mut sockets, "s", &service, &token);
    assert_eq!(sockets.ask("s", &json!(["subscribe", "a"])), "ok");
    let refused = sockets.told("s", "refused");
    assert!(refused["reason"].as_str().unwrap().contains("expired"), "{refused}");
    assert_eq!(sockets.next("s").0, "disconnect");
}

#[test]
fn who_listens_to_nothing_does_not_stay() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "live"]);
    let service = start(&tokens, &["--live-idle", "500ms"]);
    let mut sockets = Sockets::start();
    let idle = |sockets: &mut Sockets, id: &str| {
        assert_eq!(sockets.told(id, "refused")["event"], "idle");
        assert_eq!(sockets.next(id).0, "disconnect");
    };
    connect(&mut sockets, "never", &service, &token);
    idle(&mut sockets, "never");
    sockets.begin("left", &service.url(), 4, &options(&token));
    sockets.emit("left", &json!(["subscribe", ["a", "b"]]));
    sockets.connected("left", Mode::Websocket);
    // Longer than the time above: another one comes and goes.
    connect(&mut sockets, "another", &service, &token);
    idle(&mut sockets, "another");
    assert_eq!(sockets.ask("left", &json!(["unsubscribe", "a"])), "ok");
    assert_eq!(sockets.ask("left", &json!(["unsubscribe", "b"])), "ok");
    idle(&mut sockets, "left");

    // Where nobody is asked, nobody is sent away.
    let open = Service::start(On::Embedded, &["--live-idle", "1ms"]);
    sockets.connect("open", &open.url(), 4, Mode::Websocket);
    assert_eq!(sockets.ask("open", &json!(["subscribe", "a"])), "ok");
}

#[test]
fn streams_ask_too() {
    let tokens = Tokens::new();
    let token = tokens.create("board", &["--scope", "live", "--channels", "a*"]);
    let query = tokens.create("query", &["--scope", "query"]);
    let service = start(&tokens, &[]);
    let client = service.client();
    let check = |path: &str, token: Option<&str>, status: u16| {
        let header = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> = header.iter().map(|header| ("Authorization", header.as_str())).collect();
        let answer = client.ask("GET", path, &headers, "");
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    };
    check("/v1/stream?channel=a", None, 401);
    check("/v1/stream?channel=a&token=mw_wrong", None, 401);
    check("/v1/stream?channel=b", Some(&token), 403);
    check(&format!("/v1/stream?channel=a&channel=b&token={token}"), None, 403);
    check("/v1/stream?channel=a", Some(&query), 403);
    let mut stream = Events::of(&service.url(), &["user:query", &format!("user:query&token={query}")]);
    let speaker = format!("Bearer {}", tokens.create("speaker", &["--scope", "publish"]));
    crate::service::eventually("the speaker is known", || {
        let headers = [("Authorization", speaker.as_str())];
        (client.ask("POST", "/v1/publish?channel=user:query", &headers, "psst").status == 200).then_some(())
    });
    assert_eq!(stream.message("user:query"), "psst", "what is one's own needs no scope");
}
