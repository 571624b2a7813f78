//! A store under test with everything around it: its clock, its server or directory, and the ways
//! it can be closed, taken back in time or lost.
//!
//! Used by `contract/` and `model.rs`, which say the same things to the oracle, the embedded store
//! and Redis. Also here: the short forms in which tests write buckets, frames and moments.

use crate::oracle::{Oracle, State};
use crate::servers::{RedisServer, temporary};
use meanwhile::clock::Clock;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Calendar, Family, Zone};
use meanwhile::stats::moments::Moments;
use meanwhile::store::embedded::EmbeddedStore;
use meanwhile::store::redis::RedisStore;
use meanwhile::store::{Answer, BucketDeltas, Frame, Head, KeyRecord, Late, Open, Policy, Store, WriterId};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Where the tests' time begins: 2026-11-20T05:00:00Z, the start of a minute and of an hour.
pub(crate) const T0: Millis = 1_795_150_800_000;
pub(crate) const SECOND: Millis = 1_000;
pub(crate) const MINUTE: Millis = 60 * SECOND;
pub(crate) const HOUR: Millis = 60 * MINUTE;
pub(crate) const DAY: Millis = 24 * HOUR;

/// Short times, so that few calls of at most 5 s of `elapsed` each pass them.
pub(crate) const POLICY: Policy =
    Policy { grace: 5 * SECOND, lateness: MINUTE, late: Late::Reopen, idempotency_ttl: 60 * SECOND };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Oracle,
    Embedded,
    Redis,
}

pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) calendar: Calendar,
    home: Home,
}

enum Home {
    Oracle(Oracle),
    Embedded(TempDir),
    Redis(RedisServer),
}

/// The contents of a store at one moment.
pub(crate) enum Saved {
    Oracle(Box<State>),
    Directory(TempDir),
}

impl World {
    /// An empty store at [`T0`], without an epoch.
    pub(crate) async fn unfounded(kind: Kind) -> Self {
        crate::mutants::obey();
        let clock = Clock::manual(T0);
        let oracle = Oracle::new(POLICY, clock.clone());
        let home = match kind {
            Kind::Oracle => Home::Oracle(oracle.clone()),
            Kind::Embedded => Home::Embedded(temporary()),
            Kind::Redis => Home::Redis(RedisServer::start_durable()),
        };
        let mut world = Self { store: Arc::new(oracle), clock, calendar: calendar("1m,1h,1d"), home };
        world.reopen(POLICY).await;
        world
    }

    pub(crate) async fn new(kind: Kind) -> Self {
        let world = Self::unfounded(kind).await;
        world.store.found(0).await.unwrap();
        world
    }

    /// Closes the store and opens it again, perhaps under other rules.
    pub(crate) async fn reopen(&mut self, policy: Policy) {
        self.release();
        self.store = match &self.home {
            Home::Oracle(oracle) => Arc::new(oracle.with_policy(policy)),
            Home::Embedded(dir) => {
                Arc::new(EmbeddedStore::open(&dir.path().join("store"), policy, self.clock.clone()).unwrap())
            }
            Home::Redis(server) => {
                Arc::new(RedisStore::connect(&server.url(), policy, Some(self.clock.clone())).await.unwrap())
            }
        };
    }

    /// Lets go of the files, which a second opening would find locked.
    fn release(&mut self) {
        self.store = Arc::new(Oracle::new(POLICY, self.clock.clone()));
    }

    /// Ends the store without warning and starts it again.
    pub(crate) async fn crash(&mut self) {
        if let Home::Redis(server) = &mut self.home {
            server.restart();
        }
        self.reopen(self.store.policy()).await;
    }

    pub(crate) async fn save(&mut self) -> Saved {
        let policy = self.store.policy();
        self.release();
        let saved = match &mut self.home {
            Home::Oracle(oracle) => Saved::Oracle(Box::new(oracle.save())),
            Home::Embedded(dir) => copy_of(dir.path()),
            Home::Redis(server) => {
                server.kill();
                let saved = copy_of(server.dir());
                server.restart();
                saved
            }
        };
        self.reopen(policy).await;
        saved
    }

    /// Takes the store back to what it was; the clock goes on.
    pub(crate) async fn restore(&mut self, saved: &Saved) {
        let policy = self.store.policy();
        self.release();
        match (&mut self.home, saved) {
            (Home::Oracle(oracle), Saved::Oracle(state)) => oracle.restore((**state).clone()),
            (Home::Embedded(dir), Saved::Directory(from)) => replace(dir.path(), from.path()),
            (Home::Redis(server), Saved::Directory(from)) => {
                server.kill();
                replace(server.dir(), from.path());
                server.restart();
            }
            _ => panic!("saved by another kind of store"),
        }
        self.reopen(policy).await;
    }

    /// A store that has lost everything.
    pub(crate) async fn wipe(&mut self) {
        let empty = match &self.home {
            Home::Oracle(_) => Saved::Oracle(Box::default()),
            Home::Embedded(_) | Home::Redis(_) => Saved::Directory(temporary()),
        };
        self.restore(&empty).await;
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(crate) fn set(&self, t: Millis) {
        self.clock.set(t);
    }

    pub(crate) fn pass(&self, span: Millis) {
        self.clock.set(self.clock.now() + span);
    }

    /// Lets `span` of `elapsed` pass, in steps that count in full.
    pub(crate) async fn elapse(&self, span: Millis) {
        let mut left = span;
        while left > 0 {
            let step = left.min(meanwhile::store::MAX_ADVANCE);
            self.pass(step);
            self.store.due(0, 1).await.unwrap();
            left -= step;
        }
    }

    pub(crate) async fn head(&self) -> Head {
        self.store.head(0, WRITER).await.unwrap()
    }

    /// The bucket of a period that holds `t`.
    pub(crate) fn bucket(&self, period: &str, t: Millis) -> Bucket {
        self.calendar.bucket(period.parse().unwrap(), t)
    }

    pub(crate) fn family(&self, bucket: Bucket) -> Family {
        self.calendar.family(&bucket)
    }

    /// Everything that is open, with the moments of these sources.
    pub(crate) fn is_oracle(&self) -> bool {
        matches!(self.home, Home::Oracle(_))
    }

    pub(crate) async fn open(&self, sources: &[&str]) -> Open {
        let sources: Vec<Arc<str>> = sources.iter().map(|&s| s.into()).collect();
        self.store.open(0, &sources, self.calendar.periods(), Millis::MIN, Millis::MAX).await.unwrap()
    }

    pub(crate) async fn apply(&self, frame: &Frame) -> Answer {
        self.store.apply(0, frame).await.unwrap()
    }

    /// Applies the next frame of [`WRITER`], received now and without keys.
    pub(crate) async fn put(&self, deltas: Vec<BucketDeltas>) {
        let head = self.head().await;
        let frame = Frame::new(WRITER, head.sequence + 1, head.elapsed, Vec::new(), deltas);
        assert_eq!(self.apply(&frame).await, Answer::Applied);
    }
}

/// The writer of most tests.
pub(crate) const WRITER: WriterId = WriterId([1; 8]);
pub(crate) const OTHER_WRITER: WriterId = WriterId([2; 8]);

pub(crate) fn calendar(periods: &str) -> Calendar {
    Calendar::new(periods.split(',').map(|p| p.parse().unwrap()).collect(), Zone::utc()).unwrap()
}

pub(crate) fn moments(values: &[f64]) -> Moments {
    let mut moments = Moments::EMPTY;
    for &value in values {
        moments.push(value);
    }
    moments
}

/// One source with some readings in a bucket.
pub(crate) fn delta(bucket: Bucket, source: &str, values: &[f64]) -> BucketDeltas {
    BucketDeltas { bucket, sources: vec![(source.into(), moments(values))] }
}

/// Each of these wide sources with the reading 1 in a bucket.
pub(crate) fn wide_delta(bucket: Bucket, sources: Range<usize>) -> BucketDeltas {
    BucketDeltas { bucket, sources: sources.map(|i| (wide_source(i).into(), Moments::of(1.0))).collect() }
}

pub(crate) fn wide_source(i: usize) -> String {
    format!("wide-{i:04}")
}

/// A key whose id and fingerprint are told by two numbers.
pub(crate) fn key(id: u8, fingerprint: u8) -> KeyRecord {
    KeyRecord { id: [id; 16], fingerprint: [fingerprint; 16], ttl: POLICY.idempotency_ttl }
}

fn copy_of(from: &Path) -> Saved {
    let dir = temporary();
    copy(from, dir.path());
    Saved::Directory(dir)
}

pub(crate) fn replace(target: &Path, from: &Path) {
    for entry in fs::read_dir(target).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    copy(from, target);
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
