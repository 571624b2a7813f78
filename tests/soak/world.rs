//! One world: a store, the service on it, clients, a reader and faults; from its start to its verdict.
//!
//! Run by `main.rs`, several at once. Periods are seconds long, so that in a minute hundreds of buckets are
//! written, corrected, closed and moved up while everything around them is being killed.

use crate::breaking::{Faults, Happened};
use crate::clients::{self, Sharing};
use crate::disk::SmallDisk;
use crate::faults::Fault;
use crate::http::Http;
use crate::kinds::Kind;
use crate::ledger::{Ledger, TIMED, UNTIMED, source_id};
use crate::postgres::Postgres;
use crate::processes::Node;
use crate::proxy::Proxy;
use crate::reader::{self, Seen};
use crate::redis::Redis;
use crate::rows::Place;
use crate::seeded::Seeded;
use crate::shim::Shim;
use crate::site::Site;
use crate::steps::Steps;
use crate::straddling::Straddling;
use crate::unavailable;
use crate::verdict::{self, Verdict};
use anyhow::{Context, Result};
use meanwhile::stats::Millis;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Finest first; each tiles the next.
pub(crate) const PERIODS: [&str; 3] = ["1s", "5s", "15s"];
const CLIENTS: u64 = 7;
/// Instances without sink beside the one that has it, on a store that can be shared.
const INGEST_NODES: usize = 2;
/// Instances that write to one table.
const WRITERS: usize = 2;
/// Until all clients have their answers; what is longer is counted as unanswered by them.
const ANSWER_PATIENCE: Duration = Duration::from_mins(4);
/// A bucket whose writer has died is taken up after 30 s, its parents after it.
const CLOSE_PATIENCE: Duration = Duration::from_mins(3);

/// The length of a period of seconds.
pub(crate) fn seconds(period: &str) -> Millis {
    period.trim_end_matches('s').parse().expect("a number of seconds")
}

/// What a run of a world has shown.
pub(crate) struct Outcome {
    pub(crate) kind: Kind,
    pub(crate) faults: Vec<Happened>,
    /// The longest wait for an answer by kind of fault.
    pub(crate) unavailable: BTreeMap<Fault, Duration>,
    pub(crate) requests: u64,
    pub(crate) readings: u64,
    pub(crate) repeated: u64,
    pub(crate) unanswered: u64,
    pub(crate) longest: Duration,
    pub(crate) seen: Seen,
    /// Rows in the files when the faults ended.
    pub(crate) rows_meanwhile: u64,
    pub(crate) verdict: Verdict,
    /// How often the service said that its store had lost something.
    pub(crate) incidents: u64,
    /// Lives that did not close.
    pub(crate) stuck: u64,
    /// Keys that were left in Redis.
    pub(crate) orphans: Vec<String>,
    /// Answers and ends that should not have been.
    pub(crate) complaints: Vec<String>,
}

impl Outcome {
    pub(crate) fn is_good(&self) -> bool {
        let bad = [self.unanswered, self.seen.wrong, self.stuck, self.orphans.len() as u64];
        // A run in which nothing was read or acknowledged shows nothing.
        let busy = self.requests > 0 && self.seen.answers > 0;
        busy && self.verdict.is_good() && self.complaints.is_empty() && bad.iter().all(|&n| n == 0)
    }
}

/// Runs a world for so long in a directory of its own.
pub(crate) fn run(kind: Kind, dir: &Path, seed: u64, duration: Duration) -> Result<Outcome> {
    fs::create_dir_all(dir)?;
    let mut site = build(kind, dir)?;
    let shared = Arc::new(Sharing {
        ledger: Ledger::default(),
        ports: site.nodes.iter().map(|node| node.port).collect(),
        durable: kind.is_durable(),
        stop: AtomicBool::new(false),
        straddling: Straddling::default(),
        clock_of_the_service_steps: kind.traits().clock_steps && site.redis.is_none(),
        waits: std::sync::Mutex::default(),
        answered: std::sync::Mutex::new(vec![None; site.nodes.len()]),
        old_days: AtomicBool::new(true),
        unanswered: AtomicU64::new(0),
        wrong: std::sync::Mutex::default(),
    });
    for node in &mut site.nodes {
        node.start()?;
    }
    let mut seeds = Seeded::new(seed);
    let mut seed = || seeds.below(u64::MAX);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (shared, seed) = (Arc::clone(&shared), seed());
            thread::spawn(move || clients::run(&shared, number, seed))
        })
        .collect();
    let reader = {
        let (shared, seed) = (Arc::clone(&shared), seed());
        thread::spawn(move || reader::run(&shared, seed))
    };

    let mut faults = Faults::new(&mut site, &shared, seed(), kind.traits());
    let broken = faults.run(duration);
    shared.stop.store(true, Ordering::SeqCst);
    broken?;
    let rows_meanwhile = verdict::rows(&place(faults.site, dir));
    let answered = faults.until(ANSWER_PATIENCE, |_| clients.iter().all(thread::JoinHandle::is_finished))?;
    anyhow::ensure!(answered, "the clients wait for answers that do not come");
    let seen = reader.join().expect("a reader does not panic");
    let mut open = 0;
    faults.until(CLOSE_PATIENCE, |_| {
        open = open_lives(shared.ports[0]);
        open == 0
    })?;
    let made = faults.made;
    Ok(Outcome { rows_meanwhile, ..finish(kind, dir, site, &shared, seen, open, made)? })
}

fn build(kind: Kind, dir: &Path) -> Result<Site> {
    let traits = kind.traits();
    let shim = traits.needs_shim().then(|| Shim::build(dir)).transpose()?;
    let variables = || shim.as_ref().map(|shim| shim.variables().to_vec()).unwrap_or_default();
    let start = |name: &str| traits.redis.map(|settings| Redis::start(&dir.join(name), settings, variables()));
    let redis = start("redis").transpose()?;
    let mut replica = if traits.replica { start("replica").transpose()? } else { None };
    if let (Some(redis), Some(replica)) = (&redis, &mut replica) {
        replica.start_empty(Some(redis.port))?;
    }
    let proxy = redis.as_ref().map(|redis| Proxy::start(redis.port)).transpose()?;
    let table = traits.table;
    let postgres = table.then(|| Postgres::start(&dir.join("postgres"))).transpose()?;
    let disk = if table { None } else { SmallDisk::mount(&dir.join("sink")) };
    if disk.is_none() && !table {
        println!("{}: only root can mount the small disk, so that none is full in this run", kind.name());
    }
    let store = match &proxy {
        Some(proxy) => format!("redis://127.0.0.1:{}", proxy.port),
        None => format!("embedded:{}", dir.join("store").display()),
    };
    let shared = ["--store", &store, "--periods", "1s,5s,15s", "--grace", "500ms", "--lateness", "2s"];
    let sink = postgres.as_ref().map_or_else(|| format!("csv:{}", sink(dir).display()), Postgres::url);
    let node = |own: &[&str], log: &str| {
        let flags = shared.iter().chain(traits.flags).chain(own).map(|&flag| flag.to_owned()).collect();
        Node::new(flags, if redis.is_none() { variables() } else { Vec::new() }, dir.join(log))
    };
    let mut nodes = vec![node(&["--sink", &sink], "service.log")?];
    if table {
        for number in 2..=WRITERS {
            nodes.push(node(&["--sink", &sink], &format!("service-{number}.log"))?);
        }
    } else if redis.is_some() {
        for number in 1..=INGEST_NODES {
            nodes.push(node(&["--role", "ingest"], &format!("ingest-{number}.log"))?);
        }
    }
    let steps = traits.clock_steps.then(Steps::default);
    let writers = if table { WRITERS } else { 1 };
    Ok(Site { nodes, writers, redis, replica, proxy, disk, shim, steps, postgres })
}

fn sink(dir: &Path) -> PathBuf {
    dir.join("sink").join("csv")
}

/// Where the rows are.
fn place<'a>(site: &'a Site, dir: &Path) -> Place<'a> {
    site.postgres.as_ref().map_or_else(|| Place::Files(sink(dir)), Place::Table)
}

/// How many lives are open, as the service says; many if it does not.
pub(crate) fn open_lives(port: u16) -> u64 {
    let http = Http::new();
    let of = |source: usize| -> Option<u64> {
        let answer = http.get(port, &format!("/v1/state?source={}", source_id(source)))?;
        match answer.status {
            200 => Some(answer.json().as_array()?.len() as u64),
            404 => Some(0),
            _ => None,
        }
    };
    (0..TIMED + UNTIMED).map(of).sum::<Option<u64>>().unwrap_or(u64::MAX)
}

/// Ends everything and compares.
fn finish(
    kind: Kind,
    dir: &Path,
    mut site: Site,
    shared: &Sharing,
    seen: Seen,
    stuck: u64,
    faults: Vec<Happened>,
) -> Result<Outcome> {
    let keys = site.redis.as_ref().map(|redis| redis.cli(&["--scan"]).context("Redis does not answer")).transpose()?;
    let orphans = verdict::orphans(&keys.unwrap_or_default());
    let cells = shared.ledger.cells();
    for source in (0..TIMED + UNTIMED).map(source_id) {
        let all: u64 = cells.iter().filter(|((id, _), _)| *id == source).map(|(_, cell)| cell.tally.count).sum();
        let answered = Http::new().total(shared.ports[0], &source, PERIODS[2]).map(|(count, _)| count);
        if shared.durable && answered != Some(all) {
            shared.complain(format!("{source}: {answered:?} are answered at the end, {all} were acknowledged"));
        }
    }
    for node in &mut site.nodes {
        if let Err(error) = node.stop() {
            shared.complain(format!("{error:#}"));
        }
        if let Some(panic) = node.whole_log().lines().find(|line| line.contains("panicked")) {
            shared.complain(panic.to_owned());
        }
    }
    site.steps.iter().flat_map(|steps| &steps.wrong).for_each(|wrong| shared.complain(wrong.clone()));
    let incidents: Vec<_> = site.nodes.iter().flat_map(Node::losses).collect();
    if shared.durable && !incidents.is_empty() {
        shared.complain(format!("losses where nothing can be lost: {incidents:?}"));
    }
    let verdict = verdict::compare(&place(&site, dir), &cells, &incidents)?;
    if let Some(disk) = &site.disk {
        disk.save(&dir.join("sink-files"))?;
    }
    let (requests, readings, repeated) = shared.ledger.totals();
    let waits = shared.waits.lock().expect("no panic while it is held");
    let longest = waits.iter().map(|(from, to)| to.duration_since(*from)).max().unwrap_or_default();
    Ok(Outcome {
        kind,
        unavailable: unavailable::longest(&faults, &waits),
        faults,
        requests,
        readings,
        repeated,
        unanswered: shared.unanswered.load(Ordering::SeqCst),
        longest,
        seen,
        rows_meanwhile: 0,
        verdict,
        incidents: incidents.len() as u64,
        stuck,
        orphans,
        complaints: std::mem::take(&mut *shared.wrong.lock().expect("no panic while it is held")),
    })
}
