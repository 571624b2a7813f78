//! What somebody does in the first minutes: posts a reading, brings in the sample data, looks at it
//! in every format, and makes the usual mistakes.
//!
//! The commands run as in a shell: what counts is standard output, standard error and exit status.

use crate::http::reading;
use crate::service::{On, Service, command};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.csv");
const LINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/greenhouses.ndjson");

fn import_table(service: &Service) -> Output {
    let words = ["import", TABLE, "--time", "time", "--timezone", "UTC", "--source", "{greenhouse}.{column}"];
    service.command(&words).args(["--values", "temperature,humidity"]).output().unwrap()
}

/// Exit status and standard error of a command.
fn failure(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn one_reading(on: On) {
    let service = Service::start(on, &[]);
    let client = service.client();
    // As `curl -d` sends it, and with a type.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    client.try_post("", &form, reading("kitchen", 21.5).as_bytes()).unwrap().ok();
    let answer = client.post(&reading("kitchen", 22.5)).ok().json();
    assert_eq!(answer, serde_json::json!({"accepted": 1, "duplicate": false, "durability": "disk"}));

    // The two may have met the end of a minute, or of a day.
    for period in ["1m", "1h", "1d"] {
        assert_eq!(client.total("kitchen", period), (2, 44.0), "{period}");
    }
    let sources = service.run(&["sources"]);
    assert!(sources.contains("kitchen"), "{sources}");
    let state = service.run(&["state", "kitchen"]);
    assert!(state.lines().next().unwrap().contains("sum_sq"), "{state}");
    let counts: u64 = state.lines().skip(1).map(|life| cell(life, 3)).sum();
    assert_eq!(counts, 2, "{state}");
}

fn cell(line: &str, at: usize) -> u64 {
    line.split_whitespace().nth(at).unwrap().parse().unwrap()
}

#[test]
fn one_reading_embedded() {
    one_reading(On::Embedded);
}

#[test]
fn one_reading_redis() {
    one_reading(On::Redis);
}

fn sample_data(on: On) {
    let service = Service::start(on, &["--grace", "200ms"]);
    let imported = import_table(&service);
    let said = String::from_utf8(imported.stderr).unwrap();
    assert!(imported.status.success() && imported.stdout.is_empty(), "{said}");
    assert!(said.contains("576 lines, 1,146 readings accepted, 6 empty cells skipped"), "{said}");
    let again = String::from_utf8(import_table(&service).stderr).unwrap();
    assert!(again.contains("1,146 of them had been counted already"), "{again}");

    let day = ["query", "north.temperature", "--period", "1d", "--from", "2026-06-01", "--to", "2026-06-04"];
    let ask = |format: &str| service.run(&[&day[..], &["--format", format]].concat());
    let table = ask("table");
    assert!(table.starts_with("start (UTC)  count"), "{table}");
    assert_eq!(table.lines().skip(1).map(|row| cell(row, 1)).collect::<Vec<_>>(), [96; 3], "{table}");
    let json: Vec<Value> = serde_json::from_str(&ask("json")).unwrap();
    let csv = ask("csv");
    let mut csv = csv::Reader::from_reader(csv.as_bytes());
    let header: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(header[..5], ["source", "period", "start", "end", "count"]);
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let records: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    let text = ask("text");
    assert_eq!((json.len(), records.len(), text.lines().count()), (3, 3, 3));
    for ((row, record), line) in json.iter().zip(&records).zip(text.lines()) {
        assert_eq!(record[column("mean")].parse::<f64>().ok(), row["mean"].as_f64());
        assert_eq!(line, format!("north.temperature, {}, {}", &record[column("mean")], &record[column("var_pop")]));
    }

    let sources: Vec<Value> = serde_json::from_str(&service.run(&["sources", "--format", "json"])).unwrap();
    let ids: Vec<&str> = sources.iter().map(|source| source["source"].as_str().unwrap()).collect();
    assert_eq!(ids, ["north.humidity", "north.temperature", "south.humidity", "south.temperature"]);
    assert_eq!(service.run(&["sources", "--prefix", "south.t"]).lines().count(), 2);

    // The noon hours once more, under other keys.
    service.run(&["import", LINES]);
    let count = |source: &str| service.client().total(source, "1d").0;
    let counts = ids.iter().map(|id| count(id)).sum::<u64>();
    assert_eq!(counts, 1_146 + 48);
}

#[test]
fn sample_data_embedded() {
    sample_data(On::Embedded);
}

#[test]
fn sample_data_redis() {
    sample_data(On::Redis);
}

/// `meanwhile query ... | head -1`
#[test]
fn a_closed_pipe_is_no_error() {
    let service = Service::start(On::Embedded, &[]);
    import_table(&service);
    let words = ["query", "north.temperature", "north.humidity", "--period", "1m", "--from", "2026-06-01"];
    let mut query = service.command(&words);
    let mut query = query.args(["--format", "csv"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    // What a pipe and this buffer take together is less than what is printed.
    BufReader::new(query.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("source,period,start"), "{first}");
    let mut said = String::new();
    query.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((query.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let service = Service::start(On::Embedded, &[]);
    service.client().post(&reading("kitchen", 21.5)).ok();
    let check = |command: Command, code: i32, fragment: &str| {
        let words = format!("{command:?}");
        let (got, said) = failure(command);
        assert_eq!(got, Some(code), "{words}: {said}");
        assert!(said.contains(fragment), "{words}: {said}");
    };
    let mut nobody = command(&["query", "kitchen"]);
    nobody.env("MEANWHILE_URL", "http://127.0.0.1:1");
    check(nobody, 1, "no server at http://127.0.0.1:1: start one with `meanwhile serve` or set MEANWHILE_URL");
    check(service.command(&["query", "kichen"]), 1, "did you mean kitchen?");
    check(service.command(&["query", "kitchen", "--period", "7m"]), 2, "7m");
    check(service.command(&["query", "kitchen", "--period", "90s"]), 1, "1m");
    check(service.command(&["query", "kitchen", "--from", "soon"]), 2, "2026-11-20T05:00:00Z");
    check(service.command(&["query"]), 2, "<SOURCE>");
    check(service.command(&["import", "nothing.csv"]), 1, "nothing.csv");
    check(service.command(&["import", TABLE]), 1, "say --source TEMPLATE --values COLS");
    check(service.command(&["serve", "--store", "redis:/x"]), 2, "redis://HOST:PORT");
    let dir = tempfile::tempdir().unwrap();
    let sink = format!("csv:{}", dir.path().display());
    let nowhere = ["serve", "--store", "redis://127.0.0.1:1", "--sink", &sink, "--listen", "127.0.0.1:0"];
    check(service.command(&nowhere), 1, "127.0.0.1:1");
    check(service.command(&["serve", "--listen", service.url().trim_start_matches("http://")]), 1, "--listen chooses");
}
