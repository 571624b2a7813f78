//! What is wrong with a request is said with its status, its stable type and the reason, and nothing
//! of it is counted.
//!
//! One service for the whole table; the source every request writes to is asked after each.

use crate::http::{Answer, Client, array, reading, reading_at};
use crate::service::{On, Service};
use std::io::{Read, Write};
use std::net::TcpStream;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// A service where `a` has one reading.
fn service() -> Service {
    let service = Service::start(On::Embedded, &[]);
    service.client().post_keyed("used", &reading("a", 1.0)).ok();
    service
}

/// Type of the problem, and all it says.
fn problem(answer: &Answer) -> (String, String) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{answer:?}");
    let document = answer.json();
    assert_eq!(document["status"], answer.status);
    (document["type"].as_str().unwrap().to_owned(), answer.body.clone())
}

/// Posts readings that must be refused, and sees that nothing was counted.
#[track_caller]
fn check_with(client: &Client, body: &[u8], headers: &[(&str, &str)], query: &str, expected: (u16, &str, &str)) {
    let answer = client.try_post(query, headers, body).unwrap();
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let (kind, said) = problem(&answer);
    assert_eq!(
        (answer.status, kind.as_str()),
        (expected.0, format!("/problems/{}", expected.1).as_str()),
        "{shown}: {said}"
    );
    assert!(said.contains(expected.2), "{shown}: {said} lacks {}", expected.2);
    assert_eq!(client.total("a", "1m"), (1, 1.0), "{shown}");
}

#[test]
fn readings_that_are_refused() {
    let service = service();
    let client = service.client();
    let check = |body: &str, fragment: &str| {
        check_with(&client, body.as_bytes(), &[JSON], "", (400, "invalid-readings", fragment));
        // One bad line refuses the good ones around it too.
        let around = array([reading("a", 5.0), body.to_owned(), reading("a", 5.0)]);
        check_with(&client, around.as_bytes(), &[JSON], "", (400, "invalid-readings", fragment));
        let lines = format!("{good}\n{body}\n{good}\n", good = reading("a", 5.0));
        check_with(&client, lines.as_bytes(), &[NDJSON], "", (400, "invalid-readings", fragment));
        check_with(&client, lines.as_bytes(), &[NDJSON], "", (400, "invalid-readings", "\"line\":2"));
    };
    let value = |value: &str| format!(r#"{{"source":"a","value":{value}}}"#);
    check_with(&client, b"[5]", &[JSON], "", (400, "invalid-readings", "a reading must be an object"));
    check_with(&client, b"5\n", &[NDJSON], "", (400, "invalid-readings", "a reading must be an object"));
    check(&value("\"21.5\""), "value must be a finite number or an array of them, this is a string");
    check(&value("null"), "value must be a finite number or an array of them, this is null");
    check(&value("[1]"), "value must be a number or an array of 2 to 64, this has 1 number");
    check(&value("1e141"), "value must be a finite number of magnitude at most 1e140");
    check(&value("-1.1e140"), "value must be a finite number of magnitude at most 1e140");
    check(r#"{"source":"a"}"#, "value is missing");
    check(r#"{"value":1}"#, "source is missing");
    check(r#"{"source":5,"value":1}"#, "source must be a string, this is a number");
    check(r#"{"source":"","value":1}"#, "source is empty");
    check(&reading(&"é".repeat(150), 1.0), "source has 300 bytes, at most 256 are allowed");
    check(r#"{"source":"a\u0007","value":1}"#, "control character U+0007");
    check(&reading("group:a", 1.0), "reserved for groups");
    check(r#"{"source":"a","value":1,"unit":"C"}"#, r#"unknown field \"unit\""#);
    check(r#"{"source":"a","value":1,"value":2}"#, "value is given twice");
    let at = |time: &str| format!(r#"{{"source":"a","value":1,"timestamp":{time}}}"#);
    let now = meanwhile::clock::Clock::System.now();
    check(&at("31556952000000000000"), "ahead of the service's clock, at most 5 minutes are allowed");
    check(&reading_at("a", 1.0, "+1000000000-01-01T00:00:00Z"), "timestamp is neither RFC 3339");
    check(&at(&(now + 6 * 60_000).to_string()), "ahead of the service's clock, at most 5 minutes are allowed");
    check(&at(&(now / 1_000).to_string()), "?precision=s");
    check(&at("\"yesterday\""), "timestamp is neither RFC 3339");
    check(&at("-99999999999999"), "before the year 1900");
}

#[test]
fn bodies_that_cannot_be_read() {
    let service = service();
    let client = service.client();
    let check = |body: &[u8], headers: &[(&str, &str)], query: &str, expected: (u16, &str, &str)| {
        check_with(&client, body, headers, query, expected);
    };
    let unreadable = |fragment| (400, "unreadable-body", fragment);
    check(b"hello", &[JSON], "", unreadable("the body is not valid JSON"));
    check(br#"[{"source":"a","value":NaN}]"#, &[JSON], "", unreadable("the body is not valid JSON"));
    check(br#"[{"source":"a","value":Infinity}]"#, &[JSON], "", unreadable("the body is not valid JSON"));
    check(br#"[{"source":"a","value":1e999}]"#, &[JSON], "", unreadable("number out of range"));
    check(br#"{"source":"a","value":1}{"#, &[JSON], "", unreadable("trailing characters"));
    check(b"[{\"source\":\"a\xff\",\"value\":1}]", &[JSON], "", unreadable("UTF-8"));
    // Cut off, after a reading that was whole.
    check(br#"[{"source":"a","value":1},{"sou"#, &[JSON], "", unreadable("EOF"));
    // Deep enough for a stack, if one were used.
    let (down, up) = ("[".repeat(20_000), "]".repeat(20_000));
    check(down.as_bytes(), &[JSON], "", unreadable("EOF"));
    check(format!("{down}{up}").as_bytes(), &[JSON], "", (400, "invalid-readings", "must be an object"));
    let deep = format!(r#"{{"source":"a","value":{down}{up}}}"#);
    check(
        deep.as_bytes(),
        &[JSON],
        "",
        (400, "invalid-readings", "value must be an array of numbers, this has an array in it"),
    );
    check(
        deep.as_bytes(),
        &[NDJSON],
        "",
        (400, "invalid-readings", "value must be an array of numbers, this has an array in it"),
    );
    let lines = (400, "invalid-readings", "the line is not JSON");
    check(br#"{"source":"a","value":NaN}"#, &[NDJSON], "", lines);
    check(br#"{"source":"a","value":1e999}"#, &[NDJSON], "", (400, "invalid-readings", "number out of range"));

    let one = format!("{}\n", reading("a", 1.0));
    let large = one.repeat((16 << 20) / one.len() + 1);
    check(large.as_bytes(), &[NDJSON], "", (413, "body-too-large", "16 MiB"));
    check(large.as_bytes(), &[JSON], "", (413, "body-too-large", "16 MiB"));

    let one = one.as_bytes();
    check(one, &[("Content-Type", "text/plain")], "", (415, "unsupported-content-type", "application/json"));
    check(one, &[NDJSON, ("Content-Encoding", "br")], "", (415, "unsupported-content-encoding", "br"));
    check(one, &[JSON, ("Idempotency-Key", "a b")], "", (400, "invalid-header", "visible ASCII"));
    check(one, &[JSON, ("Idempotency-Key", &"k".repeat(256))], "", (400, "invalid-header", "1 to 255"));
    check(one, &[JSON, ("Idempotency-TTL", "8d")], "", (400, "invalid-header", "at most 7d"));
    check(one, &[JSON, ("Idempotency-Key", "used")], "", (422, "key-reused", "nothing was counted"));
    check(one, &[JSON], "?precision=m", (400, "invalid-parameter", "write s, ms, us or ns"));
    check(one, &[JSON], "?precison=s", (400, "invalid-parameter", "precison: "));
}

/// A client that announces more than it sends, and hangs up.
#[test]
fn a_body_that_breaks_off_counts_nothing() {
    let service = service();
    let mut stream = TcpStream::connect(service.url().trim_start_matches("http://")).unwrap();
    let lines = format!("{}\n", reading("a", 1.0)).repeat(100);
    let head = "POST /v1/readings HTTP/1.1\r\nHost: here\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(format!("{head}{lines}").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_default();
    assert!(!answer.contains("200 OK"), "{answer}");
    assert_eq!(service.client().total("a", "1m"), (1, 1.0));
}

#[test]
fn bad_lines_can_be_skipped() {
    let service = service();
    let client = service.client();
    let lines = format!("{good}\nnonsense\n{good}\n{{\"source\":\"a\"}}\n", good = reading("a", 1.0));
    let answer = client.try_post("?on_error=skip", &[NDJSON], lines.as_bytes()).unwrap().ok().json();
    assert_eq!((&answer["accepted"], &answer["skipped"]), (&2.into(), &2.into()));
    let bad: Vec<u64> = answer["errors"].as_array().unwrap().iter().map(|e| e["line"].as_u64().unwrap()).collect();
    assert_eq!(bad, [2, 4]);
    assert_eq!(client.total("a", "1m"), (3, 3.0));
}
