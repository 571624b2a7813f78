//! The error log: a panic in a handler, in an event of a socket or in a task becomes a row that an operator finds, and
//! nothing else comes of it; so does a store that is away.
//!
//! Panics are provoked at the failpoints of `failpoint::PANICS`.

use crate::events::Events;
use crate::http::{Answer, Client, array, reading};
use crate::operations::metric;
use crate::service::{On, Service, eventually};
use crate::sockets::{Mode, Sockets};
use crate::world::POLICY;
use meanwhile::clock::Clock;
use meanwhile::incidents::Incident;
use meanwhile::store::embedded::EmbeddedStore;
use meanwhile::store::errors::{ErrorLog, MAX_ERRORS};
use meanwhile::store::redis::RedisStore;
use serde_json::{Value, json};

/// A service that panics once at a failpoint.
fn service(on: On, failpoint: &str, flags: &[&str]) -> Service {
    Service::start_where(&[("MEANWHILE_FAILPOINT", &format!("{failpoint}:1"))], on, flags)
}

fn rows(client: &Client, query: &str) -> Vec<Value> {
    let log = client.get(&format!("/v1/errors{query}")).ok().json();
    log["errors"].as_array().unwrap().clone()
}

/// The one row of a view, as soon as it is there.
fn row(client: &Client, view: &str) -> Value {
    let rows = eventually(view, || {
        let rows = rows(client, &format!("?view={}", view.replace(' ', "%20")));
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].clone()
}

/// A row of a panic at a failpoint.
#[track_caller]
fn check_panic(row: &Value, failpoint: &str, file: &str) {
    assert_eq!((&row["class"], &row["message"]), (&json!("panic"), &json!(format!("the failpoint {failpoint}"))));
    assert!(row["place"].as_str().unwrap().starts_with(&format!("{file}:")), "{row}");
}

/// A 500 that says nothing of the defect but its id, which is returned.
#[track_caller]
fn check_internal(answer: &Answer) -> String {
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(!answer.body.contains("failpoint") && !answer.body.contains(".rs"), "{answer:?}");
    answer.json()["error_id"].as_str().expect("the id of the error").to_owned()
}

fn a_panic_in_a_handler(on: On) {
    let mut service = service(on, "state-asked", &["--log-format", "json"]);
    let client = service.client();
    let answer = client.get("/v1/state?source=a");
    let id = check_internal(&answer);
    // It was one request's.
    assert_eq!(client.get("/v1/state?source=a").status, 404);
    let first = row(&client, "/v1/state");
    check_panic(&first, "state-asked", "src/http/state.rs");
    assert_eq!((&first["id"], &first["count"]), (&json!(id), &json!(1)));
    assert_eq!(first["request_id"].as_str(), answer.headers.get("x-request-id").map(String::as_str));
    assert_eq!(first["instance"].as_str(), answer.headers.get("x-instance").map(String::as_str));
    assert_eq!(metric(&client, "meanwhile_errors_total{class=\"panic\"}"), Some(1.0));
    let lines = service.log();
    let line = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("every line of the log is JSON"));
    let line = line.into_iter().find(|line| line["error_id"] == json!(id)).expect("a line with the id");
    assert_eq!((&line["level"], &line["view"]), (&json!("ERROR"), &json!("/v1/state")));

    // The row is in the store, and the same error of another process is the same row.
    service.stop();
    service.start_again();
    assert_eq!(check_internal(&client.get("/v1/state?source=a")), id);
    let again =
        eventually("the error is counted", || Some(row(&client, "/v1/state")).filter(|row| row["count"] == json!(2)));
    assert_eq!(again["first_seen"], first["first_seen"]);
    assert!(again["last_seen"].as_str() > first["last_seen"].as_str(), "{again}");
    assert_ne!(again["instance"], first["instance"]);
}

#[test]
fn a_panic_in_a_handler_embedded() {
    a_panic_in_a_handler(On::Embedded);
}

#[test]
fn a_panic_in_a_handler_redis() {
    a_panic_in_a_handler(On::Redis);
}

#[test]
fn a_panic_on_another_thread_is_of_its_request() {
    let service = service(On::Embedded, "body-decoding", &[]);
    let client = service.client();
    // Large enough to be decoded elsewhere.
    let body = array((0..20_000).map(|i| reading(&format!("s{}", i % 10), 1.0)));
    let answer = client.post(&body);
    let id = check_internal(&answer);
    let row = row(&client, "/v1/readings");
    check_panic(&row, "body-decoding", "src/http/receive.rs");
    assert_eq!(
        (&row["id"], row["request_id"].as_str()),
        (&json!(id), answer.headers.get("x-request-id").map(|id| &**id))
    );
    assert_eq!(client.get("/v1/state?source=s0").status, 404, "nothing of it is counted");
    client.post(&body).ok();
}

#[test]
fn a_panic_in_a_stream_is_of_its_request() {
    let service = service(On::Embedded, "event-sent", &[]);
    let client = service.client();
    let mut events = Events::of(&service.url(), &["news"]);
    client.publish("news", b"never heard").ok();
    // The connection ends: nothing else tells a client that its answer is not whole.
    assert_eq!(events.next(), None);
    let row = row(&client, "/v1/stream");
    check_panic(&row, "event-sent", "src/http/stream.rs");
    assert!(row["request_id"].is_string(), "{row}");
    let mut events = Events::of(&service.url(), &["news"]);
    client.publish("news", b"still here").ok();
    assert_eq!(events.message("news"), "still here");
}

#[test]
fn a_panic_in_an_event_of_a_socket() {
    for (failpoint, file) in
        [("event-read", "src/http/socket/session.rs"), ("event-begun", "src/http/socket/session.rs")]
    {
        let service = service(On::Embedded, failpoint, &[]);
        let mut sockets = Sockets::start();
        sockets.connect("a", &service.url(), 4, Mode::Websocket);
        let answer = sockets.ask("a", &json!(["subscribe", "my channel"]));
        let row = row(&service.client(), "socket event subscribe");
        check_panic(&row, failpoint, file);
        assert!(answer.contains(row["id"].as_str().unwrap()) && !answer.contains("failpoint"), "{answer}");
        // The connection goes on.
        assert_eq!(sockets.ask("a", &json!(["subscribe", "my channel"])), "ok");
        service.client().publish("my%20channel", b"still here").ok();
        sockets.check_message("a", &json!("still here"), "my channel");
    }
}

#[test]
fn a_panic_in_a_session_of_a_socket() {
    let service = service(On::Embedded, "session-begun", &[]);
    let mut sockets = Sockets::start();
    sockets.begin("a", &service.url(), 4, &json!({"transports": ["websocket"]}));
    // Not left alone with a connection to which nobody listens.
    assert_eq!(sockets.next("a").0, "connect");
    assert_eq!(sockets.next("a"), ("disconnect".to_owned(), json!(["io server disconnect"])));
    check_panic(&row(&service.client(), "socket session"), "session-begun", "src/http/socket/session.rs");
    sockets.connect("b", &service.url(), 4, Mode::Websocket);
}

#[test]
fn the_error_log_does_not_depend_on_what_is_logged() {
    let mut service = Service::start(On::Redis, &["--log", "off"]);
    service.redis().kill();
    assert!(matches!(service.client().post(&reading("a", 1.0)).status, 503 | 504));
    let committer = row(&service.client(), "committer");
    assert_eq!(committer["class"], json!("store"));
    assert!(!service.log().contains("ERROR"), "{}", service.log());
}

#[test]
fn a_panic_in_the_watching_of_sources() {
    let service = service(On::Embedded, "watching", &[]);
    let mut sockets = Sockets::start();
    sockets.connect("a", &service.url(), 4, Mode::Websocket);
    assert_eq!(sockets.ask("a", &json!(["subscribe", "live:kitchen"])), "ok");
    check_panic(&row(&service.client(), "live"), "watching", "src/live/poll.rs");
    // It begins again.
    service.client().post(&reading("kitchen", 1.0)).ok();
    let live = std::iter::repeat_with(|| sockets.told("a", "live")).find(|live| live["rows"] != json!([]));
    assert_eq!(live.unwrap()["rows"][0]["count"], json!(1));
}

fn a_panic_in_the_rollover(on: On) {
    let mut service = Service::start(on, &[]);
    service.kill();
    service.start_again_until("ticking:1");
    // Nothing goes on over a dead core; what it died of is known to the next.
    assert_eq!(service.ended(), Some(1), "{}", service.log());
    service.start_again();
    let row = row(&service.client(), "rollover");
    check_panic(&row, "ticking", "src/rollover.rs");
    assert_eq!(row["request_id"], Value::Null);
}

#[test]
fn a_panic_in_the_rollover_embedded() {
    a_panic_in_the_rollover(On::Embedded);
}

#[test]
fn a_panic_in_the_rollover_redis() {
    a_panic_in_the_rollover(On::Redis);
}

#[test]
fn a_store_that_is_away_is_in_the_log_when_it_is_back() {
    let mut service = Service::start(On::Redis, &["--log-format", "json"]);
    let client = service.client();
    service.redis().kill();
    for _ in 0..3 {
        assert!(matches!(client.post(&reading("a", 1.0)).status, 503 | 504));
    }
    let away = client.get("/v1/errors?view=/v1/readings").ok().json();
    assert_eq!(away["partial"], json!(true));
    let seen: u64 = away["errors"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(seen, 3, "{away}");
    assert!(away["errors"].as_array().unwrap().iter().all(|row| row["class"] == json!("store")), "{away}");
    // A task has said so in the log, and that line is a row too.
    let committer = row(&client, "committer");
    let lines: Vec<Value> = service.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["error_id"] == committer["id"]).expect("a line with the id");
    assert_eq!((&line["view"], &line["class"]), (&json!("committer"), &json!("store")));
    assert!(line["message"].as_str().unwrap().contains("does not answer"), "{line}");

    service.redis().restart();
    let stored = eventually("the rows are in the store", || {
        let redis = service.redis();
        let stored = redis.ask(&["HGET", "mw:{0}:errors", &format!("n:{}", committer["id"].as_str().unwrap())]);
        stored.trim().parse::<u64>().ok()
    });
    assert_eq!(Some(stored), committer["count"].as_u64());
    let back = client.get("/v1/errors?view=/v1/readings").ok().json();
    assert_eq!(back["partial"], json!(false));
    let seen: u64 = back["errors"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(seen, 3, "{back}");
}

/// What clients do wrong is theirs.
#[test]
fn mistakes_of_clients_are_not_in_the_log() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    client.post("{");
    client.post(r#"{"source": "a", "value": "x"}"#);
    for path in ["/nothing", "/v1/stats?source=unknown", "/v1/stats", "/v1/errors?limit=0", "/socket.io/?EIO=9"] {
        assert!((400..500).contains(&client.get(path).status), "{path}");
    }
    assert_eq!(rows(&client, ""), [] as [Value; 0]);
    assert_eq!(service.run(&["errors"]), "");
}

/// A row as a store is given it.
pub(crate) fn incident(i: usize) -> Incident {
    let time = 1_795_150_800_000 + i64::try_from(i).unwrap() * 60_000;
    Incident {
        id: format!("{i:016x}"),
        view: if i.is_multiple_of(2) { "/v1/stats" } else { "rollover" }.to_owned(),
        class: "sink".to_owned(),
        message: format!("<b>disk</b> {i} is full"),
        place: "src/sink/csv.rs:1".to_owned(),
        request_id: None,
        instance: "cafe0001".to_owned(),
        count: 2,
        first_seen: time,
        last_seen: time + 1_000,
    }
}

/// Writes rows into the store of a service that is stopped, or runs on Redis.
pub(crate) fn write(service: &Service, rows: &[Incident]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = service.store();
        let log: Box<dyn ErrorLog> = match url.strip_prefix("embedded:") {
            Some(dir) => Box::new(EmbeddedStore::open(dir.as_ref(), POLICY, Clock::System).unwrap()),
            None => Box::new(RedisStore::connect(&url, POLICY, None).await.unwrap()),
        };
        for rows in rows.chunks(100) {
            log.note_errors(rows).await.unwrap();
        }
    });
}

fn the_log_is_bounded_and_searched(on: On) {
    let mut service = Service::start(on, &[]);
    service.kill();
    let all: Vec<Incident> = (0..MAX_ERRORS + 10).map(incident).collect();
    write(&service, &all);
    // The first ones are gone; one of the others is seen again, at an older time than is known.
    write(&service, &[Incident { last_seen: all[20].first_seen, instance: "other".to_owned(), ..all[20].clone() }]);
    service.start_again();
    let client = service.client();
    let listed = rows(&client, "");
    assert_eq!(listed.len(), MAX_ERRORS);
    let ids: Vec<&str> = listed.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(ids.iter().copied().eq(all[10..].iter().rev().map(|row| &*row.id)), "those seen last first");
    let twice = &listed[MAX_ERRORS - 11];
    assert_eq!((&twice["count"], &twice["instance"]), (&json!(4), &json!("cafe0001")));

    // Pages, and every filter.
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/errors?limit=300&view=rollover{cursor}")).ok().json();
        pages.extend(page["errors"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(pages.iter().eq(listed.iter().filter(|row| row["view"] == json!("rollover"))), "{}", pages.len());
    let found = |query: &str| rows(&client, query).len();
    assert_eq!(found("?q=DISK%3C/b%3E%20100%20is"), 1);
    assert_eq!(found("?q=v1/stats"), MAX_ERRORS / 2);
    assert_eq!(found("?q=csv.rs"), 0);
    let [from, to] = [100, 103].map(|i| listed[MAX_ERRORS - 1 - i]["first_seen"].as_str().unwrap());
    assert_eq!(found(&format!("?from={from}&to={to}")), 3);
    assert_eq!(client.get("/v1/errors?cursor=x").status, 400);

    let table = service.run(&["errors", "--view", "rollover", "--limit", "2", "--from", "2026-01-01"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[0].starts_with("last seen (UTC)") && lines[1].contains("disk</b> 1009 is full (src/sink/csv.rs:1)"),
        "{table}"
    );
    let json: Value =
        serde_json::from_str(&service.run(&["errors", "--search", "disk</b> 77 is", "--format", "json"])).unwrap();
    assert_eq!((json[0]["id"].as_str(), json.as_array().unwrap().len()), (Some(&*all[77].id), 1));
    assert_eq!(service.run(&["errors", "--to", "2020"]), "");
}

#[test]
fn the_log_is_bounded_and_searched_embedded() {
    the_log_is_bounded_and_searched(On::Embedded);
}

#[test]
fn the_log_is_bounded_and_searched_redis() {
    the_log_is_bounded_and_searched(On::Redis);
}
