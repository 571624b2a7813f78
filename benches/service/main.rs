//! The whole service under load, in CPU seconds: `make bench`, or `cargo bench --bench service`.
//!
//! Starts real servers, speaks to the service only over HTTP, prints one table and ends with 1 if a
//! goal is missed. CPU seconds rather than readings per second, because they do not depend on what
//! else the machine does or on how fast the client is. docs/benchmarks.md says what the figures
//! mean; the arithmetic of the core alone is measured by `core`.

mod accuracy;
mod appendfsync;
mod auth;
mod client;
mod ingest;
mod keys;
mod load;
mod memory;
mod postgres;
mod postgres_server;
mod processes;
mod random;
mod report;
mod resp;
mod restart;
mod rollover;
mod sets;
mod slow;
mod summary;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

const READINGS: usize = 10_000_000;
/// Enough to see that everything runs; too few CPU ticks for a figure.
const QUICK_READINGS: usize = 500_000;

/// Measures the whole service: ingest, the price of keys, of tokens and of syncs, memory, a start after a crash, large rollovers, rows in PostgreSQL,
/// summaries,
/// accuracy and what slow clients do to others.
#[derive(Parser)]
struct Options {
    /// Readings of the ingest load, per store [default: 10000000, quick: 500000]
    #[arg(long)]
    readings: Option<usize>,
    /// A smoke run of some 20 seconds: the goals that depend on the machine are shown but do not count
    #[arg(long)]
    quick: bool,
    /// Measure only this
    #[arg(long)]
    only: Option<Section>,
    /// The program to measure; another build, for a comparison
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_meanwhile"))]
    service: PathBuf,
    /// Given by `cargo bench`; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Ingest,
    Keys,
    Auth,
    Appendfsync,
    Memory,
    Restart,
    Rollover,
    Postgres,
    Summary,
    Accuracy,
    Slow,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what is asked for; returns whether all goals that count are met.
fn run(options: &Options) -> Result<bool> {
    print_machine();
    let wanted = |section| options.only.is_none_or(|only| only == section);
    let readings = options.readings.unwrap_or(if options.quick { QUICK_READINGS } else { READINGS });
    // The service runs in a directory of its own, where a relative path leads nowhere.
    let binary = &std::path::absolute(&options.service)?;
    let mut goals = Vec::new();
    if wanted(Section::Ingest) {
        goals.extend(ingest::measure(binary, readings, !options.quick)?);
    }
    if wanted(Section::Keys) {
        goals.extend(keys::measure(binary, readings, !options.quick)?);
    }
    if wanted(Section::Auth) {
        goals.extend(auth::measure(binary, readings, !options.quick)?);
    }
    // Minutes: not in a smoke run unless asked for.
    if options.only == Some(Section::Appendfsync) || (wanted(Section::Appendfsync) && !options.quick) {
        appendfsync::measure(binary, readings)?;
    }
    if wanted(Section::Memory) {
        goals.extend(memory::measure(binary)?);
    }
    // A million sources take half a minute: not in a smoke run unless asked for.
    if options.only == Some(Section::Restart) || (wanted(Section::Restart) && !options.quick) {
        goals.extend(restart::measure(binary, !options.quick)?);
    }
    // A minute, most of it waiting: not in a smoke run unless asked for.
    if options.only == Some(Section::Rollover) || (wanted(Section::Rollover) && !options.quick) {
        goals.extend(rollover::measure(binary, !options.quick)?);
    }
    // Ten million rows take a minute or two to make: not in a smoke run unless asked for.
    if options.only == Some(Section::Postgres) || (wanted(Section::Postgres) && !options.quick) {
        goals.extend(postgres::measure()?);
    }
    // Half a minute, most of it to fill the sinks: not in a smoke run unless asked for.
    if options.only == Some(Section::Summary) || (wanted(Section::Summary) && !options.quick) {
        goals.extend(summary::measure(binary)?);
    }
    if wanted(Section::Accuracy) {
        goals.extend(accuracy::measure(binary)?);
    }
    // A minute, most of it waiting: not in a smoke run unless asked for.
    if options.only == Some(Section::Slow) || (wanted(Section::Slow) && !options.quick) {
        goals.extend(slow::measure(binary, !options.quick)?);
    }
    let missed = report::verdict(&goals);
    for name in &missed {
        eprintln!("bench: goal missed: {name}");
    }
    Ok(missed.is_empty())
}

/// What else the machine does hardly changes CPU seconds, but decides how long a batch waits for a core.
fn print_machine() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{cores} cores, load average {} before the run", load.split(' ').next().unwrap_or_default());
}
