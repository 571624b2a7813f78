//! Ids that mean something to a shell, a path, a query, a page, a spreadsheet, a log or a terminal: each comes back
//! through both stores, both sinks and every format as it was sent, and is nothing but text on its way.

use crate::events::Events;
use crate::http::array;
use crate::postgres_server::Database;
use crate::service::{On, Service};
use crate::sink_files;
use serde_json::{Value, json};
use std::path::Path;

const TIME: &str = "2026-03-02T10:17:00Z";

const IDS: [&str; 28] = [
    "../../etc/passwd",
    "/absolute",
    "..",
    "C:\\windows\\system32",
    "period=1m/date=2026-03-02",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1:A9)",
    "'guarded",
    "\u{feff}marked",
    "a,b;c",
    "\"quoted\"",
    "'; DROP TABLE bucket_stats; --",
    "%s%n%00%0d%0a",
    "{source}{{0}}",
    "$(reboot)`reboot`${HOME}",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\\u0000\\n",
    "s:field",
    "mw:meta",
    "w:0011",
    "live:kitchen",
    "kitchen level=error forged=\"yes\"",
    "\u{202e}gnp.exe",
    "*",
    " ",
];

/// With control characters, which no id may have.
const REFUSED: [&str; 5] =
    ["x\n2026-03-02T10:17:00Z ERROR forged", "} 1\nmeanwhile_up 0", "\u{1b}[31mred", "a\0b", "\rover"];

fn encoded(id: &str) -> String {
    id.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

/// Everything that can be asked about them.
fn come_back(service: &Service) {
    let client = service.client();
    let all = array(IDS.map(|id| json!({"source": id, "value": 1.5, "timestamp": TIME}).to_string()));
    client.post(&all).ok();
    for id in REFUSED {
        assert_eq!(client.post(&json!({"source": id, "value": 1}).to_string()).status, 400, "{id:?}");
    }
    let check = || {
        let known = client.get("/v1/sources").ok().json();
        let mut expected = IDS;
        expected.sort_unstable();
        let known: Vec<_> = known["sources"].as_array().unwrap().iter().map(|span| span["source"].clone()).collect();
        assert_eq!(known, expected);
        for id in IDS {
            let rows = client.rows(&encoded(id), "1m");
            assert_eq!((rows.len(), &rows[0]["source"], &rows[0]["count"]), (1, &json!(id), &json!(1)), "{id:?}");
            let path = format!("/v1/stats?period=1m&source={}&format=", encoded(id));
            let table = client.get(&format!("{path}csv")).ok().body;
            let mut reader = csv::Reader::from_reader(table.as_bytes());
            let record = reader.records().next().unwrap().unwrap();
            assert_eq!(meanwhile::stats::source::from_cell(&record[0]), id, "{table}");
            assert!(!record[0].starts_with(['=', '+', '-', '@']), "{table}");
            let line: Value = serde_json::from_str(&client.get(&format!("{path}ndjson")).ok().body).unwrap();
            assert_eq!(line["source"], id);
            let said = service.run(&["query", "--period", "1m", "--format", "json", "--", id]);
            assert!(said.contains(&json!(id).to_string()), "{said}");
        }
    };
    check();
    service.run(&["drain"]);
    check();
    client.post(&all).ok();
    service.run(&["drain"]);
    for id in IDS {
        assert_eq!(client.total(&encoded(id), "1d"), (2, 3.0), "{id:?}");
    }
    let mut events = Events::of(&service.url(), &[&format!("live:{}", encoded(IDS[0]))]);
    assert_eq!(events.next().unwrap().data["channel"], format!("live:{}", IDS[0]));
    let metrics = client.get("/metrics").ok().body;
    assert!(!IDS.iter().any(|id| id.len() > 2 && metrics.contains(*id)), "no id is a label:\n{metrics}");
    assert!(!service.log().lines().any(|line| line.starts_with(" level=error")), "{}", service.log());
}

/// Names of the files below, with their directories.
fn files(directory: &Path) -> Vec<String> {
    let below = |path: std::path::PathBuf| {
        if path.is_dir() { files(&path) } else { vec![path.to_str().unwrap().to_owned()] }
    };
    std::fs::read_dir(directory).unwrap().flat_map(|entry| below(entry.unwrap().path())).collect()
}

fn in_files(on: On) {
    let mut service = Service::start(on, &["--hold", "0s"]);
    come_back(&service);
    service.stop();
    let sink = service.sink();
    for id in IDS {
        let cell = meanwhile::stats::source::to_cell(id);
        assert!(!cell.starts_with(['=', '+', '-', '@']), "a spreadsheet would take it for a formula: {cell}");
        let total = sink_files::total(&sink, "1d", &cell).0;
        assert_eq!(total, 2, "{id:?}");
    }
    let mut names = files(&sink);
    names.sort();
    let tail = |period| format!("period={period}/date=2026-03-02/tail.csv");
    let ours = [".lock", ".zone", &tail("1d"), &tail("1h"), &tail("1m"), "sources.csv"];
    assert_eq!(names, ours.map(|name| sink.join(name).to_str().unwrap().to_owned()));
}

#[test]
fn ids_are_only_text_in_files_embedded() {
    in_files(On::Embedded);
}

#[test]
fn ids_are_only_text_in_files_redis() {
    in_files(On::Redis);
}

#[test]
fn ids_are_only_text_in_a_table() {
    let database = Database::new();
    come_back(&Service::start(On::Redis, &["--hold", "0s", "--sink", &database.url()]));
    let rows = database.sql("SELECT source FROM bucket_stats WHERE period = '1d' ORDER BY source COLLATE \"C\"");
    let mut expected = IDS;
    expected.sort_unstable();
    assert_eq!(rows.trim_end(), expected.join("\n").trim_end());
}
