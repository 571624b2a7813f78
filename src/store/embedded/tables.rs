//! The tables of the embedded store: their keys, their records, and one transaction's view of them.
//!
//! Called by `embedded.rs` alone, which holds the rules. Keys are bytes that compare in the order
//! wanted (big-endian, sign flipped), so that a bucket's states and a period's lives are ranges.

use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use crate::store::{Due, Shard, keys};
use redb::{ReadableTable, ReadableTableMetadata, StorageError, Table, TableDefinition, TableError, WriteTransaction};
use std::ops::Range;

/// Layout version, shard count; whether it was drained.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// shard -> epoch (0: none), elapsed, clock, now, highest generation.
pub(super) const HEADS: TableDefinition<Shard, (i64, i64, i64, i64, i64)> = TableDefinition::new("heads");
/// (shard, writer) -> sequence, checksum, last use in `elapsed`.
pub(super) const WRITERS: TableDefinition<(Shard, u64), (u64, u32, i64)> = TableDefinition::new("writers");
/// (shard, slice, id) -> fingerprint; a slice is named by the `elapsed` at which it expires.
pub(super) const KEYS: TableDefinition<(Shard, i64, [u8; 16]), [u8; 16]> = TableDefinition::new("keys");
/// (shard, slice): the slices there are.
pub(super) const SLICES: TableDefinition<(Shard, i64), ()> = TableDefinition::new("slices");
/// bucket key -> life.
pub(super) const LIVES: TableDefinition<&[u8], LifeTuple> = TableDefinition::new("lives");
/// bucket key, source -> state.
pub(super) const STATES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("states");
/// shard, due time, bucket name: the order in which the rollover looks.
pub(super) const DUE: TableDefinition<(Shard, i64, &str), ()> = TableDefinition::new("due");
/// (shard, bucket name) -> `elapsed` at which it may be forgotten.
pub(super) const TOMBSTONES: TableDefinition<(Shard, &str), i64> = TableDefinition::new("tombstones");
/// The same by time.
pub(super) const TOMBSTONES_BY_TIME: TableDefinition<(Shard, i64, &str), ()> =
    TableDefinition::new("tombstones_by_time");
/// shard -> highest end of a closed bucket that is no longer remembered.
pub(super) const FORGOTTEN: TableDefinition<Shard, i64> = TableDefinition::new("forgotten");
/// (shard, mark) -> bucket name, generation, revision of a life that the sink has.
pub(super) const LOG: TableDefinition<(Shard, i64), (&str, i64, i64)> = TableDefinition::new("log");
/// shard -> mark of the newest entry there ever was, how many there were.
pub(super) const LOGGED: TableDefinition<Shard, (i64, u64)> = TableDefinition::new("logged");
/// bucket name and source -> a state that could not be read, kept for a person to look at.
pub(super) const ASIDE: TableDefinition<&str, &[u8]> = TableDefinition::new("aside");
/// One entry: since when rows of each stored period are complete, as JSON.
pub(super) const COMPLETE: TableDefinition<(), &str> = TableDefinition::new("complete");
/// id of an error -> its row, as JSON.
pub(super) const ERRORS: TableDefinition<&str, &[u8]> = TableDefinition::new("errors");

/// (shard, number) -> since when, and what a version of the rules says.
pub(super) const RULES: TableDefinition<(Shard, u64), (i64, &str)> = TableDefinition::new("rules");

type LifeTuple = (i64, i64, i64, i64, bool, i64);

/// What is known of a life besides its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LifeRecord {
    pub(super) generation: i64,
    /// 0 before the first seal.
    pub(super) revision: i64,
    /// The revision the sink has, 0 if none.
    pub(super) acked: i64,
    /// Since when the content differs from the revision, 0 if it does not.
    pub(super) dirty: Millis,
    pub(super) closing: bool,
    /// Its entry in `DUE`.
    pub(super) due: Millis,
}

impl LifeRecord {
    pub(super) fn from_tuple((generation, revision, acked, dirty, closing, due): LifeTuple) -> Self {
        Self { generation, revision, acked, dirty, closing, due }
    }

    fn tuple(self) -> LifeTuple {
        (self.generation, self.revision, self.acked, self.dirty, self.closing, self.due)
    }
}

/// Orders periods as wanted and never changes for a period: it is in the files.
fn period_code(period: Period) -> u32 {
    match period {
        Period::Seconds(n) => n,
        Period::Day => 86_400,
        Period::Week => 7 * 86_400,
        Period::Month => 30 * 86_400,
        Period::Year => 365 * 86_400,
    }
}

/// The period of a code.
fn period_of(code: u32) -> Period {
    let longer = [Period::Day, Period::Week, Period::Month, Period::Year];
    longer.into_iter().find(|period| period_code(*period) == code).unwrap_or(Period::Seconds(code))
}

fn ordered(t: Millis) -> [u8; 8] {
    (t.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// Length of a bucket's key: shard, period, start, end.
const BUCKET_KEY: usize = 22;

pub(super) fn bucket_key(shard: Shard, bucket: &Bucket) -> [u8; BUCKET_KEY] {
    let mut key = [0; BUCKET_KEY];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..6].copy_from_slice(&period_code(bucket.period).to_be_bytes());
    key[6..14].copy_from_slice(&ordered(bucket.start));
    key[14..].copy_from_slice(&ordered(bucket.end));
    key
}

/// The bucket of a key.
pub(super) fn bucket_of(key: &[u8]) -> Bucket {
    let period = period_of(u32::from_be_bytes(key[2..6].try_into().expect("a bucket key")));
    let time = |at: usize| {
        let bytes: [u8; 8] = key[at..at + 8].try_into().expect("a bucket key");
        (u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed()
    };
    Bucket { period, start: time(6), end: time(14) }
}

/// The keys of a period's lives with a start in `[from, to)`.
pub(super) fn lives_range(shard: Shard, period: Period, from: Millis, to: Millis) -> Range<Vec<u8>> {
    let at = |start: Millis| bucket_key(shard, &Bucket { period, start, end: Millis::MIN }).to_vec();
    at(from)..at(to.max(from))
}

pub(super) fn state_key(bucket: &[u8; BUCKET_KEY], source: &str) -> Vec<u8> {
    [&bucket[..], source.as_bytes()].concat()
}

/// The source of a state's key.
pub(super) fn source_of(key: &[u8]) -> &str {
    std::str::from_utf8(&key[BUCKET_KEY..]).unwrap_or("\u{fffd}")
}

/// The keys of a bucket's states after `after` (empty: from the first).
pub(super) fn states_range(bucket: &[u8; BUCKET_KEY]) -> Range<Vec<u8>> {
    let mut end = bucket.to_vec();
    // A source is not empty, so the next key in order after all states is the bucket's key plus one.
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    bucket.to_vec()..end
}

/// Lives and due times of one write transaction, kept in step.
pub(super) struct Lives<'t> {
    lives: Table<'t, &'static [u8], LifeTuple>,
    due: Table<'t, (Shard, i64, &'static str), ()>,
}

impl<'t> Lives<'t> {
    pub(super) fn of(transaction: &'t WriteTransaction) -> Result<Self, TableError> {
        Ok(Self { lives: transaction.open_table(LIVES)?, due: transaction.open_table(DUE)? })
    }

    pub(super) fn get(&self, shard: Shard, bucket: &Bucket) -> Result<Option<LifeRecord>, StorageError> {
        let found = self.lives.get(&bucket_key(shard, bucket)[..])?;
        Ok(found.map(|life| LifeRecord::from_tuple(life.value())))
    }

    pub(super) fn put(&mut self, shard: Shard, bucket: &Bucket, life: LifeRecord) -> Result<(), StorageError> {
        let name = keys::bucket_name(bucket);
        let before = self
            .lives
            .insert(&bucket_key(shard, bucket)[..], life.tuple())?
            .map(|l| LifeRecord::from_tuple(l.value()).due);
        if before != Some(life.due) {
            if let Some(due) = before {
                self.due.remove((shard, due, name.as_str()))?;
            }
            self.due.insert((shard, life.due, name.as_str()), ())?;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, shard: Shard, bucket: &Bucket) -> Result<(), StorageError> {
        let before = self.lives.remove(&bucket_key(shard, bucket)[..])?.map(|l| LifeRecord::from_tuple(l.value()).due);
        if let Some(due) = before {
            self.due.remove((shard, due, keys::bucket_name(bucket).as_str()))?;
        }
        Ok(())
    }

    /// Whether a bucket of one of these periods that starts in `[from, to)` is open.
    pub(super) fn any_open(
        &self,
        shard: Shard,
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<bool, StorageError> {
        for period in periods {
            let range = lives_range(shard, *period, from, to);
            if self.lives.range(&range.start[..]..&range.end[..])?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn is_empty(&self) -> Result<bool, StorageError> {
        self.lives.is_empty()
    }

    /// The start of the last open bucket of a period.
    pub(super) fn last_start(&self, shard: Shard, period: Period) -> Result<Option<Millis>, StorageError> {
        let range = lives_range(shard, period, Millis::MIN, Millis::MAX);
        let last = self.lives.range(&range.start[..]..&range.end[..])?.next_back().transpose()?;
        Ok(last.map(|(key, _)| bucket_of(key.value()).start))
    }

    /// The open buckets of a period that start in `[from, to)`.
    pub(super) fn open(
        &self,
        shard: Shard,
        period: Period,
        from: Millis,
        to: Millis,
    ) -> Result<Vec<Bucket>, StorageError> {
        let range = lives_range(shard, period, from, to);
        let open = self.lives.range(&range.start[..]..&range.end[..])?;
        open.map(|entry| entry.map(|(key, _)| bucket_of(key.value()))).collect()
    }

    /// What is due by `now`, longest first.
    pub(super) fn due_by(&self, shard: Shard, now: Millis, elapsed: Millis, limit: usize) -> Result<Due, StorageError> {
        let (mut buckets, mut oldest) = (Vec::new(), None);
        for entry in self.due.range((shard, i64::MIN, "")..(shard, now + 1, ""))?.take(limit) {
            let (key, _) = entry?;
            let (_, since, name) = key.value();
            oldest = oldest.or(Some(since));
            buckets.extend(keys::parse_bucket_name(name));
        }
        let next = match self.due.range((shard, now + 1, "")..(shard, i64::MAX, ""))?.next() {
            Some(entry) => Some(entry?.0.value().1),
            None => None,
        };
        Ok(Due { now, elapsed, buckets, next, oldest, open: self.due.len()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_starts() {
        let key = |start: Millis| bucket_key(0, &Bucket { period: Period::Day, start, end: start + 1 });
        assert!(key(-5) < key(-1) && key(-1) < key(0) && key(0) < key(1 << 40));
        let bucket = Bucket { period: Period::Day, start: -86_400_000, end: 0 };
        for period in ["1s", "1m", "1h", "12h", "1d", "1w", "1mo", "1y"] {
            let bucket = Bucket { period: period.parse().unwrap(), ..bucket };
            assert_eq!(bucket_of(&bucket_key(3, &bucket)), bucket);
        }
        let range = states_range(&bucket_key(0, &bucket));
        let state = state_key(&bucket_key(0, &bucket), "\u{10ffff}\u{10ffff}");
        assert!(range.start < state && state < range.end);
        assert_eq!(source_of(&state), "\u{10ffff}\u{10ffff}");
    }
}
