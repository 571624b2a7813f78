//! Kills everything, and counts: `make soak SECONDS=600 SEED=7`, or `cargo test --test soak -- --seconds 600`.
//!
//! The promise it tries to break: a reading that was answered 200 and carried an `Idempotency-Key` is
//! counted exactly once in the final row of its bucket, whatever dies in between. The service runs on
//! each store beside clients that keep book, while processes are killed and stopped, connections cut and
//! disks filled, as the seed says. At the end the files are compared with the books, one table is
//! printed, and a single reading too many or too few ends the program with 1.
//! On a store that may forget, too few is what the service has not said itself.

mod clients;
mod disk;
mod faults;
mod http;
mod kinds;
mod ledger;
mod processes;
mod proxy;
mod reader;
mod report;
mod rows;
#[path = "../it/seeded.rs"]
mod seeded;
mod verdict;
mod world;

use anyhow::{Context, Result};
use clap::Parser;
use kinds::Kind;
use meanwhile::clock::Clock;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Kills everything around the service for a while, then compares its files with what was acknowledged.
#[derive(Parser)]
struct Options {
    /// For how long faults are made; everything has to close afterwards, which takes half a minute
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Decides the faults and what the clients send [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Only with this store
    #[arg(long)]
    only: Option<Kind>,
    /// Keep logs and files also after a good run
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all worlds at once; whether all went well.
fn run(options: &Options) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(|| Clock::System.now() as u64 % 1_000_000);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}-{seed}", std::process::id()));
    println!("seed {seed}: faults for {} s, files in {}", options.seconds, dir.display());
    let kinds = Kind::ALL.into_iter().filter(|kind| options.only.is_none_or(|only| only == *kind));
    let runs: Vec<_> = kinds
        .map(|kind| {
            let (dir, duration) = (dir.join(format!("{kind:?}")), Duration::from_secs(options.seconds));
            (kind, thread::spawn(move || world::run(kind, &dir, seed, duration)))
        })
        .collect();
    let mut outcomes = Vec::new();
    for (kind, run) in runs {
        let outcome = run.join().expect("a panic was reported where it happened");
        outcomes.push(outcome.with_context(|| format!("{}, files in {}", kind.name(), dir.display()))?);
    }
    report::print(&outcomes, seed, options.seconds);
    let good = outcomes.iter().all(world::Outcome::is_good);
    if good && !options.keep {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(good)
}
