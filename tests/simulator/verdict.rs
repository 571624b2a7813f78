//! Holds the rows at the end, and the answers to questions before, against the books.
//!
//! Made by `node.rs` for each question and by `schedule.rs` for the end. Says only what a client could say: it knows
//! what was answered, not what is in the store.

use crate::books::{Books, Bounds, SOURCES};
use crate::history::Kind;
use crate::world::World;
use meanwhile::query::{QueryError, StatsRow};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Calendar};
use meanwhile::stats::moments::Moments;
use std::sync::{Arc, Mutex};

pub(crate) struct Verdict {
    world: Arc<World>,
    books: Arc<Mutex<Books>>,
    calendar: Arc<Calendar>,
}

impl Verdict {
    pub(crate) fn new(world: &Arc<World>, books: &Arc<Mutex<Books>>, calendar: &Arc<Calendar>) -> Self {
        Self { world: Arc::clone(world), books: Arc::clone(books), calendar: Arc::clone(calendar) }
    }

    /// How often each reading must be in an answer from now on at least.
    pub(crate) fn known(&self) -> Vec<u64> {
        let books = self.books.lock().expect("one thread");
        (0..books.readings.len()).map(|index| books.bounds(index).least).collect()
    }

    fn forgets(&self) -> bool {
        self.world.lock().history.kind == Kind::Forgets
    }

    /// The answer to a question of which `known` was certain when it was asked.
    pub(crate) fn answer(&self, sources: &[Arc<str>], known: &[u64], rows: &[StatsRow]) {
        self.world.note("answers to questions checked");
        let books = self.books.lock().expect("one thread");
        let mut counted = vec![0; books.readings.len()];
        for row in rows {
            let (bucket, moments) = (row.bucket, &row.moments);
            self.add(&books, &mut counted, bucket, &row.source, moments);
        }
        for (index, reading) in books.readings.iter().enumerate() {
            if !sources.iter().any(|source| **source == *SOURCES[reading.source]) {
                continue;
            }
            let excused = self.forgets() || self.is_unlike(&books, index, rows);
            let least = if excused { 0 } else { known.get(index).copied().unwrap_or_default() };
            if counted[index] < least || counted[index] > 1 {
                let (n, what) = (counted[index], books.describe(index));
                self.world.violated(|| format!("a question is answered with {what} {n} times: {rows:?}"));
            }
        }
    }

    /// Whether a reading is left out of an answer, because its row has readings of another length.
    fn is_unlike(&self, books: &Books, index: usize, rows: &[StatsRow]) -> bool {
        let reading = &books.readings[index];
        let own = |row: &&StatsRow| {
            let within = |t: &Millis| self.calendar.bucket(row.bucket.period, *t) == row.bucket;
            *row.source == *SOURCES[reading.source] && reading.times.iter().any(within)
        };
        rows.iter().filter(own).any(|row| row.moments.length() != reading.length)
    }

    /// There was no answer.
    pub(crate) fn no_rows(&self, sources: &[Arc<str>], known: &[u64], error: &QueryError) {
        self.world.log(|| format!("a question is not answered: {error}"));
        let QueryError::UnknownSource { id, .. } = error else { return };
        let books = self.books.lock().expect("one thread");
        let of = |index: usize| sources.contains(id) && *SOURCES[books.readings[index].source] == **id;
        if !self.forgets() && (0..known.len()).any(|index| of(index) && known[index] > 0) {
            self.world.violated(|| format!("the source {id} is said to be unknown"));
        }
    }

    /// Adds up how often each reading is in a row.
    fn add(&self, books: &Books, counted: &mut [u64], bucket: Bucket, source: &str, moments: &Moments) {
        let digits = books.digits(source, moments);
        if books.moments(&digits).as_ref() != Ok(moments) {
            self.world.violated(|| format!("the moments of {source} in {bucket:?} are of no readings: {moments:?}"));
        }
        for (index, times) in digits {
            let own = |t: &Millis| self.calendar.bucket(bucket.period, *t) == bucket;
            if !books.readings[index].times.iter().any(own) {
                let what = books.describe(index);
                self.world.violated(|| format!("{what} is in {bucket:?}"));
            }
            counted[index] += times;
        }
    }

    /// The rows at the end, and what was set aside, when nothing is open any more. `announced`: the losses that nodes spoke of; `None` if one
    /// that might have spoken died.
    pub(crate) fn rows(&self, announced: Option<&[(Millis, Millis)]>) {
        let books = self.books.lock().expect("one thread");
        let (rows, aside) = {
            let state = self.world.lock();
            (state.rows.values().cloned().collect::<Vec<_>>(), state.aside.values().cloned().collect::<Vec<_>>())
        };
        let mut all = Vec::new();
        for &period in self.calendar.periods() {
            let mut counted = vec![0; books.readings.len()];
            for row in rows.iter().filter(|row| row.bucket.period == period) {
                self.add(&books, &mut counted, row.bucket, &row.source, &row.state);
            }
            for life in aside.iter().filter(|life| life.bucket.period == period) {
                self.add(&books, &mut counted, life.bucket, &life.source, &life.moments);
            }
            for (index, &n) in counted.iter().enumerate() {
                let Bounds { least, most } = books.bounds(index);
                let excused = self.forgets()
                    && announced.is_none_or(|losses| {
                        let within = |at: &Millis| losses.iter().any(|(from, to)| (from..=to).contains(&at));
                        books.request_of(index).acked.iter().any(within)
                    });
                let (least, most) = if excused { (0, most) } else { (least, most) };
                // A store that went back in time may take what it had refused before.
                let most = if self.forgets() { 1 } else { most };
                if !(least..=most).contains(&n) {
                    let what = books.describe(index);
                    self.world.violated(|| {
                        format!("in the rows of {period} {what} is counted {n} times, which is not {least} to {most}")
                    });
                }
            }
            all.push(counted);
        }
        if !all.windows(2).all(|two| two[0] == two[1]) {
            self.world.violated(|| format!("the periods disagree: {all:?}"));
        }
        self.check_keys(&books, &all[0]);
    }

    /// Of the bodies that came under one key at most one is counted.
    fn check_keys(&self, books: &Books, counted: &[u64]) {
        for (index, reading) in books.readings.iter().enumerate() {
            let Some(key) = books.request_of(index).key else { continue };
            for (other, _) in books.readings.iter().enumerate().take(index) {
                let same = books.request_of(other).key.filter(|k| k.id == key.id && k.fingerprint != key.fingerprint);
                if same.is_some() && counted[index] + counted[other] > 1 && !self.forgets() {
                    let source = SOURCES[reading.source];
                    self.world.violated(|| format!("two bodies of key {} are counted, in {source}", key.id));
                }
            }
        }
    }
}
