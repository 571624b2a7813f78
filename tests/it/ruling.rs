//! Rules from the outside: `meanwhile rules`, `/v1/rules`, and groups wherever sources are.

use crate::events::Events;
use crate::http::{Client, array, reading, reading_at};
use crate::servers::temporary;
use crate::service::{On, Service, command, eventually};
use crate::sink_files;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const OLD: &str = "2026-03-02T10:17:00Z";
const RULES: &str = "groups_file = \"groups.csv\"\n\n[[rule]]\nmatch = \"weather.*.temperature\"\n\
                     groups = [\"region:{1}\", \"temperature\"]\nexpect = \"10s\"\n\n[[rule]]\nmatch = \"weather.*\"\n";
const TABLE: &str = "source,group\nkitchen,house\nweather.west.temperature,house\n";

/// `rules.toml` and its table in a directory.
fn write(dir: &Path, rules: &str, table: &str) -> String {
    fs::write(dir.join("groups.csv"), table).unwrap();
    let path = dir.join("rules.toml");
    fs::write(&path, rules).unwrap();
    path.to_str().unwrap().to_owned()
}

fn totals(client: &Client, period: &str, expected: &[(&str, u64, f64)]) {
    for (source, count, sum) in expected {
        assert_eq!(client.total(source, period), (*count, *sum), "{source} {period}");
    }
}

fn groups_on(on: On) {
    let dir = temporary();
    let file = write(dir.path(), RULES, TABLE);
    let mut service = Service::start(on, &["--hold", "0s", "--grace", "1h", "--lateness", "1d"]);
    let client = service.client();
    assert_eq!(service.run(&["rules", "apply", &file]), "version 1 of the rules, for all time\n");
    assert!(service.run(&["rules", "apply", &file]).starts_with("nothing has changed"));
    assert_eq!(service.run(&["rules", "show"]), RULES);
    assert_eq!(service.run(&["rules", "show", "--groups"]), TABLE);

    let mut events = Events::of(&service.url(), &["live:group:region:west"]);
    let sources =
        ["weather.west.temperature", "weather.west.humidity", "weather.east.temperature", "kitchen", "cellar"];
    let batch = |value: f64| {
        array(sources.into_iter().flat_map(|source| [reading(source, value), reading_at(source, value, OLD)]))
    };
    client.post_keyed("first", &batch(1.0)).ok();
    assert_eq!(client.post_keyed("first", &batch(1.0)).ok().json()["duplicate"], json!(true));
    let seen = events.next().expect("statistics of the group");
    assert!(seen.data.to_string().contains("group:region:west"), "{seen:?}");
    let groups: [(&str, f64); 4] =
        [("group:region:west", 1.0), ("group:region:east", 1.0), ("group:temperature", 2.0), ("group:house", 2.0)];
    let check = |client: &Client, times: f64| {
        for (group, members) in groups {
            let count = (2.0 * times * members) as u64;
            for period in ["1m", "1h", "1d"] {
                totals(client, period, &[(group, count, count as f64)]);
            }
        }
        totals(client, "1d", &[("kitchen", 2 * times as u64, 2.0 * times), ("group:region:humidity", 0, 0.0)]);
    };
    check(&client, 1.0);
    service.kill();
    service.start_again();
    let client = service.client();
    assert_eq!(client.post_keyed("first", &batch(1.0)).ok().json()["duplicate"], json!(true));
    client.post_keyed("second", &batch(1.0)).ok();
    check(&client, 2.0);
    service.run(&["drain"]);
    // Late, into buckets that are written.
    client.post(&batch(1.0)).ok();
    check(&client, 3.0);
    service.run(&["drain"]);
    check(&client, 3.0);
    assert_eq!(sink_files::total(&service.sink(), "1d", "group:house"), (12, 12.0));
    assert_eq!(client.post(&reading("group:house", 1.0)).status, 400, "only rules make groups");

    let summary = |query: &str| client.get(&format!("/v1/summary?{query}")).ok().json()["rows"].clone();
    assert_eq!(summary("group=house")[0]["count"], json!(12));
    assert_eq!(summary("prefix=&by=none")[0]["count"], json!(30), "each reading once, groups left out");
    assert_eq!(summary("prefix=group:").as_array().unwrap().len(), 4);
    assert!(service.run(&["summary", "--group", "house", "--format", "csv"]).contains("group:house,"));
    let explained = service.run(&["rules", "explain", "weather.west.temperature"]);
    for line in
        ["by version 1, for all time", "rule 1, match = \"weather.*.temperature\"", "every 10 s", "in group:house"]
    {
        assert!(explained.contains(line), "{explained}");
    }
    assert!(service.run(&["rules", "explain", "cellar"]).contains("no rule is for it"));
    // A group is forgotten like any source.
    client.delete("/v1/sources/group:house").ok();
    assert_eq!(client.get("/v1/stats?source=group:house").status, 404);
    totals(&client, "1d", &[("kitchen", 6, 6.0)]);
}

#[test]
fn groups_with_the_embedded_store() {
    groups_on(On::Embedded);
}

#[test]
fn groups_with_redis() {
    groups_on(On::Redis);
}

fn counts(client: &Client, source: &str) -> Vec<(Value, u64)> {
    let known = client.get(&format!("/v1/stats?source={source}&period=1s")).status == 200;
    let rows = if known { client.rows(source, "1s") } else { Vec::new() };
    rows.iter().map(|row| (row["start"].clone(), row["count"].as_u64().unwrap())).collect()
}

/// Old buckets keep the old groups, new ones have the new groups, on every instance.
#[test]
fn a_change_takes_effect_at_a_start_of_a_bucket_on_all_instances() {
    let dir = temporary();
    let one = write(dir.path(), "[[rule]]\nmatch = \"a.*\"\ngroups = [\"one\"]\n", "");
    let service = Service::start(On::Redis, &["--periods", "1s,1m", "--hold", "0s", "--rules", &one]);
    let store = service.store();
    let second = Service::start_beside(&["--store", &store, "--periods", "1s,1m", "--role", "ingest"], &[]);
    for client in [service.client(), second.client()] {
        client.post(&reading("a.b", 1.0)).ok();
    }
    let two = write(dir.path(), "[[rule]]\nmatch = \"a.*\"\ngroups = [\"two\"]\n", "");
    let said = service.run(&["rules", "apply", &two]);
    assert!(said.starts_with("version 2 of the rules, for buckets from 20"), "{said}");
    let from = service.client().get("/v1/rules").ok().json()["versions"][1]["from"].as_str().unwrap().to_owned();
    let client = service.client();
    eventually("readings in new buckets", || {
        client.post(&reading("a.b", 1.0)).ok();
        second.client().post(&reading("a.b", 1.0)).ok();
        (counts(&client, "group:two").len() > 1).then_some(())
    });
    // Late ones still go by the rules of their bucket.
    let first = counts(&client, "group:one")[0].0.as_str().unwrap().to_owned();
    second.client().post(&reading_at("a.b", 1.0, &first)).ok();
    let (one, two) = (counts(&client, "group:one"), counts(&client, "group:two"));
    assert!(one.iter().all(|(start, _)| start.as_str().unwrap() < from.as_str()), "{from}: {one:?}");
    assert!(two.iter().all(|(start, _)| start.as_str().unwrap() >= from.as_str()), "{from}: {two:?}");
    assert_eq!([one, two].concat(), counts(&client, "a.b"));
}

#[test]
fn a_hangup_reads_the_rules_again_and_a_bad_file_changes_nothing() {
    let dir = temporary();
    let file = write(dir.path(), RULES, TABLE);
    let mut service = Service::start(On::Embedded, &["--rules", &file]);
    let version = |service: &Service| service.client().get("/v1/rules").ok().json()["version"].as_u64().unwrap();
    assert_eq!(version(&service), 1);
    let hangup = |service: &Service, expected: &str| {
        service.signal("HUP");
        eventually(expected, || service.log().contains(expected).then_some(()));
    };
    hangup(&service, "rules read again: nothing has changed");
    write(dir.path(), "[[rule]]\nmatch = \"a\"\ngrups = [\"x\"]\n", TABLE);
    hangup(&service, "rules.toml:3: grups: there is no such key");
    write(dir.path(), RULES, "source,group\nkitchen,group:x\n");
    hangup(&service, "groups.csv:2: group: write \"group:x\" without");
    assert_eq!(version(&service), 1);
    write(dir.path(), RULES, "source,group\n");
    hangup(&service, "rules read again: they are version 2");
    // The store knows them by itself; the file is for a store without any.
    service.stop();
    fs::remove_file(&file).unwrap();
    service.set_flags(&[]);
    service.start_again();
    assert_eq!(version(&service), 2);
    service.client().post(&reading("weather.west.temperature", 1.0)).ok();
    let check =
        command(&["serve", "--rules", dir.path().join("none.toml").to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .current_dir(dir.path())
            .output()
            .unwrap();
    assert!(!check.status.success());
    assert!(String::from_utf8_lossy(&check.stderr).contains("none.toml: cannot read it"));
}

#[test]
fn rules_over_http() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let empty = client.get("/v1/rules").ok().json();
    assert_eq!((&empty["version"], &empty["versions"]), (&json!(0), &json!([])));
    assert_eq!(client.get("/v1/rules/explain?source=a").ok().json(), json!({"source": "a", "now": null, "later": []}));
    let post =
        |body: &Value| client.ask("POST", "/v1/rules", &[("Content-Type", "application/json")], &body.to_string());
    let bad = post(&json!({"rules": "[[rule]]\nmatch = \"a\"\nperiods = [\"1m\"]"}));
    let problem = bad.json();
    assert_eq!((bad.status, &problem["type"], &problem["line"]), (400, &json!("/problems/invalid-rules"), &json!(3)));
    assert_eq!(post(&json!({"rule": ""})).status, 400);
    let answer = post(&json!({"rules": "[[rule]]\nmatch = \"*\"\ngroups = [\"{1}{1}\"]"})).ok().json();
    assert_eq!(answer, json!({"version": 1, "from": null, "changed": true}));
    let long = "x".repeat(200);
    let explained = client.get(&format!("/v1/rules/explain?source={long}")).ok().json();
    assert_eq!(explained["now"]["groups"], json!([]));
    assert!(explained["now"]["dropped"][0].as_str().unwrap().contains("at most 256"), "{explained}");
    // The reading counts, and is in no group.
    client.post(&reading(&long, 1.0)).ok();
    let answer = post(&json!({"rules": ""})).ok().json();
    assert_eq!((&answer["version"], answer["from"].is_string()), (&json!(2), true));
    let explained = client.get("/v1/rules/explain?source=a").ok().json();
    assert_eq!((&explained["now"]["groups"], &explained["later"][0]["version"]), (&json!(["group:aa"]), &json!(2)));
    assert_eq!(client.get("/v1/rules/explain?source=group:a").status, 400);
}

#[test]
fn rows_say_how_complete_they_are() {
    let service = Service::start(On::Embedded, &[]);
    let client = service.client();
    let rules = json!({"rules": "[[rule]]\nmatch = \"k*\"\nexpect = \"10s\"\ngroups = [\"g\"]"});
    client.ask("POST", "/v1/rules", &[("Content-Type", "application/json")], &rules.to_string()).ok();
    let times = ["10:17:00Z", "10:17:20Z", "10:17:30Z", "10:18:00Z"].map(|time| format!("2026-03-02T{time}"));
    client.post(&array(times.iter().flat_map(|t| [reading_at("kitchen", 1.0, t), reading_at("cellar", 1.0, t)]))).ok();
    let rows = client.rows("kitchen", "1m");
    let said: Vec<_> = rows.iter().map(|row| (row["expected"].as_f64(), row["completeness"].as_f64())).collect();
    assert_eq!(said, [(Some(6.0), Some(0.5)), (Some(6.0), Some(1.0 / 6.0))]);
    assert_eq!(client.rows("kitchen", "1h")[0]["expected"], json!(360.0));
    for other in ["cellar", "group:g"] {
        assert!(client.rows(other, "1m")[0].get("expected").is_none(), "{other}");
    }
    let filled = client.get("/v1/stats?source=kitchen&period=1m&fill=null").ok().json();
    assert_eq!(filled["rows"][0]["completeness"], json!(0.5));
    let table = service.run(&["query", "kitchen", "--period", "1m"]);
    assert!(table.contains("complete") && table.contains("50.0%") && table.contains("16.7%"), "{table}");
    assert!(!service.run(&["query", "cellar", "--period", "1m"]).contains("complete"));
}

#[test]
fn a_file_is_looked_at_without_a_service() {
    let dir = temporary();
    let file = write(dir.path(), RULES, TABLE);
    let run = |words: &[&str]| {
        let output = command(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, said, _) = run(&["rules", "check", &file]);
    assert_eq!((code, said), (Some(0), format!("{file}: 2 rules, 2 rows of the table\n")));
    let (code, said, _) = run(&["rules", "explain", "kitchen", "--file", &file]);
    assert_eq!((code, said), (Some(0), format!("kitchen, by {file}\n  no rule is for it\n  in group:house\n")));
    write(dir.path(), "[[rule]]\nmatch = 1\n", TABLE);
    let (code, _, said) = run(&["rules", "check", &file]);
    assert_eq!(code, Some(1));
    assert!(said.contains("rules.toml:2: match: write a pattern in quotes"), "{said}");
}
