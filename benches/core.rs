//! The core without network and store: decoding and folding a batch, and the arithmetic of moments.
//!
//! `cargo bench --bench core`. Figures are per reading (or per state); the batch is the one of the
//! architecture page, 1,000 readings over 1,000 sources in one minute. The whole service under load
//! is in `service/`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use meanwhile::auth::file::{Entries, Entry};
use meanwhile::auth::{Auth, Scope, token};
use meanwhile::clock;
use meanwhile::ingest::decode::columns::{Shape, Wide};
use meanwhile::ingest::decode::csv::Csv;
use meanwhile::ingest::decode::ndjson::Ndjson;
use meanwhile::ingest::decode::time::{Precision, Times};
use meanwhile::ingest::decode::{Batch, json};
use meanwhile::ingest::fold::Folder;
use meanwhile::stats::calendar::{Calendar, Period, Zone};
use meanwhile::stats::layout;
use meanwhile::stats::moments::Moments;
use std::hint::black_box;

const READINGS: usize = 1_000;
/// 2026-11-20T05:00:00Z.
const NOW: i64 = 1_795_150_800_000;

fn calendar() -> Calendar {
    Calendar::new(vec![Period::Seconds(60), Period::Seconds(3_600), Period::Day], Zone::utc()).unwrap()
}

fn batch(calendar: &Calendar) -> Batch<'_> {
    Batch::new(calendar, Times { zone: calendar.zone(), now: NOW, precision: Precision::Millis }, false)
}

fn sources(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("building-7.floor-{}.sensor-{i:04}", i % 12)).collect()
}

/// One reading per source; the timestamp as it would stand in JSON.
fn lines(timestamp: impl Fn(usize) -> String) -> Vec<String> {
    let line = |(i, source): (usize, String)| {
        let value = 20.0 + (i % 97) as f64 * 0.137;
        format!(r#"{{"source":"{source}","value":{value:.3},"timestamp":{}}}"#, timestamp(i))
    };
    sources(READINGS).into_iter().enumerate().map(line).collect()
}

fn decode(c: &mut Criterion) {
    let calendar = calendar();
    let mut group = c.benchmark_group("decode and fold, per reading");
    group.throughput(Throughput::Elements(READINGS as u64));
    let text = |i: usize| format!("\"2026-11-20T04:59:{:02}.{:03}Z\"", i % 60, i % 1_000);
    let offset = |i: usize| format!("\"2026-11-20T05:59:{:02}.{:03}+01:00\"", i % 60, i % 1_000);
    let number = |i: usize| (NOW as u64 - 60_000 + i as u64).to_string();
    for (name, lines) in [("text", lines(text)), ("offset", lines(offset)), ("number", lines(number))] {
        let ndjson = lines.join("\n");
        group.bench_function(format!("ndjson, {name} timestamp"), |b| {
            b.iter(|| {
                let mut decoder = Ndjson::new(batch(&calendar));
                decoder.feed(ndjson.as_bytes()).unwrap();
                decoder.finish().unwrap().finish()
            });
        });
        let array = format!("[{}]", lines.join(","));
        group.bench_function(format!("json array, {name} timestamp"), |b| {
            b.iter(|| {
                let mut batch = batch(&calendar);
                json::decode(array.as_bytes(), &mut batch).unwrap();
                batch.finish()
            });
        });
    }
}

/// The sample data as it comes over HTTP: six readings a row, local times with an offset.
fn table(c: &mut Criterion) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/stations/stations.csv");
    let table = std::fs::read(file).expect("the sample data");
    let header = table.split(|byte| *byte == b'\n').next().expect("a header");
    let columns = std::str::from_utf8(header).expect("text").split(',').skip(1);
    let wide = Wide { source: "{column}".parse().unwrap(), values: columns.map(str::to_owned).collect() };
    let shape = Shape { time: Some("time".to_owned()), wide: Some(wide) };
    let calendar = calendar();
    let decode = || {
        let mut decoder = Csv::new(batch(&calendar), shape.clone());
        decoder.feed(&table).unwrap();
        decoder.finish().unwrap().finish()
    };
    let mut group = c.benchmark_group("decode and fold a table, per reading");
    group.throughput(Throughput::Elements(decode().readings as u64));
    group.bench_function("csv, wide, three days of minutes", |b| b.iter(decode));
}

fn fold(c: &mut Criterion) {
    let calendar = calendar();
    let mut group = c.benchmark_group("fold, per reading");
    for (name, readings, sources) in [
        ("1,000 readings of 1,000 sources", 1_000, sources(1_000)),
        ("2,000 readings of 10 sources", 2_000, sources(10)),
        ("100,000 readings of 1,000 sources", 100_000, sources(1_000)),
    ] {
        group.throughput(Throughput::Elements(readings));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut folder = Folder::new(&calendar);
                for i in 0..readings as usize {
                    folder.push(&sources[i % sources.len()], i as f64, NOW).unwrap();
                }
                folder.finish()
            });
        });
    }
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 minutes of one source", |b| {
        b.iter(|| {
            let mut folder = Folder::new(&calendar);
            for i in 0..1_000 {
                folder.push("a", 1.0, NOW - 60_000 * i).unwrap();
            }
            folder.finish()
        });
    });
}

fn moments(c: &mut Criterion) {
    let mut group = c.benchmark_group("moments");
    let values: Vec<f64> = (0..READINGS).map(|i| 1e7 + i as f64 * 0.1).collect();
    let states: Vec<Moments> = values.iter().map(|&value| Moments::of(value)).collect();
    let bytes: Vec<_> = states.iter().map(layout::encode).collect();
    group.throughput(Throughput::Elements(READINGS as u64));
    group.bench_function("push", |b| {
        b.iter(|| {
            let mut moments = Moments::EMPTY;
            for &value in black_box(&values) {
                moments.push(value);
            }
            moments
        });
    });
    group.bench_function("merge", |b| {
        b.iter(|| {
            let mut moments = Moments::EMPTY;
            for state in black_box(&states) {
                moments.merge(state);
            }
            moments
        });
    });
    group.bench_function("merge of bytes", |b| {
        b.iter_batched(
            || bytes[0].to_vec(),
            |start| bytes.iter().fold(start, |sum, state| layout::merge(&sum, state).unwrap()),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(1));
    let mut all = Moments::EMPTY;
    for state in &states {
        all.merge(state);
    }
    group.bench_function("mean and variance", |b| b.iter(|| (black_box(&all).mean(), black_box(&all).var_pop())));
}

/// What it takes to know who asks, and what may be asked for, among a thousand.
fn tokens(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("auth.toml");
    let secrets: Vec<String> = (0..1_000).map(|_| token::generate()).collect();
    let entry = |(n, secret): (usize, &String)| Entry {
        id: format!("{n}"),
        name: format!("token-{n}"),
        hash: Some(token::hash(secret)),
        scopes: vec![Scope::Ingest],
        sources: Some(vec!["other*".to_owned(), "building-7.*".to_owned()]),
        rate: Some(1_000_000_000),
        ..Entry::default()
    };
    let written = Entries::change(&file, |entries| {
        entries.tokens = secrets.iter().enumerate().map(entry).collect();
        Ok(())
    });
    written.expect("a file");
    let auth = Auth::open(&file).expect("a file of tokens");
    let mut group = c.benchmark_group("tokens");
    let mut next = secrets.iter().cycle();
    group.bench_function("a token of a thousand", |b| b.iter(|| auth.by_token(next.next().unwrap(), NOW).is_ok()));
    let identity = auth.by_token(&secrets[0], NOW).expect("a token");
    let now = clock::instant();
    group.bench_function("a rate", |b| b.iter(|| identity.allowance.take(black_box(1), now)));
    let sources = sources(READINGS);
    group.throughput(Throughput::Elements(READINGS as u64));
    group.bench_function("a source by pattern", |b| {
        b.iter(|| black_box(&sources).iter().all(|source| identity.has_source(source)));
    });
}

criterion_group!(benches, decode, table, fold, moments, tokens);
criterion_main!(benches);
