//! Whole requests: headers, query strings, cursors, compressed bodies, through all the routes of a service.
//!
//! Whatever comes is answered, with a status that says whose fault it is: never 500. The same request in
//! pieces has the same answer. Bodies by themselves are in `bodies.rs`; what HTTP itself may be is in
//! `smuggling.rs`.

use super::corpus::{cut, id, input, kept, replay, run, text};
use super::inside::Services;
use axum::http::{HeaderValue, Uri};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;

const WORDS: &[&str] = &[
    "source=a",
    "source=",
    "period=",
    "from=",
    "to=",
    "limit=",
    "cursor=",
    "format=",
    "prefix=",
    "time=",
    "values=",
    "precision=",
    "on_error=",
    "&",
    "=",
    "%",
    "%00",
    "%FF",
    "%c3%bc",
    "+",
    "%2B",
    "{",
    "}",
    "%7B",
    "%7D",
    "1h",
    "1mo",
    "1y",
    "7m",
    "0",
    "-1",
    "1",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "2026-11-20",
    "2026-11-20T05:00:00Z",
    "T",
    "ff",
    "61",
    "0000019ff8f3c2000000019ff8f4ac60",
    "7fffffffffffffff",
    "8000000000000000",
    "skip",
    "refuse",
    "json",
    "csv",
    "now",
    "s",
    "ns",
    ",",
    "v",
    "t",
];
const BODY: &[&str] = &[
    "{\"source\":\"a\",\"value\":1}",
    "\n",
    "[",
    "]",
    ",",
    "source,value\n",
    "a,1\n",
    "t,s,v\n",
    "1e400",
    "\"",
    "\r\n",
];
const COMPRESSED: &[&str] = &["\x1f", "\0", "\x01", "\x7f", "source,value\n", "a,1\n", "("];

const TYPES: &[&str] = &[
    "application/json",
    "application/x-ndjson",
    "text/csv",
    "TEXT/CSV; x",
    "application/x-www-form-urlencoded",
    "text/plain",
];

/// Text with all but some bytes percent-encoded.
fn percent(text: &str, plain: impl Fn(u8) -> bool) -> String {
    text.bytes().fold(String::new(), |mut text, byte| {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
        text
    })
}

/// As a client writes it: what no request line can hold is percent-encoded.
fn encoded(query: &str) -> String {
    percent(query, |byte| byte.is_ascii_graphic() && !b"#\"<>`\\^|".contains(&byte))
}

/// The path and query, if hyper would take them.
fn uri(path: &str, query: &str) -> Option<String> {
    let uri = format!("{path}?{}", encoded(query));
    uri.parse::<Uri>().is_ok().then_some(uri)
}

fn look(services: &Services, query: &str, accept: &str) {
    for path in ["/v1/stats", "/v1/sources", "/v1/state", "/", "/v1/readings", "/x"] {
        let Some(uri) = uri(path, query) else { continue };
        let (status, body) = services.with(|inside| inside.ask("GET", &uri, &[("accept", accept.as_bytes())], vec![]));
        assert!(matches!(status, 200 | 400 | 404 | 405), "{uri}: {status} {body}");
        // A cursor that was given leads on.
        let next = serde_json::from_str::<Value>(&body).ok().and_then(|page| page["next"].as_str().map(str::to_owned));
        if let (200, Some(next)) = (status, next) {
            let rest: Vec<&str> =
                uri.split_once('?').unwrap().1.split('&').filter(|p| !p.starts_with("cursor=")).collect();
            let uri = format!("{path}?{}&cursor={next}", rest.join("&"));
            assert_eq!(services.with(|inside| inside.ask("GET", &uri, &[], vec![])).0, 200, "{uri}");
        }
    }
}

#[test]
fn kept_queries_are_answered() {
    let services = Services::new();
    replay("queries", |query| {
        let query = String::from_utf8_lossy(query);
        look(&services, &query, "*/*");
        let table: [&[u8]; 2] = [b"t,s,v,w\n2026-", b"11-19,a,1,2\n"];
        post(&services, &query, &[("content-type", b"text/csv")], &table.concat(), &table);
    });
}

#[test]
fn any_query_is_answered() {
    let services = Services::new();
    let accept = select(&["*/*", "text/csv", "application/json;q=0,text/plain;q=1e9", ";;,q", "", "a/b;q=-1", "*"][..]);
    run((text("queries", WORDS), accept), |(query, accept)| look(&services, &query, accept));
}

/// Posts a body twice, whole and cut: the answers are the same, or the second one is a duplicate.
fn post(services: &Services, query: &str, headers: &[(&str, &[u8])], body: &[u8], pieces: &[&[u8]]) {
    let Some(uri) = uri("/v1/readings", query) else { return };
    services.with(|inside| {
        let (status, whole) = inside.ask("POST", &uri, headers, vec![body]);
        assert!(matches!(status, 200 | 400 | 413 | 415 | 422), "{status} {whole}");
        let (again, cut) = inside.ask("POST", &uri, headers, pieces.to_vec());
        // Of two faults, in the text and in how it is compressed, either may be seen first.
        if [&whole, &cut].iter().any(|answer| answer.contains("not valid gzip") || answer.contains("not valid zstd"))
            && (status, again) != (200, 200)
        {
            assert!(status != 200 && again != 200, "{whole} or {cut}");
            return;
        }
        assert_eq!(again, status, "{whole} or {cut}");
        let [mut whole, cut] = [whole, cut].map(|answer| serde_json::from_str::<Value>(&answer).unwrap());
        let keyed = headers.iter().any(|(name, _)| *name == "idempotency-key");
        if keyed && status == 200 && whole["accepted"] != 0 {
            assert_eq!(cut["duplicate"], true, "{whole} then {cut}");
            whole["duplicate"] = true.into();
        }
        assert_eq!(whole, cut);
    });
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn kept_bodies_are_answered_alike_however_they_are_sent() {
    let services = Services::new();
    replay("bodies", |body| {
        for content_type in TYPES.iter().map(|name| name.as_bytes()) {
            let plain = [("content-type", content_type)];
            let (first, rest) = body.split_at(body.len().min(1));
            post(&services, "on_error=skip", &plain, body, &[first, rest]);
            post(&services, "", &plain, body, &body.chunks(body.len() / 7 + 1).collect::<Vec<_>>());
            let (zipped, headers) = (gzip(body), [plain[0], ("content-encoding", b"gzip")]);
            post(&services, "", &headers, &zipped, &zipped.chunks(zipped.len() / 7 + 1).collect::<Vec<_>>());
        }
    });
}

#[test]
fn kept_compressed_bodies_are_answered_alike_however_they_are_cut() {
    let services = Services::new();
    replay("compressed", |body| {
        for encoding in [b"gzip", b"zstd"] {
            let headers: [(&str, &[u8]); 2] = [("content-type", b"text/csv"), ("content-encoding", encoding)];
            let Some(uri) = uri("/v1/readings", "on_error=skip") else { return };
            let whole = services.with(|inside| inside.ask("POST", &uri, &headers, vec![body]));
            for place in (0..=body.len()).step_by(body.len() / 200 + 1) {
                let cut =
                    services.with(|inside| inside.ask("POST", &uri, &headers, vec![&body[..place], &body[place..]]));
                assert_eq!(cut, whole, "cut at {place}");
            }
        }
    });
}

#[test]
fn any_request_is_answered_and_the_same_in_pieces() {
    let services = Services::new();
    let keys: Vec<Vec<u8>> = kept("texts").into_iter().map(|(_, text)| text).collect();
    // What a header cannot hold does not come so far.
    let value = |values: Vec<Vec<u8>>| {
        prop::option::weighted(
            0.3,
            select(values).prop_filter_map("a header", |value| HeaderValue::from_bytes(&value).ok().map(|_| value)),
        )
    };
    let headers = (select(TYPES), value(keys.clone()), value(keys));
    let body = prop_oneof![
        input("bodies", BODY).prop_map(|body| (body, "identity")),
        input("bodies", BODY).prop_map(|body| (gzip(&body), "gzip")),
        input("bodies", BODY).prop_map(|body| (zstd::encode_all(&body[..], 1).unwrap(), "zstd")),
        input("compressed", COMPRESSED).prop_map(|body| (body, "gzip")),
        input("compressed", COMPRESSED).prop_map(|body| (body, "zstd")),
    ];
    let query =
        prop_oneof![2 => Just(String::new()), 1 => Just("on_error=skip".to_owned()), 1 => text("queries", WORDS)];
    run(
        (headers, query, body, vec(any::<Index>(), 0..4)),
        |((content_type, key, ttl), query, (body, encoding), places)| {
            let mut headers: Vec<(&str, &[u8])> = vec![("content-type", content_type.as_bytes())];
            if encoding != "identity" {
                headers.push(("content-encoding", encoding.as_bytes()));
            }
            headers.extend(key.iter().map(|key| ("idempotency-key", key.as_slice())));
            headers.extend(ttl.iter().map(|ttl| ("idempotency-ttl", ttl.as_slice())));
            post(&services, &query, &headers, &body, &cut(&body, &places));
        },
    );
}

#[test]
fn every_id_that_is_accepted_can_be_asked_for() {
    let services = Services::new();
    run(id(), |id| {
        services.with(|inside| {
            let reading = serde_json::json!({"source": id, "value": 1}).to_string();
            let json: [(&str, &[u8]); 1] = [("content-type", b"application/json")];
            assert_eq!(inside.ask("POST", "/v1/readings", &json, vec![reading.as_bytes()]).0, 200);
            let asked = percent(&id, |_| false);
            for path in ["state?", "stats?period=1d&"] {
                let (status, body) = inside.ask("GET", &format!("/v1/{path}source={asked}"), &[], vec![]);
                let named = serde_json::to_string(&id).unwrap();
                assert!(status == 200 && body.contains(&named), "{path} {id:?}: {status} {body}");
            }
        });
    });
}
