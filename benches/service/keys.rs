//! What an idempotency key for each batch costs: the same load with and without, on both stores.
//!
//! Called by `main.rs`. The two take turns on one service, so that whatever else the machine does, and what the
//! store has grown to, meets both alike. The load itself is in `load.rs`.

use crate::load::{self, BATCH, Cost, SOURCES};
use crate::processes::{Service, StoreKind};
use crate::report::Goal;
use anyhow::{Context, Result};
use std::path::Path;

const CONNECTIONS: usize = 16;
const FLAGS: [&str; 2] = ["--periods", "1m,1h,1d"];
/// Turns of each load; they share its readings.
const TURNS: usize = 3;
/// Each load is given one reading of so many.
const SHARE: usize = 2;
/// A batch with a key costs at most so many times one without.
const GOAL_TIMES: f64 = 1.3;

/// Prints the costs and returns the goals; these count unless the run is too short for them.
pub(crate) fn measure(binary: &Path, readings: usize, counts: bool) -> Result<Vec<Goal>> {
    println!(
        "\nKeys: batches of {BATCH} readings over {SOURCES} sources, {CONNECTIONS} connections, CPU seconds per million readings"
    );
    println!("{:36}{:>9}{:>9}{:>9}", "", "service", "redis", "total");
    let readings = readings.div_ceil(SHARE * TURNS);
    let mut goals = Vec::new();
    for store in StoreKind::ALL {
        let service = Service::start(binary, store, &FLAGS)?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            without.push(load::run(&service, CONNECTIONS, readings).with_context(|| format!("{store}"))?);
            with.push(load::run_keyed(&service, CONNECTIONS, readings).with_context(|| format!("{store}, keys"))?);
        }
        let without = print_row(store, "without keys", &without);
        let with = print_row(store, "a key for each batch", &with);
        let name = format!("{store}: CPU with a key for each batch, times that without");
        goals.push(Goal::new(name, with / without, GOAL_TIMES, counts));
    }
    Ok(goals)
}

/// Prints the mean of the turns; returns it for service and store together.
fn print_row(store: StoreKind, what: &str, turns: &[Cost]) -> f64 {
    let mean = |of: fn(&Cost) -> f64| turns.iter().map(of).sum::<f64>() / turns.len() as f64;
    let (service, redis) = (mean(|cost| cost.per_million(cost.service)), mean(|cost| cost.per_million(cost.redis)));
    let redis_text = match store {
        StoreKind::Redis => format!("{redis:9.3}"),
        StoreKind::Embedded => format!("{:>9}", "-"),
    };
    println!("{:36}{service:9.3}{redis_text}{:9.3}", format!("{store} store, {what}"), service + redis);
    service + redis
}
