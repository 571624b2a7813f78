//! What can come between the steps of a drain: readings, failures, crashes, another node, a deletion.
//!
//! Against stores and sinks in this process; the command is in `drain.rs`.

use crate::oracle::Oracle;
use crate::servers::{RedisServer, temporary};
use crate::world::{DAY, HOUR, MINUTE, POLICY, T0, WRITER, calendar, delta};
use meanwhile::clock::Clock;
use meanwhile::rollover::{Drain, DrainReport, Rollover};
use meanwhile::sink::csv::CsvSink;
use meanwhile::sink::{Partition, RowPage, RowQuery, Sink, SinkError, WriteReport};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Calendar, Period, Zone};
use meanwhile::stats::row::{LifeRow, Row};
use meanwhile::stats::source::SourceSpan;
use meanwhile::store::redis::RedisStore;
use meanwhile::store::{Answer, Frame, Store};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// More than any drain here takes.
const STEPS: usize = 1_000;

/// What happens in the middle of a write to the sink, while lives are sealed and not acked.
type Event = Box<dyn FnMut(usize) -> Result<Vec<Millis>, SinkError> + Send>;

/// Readings of source `a` into minutes, one frame each.
struct Feed {
    store: Arc<dyn Store>,
    calendar: Arc<Calendar>,
    fed: Mutex<u64>,
}

impl Feed {
    fn minute(&self, t: Millis) -> Bucket {
        self.calendar.bucket("1m".parse().unwrap(), t)
    }

    async fn put(&self, t: Millis) {
        let sequence = {
            let mut fed = self.fed.lock().unwrap();
            *fed += 1;
            *fed
        };
        let head = self.store.head(0, WRITER).await.unwrap();
        let frame = Frame::new(WRITER, sequence, head.elapsed, vec![], vec![delta(self.minute(t), "a", &[1.0])]);
        assert_eq!(self.store.apply(0, &frame).await.unwrap(), Answer::Applied);
    }

    fn fed(&self) -> f64 {
        *self.fed.lock().unwrap() as f64
    }
}

/// A sink in whose writes things happen.
struct Eventful {
    sink: CsvSink,
    feed: Arc<Feed>,
    event: Mutex<(usize, Event)>,
}

#[async_trait::async_trait]
impl Sink for Eventful {
    fn name(&self) -> String {
        self.sink.name()
    }

    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        let readings = {
            let (writes, event) = &mut *self.event.lock().unwrap();
            *writes += 1;
            event(*writes)?
        };
        for t in readings {
            self.feed.put(t).await;
        }
        self.sink.write(lives).await
    }

    async fn put(&self, rows: Vec<Row>) -> Result<WriteReport, SinkError> {
        self.sink.put(rows).await
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, SinkError> {
        self.sink.rows(query).await
    }

    async fn scan(&self, after: Option<&str>, limit: usize) -> Result<RowPage, SinkError> {
        self.sink.scan(after, limit).await
    }

    async fn sources(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<SourceSpan>, SinkError> {
        self.sink.sources(prefix, after, limit).await
    }

    async fn compactable(&self, now: Millis) -> Result<Vec<Partition>, SinkError> {
        self.sink.compactable(now).await
    }

    async fn compact(&self, partition: &Partition) -> Result<(), SinkError> {
        self.sink.compact(partition).await
    }

    async fn forget(&self, source: &str) -> Result<usize, SinkError> {
        self.sink.forget(source).await
    }

    async fn retain(&self, period: Period, before: Millis) -> Result<usize, SinkError> {
        self.sink.retain(period, before).await
    }
}

struct Bench {
    clock: Clock,
    store: Arc<dyn Store>,
    calendar: Arc<Calendar>,
    feed: Arc<Feed>,
    sink: Arc<Eventful>,
    home: TempDir,
}

impl Bench {
    async fn new(event: impl FnMut(usize) -> Result<Vec<Millis>, SinkError> + Send + 'static) -> Self {
        let clock = Clock::manual(T0 + 10_000);
        Self::on(Arc::new(Oracle::new(POLICY, clock.clone())), clock, event).await
    }

    async fn on(
        store: Arc<dyn Store>,
        clock: Clock,
        event: impl FnMut(usize) -> Result<Vec<Millis>, SinkError> + Send + 'static,
    ) -> Self {
        store.found(0).await.unwrap();
        let calendar = Arc::new(calendar("1m,1h,1d"));
        let feed = Arc::new(Feed { store: Arc::clone(&store), calendar: Arc::clone(&calendar), fed: Mutex::default() });
        let home = temporary();
        let sink = CsvSink::open(home.path(), Zone::utc()).unwrap();
        let event: Event = Box::new(event);
        let sink = Arc::new(Eventful { sink, feed: Arc::clone(&feed), event: Mutex::new((0, event)) });
        Self { clock, store, calendar, feed, sink, home }
    }

    /// What happens in the writes from now on.
    fn when_written(&self, event: impl FnMut(usize) -> Result<Vec<Millis>, SinkError> + Send + 'static) {
        *self.sink.event.lock().unwrap() = (0, Box::new(event));
    }

    fn rollover(&self) -> Rollover {
        let sink: Arc<dyn Sink> = Arc::clone(&self.sink) as _;
        Rollover::new(Arc::clone(&self.store), sink, Arc::clone(&self.calendar), Some(0))
    }

    async fn open(&self) -> Vec<Bucket> {
        let mut buckets = self.store.buckets(0, None).await.unwrap().buckets;
        buckets.sort_unstable();
        buckets
    }

    async fn count(&self, period: &str) -> f64 {
        let query = RowQuery {
            sources: vec!["a".into()],
            period: period.parse().unwrap(),
            from: Millis::MIN,
            to: Millis::MAX,
            limit: 0,
            doubles: 0,
        };
        self.sink.rows(&query).await.unwrap().iter().map(|row| row.state.count).sum()
    }

    /// Sees that the sink has every reading in every period.
    async fn check_rows(&self, when: &str) {
        for period in ["1m", "1h", "1d"] {
            assert_eq!(self.count(period).await, self.feed.fed(), "{period} {when}");
        }
    }

    /// Lets time pass until everything has closed by itself.
    async fn roll_out(&self, rollover: &mut Rollover) {
        for _ in 0..STEPS {
            rollover.tick().await.unwrap();
            if self.open().await.is_empty() {
                return;
            }
            self.clock.set(self.clock.now() + 10 * MINUTE);
        }
        panic!("buckets are left in the store: {:?}", self.open().await);
    }
}

async fn drain(rollover: &mut Rollover) -> Drain {
    let drain = rollover.orders().drain();
    for _ in 0..STEPS {
        if !rollover.obey().await {
            return drain.borrow().clone();
        }
    }
    panic!("the drain does not end");
}

fn done(drain: Drain) -> DrainReport {
    match drain {
        Drain::Done(report) => report,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_open_goes_up_and_out() {
    let bench = Bench::new(|_| Ok(vec![])).await;
    for t in [T0, T0 + MINUTE, T0 - HOUR, T0 - 30 * DAY] {
        bench.feed.put(t).await;
    }
    let mut rollover = bench.rollover();
    let progress = rollover.progress();
    rollover.tick().await.unwrap();
    assert_eq!(progress.report().open_buckets, 4);
    let report = done(drain(&mut rollover).await);
    let buckets = 4 + 3 + 2;
    let expected = DrainReport {
        buckets_written: buckets,
        buckets_closed: buckets,
        rows_written: buckets,
        ..DrainReport::default()
    };
    assert_eq!(report, expected);
    assert_eq!(bench.open().await, []);
    assert_eq!(progress.report().open_buckets, 0);
    bench.check_rows("after the drain").await;
    assert_eq!(done(drain(&mut rollover).await), DrainReport::default(), "nothing is left");
    // The day that is over is put in its final form, the others are left as they are.
    let before = bench.sink.compactable(Millis::MAX).await.unwrap().len();
    let mut later = bench.rollover();
    while later.tick().await.unwrap().is_zero() {}
    let after = bench.sink.compactable(Millis::MAX).await.unwrap();
    assert_eq!((before, after.len()), (6, 3), "{after:?}");
    bench.check_rows("in the final form").await;
}

/// Buckets that a configuration of before has left.
#[tokio::test]
async fn buckets_of_left_out_periods_are_drained_too() {
    let bench = Bench::new(|_| Ok(vec![])).await;
    bench.feed.put(T0).await;
    let (store, sink) = (Arc::clone(&bench.store), Arc::clone(&bench.sink) as Arc<dyn Sink>);
    let mut rollover = Rollover::new(store, sink, Arc::new(calendar("10s,1h,1d")), Some(0));
    done(drain(&mut rollover).await);
    assert_eq!(bench.open().await, []);
    bench.check_rows("after the drain").await;
}

#[tokio::test]
async fn readings_all_the_time_do_not_keep_it_from_ending() {
    let bench = Bench::new(|_| Ok(vec![T0])).await;
    bench.feed.put(T0).await;
    bench.feed.put(T0 + 2 * HOUR).await;
    let mut rollover = bench.rollover();
    let report = done(drain(&mut rollover).await);
    let minute = bench.feed.minute(T0);
    assert!(report.first_open.contains(&minute), "{report:?}");
    assert_eq!((report.still_open, &report.first_open), (bench.open().await.len(), &bench.open().await));
    assert!(!report.first_open.contains(&bench.feed.minute(T0 + 2 * HOUR)), "the quiet minute is closed");
    // What is still open goes its usual way.
    bench.when_written(|_| Ok(vec![]));
    bench.roll_out(&mut rollover).await;
    bench.check_rows("in the end").await;
}

#[tokio::test]
async fn a_child_that_opens_again_does_not_hold_up_its_parents() {
    // While the first minute is written, the one after it gets its first reading.
    let bench = Bench::new(|write| Ok(if write == 1 { vec![T0 + MINUTE] } else { vec![] })).await;
    bench.feed.put(T0).await;
    let mut rollover = bench.rollover();
    let report = done(drain(&mut rollover).await);
    let open = vec![bench.feed.minute(T0 + MINUTE)];
    assert_eq!((report.buckets_closed, report.still_open, &report.first_open), (3, 1, &open));
    assert_eq!(bench.open().await, open);
    assert_eq!(bench.count("1d").await, 1.0, "hour and day have what was open when it began");
    done(drain(&mut rollover).await);
    bench.check_rows("after another drain").await;
}

#[tokio::test]
async fn a_failing_sink_breaks_it_off_and_it_may_be_repeated() {
    for failing in 1..=3 {
        let bench = Bench::new(move |write| match write {
            write if write == failing => Err(SinkError::Unavailable("full".to_owned())),
            _ => Ok(vec![]),
        })
        .await;
        bench.feed.put(T0).await;
        let mut rollover = bench.rollover();
        match drain(&mut rollover).await {
            Drain::Failed(report, reason) => {
                assert_eq!((report.buckets_closed, &*reason), (failing - 1, "the sink is unavailable: full"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.open().await.len(), 1, "what was not written is still there");
        done(drain(&mut rollover).await);
        assert_eq!(bench.open().await, []);
        bench.check_rows("after the repetition").await;
    }
}

#[tokio::test]
async fn a_broken_file_holds_up_no_other_bucket() {
    let bench = Bench::new(|_| Ok(vec![])).await;
    let broken = [T0 - 3 * DAY, T0 - 3 * DAY + MINUTE];
    for t in [T0, broken[0], T0 - HOUR, broken[1], T0 - 5 * DAY] {
        bench.feed.put(t).await;
    }
    let place = bench.home.path().join("period=1m/date=2026-11-17");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("tail.csv"), "edited;by;hand\n").unwrap();
    let mut rollover = bench.rollover();
    match drain(&mut rollover).await {
        Drain::Failed(_, reason) => assert!(reason.contains("tail.csv is damaged"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.open().await, broken.map(|t| bench.feed.minute(t)));
    assert_eq!(bench.count("1d").await, 3.0, "all others went up and out");
    std::fs::remove_file(place.join("tail.csv")).unwrap();
    done(drain(&mut rollover).await);
    bench.check_rows("after the repair").await;
}

/// Each stops for ever after any number of steps; then time alone has to bring the rest out.
#[tokio::test]
async fn a_drain_that_is_cut_off_leaves_the_rest_to_its_time() {
    for steps in 0..5 {
        let bench = Bench::new(|_| Ok(vec![])).await;
        for t in [T0, T0 + MINUTE, T0 - 2 * DAY] {
            bench.feed.put(t).await;
        }
        let mut cut_off = bench.rollover();
        let last = cut_off.orders().drain();
        for _ in 0..steps {
            cut_off.obey().await;
        }
        drop(cut_off);
        let told = last.borrow().clone();
        assert!(matches!(told, Drain::Failed(..) | Drain::Done(_)), "who waits is told: {told:?}");
        let mut next = bench.rollover();
        assert!(!next.obey().await, "nobody has asked this one");
        bench.roll_out(&mut next).await;
        bench.check_rows(&format!("cut off after {steps} steps")).await;
    }
}

async fn two_at_once(bench: Bench) {
    for n in 0..50 {
        bench.feed.put(T0 - n * 7 * HOUR).await;
    }
    let (mut one, mut other) = (bench.rollover(), bench.rollover());
    let (first, second) = tokio::join!(drain(&mut one), drain(&mut other));
    let (first, second) = (done(first), done(second));
    assert_eq!((first.still_open, second.still_open), (0, 0), "{first:?} {second:?}");
    assert_eq!(bench.open().await, []);
    bench.check_rows("after both").await;
}

#[tokio::test]
async fn two_nodes_drain_at_once() {
    two_at_once(Bench::new(|_| Ok(vec![])).await).await;
}

#[tokio::test]
async fn two_nodes_drain_one_redis_at_once() {
    let clock = Clock::manual(T0 + 10_000);
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url(), POLICY, Some(clock.clone())).await.unwrap();
    two_at_once(Bench::on(Arc::new(store), clock, |_| Ok(vec![])).await).await;
}

#[tokio::test]
async fn a_source_is_forgotten_in_the_middle_of_a_drain() {
    for steps in 0..4 {
        let bench = Bench::new(|_| Ok(vec![])).await;
        bench.feed.put(T0).await;
        let mut rollover = bench.rollover();
        let orders = rollover.orders();
        let last = orders.drain();
        for _ in 0..steps {
            rollover.obey().await;
        }
        let forgotten = tokio::spawn(async move { orders.forget("a".into()).await });
        while !forgotten.is_finished() {
            rollover.obey().await;
            tokio::task::yield_now().await;
        }
        let forgotten = forgotten.await.unwrap().unwrap();
        assert!(forgotten.states + forgotten.rows > 0, "{forgotten:?}");
        while rollover.obey().await {}
        done(last.borrow().clone());
        bench.roll_out(&mut rollover).await;
        for period in ["1m", "1h", "1d"] {
            assert_eq!(bench.count(period).await, 0.0, "{period} after {steps} steps");
        }
        assert_eq!(bench.sink.sources("", None, 1).await.unwrap(), []);
    }
}
