//! Two sources, or two times of one, beside each other: `GET /v1/compare` and `meanwhile compare`.
//!
//! The numbers are those of Student's sleep data as other programs publish them; what is computed of moments alone is
//! tested in `stats/compare.rs`.

use crate::exact_rows::Sink;
use crate::http::{Client, array, reading_at};
use crate::service::{On, Service};
use meanwhile::clock::Clock;
use meanwhile::stats::timestamp;
use serde_json::Value;

const SLEEP: [(&str, [f64; 10]); 2] = [
    ("drug.1", [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]),
    ("drug.2", [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]),
];

/// The two sets, a reading an hour; and one source that has both, on two days.
fn filled(on: On, sink: &Sink) -> Service {
    let service = sink.start(on, &["--periods", "1m,1h,1d", "--grace", "200ms", "--lateness", "200ms"]);
    let mut readings = Vec::new();
    for (day, (source, values)) in SLEEP.iter().enumerate() {
        for (hour, value) in values.iter().enumerate() {
            readings.push(reading_at(source, *value, &format!("2026-06-01T{hour:02}:30:00Z")));
            readings.push(reading_at("both", *value, &format!("2026-06-0{}T{hour:02}:30:00Z", day + 1)));
        }
    }
    readings.extend([
        reading_at("one", 1.0, "2026-06-01"),
        reading_at("flat", 2.0, "2026-06-01"),
        reading_at("flat", 2.0, "2026-06-01"),
    ]);
    service.client().post(&array(readings)).ok();
    service
}

fn near(got: &Value, expected: f64) {
    let got = got.as_f64().unwrap_or_else(|| panic!("{got}, not {expected}"));
    assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{got}, not {expected}");
}

/// t = -1.8608, df = 17.776, p = 0.07939, -3.3654832 to 0.2054832; F = 0.79834, p = 0.7427, 0.198297 to 3.214123.
fn is_sleep(answer: &Value) {
    let (difference, ratio) = (&answer["difference"], &answer["ratio"]);
    for (field, expected) in [
        ("mean", -1.58),
        ("t", -1.860_81),
        ("df", 17.776_47),
        ("p", 0.079_394),
        ("low", -3.365_483_2),
        ("high", 0.205_483_2),
    ] {
        near(&difference[field], expected);
    }
    for (field, expected) in
        [("f", 0.798_342_6), ("p", 0.742_72), ("low", 0.198_297), ("high", 3.214_123), ("df_a", 9.0)]
    {
        near(&ratio[field], expected);
    }
    assert!(answer["notes"][0].as_str().unwrap().contains("independent"), "{answer}");
}

fn get(client: &Client, query: &str) -> Value {
    client.get(&format!("/v1/compare?{query}")).ok().json()
}

fn sleep(on: On, sink: &Sink) {
    let service = filled(on, sink);
    let client = service.client();
    is_sleep(&get(&client, "source=drug.1&against=drug.2"));
    let (first, second) = ("from=2026-06-01&to=2026-06-02", "against_from=2026-06-02&against_to=2026-06-03");
    let days = get(&client, &format!("source=both&{first}&{second}"));
    is_sleep(&days);
    assert_eq!(days["b"]["covered"]["from"], "2026-06-02T00:00:00Z");
    let wide = get(&client, "source=drug.1&against=drug.2&confidence=0.99");
    assert!(wide["difference"]["low"].as_f64().unwrap() < -3.9, "{wide}");
    // What cannot be said is null.
    let one = get(&client, "source=one&against=drug.2");
    assert_eq!(
        (&one["difference"]["t"], &one["ratio"], &one["a"]["var_samp"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let flat = get(&client, "source=flat&against=drug.2");
    near(&flat["difference"]["df"], 9.0);
    assert_eq!(flat["ratio"], Value::Null);
    let empty = get(&client, "source=one&against=drug.2&from=2026-06-01T05:00:00Z");
    assert_eq!(
        (&empty["difference"], &empty["a"]["count"], &empty["a"]["min"]),
        (&Value::Null, &0.into(), &Value::Null)
    );
    // The same readings on both sides.
    let refused = |query: &str, parameter: &str, hint: &str| {
        let problem = client.get(&format!("/v1/compare?{query}")).json();
        assert_eq!((&problem["status"], &problem["parameter"]), (&400.into(), &parameter.into()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{problem}");
    };
    refused("source=both", "against", "in common");
    refused(
        "source=both&against=both&from=2026-06-01&to=2026-06-02&against_from=2026-06-01T23:59:59Z",
        "against",
        "in common",
    );
    refused("source=both&against=one&confidence=95", "confidence", "0.95");
    refused("source=both&against_from=2&against_to=1", "against_from", "against_to");
    refused("against=both", "source", "missing");
    client.post(r#"{"source": "wide", "value": [1, 2]}"#).ok();
    refused("source=wide&against=both", "source", "vectors of 2 numbers");
    assert_eq!(client.get("/v1/compare?source=drug.1&against=drug.3").status, 404);
}

#[test]
fn sleep_in_files_redis() {
    sleep(On::Redis, &Sink::Files);
}

#[test]
fn sleep_in_a_table_embedded() {
    sleep(On::Embedded, &Sink::table());
}

#[test]
fn comparing_on_the_command_line() {
    let service = filled(On::Embedded, &Sink::Files);
    let text = service.run(&["compare", "drug.1", "drug.2", "--from", "2026-06-01", "--to", "2026-06-02"]);
    assert!(text.contains("the mean of a is lower than that of b by 1.58\n"), "{text}");
    assert!(text.contains("Welch's t = -1.86081, df = 17.7765, p = 0.0793941"), "{text}");
    assert!(text.contains("it contains 0: they may be equal"), "{text}");
    assert!(text.contains("Readings that follow one another are mostly alike"), "{text}");
    let json = service.run(&[
        "compare",
        "both",
        "--from",
        "2026-06-02",
        "--to",
        "2026-06-03",
        "--against",
        "the day before",
        "--format",
        "json",
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    near(&json["difference"]["mean"], 1.58);
    // The last hour and the week before it meet at the start of a minute.
    let now = Clock::System.now();
    let recent =
        (0..20).map(|i| reading_at("both", f64::from(i), &timestamp::format(now - 10_000 * i64::from(i) - 1_000)));
    service.client().post(&array(recent)).ok();
    let recent = service.run(&["compare", "both", "--this", "1h", "--against", "4 weeks", "--format", "json"]);
    let recent: Value = serde_json::from_str(&recent).unwrap();
    assert_eq!(recent["a"]["count"], 20, "{recent}");
    assert_eq!(recent["a"]["covered"]["from"], recent["b"]["covered"]["to"], "{recent}");
    for words in
        [&["compare", "both"][..], &["compare", "both", "--against", "1d"], &["compare", "a", "b", "--against", "1d"]]
    {
        assert_eq!(service.command(words).output().unwrap().status.code(), Some(2), "{words:?}");
    }
}
