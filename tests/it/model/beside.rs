//! A store and the oracle on one clock: every call goes to both and must be answered alike; beside
//! them the ledger of what was counted and a plain map as the sink.
//!
//! Called by `clients.rs` and `rollover.rs`. What the contract leaves to the store is followed: which
//! sources a chunk of a close takes, and whether an expired key is still remembered.

use super::clients::small_source;
use super::rollover::Rollover;
use crate::oracle::Oracle;
use crate::world::{Kind, World, wide_source};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Calendar, Family};
use meanwhile::stats::moments::Moments;
use meanwhile::stats::row::{LifeRow, Row, Update};
use meanwhile::store::{
    Acked, Answer, Closed, Due, Frame, Life, MAX_ADVANCE, Open, OpenLife, Page, Policy, Sealed, Store, When, WriterId,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// More than ever are open here.
const ALL: usize = 10_000;
/// A rollover that has not come to its end by then hangs. A week and a month that were sealed by force
/// while their day is open are looked at every minute until it ends, in two rounds each.
const MAX_ROUNDS: usize = 20_000;

/// Moments by bucket, then by source.
type Totals = BTreeMap<Bucket, BTreeMap<Arc<str>, Moments>>;

pub(super) struct Beside {
    pub(super) world: World,
    oracle: Oracle,
    pub(super) ledger: Ledger,
    sink: BTreeMap<(Bucket, Arc<str>), Row>,
    /// The sources that are looked at after every step: all small ones and some wide ones.
    probes: Vec<Arc<str>>,
    writers: HashSet<WriterId>,
}

/// What the store said it has counted.
#[derive(Default)]
pub(super) struct Ledger {
    /// By root bucket.
    counted: Totals,
    /// Checksums of applied frames.
    pub(super) applied: HashMap<(WriterId, u64), u32>,
    /// When, in `elapsed`, the time of a key's last counting ends.
    pub(super) keys: HashMap<[u8; 16], Millis>,
}

impl Beside {
    pub(super) async fn new(kind: Kind, calendar: Calendar, policy: Policy, start: Millis) -> Self {
        let mut world = World::unfounded(kind).await;
        world.calendar = calendar;
        world.set(start);
        world.reopen(policy).await;
        world.store.found(0).await.unwrap();
        let oracle = Oracle::new(policy, world.clock.clone());
        oracle.adopt(&world.head().await);
        let wide = [0, 700, 1_249].map(|i| wide_source(i).into());
        let probes = (0..4).map(|i| small_source(i).into()).chain(wide).collect();
        let (ledger, sink) = (Ledger::default(), BTreeMap::new());
        Self { world, oracle, ledger, sink, probes, writers: HashSet::new() }
    }

    fn family(&self, bucket: Bucket) -> Family {
        self.world.family(bucket)
    }

    pub(super) async fn elapsed(&self) -> Millis {
        self.world.head().await.elapsed
    }

    pub(super) async fn now(&self) -> Millis {
        self.world.head().await.now
    }

    pub(super) fn closing(&self) -> Vec<Bucket> {
        self.oracle.closing()
    }

    /// Brings a frame to both, and what was applied into the ledger.
    pub(super) async fn apply(&mut self, frame: &Frame) -> Answer {
        self.writers.insert(frame.writer);
        let mut answer = self.world.store.apply(0, frame).await.unwrap();
        if let Answer::Seen(seen) = &mut answer {
            seen.sort_unstable();
        }
        for (i, key) in frame.keys.iter().enumerate().filter(|(_, key)| self.oracle.is_expired(&key.id)) {
            match &answer {
                Answer::Seen(seen) => self.oracle.follow(&key.id, seen.iter().any(|s| s.0 == i)),
                // What is answered after the keys were looked at.
                Answer::Applied | Answer::Closing(_) | Answer::Late(_) | Answer::Mixed | Answer::Unlike(_) => {
                    self.oracle.follow(&key.id, false);
                }
                _ => {}
            }
        }
        assert_eq!(answer, self.oracle.apply(0, frame).await.unwrap(), "{frame:?}");
        if answer == Answer::Applied {
            self.count(frame).await;
        }
        answer
    }

    async fn count(&mut self, frame: &Frame) {
        let elapsed = self.elapsed().await;
        self.ledger.applied.insert((frame.writer, frame.sequence), frame.checksum);
        for key in &frame.keys {
            let before = self.ledger.keys.insert(key.id, elapsed + key.ttl);
            assert!(before.is_none_or(|end| elapsed >= end), "a key was counted twice within its time");
        }
        for deltas in &frame.deltas {
            let counted = self.ledger.counted.entry(deltas.bucket).or_default();
            for (source, moments) in &deltas.sources {
                counted.entry(Arc::clone(source)).or_default().merge(moments);
            }
        }
    }

    pub(super) async fn due(&self) -> Due {
        let got = self.world.store.due(0, ALL).await.unwrap();
        let expected = self.oracle.due(0, ALL).await.unwrap();
        assert_eq!((got.now, got.elapsed, got.next), (expected.now, expected.elapsed, expected.next));
        assert_eq!((got.oldest, got.open), (expected.oldest, expected.open));
        let sorted = |mut buckets: Vec<Bucket>| {
            buckets.sort_unstable();
            buckets
        };
        assert_eq!(sorted(got.buckets.clone()), sorted(expected.buckets));
        got
    }

    pub(super) async fn elapse(&self, span: Millis) {
        self.due().await;
        for _ in 0..span / MAX_ADVANCE {
            self.world.pass(MAX_ADVANCE);
            self.due().await;
        }
    }

    pub(super) async fn seal(&self, bucket: Bucket, when: When) -> Sealed {
        let family = self.family(bucket);
        let answer = self.world.store.seal(0, bucket, &family, when).await.unwrap();
        assert_eq!(answer, self.oracle.seal(0, bucket, &family, when).await.unwrap(), "seal of {bucket:?}");
        answer
    }

    /// A page must hold the present moments.
    pub(super) async fn page(&self, life: Life, cursor: Option<&str>) -> Option<Page> {
        let page = self.world.store.page(0, life.bucket, life.generation, cursor).await.unwrap();
        let expected = self.oracle.sources(life.bucket, life.generation);
        assert_eq!(page.is_some(), expected.is_some(), "page of {life:?}");
        if let (Some(page), Some(expected)) = (&page, expected) {
            for (source, moments) in &page.sources {
                assert_eq!(expected.get(source), Some(moments), "{source} on a page of {life:?}");
            }
        }
        page
    }

    pub(super) async fn ack(&self, life: Life) -> Acked {
        let answer = self.world.store.ack(0, life).await.unwrap();
        assert_eq!(answer, self.oracle.ack(0, life).await.unwrap(), "ack of {life:?}");
        answer
    }

    pub(super) async fn close(&self, life: Life, cursor: u64, when: When) -> Closed {
        let family = self.family(life.bucket);
        let answer = self.world.store.close(0, life, &family, cursor, when).await.unwrap();
        let left = if let Closed::More(_) = answer { self.left(life).await } else { BTreeSet::new() };
        let expected = self.oracle.close_beside(life, &family, &left, when);
        let both_more = matches!((answer, expected), (Closed::More(_), Closed::More(_)));
        assert!(both_more || answer == expected, "close of {life:?}: {answer:?}, not {expected:?}");
        answer
    }

    /// The sources that a close has not moved up yet.
    async fn left(&self, life: Life) -> BTreeSet<Arc<str>> {
        let (mut left, mut cursor) = (BTreeSet::new(), None::<String>);
        loop {
            let page = self.world.store.page(0, life.bucket, life.generation, cursor.as_deref()).await.unwrap();
            let page = page.expect("a life that is being closed");
            left.extend(page.sources.into_iter().map(|(source, _)| source));
            if page.next.is_none() {
                return left;
            }
            cursor = page.next;
        }
    }

    /// Drives a close to its end, as a node does that needs the bucket.
    pub(super) async fn close_to_end(&self, life: Life) {
        let mut lives = vec![life];
        for _ in 0..MAX_ROUNDS {
            let Some(&life) = lives.last() else { return };
            match self.close(life, 0, When::InTime).await {
                Closed::More(_) => {}
                Closed::Done | Closed::Gone => drop(lives.pop()),
                Closed::ParentClosing(parent) => lives.push(parent),
                other => panic!("the close of {life:?} had begun: {other:?}"),
            }
        }
        panic!("the close of {life:?} does not end");
    }

    /// Puts rows into the sink. A rollover that slept comes with older ones: they are skipped.
    pub(super) fn write(&mut self, rows: &[LifeRow]) {
        for life in rows {
            let key = (life.bucket, Arc::clone(&life.source));
            if let Update::Write(row) = Row::update(self.sink.get(&key), life) {
                self.sink.insert(key, row);
            }
        }
    }

    /// Forgets a source everywhere: no life has it any more, nor the sink.
    pub(super) async fn forget(&mut self, source: usize) {
        let source: Arc<str> = small_source(source).into();
        let buckets = self.world.store.buckets(0, None).await.unwrap();
        assert_eq!(buckets.next, None, "more than ever are open here");
        let buckets: BTreeSet<Bucket> = buckets.buckets.into_iter().collect();
        let expected = self.oracle.buckets(0, None).await.unwrap();
        assert_eq!(buckets, expected.buckets.into_iter().collect());
        let buckets: Vec<Bucket> = buckets.into_iter().collect();
        let found = self.world.store.forget(0, &source, &buckets).await.unwrap();
        let expected = self.oracle.forget(0, &source, &buckets).await.unwrap();
        assert_eq!(found, expected, "states of {source}");
        self.sink.retain(|(_, of), _| *of != source);
        for sources in self.ledger.counted.values_mut() {
            sources.remove(&source);
        }
    }

    /// Everything open of both, which must agree.
    pub(super) async fn open(&self) -> Open {
        let ask = |store: Arc<dyn Store>| async move {
            store.open(0, &self.probes, self.world.calendar.periods(), Millis::MIN, Millis::MAX).await.unwrap()
        };
        let (got, expected) = (ask(Arc::clone(&self.world.store)).await, ask(Arc::new(self.oracle.clone())).await);
        assert_eq!(got, expected);
        got
    }

    /// What must hold after every step.
    pub(super) async fn check(&self) {
        for &writer in &self.writers {
            let (got, expected) = (self.world.store.head(0, writer).await, self.oracle.head(0, writer).await);
            assert_eq!(got.unwrap(), expected.unwrap());
        }
        let lives = self.open().await.lives;
        for top in self.buckets().into_iter().filter(|b| self.family(*b).parents.is_empty()) {
            for (i, source) in self.probes.iter().enumerate() {
                let mut counted = Moments::EMPTY;
                for (_, sources) in self.roots_of(top) {
                    counted.merge(sources.get(source).unwrap_or(&Moments::EMPTY));
                }
                let shown = self.shown(top, i, &lives);
                assert_eq!((shown.count, shown.sum), (counted.count, counted.sum), "{source} in {top:?}");
            }
        }
    }

    /// All buckets that counted readings come to on their way.
    fn buckets(&self) -> BTreeSet<Bucket> {
        let calendar = &self.world.calendar;
        let way =
            |root: &Bucket| calendar.periods().iter().map(|&p| calendar.bucket(p, root.start)).collect::<Vec<_>>();
        self.ledger.counted.keys().flat_map(way).collect()
    }

    /// What was counted in the roots of a bucket.
    fn roots_of(&self, bucket: Bucket) -> impl Iterator<Item = (&Bucket, &BTreeMap<Arc<str>, Moments>)> {
        self.ledger.counted.iter().filter(move |(root, _)| bucket.contains(root.start))
    }

    /// What a query would answer for a bucket: its row, its life and its open descendants, the newer
    /// life and revision winning.
    fn shown(&self, bucket: Bucket, probe: usize, lives: &[OpenLife]) -> Moments {
        let row = self.sink.get(&(bucket, Arc::clone(&self.probes[probe])));
        let life = lives.iter().find(|l| l.life.bucket == bucket);
        let own = life.and_then(|l| l.moments[probe].clone()).unwrap_or_default();
        let generation = life.map_or(i64::MIN, |l| l.life.generation);
        let mut shown = match row {
            None => own,
            Some(row) if row.generation > generation => row.state.clone(),
            Some(row) if row.generation == generation && row.gen_count >= own.count => row.state.clone(),
            Some(row) => {
                let base = if row.generation == generation { row.base.clone() } else { Some(row.state.clone()) };
                let mut state = base.unwrap_or_default();
                state.merge(&own);
                state
            }
        };
        let descendants = self.family(bucket).descendants;
        for life in lives {
            if descendants.contains(&life.life.bucket.period) && bucket.contains(life.life.bucket.start) {
                shown.merge(&life.moments[probe].clone().unwrap_or_default());
            }
        }
        shown
    }

    /// Lets time pass until every bucket is closed, and compares the sink with the ledger.
    pub(super) async fn finish(&mut self) {
        let mut rounds = 0;
        loop {
            let due = self.due().await;
            for i in 0..due.buckets.len() {
                let mut rollover = Rollover::Idle;
                rollover.call(self, i, false, When::InTime).await;
                while !rollover.is_idle() {
                    rollover.call(self, i, false, When::InTime).await;
                }
            }
            match due.next {
                None if due.buckets.is_empty() => break,
                // The store's time may be ahead of the clock; due times are in the store's.
                Some(next) if due.buckets.is_empty() => self.world.set(next),
                _ => {}
            }
            rounds += 1;
            assert!(rounds < MAX_ROUNDS, "not all buckets close: {:?}", self.open().await.lives);
        }
        assert_eq!(self.open().await, Open::default());
        let mut rows = 0;
        for bucket in self.buckets() {
            let mut totals = BTreeMap::<&Arc<str>, Moments>::new();
            for (source, moments) in self.roots_of(bucket).flat_map(|(_, sources)| sources) {
                totals.entry(source).or_default().merge(moments);
            }
            for (&source, total) in &totals {
                let row = self.sink.get(&(bucket, Arc::clone(source)));
                assert_eq!(row.map(|r| &r.state), Some(total), "{source} in {bucket:?}");
            }
            rows += totals.len();
        }
        assert_eq!(self.sink.len(), rows, "rows of what was never counted");
    }
}
