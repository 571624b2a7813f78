//! Clients that do what the documentation asks of them, and keep book: each batch under its own key,
//! repeated until it is answered 200; some once more on purpose, at once, much later, or twice at a time.
//!
//! Started by `world.rs`, one thread each. They end when told to, after all they have sent is
//! acknowledged and everything that was to be sent again has been. What must not be sent again is known to
//! `straddling.rs`.

use crate::http::{Answer, Http};
use crate::ledger::{Ledger, Reading, TIMED, UNTIMED, source_id};
use crate::seeded::Seeded;
use crate::straddling::{Again, Straddling};
use meanwhile::clock::{self, Clock};
use meanwhile::stats::Millis;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;
use tokio::time::Instant;

/// Readings of one batch at most.
const BATCH: u64 = 200;
/// Milliseconds between two batches at most: enough for group commits, little enough for two cores.
const PAUSE: u64 = 40;
const RETRY: Duration = Duration::from_millis(100);
/// Waits for an answer that are shorter say nothing about a fault.
const WAIT: Duration = Duration::from_millis(100);
/// A batch that was not acknowledged by then never will be.
const PATIENCE: Duration = Duration::from_mins(3);
/// How much later a batch is sent again, in milliseconds at most.
const MUCH_LATER: u64 = 60_000;

/// What all clients of a world share.
pub(crate) struct Sharing {
    pub(crate) ledger: Ledger,
    /// Ports of the instances, that with the sink first; a batch goes to any, a repetition to the next one.
    pub(crate) ports: Vec<u16>,
    /// Whether the store keeps what it confirms: then a repetition is always called a duplicate.
    pub(crate) durable: bool,
    pub(crate) stop: AtomicBool,
    /// Whether readings of days that are over are sent; while they are, these days are hardly ever compacted.
    pub(crate) old_days: AtomicBool,
    /// The longer of the waits from the first sending of a batch to its acknowledgement.
    pub(crate) waits: Mutex<Vec<(Instant, Instant)>>,
    /// Whether it may be so far back that what is now is of the future.
    pub(crate) clock_of_the_service_steps: bool,
    pub(crate) straddling: Straddling,
    /// When the last request was sent to each instance that was answered 200.
    pub(crate) answered: Mutex<Vec<Option<Instant>>>,
    /// Batches that were never acknowledged.
    pub(crate) unanswered: AtomicU64,
    /// Answers that should not have been given.
    pub(crate) wrong: Mutex<Vec<String>>,
}

impl Sharing {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether each instance has counted something that was sent to it later than this.
    pub(crate) fn all_answered_since(&self, at: Instant) -> bool {
        self.answered.lock().expect("no panic while it is held").iter().all(|sent| *sent > Some(at))
    }

    pub(crate) fn complain(&self, what: String) {
        self.wrong.lock().expect("no panic while it is held").push(what);
    }
}

struct Batch {
    key: String,
    lines: String,
    readings: Vec<Reading>,
    /// How often the store had lost everything when it was acknowledged.
    losses: u64,
}

struct Client {
    shared: Arc<Sharing>,
    http: Http,
    random: Seeded,
    name: String,
    batches: u64,
    /// Acknowledged batches, and when they are to be sent again.
    later: VecDeque<(Millis, Batch)>,
}

/// Runs a client until it is told to stop.
pub(crate) fn run(shared: &Arc<Sharing>, number: u64, seed: u64) {
    let random = Seeded::new(seed);
    let name = format!("client-{number}");
    let shared = Arc::clone(shared);
    let mut client = Client { shared, http: Http::new(), random, name, batches: 0, later: VecDeque::new() };
    while !client.shared.stopped() {
        client.send_next();
        client.send_due(Clock::System.now());
        sleep(Duration::from_millis(client.random.below(PAUSE)));
    }
    client.send_due(Millis::MAX);
}

/// The whole batch is refused then, and nothing of it is counted.
fn is_of_the_future(answer: &Answer) -> bool {
    answer.status == 400 && answer.body.contains("ahead of the service's clock")
}

impl Client {
    fn send_next(&mut self) {
        let mut batch = self.make_batch();
        self.shared.ledger.sent(&batch.readings);
        let (started, number) = (clock::instant(), self.shared.straddling.sent());
        let first = self.random.below(self.shared.ports.len() as u64) as usize;
        let twice = self.random.below(100) < 1;
        let counted = if twice { self.deliver_twice(&batch, first) } else { self.deliver(&batch, first) };
        batch.losses = self.shared.straddling.answered(number);
        if !counted {
            self.shared.unanswered.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if started.elapsed() > WAIT {
            self.shared.waits.lock().expect("no panic while it is held").push((started, clock::instant()));
        }
        self.shared.ledger.acknowledged(&batch.readings, Clock::System.now());
        match self.random.below(100) {
            0..3 => self.repeat(batch, first + 1),
            3..6 => {
                let due = Clock::System.now() + self.random.below(MUCH_LATER).cast_signed();
                self.later.push_back((due, batch));
            }
            _ => {}
        }
    }

    /// Nine of ten readings have a time: mostly now, some later than any bucket waits, some of
    /// yesterday and the day before, so that days are over and are compacted.
    fn make_batch(&mut self) -> Batch {
        let now = Clock::System.now();
        let old_days = self.shared.old_days.load(Ordering::SeqCst);
        let key = format!("{}-{}", self.name, self.batches);
        self.batches += 1;
        let (mut lines, mut readings) = (String::new(), Vec::new());
        for _ in 0..=self.random.below(BATCH) {
            let value = self.random.below(1_000);
            let reading = if self.random.below(10) == 0 {
                Reading { source: TIMED + self.random.below(UNTIMED as u64) as usize, value, time: None }
            } else {
                let ago = match self.random.below(100) {
                    0..10 => self.random.below(20_000),
                    10..12 if old_days => 86_400_000 * (1 + self.random.below(2)) + self.random.below(5_000),
                    _ => self.random.below(1_500),
                };
                let source = self.random.below(TIMED as u64) as usize;
                Reading { source, value, time: Some(now - ago.cast_signed()) }
            };
            let time = reading.time.map(|time| format!(r#","timestamp":{time}"#)).unwrap_or_default();
            let source = source_id(reading.source);
            writeln!(lines, r#"{{"source":"{source}","value":{value}{time}}}"#).expect("memory takes everything");
            readings.push(reading);
        }
        Batch { key, lines, readings, losses: 0 }
    }

    /// Sends until the batch is counted, beginning with this instance; whether it was.
    fn deliver(&self, batch: &Batch, first: usize) -> bool {
        self.try_until_counted(&self.http, batch, first).is_some()
    }

    /// Two at once, as a proxy does that repeats what it takes for lost.
    fn deliver_twice(&self, batch: &Batch, first: usize) -> bool {
        thread::scope(|scope| {
            let other = scope.spawn(|| self.try_until_counted(&Http::new(), batch, first + 1).is_some());
            let counted = self.deliver(batch, first);
            other.join().expect("a client does not panic") && counted
        })
    }

    fn try_until_counted(&self, http: &Http, batch: &Batch, first: usize) -> Option<Answer> {
        let started = clock::instant();
        let ports = &self.shared.ports;
        for attempt in first.. {
            let (node, sent) = (attempt % ports.len(), clock::instant());
            match http.post(ports[node], &batch.key, &batch.lines) {
                Some(answer) if answer.status == 200 => {
                    self.shared.answered.lock().expect("no panic while it is held")[node] = Some(sent);
                    if answer.json()["accepted"] != batch.readings.len() {
                        self.shared.complain(format!("{} readings: {}", batch.readings.len(), answer.body));
                    }
                    return Some(answer);
                }
                None => {}
                Some(answer) if matches!(answer.status, 408 | 503 | 504) => {}
                Some(answer) if self.shared.clock_of_the_service_steps && is_of_the_future(&answer) => {}
                Some(answer) => {
                    self.shared.complain(format!("{} {}", answer.status, answer.body));
                    return None;
                }
            }
            if started.elapsed() > PATIENCE {
                return None;
            }
            sleep(RETRY);
        }
        None
    }

    /// Sends an acknowledged batch again, at once if that may be.
    fn repeat(&mut self, batch: Batch, first: usize) {
        match self.shared.straddling.repeat(batch.losses) {
            Again::Yes => self.repeat_now(&batch, first),
            Again::NotNow => self.later.push_back((Clock::System.now(), batch)),
            Again::Never => {}
        }
    }

    fn repeat_now(&self, batch: &Batch, first: usize) {
        self.shared.ledger.repeated();
        match self.try_until_counted(&self.http, batch, first) {
            None => drop(self.shared.unanswered.fetch_add(1, Ordering::SeqCst)),
            Some(answer) if self.shared.durable && answer.json()["duplicate"] != true => {
                self.shared.complain(format!("a repetition is no duplicate: {}", answer.body));
            }
            Some(_) => {}
        }
        self.shared.straddling.repeated();
    }

    fn send_due(&mut self, now: Millis) {
        for _ in 0..self.later.len() {
            let Some((due, batch)) = self.later.pop_front() else { return };
            if due <= now {
                let first = self.random.below(self.shared.ports.len() as u64) as usize;
                self.repeat(batch, first);
            } else {
                self.later.push_back((due, batch));
            }
        }
    }
}
