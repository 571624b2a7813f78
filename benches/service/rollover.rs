//! What a large rollover does to others: a minute of 100,000 sources goes from Redis to the sink while an ordinary
//! client posts, into CSV files and into a PostgreSQL table.
//!
//! The minute lies so far back that it is written, closed and moved up into its hour in one go, some seconds after
//! its last reading. The client posts one reading at a time, before and meanwhile; its p99 and the memory of
//! the service are looked at. What the table costs PostgreSQL is in `postgres.rs`.

use crate::client::{Client, post_readings};
use crate::postgres_server::Postgres;
use crate::processes::{Service, StoreKind};
use crate::report::Goal;
use anyhow::{Result, bail};
use meanwhile::clock::{self, Clock};
use meanwhile::stats::Millis;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const SOURCES: usize = 100_000;
/// Sources posted in one request.
const BATCH: usize = 1_000;
const MINUTE: Millis = 60_000;
/// The bucket is due 10 s after its last reading, time enough for the posts before; no wait for a store that may
/// forget, which would only dilute the posts meanwhile.
const FLAGS: [&str; 8] = ["--periods", "1m,1h,1d", "--grace", "10s", "--lateness", "1m", "--hold", "0s"];
/// After each post of the ordinary client.
const PAUSE: Duration = Duration::from_millis(4);
/// How often the service is asked how it stands: that answer costs next to nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_mins(2);
/// Rollovers of each sink; the one with the smaller p99 counts, because what else the machine does only ever adds.
const ROUNDS: u32 = 3;
const GOAL_TIMES: f64 = 3.0;
const GOAL_MIB: f64 = 64.0;

/// Prints times and memory and returns the goals.
pub(crate) fn measure(binary: &Path, counts: bool) -> Result<Vec<Goal>> {
    println!("\nRollover: a minute of {SOURCES} sources in Redis, single posts before and meanwhile");
    println!(
        "{:12}{:>14}{:>14}{:>14}{:>14}{:>14}",
        "", "p99 before ms", "meanwhile ms", "times", "it took s", "memory MiB"
    );
    let server = Postgres::start()?;
    let mut goals = Vec::new();
    for (sink, url) in [("csv", None), ("postgres", Some(server.url()))] {
        let flags: Vec<&str> = FLAGS.into_iter().chain(url.iter().flat_map(|url| ["--sink", url.as_str()])).collect();
        let service = Service::start(binary, StoreKind::Redis, &flags)?;
        let (mut times, mut memory) = (f64::INFINITY, 0.0_f64);
        for round in 0..ROUNDS {
            let rollover = Rollover::watch(&service, round)?;
            rollover.print(sink);
            (times, memory) = (times.min(rollover.times()), memory.max(rollover.memory_mib));
        }
        goals.push(Goal::new(
            format!("rollover to {sink}: p99 of posts, times that before"),
            times,
            GOAL_TIMES,
            counts,
        ));
        goals.push(Goal::new(format!("rollover to {sink}: memory of the service, MiB more"), memory, GOAL_MIB, true));
    }
    Ok(goals)
}

/// One rollover as it was seen from outside.
struct Rollover {
    p99_before: Duration,
    p99_meanwhile: Duration,
    took: Duration,
    /// The highest during it, over what was in use before.
    memory_mib: f64,
}

impl Rollover {
    fn watch(service: &Service, round: u32) -> Result<Self> {
        // Minutes that are past their lateness, each round another.
        let minute = (Clock::System.now() / MINUTE - 3 - Millis::from(round)) * MINUTE;
        fill(service, minute)?;
        let before = service.process.resident_kib()?;
        service.process.forget_peak()?;
        let done = &AtomicBool::new(false);
        let (posts, window) = scope(|scope| {
            let client = scope.spawn(move || post_until(service.address, done));
            let window = wait_for(service.address, minute);
            done.store(true, Ordering::Relaxed);
            (client.join().expect("it returns"), window)
        });
        let (posts, (from, to)) = (posts?, window?);
        let p99 = |during: &dyn Fn(Instant) -> bool| {
            let mut times: Vec<Duration> = posts.iter().filter(|post| during(post.0)).map(|post| post.1).collect();
            times.sort_unstable();
            times.get(times.len() * 99 / 100).copied().unwrap_or_default()
        };
        let memory_mib = service.process.peak_kib()?.saturating_sub(before) as f64 / 1_024.0;
        let p99_meanwhile = p99(&|at| from <= at && at <= to);
        Ok(Self { p99_before: p99(&|at| at < from), p99_meanwhile, took: to - from, memory_mib })
    }

    fn times(&self) -> f64 {
        self.p99_meanwhile.as_secs_f64() / self.p99_before.as_secs_f64()
    }

    fn print(&self, sink: &str) {
        let (before, meanwhile) = (self.p99_before.as_secs_f64() * 1e3, self.p99_meanwhile.as_secs_f64() * 1e3);
        let (times, took, memory) = (self.times(), self.took.as_secs_f64(), self.memory_mib);
        println!("{sink:12}{before:14.2}{meanwhile:14.2}{times:14.2}{took:14.2}{memory:14.1}");
    }
}

/// A reading of each source in one minute.
fn fill(service: &Service, minute: Millis) -> Result<()> {
    let mut client = Client::connect(service.address)?;
    for first in (0..SOURCES).step_by(BATCH) {
        let mut lines = String::new();
        for source in first..first + BATCH {
            let value = 20.0 + (source % 97) as f64 * 0.13;
            writeln!(lines, r#"{{"source":"station-{source:05}.temperature","value":{value},"timestamp":{minute}}}"#)?;
        }
        client.deliver(&post_readings(lines.as_bytes()), BATCH)?;
    }
    Ok(())
}

/// Posts one reading after the other; when each was sent, and how long it took.
fn post_until(address: SocketAddr, done: &AtomicBool) -> Result<Vec<(Instant, Duration)>> {
    let request = post_readings(br#"{"source":"ordinary","value":21.5}"#);
    let mut client = Client::connect(address)?;
    let mut posts = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let sent = clock::instant().into_std();
        client.deliver(&request, 1)?;
        posts.push((sent, sent.elapsed()));
        sleep(PAUSE);
    }
    Ok(posts)
}

/// When the bucket was seen to be taken up, and when it was closed.
fn wait_for(address: SocketAddr, minute: Millis) -> Result<(Instant, Instant)> {
    let mut client = Client::connect(address)?;
    let row = format!("/v1/stats?source=station-00000.temperature&period=1m&from={minute}&to={}", minute + MINUTE);
    let (started, mut from) = (clock::instant().into_std(), None);
    while started.elapsed() < TIMEOUT {
        sleep(LOOK_EVERY);
        let now = clock::instant().into_std();
        if client.get("/readyz?exclude=sink")?["rollover"]["waiting_buckets"] != 0 {
            from = from.or(Some(now));
        } else if let Some(began) = from.take()
            // Else it was another bucket, of the ordinary client.
            && client.get(&row)?["rows"][0]["state"] == "closed"
        {
            return Ok((began, now));
        }
    }
    bail!("the bucket is not closed after {TIMEOUT:?}")
}
