//! What the durability of a Redis costs: the same load on one without an append-only file, one that syncs it
//! every second, and one that syncs each write.
//!
//! Called by `main.rs`. The three run side by side and take turns, so that whatever else the machine does meets
//! them alike: batches per second are shown as parts of each other only. The price is for information, no goal.

use crate::load::{self, BATCH, Cost, SOURCES};
use crate::processes::{Service, Sync, directory};
use anyhow::{Context, Result};
use meanwhile::clock;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Senders: nothing to share a sync with, some, and much.
const CONNECTIONS: [usize; 3] = [1, 8, 64];
const FLAGS: [&str; 2] = ["--periods", "1m,1h,1d"];
const TURNS: usize = 3;
/// Each load is given one reading of so many.
const SHARE: usize = 5;
/// Syncs of a small file, to tell what disk this is.
const SYNCS: u32 = 200;

/// Prints the costs.
pub(crate) fn measure(binary: &Path, readings: usize) -> Result<()> {
    println!(
        "\nDurability of Redis: batches of {BATCH} readings over {SOURCES} sources, CPU seconds per million readings"
    );
    println!("a file that grows by 1 KiB is synced in {:.2} ms here", sync_milliseconds()?);
    println!("{:36}{:>9}{:>9}{:>9}{:>22}", "", "service", "redis", "total", "batches/s, none = 1");
    let kinds = [("none", Sync::Never), ("everysec", Sync::Everysec), ("always", Sync::Always)];
    let services = kinds.map(|(_, sync)| Service::start_on_redis(binary, sync, &FLAGS));
    let services = services.into_iter().collect::<Result<Vec<_>>>()?;
    let readings = readings.div_ceil(SHARE * TURNS);
    for connections in CONNECTIONS {
        let mut costs: [Vec<Cost>; 3] = Default::default();
        for _ in 0..TURNS {
            for (service, costs) in services.iter().zip(&mut costs) {
                costs.push(load::run(service, connections, readings).with_context(|| format!("{connections}"))?);
            }
        }
        let seconds = |costs: &[Cost]| costs.iter().map(|cost| cost.took.as_secs_f64()).sum::<f64>();
        for ((name, _), turns) in kinds.iter().zip(&costs) {
            let mean = |of: fn(&Cost) -> f64| turns.iter().map(of).sum::<f64>() / TURNS as f64;
            let service = mean(|cost| cost.per_million(cost.service));
            let redis = mean(|cost| cost.per_million(cost.redis));
            let plural = if connections == 1 { "" } else { "s" };
            let what = format!("{name}, {connections} connection{plural}");
            let rate = seconds(&costs[0]) / seconds(turns);
            println!("{what:36}{service:9.3}{redis:9.3}{:9.3}{rate:22.2}", service + redis);
        }
    }
    Ok(())
}

/// How long the disk under the files of this program takes for a sync, on average.
fn sync_milliseconds() -> Result<f64> {
    let dir = directory()?;
    let mut file = File::create(dir.path().join("synced"))?;
    let started = clock::instant();
    for _ in 0..SYNCS {
        file.write_all(&[0; 1024])?;
        file.sync_data()?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e3 / f64::from(SYNCS))
}
