//! What an open bucket costs in Redis: bytes per source.
//!
//! Nothing closes while it is measured: all readings carry one timestamp, and the bucket is not due
//! for an hour after its end.

use crate::client::{Client, post_readings};
use crate::processes::{Redis, Service, StoreKind};
use crate::report::Goal;
use anyhow::{Context, Result};
use meanwhile::clock::Clock;
use std::fmt::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const SOURCES: usize = 100_000;
/// Sources posted in one request.
const BATCH: usize = 1_000;
/// Each source is merged more than once, so that what is measured is a state in use.
const ROUNDS: usize = 3;
const FLAGS: [&str; 6] = ["--periods", "1h", "--grace", "1h", "--lateness", "2h"];
const GOAL_BYTES: f64 = 150.0;
/// Redis gives back the buffers of idle connections and the halves of growing tables within seconds:
/// the smallest of so many looks is what the data takes.
const LOOKS: usize = 16;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Prints the bytes per source and returns the goal.
pub(crate) fn measure(binary: &Path) -> Result<Vec<Goal>> {
    println!("\nMemory of Redis: {SOURCES} sources with ids of 12 bytes in one open bucket");
    let service = Service::start(binary, StoreKind::Redis, &FLAGS)?;
    let redis = service.redis.as_ref().context("started with one")?;
    let before = used_memory(redis)?;
    let mut client = Client::connect(service.address)?;
    let now = Clock::System.now();
    for round in 0..ROUNDS {
        for first in (0..SOURCES).step_by(BATCH) {
            let mut lines = String::new();
            for source in first..first + BATCH {
                let value = 20.0 + (source % 97) as f64 * 0.13 + round as f64;
                writeln!(lines, r#"{{"source":"sensor-{source:05}","value":{value},"timestamp":{now}}}"#)?;
            }
            client.deliver(&post_readings(lines.as_bytes()), BATCH)?;
        }
    }
    let after = used_memory(redis)?;
    let bytes = (after as f64 - before as f64) / SOURCES as f64;
    println!("used_memory {before} before, {after} after: {bytes:.1} bytes per source and open bucket");
    Ok(vec![Goal::new("redis: bytes per source and open bucket", bytes, GOAL_BYTES, true)])
}

/// Bytes in use once Redis has calmed down.
fn used_memory(redis: &Redis) -> Result<u64> {
    let mut connection = redis.connect()?;
    let mut least = u64::MAX;
    for _ in 0..LOOKS {
        sleep(BETWEEN_LOOKS);
        least = least.min(connection.used_memory()?);
    }
    Ok(least)
}
