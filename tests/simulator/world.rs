//! What all parties of a schedule share: the store's contents, the rows, the time, and the gates at which
//! calls wait until the schedule lets them on.
//!
//! Made anew for each schedule by `schedule.rs`; `store.rs` and `sink.rs` bring the calls of the nodes here.
//! One thread, so the locks are never waited for. The store's contents are those of the oracle of tests/it;
//! what a crash takes away of them is in `history.rs`.

use crate::history::History;
use crate::oracle::Oracle;
use crate::print::short;
use crate::seeded::Seeded;
use meanwhile::clock::Clock;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Bucket;
use meanwhile::stats::row::{LifeRow, Row};
use meanwhile::store::Policy;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The most nodes of a schedule.
pub(crate) const NODES: usize = 3;

/// Whose call waits, and of which connection it is: a fault of one leaves the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Commits,
    Rollover,
    Queries,
    Sink,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// Not carried out, and said so.
    Refused,
    /// Not carried out, no answer.
    LostCall,
    /// Carried out, no answer.
    LostAnswer,
    /// No answer, and carried out at some later time, perhaps after the node has died.
    Delayed,
}

/// A call at its gate.
pub(crate) struct Waiting {
    pub(crate) node: usize,
    pub(crate) side: Side,
    what: &'static str,
    fate: oneshot::Sender<Fate>,
}

/// A call on its way without anybody who waits for it.
pub(crate) struct Copied {
    node: usize,
    side: Side,
    what: &'static str,
    run: Box<dyn FnOnce(&World) + Send>,
}

pub(crate) struct World {
    pub(crate) oracle: Oracle,
    /// The store's, and that of every node.
    pub(crate) clock: Clock,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) seeded: Seeded,
    pub(crate) rows: BTreeMap<(Bucket, Arc<str>), Row>,
    /// Lives that could not be added to their row, by their generation.
    pub(crate) aside: BTreeMap<(Bucket, Arc<str>, i64), LifeRow>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) wire: Vec<Copied>,
    pub(crate) history: History,
    /// Calls pass the gates at once and unharmed.
    pub(crate) calm: bool,
    /// Connections of each node's rollover so far, and whether the last one is cut unnoticed.
    pub(crate) renewed: [u64; NODES],
    pub(crate) cut: [bool; NODES],
    /// What went wrong first.
    pub(crate) violation: Option<String>,
    /// How often what happened.
    pub(crate) tally: BTreeMap<&'static str, u64>,
    /// What happened, if somebody wants to read it.
    log: Option<Vec<String>>,
    began: Instant,
    t0: Millis,
    /// By how much the clocks were set.
    pub(crate) stepped: Millis,
}

impl World {
    pub(crate) fn new(policy: Policy, t0: Millis, history: History, seeded: Seeded, logging: bool) -> Arc<Self> {
        let clock = Clock::manual(t0);
        Arc::new(Self {
            oracle: Oracle::new(policy, clock.clone()),
            clock,
            state: Mutex::new(State {
                seeded,
                rows: BTreeMap::new(),
                aside: BTreeMap::new(),
                waiting: Vec::new(),
                wire: Vec::new(),
                history,
                calm: false,
                renewed: [0; NODES],
                cut: [false; NODES],
                violation: None,
                tally: BTreeMap::new(),
                log: logging.then(Vec::new),
                began: meanwhile::clock::instant(),
                t0,
                stepped: 0,
            }),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    /// Below `limit`, as the seed says.
    pub(crate) fn draw(&self, limit: u64) -> u64 {
        self.lock().seeded.below(limit)
    }

    /// Whether something of so many per cent happens.
    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.draw(100) < percent
    }

    /// The time on all clocks, which passes with tokio's.
    pub(crate) fn now(&self) -> Millis {
        let now = self.lock().now();
        self.clock.set(now);
        now
    }

    /// Milliseconds since the schedule began, whatever the clocks say.
    pub(crate) fn passed(&self) -> Millis {
        self.lock().passed()
    }

    pub(crate) fn note(&self, what: &'static str) {
        *self.lock().tally.entry(what).or_default() += 1;
    }

    pub(crate) fn log(&self, line: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.log.is_some() {
            let (passed, stepped, t0) = (state.passed(), state.stepped, state.t0);
            let line = format!("{passed:>7} ms, clocks {stepped:+}: {}", short(&line(), t0));
            state.log.get_or_insert_default().push(line);
        }
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        self.lock().log.take().unwrap_or_default()
    }

    pub(crate) fn violated(&self, what: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.violation.is_none() {
            state.violation = Some(what());
        }
    }

    /// Waits until the schedule says what becomes of a call.
    pub(crate) async fn gate(&self, node: usize, side: Side, what: &'static str) -> Fate {
        let fated = {
            let mut state = self.lock();
            if state.calm {
                return Fate::Done;
            }
            let (fate, fated) = oneshot::channel();
            state.waiting.push(Waiting { node, side, what, fate });
            fated
        };
        fated.await.unwrap_or(Fate::LostCall)
    }

    /// Leaves a call on the wire, to be delivered later or never.
    pub(crate) fn leave(&self, node: usize, side: Side, what: &'static str, run: impl FnOnce(&World) + Send + 'static) {
        self.lock().wire.push(Copied { node, side, what, run: Box::new(run) });
    }

    /// Delivers one of the calls on the wire, if there is one.
    pub(crate) fn deliver(&self, choice: u64) {
        let copied = {
            let mut state = self.lock();
            if state.wire.is_empty() {
                return;
            }
            let at = (choice % state.wire.len() as u64) as usize;
            state.wire.remove(at)
        };
        self.log(|| format!("what was left of node {} on the wire arrives: {}", copied.node, copied.what));
        self.note("delayed copies delivered");
        (copied.run)(self);
    }
}

impl State {
    fn passed(&self) -> Millis {
        (meanwhile::clock::instant() - self.began).as_millis() as Millis
    }

    fn now(&self) -> Millis {
        self.t0 + self.passed() + self.stepped
    }

    /// The store's server has started again: what calls it waits no more, and what was on the wire to the one before does
    /// not reach it. Returns the calls that waited.
    pub(crate) fn cut_off(&mut self) -> Vec<Waiting> {
        self.cut = [true; NODES];
        self.wire.retain(|copied| copied.side == Side::Sink);
        self.waiting.extract_if(.., |waiting| waiting.side != Side::Sink).collect()
    }

    /// Calls whose node has died wait no more.
    pub(crate) fn drop_dead(&mut self) {
        self.waiting.retain(|waiting| !waiting.fate.is_closed());
    }
}

impl Waiting {
    /// Lets the call on.
    pub(crate) fn decide(self, world: &World, fate: Fate) {
        let Self { node, what, fate: decided, .. } = self;
        world.log(|| format!("node {node} {what}: {fate:?}"));
        if fate != Fate::Done {
            world.note("faults");
        }
        // A task that died meanwhile does not care.
        let _ = decided.send(fate);
    }
}
