//! What the clients know: which readings they have sent, and which of them were acknowledged and when.
//!
//! Written by `clients.rs`, read while a run goes on by `reader.rs` and at its end by `verdict.rs`.
//! Values are small integers, so that every sum is exact. A source whose readings have no time is
//! known by its total alone: the service has decided which buckets they are in.

use meanwhile::stats::Millis;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard};

/// Sources whose readings carry their time, and those whose do not.
pub(crate) const TIMED: usize = 12;
pub(crate) const UNTIMED: usize = 4;

/// The id of a source by its number; the untimed come last.
pub(crate) fn source_id(number: usize) -> String {
    if number < TIMED { format!("timed-{number}") } else { format!("untimed-{number}") }
}

pub(crate) fn is_timed(source: &str) -> bool {
    source.starts_with("timed-")
}

/// The readings of a row or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) sum: u64,
    pub(crate) sum_sq: u64,
}

impl Tally {
    pub(crate) fn of(value: u64) -> Self {
        Self { count: 1, sum: value, sum_sq: value * value }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.sum_sq += other.sum_sq;
    }
}

/// One reading; no time means that of its arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) source: usize,
    pub(crate) value: u64,
    pub(crate) time: Option<Millis>,
}

/// What was acknowledged for a second of a source, or for an untimed source as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) tally: Tally,
    /// When, by the wall clock, and how many.
    pub(crate) acknowledged: Vec<(Millis, u64)>,
}

/// By source and second; an untimed source has one cell without second.
pub(crate) type Cells = BTreeMap<(String, Option<Millis>), Cell>;

#[derive(Default)]
struct State {
    sent: [u64; TIMED + UNTIMED],
    acknowledged: [u64; TIMED + UNTIMED],
    cells: BTreeMap<(usize, Option<Millis>), Cell>,
    requests: u64,
    repeated: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<State>);

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while it is held")
    }

    /// A request is about to be sent for the first time.
    pub(crate) fn sent(&self, readings: &[Reading]) {
        let mut state = self.state();
        for reading in readings {
            state.sent[reading.source] += 1;
        }
    }

    /// It was answered 200 for the first time.
    pub(crate) fn acknowledged(&self, readings: &[Reading], now: Millis) {
        let mut state = self.state();
        state.requests += 1;
        for reading in readings {
            state.acknowledged[reading.source] += 1;
            let cell = state.cells.entry((reading.source, reading.time.map(|time| time - time % 1_000))).or_default();
            cell.tally += Tally::of(reading.value);
            match cell.acknowledged.last_mut() {
                Some((at, count)) if *at == now => *count += 1,
                _ => cell.acknowledged.push((now, 1)),
            }
        }
    }

    /// An acknowledged request was sent again.
    pub(crate) fn repeated(&self) {
        self.state().repeated += 1;
    }

    /// How many readings of a source have been acknowledged and sent by now.
    pub(crate) fn bounds(&self, source: usize) -> (u64, u64) {
        let state = self.state();
        (state.acknowledged[source], state.sent[source])
    }

    /// Requests and readings that were acknowledged, and repetitions.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.requests, state.acknowledged.iter().sum(), state.repeated)
    }

    /// Everything that was acknowledged.
    pub(crate) fn cells(&self) -> Cells {
        self.state()
            .cells
            .iter()
            .map(|((source, second), cell)| ((source_id(*source), *second), cell.clone()))
            .collect()
    }
}
