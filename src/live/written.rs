//! The rows of buckets that were written, for those who want to be told of them.
//!
//! Called by `closings.rs` and `replay.rs` with entries of the log of acks. A row belongs to the entry that has its
//! version: one that was corrected before it could be read comes with the correction, once. Buckets that follow each
//! other are read in one go, and only for the sources that somebody listens to; patterns are matched here, against
//! the sources the sink knows, and a source is known there before the log tells of its row.

use super::Hub;
use super::channel::Channel;
use crate::query::{QueryError, StatsRow};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use crate::stats::glob::Glob;
use crate::store::{AckLog, Life};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Entries of the log that are read at once.
pub(super) const ENTRIES: usize = 200;
/// Rows read at once, as far as they are of several buckets: some megabytes, with their JSON.
const ROWS: usize = 2_000;
/// Sources in one question to the sink.
const SOURCES: usize = 10_000;
/// There is one shard; see `Store::shards`.
const SHARD: u16 = 0;

/// A place in the order in which rows are told of: of an entry of the log those of the sources by their ids, then
/// its end, which is `None`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) mark: i64,
    /// Sorts the end behind all sources.
    ended: bool,
    source: Option<Arc<str>>,
}

impl At {
    pub(super) fn source(mark: i64, source: &Arc<str>) -> Self {
        Self { mark, ended: false, source: Some(Arc::clone(source)) }
    }

    pub(super) fn end(mark: i64) -> Self {
        Self { mark, ended: true, source: None }
    }

    /// The mark behind which everything is still to be told.
    pub(super) fn behind(&self) -> i64 {
        if self.ended { self.mark } else { self.mark - 1 }
    }
}

/// A row that was written, and the entry that tells of it.
pub(super) struct Written {
    pub(super) mark: i64,
    pub(super) row: StatsRow,
}

impl Written {
    pub(super) fn at(&self) -> At {
        At::source(self.mark, &self.row.source)
    }
}

/// Some of the log behind a mark; with `None` only where it stands.
pub(super) async fn acked(hub: &Hub, after: Option<i64>) -> Result<AckLog, QueryError> {
    hub.store.acked(SHARD, after, ENTRIES).await.map_err(|error| QueryError::Unavailable(error.to_string()))
}

/// The sources these channels tell of, in order. To be asked for behind the log whose rows are to be read.
pub(super) async fn sources<'a>(
    hub: &Hub,
    channels: impl Iterator<Item = &'a Channel>,
) -> Result<Vec<Arc<str>>, QueryError> {
    let (mut sources, mut patterns): (BTreeSet<Arc<str>>, Vec<Arc<Glob>>) = (BTreeSet::new(), Vec::new());
    for channel in channels {
        match channel {
            Channel::Closed(source) => drop(sources.insert(Arc::clone(source))),
            Channel::ClosedLike(pattern) => patterns.push(Arc::clone(pattern)),
            Channel::Messages(_) | Channel::Live(_) | Channel::Silent(_) => {}
        }
    }
    sources.extend(hub.query.matching(&patterns).await?);
    Ok(sources.into_iter().collect())
}

/// Of how many entries the rows of so many sources are read at once.
pub(super) fn entries_at_once(sources: usize) -> usize {
    (ROWS / sources.max(1)).clamp(1, ENTRIES)
}

/// The rows of these sources in the versions of these entries, in the order in which they are told of.
pub(super) async fn rows(hub: &Hub, lives: &[(i64, Life)], sources: &[Arc<str>]) -> Result<Vec<Written>, QueryError> {
    // Of a life that was written several times the last entry has the version.
    let versions: HashMap<(Bucket, i64), (i64, i64)> =
        lives.iter().map(|(mark, life)| ((life.bucket, life.generation), (life.revision, *mark))).collect();
    let mut written = Vec::new();
    for (period, from, to) in runs(versions.keys().map(|(bucket, _)| *bucket)) {
        for sources in sources.chunks(SOURCES) {
            for row in hub.query.written(sources, period, from, to).await? {
                match versions.get(&(row.bucket, row.generation)) {
                    Some(&(revision, mark)) if revision == row.revision => written.push(Written { mark, row }),
                    _ => {}
                }
            }
        }
    }
    written.sort_by(|a, b| (a.mark, &a.row.source).cmp(&(b.mark, &b.row.source)));
    Ok(written)
}

/// Buckets that follow each other, as ranges of starts.
fn runs(buckets: impl Iterator<Item = Bucket>) -> Vec<(Period, Millis, Millis)> {
    let buckets: BTreeSet<(Period, Millis, Millis)> = buckets.map(|b| (b.period, b.start, b.end)).collect();
    let mut runs: Vec<(Period, Millis, Millis)> = Vec::new();
    // Where the last run's last bucket ends.
    let mut ends = Millis::MIN;
    for (period, start, end) in buckets {
        match runs.last_mut() {
            Some(last) if last.0 == period && start <= ends => last.2 = start + 1,
            _ => runs.push((period, start, start + 1)),
        }
        ends = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_that_follow_each_other_are_one_run() {
        let bucket = |period: &str, start: Millis, length: Millis| Bucket {
            period: period.parse().unwrap(),
            start: start * length,
            end: (start + 1) * length,
        };
        let minute = |start: Millis| bucket("1m", start, 60_000);
        let hour = |start: Millis| bucket("1h", start, 3_600_000);
        let run = |period: &str, from: Millis, to: Millis| (period.parse().unwrap(), from, to + 1);
        let buckets = [minute(5), minute(3), hour(1), minute(4), minute(4), minute(7), hour(0)];
        let expected = [run("1m", 180_000, 300_000), run("1m", 420_000, 420_000), run("1h", 0, 3_600_000)];
        assert_eq!(runs(buckets.into_iter()), expected);
    }

    #[test]
    fn places_are_in_order() {
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let order = [At::end(1), At::source(2, &a), At::source(2, &b), At::end(2), At::source(3, &a)];
        assert!(order.is_sorted());
        assert_eq!(order.map(|at| at.behind()), [1, 1, 1, 2, 2]);
    }
}
