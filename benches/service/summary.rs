//! What a summary costs the service: a month of 10,000 sources, from CSV files and from PostgreSQL.
//!
//! The sinks hold what a service with hours and days has written: 300,000 rows of days, and the hours of the days at both
//! ends. The month is asked for from noon to noon, so that its ends are put together from hours: half a million rows
//! in all. CPU seconds of the service alone; those of PostgreSQL are its own.

use crate::client::Client;
use crate::postgres_server::Postgres;
use crate::processes::{Service, StoreKind, directory};
use crate::report::Goal;
use anyhow::{Result, ensure};
use meanwhile::sink::Sink;
use meanwhile::sink::csv::CsvSink;
use meanwhile::sink::postgres::PostgresSink;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Period, Zone};
use meanwhile::stats::moments::Moments;
use meanwhile::stats::row::Row;
use std::path::Path;

const SOURCES: usize = 10_000;
const DAYS: i64 = 30;
const HOUR: Millis = 3_600_000;
const DAY: Millis = 24 * HOUR;
/// 2026-06-01T00:00:00Z.
const FIRST: Millis = 1_780_272_000_000;
const GOAL_CSV: f64 = 3.0;
const GOAL_POSTGRES: f64 = 1.5;
/// Memory does not depend on how much is summed up.
const GOAL_MIB: f64 = 192.0;

/// Prints the costs and returns the goals.
pub(crate) fn measure(binary: &Path) -> Result<Vec<Goal>> {
    println!("\nSummary: {SOURCES} sources, {DAYS} days, CPU seconds of the service and MiB it takes up meanwhile");
    println!("{:12}{:>16}{:>16}{:>16}{:>16}", "", "whole days", "noon to noon", "by=none", "MiB");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let dir = directory()?;
    let files = dir.path().join("csv");
    runtime.block_on(async {
        let sink = CsvSink::open(&files, Zone::utc())?;
        fill(&sink).await?;
        for partition in sink.compactable(FIRST + 2 * DAYS * DAY).await? {
            sink.compact(&partition).await?;
        }
        anyhow::Ok(())
    })?;
    let server = Postgres::start()?;
    runtime.block_on(async {
        let sink = PostgresSink::new(&server.url(), "postgres".to_owned())?;
        sink.prepare().await?;
        fill(&sink).await
    })?;
    server.sql(&["VACUUM (ANALYZE) bucket_stats, sources", "CHECKPOINT"])?;
    let mut goals = Vec::new();
    for (name, url, goal) in
        [("csv", format!("csv:{}", files.display()), GOAL_CSV), ("postgres", server.url(), GOAL_POSTGRES)]
    {
        let flags = ["--periods", "1h,1d", "--sink", url.as_str()];
        let service = Service::start(binary, StoreKind::Embedded, &flags)?;
        let mut client = Client::connect(service.address)?;
        let resident = service.process.resident_kib()?;
        service.process.forget_peak()?;
        let mut costs = [0.0; 3];
        let half = DAY / 2;
        let questions = [(0, "source", SOURCES), (half, "source", SOURCES), (half, "none", 1)];
        for (cost, (shift, by, rows)) in costs.iter_mut().zip(questions) {
            let before = service.process.cpu_seconds()?;
            let (from, to) = (FIRST + shift, FIRST + shift + DAYS * DAY);
            let answer = client.get(&format!("/v1/summary?prefix=&from={from}&to={to}&by={by}"))?;
            let got = answer["rows"].as_array().map_or(0, Vec::len);
            ensure!(got == rows, "{got} rows of {rows}");
            *cost = service.process.cpu_seconds()? - before;
        }
        let mib = service.process.peak_kib()?.saturating_sub(resident) as f64 / 1_024.0;
        println!("{name:12}{:16.2}{:16.2}{:16.2}{mib:16.1}", costs[0], costs[1], costs[2]);
        goals.push(Goal::new(format!("summary from {name}: CPU seconds, whole days"), costs[0], goal, true));
        goals.push(Goal::new(format!("summary from {name}: MiB more"), mib, GOAL_MIB, true));
    }
    Ok(goals)
}

/// A month and a day of days, and the hours of the first and the last day.
async fn fill(sink: &dyn Sink) -> Result<()> {
    for day in 0..=DAYS {
        let start = FIRST + day * DAY;
        sink.put(rows(Bucket { period: Period::Day, start, end: start + DAY })).await?;
        if day == 0 || day == DAYS {
            for hour in 0..24 {
                let start = start + hour * HOUR;
                sink.put(rows(Bucket { period: Period::Seconds(3_600), start, end: start + HOUR })).await?;
            }
        }
    }
    Ok(())
}

/// A bucket of all sources.
fn rows(bucket: Bucket) -> Vec<Row> {
    let row = |source: usize| {
        let mut state = Moments::EMPTY;
        for reading in 0..4 {
            state.push(20.0 + source as f64 / 977.0 + f64::from(reading) / 97.0);
        }
        let source = format!("station-{source:05}.temperature").into();
        Row { source, bucket, generation: 1, gen_count: state.count, revision: 1, base: None, state }
    };
    (0..SOURCES).map(row).collect()
}
