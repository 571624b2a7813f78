//! What waits for a sink that is away is written in the order in which it came about, and does not keep
//! another instance from writing it; one that overtakes another is no alarm.
//!
//! The rollover over a sink that only takes note; through the whole service, outages are in `outages.rs` and
//! `postgres_service.rs`.

use crate::oracle::Oracle;
use crate::servers::temporary;
use crate::world::{DAY, POLICY, SECOND, T0, WRITER, calendar, delta, moments};
use meanwhile::clock::Clock;
use meanwhile::rollover::{Drain, Rollover, RolloverError};
use meanwhile::sink::csv::CsvSink;
use meanwhile::sink::{Partition, RowPage, RowQuery, Sink, SinkError, WriteReport};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Calendar, Period, Zone};
use meanwhile::stats::row::{LifeRow, Row};
use meanwhile::stats::source::SourceSpan;
use meanwhile::store::{Answer, Frame, Store, VISIBILITY};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Of a bucket: several are due within the time for which one that was taken up is not.
const LENGTH: Millis = 5 * SECOND;

/// How it stands with the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sinks {
    There,
    Away,
    /// It can be reached, but does not take the first bucket.
    Broken,
}

/// Notes the buckets that are written, by their number from [`T0`].
struct Noting(Mutex<(Sinks, Vec<Millis>)>);

impl Noting {
    fn new(state: Sinks) -> Arc<Self> {
        Arc::new(Self(Mutex::new((state, Vec::new()))))
    }

    fn is(&self, state: Sinks) {
        self.0.lock().unwrap().0 = state;
    }

    fn written(&self) -> Vec<Millis> {
        self.0.lock().unwrap().1.clone()
    }
}

fn unavailable() -> SinkError {
    SinkError::Unavailable("for the test".to_owned())
}

#[async_trait::async_trait]
impl Sink for Noting {
    fn name(&self) -> String {
        "noting".to_owned()
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        if self.0.lock().unwrap().0 == Sinks::Away { Err(unavailable()) } else { Ok(()) }
    }

    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        let (state, written) = &mut *self.0.lock().unwrap();
        let numbers: Vec<_> = lives.iter().map(|life| (life.bucket.start - T0) / LENGTH).collect();
        if *state == Sinks::Away || (*state == Sinks::Broken && numbers.contains(&0)) {
            return Err(unavailable());
        }
        written.extend(numbers);
        Ok(WriteReport { written: lives.len(), ..WriteReport::default() })
    }

    async fn put(&self, _rows: Vec<Row>) -> Result<WriteReport, SinkError> {
        unreachable!()
    }

    async fn rows(&self, _query: &RowQuery) -> Result<Vec<Row>, SinkError> {
        unreachable!()
    }

    async fn scan(&self, _after: Option<&str>, _limit: usize) -> Result<RowPage, SinkError> {
        unreachable!()
    }

    async fn sources(&self, _prefix: &str, _after: Option<&str>, _limit: usize) -> Result<Vec<SourceSpan>, SinkError> {
        unreachable!()
    }

    async fn compactable(&self, _now: Millis) -> Result<Vec<Partition>, SinkError> {
        Ok(Vec::new())
    }

    async fn compact(&self, _partition: &Partition) -> Result<(), SinkError> {
        unreachable!()
    }

    async fn forget(&self, _source: &str) -> Result<usize, SinkError> {
        unreachable!()
    }

    async fn retain(&self, _period: Period, _before: Millis) -> Result<usize, SinkError> {
        unreachable!()
    }
}

/// Files in which another instance writes first, when it is told to.
struct Overtaken {
    files: CsvSink,
    overtaker: tokio::sync::Mutex<Option<(Bench, Rollover)>>,
}

impl Overtaken {
    fn new(home: &Path) -> Self {
        Self { files: CsvSink::open(home, Zone::utc()).unwrap(), overtaker: tokio::sync::Mutex::new(None) }
    }
}

#[async_trait::async_trait]
impl Sink for Overtaken {
    fn name(&self) -> String {
        self.files.name()
    }

    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        let overtaker = self.overtaker.lock().await.take();
        if let Some((mut bench, mut other)) = overtaker {
            bench.clock.set(T0);
            bench.put().await;
            bench.clock.set(T0 + LENGTH + VISIBILITY + POLICY.grace);
            other.tick().await.unwrap();
        }
        self.files.write(lives).await
    }

    async fn put(&self, _rows: Vec<Row>) -> Result<WriteReport, SinkError> {
        unreachable!()
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, SinkError> {
        self.files.rows(query).await
    }

    async fn scan(&self, _after: Option<&str>, _limit: usize) -> Result<RowPage, SinkError> {
        unreachable!()
    }

    async fn sources(&self, _prefix: &str, _after: Option<&str>, _limit: usize) -> Result<Vec<SourceSpan>, SinkError> {
        unreachable!()
    }

    async fn compactable(&self, _now: Millis) -> Result<Vec<Partition>, SinkError> {
        Ok(Vec::new())
    }

    async fn compact(&self, _partition: &Partition) -> Result<(), SinkError> {
        unreachable!()
    }

    async fn forget(&self, _source: &str) -> Result<usize, SinkError> {
        unreachable!()
    }

    async fn retain(&self, _period: Period, _before: Millis) -> Result<usize, SinkError> {
        unreachable!()
    }
}

/// A store into which one bucket comes after the other.
#[derive(Clone)]
struct Bench {
    clock: Clock,
    store: Arc<dyn Store>,
    calendar: Arc<Calendar>,
    sequence: u64,
}

impl Bench {
    async fn new() -> Self {
        let clock = Clock::manual(T0);
        let store: Arc<dyn Store> = Arc::new(Oracle::new(POLICY, clock.clone()));
        store.found(0).await.unwrap();
        Self { clock, store, calendar: Arc::new(calendar("5s")), sequence: 0 }
    }

    /// A reading of now, whose bucket is due afterwards; its number.
    async fn put(&mut self) -> Millis {
        let bucket = self.calendar.bucket(self.calendar.periods()[0], self.clock.now());
        self.sequence += 1;
        let frame = Frame::new(WRITER, self.sequence, 0, vec![], vec![delta(bucket, "a", &[1.0])]);
        assert_eq!(self.store.apply(0, &frame).await.unwrap(), Answer::Applied);
        self.clock.set(bucket.end + POLICY.grace);
        (bucket.start - T0) / LENGTH
    }

    fn rollover(&self, sink: &Arc<impl Sink>) -> Rollover {
        let (store, sink) = (Arc::clone(&self.store), Arc::clone(sink) as Arc<dyn Sink>);
        Rollover::new(store, sink, Arc::clone(&self.calendar), Some(0))
    }
}

#[track_caller]
fn check_failed(ticked: &Result<Duration, RolloverError>) {
    assert!(matches!(ticked, Err(RolloverError::Sink(_))), "{ticked:?}");
}

#[tokio::test]
async fn the_oldest_is_written_first() {
    let mut bench = Bench::new().await;
    let sink = Noting::new(Sinks::Away);
    let mut rollover = bench.rollover(&sink);
    let mut buckets = Vec::new();
    for _ in 0..3 {
        buckets.push(bench.put().await);
        check_failed(&rollover.tick().await);
    }
    sink.is(Sinks::There);
    for _ in 0..2 {
        rollover.tick().await.unwrap();
    }
    assert_eq!(sink.written(), buckets, "without waiting for what was taken up to be due again");
}

#[tokio::test]
async fn another_instance_writes_what_one_cannot() {
    let mut bench = Bench::new().await;
    let (away, there) = (Noting::new(Sinks::Away), Noting::new(Sinks::There));
    let (mut cut_off, mut other) = (bench.rollover(&away), bench.rollover(&there));
    let bucket = bench.put().await;
    for _ in 0..=VISIBILITY / SECOND {
        // Whether it looks at the sink or finds nothing to do.
        let _ = cut_off.tick().await;
        bench.clock.set(bench.clock.now() + SECOND);
    }
    other.tick().await.unwrap();
    assert_eq!(there.written(), [bucket]);
}

#[tokio::test]
async fn a_bucket_that_is_never_taken_holds_up_no_newer_one() {
    let mut bench = Bench::new().await;
    let sink = Noting::new(Sinks::Broken);
    let mut rollover = bench.rollover(&sink);
    bench.put().await;
    check_failed(&rollover.tick().await);
    let newer = bench.put().await;
    // It may first be tried once more.
    let _ = rollover.tick().await;
    let _ = rollover.tick().await;
    assert_eq!(sink.written(), [newer]);
}

/// Everything through an instance on these files, as far as it goes.
async fn drain(mut rollover: Rollover) -> Drain {
    let drain = rollover.orders().drain();
    while rollover.obey().await {}
    drain.borrow().clone()
}

/// It has read a bucket; another instance writes more of it first.
#[tokio::test]
async fn an_instance_that_was_overtaken_gives_no_alarm() {
    let mut bench = Bench::new().await;
    let home = temporary();
    let sink = Arc::new(Overtaken::new(home.path()));
    bench.put().await;
    *sink.overtaker.lock().await = Some((bench.clone(), bench.rollover(&sink)));
    let drained = drain(bench.rollover(&sink)).await;
    assert!(matches!(drained, Drain::Done(_)), "{drained:?}");
    let query = RowQuery {
        sources: vec!["a".into()],
        period: bench.calendar.periods()[0],
        from: T0,
        to: T0 + 1,
        limit: 0,
        doubles: 0,
    };
    let rows = sink.rows(&query).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.state.count).collect::<Vec<_>>(), [2.0]);
}

/// Nobody else has written what the sink knows more of.
#[tokio::test]
async fn a_store_that_went_back_is_an_alarm() {
    let mut bench = Bench::new().await;
    let home = temporary();
    let sink = Arc::new(Overtaken::new(home.path()));
    let bucket = bench.calendar.bucket(bench.calendar.periods()[0], T0);
    let after = T0 + DAY;
    let life = LifeRow { source: "a".into(), bucket, generation: after, revision: after, moments: moments(&[1.0]) };
    sink.write(vec![life]).await.unwrap();
    bench.put().await;
    let drained = drain(bench.rollover(&sink)).await;
    assert!(!matches!(drained, Drain::Done(_)), "{drained:?}");
}
