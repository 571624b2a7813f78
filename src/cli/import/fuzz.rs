//! Arbitrary tables: a file that is imported says what it says when it is posted.
//!
//! The rows of a file are read by `table.rs`, those of a request by `ingest/decode/csv.rs`. Arbitrary
//! requests are in tests/it/fuzz.

use super::batches::Batches;
use super::table::Shape;
use crate::cli::client::LineProblem;
use crate::ingest::decode::columns::{self, Wide};
use crate::ingest::decode::csv::Csv;
use crate::ingest::decode::ndjson::Ndjson;
use crate::ingest::decode::time::{Precision, Times};
use crate::ingest::decode::{self, Decoded};
use crate::stats::Millis;
use crate::stats::calendar::{Calendar, Period};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A folded table: count, least and greatest value by source and minute; and the bad lines.
type Folded = (BTreeMap<(String, Millis), (f64, f64, f64)>, BTreeSet<u64>);

fn add(decoded: &Decoded, folded: &mut Folded) {
    for deltas in decoded.parts.iter().flat_map(|part| &part.deltas) {
        for (source, m) in &deltas.sources {
            let entry = folded.0.entry((source.to_string(), deltas.buckets[0].start)).or_insert((0.0, m.min, m.max));
            *entry = (entry.0 + m.count, entry.1.min(m.min), entry.2.max(m.max));
        }
    }
}

/// What the service makes of a table that is posted to it; `None` if it refuses the header.
fn posted(calendar: &Calendar, times: Times<'_>, shape: &columns::Shape, table: &[u8]) -> Option<Folded> {
    let mut decoder = Csv::new(decode::Batch::new(calendar, times, false), shape.clone());
    decoder.feed(table).ok()?;
    let decoded = decoder.finish().ok()?.finish();
    let mut folded = (BTreeMap::new(), decoded.errors.iter().map(|error| error.line as u64).collect());
    add(&decoded, &mut folded);
    Some(folded)
}

/// The same of a file with this content that is imported.
fn imported(calendar: &Calendar, times: Times<'_>, shape: &columns::Shape, table: &[u8]) -> Option<Folded> {
    let mut batches = Batches::csv(table, &Shape { columns: shape.clone(), zone: None }).ok()?;
    let mut folded = Folded::default();
    while let Some(batch) = batches.next().unwrap() {
        let mut decoder = Ndjson::new(decode::Batch::new(calendar, times, false));
        decoder.feed(&batch.body).unwrap();
        let decoded = decoder.finish().unwrap().finish();
        let located = decoded.errors.iter().map(|error| {
            let (field, reason) = (error.field.clone(), error.reason.clone());
            batch.locate(&LineProblem { line: error.line as u64, field, reason }).line
        });
        folded.1.extend(located.chain(batch.errors.iter().map(|problem| problem.line)));
        add(&decoded, &mut folded);
    }
    Some(folded)
}

/// A table that is imported says what it says when it is posted.
fn check_both_ways(table: &[u8]) {
    let calendar = Calendar::new(vec![Period::Seconds(60)], "Europe/Berlin".parse().unwrap()).unwrap();
    let times = Times { zone: calendar.zone(), now: 1_795_150_800_000, precision: Precision::Millis };
    let wide = |source: &str, values: &[&str]| {
        let values = values.iter().map(|&name| name.to_owned()).collect();
        columns::Shape { time: Some("t".to_owned()), wide: Some(Wide { source: source.parse().unwrap(), values }) }
    };
    for shape in [columns::Shape::default(), wide("{s}.{column}", &["v", "w"])] {
        let (posted, imported) = (posted(&calendar, times, &shape, table), imported(&calendar, times, &shape, table));
        // A body of nothing is no reading, a file of nothing is a mistake.
        if imported.is_none() && posted == Some(Folded::default()) {
            continue;
        }
        let mut bad = [&imported, &posted].map(|folded| folded.as_ref().map(|(_, bad)| bad.clone()));
        if let [Some(imported), Some(posted)] = &mut bad
            && shape.wide.is_some()
        {
            // A row without any value is not sent, and nobody sees that its time is none.
            posted.retain(|line| imported.contains(line));
        }
        assert_eq!(bad[0], bad[1], "{shape:?} {:?}", String::from_utf8_lossy(table));
        let [imported, posted] = [imported, posted].map(|folded| folded.map(|(folded, _)| folded));
        assert_eq!(imported, posted, "{shape:?} {:?}", String::from_utf8_lossy(table));
    }
}

const PIECES: &[&str] = &[
    "source,value\n",
    "t,s,v,w\n",
    "source,value,timestamp\r\n",
    "a,1\n",
    "2026-11-19,a,1,\n",
    "\n",
    "\r\n",
    "\r",
    ",",
    "\"",
    "\"\"",
    "\"a\nb\"",
    "a",
    "b",
    "1",
    "-0",
    "1e400",
    "nan",
    "2026-10-25 02:30",
    "1795150740000",
    " ",
    "\t",
    "\u{feff}",
    "ü",
    "\0",
];

proptest! {
    #[test]
    fn tables_say_the_same_both_ways(
        head in 0..3_usize,
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..30),
        noise in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        check_both_ways(&[PIECES[head].as_bytes(), pieces.concat().as_bytes(), &noise].concat());
        check_both_ways(pieces.concat().as_bytes());
    }
}

#[test]
fn kept_tables_say_the_same_both_ways() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/bodies")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            check_both_ways(&std::fs::read(&path).unwrap());
        }
    }
}
