//! What a reading costs: the service on both stores, and beside it Redis without the service.
//!
//! One run measures all of it, so the ratio between them does not depend on the machine. The load
//! itself is in `load.rs`.

use crate::load::{self, BATCH, Cost, SOURCES};
use crate::processes::{Redis, Service, StoreKind, Sync, directory};
use crate::report::Goal;
use anyhow::{Context, Result};
use std::path::Path;

/// Connections of the load the goals are for.
const CONNECTIONS: usize = 16;
/// For information: nothing to share a commit with, and much.
const OTHER_CONNECTIONS: [usize; 2] = [1, 64];
/// The loads without a goal, and the baseline, are given one reading of so many.
const SHARE: usize = 5;
/// The service and its Redis together cost at most this part of the baseline.
const GOAL_OF_BASELINE: f64 = 1.0 / 7.0;
const GOAL_P99_MS: f64 = 50.0;
/// What people configure; three periods cost what one costs.
const FLAGS: [&str; 2] = ["--periods", "1m,1h,1d"];

/// Prints the costs and returns the goals; these count unless the run is too short for them.
pub(crate) fn measure(binary: &Path, readings: usize, counts: bool) -> Result<Vec<Goal>> {
    println!("\nIngest: batches of {BATCH} readings over {SOURCES} sources, CPU seconds per million readings");
    println!("{:36}{:>9}{:>9}{:>9}{:>11}{:>11}", "", "service", "redis", "total", "p50 ms", "p99 ms");
    let mut goals = Vec::new();
    let baseline = {
        let dir = directory()?;
        let redis = Redis::start(dir.path(), Sync::Everysec)?;
        load::run_baseline(&redis, readings.div_ceil(SHARE)).context("baseline")?
    };
    println!("{:36}{:>9}{baseline:9.3}{baseline:9.3}", "no service, 3 commands a reading", "-");
    for store in StoreKind::ALL {
        let service = Service::start(binary, store, &FLAGS)?;
        let run = |connections, readings| -> Result<Cost> {
            let cost = load::run(&service, connections, readings)
                .with_context(|| format!("{store} store, {connections} connections"))?;
            print_row(store, connections, &cost);
            Ok(cost)
        };
        let cost = run(CONNECTIONS, readings)?;
        for connections in OTHER_CONNECTIONS {
            run(connections, readings.div_ceil(SHARE))?;
        }
        let part = cost.total_per_million() / baseline;
        let name = |what: &str| format!("{store}: {what}");
        goals.push(Goal::new(name("CPU, part of what no service costs"), part, GOAL_OF_BASELINE, counts));
        goals.push(Goal::new(name("p99 of a batch, ms"), milliseconds(cost.p99), GOAL_P99_MS, counts));
    }
    Ok(goals)
}

fn print_row(store: StoreKind, connections: usize, cost: &Cost) {
    let redis = match store {
        StoreKind::Redis => format!("{:9.3}", cost.per_million(cost.redis)),
        StoreKind::Embedded => format!("{:>9}", "-"),
    };
    let (service, total) = (cost.per_million(cost.service), cost.total_per_million());
    let (p50, p99) = (milliseconds(cost.p50), milliseconds(cost.p99));
    let plural = if connections == 1 { "" } else { "s" };
    let what = format!("{store} store, {connections} connection{plural}");
    println!("{what:36}{service:9.3}{redis}{total:9.3}{p50:11.2}{p99:11.2}");
}

fn milliseconds(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
