//! The ways of a reading into the service: tables and lines, as they are and compressed, say the same,
//! and what is refused is refused whole.
//!
//! Compares with what the same readings come to as NDJSON. The command `import` is in `imports.rs`.

use crate::http::{Answer, Client};
use crate::seeded::Seeded;
use crate::service::{On, Service};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;

const CSV: (&str, &str) = ("Content-Type", "text/csv");
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const GZIP: (&str, &str) = ("Content-Encoding", "gzip");
const ZSTD: (&str, &str) = ("Content-Encoding", "zstd");
const MIB: usize = 1 << 20;
/// `{place}.{column}`, as a client has to write it.
const BY_PLACE: &str = "source=%7Bplace%7D.%7Bcolumn%7D";

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}

fn post(client: &Client, query: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    client.try_post(query, headers, body.as_ref()).unwrap()
}

/// All rows of a source without what depends on when it was asked.
fn rows(client: &Client, source: &str) -> Vec<Value> {
    let mut rows = client.rows(source, "1h");
    for row in &mut rows {
        for volatile in ["source", "state", "generation", "revision"] {
            row.as_object_mut().unwrap().remove(volatile);
        }
    }
    rows
}

fn narrow_and_wide_tables(on: On) {
    let service = Service::start(on, &["--timezone", "Europe/Berlin"]);
    let client = service.client();
    let narrow = "\u{feff}timestamp,value,source\r\n2026-11-01T04:00:00Z,21.5,kitchen\r\n1793505600,22.5,kitchen\r\n\"2026-11-01\",-1e-3,\"out, \"\"side\"\"\"\r\n";
    let answer = post(&client, "?precision=s", &[CSV], narrow).ok().json();
    assert_eq!(answer, serde_json::json!({"accepted": 3, "duplicate": false, "durability": "disk"}));
    assert_eq!(client.total("kitchen", "1h"), (2, 44.0));
    let outside = &client.rows("out,%20%22side%22", "1h")[0];
    assert_eq!((&outside["start"], &outside["mean"]), (&"2026-10-31T23:00:00Z".into(), &(-0.001).into()));

    let wide = "date,place,temp_max,temp_min,note\n2026-07-01,berlin,25.5,,x\n2026-07-02,berlin,27.5,12,\n";
    let query = format!("?time=date&{BY_PLACE}&values=temp_max,temp_min");
    let answer = post(&client, &query, &[CSV], wide).ok().json();
    assert_eq!(answer, serde_json::json!({"accepted": 3, "duplicate": false, "durability": "disk", "skipped": 1}));
    assert_eq!(client.total("berlin.temp_max", "1d"), (2, 53.0));
    assert_eq!(client.total("berlin.temp_min", "1d"), (1, 12.0));
}

#[test]
fn narrow_and_wide_tables_embedded() {
    narrow_and_wide_tables(On::Embedded);
}

#[test]
fn narrow_and_wide_tables_redis() {
    narrow_and_wide_tables(On::Redis);
}

#[test]
fn tables_that_are_refused_count_nothing() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let check = |query: &str, body: &[u8], status: u16, kind: &str, fragments: &[&str]| {
        let answer = post(&client, query, &[CSV], body);
        let document = answer.json();
        assert_eq!((answer.status, &document["type"]), (status, &format!("/problems/{kind}").into()), "{answer:?}");
        for fragment in fragments {
            assert!(document.to_string().contains(fragment), "{answer:?} lacks {fragment}");
        }
        assert_eq!(client.get("/v1/sources").ok().json()["sources"], serde_json::json!([]), "{query}");
    };
    let invalid = |query: &str, body: &str, fragments: &[&str]| {
        check(query, body.as_bytes(), 400, "invalid-readings", fragments);
    };
    let wide = format!("?time=t&{BY_PLACE}&values=v,w");
    invalid("", "source,value\na,1\n\nb,x\n", &[r#""line":4"#, r#""field":"value""#, "is not a finite number"]);
    invalid("", "source,value\na,1\nb\n", &[r#""line":3"#, "the row has 1 cell, the header has 2"]);
    invalid("", "source,value\na,1\nb,\"2\nc,3\n", &[r#""line":3"#, "a quote is left open"]);
    invalid(&wide, "t,place,v,w\n2026-07-01,a,1,x\n", &[r#""line":2"#, r#""field":"w""#]);
    invalid(&wide, "t,place,v,w\nsoon,a,1,2\n", &[r#""field":"t""#, "timestamp is neither RFC 3339"]);
    invalid(&wide, "t,place,v,w\n,a,1,2\n", &["every row needs its time"]);
    check("", b"source,value\n\xff,1\n", 400, "invalid-readings", &["the row is not UTF-8"]);
    let unreadable = |query: &str, body: &str, fragments: &[&str]| {
        check(query, body.as_bytes(), 400, "unreadable-body", fragments);
    };
    unreadable("", "a,b\n1,2\n", &["source,value[,timestamp]", "?source=TEMPLATE&values=COLUMNS", r#""line":1"#]);
    unreadable("", "source,value,time\na,1,2026-07-01\n", &["none of source,value,timestamp"]);
    unreadable("?on_error=skip", "source;value\na;1\n", &["separated by commas"]);
    unreadable(&wide, "t,place,v\n", &[r#"there is no column \"w\""#]);
    let parameter = |query: &str, fragment: &str| {
        check(query, b"source,value\na,1\n", 400, "invalid-parameter", &[fragment]);
    };
    parameter("?source=a", "values=COLUMNS beside source");
    parameter("?source=%7Ba&values=v", "belongs to no {column}");
    parameter("?values=v&source=a&time=t&time=u", "given more than once");
    let answer = post(&client, "?time=t", &[JSON], "{\"source\":\"a\",\"value\":1}");
    assert!(answer.status == 400 && answer.body.contains("text/csv"), "{answer:?}");
    let large = "source,value\n".to_owned() + &"a,1\n".repeat(200_001);
    check("", large.as_bytes(), 413, "too-many-readings", &["200000"]);
    let large = "source,value\n".to_owned() + &"\n".repeat(16 * MIB);
    check("", large.as_bytes(), 413, "body-too-large", &["16 MiB"]);
}

#[test]
fn bad_rows_can_be_skipped() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let query = format!("?on_error=skip&time=t&{BY_PLACE}&values=v,w");
    let rows = "t,place,v,w\n2026-07-01,a,1,x\n2026-07-01,a,,3\nsoon,a,5,6\n2026-07-01,a,7,8\n";
    let answer = post(&client, &query, &[CSV], rows).ok().json();
    assert_eq!((&answer["accepted"], &answer["skipped"]), (&4.into(), &3.into()), "{answer}");
    let errors: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|e| (e["line"].clone(), e["field"].clone())).collect();
    assert_eq!(errors, [(2.into(), "w".into()), (4.into(), "t".into())]);
    assert_eq!((client.total("a.v", "1d"), client.total("a.w", "1d")), ((2, 8.0), (2, 11.0)));
}

#[test]
fn late_rows_are_refused_by_line() {
    let service = Service::start(On::Embedded, &["--late", "refuse"]);
    let client = service.client();
    let now = meanwhile::clock::Clock::System.now();
    let table = format!("t,v,w\n{now},1,2\n2024-02-29,3,4\n2024-02-29,,5\n{now},6,\n");
    let answer = post(&client, "?time=t&source=%7Bcolumn%7D&values=v,w", &[CSV], table).ok().json();
    let line = |line: u64| serde_json::json!({"line": line, "code": "too_late"});
    assert_eq!(answer["rejected"], serde_json::json!([line(3), line(3), line(4)]), "{answer}");
    assert_eq!((&answer["accepted"], &answer["skipped"]), (&3.into(), &2.into()));
    assert_eq!((client.total("v", "1d").0, client.total("w", "1d").0), (2, 1));
}

/// The same random readings as lines, as a narrow table and as a wide one, cut by the network and
/// compressed in different ways.
#[test]
fn tables_come_to_what_the_same_readings_as_lines_come_to() {
    let service = Service::start(On::Embedded, &["--periods", "1h"]);
    let client = service.client();
    let places = ["north", "a, b", "\"q\"", "zwei\nZeilen ü"];
    for seed in 0..12 {
        let mut seeded = Seeded::new(seed);
        let id = |way: &str, place: u64, column: &str| format!("{seed}/{way}/{place}.{column}");
        let (mut lines, mut narrow) = (String::new(), "value,timestamp,source\n".to_owned());
        let mut wide = "u,when,place,note,v,w\n".to_owned();
        let (mut readings, mut empty) = (0, 0);
        for _ in 0..seeded.below(1_000) {
            let (place, day, hour) = (seeded.below(4), seeded.below(28) + 1, seeded.below(24));
            let time = format!("2026-08-{day:02}T{hour:02}:{:02}:00Z", seeded.below(60));
            // A cell that must be quoted and means nothing.
            write!(wide, "x,{time},{place},\"{}\"", places[place as usize].replace('"', "\"\"")).unwrap();
            for column in ["v", "w"] {
                if seeded.below(5) == 0 {
                    wide.push(',');
                    empty += 1;
                    continue;
                }
                let exponent = seeded.below(60) as i32 - 30;
                let value = (seeded.below(1 << 53) as f64 - (1_u64 << 52) as f64) * f64::from(exponent).exp2();
                write!(wide, ", {value:e}").unwrap();
                let (line_id, narrow_id) = (id("lines", place, column), id("narrow", place, column));
                writeln!(lines, r#"{{"source":"{line_id}","value":{value},"timestamp":"{time}"}}"#).unwrap();
                write!(narrow, "{value},{time},{narrow_id}\r\n").unwrap();
                readings += 1;
            }
            wide.push_str(if seeded.below(2) == 0 { "\n" } else { "\r\n\r\n" });
        }
        let (lines, narrow, wide) = (lines.into_bytes(), narrow.into_bytes(), wide.into_bytes());
        let template = format!("?time=when&values=v,w&source={seed}/wide/%7Bplace%7D.%7Bcolumn%7D");
        let encoded = |headers: &[(&str, &str)], query: &str, body: &[u8], way: u64| match way {
            0 => post(&client, query, headers, body),
            1 => post(&client, query, &[headers, &[GZIP]].concat(), gzip(body)),
            _ => post(&client, query, &[headers, &[ZSTD]].concat(), zstd(body)),
        };
        for (headers, query, body) in [([NDJSON], "", &lines), ([CSV], "", &narrow), ([CSV], &template, &wide)] {
            let answer = encoded(&headers, query, body, seeded.below(3)).ok().json();
            assert_eq!(answer["accepted"], readings, "{query}: {answer}");
            let skipped = if query.is_empty() { 0 } else { empty };
            assert_eq!(answer["skipped"].as_u64().unwrap_or(0), skipped, "{answer}");
        }
        if readings == 0 {
            continue;
        }
        for (place, column) in (0..4).flat_map(|place| ["v", "w"].map(|column| (place, column))) {
            let [lines, narrow, wide] = ["lines", "narrow", "wide"].map(|way| rows(&client, &id(way, place, column)));
            assert!(!lines.is_empty() && lines == narrow && lines == wide, "seed {seed}, {place}.{column}");
        }
    }
}

#[test]
fn a_repetition_may_be_compressed_otherwise() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let body = b"source,value\na,1\na,2\n";
    let key = ("Idempotency-Key", "k");
    let duplicate = |headers: &[(&str, &str)], body: &[u8]| {
        post(&client, "", &[headers, &[CSV, key]].concat(), body).ok().json()["duplicate"].clone()
    };
    assert_eq!(duplicate(&[GZIP], &gzip(body)), false);
    assert_eq!(duplicate(&[ZSTD], &zstd(body)), true);
    assert_eq!(duplicate(&[], body), true);
    let other = post(&client, "", &[GZIP, CSV, key], gzip(b"source,value\na,1\na,3\n"));
    assert_eq!((other.status, other.json()["type"].as_str()), (422, Some("/problems/key-reused")));
    assert_eq!(client.total("a", "1d"), (2, 3.0));
}

#[test]
fn compressed_bodies_that_are_refused_count_nothing() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let check = |headers: &[(&str, &str)], body: &[u8], expected: (u16, &str, &str)| {
        let answer = post(&client, "", headers, body);
        let kind = answer.json()["type"].as_str().unwrap().to_owned();
        assert_eq!((answer.status, kind), (expected.0, format!("/problems/{}", expected.1)), "{answer:?}");
        assert!(answer.body.contains(expected.2), "{answer:?} lacks {}", expected.2);
        assert_eq!(client.get("/v1/sources").ok().json()["sources"], serde_json::json!([]));
        answer
    };
    let lines = "{\"source\":\"a\",\"value\":1}\n".repeat(1_000).into_bytes();
    let (zipped, packed) = (gzip(&lines), zstd(&lines));
    check(&[NDJSON, GZIP], &lines, (400, "unreadable-body", "not valid gzip"));
    check(&[NDJSON, ZSTD], &lines, (400, "unreadable-body", "not valid zstd"));
    check(&[NDJSON, GZIP], &zipped[..zipped.len() - 4], (400, "unreadable-body", "cut off"));
    check(&[NDJSON, ZSTD], &packed[..packed.len() - 4], (400, "unreadable-body", "cut off"));
    check(&[JSON, GZIP], b"", (400, "unreadable-body", "cut off"));
    let refused = check(&[NDJSON, ("Content-Encoding", "br")], &lines, (415, "unsupported-content-encoding", "br"));
    assert_eq!(refused.headers["accept-encoding"], "gzip, zstd");
    // What cannot be compressed is bounded as it is sent.
    let mut seeded = Seeded::new(1);
    let noise: Vec<u8> = (0..(17 * MIB) / 8).flat_map(|_| seeded.below(u64::MAX).to_le_bytes()).collect();
    check(&[NDJSON, GZIP], &gzip(&noise), (413, "body-too-large", "more than 16 MiB:"));
}

/// A thousand times as large as what is sent: it is stopped at the limit, and was never in memory.
#[test]
fn bombs_are_stopped_without_being_held() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    // The header of a table, then 1 GiB of spaces in several members.
    let bomb = |compress: fn(&[u8]) -> Vec<u8>| {
        [compress(b"source,value\n"), compress(&vec![b' '; 32 * MIB]).repeat(32)].concat()
    };
    let bombs = [(GZIP, bomb(gzip)), (ZSTD, bomb(zstd))];
    // The first request of each kind pays for buffers that stay.
    post(&client, "", &[NDJSON, GZIP], gzip(b"{\"source\":\"a\",\"value\":1}\n")).ok();
    post(&client, "", &[NDJSON, ZSTD], zstd(b"{\"source\":\"a\",\"value\":1}\n")).ok();
    let before = service.peak_kib();
    for (encoding, bomb) in &bombs {
        assert!(1_000 * bomb.len() < 1_024 * MIB);
        for content_type in [NDJSON, CSV] {
            let answer = post(&client, "", &[content_type, *encoding], bomb);
            assert_eq!((answer.status, answer.json()["type"].as_str()), (413, Some("/problems/body-too-large")));
            assert!(answer.body.contains("more than 64 MiB after decompression"), "{answer:?}");
        }
    }
    let held = service.peak_kib() - before;
    println!("two bombs of 1 GiB, as lines and as rows: {before} KiB before, {held} KiB more at most");
    assert!(held < 32 * 1024, "{held} KiB");
    for (encoding, bomb) in &bombs {
        let answer = post(&client, "", &[JSON, *encoding], bomb);
        assert!(answer.status == 413 && answer.body.contains("more than 16 MiB after decompression"), "{answer:?}");
    }
    println!("and as an array: {} KiB more at most", service.peak_kib() - before);
    assert_eq!(client.total("a", "1d").0, 2);
}
