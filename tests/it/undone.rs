//! What a crash of the store undoes must not be in the sink: the real rollover, cut off right after
//! every write of rows, and over a server that starts again unnoticed.
//!
//! A copy of the embedded store's open files is what `kill -9` would leave at that moment. Kills of the
//! whole service at random moments are in `crashes.rs`.

use crate::oracle::Oracle;
use crate::servers::{RedisServer, temporary};
use crate::unreliable::Unreliable;
use crate::world::{HOUR, MINUTE, POLICY, T0, WRITER, calendar, copy, delta};
use meanwhile::clock::Clock;
use meanwhile::rollover::{Drain, Rollover};
use meanwhile::sink::csv::CsvSink;
use meanwhile::sink::{Partition, RowPage, RowQuery, Sink, SinkError, WriteReport};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Period, Zone};
use meanwhile::stats::row::{LifeRow, Row};
use meanwhile::stats::source::SourceSpan;
use meanwhile::store::embedded::EmbeddedStore;
use meanwhile::store::redis::RedisStore;
use meanwhile::store::{Frame, Sealed, Store, When};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Enough to write and close everything, coarse buckets included.
const TICKS: usize = 2_000;

/// A sink that keeps a copy of all files as they are after each write.
struct Copying {
    sink: CsvSink,
    home: PathBuf,
    copies: Mutex<Vec<TempDir>>,
}

#[async_trait::async_trait]
impl Sink for Copying {
    fn name(&self) -> String {
        self.sink.name()
    }

    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        let report = self.sink.write(lives).await?;
        let files = temporary();
        copy(&self.home, files.path());
        self.copies.lock().unwrap().push(files);
        Ok(report)
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

fn store(home: &Path, clock: &Clock) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(&home.join("store"), POLICY, clock.clone()).unwrap())
}

fn sink(home: &Path) -> CsvSink {
    CsvSink::open(&home.join("csv"), Zone::utc()).unwrap()
}

/// Rolls over until nothing is left in the store.
async fn roll_out(store: Arc<EmbeddedStore>, sink: Arc<dyn Sink>, clock: &Clock) {
    let mut rollover = Rollover::new(Arc::clone(&store) as Arc<dyn Store>, sink, Arc::new(calendar("1m,1h,1d")), None);
    for _ in 0..TICKS {
        rollover.tick().await.unwrap();
        let due = store.due(0, 1).await.unwrap();
        if due.buckets.is_empty() && due.next.is_none() {
            return;
        }
        clock.set(clock.now() + MINUTE);
    }
    panic!("buckets are left in the store");
}

async fn check_rows(sink: &dyn Sink, period: &str, count: f64, when: &str) {
    let query = RowQuery {
        sources: vec!["a".into()],
        period: period.parse().unwrap(),
        from: Millis::MIN,
        to: Millis::MAX,
        limit: 0,
        doubles: 0,
    };
    let rows = sink.rows(&query).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.state.count).sum::<f64>(), count, "{period} {when}");
}

#[tokio::test]
async fn a_crash_after_any_write_to_the_sink_doubles_nothing() {
    let home = temporary();
    let clock = Clock::manual(T0);
    let embedded = store(home.path(), &clock);
    embedded.found(0).await.unwrap();
    let calendar = calendar("1m,1h,1d");
    let at = |t: Millis| delta(calendar.bucket("1m".parse().unwrap(), t), "a", &[1.0]);
    let old = T0 - 100 * HOUR;
    let deltas = vec![at(old), at(old + MINUTE), at(old + 2 * HOUR)];
    embedded.apply(0, &Frame::new(WRITER, 1, 0, vec![], deltas)).await.unwrap();
    let copying = Arc::new(Copying { sink: sink(home.path()), home: home.path().to_owned(), copies: Mutex::default() });
    roll_out(embedded, Arc::clone(&copying) as Arc<dyn Sink>, &clock).await;

    let copies = std::mem::take(&mut *copying.copies.lock().unwrap());
    assert!(copies.len() >= 3, "minutes, hours and the day are written one after another");
    for (write, files) in copies.iter().enumerate() {
        let sink: Arc<dyn Sink> = Arc::new(sink(files.path()));
        roll_out(store(files.path(), &clock), Arc::clone(&sink), &clock).await;
        for period in ["1m", "1h", "1d"] {
            check_rows(&*sink, period, 3.0, &format!("cut off after write {write}")).await;
        }
    }
}

/// The same with buckets whose time is not over: a drain closes them, and a crash may undo the closes
/// that no barrier has followed.
#[tokio::test]
async fn a_crash_in_a_drain_doubles_nothing() {
    let home = temporary();
    let clock = Clock::manual(T0);
    let embedded = store(home.path(), &clock);
    embedded.found(0).await.unwrap();
    let calendar = calendar("1m,1h,1d");
    let at = |t: Millis| delta(calendar.bucket("1m".parse().unwrap(), t), "a", &[1.0]);
    let deltas = vec![at(T0), at(T0 + MINUTE), at(T0 - 2 * HOUR)];
    embedded.apply(0, &Frame::new(WRITER, 1, 0, vec![], deltas)).await.unwrap();
    let copying = Arc::new(Copying { sink: sink(home.path()), home: home.path().to_owned(), copies: Mutex::default() });
    drain_out(embedded, Arc::clone(&copying) as Arc<dyn Sink>).await;

    let copies = std::mem::take(&mut *copying.copies.lock().unwrap());
    assert_eq!(copies.len(), 3, "minutes, hours and the day are written one after another");
    for again in [false, true] {
        for (write, before) in copies.iter().enumerate() {
            let files = temporary();
            copy(before.path(), files.path());
            let (embedded, sink): (_, Arc<dyn Sink>) = (store(files.path(), &clock), Arc::new(sink(files.path())));
            if again {
                drain_out(embedded, Arc::clone(&sink)).await;
            } else {
                let clock = Clock::manual(T0);
                drop(embedded);
                roll_out(store(files.path(), &clock), Arc::clone(&sink), &clock).await;
            }
            for period in ["1m", "1h", "1d"] {
                check_rows(&*sink, period, 3.0, &format!("cut off after write {write}, drained again: {again}")).await;
            }
        }
    }
}

/// Somebody may have been told of it.
#[tokio::test]
async fn what_is_read_in_the_log_of_acks_is_not_undone() {
    let home = temporary();
    let clock = Clock::manual(T0);
    let embedded = store(home.path(), &clock);
    embedded.found(0).await.unwrap();
    let calendar = calendar("1m");
    let minute = calendar.bucket("1m".parse().unwrap(), T0);
    embedded.apply(0, &Frame::new(WRITER, 1, 0, vec![], vec![delta(minute, "a", &[1.0])])).await.unwrap();
    let sealed = embedded.seal(0, minute, &calendar.family(&minute), When::InTime).await.unwrap();
    let Sealed::Sealed { life, .. } = sealed else { panic!("{sealed:?}") };
    embedded.ack(0, life).await.unwrap();
    let log = embedded.acked(0, Some(0), 9).await.unwrap();
    assert_eq!(log.lives.len(), 1);
    let files = temporary();
    copy(home.path(), files.path());
    assert_eq!(store(files.path(), &clock).acked(0, Some(0), 9).await.unwrap(), log);
}

async fn drain_out(store: Arc<EmbeddedStore>, sink: Arc<dyn Sink>) {
    let mut rollover = Rollover::new(store, sink, Arc::new(calendar("1m,1h,1d")), None);
    let last = rollover.orders().drain();
    while rollover.obey().await {}
    let told = last.borrow().clone();
    assert!(matches!(&told, Drain::Done(report) if report.still_open == 0), "{told:?}");
}

#[tokio::test]
async fn a_barrier_finds_out_that_the_server_has_started_again() {
    let mut server = RedisServer::start_durable();
    let store = RedisStore::connect(&server.url(), POLICY, None).await.unwrap();
    store.due(0, 1).await.unwrap();
    let connection = store.connection();
    store.barrier(0).await.unwrap();
    assert_eq!(store.connection(), connection, "nothing has happened");
    server.kill();
    server.restart();
    let barrier = store.barrier(0).await;
    assert!(barrier.is_err() || store.connection() != connection, "the restart went unnoticed");
}

#[tokio::test]
async fn pages_read_across_a_restart_are_not_acked_even_if_they_are_empty() {
    let clock = Clock::manual(T0);
    let store = Unreliable::new(Oracle::new(POLICY, clock.clone()));
    store.found(0).await.unwrap();
    let calendar = Arc::new(calendar("1m"));
    let minute = calendar.bucket("1m".parse().unwrap(), T0);
    store.apply(0, &Frame::new(WRITER, 1, 0, vec![], vec![delta(minute, "a", &[1.0])])).await.unwrap();
    clock.set(minute.end + POLICY.grace);
    let home = temporary();
    let mut rollover =
        Rollover::new(Arc::clone(&store) as Arc<dyn Store>, Arc::new(sink(home.path())), Arc::clone(&calendar), None);
    store.set_restarting(true);
    assert!(rollover.tick().await.is_err());
    store.set_restarting(false);
    match store.seal(0, minute, &calendar.family(&minute), When::InTime).await.unwrap() {
        Sealed::Sealed { acked, .. } => assert!(!acked, "the sink has no row of it"),
        other => panic!("{other:?}"),
    }
}
