//! How long the service takes to start again over a large store: a million sources in an open bucket.
//!
//! It is killed, not stopped, so the embedded store has to recover. The bucket is not due for an hour,
//! so that nothing is written meanwhile. Times are by the clock on the wall, the best of a few starts:
//! what else the machine does only ever adds.

use crate::client::{Client, post_readings};
use crate::processes::{Service, StoreKind};
use crate::report::Goal;
use anyhow::Result;
use meanwhile::clock::Clock;
use std::fmt::Write;
use std::path::Path;

const SOURCES: usize = 1_000_000;
/// Sources posted in one request.
const BATCH: usize = 10_000;
const FLAGS: [&str; 6] = ["--periods", "1h", "--grace", "1h", "--lateness", "2h"];
const STARTS: usize = 3;

/// Prints the times and returns the goals.
pub(crate) fn measure(binary: &Path, counts: bool) -> Result<Vec<Goal>> {
    println!("\nStart after a crash: {SOURCES} sources in one open bucket, ms until requests are taken");
    let mut goals = Vec::new();
    for (store, at_most) in [(StoreKind::Redis, 300.0), (StoreKind::Embedded, 2_000.0)] {
        let mut service = Service::start(binary, store, &FLAGS)?;
        fill(&service)?;
        let mut best = f64::INFINITY;
        print!("{store:12}");
        for _ in 0..STARTS {
            let took = service.crash_and_restart()?.as_secs_f64() * 1e3;
            print!("{took:10.0}");
            best = best.min(took);
        }
        println!();
        goals.push(Goal::new(format!("{store}: start over a million open states, ms"), best, at_most, counts));
    }
    Ok(goals)
}

fn fill(service: &Service) -> Result<()> {
    let mut client = Client::connect(service.address)?;
    let now = Clock::System.now();
    for first in (0..SOURCES).step_by(BATCH) {
        let mut lines = String::new();
        for source in first..first + BATCH {
            let value = (source % 97) as f64 * 0.13;
            writeln!(lines, r#"{{"source":"sensor-{source:06}","value":{value},"timestamp":{now}}}"#)?;
        }
        client.deliver(&post_readings(lines.as_bytes()), BATCH)?;
    }
    Ok(())
}
