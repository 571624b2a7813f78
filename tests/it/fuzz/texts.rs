//! Short texts that people and programs write: times, durations, periods, zones, templates, ids.
//!
//! Every parser reads every text. What one takes is in its range and reads back where it can be written.

use super::corpus::{replay, run, text};
use crate::world::{DAY, T0};
use meanwhile::cli::when::When;
use meanwhile::config::duration;
use meanwhile::ingest::decode::template::Template;
use meanwhile::ingest::decode::time::{EARLIEST, MAX_AHEAD, Number, Precision, Times};
use meanwhile::stats::calendar::{Calendar, Period, Zone};
use meanwhile::stats::source::{self, from_cell, to_cell};
use meanwhile::stats::{Millis, timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use std::convert::Infallible;

const PIECES: &[&str] = &[
    "-",
    "+",
    ":",
    ".",
    "T",
    "Z",
    " ",
    "t",
    "0",
    "00",
    "1",
    "2",
    "9",
    "12",
    "20",
    "23",
    "24",
    "25",
    "29",
    "30",
    "31",
    "59",
    "60",
    "2026",
    "9999",
    "0000",
    "262142",
    "-262143",
    "02:30",
    "2026-10-25",
    "2026-03-29",
    "s",
    "m",
    "ms",
    "h",
    "d",
    "w",
    "mo",
    "y",
    "now",
    "today",
    "yesterday",
    "9223372036854775807",
    "{",
    "}",
    "{{",
    "}}",
    "column",
    "Europe/",
    "Berlin",
    "UTC",
    "/",
    "..",
    "group:",
    "=",
    "'",
    "@",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "\0",
    "\t",
    "\n",
    "٣",
    "２",
    "ü",
    "é",
    "e",
    "E",
    "1e400",
    "inf",
    "NaN",
];

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Monrovia",
    "America/St_Johns",
];

/// The years 0 to 9999, which RFC 3339 can say.
const YEARS: std::ops::Range<Millis> = -62_167_219_200_000..253_402_300_800_000;

fn zones() -> Vec<Zone> {
    ZONES.iter().map(|zone| zone.parse().unwrap()).collect()
}

fn check(text: &str, zones: &[Zone]) {
    if let Ok(length) = duration(text) {
        assert!((0..=366 * DAY).contains(&length), "{length}");
    }
    if let Ok(period) = text.parse::<Period>() {
        assert_eq!(period.to_string().parse(), Ok(period));
    }
    if let Ok(zone) = text.parse::<Zone>() {
        assert_eq!(zone.to_string().parse::<Zone>().as_ref(), Ok(&zone));
        check_buckets(&zone, T0);
    }
    for zone in zones {
        if let Some(t) = timestamp::parse(text, zone).filter(|t| YEARS.contains(t)) {
            assert_eq!(timestamp::parse(&timestamp::format(t), zone), Some(t));
        }
        if let Ok(when) = text.parse::<When>() {
            for now in [T0, 0, EARLIEST, YEARS.end - 1] {
                assert!(when.at(now, zone).is_none_or(|t| YEARS.contains(&t)), "{when:?}");
            }
        }
        for precision in ["s", "ms", "us", "ns"] {
            let times = Times { zone, now: T0, precision: precision.parse().unwrap() };
            check_time(times.of_text(text).ok());
            check_time(text.parse().ok().and_then(|n| times.of_number(Number::Integer(n)).ok()));
            check_time(text.parse().ok().and_then(|x| times.of_number(Number::Fraction(x)).ok()));
        }
    }
    if let Ok(template) = text.parse::<Template>() {
        let Ok(bound) = template.bind(|_| Ok::<_, Infallible>(0));
        let mut id = String::new();
        bound.fill(|_| text, text, &mut id);
        let _ = source::check(&id);
    }
    assert_eq!(
        text.replace('{', "{{")
            .replace('}', "}}")
            .parse::<Template>()
            .map(|template| {
                let Ok(bound) = template.bind(|_| Ok::<_, Infallible>(0));
                let mut id = String::new();
                bound.fill(|_| "", "", &mut id);
                id
            })
            .as_deref(),
        Ok(text),
        "braces that are doubled stand for themselves"
    );
    assert_eq!(from_cell(&to_cell(text)), text);
    let _ = (source::check(text), text.parse::<Precision>());
}

fn check_time(time: Option<Millis>) {
    assert!(time.is_none_or(|t| (EARLIEST..=T0 + MAX_AHEAD).contains(&t)), "{time:?}");
}

/// The bucket of every period that holds `t` does hold it, and what it feeds holds it too.
fn check_buckets(zone: &Zone, t: Millis) {
    let periods: Vec<Period> = ["10s", "1m", "1h", "12h", "1d", "1w", "1mo", "1y"].map(|p| p.parse().unwrap()).to_vec();
    let calendar = Calendar::new(periods.clone(), zone.clone()).unwrap();
    for period in periods {
        let bucket = calendar.bucket(period, t);
        assert!(bucket.contains(t), "{period} {zone} {t}: {bucket:?}");
        assert_eq!(calendar.bucket(period, bucket.start), bucket);
        assert_eq!(calendar.bucket(period, bucket.end - 1), bucket);
        assert!(calendar.parents(&bucket).iter().all(|parent| parent.contains(t)), "{period} {zone} {t}");
    }
    assert!(!calendar.roots(t).buckets.is_empty());
}

#[test]
fn kept_texts_are_read_or_refused() {
    let zones = zones();
    replay("texts", |text| check(&String::from_utf8_lossy(text), &zones));
}

#[test]
fn any_text_is_read_or_refused() {
    let zones = zones();
    run(text("texts", PIECES), |text| check(&text, &zones));
}

#[test]
fn instants_read_back() {
    run((YEARS, select(zones())), |(t, zone)| {
        assert_eq!(timestamp::parse(&timestamp::format(t), &zone), Some(t));
    });
}

#[test]
fn every_instant_is_in_its_buckets() {
    run((EARLIEST..T0 + MAX_AHEAD, select(zones())), |(t, zone)| check_buckets(&zone, t));
}

#[test]
fn numbers_of_any_size_are_times_or_refused() {
    let zone = Zone::utc();
    let numbers = (any::<i64>(), any::<f64>(), select(&["s", "ms", "us", "ns"][..]), any::<Millis>());
    run(numbers, |(n, x, precision, now)| {
        // A clock may stand anywhere that a computer's can.
        let now = now.clamp(0, YEARS.end);
        let times = Times { zone: &zone, now, precision: precision.parse().unwrap() };
        for number in [Number::Integer(n), Number::Fraction(x)] {
            let read = times.of_number(number);
            match read {
                Ok(t) => assert!((EARLIEST..=now + MAX_AHEAD).contains(&t), "{t}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    });
}

#[test]
fn durations_read_back() {
    const UNITS: &[(&str, Millis)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", DAY)];
    run((0..=366 * DAY, select(UNITS)), |(length, (unit, millis))| {
        let n = length / millis;
        assert_eq!(duration(&format!("{n}{unit}")), Ok(n * millis));
    });
}
