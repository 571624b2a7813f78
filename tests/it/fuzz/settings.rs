//! Files of settings: whatever stands in one is settings or an error with its line, and never a panic.
//!
//! The flags and the environment are in `configuration.rs`.

use super::corpus::{input, replay, run};
use clap::Parser;
use meanwhile::config::{Config, Given};
use proptest::prelude::*;
use proptest::sample::select;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const PIECES: &[&str] = &[
    "grace",
    "lateness",
    "periods",
    "timezone",
    "store",
    "store_file",
    "listen",
    "max-connections",
    "idempotency_ttl",
    "late",
    "sink",
    " = ",
    "=",
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "\n",
    "\r\n",
    "#",
    "5s",
    "\"5s\"",
    "\"1m,1h\"",
    "\"reopen\"",
    "0",
    "-1",
    "1e400",
    "nan",
    "0x1",
    "true",
    "2026-11-20",
    "\\u0041",
    "\\ud800",
    "\0",
    "\u{feff}",
    "embedded:./x",
    "redis://:hush@h:1",
];

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    given: Given,
}

/// The settings in force with this file, or the error as it is shown.
fn load(dir: &TempDir, text: &[u8]) -> Result<Config, String> {
    let path = dir.path().join("meanwhile.toml");
    fs::write(&path, text).unwrap();
    let line = Line::try_parse_from([Path::new("meanwhile").as_os_str(), "--config".as_ref(), path.as_os_str()]);
    let effective = line.unwrap_or_else(|error| panic!("{error}")).given.load().map_err(|error| error.to_string())?;
    for setting in &effective.settings {
        let _ = setting.shown();
    }
    effective.config().map_err(|error| error.to_string())
}

fn check(dir: &TempDir, text: &[u8]) {
    if let Err(error) = load(dir, text) {
        assert!(!error.is_empty());
    }
}

#[test]
fn kept_files_of_settings_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    replay("settings", |text| check(&dir, text));
}

#[test]
fn any_file_of_settings_is_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(input("settings", PIECES), |text| check(&dir, &text));
}

/// Whatever is wrong above it.
#[test]
fn a_password_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    run(
        (input("settings", PIECES), select(&["u:Hush-7@h:1", ":Hush-7@h", "u:Hush-7@", "Hush-7@h:x"][..])),
        |(mut text, address)| {
            text.extend(format!("\nstore = \"redis://{address}\"\n").bytes());
            let error = load(&dir, &text).map_or_else(|error| error, |config| config.store.to_string());
            assert!(!error.contains("Hush-7"), "{error}");
        },
    );
}

#[test]
fn settings_that_are_written_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let durations = (1..300_000_i64, 1..10_000_i64, 60..604_800_i64);
    let others = (select(&["1m", "10s,1h", "1d,1mo,1m"][..]), select(&["UTC", "Europe/Berlin"][..]), 1..1_000_usize);
    run(
        (durations, others, any::<bool>(), any::<bool>()),
        |((grace, lateness, ttl), (periods, zone, most), dashed, listed)| {
            let (key, periods_text) = (
                if dashed { ["idempotency-ttl", "max-connections"] } else { ["idempotency_ttl", "max_connections"] },
                if listed { format!("{:?}", periods.split(',').collect::<Vec<_>>()) } else { format!("{periods:?}") },
            );
            let text = format!(
                "{} = {most}\ngrace = '{grace}ms'\nlateness = \"{lateness}s\"\n{} = \"{ttl}s\"\nperiods = {periods_text}\ntimezone = \"{zone}\"\n",
                key[1], key[0]
            );
            let config = load(&dir, text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
            let policy = (config.policy.grace, config.policy.lateness / 1_000, config.policy.idempotency_ttl / 1_000);
            assert_eq!((policy, config.max_connections), ((grace, lateness, ttl), most));
            let mut got: Vec<String> = config.calendar.periods().iter().map(ToString::to_string).collect();
            let mut wanted: Vec<String> = periods.split(',').map(str::to_owned).collect();
            got.sort();
            wanted.sort();
            assert_eq!((got, config.calendar.zone().to_string().as_str()), (wanted, zone));
        },
    );
}
