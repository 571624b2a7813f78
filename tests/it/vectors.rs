//! Readings that are arrays of numbers, from a request to the rows: what they are worth in every period, with both
//! stores and both sinks, sent twice, late, in any order and around a kill; and what a change of the length is told.

use crate::exact_rows::Sink;
use crate::http::array;
use crate::seeded::Seeded;
use crate::service::{On, Service, eventually};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive};
use serde_json::Value;
use std::collections::BTreeMap;

const SHORT: [&str; 6] = ["--periods", "1m,1h,1d", "--grace", "100ms", "--lateness", "1s"];

fn vector(source: &str, values: &[f64], time: &str) -> String {
    serde_json::json!({"source": source, "value": values, "timestamp": time}).to_string()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// Sees that a row has the mean, the extremes and the sum of these readings to the bit, and their covariances within
/// 1e-11, relative to the standard deviations of the two components.
fn check_row(row: &Value, readings: &[Vec<f64>]) {
    let n = BigRational::from_integer(BigInt::from(readings.len()));
    let rational = |x: f64| BigRational::from_float(x).unwrap();
    let d = readings[0].len();
    let mean: Vec<BigRational> =
        (0..d).map(|i| readings.iter().map(|r| rational(r[i])).sum::<BigRational>() / &n).collect();
    assert_eq!(row["count"], readings.len());
    assert_eq!(numbers(&row["mean"]), mean.iter().map(|x| x.to_f64().unwrap()).collect::<Vec<_>>());
    let fold = |of: fn(f64, f64) -> f64, i: usize| readings.iter().map(|r| r[i]).reduce(of).unwrap();
    assert_eq!(numbers(&row["min"]), (0..d).map(|i| fold(f64::min, i)).collect::<Vec<_>>());
    assert_eq!(numbers(&row["max"]), (0..d).map(|i| fold(f64::max, i)).collect::<Vec<_>>());
    let covar = |i: usize, j: usize| {
        readings.iter().map(|r| (rational(r[i]) - &mean[i]) * (rational(r[j]) - &mean[j])).sum::<BigRational>() / &n
    };
    let variances: Vec<BigRational> = (0..d).map(|i| covar(i, i)).collect();
    for i in 0..d {
        for (j, x) in numbers(&row["covar_pop"][i]).into_iter().enumerate() {
            let off = rational(x) - covar(i, j);
            let limit = &variances[i] * &variances[j] / BigRational::from_integer(BigInt::from(10).pow(22));
            assert!((&off * &off).abs() <= limit, "covar_pop[{i}][{j}] is {x}");
        }
    }
    assert_eq!(numbers(&row["var_pop"]), (0..d).map(|i| row["covar_pop"][i][i].as_f64().unwrap()).collect::<Vec<_>>());
}

/// Shuffled, in requests that are sent twice, with a kill between; in the row of every period, open and closed.
fn every_reading_counts_once(on: On, sink: &Sink) {
    const READINGS: usize = 400;
    let mut service = sink.start(on, &SHORT);
    let mut seeded = Seeded::new(5);
    let mut readings: Vec<(Vec<f64>, usize)> = (0..READINGS)
        .map(|i| {
            let (a, b) = (seeded.below(1_000) as f64 / 1e3, seeded.below(1_000) as f64 / 1e3);
            (vec![1.75e9 + a, 1e7 - a + b / 10.0, b, 1013.25 + a * b / 1e3], i % 7)
        })
        .collect();
    for i in (1..READINGS).rev() {
        readings.swap(i, seeded.below(i as u64 + 1) as usize);
    }
    let time = |minute: usize| format!("2026-03-02T10:{:02}:30Z", minute * 9);
    for (n, batch) in readings.chunks(50).enumerate() {
        let body = array(batch.iter().map(|(values, minute)| vector("a", values, &time(*minute))));
        for duplicate in [false, true] {
            let answer = service.client().post_keyed(&format!("batch-{n}"), &body).ok().json();
            assert_eq!((&answer["accepted"], &answer["duplicate"]), (&50.into(), &duplicate.into()), "{answer}");
        }
        if n == 4 {
            service.kill();
            service.start_again();
        }
    }
    let all: Vec<Vec<f64>> = readings.iter().map(|(values, _)| values.clone()).collect();
    let check = |when: &str| {
        let rows: BTreeMap<_, _> =
            ["1h", "1d"].into_iter().map(|period| (period, service.client().rows("a", period))).collect();
        for (period, rows) in rows {
            assert_eq!(rows.len(), 1, "{period} {when}");
            check_row(&rows[0], &all);
        }
        let minutes = service.client().rows("a", "1m");
        for (minute, row) in minutes.iter().enumerate() {
            let of: Vec<_> = readings.iter().filter(|(_, m)| *m == minute).map(|(values, _)| values.clone()).collect();
            check_row(row, &of);
        }
        assert_eq!(minutes.len(), 7);
    };
    check("at once");
    eventually("the day is closed", || (service.client().rows("a", "1d")[0]["state"] == "closed").then_some(()));
    check("closed");
    // Rows that stand in a period which is not stored are put together by the query.
    check_row(&service.client().rows("a", "1w")[0], &all);
}

#[test]
fn every_reading_counts_once_in_files_from_the_embedded_store() {
    every_reading_counts_once(On::Embedded, &Sink::Files);
}

#[test]
fn every_reading_counts_once_in_a_table_from_redis() {
    every_reading_counts_once(On::Redis, &Sink::table());
}

/// So large that a page ends before each of the sources has had its turn.
#[test]
fn many_large_sources_have_a_row_before() {
    const SOURCES: usize = 60;
    let service = Service::start(On::Embedded, &["--periods", "1m,1h", "--lateness", "366d"]);
    let client = service.client();
    let values: Vec<f64> = (0..64).map(f64::from).collect();
    for minute in ["10:00", "10:03"] {
        let time = format!("2026-03-02T{minute}:30Z");
        client.post(&array((0..SOURCES).map(|i| vector(&format!("s{i:02}"), &values, &time)))).ok();
    }
    let sources: String = (0..SOURCES).map(|i| format!("source=s{i:02}&")).collect::<Vec<_>>().concat();
    let asked = format!("/v1/stats?{sources}period=1m&fill=previous&from=2026-03-02T10:00:00Z&to=2026-03-02T10:04:00Z");
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{asked}{cursor}")).ok().json();
        rows.extend(page["rows"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(rows.len(), 4 * SOURCES);
    for row in rows {
        assert_eq!(numbers(&row["mean"]), values, "{} at {}", row["source"], row["start"]);
    }
}

fn a_length_stays_for_the_day(on: On) {
    // A long lateness, so that the buckets stay open.
    let service = Service::start(on, &["--periods", "1m,1h,1d", "--lateness", "366d"]);
    let client = service.client();
    let minute = |m: u32| format!("2026-03-02T10:{m:02}:30Z");
    client.post(&array([vector("a", &[1.0, 2.0], &minute(0)), vector("b", &[1.0, 2.0, 3.0], &minute(0))])).ok();
    for (values, got) in [(&[1.0, 2.0, 3.0][..], 3), (&[1.0, 2.0, 3.0, 4.0], 4)] {
        let bad = array([vector("b", &[4.0, 5.0, 6.0], &minute(7)), vector("a", values, &minute(7))]);
        for _ in 0..2 {
            let answer = client.post_keyed(&format!("bad-{got}"), &bad);
            let problem = answer.json();
            assert_eq!((answer.status, &problem["type"]), (422, &"/problems/other-length".into()), "{problem}");
            assert_eq!(
                (&problem["source"], &problem["length"], &problem["length_sent"]),
                (&"a".into(), &2.into(), &got.into())
            );
        }
    }
    assert_eq!(client.rows("b", "1d")[0]["count"], 1, "nothing of the request was counted");
    // A number is of length 1, also for a source of numbers.
    let number = |source: &str, m| format!(r#"{{"source": "{source}", "value": 1, "timestamp": "{}"}}"#, minute(m));
    assert_eq!(client.post(&number("a", 8)).status, 422);
    client.post(&number("c", 8)).ok();
    assert_eq!(client.post(&vector("c", &[1.0, 2.0], &minute(9))).status, 422);
    // Requests of others in the same frame are not concerned.
    client.post(&array([vector("a", &[3.0, 4.0], &minute(9)), number("c", 9)])).ok();
    assert_eq!(
        (client.rows("a", "1d")[0]["count"].clone(), client.rows("c", "1d")[0]["count"].clone()),
        (2.into(), 2.into())
    );
    // The next day may have another.
    client.post(&vector("a", &[1.0, 2.0, 3.0], "2026-03-03T00:00:00Z")).ok();
    let days = client.rows("a", "1d");
    assert_eq!((numbers(&days[0]["mean"]), numbers(&days[1]["mean"])), (vec![2.0, 3.0], vec![1.0, 2.0, 3.0]));
    let asked = client.get("/v1/stats?source=a&period=1mo&from=2026-03-01&to=2026-04-01");
    assert_eq!(asked.status, 400, "{}", asked.json());
    assert!(asked.json()["detail"].as_str().unwrap().contains("2 numbers and of 3 numbers"), "{}", asked.json());
}

#[test]
fn a_length_stays_for_the_day_embedded() {
    a_length_stays_for_the_day(On::Embedded);
}

#[test]
fn a_length_stays_for_the_day_redis() {
    a_length_stays_for_the_day(On::Redis);
}

/// A row that is closed in the sink cannot take a life of another length: it stays, the life is set aside.
fn a_late_reading_of_another_length_is_set_aside(sink: &Sink) {
    let service = sink.start(On::Embedded, &SHORT);
    let client = service.client();
    let time = "2026-03-02T10:17:00Z";
    client.post(&array([vector("a", &[1.0, 2.0], time)])).ok();
    eventually("the day is closed", || (client.rows("a", "1d")[0]["state"] == "closed").then_some(()));
    client.post(&format!(r#"{{"source": "a", "value": 5, "timestamp": "{time}"}}"#)).ok();
    eventually("minute, hour and day are set aside", || {
        let periods = match sink {
            Sink::Files => {
                let text = std::fs::read_to_string(service.sink().join("dead_letters.csv")).unwrap_or_default();
                let mut lines: Vec<_> = text.lines().skip(1).map(|line| line[..2].to_owned()).collect();
                lines.sort();
                lines.dedup();
                assert!(lines.is_empty() || text.contains("readings of 2 numbers and of 1 number"), "{text}");
                lines.join(" ")
            }
            Sink::Table(database) => database.sql(
                "SELECT string_agg(period, ' ' ORDER BY period) FROM dead_letters \
                 WHERE reason LIKE '%of 2 numbers and of 1 number%' AND sum = 5",
            ),
        };
        (periods == "1d 1h 1m").then_some(())
    });
    for period in ["1m", "1h", "1d"] {
        check_row(&client.rows("a", period)[0], &[vec![1.0, 2.0]]);
    }
    client.delete("/v1/sources/a").ok();
    match sink {
        Sink::Files => {
            let text = std::fs::read_to_string(service.sink().join("dead_letters.csv")).unwrap();
            assert_eq!(text.lines().count(), 1, "forgotten there as well: {text}");
        }
        Sink::Table(database) => assert_eq!(database.sql("SELECT count(*) FROM dead_letters"), "0"),
    }
}

#[test]
fn a_late_reading_of_another_length_is_set_aside_from_files() {
    a_late_reading_of_another_length_is_set_aside(&Sink::Files);
}

#[test]
fn a_late_reading_of_another_length_is_set_aside_from_a_table() {
    a_late_reading_of_another_length_is_set_aside(&Sink::table());
}

/// Summed up over sources and time, with gaps filled, and beside each other.
fn questions_about_vectors(on: On, sink: &Sink) {
    let service = sink.start(on, &SHORT);
    let client = service.client();
    let time = |minute: usize| format!("2026-03-02T10:{minute:02}:30Z");
    let reading =
        |source: usize, n: usize| vec![1e9 + (source * 7 + n * n) as f64 / 3.0, n as f64 - source as f64 / 7.0];
    // Minutes 0 and 3 of two sources; of a third, which has three numbers, another.
    let minutes = [0, 0, 0, 3, 3];
    let mut body = vec![vector("imu.c", &[1.0, 2.0, 3.0], &time(1))];
    let mut all = Vec::new();
    for (source, name) in ["imu.a", "imu.b"].into_iter().enumerate() {
        for (n, minute) in minutes.into_iter().enumerate() {
            body.push(vector(name, &reading(source, n), &time(minute)));
            all.push((source, minute, reading(source, n)));
        }
    }
    client.post(&array(body)).ok();
    let of = |keep: &dyn Fn(usize, usize) -> bool| -> Vec<Vec<f64>> {
        all.iter().filter(|(source, minute, _)| keep(*source, *minute)).map(|(.., values)| values.clone()).collect()
    };
    let range = "from=2026-03-02T10:00:00Z&to=2026-03-02T11:00:00Z";
    let check = || {
        let get = |query: &str| client.get(&format!("/v1/summary?{query}&{range}")).ok().json();
        let both = "source=imu.a&source=imu.b";
        let rows = get(&format!("{both}&by=none"))["rows"].clone();
        check_row(&rows[0], &of(&|_, _| true));
        assert!(rows[0]["regr_slope"].is_number() && rows[0]["corr"][0][1].is_number(), "{rows}");
        let rows = get("prefix=imu.")["rows"].clone();
        (0..2).for_each(|source| check_row(&rows[source], &of(&|s, _| s == source)));
        assert_eq!((numbers(&rows[2]["mean"]), &rows[2]["covar_samp"]), (vec![1.0, 2.0, 3.0], &Value::Null));
        let rows = get(&format!("{both}&by=period&period=1m"))["rows"].clone();
        check_row(&rows[0], &of(&|_, minute| minute == 0));
        check_row(&rows[1], &of(&|_, minute| minute == 3));
        let mixed = client.get(&format!("/v1/summary?prefix=imu.&by=none&{range}"));
        assert_eq!((mixed.status, &mixed.json()["parameter"]), (400, &"source".into()), "{}", mixed.json());
        assert!(
            mixed.json()["detail"].as_str().unwrap().contains("3 numbers cannot be put together"),
            "{}",
            mixed.json()
        );
        let text = client.get(&format!("/v1/summary?source=imu.c&format=csv&{range}")).ok().body;
        assert!(text.contains(",\"[1.0,2.0,3.0]\","), "{text}");
        let filled = |fill: &str| {
            client.get(&format!("/v1/stats?source=imu.a&period=1m&fill={fill}")).ok().json()["rows"].clone()
        };
        let rows = filled("previous");
        assert_eq!(rows.as_array().unwrap().len(), 4);
        for empty in [&rows[1], &rows[2]] {
            assert_eq!((&empty["count"], &empty["state"], &empty["sum"]), (&0.into(), &"empty".into(), &Value::Null));
            let same = ["mean", "var_pop", "min", "max"].into_iter().all(|field| empty[field] == rows[0][field]);
            assert!(same && rows[0]["mean"].is_array(), "{rows}");
        }
        assert_eq!(filled("null")[1]["mean"], Value::Null);
        let compared = client.get("/v1/compare?source=imu.a&against=imu.b");
        assert_eq!((compared.status, &compared.json()["parameter"]), (400, &"source".into()));
        let detail = compared.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("vectors of 2 numbers, which are not compared"), "{detail}");
    };
    check();
    eventually("the day is closed", || (client.rows("imu.a", "1d")[0]["state"] == "closed").then_some(()));
    check();
}

#[test]
fn questions_about_vectors_in_files_redis() {
    questions_about_vectors(On::Redis, &Sink::Files);
}

#[test]
fn questions_about_vectors_in_a_table_embedded() {
    questions_about_vectors(On::Embedded, &Sink::table());
}

/// What a person sees of a vector on the command line.
#[test]
fn the_commands_show_vectors() {
    let service = Service::start(On::Embedded, &["--lateness", "366d"]);
    let time = "2026-03-02T10:17:00Z";
    service.client().post(&array([vector("pair", &[1.0, 2.0], time), vector("pair", &[3.0, 6.0], time)])).ok();
    let query = |format: &str| service.run(&["query", "pair", "--period", "1m", "--format", format]);
    assert!(query("table").contains("[2.0,4.0]"), "{}", query("table"));
    assert!(query("csv").contains("\"[[1.0,2.0],[2.0,4.0]]\""), "{}", query("csv"));
    let json: Value = serde_json::from_str(&query("json")).unwrap();
    assert_eq!(
        (json[0]["corr"].to_string(), &json[0]["regr_slope"]),
        ("[[1.0,1.0],[1.0,1.0]]".to_owned(), &2.0.into())
    );
    assert!(query("text").contains("pair, [2.0,4.0], [1.0,4.0]"), "{}", query("text"));
    assert!(service.run(&["state", "pair"]).contains("[10.0,40.0]"));
}
