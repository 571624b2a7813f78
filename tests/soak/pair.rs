//! Three busy instances against a quiet one: `make pair SEED=7`, or `cargo test --test soak -- pair`.
//!
//! The promise it tries to break: however readings are spread over instances of one Redis, in whatever order they
//! come and however often an instance is killed, the rows are those of one instance that was sent them in
//! order. Each batch has a key; everything is drained at the end; the rows are read from the sinks without the
//! service, those of groups too. Count, minimum, maximum and mean must be the same in every bit, variances and covariances those of the
//! readings in whole numbers, within 1e-11.

mod exact;
mod readings;
mod rows;
mod senders;

use crate::kinds::ALWAYS;
use crate::postgres::Postgres;
use crate::processes::Node;
use crate::redis::Redis;
use crate::verdict;
use anyhow::{Context, Result, bail, ensure};
use exact::Exact;
use meanwhile::clock::{self, Clock};
use readings::Readings;
use rows::{Difference, Rows};
use senders::{NODES, Sent, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Compares the rows of three instances that are killed again and again with those of a quiet one.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many readings are sent, in batches of 100
    #[arg(long, default_value_t = 1_000_000)]
    readings: u64,
    /// How often each of the three instances is killed
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Decides the readings, their order and the moments of the kills [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Keep logs and files also after a good run
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug)]
enum Pair {
    /// All take and write, to one table.
    Postgres,
    /// One takes and writes files, two only take.
    Files,
}

impl Pair {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "three, PostgreSQL",
            Self::Files => "one and two ingest, CSV",
        }
    }
}

/// One column of the table.
struct Outcome {
    name: &'static str,
    sent: Sent,
    took: Duration,
    difference: Difference,
    /// Keys that were left in Redis.
    orphans: Vec<String>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        // Kills that hit nothing, and rows of one life each, show little.
        let busy = self.difference.merged > 0 && (self.sent.again > 0 || self.sent.kills == [0; NODES]);
        busy && self.difference.is_none() && self.orphans.is_empty()
    }
}

/// Runs the quiet instance and both pairs; whether all rows are the same.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let now = Clock::System.now();
    let seed = options.seed.unwrap_or(now as u64 % 1_000_000);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pair-{}-{seed}", std::process::id()));
    println!("seed {seed}: {} readings, {} kills each, files in {}", options.readings, options.kills, dir.display());
    let readings = Readings::new(seed, options.readings, now);
    let batches = readings.batches();
    ensure!(batches >= NODES * options.kills + 2, "{batches} batches are too few for {} kills of each", options.kills);
    let exact = Exact::of(&readings);
    let quiet = run_quiet(&readings, &exact, &dir.join("quiet")).context("the quiet instance")?;
    let mut outcomes = Vec::new();
    for pair in [Pair::Postgres, Pair::Files] {
        let outcome = run_pair(pair, (&quiet, &exact), &readings, options.kills, seed, &dir.join(format!("{pair:?}")));
        outcomes.push(outcome.with_context(|| format!("{}, files in {}", pair.name(), dir.display()))?);
    }
    print(&outcomes, options, seed);
    let good = outcomes.iter().all(Outcome::is_good);
    if good && !options.keep {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(good)
}

/// Everything in its order to one instance with a store and files of its own, where a bucket has one life: no
/// reading is late before the drain.
fn run_quiet(readings: &Readings, exact: &Exact, dir: &Path) -> Result<Rows> {
    fs::create_dir_all(dir)?;
    let store = format!("embedded:{}", dir.join("store").display());
    let mut node =
        node(dir, "service.log", &["--store", &store, "--sink", &files(dir), "--grace", "7d", "--lateness", "7d"])?;
    node.start()?;
    wait("the service takes requests", || node.is_ready())?;
    senders::send_in_order(readings, node.port)?;
    drain(&node)?;
    node.stop()?;
    let rows = rows::of_files(&sink(dir))?;
    rows::check_quiet(&rows, readings, exact)?;
    Ok(rows)
}

fn run_pair(
    pair: Pair,
    (quiet, exact): (&Rows, &Exact),
    readings: &Readings,
    kills: usize,
    seed: u64,
    dir: &Path,
) -> Result<Outcome> {
    fs::create_dir_all(dir)?;
    let redis = Redis::start(&dir.join("redis"), ALWAYS, Vec::new())?;
    let store = format!("redis://127.0.0.1:{}", redis.port);
    let shared = ["--store", &store, "--grace", "1s", "--lateness", "2s"];
    let (postgres, first, others) = match pair {
        Pair::Postgres => {
            let postgres = Postgres::start(&dir.join("postgres"))?;
            let sink = ["--sink".to_owned(), postgres.url()];
            (Some(postgres), sink.clone(), sink)
        }
        Pair::Files => (None, ["--sink".to_owned(), files(dir)], ["--role".to_owned(), "ingest".to_owned()]),
    };
    let node =
        |own: &[String; 2], log: &str| node(dir, log, &[&shared[..], &own.each_ref().map(|flag| &**flag)].concat());
    let mut nodes = [node(&first, "first.log")?, node(&others, "second.log")?, node(&others, "third.log")?];
    for node in &mut nodes {
        node.start()?;
        wait("the service takes requests", || node.is_ready())?;
    }
    let started = clock::instant();
    let sent = senders::send_shuffled(readings, &mut nodes, kills, seed)?;
    let took = started.elapsed();
    let writers = if postgres.is_some() { NODES } else { 1 };
    nodes[..writers].iter().try_for_each(drain)?;
    let keys = redis.cli(&["--scan"]).context("Redis does not answer")?;
    for node in &mut nodes {
        node.stop()?;
    }
    let rows = postgres.as_ref().map_or_else(|| rows::of_files(&sink(dir)), rows::of_table)?;
    let difference = Difference::between(quiet, &rows, exact);
    if let Some(postgres) = &postgres {
        let letters = postgres.sql("SELECT count(*) FROM dead_letters")?;
        ensure!(letters.trim() == "0", "{} dead letters", letters.trim());
    }
    see_no_panic(&nodes)?;
    Ok(Outcome { name: pair.name(), sent, took, difference, orphans: verdict::orphans(&keys) })
}

fn node(dir: &Path, log: &str, flags: &[&str]) -> Result<Node> {
    let rules = dir.join("rules.toml");
    fs::write(&rules, readings::RULES)?;
    let own = ["--periods".to_owned(), "1m,1h,1d".to_owned(), "--rules".to_owned(), rules.display().to_string()];
    Node::new(flags.iter().map(|&flag| flag.to_owned()).chain(own).collect(), Vec::new(), dir.join(log))
}

fn sink(dir: &Path) -> PathBuf {
    dir.join("csv")
}

fn files(dir: &Path) -> String {
    format!("csv:{}", sink(dir).display())
}

/// Has an instance write and close everything, as a person would.
fn drain(node: &Node) -> Result<()> {
    let url = format!("http://127.0.0.1:{}", node.port);
    let said = Command::new(env!("CARGO_BIN_EXE_meanwhile")).env_clear().args(["drain", "--url", &url]).output()?;
    ensure!(said.status.success(), "meanwhile drain: {}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}

fn see_no_panic(nodes: &[Node]) -> Result<()> {
    let logs: String = nodes.iter().map(Node::whole_log).collect();
    logs.lines().find(|line| line.contains("panicked")).map_or(Ok(()), |line| bail!("{line}"))
}

fn print(outcomes: &[Outcome], options: &Options, seed: u64) {
    println!("\n{} readings, seed {seed}, against one quiet instance\n", options.readings);
    let row = |name: &str, cell: &dyn Fn(&Outcome) -> String| {
        let cells: Vec<String> = outcomes.iter().map(|outcome| format!(" {:>23} |", cell(outcome))).collect();
        println!("| {name:40} |{}", cells.concat());
    };
    row("", &|outcome| outcome.name.to_owned());
    println!("|---|{}", "---:|".repeat(outcomes.len()));
    row("kills of each", &|outcome| outcome.sent.kills.map(|kills| kills.to_string()).join(", "));
    row("seconds", &|outcome| format!("{:.0}", outcome.took.as_secs_f64()));
    row("batches sent", &|outcome| outcome.sent.requests.to_string());
    row("requests without answer, or 503", &|outcome| outcome.sent.again.to_string());
    row("answers \"duplicate\"", &|outcome| outcome.sent.duplicates.to_string());
    row("rows", &|outcome| outcome.difference.rows.to_string());
    row("of them merged from several lives", &|outcome| outcome.difference.merged.to_string());
    row("largest error of a (co)variance", &|outcome| format!("{:.1e}", outcome.difference.variance));
    row("**rows on one side only**", &|outcome| outcome.difference.missing.to_string());
    row("**differing counts**", &|outcome| outcome.difference.count.to_string());
    row("**differing minima or maxima**", &|outcome| outcome.difference.extremes.to_string());
    row("**differing means**", &|outcome| outcome.difference.mean.to_string());
    row("**rows with a (co)variance off by more than 1e-11**", &|outcome| outcome.difference.far.to_string());
    row("**keys left in Redis**", &|outcome| outcome.orphans.len().to_string());
    for outcome in outcomes {
        for note in outcome.difference.notes.iter().chain(&outcome.orphans) {
            println!("{}: {note}", outcome.name);
        }
    }
}
