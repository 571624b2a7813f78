//! Kills everything, and counts: `make soak SECONDS=600 SEED=7`, or `cargo test --test soak -- --seconds 600`.
//!
//! The promise it tries to break: a reading that was answered 200 and carried an `Idempotency-Key` is
//! counted exactly once in the final row of its bucket, whatever dies in between. The service runs on
//! each store beside clients that keep book, while processes are killed and stopped, connections cut and
//! disks filled, as the seed says, several at once. At the end the files are compared with the books, two
//! tables are printed, and a single reading too many or too few ends the program with 1.
//! On a store that may forget, too few is what the service has not said itself.
//! `make powercut` cuts the power of its disk instead: `power.rs`.

mod breaking;
mod clients;
mod disk;
mod failover;
mod faults;
mod http;
mod kinds;
mod ledger;
mod losses;
mod pair;
mod postgres;
mod power;
mod processes;
mod proxy;
mod reader;
mod redis;
mod report;
mod rows;
#[path = "../it/seeded.rs"]
mod seeded;
mod shim;
mod site;
mod steps;
mod straddling;
mod unavailable;
mod verdict;
mod world;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use kinds::Kind;
use meanwhile::clock::Clock;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Kills everything around the service for a while, then compares its files with what was acknowledged.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// For how long faults are made; everything has to close afterwards, which takes half a minute
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Decides the faults and what the clients send [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Only these worlds, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// How many worlds run at once; the others follow
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
    /// Keep logs and files also after a good run
    /// Cut the power so often instead, under the stores that promise the disk; needs root
    #[arg(long, value_name = "ROUNDS")]
    power_cuts: Option<u64>,
    #[arg(long)]
    keep: bool,
}

/// What else there is than the soak.
#[derive(clap::Subcommand)]
enum Other {
    Pair(pair::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let good = match &options.other {
        None => run(&options),
        Some(Other::Pair(options)) => pair::run(options),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all worlds, some at a time; whether all went well.
fn run(options: &Options) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(|| Clock::System.now() as u64 % 1_000_000);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}-{seed}", std::process::id()));
    if let Some(rounds) = options.power_cuts {
        return power::run(rounds, seed, &options.only, &dir);
    }
    println!("seed {seed}: faults for {} s, files in {}", options.seconds, dir.display());
    let wanted = |kind: &Kind| options.only.is_empty() || options.only.contains(kind);
    let kinds: Vec<Kind> = Kind::value_variants().iter().copied().filter(wanted).collect();
    let (next, duration) = (AtomicUsize::new(0), Duration::from_secs(options.seconds));
    let work = || {
        let mut done = Vec::new();
        while let Some(&kind) = kinds.get(next.fetch_add(1, Ordering::SeqCst)) {
            let outcome = world::run(kind, &dir.join(format!("{kind:?}")), seed, duration);
            let good = outcome.as_ref().is_ok_and(world::Outcome::is_good);
            println!("{}: {}", kind.name(), if good { "as promised" } else { "NOT as promised" });
            done.push((kind, outcome));
        }
        done
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a panic was reported where it happened")).collect()
    });
    done.sort_by_key(|(kind, _)| kinds.iter().position(|other| other == kind));
    let (mut outcomes, mut good) = (Vec::new(), true);
    for (kind, outcome) in done {
        match outcome {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => {
                eprintln!("{}, files in {}: {error:#}", kind.name(), dir.display());
                good = false;
            }
        }
    }
    report::print(&outcomes, seed, options.seconds);
    good &= outcomes.iter().all(world::Outcome::is_good);
    if good && !options.keep {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(good)
}
