//! Power cuts: the store, the files of the sink and those of Redis on one disk, from which everything that was
//! not synced is gone again and again: `make powercut ROUNDS=300 SEED=7`.
//!
//! Run by `main.rs` in the place of the other faults, on the stores that promise the disk. A run goes through
//! several disks; each begins empty, has some dozen rounds (`power/round.rs`), and at its end everything has
//! to close and every row is compared with the books. The first thing that is wrong ends the run, so that
//! the number of its rounds says how soon it was noticed.

mod image;
mod machine;
mod report;
mod round;

use crate::clients::{self, Sharing};
use crate::kinds::{ALWAYS, Kind};
use crate::ledger::Ledger;
use crate::processes::Node;
use crate::redis::Redis;
use crate::rows::Place;
use crate::seeded::Seeded;
use crate::straddling::Straddling;
use crate::verdict::{self, Verdict};
use crate::world::{PERIODS, open_lives};
use anyhow::{Context, Result, ensure};
use image::{Cut, Image, MOUNTS};
use machine::Machine;
use meanwhile::clock;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

const CLIENTS: u64 = 4;
/// Rounds of one disk at least, and by how many there are more at most.
const ROUNDS: (u64, u64) = (5, 30);
/// Everything is answered and closed by then, or never will be.
const END_PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(20);

/// What a run has shown on one store.
struct Found {
    kind: Kind,
    rounds: u64,
    disks: u64,
    /// When the power was cut, and what got to the disk then.
    moments: BTreeMap<&'static str, u64>,
    cuts: BTreeMap<Cut, u64>,
    /// How often Redis' own tool had to cut off the end of its file.
    mended: u64,
    /// How often the totals of all sources were compared.
    looks: u64,
    requests: u64,
    readings: u64,
    repeated: u64,
    unanswered: u64,
    stuck: u64,
    verdict: Verdict,
    complaints: Vec<String>,
}

impl Found {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            rounds: 0,
            disks: 0,
            moments: BTreeMap::new(),
            cuts: BTreeMap::new(),
            mended: 0,
            looks: 0,
            requests: 0,
            readings: 0,
            repeated: 0,
            unanswered: 0,
            stuck: 0,
            verdict: Verdict::default(),
            complaints: Vec::new(),
        }
    }

    fn is_good(&self) -> bool {
        let nothing_left = self.complaints.is_empty() && self.unanswered == 0 && self.stuck == 0;
        nothing_left && self.verdict.is_good() && self.requests > 0
    }
}

/// Cuts the power so often on each store, all at once; whether all went well. Where no disk can be made it
/// says so, and that is all.
pub(crate) fn run(rounds: u64, seed: u64, only: &[Kind], dir: &Path) -> Result<bool> {
    fs::create_dir_all(dir)?;
    println!("seed {seed}: {rounds} power cuts, files in {}", dir.display());
    if let Err(error) = Image::make(dir, MOUNTS[0]) {
        println!("power cuts are LEFT OUT: they need root, loop devices, mkfs.ext4 and python3 ({error:#})");
        fs::remove_dir_all(dir)?;
        return Ok(true);
    }
    let kinds = [Kind::Embedded, Kind::RedisAlways].into_iter().filter(|kind| only.is_empty() || only.contains(kind));
    let runs: Vec<_> = kinds
        .map(|kind| {
            let dir = dir.join(format!("{kind:?}"));
            (kind, thread::spawn(move || run_on(kind, rounds, seed, &dir)))
        })
        .collect();
    // All of them to their ends, so that none leaves a disk mounted.
    let join = |run: JoinHandle<Result<Found>>| run.join().expect("a panic was reported where it happened");
    let ended: Vec<_> = runs.into_iter().map(|(kind, run)| (kind, join(run))).collect();
    let named = |(kind, found): (Kind, Result<Found>)| {
        found.with_context(|| format!("{}, files in {}", kind.name(), dir.display()))
    };
    let all = ended.into_iter().map(named).collect::<Result<Vec<_>>>()?;
    report::print(&all, seed);
    let good = all.iter().all(Found::is_good);
    if good {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    } else {
        println!("files in {}; `mount -o loop FILE DIR` shows an image", dir.display());
    }
    Ok(good)
}

fn run_on(kind: Kind, rounds: u64, seed: u64, dir: &Path) -> Result<Found> {
    let (mut found, mut random) = (Found::new(kind), Seeded::new(seed + kind as u64));
    while found.rounds == 0 || (found.rounds < rounds && found.is_good()) {
        let dir = dir.join(found.disks.to_string());
        let last = rounds.min(found.rounds + ROUNDS.0 + random.below(ROUNDS.1));
        one_disk(&mut found, &dir, last, &mut random).with_context(|| format!("round {}", found.rounds))?;
        if found.is_good() {
            fs::remove_dir_all(&dir)?;
        }
    }
    Ok(found)
}

/// The life of one disk, up to the round `last`.
fn one_disk(found: &mut Found, dir: &Path, last: u64, random: &mut Seeded) -> Result<()> {
    found.disks += 1;
    fs::create_dir_all(dir)?;
    let mut machine = build(found.kind, dir, MOUNTS[random.below(MOUNTS.len() as u64) as usize])?;
    let shared = Arc::new(Sharing {
        ledger: Ledger::default(),
        ports: vec![machine.node.port],
        durable: true,
        stop: AtomicBool::new(false),
        old_days: AtomicBool::new(true),
        straddling: Straddling::default(),
        clock_of_the_service_steps: false,
        waits: std::sync::Mutex::default(),
        answered: std::sync::Mutex::new(vec![None]),
        unanswered: AtomicU64::new(0),
        wrong: std::sync::Mutex::default(),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (shared, seed) = (Arc::clone(&shared), random.below(u64::MAX));
            thread::spawn(move || clients::run(&shared, number, seed))
        })
        .collect();
    let is_well = || shared.wrong.lock().expect("no panic while it is held").is_empty();
    while found.rounds < last && is_well() {
        found.rounds += 1;
        round::run(&mut machine, &shared, random, found)?;
    }
    shared.stop.store(true, Ordering::SeqCst);
    machine.start(None, found)?;
    machine.ready()?;
    close(found, &mut machine, &clients)?;
    compare(found, &machine, &shared)
}

fn build(kind: Kind, dir: &Path, options: &'static str) -> Result<Machine> {
    let image = Image::make(dir, options)?;
    let at = |name: &str| image.at.join(name);
    let redis = match kind {
        Kind::Embedded => None,
        _ => Some(Redis::new(&at("redis"), ALWAYS, Vec::new())?),
    };
    let store = match &redis {
        Some(redis) => format!("redis://127.0.0.1:{}", redis.port),
        None => format!("embedded:{}", at("store").display()),
    };
    let sink = format!("csv:{}", at("sink").display());
    let periods = PERIODS.join(",");
    let flags = ["--store", &store, "--sink", &sink, "--periods", &periods, "--grace", "500ms", "--lateness", "2s"];
    let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    let node = Node::new(flags, Vec::new(), dir.join("service.log"))?;
    Ok(Machine { image, redis, node })
}

/// Waits until the clients have their answers and everything is in the files.
fn close(found: &mut Found, machine: &mut Machine, clients: &[JoinHandle<()>]) -> Result<()> {
    let started = clock::instant();
    while !clients.iter().all(JoinHandle::is_finished) {
        ensure!(started.elapsed() < END_PATIENCE, "the clients wait for answers that do not come");
        sleep(POLL);
    }
    let mut open = u64::MAX;
    while open > 0 && started.elapsed() < END_PATIENCE {
        machine.drain()?.wait()?;
        open = open_lives(machine.node.port);
    }
    found.stuck += open;
    machine.node.stop()
}

/// Adds up what is in the books and in the files.
fn compare(found: &mut Found, machine: &Machine, shared: &Sharing) -> Result<()> {
    let keys =
        machine.redis.as_ref().map(|redis| redis.cli(&["--scan"]).context("Redis does not answer")).transpose()?;
    let log = machine.node.whole_log();
    let complaints = &mut found.complaints;
    complaints.extend(verdict::orphans(&keys.unwrap_or_default()));
    complaints.append(&mut shared.wrong.lock().expect("no panic while it is held"));
    complaints.extend(log.lines().filter(|line| line.contains("panicked")).map(str::to_owned));
    complaints.extend(machine.node.losses().iter().map(|span| format!("a loss is announced: {span:?}")));
    found.unanswered += shared.unanswered.load(Ordering::SeqCst);
    let (requests, readings, repeated) = shared.ledger.totals();
    found.requests += requests;
    found.readings += readings;
    found.repeated += repeated;
    found.verdict.add(verdict::compare(&Place::Files(machine.image.at.join("sink")), &shared.ledger.cells(), &[])?);
    Ok(())
}
