//! Versions of the rules: how a store keeps them, and what they were when.
//!
//! A part of the contract in `mod.rs`; both stores keep it. [`Book`] is what a process knows of them: `ingest/commit/`
//! asks it which groups a bucket's sources are in, `http/rules.rs` changes and explains. Guarantee: which version is
//! for a bucket depends on its start and the history alone, so that a late reading is counted alike on every node.

use super::{Shard, Store, StoreError, WriterId};
use crate::config::{RulesError, WrittenRules};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Calendar};
use crate::stats::rules::Rules;
use crate::stats::source::RESERVED_PREFIX;
use std::sync::{Arc, Mutex, MutexGuard};

/// Versions that are kept, and bytes of them together; the newest always is. The oldest is then for all time before it.
pub const MAX_VERSIONS: usize = 100;
pub const MAX_VERSIONS_BYTES: usize = 16 << 20;
/// The `from` of rules that a store got before it had any readings: they are for all of them.
pub const ALL_TIME: Millis = Millis::MIN;
/// How often a change is tried again because time went on, or because somebody else was first to look.
const TRIES: usize = 5;

/// One version of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// 1, 2, 3, ...
    pub number: u64,
    /// It is for buckets of a root period that start then or later, up to the next version.
    pub from: Millis,
    /// What it says, in words that the store does not know.
    pub text: String,
}

/// The answer to a change of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is the newest version now.
    Done,
    /// The version before it is not the newest, which has this number; 0 if there is none.
    Other { newest: u64 },
    /// Its `from` is not later than this: than the store's clock, the version before and the starts of all open buckets.
    Early { after: Millis },
}

/// Whether a frame made under version `made` of the rules must be made anew, where the newest is `newest` (number and
/// `from`); `starts` are those of its buckets.
#[must_use]
pub fn is_outdated(made: u64, newest: (u64, Millis), starts: impl IntoIterator<Item = Millis>) -> bool {
    let (number, from) = newest;
    // More than one behind: the versions between are not looked at, the node does that better.
    made != number && starts.into_iter().any(|start| made > number || made + 1 < number || start >= from)
}

/// How many of the oldest versions are dropped, so that these sizes, the oldest first, keep the limits.
#[must_use]
pub fn dropped(sizes: &[usize]) -> usize {
    let mut bytes = 0;
    let fits = |(kept, size): (usize, &usize)| {
        bytes += size;
        kept == 0 || (kept < MAX_VERSIONS && bytes <= MAX_VERSIONS_BYTES)
    };
    sizes.len() - sizes.iter().rev().enumerate().map(fits).take_while(|fits| *fits).count()
}

/// All versions a process knows, read.
#[derive(Debug, Default)]
pub struct History {
    /// The oldest first.
    versions: Vec<(Version, Rules)>,
}

impl History {
    fn of(versions: Vec<Version>) -> Self {
        let read = |version: Version| {
            let rules = read(&version.text).unwrap_or_else(|error| {
                tracing::error!(version = version.number, "rules in the store cannot be read: {error}");
                Rules::default()
            });
            (version, rules)
        };
        Self { versions: versions.into_iter().map(read).collect() }
    }

    /// The number of the newest version, 0 if there is none.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.versions.last().map_or(0, |(version, _)| version.number)
    }

    /// The version for a bucket with this start; `None` before the first one.
    #[must_use]
    pub fn at(&self, start: Millis) -> Option<(&Version, &Rules)> {
        let after = self.versions.partition_point(|(version, _)| version.from <= start);
        let dropped = self.versions.first().is_some_and(|(version, _)| version.number > 1);
        let (version, rules) = self.versions.get(if dropped { after.max(1) } else { after }.checked_sub(1)?)?;
        Some((version, rules))
    }

    /// How many readings of a source a bucket should have, by the version of its start. A group is expected to have
    /// none in particular.
    #[must_use]
    pub fn expected(&self, source: &str, bucket: &Bucket) -> Option<f64> {
        let (_, rules) = self.at(bucket.start).filter(|(_, rules)| rules.expect_readings())?;
        let (_, rule) = rules.rule(source).filter(|_| !source.starts_with(RESERVED_PREFIX))?;
        Some((bucket.end - bucket.start) as f64 / rule.expect? as f64)
    }

    /// The oldest first.
    pub fn versions(&self) -> impl Iterator<Item = (&Version, &Rules)> {
        self.versions.iter().map(|(version, rules)| (version, rules))
    }

    /// Whether no version has a group.
    #[must_use]
    pub fn has_no_groups(&self) -> bool {
        self.versions.iter().all(|(_, rules)| rules.has_no_groups())
    }
}

fn text_of(written: &WrittenRules) -> String {
    serde_json::to_string(written).expect("rules are JSON")
}

fn read(text: &str) -> Result<Rules, String> {
    let written: WrittenRules = serde_json::from_str(text).map_err(|error| error.to_string())?;
    written.parse().map_err(|error| error.to_string())
}

/// Why rules are not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    Wrong(#[from] RulesError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the rules are being changed by somebody else: look at them and apply yours again")]
    Contended,
}

/// The rules as this process knows them.
pub struct Book {
    store: Arc<dyn Store>,
    calendar: Arc<Calendar>,
    shard: Shard,
    current: Mutex<Arc<History>>,
    loading: tokio::sync::Mutex<()>,
}

impl Book {
    /// Reads what the store has.
    pub async fn open(store: Arc<dyn Store>, calendar: Arc<Calendar>, shard: Shard) -> Result<Self, StoreError> {
        let book = Self { store, calendar, shard, current: Mutex::default(), loading: tokio::sync::Mutex::default() };
        book.load().await?;
        Ok(book)
    }

    /// What was last read.
    #[must_use]
    pub fn current(&self) -> Arc<History> {
        Arc::clone(&self.held())
    }

    fn held(&self) -> MutexGuard<'_, Arc<History>> {
        self.current.lock().expect("no panic while it is held")
    }

    /// Reads the versions of the store. What is known here stays known if the store has less: it may have lost them,
    /// and get them back from here.
    pub async fn load(&self) -> Result<Arc<History>, StoreError> {
        let history = Arc::new(History::of(self.store.rules(self.shard).await?));
        let mut held = self.held();
        if history.number() >= held.number() {
            *held = Arc::clone(&history);
        }
        Ok(history)
    }

    /// What is in force, read only if it is not known already: reading takes memory and time of as many versions as there
    /// are.
    pub async fn present(&self) -> Result<Arc<History>, StoreError> {
        let _one_at_a_time = self.loading.lock().await;
        let known = self.current();
        let newest = self.newest().await?;
        if newest == known.number() { Ok(known) } else { self.load().await }
    }

    /// The number of the store's newest version. No writer is asked about.
    async fn newest(&self) -> Result<u64, StoreError> {
        Ok(self.store.head(self.shard, WriterId([0; 8])).await?.rules)
    }

    /// Follows a store whose newest version has another number than ours: reads what is new, or gives it back what it
    /// has lost.
    pub async fn follow(&self, newest: u64) -> Result<(), StoreError> {
        let known = self.current();
        // What was heard of the store may be older than what is known here: the store takes only what it has not.
        let has_less = known.number() > newest;
        if has_less {
            let versions: Vec<Version> = known.versions().map(|(version, _)| version.clone()).collect();
            tracing::warn!(known = known.number(), newest, "the store lacks versions of the rules, it gets them back");
            self.store.restore_rules(self.shard, &versions).await?;
        }
        if known.number() < newest || has_less {
            let history = self.load().await?;
            tracing::info!(version = history.number(), "the rules are others now");
        }
        Ok(())
    }

    /// Makes these rules the newest version, from the next start of a bucket that no reading can have come to yet.
    /// Rules that are the newest already stay as they are. Whether they are new.
    pub async fn change(&self, written: &WrittenRules) -> Result<(Version, bool), ApplyError> {
        written.parse()?;
        let text = text_of(written);
        let mut from = ALL_TIME;
        let mut unknown = None;
        for _ in 0..TRIES {
            self.follow(self.newest().await?).await?;
            let history = self.load().await?;
            if let Some((version, _)) = history.versions().last().filter(|(version, _)| version.text == text) {
                return Ok((version.clone(), unknown.is_some()));
            }
            let version = Version { number: history.number() + 1, from, text: text.clone() };
            match self.store.change_rules(self.shard, self.calendar.periods(), &version).await {
                Ok(Changed::Done) => {
                    self.load().await?;
                    return Ok((version, true));
                }
                Ok(Changed::Other { .. }) => {}
                Ok(Changed::Early { after }) => from = self.calendar.bucket(self.calendar.periods()[0], after).end,
                // Whether it is there is seen when they are read again.
                Err(error @ StoreError::Unknown(_)) => unknown = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(unknown.map_or(ApplyError::Contended, ApplyError::Store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(versions: &[(u64, Millis)]) -> History {
        let version = |&(number, from): &(u64, Millis)| Version { number, from, text: r#"{"rules":""}"#.to_owned() };
        History::of(versions.iter().map(version).collect())
    }

    #[test]
    fn the_version_for_a_start() {
        let check = |versions: &[(u64, Millis)], start: Millis, expected: Option<u64>| {
            let history = history(versions);
            assert_eq!(history.at(start).map(|(version, _)| version.number), expected, "{versions:?} at {start}");
        };
        check(&[], 0, None);
        check(&[(1, 100)], 99, None);
        check(&[(1, 100)], 100, Some(1));
        check(&[(1, ALL_TIME)], -5, Some(1));
        check(&[(1, 100), (2, 200)], 199, Some(1));
        check(&[(1, 100), (2, 200)], 200, Some(2));
        // Of what was dropped, the oldest that is kept takes the place.
        check(&[(2, 200), (3, 300)], 5, Some(2));
    }

    #[test]
    fn which_frames_are_outdated() {
        let check = |made: u64, newest: (u64, Millis), starts: &[Millis], expected: bool| {
            assert_eq!(is_outdated(made, newest, starts.iter().copied()), expected, "{made} {newest:?} {starts:?}");
        };
        check(0, (0, 0), &[1], false);
        check(0, (1, 100), &[99], false);
        check(0, (1, 100), &[99, 100], true);
        check(0, (2, 100), &[99], true);
        check(2, (2, 100), &[200], false);
        check(2, (1, 100), &[5], true);
        check(0, (2, 100), &[], false);
        check(3, (2, 100), &[], false);
    }

    #[test]
    fn what_is_dropped() {
        assert_eq!(dropped(&[]), 0);
        assert_eq!(dropped(&[1; MAX_VERSIONS]), 0);
        assert_eq!(dropped(&[1; MAX_VERSIONS + 2]), 2);
        assert_eq!(dropped(&[1, MAX_VERSIONS_BYTES - 1, 1]), 1);
        assert_eq!(dropped(&[1, 1, MAX_VERSIONS_BYTES + 1]), 2);
    }
}
