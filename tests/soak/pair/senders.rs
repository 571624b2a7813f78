//! Brings readings to the service: in their order and undisturbed, or shuffled over three instances while
//! one after the other is killed.
//!
//! Used by `pair.rs`. Each batch has a key and is sent until it is answered 200; of the shuffled, one in
//! ten is sent once more.

use super::readings::{self, Readings};
use crate::http::Http;
use crate::processes::Node;
use crate::seeded::Seeded;
use anyhow::{Context, Result, bail, ensure};
use meanwhile::clock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const NODES: usize = 3;
/// Requests at once.
const SENDERS: u64 = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// A batch that is not acknowledged by then never will be, and an instance that is not there has failed.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two kills: so long that buckets are written and closed meanwhile, and readings that follow begin
/// further lives.
const KILL_EVERY: Duration = Duration::from_millis(1_500);
/// Microseconds for which a request may have been under way when its instance is killed.
const KILL_DELAY: u64 = 6_000;
/// One in so many batches is sent twice.
const TWICE: usize = 10;

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) requests: usize,
    /// Answers that said the batch had been counted before.
    pub(crate) duplicates: usize,
    /// Requests that got no answer, or none for good.
    pub(crate) again: usize,
    /// Kills of each instance.
    pub(crate) kills: [usize; NODES],
}

/// One batch after the other to one instance.
pub(crate) fn send_in_order(readings: &Readings, port: u16) -> Result<()> {
    let sending = Sending::new(readings, vec![port], (0..readings.batches()).collect(), 0);
    sending.send(Seeded::new(0))?;
    let duplicates = sending.duplicates.into_inner();
    ensure!(duplicates == 0, "{duplicates} batches were sent once and are called duplicates");
    Ok(())
}

/// All batches in a random order to all instances, each of which is killed and started again so many times.
pub(crate) fn send_shuffled(readings: &Readings, nodes: &mut [Node; NODES], kills: usize, seed: u64) -> Result<Sent> {
    let mut random = Seeded::new(seed);
    let order = shuffled(readings.batches(), &mut random);
    let sending = Sending::new(readings, nodes.iter().map(|node| node.port).collect(), order, NODES * kills);
    let mut sent = Sent { requests: sending.order.len(), ..Sent::default() };
    thread::scope(|scope| -> Result<()> {
        let sending = &sending;
        let mut seeds = Seeded::new(random.below(u64::MAX));
        let mut sender = || {
            let random = Seeded::new(seeds.below(u64::MAX));
            scope.spawn(move || sending.send(random))
        };
        let senders: Vec<_> = (0..SENDERS).map(|_| sender()).collect();
        let disturbed = sending.disturb(nodes, &mut sent.kills, &mut random);
        sending.failed.fetch_or(disturbed.is_err(), Ordering::SeqCst);
        senders.into_iter().try_for_each(|sender| sender.join().expect("a sender does not panic"))?;
        disturbed
    })?;
    sent.duplicates = sending.duplicates.into_inner();
    sent.again = sending.again.into_inner();
    Ok(sent)
}

/// The numbers of all batches, some of them twice.
fn shuffled(batches: usize, random: &mut Seeded) -> Vec<usize> {
    let mut order: Vec<usize> = (0..batches).chain((0..batches).step_by(TWICE)).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

/// What all senders share.
struct Sending<'a> {
    readings: &'a Readings,
    ports: Vec<u16>,
    /// Numbers of the batches.
    order: Vec<usize>,
    started: Instant,
    kills: usize,
    /// Batches between two kills.
    step: usize,
    /// The place in the order of the next batch, and how many are acknowledged.
    next: AtomicUsize,
    done: AtomicUsize,
    /// Places before this one may be sent.
    allowed: AtomicUsize,
    /// Requests of which the answer has not come, by port.
    under_way: Vec<AtomicUsize>,
    again: AtomicUsize,
    duplicates: AtomicUsize,
    /// Somebody has given up, so that nobody needs to wait.
    failed: AtomicBool,
}

impl<'a> Sending<'a> {
    fn new(readings: &'a Readings, ports: Vec<u16>, order: Vec<usize>, kills: usize) -> Self {
        let step = order.len() / (kills + 1);
        Self {
            readings,
            under_way: ports.iter().map(|_| AtomicUsize::new(0)).collect(),
            ports,
            started: clock::instant(),
            kills,
            step,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            allowed: AtomicUsize::new(if kills == 0 { order.len() } else { 2 * step }),
            order,
            again: AtomicUsize::new(0),
            duplicates: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        }
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// One batch after the other, as long as there are some.
    fn send(&self, mut random: Seeded) -> Result<()> {
        let http = Http::new();
        loop {
            let place = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(&number) = self.order.get(place) else { return Ok(()) };
            self.wait_for_turn(place);
            let sent = self.deliver(&http, number, random.below(self.ports.len() as u64) as usize);
            self.failed.fetch_or(sent.is_err(), Ordering::SeqCst);
            self.duplicates.fetch_add(usize::from(sent?), Ordering::SeqCst);
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Between kills requests come evenly, and none is far ahead of the kills.
    fn wait_for_turn(&self, place: usize) {
        if self.kills > 0 {
            let turn = KILL_EVERY.mul_f64(place as f64 / self.step as f64);
            sleep(turn.saturating_sub(self.started.elapsed()));
        }
        while place >= self.allowed.load(Ordering::SeqCst) && !self.failed() {
            sleep(PAUSE);
        }
    }

    /// Sends a batch until it is counted, to one instance after the other; whether it had been counted before.
    fn deliver(&self, http: &Http, number: usize, first: usize) -> Result<bool> {
        let batch = self.readings.batch(number);
        let (key, lines) = (format!("batch-{number}"), readings::lines(&batch));
        let started = clock::instant();
        for attempt in first.. {
            let node = attempt % self.ports.len();
            self.under_way[node].fetch_add(1, Ordering::SeqCst);
            let answer = http.post(self.ports[node], &key, &lines);
            self.under_way[node].fetch_sub(1, Ordering::SeqCst);
            match answer {
                Some(answer) if answer.status == 200 => {
                    let said = answer.json();
                    ensure!(said["accepted"] == batch.len(), "{} readings: {}", batch.len(), answer.body);
                    return said["duplicate"].as_bool().with_context(|| answer.body.clone());
                }
                Some(answer) if !matches!(answer.status, 408 | 503 | 504) => bail!("{} {}", answer.status, answer.body),
                _ => self.again.fetch_add(1, Ordering::SeqCst),
            };
            ensure!(started.elapsed() < PATIENCE, "batch {number} is not acknowledged");
            sleep(PAUSE);
        }
        unreachable!("attempts do not run out")
    }

    /// Kills one instance after the other, each while it has a request, and starts it again.
    fn disturb(&self, nodes: &mut [Node; NODES], killed: &mut [usize; NODES], random: &mut Seeded) -> Result<()> {
        for kill in 0..self.kills {
            let node = kill % nodes.len();
            wait("the senders get on", || self.done.load(Ordering::SeqCst) >= (kill + 1) * self.step || self.failed())?;
            let started = clock::instant();
            while self.under_way[node].load(Ordering::SeqCst) == 0 && !self.failed() {
                ensure!(started.elapsed() < PATIENCE, "nothing is sent any more");
                thread::yield_now();
            }
            sleep(Duration::from_micros(random.below(KILL_DELAY)));
            killed[node] += 1;
            restart(&mut nodes[node])?;
            self.allowed.store(
                if kill + 1 == self.kills { self.order.len() } else { (kill + 3) * self.step },
                Ordering::SeqCst,
            );
        }
        Ok(())
    }
}

/// Kills an instance that takes requests, and waits until it takes them again.
fn restart(node: &mut Node) -> Result<()> {
    if let Some(how) = node.ended()? {
        bail!("the service has ended by itself: {how:?}");
    }
    node.kill()?;
    node.start()?;
    wait("the service takes requests again", || node.is_ready())
}

pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let started = clock::instant();
    while !done() {
        ensure!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(PAUSE);
    }
    Ok(())
}
