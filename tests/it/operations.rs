//! The endpoints for operators: liveness, readiness, metrics, the description of the API, the ids that
//! every answer carries.
//!
//! Each failure is a real one: a server that is killed, a directory that became a file.

use crate::http::{Answer, Client, array, reading, reading_at};
use crate::service::{On, Service, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// The value of a series, by its name with labels as it stands on the page.
pub(crate) fn metric(client: &Client, series: &str) -> Option<f64> {
    let page = client.get("/metrics").ok().body;
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[track_caller]
fn check_metric(client: &Client, series: &str, expected: f64) {
    assert_eq!(metric(client, series), Some(expected), "{series}");
}

#[test]
fn what_happens_is_counted() {
    let service = Service::start(On::Embedded, &["--grace", "0s", "--lateness", "0s"]);
    let client = service.client();
    assert_eq!(client.get("/healthz").ok().body, "ok\n");
    client.post_keyed("k", &array([reading("a", 1.0), reading("b", 2.0)])).ok();
    client.post_keyed("k", &array([reading("a", 1.0), reading("b", 2.0)])).ok();
    assert_eq!(client.post(&array([reading("a", 1.0), "5".to_owned(), "6".to_owned()])).status, 400);
    assert_eq!(client.get("/v1/stats?source=secret").status, 404);
    assert_eq!(client.get("/secret").status, 404);
    for (series, expected) in [
        ("meanwhile_readings_total{outcome=\"accepted\"}", 2.0),
        ("meanwhile_readings_total{outcome=\"duplicate\"}", 2.0),
        ("meanwhile_readings_total{outcome=\"refused\"}", 2.0),
        ("meanwhile_readings_total{outcome=\"too_late\"}", 0.0),
        ("meanwhile_requests_total{method=\"POST\",route=\"/v1/readings\",status=\"200\"}", 2.0),
        ("meanwhile_requests_total{method=\"POST\",route=\"/v1/readings\",status=\"400\"}", 1.0),
        ("meanwhile_requests_total{method=\"GET\",route=\"other\",status=\"404\"}", 1.0),
        ("meanwhile_requests_turned_away_total{type=\"not-applied\"}", 0.0),
        ("meanwhile_frame_deltas_sum", 2.0),
        ("meanwhile_store_reachable", 1.0),
        ("meanwhile_sink_usable", 1.0),
        ("meanwhile_store_losses_total", 0.0),
    ] {
        check_metric(&client, series, expected);
    }
    client.post(&reading_at("a", 1.0, "2026-01-01T00:00:00Z")).ok();
    eventually("rows are counted", || metric(&client, "meanwhile_rollover_rows_total").filter(|rows| *rows > 0.0));

    // With every kind of event seen, the page has every metric of the documentation, and no other.
    let page = client.get("/metrics").ok();
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let typed = |line: &str| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned());
    let shown: BTreeSet<String> = page.body.lines().filter_map(typed).collect();
    let documented: BTreeSet<String> =
        meanwhile::telemetry::metrics::METRICS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(shown, documented);
    assert!(!page.body.contains("secret"), "{}", page.body);
}

#[test]
fn a_store_that_is_away_is_not_ready_but_alive() {
    let mut service = Service::start(On::Redis, &[]);
    let client = service.client();
    let ready = client.get("/readyz").ok().json();
    let lost = json!({"times": 0, "frames": 0, "last": null});
    let expected = json!({"reachable": true, "durability": "disk", "trouble": null, "lost": lost});
    assert_eq!(ready["store"], expected);
    service.redis().kill();
    let answer = not_ready(&client, "");
    assert_eq!(answer["store"]["reachable"], false);
    assert!(answer["store"]["trouble"].is_string(), "{answer}");
    assert_eq!(client.get("/readyz?exclude=sink").status, 503);
    client.get("/healthz").ok();
    check_metric(&client, "meanwhile_store_reachable", 0.0);

    let refused = eventually("requests are turned away", || {
        let headers = [("Content-Type", "application/json"), ("X-Request-Id", "mine-1")];
        let answer = client.try_post("", &headers, reading("a", 1.0).as_bytes()).unwrap();
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.headers["x-request-id"], "mine-1");
    let line =
        "request_id=\"mine-1\" client=127.0.0.1 method=POST route=\"/v1/readings\" status=503 problem=\"not-applied\"";
    assert!(service.log().contains(line), "{}", service.log());
    assert!(metric(&client, "meanwhile_requests_turned_away_total{type=\"not-applied\"}") >= Some(1.0));

    service.redis().restart();
    eventually("it is ready again", || (client.get("/readyz").status == 200).then_some(()));
    assert!(metric(&client, "meanwhile_store_reconnects_total") >= Some(1.0));
    check_metric(&client, "meanwhile_store_losses_total", 0.0);
}

#[test]
fn a_store_that_forgot_is_counted() {
    let mut service = Service::start(On::Redis, &[]);
    service.client().post(&reading("a", 1.0)).ok();
    service.redis().cli(&["FLUSHALL"]);
    let losses = || metric(&service.client(), "meanwhile_store_losses_total").filter(|losses| *losses > 0.0);
    eventually("the loss is counted", losses);
    assert_eq!(metric(&service.client(), "meanwhile_store_lost_frames_total"), Some(1.0));
    let lost = service.client().get("/readyz").ok().json()["store"]["lost"].clone();
    assert_eq!((&lost["times"], &lost["frames"]), (&json!(1), &json!(1)), "{lost}");
    assert_eq!(lost["last"]["everything"], true);
    let [from, to] = ["from", "to"].map(|end| lost["last"][end].as_str().unwrap().to_owned());
    assert!(from <= to, "{lost}");
    let said = format!(
        "the store has lost its contents: what it confirmed between the two may be lost frames=1 from={from} to={to}"
    );
    assert!(service.log().contains(&said), "{}", service.log());
}

#[test]
fn a_sink_that_fails_is_not_ready_but_readings_are_taken() {
    let service = Service::start(On::Embedded, &["--grace", "0s", "--periods", "1m"]);
    let client = service.client();
    // Where the directory of the period should be.
    let place = service.sink().join("period=1m");
    fs::write(&place, "").unwrap();
    let late = reading_at("a", 1.0, "2026-01-01T00:00:00Z");
    client.post(&late).ok();
    let answer = not_ready(&client, "");
    assert_eq!((&answer["store"]["reachable"], &answer["sink"]["usable"]), (&json!(true), &json!(false)));
    assert!(answer["sink"]["trouble"].as_str().unwrap().contains("period=1m"), "{answer}");
    let rollover = &answer["rollover"];
    assert_eq!((&rollover["open_buckets"], &rollover["waiting_buckets"]), (&json!(1), &json!(1)));
    assert!(rollover["oldest_due_seconds"].as_f64() > Some(0.0), "{answer}");
    client.get("/readyz?exclude=sink").ok();
    client.post(&late).ok();
    check_metric(&client, "meanwhile_sink_usable", 0.0);
    assert!(metric(&client, "meanwhile_rollover_errors_total{side=\"sink\"}") >= Some(1.0));
    assert!(metric(&client, "meanwhile_oldest_due_seconds") > Some(0.0));

    fs::remove_file(&place).unwrap();
    client.post(&late).ok();
    eventually("the rows are written", || (client.get("/readyz").status == 200).then_some(()));
    eventually("nothing waits", || {
        let ready = client.get("/readyz").ok().json();
        (ready["rollover"]["waiting_buckets"] == 0).then_some(())
    });
    assert_eq!(client.get("/readyz?exclude=store").json()["type"], "/problems/invalid-parameter");
}

fn not_ready(client: &Client, query: &str) -> Value {
    let answer = eventually("it is not ready", || {
        let answer = client.get(&format!("/readyz{query}"));
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(answer.json()["ready"], false);
    answer.json()
}

#[test]
fn every_answer_names_its_request_and_its_instance() {
    let service = Service::start(On::Embedded, &["--log-format", "json", "--log", "debug"]);
    let client = service.client();
    let instance = client.get("/readyz").ok().json()["instance"].as_str().unwrap().to_owned();
    assert!(service.log().contains(&format!("this is instance {instance}")), "{}", service.log());
    let mut ids = BTreeSet::new();
    for answer in [client.get("/healthz"), client.get("/nothing"), client.get("/v1/state"), client.post("[x]")] {
        assert_eq!(answer.headers["x-instance"], instance, "{answer:?}");
        ids.insert(answer.headers["x-request-id"].clone());
    }
    assert_eq!(ids.len(), 4, "{ids:?}");
    let given = |id: &str| {
        let headers = [("Content-Type", "application/json"), ("X-Request-Id", id)];
        client.try_post("", &headers, b"[x]").unwrap().headers["x-request-id"].clone()
    };
    assert_eq!(given("0b5c-1"), "0b5c-1");
    assert_ne!(given("a b"), "a b");
    // Nothing but records, and the failure with its id among them.
    let log = service.log();
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let failed = records.iter().find(|record| record["request_id"] == "0b5c-1").expect("a record of the failure");
    assert_eq!((&failed["problem"], &failed["status"]), (&json!("unreadable-body"), &json!(400)));
}

/// Whether a value is what a schema of the document allows, as far as schemas are used there.
fn fits(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(value, document.pointer(reference.trim_start_matches('#')).ok_or("no such schema")?, document);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fits(value, part, document)?;
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| fits(value, choice, document).is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{value} fits {fitting} of {choices:?}")) };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let is = |name: &str| wanted.contains(&name);
    if !(is(kind) || kind == "integer" && is("number")) {
        return Err(format!("{value} is not {wanted:?}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Err(format!("{value} is not among {values:?}"));
    }
    for element in value.as_array().into_iter().flatten() {
        fits(element, &schema["items"], document)?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Err(format!("{value} lacks {name}"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        fits(member, &schema["properties"][name], document).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(())
}

/// Names of the members of an object schema, through references and `allOf`.
fn members(schema: &Value, document: &Value) -> BTreeSet<String> {
    let own = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let target = schema["$ref"].as_str().and_then(|reference| document.pointer(reference.trim_start_matches('#')));
    own.chain(parts.chain(target).flat_map(|part| members(part, document))).collect()
}

#[test]
fn answers_are_as_the_document_says() {
    let service = Service::start(On::Embedded, &["--late", "refuse"]);
    let client = service.client();
    let document = client.get("/openapi.json").ok().json();
    let check = |method: &str, path: &str, answer: &Answer| {
        let route = path.split('?').next().unwrap();
        let response = &document["paths"][route][method]["responses"][answer.status.to_string()];
        let media = answer.headers["content-type"].split(';').next().unwrap();
        let schema = &response["content"][media]["schema"];
        assert!(schema.is_object(), "{method} {path}: {} {media} is not in the document", answer.status);
        if media.ends_with("/json") || media.ends_with("+json") {
            let body = answer.json();
            fits(&body, schema, &document).unwrap_or_else(|reason| panic!("{method} {path}: {reason}"));
            let known = members(schema, &document);
            // The document does not describe itself.
            let body = if route == "/openapi.json" { Value::Null } else { body };
            for name in body.as_object().into_iter().flatten().map(|(name, _)| name) {
                assert!(known.contains(name), "{method} {path}: {name} is not in the document: {known:?}");
            }
        }
    };
    let post = |query: &str, content_type: &str, body: &str| {
        let answer = client.try_post(query, &[("Content-Type", content_type)], body.as_bytes()).unwrap();
        check("post", &format!("/v1/readings{query}"), &answer);
        answer.status
    };
    assert_eq!(post("", "application/json", &reading("kitchen", 1.5)), 200);
    assert_eq!(post("", "application/json", &reading_at("kitchen", 1.5, "2026-01-01")), 200);
    assert_eq!(post("?on_error=skip", "application/json", &array([reading("kitchen", 2.5), "5".to_owned()])), 200);
    assert_eq!(post("", "application/json", "[5]"), 400);
    assert_eq!(post("", "application/json", "[x]"), 400);
    assert_eq!(post("?precision=h", "application/json", "[]"), 400);
    assert_eq!(post("", "text/html", "[]"), 415);
    for (path, status) in [
        ("/v1/stats?source=kitchen", 200),
        ("/v1/stats?source=kitchen&format=csv", 200),
        ("/v1/stats?source=kitchen&format=ndjson", 200),
        ("/v1/stats?source=kitchen&format=text", 200),
        ("/v1/stats?source=kichen", 404),
        ("/v1/stats", 400),
        ("/v1/sources", 200),
        ("/v1/sources?limit=0", 400),
        ("/v1/state?source=kitchen", 200),
        ("/v1/state?source=kichen", 404),
        ("/v1/nodes", 200),
        ("/v1/nodes?x=1", 400),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/readyz?exclude=x", 400),
        ("/metrics", 200),
        ("/openapi.json", 200),
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, status, "{path}");
        check("get", path, &answer);
    }
}
