//! A store and a sink in memory, as plain as the contracts allow, for the tests of queries.
//!
//! Lives are written, and closed into their parents, by the tests; `between` holds steps that run
//! right after the sink was read, between the two looks of a query. The verbs that no query calls
//! are not there. The real implementations are tested against their contract elsewhere.

use crate::sink::{Partition, RowPage, RowQuery, Sink, SinkError, WriteReport};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Calendar, Family, Period};
use crate::stats::complete::Complete;
use crate::stats::moments::Moments;
use crate::stats::row::{LifeRow, Row, Update};
use crate::stats::source::SourceSpan;
use crate::store::nodes::{Node, Registered};
use crate::store::rules::{Changed, Version};
use crate::store::{
    AckLog, Acked, Answer, Closed, Due, Durability, Frame, Head, Life, Open, OpenBuckets, OpenLife, Page, Policy,
    Sealed, Shard, Store, StoreError, When, WriterId,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(crate) type Step = Box<dyn FnOnce(&mut State) + Send>;

/// One life as the store holds it.
#[derive(Clone, Default)]
pub(crate) struct Held {
    pub(crate) generation: i64,
    pub(crate) revision: i64,
    pub(crate) written: bool,
    pub(crate) sources: BTreeMap<Arc<str>, Moments>,
}

pub(crate) struct State {
    pub(crate) calendar: Calendar,
    pub(crate) lives: BTreeMap<Bucket, Held>,
    pub(crate) rows: BTreeMap<(Bucket, Arc<str>), Row>,
    pub(crate) highest: i64,
    pub(crate) between: VecDeque<Step>,
    /// Lives one look reads at most.
    pub(crate) open_buckets: usize,
    pub(crate) store_down: bool,
    pub(crate) sink_down: bool,
    /// The largest number of rows that one call of the sink gave.
    pub(crate) most_rows: usize,
    /// The largest number of states that the store gave between two calls of the sink.
    pub(crate) most_states: usize,
    states: usize,
    pub(crate) looks: usize,
    /// What is answered to those who ask for the log, in turn.
    pub(crate) logs: VecDeque<AckLog>,
    /// How long a look takes.
    pub(crate) look_takes: Duration,
    pub(crate) complete: Complete,
}

pub(crate) struct World(Mutex<State>);

impl State {
    fn life(&mut self, bucket: Bucket) -> &mut Held {
        self.highest += 1;
        let generation = self.highest;
        self.lives.entry(bucket).or_insert_with(|| Held { generation, ..Held::default() })
    }

    /// A reading, folded into the root buckets.
    pub(crate) fn read(&mut self, source: &str, t: Millis, value: f64) {
        for bucket in self.calendar.roots(t).buckets {
            self.life(bucket).sources.entry(source.into()).or_default().push(value);
        }
    }

    pub(crate) fn write(&mut self, bucket: Bucket) {
        let Some(held) = self.lives.get_mut(&bucket) else { return };
        held.revision += 1;
        held.written = true;
        let (generation, revision) = (held.generation, held.revision);
        for (source, moments) in held.sources.clone() {
            let key = (bucket, Arc::clone(&source));
            let life = LifeRow { source, bucket, generation, revision, moments };
            if let Update::Write(row) = Row::update(self.rows.get(&key), &life) {
                self.rows.insert(key, row);
            }
        }
    }

    /// Moves one source of a written life up, as a chunk of a close does.
    pub(crate) fn move_up(&mut self, bucket: Bucket, source: &str) {
        let moments = self.lives.get_mut(&bucket).and_then(|held| held.sources.remove(source));
        let Some(moments) = moments else { return };
        for parent in self.calendar.parents(&bucket) {
            self.life(parent).sources.entry(source.into()).or_default().merge(&moments);
        }
    }

    /// Writes a life and moves all of it up.
    pub(crate) fn close(&mut self, bucket: Bucket) {
        self.write(bucket);
        let sources: Vec<Arc<str>> =
            self.lives.get(&bucket).map(|held| held.sources.keys().cloned().collect()).unwrap_or_default();
        for source in sources {
            self.move_up(bucket, &source);
        }
        self.lives.remove(&bucket);
    }
}

impl World {
    pub(crate) fn new(periods: &str, zone: &str) -> Arc<Self> {
        let periods = periods.split(',').map(|p| p.parse().unwrap()).collect();
        Arc::new(Self(Mutex::new(State {
            calendar: Calendar::new(periods, zone.parse().unwrap()).unwrap(),
            lives: BTreeMap::new(),
            rows: BTreeMap::new(),
            highest: 100,
            between: VecDeque::new(),
            open_buckets: 2_000,
            store_down: false,
            sink_down: false,
            most_rows: 0,
            most_states: 0,
            states: 0,
            looks: 0,
            logs: VecDeque::new(),
            look_takes: Duration::ZERO,
            complete: Complete::default(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn bucket(&self, period: &str, t: Millis) -> Bucket {
        self.lock().calendar.bucket(period.parse().unwrap(), t)
    }
}

#[async_trait::async_trait]
impl Store for World {
    fn name(&self) -> String {
        "world".into()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn policy(&self) -> Policy {
        unreachable!("a query changes nothing")
    }

    fn connection(&self) -> u64 {
        0
    }

    async fn head(&self, _: Shard, _: WriterId) -> Result<Head, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn found(&self, _: Shard) -> Result<i64, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn apply(&self, _: Shard, _: &Frame) -> Result<Answer, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn rules(&self, _: Shard) -> Result<Vec<Version>, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn change_rules(&self, _: Shard, _: &[Period], _: &Version) -> Result<Changed, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn restore_rules(&self, _: Shard, _: &[Version]) -> Result<(), StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn due(&self, _: Shard, _: usize) -> Result<Due, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn seal(&self, _: Shard, _: Bucket, _: &Family, _: When) -> Result<Sealed, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn page(
        &self,
        _: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        let state = self.lock();
        let Some(held) = state.lives.get(&bucket).filter(|held| held.generation == generation) else {
            return Ok(None);
        };
        // Two sources a page, so that the tests turn pages.
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let sources = held.sources.iter().skip(from).take(2).map(|(s, m)| (Arc::clone(s), m.clone())).collect();
        Ok(Some(Page { sources, next: (from + 2 < held.sources.len()).then(|| (from + 2).to_string()) }))
    }

    async fn acked(&self, _: Shard, _: Option<i64>, _: usize) -> Result<AckLog, StoreError> {
        Ok(self.lock().logs.pop_front().expect("a query does not ask for it"))
    }

    async fn ack(&self, _: Shard, _: Life) -> Result<Acked, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn close(&self, _: Shard, _: Life, _: &Family, _: u64, _: When) -> Result<Closed, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn barrier(&self, _: Shard) -> Result<(), StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn open(
        &self,
        _: Shard,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<Open, StoreError> {
        let takes = self.lock().look_takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let mut state = self.lock();
        state.looks += 1;
        if state.store_down {
            return Err(StoreError::Unavailable("the store is down".into()));
        }
        let asked = |b: &Bucket| periods.contains(&b.period) && from <= b.start && b.start < to;
        let mut lives: Vec<(&Bucket, &Held)> = state.lives.iter().filter(|(b, _)| asked(b)).collect();
        lives.sort_by_key(|(b, _)| b.start);
        // Whole starts only: what begins with the first life left out is left out as well.
        let until = lives.get(state.open_buckets).map(|(b, _)| b.start);
        lives.retain(|(b, _)| until.is_none_or(|until| b.start < until));
        lives.sort_by_key(|(b, _)| (b.period, b.start));
        let seen = |(&bucket, held): (&Bucket, &Held)| OpenLife {
            life: Life { bucket, generation: held.generation, revision: held.revision },
            written: held.written,
            moments: sources.iter().map(|s| held.sources.get(s).cloned()).collect(),
        };
        let lives: Vec<OpenLife> = lives.into_iter().map(seen).collect();
        state.states += lives.iter().flat_map(|life| &life.moments).flatten().count();
        state.most_states = state.most_states.max(state.states);
        Ok(Open { lives, until })
    }

    async fn buckets(&self, _: Shard, _: Option<&str>) -> Result<OpenBuckets, StoreError> {
        unreachable!("a query asks for what it needs")
    }

    async fn forget(&self, _: Shard, _: &str, _: &[Bucket]) -> Result<usize, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn drained(&self, _: Shard) -> Result<(), StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn register(&self, _: &Node) -> Result<Vec<Registered>, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn leave(&self, _: &str) -> Result<Vec<Registered>, StoreError> {
        unreachable!("a query changes nothing")
    }

    async fn complete(&self) -> Result<Complete, StoreError> {
        let state = self.lock();
        if state.store_down {
            return Err(StoreError::Unavailable("the store is down".into()));
        }
        Ok(state.complete.clone())
    }

    async fn keep_complete(&self, _: &Complete) -> Result<(), StoreError> {
        unreachable!("a query changes nothing")
    }
}

#[async_trait::async_trait]
impl Sink for World {
    fn name(&self) -> String {
        "world".into()
    }

    async fn write(&self, _: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        unreachable!("a query changes nothing")
    }

    async fn put(&self, _: Vec<Row>) -> Result<WriteReport, SinkError> {
        unreachable!("a query changes nothing")
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, SinkError> {
        let mut state = self.lock();
        state.states = 0;
        let result = if state.sink_down {
            Err(SinkError::Unavailable("the sink is down".into()))
        } else {
            let asked = |row: &&Row| {
                row.bucket.period == query.period
                    && query.sources.contains(&row.source)
                    && (query.from..query.to).contains(&row.bucket.start)
            };
            let mut rows: Vec<Row> = state.rows.values().filter(asked).cloned().collect();
            rows.sort_by(|a, b| (a.bucket.start, &a.source).cmp(&(b.bucket.start, &b.source)));
            query.cut(&mut rows);
            state.most_rows = state.most_rows.max(rows.len());
            Ok(rows)
        };
        if let Some(step) = state.between.pop_front() {
            step(&mut state);
        }
        result
    }

    async fn scan(&self, _: Option<&str>, _: usize) -> Result<RowPage, SinkError> {
        unreachable!("a query asks for sources by name")
    }

    async fn sources(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<SourceSpan>, SinkError> {
        let state = self.lock();
        if state.sink_down {
            return Err(SinkError::Unavailable("the sink is down".into()));
        }
        let mut spans: BTreeMap<Arc<str>, (Millis, Millis)> = BTreeMap::new();
        for (bucket, source) in state.rows.keys() {
            let span = spans.entry(Arc::clone(source)).or_insert((bucket.start, bucket.start));
            *span = (span.0.min(bucket.start), span.1.max(bucket.start));
        }
        let asked = spans.into_iter().filter(|(s, _)| s.starts_with(prefix) && after.is_none_or(|a| &**s > a));
        Ok(asked.take(limit).map(|(source, (first, last))| SourceSpan { source, first, last }).collect())
    }

    async fn compactable(&self, _: Millis) -> Result<Vec<Partition>, SinkError> {
        unreachable!("a query changes nothing")
    }

    async fn compact(&self, _: &Partition) -> Result<(), SinkError> {
        unreachable!("a query changes nothing")
    }

    async fn forget(&self, _: &str) -> Result<usize, SinkError> {
        unreachable!("a query changes nothing")
    }

    async fn retain(&self, _: Period, _: Millis) -> Result<usize, SinkError> {
        unreachable!("a query changes nothing")
    }
}
