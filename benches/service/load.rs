//! Readings by the million: what is sent, over how many connections, and what it cost.
//!
//! Used by the ingest section for the service and for the baseline, which get readings of the same
//! distribution. Requests are built before anything is measured; while it is measured only their
//! timestamps are renewed. The client's own CPU seconds are not counted.

use crate::client::{Client, KEY_HEADER, post_readings, post_readings_as, post_readings_under};
use crate::processes::{Redis, Service};
use crate::random::Random;
use crate::resp::Pipeline;
use anyhow::Result;
use meanwhile::clock::{self, Clock};
use meanwhile::stats::Millis;
use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Readings in a request and in a pipeline.
pub(crate) const BATCH: usize = 1_000;
/// Sources the readings are drawn from, all equally likely.
pub(crate) const SOURCES: u64 = 1_000;
const SEED: u64 = 0x6d65_616e;
/// Requests built beforehand, over all connections: 20 MB, far more than the caches hold.
const POOL: usize = 256;
/// Digits of a timestamp that are renewed: the seconds. The milliseconds stay as they were drawn.
const SECONDS_DIGITS: usize = 10;
/// Digits of an idempotency key.
const KEY_DIGITS: usize = 20;
/// Counts the keys: none is used twice in a run of this program.
static KEYS: AtomicU64 = AtomicU64::new(0);
/// What is left to do after the last answer, such as syncing a file, is part of the cost.
const AFTERMATH: Duration = Duration::from_millis(1_500);

/// One reading before it has a time: a source's number and hundredths of its unit.
struct Draw {
    source: u64,
    hundredths: u32,
}

impl Draw {
    /// A temperature between 15.00 and 24.99.
    fn new(random: &mut Random) -> Self {
        Self { source: random.below(SOURCES), hundredths: 1_500 + random.below(1_000) as u32 }
    }

    fn value(&self) -> f64 {
        f64::from(self.hundredths) / 100.0
    }
}

/// What is sent beside the readings.
#[derive(Clone, Copy)]
enum Kind<'t> {
    Plain,
    /// A new idempotency key for each batch.
    Keyed,
    /// A token.
    As(&'t str),
}

/// A request that can be sent again and again, always with times of the last second.
struct Batch {
    request: Vec<u8>,
    /// Where the timestamps begin.
    stamps: Vec<usize>,
    /// Where its idempotency key begins, if it has one.
    key: Option<usize>,
}

impl Batch {
    fn new(random: &mut Random, kind: Kind<'_>) -> Self {
        let mut lines = Vec::new();
        let mut stamps = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let draw = Draw::new(random);
            let (source, value, millis) = (draw.source, draw.value(), random.below(1_000));
            write!(lines, "{{\"source\":\"station-{source:04}.temp\",\"value\":{value:.2},\"timestamp\":")
                .expect("memory takes everything");
            stamps.push(lines.len());
            writeln!(lines, "{:0SECONDS_DIGITS$}{millis:03}}}", 0).expect("memory takes everything");
        }
        let request = match kind {
            Kind::Plain => post_readings(&lines),
            Kind::Keyed => post_readings_under(&format!("{:0KEY_DIGITS$}", 0), &lines),
            Kind::As(token) => post_readings_as(token, &lines),
        };
        let head = request.len() - lines.len();
        for at in &mut stamps {
            *at += head;
        }
        let key = String::from_utf8_lossy(&request[..head]).find(KEY_HEADER).map(|at| at + KEY_HEADER.len());
        Self { request, stamps, key }
    }

    /// Renews the times, whole seconds before `now`, so that no reading comes from the future; and the key.
    fn stamp(&mut self, now: Millis) {
        let seconds = format!("{:0SECONDS_DIGITS$}", now / 1_000 - 1);
        for &at in &self.stamps {
            self.request[at..at + SECONDS_DIGITS].copy_from_slice(seconds.as_bytes());
        }
        if let Some(at) = self.key {
            let key = format!("{:0KEY_DIGITS$}", KEYS.fetch_add(1, Ordering::Relaxed));
            self.request[at..at + KEY_DIGITS].copy_from_slice(key.as_bytes());
        }
    }
}

/// What a load has cost.
pub(crate) struct Cost {
    pub(crate) readings: usize,
    /// CPU seconds of the service.
    pub(crate) service: f64,
    /// CPU seconds of Redis, 0 without one.
    pub(crate) redis: f64,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// From the first byte of a request to its answer; half of the batches were faster.
    pub(crate) p50: Duration,
    /// 99 of 100 batches were faster.
    pub(crate) p99: Duration,
}

impl Cost {
    /// CPU seconds per million acknowledged readings.
    pub(crate) fn per_million(&self, cpu_seconds: f64) -> f64 {
        cpu_seconds * 1e6 / self.readings as f64
    }

    pub(crate) fn total_per_million(&self) -> f64 {
        self.per_million(self.service + self.redis)
    }
}

/// Posts `readings` (rounded up to whole batches) over `connections` that each send their next
/// batch when the last one was acknowledged.
pub(crate) fn run(service: &Service, connections: usize, readings: usize) -> Result<Cost> {
    run_load(service, connections, readings, Kind::Plain)
}

/// The same with an idempotency key for each batch.
pub(crate) fn run_keyed(service: &Service, connections: usize, readings: usize) -> Result<Cost> {
    run_load(service, connections, readings, Kind::Keyed)
}

/// The same with a token, for a service that asks for one.
pub(crate) fn run_as(service: &Service, token: &str, connections: usize, readings: usize) -> Result<Cost> {
    run_load(service, connections, readings, Kind::As(token))
}

fn run_load(service: &Service, connections: usize, readings: usize, kind: Kind<'_>) -> Result<Cost> {
    let batches = readings.div_ceil(BATCH);
    let mut random = Random::new(SEED);
    let mut pools: Vec<Vec<Batch>> = Vec::new();
    pools.resize_with(connections, || (0..POOL.div_ceil(connections)).map(|_| Batch::new(&mut random, kind)).collect());
    // Warm: connections accepted, scripts loaded, memory taken.
    post(service, &mut pools, POOL)?;

    let before = cpu_seconds(service)?;
    let started = clock::instant();
    let mut times = post(service, &mut pools, batches)?;
    let took = started.elapsed();
    thread::sleep(AFTERMATH);
    let after = cpu_seconds(service)?;

    times.sort_unstable();
    Ok(Cost {
        readings: batches * BATCH,
        service: after.0 - before.0,
        redis: after.1 - before.1,
        took,
        p50: percentile(&times, 50),
        p99: percentile(&times, 99),
    })
}

/// CPU seconds of the service and of its Redis.
fn cpu_seconds(service: &Service) -> Result<(f64, f64)> {
    let redis = service.redis.as_ref().map_or(Ok(0.0), |redis| redis.process.cpu_seconds())?;
    Ok((service.process.cpu_seconds()?, redis))
}

/// Posts `batches` in all, one connection per pool; returns how long each took.
fn post(service: &Service, pools: &mut [Vec<Batch>], batches: usize) -> Result<Vec<Duration>> {
    let taken = &AtomicUsize::new(0);
    thread::scope(|scope| {
        let connections: Vec<_> = pools
            .iter_mut()
            .map(|pool| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut client = Client::connect(service.address)?;
                    let mut times = Vec::new();
                    let mut turn = 0;
                    while taken.fetch_add(1, Ordering::Relaxed) < batches {
                        let length = pool.len();
                        let batch = &mut pool[turn % length];
                        turn += 1;
                        batch.stamp(Clock::System.now());
                        let sent = clock::instant();
                        client.deliver(&batch.request, BATCH)?;
                        times.push(sent.elapsed());
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut times = Vec::with_capacity(batches);
        for connection in connections {
            times.extend(connection.join().expect("a connection returns its errors")?);
        }
        Ok(times)
    })
}

/// The smallest of the sorted times that at least `percent` of them do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

/// The same readings without the service: each is one count and two sums in the hash of its source
/// and minute, sent 1,000 readings a pipeline. Returns Redis' CPU seconds per million readings.
pub(crate) fn run_baseline(redis: &Redis, readings: usize) -> Result<f64> {
    let batches = readings.div_ceil(BATCH);
    let mut random = Random::new(SEED);
    let minute = Clock::System.now() / 60_000;
    let pipelines: Vec<Pipeline> = (0..POOL).map(|_| baseline_pipeline(&mut random, minute)).collect();
    let mut connection = redis.connect()?;
    for pipeline in &pipelines {
        connection.run(pipeline)?;
    }

    let before = redis.process.cpu_seconds()?;
    for pipeline in pipelines.iter().cycle().take(batches) {
        connection.run(pipeline)?;
    }
    thread::sleep(AFTERMATH);
    Ok((redis.process.cpu_seconds()? - before) * 1e6 / (batches * BATCH) as f64)
}

fn baseline_pipeline(random: &mut Random, minute: Millis) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for _ in 0..BATCH {
        let draw = Draw::new(random);
        let key = format!("station-{:04}.temp:{minute}", draw.source);
        let value = draw.value();
        pipeline.integer(&["HINCRBY", &key, "count", "1"]);
        pipeline.string(&["HINCRBYFLOAT", &key, "sum", &value.to_string()]);
        pipeline.string(&["HINCRBYFLOAT", &key, "sum_sq", &(value * value).to_string()]);
    }
    pipeline
}
