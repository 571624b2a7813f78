//! The decoders of bodies: JSON, NDJSON, and tables, narrow and wide.
//!
//! Every decoder reads every body, its own language or not. What must hold of any of them is in
//! [`check_whole`]; that pieces are read like the whole in [`check_pieces`].

use super::corpus::{cut, id, input, replay, run};
use crate::world::{MINUTE, T0};
use meanwhile::ingest::decode::columns::{Shape, Wide};
use meanwhile::ingest::decode::csv::Csv;
use meanwhile::ingest::decode::ndjson::Ndjson;
use meanwhile::ingest::decode::time::{EARLIEST, MAX_AHEAD, Precision, Times};
use meanwhile::ingest::decode::{Batch, DecodeError, Decoded, MAX_ERRORS, json};
use meanwhile::ingest::fold::RootDeltas;
use meanwhile::stats::calendar::{Calendar, Period, Zone};
use meanwhile::stats::{Millis, timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "\0",
    "\u{feff}",
    "null",
    "true",
    "1",
    "-0",
    "1e400",
    "-1.5e-3",
    "1795150740000",
    "9223372036854775808",
    "\"source\"",
    "\"value\"",
    "\"timestamp\"",
    "\"source\":\"a\"",
    "\"value\":1",
    "\"timestamp\":\"2026-11-20T04:00:00Z\"",
    "{\"source\":\"a\",\"value\":1}",
    "\\ud800",
    "\\u0041",
    "source",
    "value",
    "timestamp",
    "source,value\n",
    "source,value,timestamp\r\n",
    "t,s,v,w\n",
    "a,1\n",
    "2026-11-20,a,1,\n",
    "\"\"",
    "\"a\nb\"",
    "2026-10-25 02:30",
    "ü",
    "\u{2028}",
    "NaN",
    "é,",
];

static CALENDAR: LazyLock<Calendar> = LazyLock::new(|| {
    let periods = vec![Period::Seconds(60), Period::Seconds(3_600), Period::Day];
    Calendar::new(periods, "Europe/Berlin".parse().unwrap()).unwrap()
});

fn batch(precision: Precision) -> Batch<'static> {
    Batch::new(&CALENDAR, Times { zone: CALENDAR.zone(), now: T0, precision }, true)
}

fn ndjson(chunks: &[&[u8]]) -> Result<Decoded, DecodeError> {
    let mut decoder = Ndjson::new(batch(Precision::Millis));
    chunks.iter().try_for_each(|chunk| decoder.feed(chunk))?;
    Ok(decoder.finish()?.finish())
}

fn table(shape: &Shape, chunks: &[&[u8]]) -> Result<Decoded, DecodeError> {
    let mut decoder = Csv::new(batch(Precision::Millis), shape.clone());
    chunks.iter().try_for_each(|chunk| decoder.feed(chunk))?;
    Ok(decoder.finish()?.finish())
}

fn whole_json(body: &[u8]) -> Result<Decoded, DecodeError> {
    let mut batch = batch(Precision::Millis);
    json::decode(body, &mut batch)?;
    Ok(batch.finish())
}

/// A narrow table, a wide one as the cases have it, and one whose columns are those of the narrow.
fn shapes() -> [Shape; 3] {
    let wide = |time: &str, source: &str, values: &str| {
        let values = values.split(',').map(str::to_owned).collect();
        Shape { time: Some(time.to_owned()), wide: Some(Wide { source: source.parse().unwrap(), values }) }
    };
    [Shape::default(), wide("t", "{s}.{column}", "v,w"), wide("now", "{source}", "value")]
}

/// The deltas by their minute: every reading has one, and perhaps a day beside it, where the zone was off
/// the grid.
fn minutes(decoded: &Decoded) -> impl Iterator<Item = &RootDeltas> {
    let deltas = decoded.parts.iter().flat_map(|part| &part.deltas);
    deltas.inspect(|deltas| assert_eq!(deltas.buckets[0].period, Period::Seconds(60)))
}

/// What is true of everything that was decoded.
#[track_caller]
fn check_whole(decoded: &Result<Decoded, DecodeError>, body: &[u8]) {
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let parts: usize = decoded.parts.iter().map(|part| part.readings).sum();
    assert_eq!(parts, decoded.readings);
    let counted: f64 = minutes(decoded).flat_map(|deltas| &deltas.sources).map(|(_, moments)| moments.count).sum();
    assert_eq!(counted, decoded.readings as f64);
    assert_eq!(decoded.errors.len(), decoded.error_count.min(MAX_ERRORS));
    let lines = body.iter().filter(|byte| matches!(byte, b'\n' | b'\r' | b',')).count() + 1;
    for error in &decoded.errors {
        assert!((1..=lines).contains(&error.line) && !error.reason.is_empty(), "{error:?}");
    }
    if let Some((earliest, latest)) = decoded.span {
        assert!(EARLIEST <= earliest && earliest <= latest && latest <= T0 + MAX_AHEAD, "{earliest} to {latest}");
    }
    assert_eq!(decoded.span.is_some(), decoded.readings > 0);
}

#[track_caller]
fn check_pieces(body: &[u8], pieces: &[&[u8]]) {
    let whole = ndjson(&[body]);
    check_whole(&whole, body);
    assert!(ndjson(pieces) == whole, "lines cut as {:?}", pieces.iter().map(|p| p.len()).collect::<Vec<_>>());
    for shape in shapes() {
        let whole = table(&shape, &[body]);
        check_whole(&whole, body);
        assert!(
            table(&shape, pieces) == whole,
            "rows of {shape:?} cut as {:?}",
            pieces.iter().map(|p| p.len()).collect::<Vec<_>>()
        );
    }
}

fn check(body: &[u8], places: &[Index]) {
    check_whole(&whole_json(body), body);
    check_pieces(body, &cut(body, places));
}

#[test]
fn kept_bodies_are_read_alike_however_they_are_cut() {
    replay("bodies", |body| {
        check(body, &[]);
        check_pieces(body, &body.chunks(1).collect::<Vec<_>>());
        // Everywhere in the short ones, at some places of the long ones.
        for place in (0..=body.len()).step_by(body.len() / 500 + 1) {
            check_pieces(body, &[&body[..place], &body[place..]]);
        }
    });
}

#[test]
fn bodies_are_read_alike_however_they_are_cut() {
    run((input("bodies", PIECES), vec(any::<Index>(), 0..5)), |(body, places)| check(&body, &places));
}

/// A reading that has to arrive as it is.
type Reading = (String, f64, Millis);

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let value = prop_oneof![
        -1e140..1e140_f64,
        -100.0..100.0_f64,
        any::<i32>().prop_map(f64::from),
        (0..1_u64 << 40).prop_map(f64::from_bits),
        Just(-0.0),
    ];
    let time = prop_oneof![EARLIEST..T0 + MAX_AHEAD, T0 - 5 * MINUTE..T0];
    vec((id(), value, time), 0..30)
}

/// Count, least and greatest value of each source and minute.
type Folded = BTreeMap<(String, Millis), (u64, f64, f64)>;

fn folded(decoded: &Decoded) -> Folded {
    let mut folded = Folded::new();
    for deltas in minutes(decoded) {
        for (source, m) in &deltas.sources {
            let entry = folded.entry((source.to_string(), deltas.buckets[0].start)).or_insert((0, m.min, m.max));
            *entry = (entry.0 + m.count as u64, entry.1.min(m.min), entry.2.max(m.max));
        }
    }
    folded
}

/// The time as text, or where no unit is in doubt as a number.
fn stamp(t: Millis, quote: &str) -> String {
    if t > T0 - 10 * MINUTE { t.to_string() } else { format!("{quote}{}{quote}", timestamp::format(t)) }
}

fn object((source, value, time): &Reading) -> String {
    let source = serde_json::to_string(source).unwrap();
    format!(r#"{{"source":{source},"value":{value:e},"timestamp":{}}}"#, stamp(*time, "\""))
}

#[test]
fn what_is_written_in_any_format_reads_back() {
    run(readings(), |readings| {
        let mut expected = Folded::new();
        for (source, value, time) in &readings {
            let minute = time.div_euclid(MINUTE) * MINUTE;
            let entry = expected.entry((source.clone(), minute)).or_insert((0, *value, *value));
            *entry = (entry.0 + 1, entry.1.min(*value), entry.2.max(*value));
        }
        let objects: Vec<String> = readings.iter().map(object).collect();
        let lines = objects.iter().fold(String::new(), |mut text, object| {
            writeln!(text, "{object}").unwrap();
            text
        });
        let mut rows = csv::Writer::from_writer(Vec::new());
        rows.write_record(["source", "value", "timestamp"]).unwrap();
        for (source, value, time) in &readings {
            rows.write_record([source, &value.to_string(), &stamp(*time, "")]).unwrap();
        }
        let rows = rows.into_inner().unwrap();
        let shape = Wide { source: "{source}".parse().unwrap(), values: vec!["value".to_owned()] };
        let wide = Shape { time: Some("timestamp".to_owned()), wide: Some(shape) };
        let ways = [
            ("an array", whole_json(format!("[{}]", objects.join(",")).as_bytes())),
            ("lines", ndjson(&[lines.as_bytes()])),
            ("a narrow table", table(&Shape::default(), &[&rows])),
            ("a wide table", table(&wide, &[&rows])),
        ];
        for (way, decoded) in ways {
            let decoded = decoded.unwrap_or_else(|error| panic!("{way}: {error}"));
            assert_eq!(decoded.errors, [], "{way}");
            assert_eq!(folded(&decoded), expected, "{way}");
        }
    });
}

#[test]
fn zones_do_not_move_instants() {
    let zone: Zone = "Asia/Kolkata".parse().unwrap();
    run(EARLIEST..T0, |t| {
        let times = Times { zone: &zone, now: T0, precision: Precision::Millis };
        assert_eq!(times.of_text(&timestamp::format(t)), Ok(t));
    });
}
