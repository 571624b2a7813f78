//! The comparison at the end: what the clients know against what is in the files, and what is left over
//! in the store.
//!
//! Called by `world.rs` when all faults are over, everything is acknowledged and nothing is open any more.

use crate::ledger::{Cell, Cells, Tally, is_timed};
use crate::postgres::Postgres;
use crate::processes::Announced;
use crate::rows::{self, Place, Rows};
use crate::world::{PERIODS, seconds};
use anyhow::Result;
use meanwhile::stats::Millis;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of Redis that stay when nothing is open: see the table in ARCHITECTURE.md.
const STAYING: [&str; 9] = [
    "mw:meta",
    "mw:{0}",
    "mw:{0}:errors",
    "mw:{0}:errors:last",
    "mw:{0}:log",
    "mw:{0}:nodes",
    "mw:{0}:rules",
    "mw:{0}:slices",
    "mw:{0}:tombs",
];
/// Slices of idempotency keys stay until they expire.
const SLICES: &str = "mw:{0}:k:";
/// By how much the moment at which a client has its answer may differ from that at which the service
/// has confirmed the frame.
const SLACK: Millis = 1_000;

/// What was found; all but `rows`, `covered` and `short` must be 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) rows: u64,
    /// Acknowledged readings that are in no row.
    pub(crate) lost: u64,
    /// Those of them the service has said are lost: on a store that may forget.
    pub(crate) covered: u64,
    /// Readings that are in a row once more than they were sent.
    pub(crate) double: u64,
    /// Rows of the right count and another sum, lines that cannot be read.
    pub(crate) wrong: u64,
    /// Rows of a coarse period that have less than those of the finest, after the store was emptied.
    pub(crate) short: u64,
    /// Rows of a coarse period that are not the sum of the rows of the finest, of any other reason.
    pub(crate) disagreeing: u64,
    pub(crate) differing: u64,
    /// What was found wrong, in words.
    pub(crate) notes: Vec<String>,
}

/// Compares the files with the ledger. `incidents`: what the service says that its store has lost.
pub(crate) fn compare(place: &Place, cells: &Cells, incidents: &[Announced]) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let periods = PERIODS.iter().map(|period| rows::read(place, period)).collect::<Result<Vec<_>>>()?;
    if let Place::Table(postgres) = place {
        verdict.look_beside(postgres)?;
    }
    for rows in &periods {
        verdict.rows += rows.newest.len() as u64;
        verdict.differing += rows.differing;
        verdict.wrong += rows.unreadable.len() as u64;
        verdict.notes.extend_from_slice(&rows.unreadable);
    }
    verdict.compare_finest(&periods[0], cells, incidents);
    let emptied = incidents.iter().filter(|incident| incident.everything).map(|incident| incident.to).max();
    for (period, rows) in PERIODS.iter().zip(&periods).skip(1) {
        verdict.compare_coarse(period, rows, &periods[0], emptied);
    }
    Ok(verdict)
}

/// How many rows there are, also while they are written; 0 if that cannot be said.
pub(crate) fn rows(place: &Place) -> u64 {
    PERIODS.iter().filter_map(|period| rows::read(place, period).ok()).map(|rows| rows.newest.len() as u64).sum()
}

impl Verdict {
    /// Adds up what was found in two places.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { rows, lost, covered, double, wrong, disagreeing, differing, notes, short } = other;
        self.rows += rows;
        self.lost += lost;
        self.covered += covered;
        self.double += double;
        self.wrong += wrong;
        self.disagreeing += disagreeing;
        self.differing += differing;
        self.notes.extend(notes);
        self.short += short;
    }

    pub(crate) fn is_good(&self) -> bool {
        let Self { rows: _, short: _, covered, lost, double, wrong, disagreeing, differing, notes: _ } = self;
        lost == covered && [double, wrong, disagreeing, differing].iter().all(|&&n| n == 0)
    }

    /// At what else there is in the database: it must know the sources of the rows, and no row may be set aside.
    fn look_beside(&mut self, postgres: &Postgres) -> Result<()> {
        let aside = postgres.sql("SELECT source, period, bucket_start, reason FROM dead_letters")?;
        let sources = postgres.sql(
            "SELECT coalesce(source, id), of_rows, of_source FROM \
             (SELECT source, (min(bucket_start), max(bucket_start)) AS of_rows FROM bucket_stats GROUP BY source) AS r \
             FULL JOIN (SELECT id, (first_bucket, last_bucket) AS of_source FROM sources) AS s ON source = id \
             WHERE of_rows IS DISTINCT FROM of_source",
        )?;
        let notes = aside.lines().map(|line| format!("set aside: {line}"));
        let notes = notes.chain(sources.lines().map(|line| format!("rows and list of sources: {line}")));
        let before = self.notes.len();
        self.notes.extend(notes);
        self.wrong += (self.notes.len() - before) as u64;
        Ok(())
    }

    fn compare_finest(&mut self, finest: &Rows, cells: &Cells, incidents: &[Announced]) {
        let mut written: BTreeMap<(String, Option<Millis>), Tally> = BTreeMap::new();
        for ((source, start), tally) in &finest.newest {
            *written.entry((source.clone(), is_timed(source).then_some(*start))).or_default() += *tally;
        }
        let (nothing, no_cell) = (Tally::default(), Cell::default());
        let keys: BTreeSet<_> = written.keys().chain(cells.keys()).collect();
        for key in keys {
            let (row, cell) = (written.get(key).unwrap_or(&nothing), cells.get(key).unwrap_or(&no_cell));
            if *row == cell.tally {
                continue;
            }
            match row.count.cmp(&cell.tally.count) {
                Ordering::Greater => self.double += row.count - cell.tally.count,
                Ordering::Less => {
                    let lost = cell.tally.count - row.count;
                    let covered = lost.min(acknowledged_within(cell, incidents));
                    self.lost += lost;
                    self.covered += covered;
                    if covered == lost {
                        continue;
                    }
                }
                Ordering::Equal => self.wrong += 1,
            }
            self.notes.push(format!("{key:?}: the row has {row:?}, acknowledged were {:?}", cell.tally));
        }
    }

    /// `emptied`: when the store was last found empty. What had been written of a bucket until then stays in
    /// its own row, and is in none of those that it had not moved up into.
    fn compare_coarse(&mut self, period: &str, coarse: &Rows, finest: &Rows, emptied: Option<Millis>) {
        let length = seconds(period) * 1_000;
        let mut expected: BTreeMap<(String, Millis), Tally> = BTreeMap::new();
        for ((source, start), tally) in &finest.newest {
            *expected.entry((source.clone(), start - start % length)).or_default() += *tally;
        }
        let keys: BTreeSet<_> = expected.keys().chain(coarse.newest.keys()).collect();
        for key in keys {
            let of = |rows: &BTreeMap<(String, Millis), Tally>| rows.get(key).map_or(0, |tally| tally.count);
            if of(&coarse.newest) < of(&expected) && emptied.is_some_and(|at| key.1 <= at + SLACK) {
                self.short += 1;
            } else if expected.get(key) != coarse.newest.get(key) {
                self.disagreeing += 1;
                let (finest, coarse) = (expected.get(key), coarse.newest.get(key));
                self.notes.push(format!("{key:?}: {period} has {coarse:?}, the finest rows come to {finest:?}"));
            }
        }
    }
}

/// How many readings of a cell were acknowledged in these spans, or before everything that was open was lost.
fn acknowledged_within(cell: &Cell, incidents: &[Announced]) -> u64 {
    let covers = |incident: &Announced, at: Millis| {
        at <= incident.to + SLACK && (incident.everything || at >= incident.from - SLACK)
    };
    let within = |at: Millis| incidents.iter().any(|incident| covers(incident, at));
    cell.acknowledged.iter().filter(|(at, _)| within(*at)).map(|(_, count)| count).sum()
}

/// Keys of a Redis in which nothing is open that should not be there, of its own `--scan`.
pub(crate) fn orphans(keys: &str) -> Vec<String> {
    let stays = |key: &str| STAYING.contains(&key) || key.starts_with(SLICES);
    keys.lines().filter(|key| !key.is_empty() && !stays(key)).map(str::to_owned).collect()
}
