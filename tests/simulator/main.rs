//! Plays random schedules of the protocol, single-threaded and without I/O, and counts: `make simulate
//! SCHEDULES=1000000 SEED=7`, or `cargo test --release --test simulator -- --schedules 1000000 --seed 7`.
//!
//! The real committers, rollovers and queries of two or three nodes run over a store and a sink in memory, and
//! every call of theirs waits until the seed says whose is next and what becomes of it. Not real are the store (the
//! oracle of tests/it, which `tests/it/model.rs` holds both stores to), the sink (a map under the rule of
//! `stats/row.rs`), HTTP and the list of instances. At the end of each schedule every reading must be in
//! the rows as often as its client was told. The first one that is not prints its schedule, and the program ends with 1.

mod books;
mod history;
mod node;
#[expect(dead_code, reason = "what only tests/it asks of it")]
#[path = "../it/oracle.rs"]
mod oracle;
mod print;
mod schedule;
#[path = "../it/seeded.rs"]
mod seeded;
mod sink;
mod store;
mod verdict;
mod world;

use clap::Parser;
use meanwhile::clock::{self, Clock};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Plays random schedules of the protocol and checks that each reading is counted once.
#[derive(Parser)]
struct Options {
    /// How many
    #[arg(long, default_value_t = 20_000)]
    schedules: u64,
    /// The seed of the first; the others follow it [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// On how many threads; each schedule is played on one
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Print every schedule
    #[arg(long)]
    print: bool,
}

type Tally = BTreeMap<&'static str, u64>;

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| Clock::System.now() as u64 % 1_000_000_000);
    println!("seeds {seed} to {}", seed + options.schedules.max(1) - 1);
    let started = clock::instant();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..options.threads).map(|_| scope.spawn(|| play_some(&options, seed, &next, &failed))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a panic was reported where it happened")).collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    let played = next.load(Ordering::SeqCst).min(options.schedules);
    let mut all = Tally::new();
    for (what, n) in tallies.into_iter().flatten() {
        *all.entry(what).or_default() += n;
    }
    for (what, n) in all {
        println!("{n:>12} {what}");
    }
    println!("{played} schedules in {seconds:.1} s, {:.0} a minute", played as f64 / seconds * 60.0);
    if failed.load(Ordering::SeqCst) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Plays the next schedules until there is none, or one has failed.
fn play_some(options: &Options, seed: u64, next: &AtomicU64, failed: &AtomicBool) -> Tally {
    let mut all = Tally::new();
    while !failed.load(Ordering::SeqCst) {
        let played = next.fetch_add(1, Ordering::SeqCst);
        if played >= options.schedules {
            break;
        }
        let outcome = schedule::play(seed + played, options.print);
        outcome.log.iter().for_each(|line| println!("{line}"));
        for (what, n) in outcome.tally {
            *all.entry(what).or_default() += n;
        }
        if let Some(violation) = outcome.violation
            && !failed.swap(true, Ordering::SeqCst)
        {
            // Again, with everything written down.
            schedule::play(seed + played, true).log.iter().for_each(|line| println!("{line}"));
            println!("seed {}, after {played} others: {violation}", seed + played);
        }
    }
    all
}
