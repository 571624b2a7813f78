//! The whole service on the Postgres sink: the same rows as in CSV files, the same answers, and outages of
//! the server, during which readings are taken and after which the rows are exactly right.
//!
//! What single calls on the sink do is in `sink_contract.rs` and `postgres_faults.rs`.

use crate::http::{array, reading, reading_at};
use crate::operations::metric;
use crate::outages::{Writers, keyed};
use crate::postgres_server::{Database, PASSWORD, PostgresServer};
use crate::service::{On, Service, eventually};
use crate::weather;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Buckets that are written as soon as they are over, and closed soon after.
const SHORT: [&str; 6] = ["--periods", "1s,1m,1h", "--grace", "50ms", "--lateness", "100ms"];

fn start(on: On, database: &Database, flags: &[&str]) -> Service {
    let url = database.url();
    let service = Service::start(on, &[&["--sink", &url], flags].concat());
    assert!(!service.log().contains(PASSWORD), "{}", service.log());
    service
}

/// Count and sum of a source over the rows of a period.
fn total(database: &Database, period: &str, source: &str) -> String {
    let sum =
        format!("SELECT sum(count), sum(sum) FROM bucket_stats WHERE period = '{period}' AND source = '{source}'");
    database.sql(&sum)
}

fn closed(service: &Service) -> Option<()> {
    let ready = service.client().get("/readyz").ok().json();
    (ready["rollover"]["open_buckets"] == 0).then_some(())
}

const COLUMNS: [&str; 9] = ["end", "count", "mean", "var_pop", "var_samp", "min", "max", "sum", "sum_sq"];

/// What a row says, numbers as bits, by period, source and start.
type Rows = BTreeMap<(String, String, String), Vec<String>>;

fn bits(cell: &str) -> String {
    cell.parse::<f64>().map_or_else(|_| cell.to_owned(), |x| format!("{:016x}", x.to_bits()))
}

/// The newest lines in the files of a service that is stopped.
fn in_files(sink: &Path) -> Rows {
    let mut rows = Rows::new();
    for period in ["1m", "1h", "1d", "1mo"] {
        for day in std::fs::read_dir(sink.join(format!("period={period}"))).unwrap() {
            // Later lines are newer, and those of the tail newer than the others.
            let files = ["rows.csv", "tail.csv"].map(|name| day.as_ref().unwrap().path().join(name));
            for file in files.iter().filter(|file| file.exists()) {
                for record in csv::Reader::from_path(file).unwrap().deserialize() {
                    let record: BTreeMap<String, String> = record.unwrap();
                    let mut cells: Vec<String> = COLUMNS.iter().map(|name| bits(&record[*name])).collect();
                    cells.push(record["state"].clone());
                    rows.insert((period.to_owned(), record["source"].clone(), record["start"].clone()), cells);
                }
            }
        }
    }
    rows
}

fn in_table(database: &Database) -> Rows {
    let said = database.sql(
        "SET TimeZone = 'UTC'; SELECT period, source, to_char(bucket_start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
         to_char(bucket_end, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), count, mean, var_pop, var_samp, min, max, sum, sum_sq, \
         encode(state, 'hex') FROM bucket_stats",
    );
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::to_owned);
        let mut next = || cells.next().unwrap();
        let key = (next(), next(), next());
        let mut values: Vec<String> = COLUMNS.iter().map(|_| bits(&next())).collect();
        values.push(next());
        (key, values)
    };
    said.lines().map(row).collect()
}

/// Rows of an answer without what is different in every run.
fn answer(service: &Service, source: &str, period: &str) -> Vec<Value> {
    let mut rows = service.client().rows(source, period);
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|name, _| name != "generation" && name != "revision");
    }
    rows
}

fn weather_has_equal_rows(on: On) {
    let flags = ["--periods", "1m,1h,1d,1mo", "--timezone", "Europe/Berlin", "--grace", "200ms", "--lateness", "1s"];
    let database = Database::new();
    let (table, mut files) = (start(on, &database, &flags), Service::start(on, &flags));
    let dir = tempfile::tempdir().unwrap();
    let (file, months) = weather::table(dir.path());
    for service in [&table, &files] {
        weather::import(service, &file);
    }
    for service in [&table, &files] {
        eventually("everything is closed", || closed(service));
    }
    for (source, period) in
        [("berlin.wind", "1mo"), ("lisbon.temp_max", "1d"), ("lisbon.temp_min", "1h"), ("berlin.wind", "1y")]
    {
        assert_eq!(answer(&table, source, period), answer(&files, source, period), "{source} {period}");
    }
    let sources = |service: &Service| service.client().get("/v1/sources").ok().json();
    assert_eq!(sources(&table), sources(&files));
    files.stop();
    let (expected, got) = (in_files(&files.sink()), in_table(&database));
    let days: usize = months.values().map(Vec::len).sum();
    assert_eq!(expected.len(), 3 * days + months.len(), "one per minute, hour and day with a reading, and per month");
    assert_eq!(expected.len(), got.len());
    for (key, row) in &expected {
        assert_eq!(got.get(key), Some(row), "{key:?}");
    }
    assert!(!table.log().contains("ERROR") && !table.log().contains(PASSWORD), "{}", table.log());
}

#[test]
fn weather_has_equal_rows_embedded() {
    weather_has_equal_rows(On::Embedded);
}

#[test]
fn weather_has_equal_rows_redis() {
    weather_has_equal_rows(On::Redis);
}

#[test]
fn the_server_is_away_and_comes_back() {
    let mut server = PostgresServer::start(&[]);
    let database = server.database();
    let service = start(On::Embedded, &database, &SHORT);
    let client = service.client();
    let mut posted = 0;
    let mut post = || {
        client.post(&reading("a", 1.0)).ok();
        posted += 1;
        posted
    };
    post();
    eventually("a row is written", || (total(&database, "1s", "a") == "1|1").then_some(()));
    eventually("it is closed", || (client.rows("a", "1s")[0]["state"] == "closed").then_some(()));
    assert_eq!(metric(&client, "meanwhile_sink_usable"), Some(1.0));
    server.kill();
    post();
    eventually("the outage is said", || service.log().contains("the rollover waits").then_some(()));
    assert!(
        service.log().contains("is PostgreSQL running there") && !service.log().contains(PASSWORD),
        "{}",
        service.log()
    );
    let ready = client.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("Connection refused") && !ready.body.contains(PASSWORD), "{ready:?}");
    client.get("/readyz?exclude=sink").ok();
    assert_eq!(metric(&client, "meanwhile_sink_usable"), Some(0.0));
    assert!(metric(&client, "meanwhile_rollover_errors_total{side=\"sink\"}") >= Some(1.0));
    for _ in 0..20 {
        post();
    }
    let page = client.get("/v1/stats?source=a&period=1s").ok().json();
    assert_eq!(page["partial"], true, "{page}");
    let counted: u64 = page["rows"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 21, "what the store still has");

    server.restart();
    let all = post();
    eventually("all rows are written", || (total(&database, "1s", "a") == format!("{all}|{all}")).then_some(()));
    eventually("it is ready again", || (client.get("/readyz").status == 200).then_some(()));
    assert_eq!(client.total("a", "1s"), (all, all as f64));
    assert_ne!(client.get("/v1/stats?source=a&period=1s").ok().json()["partial"], true);
    assert_eq!(database.sql("SELECT count(*) FROM dead_letters"), "0");
}

/// Kills of the server and of the service while clients post, then the exact sum.
fn kills_of_both(on: On) {
    let mut server = PostgresServer::start(&[]);
    let database = server.database();
    let mut service = start(on, &database, &SHORT);
    let writers = Writers::start(&service, keyed);
    for round in 0..4 {
        writers.wait_for(200);
        server.kill();
        writers.wait_for(200);
        if round % 2 == 0 {
            service.kill();
            service.start_again();
        }
        server.restart();
    }
    writers.wait_for(50);
    let batches = writers.finish();
    eventually("all rows are written", || {
        (total(&database, "1s", "a") == format!("{batches}|{batches}")).then_some(())
    });
    assert_eq!(service.client().total("a", "1h"), (batches, batches as f64));
    assert!(!service.log().contains("went back"), "{}", service.log());
}

#[test]
fn kills_of_both_embedded() {
    kills_of_both(On::Embedded);
}

#[test]
fn kills_of_both_redis() {
    kills_of_both(On::Redis);
}

#[test]
fn a_service_may_start_before_its_server() {
    let mut server = PostgresServer::start(&[]);
    let database = server.database();
    server.kill();
    let service = start(On::Embedded, &database, &SHORT);
    let log = service.log();
    assert!(
        log.contains("the sink postgres://***@127.0.0.1") && log.contains("is away, finished buckets wait"),
        "{log}"
    );
    let client = service.client();
    let ready = client.get("/readyz");
    assert_eq!(ready.status, 503, "before anything is to be written");
    assert!(ready.body.contains("Connection refused") && !ready.body.contains(PASSWORD), "{ready:?}");
    assert_eq!(metric(&client, "meanwhile_sink_usable"), Some(0.0));
    client.get("/readyz?exclude=sink").ok();
    client.post(&reading("a", 1.0)).ok();
    server.restart();
    eventually("the tables are made and the row is written", || {
        let made = database.sql("SELECT to_regclass('bucket_stats') IS NOT NULL") == "t";
        (made && total(&database, "1s", "a") == "1|1").then_some(())
    });
}

#[test]
fn a_server_that_comes_late_is_seen_without_a_reading() {
    let server = PostgresServer::start(&[]);
    let database = server.database();
    server.signal("STOP");
    let service = start(On::Embedded, &database, &SHORT);
    assert_eq!(service.client().get("/readyz").status, 503, "while it is waited for again");
    server.signal("CONT");
    eventually("it is ready", || (service.client().get("/readyz").status == 200).then_some(()));
    assert_eq!(metric(&service.client(), "meanwhile_sink_usable"), Some(1.0));
    assert_eq!(database.sql("SELECT to_regclass('bucket_stats') IS NOT NULL"), "t");
    assert!(service.log().contains("the sink is there"), "{}", service.log());
}

#[test]
fn a_restart_of_the_server_is_not_noticed() {
    let mut server = PostgresServer::start(&[]);
    let database = server.database();
    let service = start(On::Embedded, &database, &["--grace", "50ms", "--lateness", "100ms"]);
    let client = service.client();
    for minute in 0..3 {
        client.post(&reading_at("a", 1.0, &format!("2026-01-01T00:0{minute}:00Z"))).ok();
        let expected = format!("{0}|{0}", minute + 1);
        eventually("the row is written", || (total(&database, "1m", "a") == expected).then_some(()));
        assert_eq!(client.total("a", "1m").0, minute + 1);
        eventually("everything is closed", || closed(&service));
        server.kill();
        server.restart();
    }
    assert!(!service.log().contains("ERROR"), "{}", service.log());
}

#[test]
fn refused_rows_are_alarmed_and_the_others_go_on() {
    let database = Database::new();
    let service = start(On::Embedded, &database, &["--grace", "50ms", "--lateness", "100ms", "--periods", "1m"]);
    let client = service.client();
    assert_eq!(metric(&client, "meanwhile_rollover_rows_refused_total"), Some(0.0));
    database.sql("ALTER TABLE bucket_stats ADD CONSTRAINT plausible CHECK (max < 100)");
    let time = "2026-01-01T00:00:00Z";
    client.post(&array((0..30).map(|n| reading_at(&format!("s{n}"), if n == 7 { 1_000.0 } else { 1.0 }, time)))).ok();
    eventually("the others are written", || (database.sql("SELECT count(*) FROM bucket_stats") == "29").then_some(()));
    eventually("it is counted", || {
        metric(&client, "meanwhile_rollover_rows_refused_total").filter(|rows| *rows == 1.0)
    });
    let log = service.log();
    assert!(log.contains("ERROR") && log.contains("source=\"s7\"") && log.contains("plausible"), "{log}");
    eventually("its bucket is closed", || closed(&service));
    assert_eq!(database.sql("SELECT source, max FROM dead_letters"), "s7|1000");
}
