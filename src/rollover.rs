//! The daemon that brings finished buckets from the store to the sink: seal, page, write, ack, close.
//!
//! Run by `app.rs`; calls the store and the sink. [`Rollover::tick`] does one bounded piece of work
//! and says when to come back, [`Rollover::obey`] one of what it was asked for besides
//! (`rollover/{orders,drain,forget}.rs`), [`Rollover::run`] only sleeps and stops. Every step may be repeated
//! by this or another node after a crash: the store says what is due, the row's version decides
//! what the sink keeps. What is late or due is the store's decision, see `store/mod.rs`.

mod drain;
mod forget;
mod orders;
mod progress;
mod retention;
mod steadiness;
mod unwritten;

use crate::clock;
use crate::failpoint;
use crate::mutant;
use crate::sink::{Partition, Sink, SinkError};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Calendar, Period};
use crate::stats::row::LifeRow;
use crate::store::closing::{CloseEnd, drive_close};
use crate::store::{Acked, Durability, Life, PAGE_PAUSE, Sealed, Shard, Store, StoreError, When};
use crate::telemetry::metrics::{self, Side};
use drain::Draining;
use orders::Desk;
pub use orders::{Drain, DrainReport, Forgotten, OrderError, Orders};
pub use progress::{Progress, Report};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use unwritten::Unwritten;

/// Looking at least this often finds the buckets of a node that died.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Early wake-ups come no closer together than this.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// Buckets taken on in one tick.
const BUCKETS_PER_TICK: usize = 256;
/// Rows held in memory before they are written, about 20 MB. Fewer would take longer on stores whose pages are
/// held before each write.
const ROWS_PER_WRITE: usize = 100_000;
/// And doubles of their states, which those of numbers do not reach: 64 MB.
const DOUBLES_PER_WRITE: usize = 8_000_000;
/// How often the sink is asked what can be compacted, when nothing is due.
const COMPACT_EVERY: Duration = Duration::from_secs(10);
/// How long a page waits for the sink on a store that may lose its last seconds.
const HOLD_ON_WEAK_STORES: Millis = 3_000;
/// Pause after an error, growing.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why a tick could not finish; what it left undone stays in the store and is due again.
#[derive(Debug, thiserror::Error)]
pub enum RolloverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// See the module.
pub struct Rollover {
    store: Arc<dyn Store>,
    sink: Arc<dyn Sink>,
    calendar: Arc<Calendar>,
    hold: Duration,
    progress: Arc<Progress>,
    compacted: Option<Instant>,
    /// Partitions the sink refused to compact since then.
    refused: Vec<Partition>,
    retaining: retention::Retaining,
    /// The last write failed; what it was to write is due again after a while.
    sink_failed: bool,
    /// The sink was away at the start and has not been reached since.
    sink_unseen: bool,
    /// Of the last write that failed.
    unwritten: Option<Unwritten>,
    desk: Desk,
    draining: Option<Draining>,
}

/// Lives that were sealed and read in one tick and wait to be written.
#[derive(Default)]
struct Batch {
    rows: Vec<LifeRow>,
    /// Of the states of these.
    doubles: usize,
    /// Acked once all their rows are in the sink; with how many there are.
    lives: Vec<(Life, usize)>,
    /// Rows that have been written.
    written: usize,
    /// Rows that the sink knew more of.
    older: usize,
}

/// What became of buckets that were rolled over.
#[derive(Default)]
struct Rolled {
    /// Lives whose rows the sink has got.
    written: usize,
    closed: usize,
    rows: usize,
    /// Rows that the sink knew more of, though no other instance has taken their life further meanwhile.
    older: usize,
    /// Those that are not closed: it is not their time, or they took readings meanwhile.
    open: Vec<Bucket>,
}

impl Rollover {
    /// `hold`: how long a page waits before it goes to the sink; `None` means 3 s on stores that can
    /// lose what they confirmed, else 0.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, sink: Arc<dyn Sink>, calendar: Arc<Calendar>, hold: Option<Millis>) -> Self {
        let by_durability = if store.durability() == Durability::Disk { 0 } else { HOLD_ON_WEAK_STORES };
        let hold = Duration::from_millis(hold.unwrap_or(by_durability).try_into().unwrap_or(0));
        Self {
            store,
            sink,
            calendar,
            hold,
            progress: Arc::default(),
            compacted: None,
            refused: Vec::new(),
            retaining: retention::Retaining::default(),
            sink_failed: false,
            sink_unseen: false,
            unwritten: None,
            desk: Desk::new(),
            draining: None,
        }
    }

    /// Takes over what the sink said at the start.
    #[must_use]
    pub fn after(mut self, prepared: &Result<(), SinkError>) -> Self {
        self.progress.sink_said(prepared);
        self.sink_unseen = prepared.is_err();
        self
    }

    /// To ask it for a drain, or to forget a source.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.desk.orders.clone()
    }

    /// How it stands, kept up to date while it runs.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Ticks until `shutdown`, and finishes the tick it is in.
    pub async fn run(mut self, wake: Arc<Notify>, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut pause = RETRY_MIN;
        let mut failing = false;
        let arrived = self.desk.arrived();
        loop {
            // Registered before looking, so that what appears meanwhile is not overslept.
            let mut woken = std::pin::pin!(wake.notified());
            woken.as_mut().enable();
            let mut ordered = std::pin::pin!(arrived.notified());
            ordered.as_mut().enable();
            // A drain does what a tick would, and more.
            let ticked = if self.draining.is_some() { Ok(LOOK_EVERY) } else { self.tick().await };
            metrics::ticked(ticked.as_ref().err().map(|e| match e {
                RolloverError::Store(_) => Side::Store,
                RolloverError::Sink(_) => Side::Sink,
            }));
            let sleep_for = match ticked {
                Ok(next) => {
                    // A tick without work says nothing about a sink that failed.
                    if failing && !self.sink_failed {
                        failing = false;
                        tracing::info!("the rollover goes on");
                    }
                    pause = RETRY_MIN;
                    next
                }
                Err(e) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!("the rollover waits, finished buckets stay in the store: {e}");
                    }
                    pause = (2 * pause).min(RETRY_MAX);
                    pause
                }
            };
            let sleep_for = if self.obey().await { Duration::ZERO } else { sleep_for };
            let early = async {
                if failing {
                    std::future::pending::<()>().await;
                }
                woken.await;
                sleep(LOOK_AT_MOST_EVERY).await;
            };
            tokio::select! {
                // A stop comes before what is still to be done.
                biased;
                () = &mut shutdown => return,
                () = sleep(sleep_for) => {}
                () = early => {}
                () = ordered => {}
            }
        }
    }

    /// Takes a bounded step of what was ordered; whether there is more to do.
    pub async fn obey(&mut self) -> bool {
        self.forget_next().await || self.drain_on().await
    }

    /// Does what is due, at most `BUCKETS_PER_TICK` buckets, and returns after how long to come
    /// back at the latest.
    pub async fn tick(&mut self) -> Result<Duration, RolloverError> {
        failpoint::trip("ticking");
        let mut next = LOOK_EVERY;
        for shard in 0..self.store.shards() {
            let due = self.store.due(shard, BUCKETS_PER_TICK).await?;
            self.progress.looked(&due, due.buckets.len() < BUCKETS_PER_TICK);
            if !due.buckets.is_empty() || self.has_unwritten(shard) {
                self.work(shard, &due.buckets).await?;
                next = Duration::ZERO;
            } else if let Some(at) = due.next {
                next = next.min(Duration::from_millis((at - due.now).try_into().unwrap_or(0)));
            }
            if due.buckets.is_empty() && self.sink_unseen {
                self.look_for_sink().await;
            }
            // What goes need not be compacted first.
            if due.buckets.is_empty() && (self.retain_some(due.now).await? || self.compact_one(shard, due.now).await?) {
                next = Duration::ZERO;
            }
        }
        Ok(next)
    }

    async fn roll_over(&mut self, shard: Shard, buckets: &[Bucket], when: When) -> Result<Rolled, RolloverError> {
        let connection = self.store.connection();
        let (mut batch, mut rolled) = (Batch::default(), Rolled::default());
        for &bucket in buckets {
            let sealed = self.store.seal(shard, bucket, &self.calendar.family(&bucket), when).await?;
            failpoint::pass("sealed");
            match sealed {
                Sealed::Gone | Sealed::Waiting => self.progress.settled(&bucket),
                Sealed::Closing(life) | Sealed::Sealed { life, acked: true } => {
                    self.close(shard, life, when, &mut rolled).await?;
                }
                Sealed::Sealed { life, acked: false } => match self.read(shard, life, connection, &mut batch).await? {
                    Some(rows) => batch.lives.push((life, rows)),
                    None => rolled.open.push(bucket),
                },
            }
        }
        self.write(shard, connection, &mut batch).await?;
        (rolled.rows, rolled.written) = (batch.written, batch.lives.len());
        let mut overtaken = 0;
        for (life, rows) in batch.lives {
            let acked = self.store.ack(shard, life).await?;
            failpoint::pass("acked");
            overtaken += if acked == Acked::Ignored { rows } else { 0 };
            if acked == Acked::Clean {
                self.close(shard, life, when, &mut rolled).await?;
            } else {
                self.progress.settled(&life.bucket);
                rolled.open.push(life.bucket);
            }
        }
        rolled.older = batch.older.saturating_sub(overtaken);
        metrics::rows_older(rolled.older);
        if rolled.older > 0 {
            let rows = rolled.older;
            tracing::error!(rows, "the sink has newer rows than the store: a clock or a store went back");
        }
        Ok(rolled)
    }

    /// Closes a life if it may be; of one that is past its time nothing else is left to do.
    async fn close(&self, shard: Shard, life: Life, when: When, rolled: &mut Rolled) -> Result<(), StoreError> {
        match drive_close(&*self.store, shard, &self.calendar, life, when).await? {
            CloseEnd::Done => rolled.closed += 1,
            CloseEnd::NotNow => rolled.open.push(life.bucket),
        }
        self.progress.settled(&life.bucket);
        Ok(())
    }

    /// A broken file or a locked row holds up the buckets that belong there, and no others. The error is the first
    /// of theirs.
    async fn one_by_one(&mut self, shard: Shard, buckets: &[Bucket]) -> Result<(), RolloverError> {
        let mut first = Ok(());
        for &bucket in buckets {
            match self.roll_over(shard, &[bucket], When::InTime).await {
                Err(error @ RolloverError::Sink(SinkError::Refused(_))) => first = first.and(Err(error)),
                other => drop(other?),
            }
        }
        first
    }

    /// Reads a life's pages into the batch, writing it out when it is large. How many rows it has; `None` if
    /// the life has become another one meanwhile.
    async fn read(
        &mut self,
        shard: Shard,
        life: Life,
        connection: u64,
        batch: &mut Batch,
    ) -> Result<Option<usize>, RolloverError> {
        let mut rows = 0;
        // A source may come in two pages; its later state has the greater count.
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        let mut cursor: Option<String> = None;
        loop {
            let Some(page) = self.store.page(shard, life.bucket, life.generation, cursor.as_deref()).await? else {
                return Ok(None);
            };
            failpoint::pass("paged");
            for (source, moments) in page.sources {
                let Life { bucket, generation, revision } = life;
                let row = LifeRow { source: Arc::clone(&source), bucket, generation, revision, moments };
                batch.doubles += row.moments.doubles();
                if let Some(&place) = places.get(&source) {
                    batch.rows[place] = row;
                } else {
                    rows += 1;
                    places.insert(source, batch.rows.len());
                    batch.rows.push(row);
                }
            }
            if batch.rows.len() >= ROWS_PER_WRITE || batch.doubles >= DOUBLES_PER_WRITE {
                // Not kept while the sink takes up memory of its own.
                places = HashMap::new();
                self.write(shard, connection, batch).await?;
            }
            if page.next.is_none() {
                return Ok(Some(rows));
            }
            cursor = page.next;
            sleep(PAGE_PAUSE).await;
        }
    }

    /// Brings the rows of a batch to the sink, after the hold. What was read before the connection
    /// to the store was renewed may be gone from it, so it is dropped, to be sealed and read again.
    async fn write(&mut self, shard: Shard, connection: u64, batch: &mut Batch) -> Result<(), RolloverError> {
        if batch.rows.is_empty() && batch.lives.is_empty() {
            return Ok(());
        }
        if !mutant::is(mutant::PAGE_NOT_HELD) {
            sleep(self.hold).await;
        }
        self.store.barrier(shard).await?;
        // Also where no row is left to write: pages without rows may have missed some.
        if self.store.connection() != connection {
            return Err(StoreError::Unavailable("the connection was renewed, pages are read again".to_owned()).into());
        }
        if batch.rows.is_empty() {
            return Ok(());
        }
        failpoint::pass("held");
        let started = clock::instant();
        batch.doubles = 0;
        let written = self.sink.write(std::mem::take(&mut batch.rows)).await;
        failpoint::pass("written");
        self.progress.sink_said(&written);
        self.sink_failed = written.is_err();
        self.sink_unseen = false;
        let report = written?;
        metrics::sink_wrote(started.elapsed(), report.written, report.refused);
        batch.written += report.written;
        batch.older += report.older;
        Ok(())
    }

    /// Whether a sink that was away at the start is there by now, while there is nothing to write.
    async fn look_for_sink(&mut self) {
        let prepared = self.sink.prepare().await;
        self.progress.sink_said(&prepared);
        self.sink_unseen = prepared.is_err();
        if !self.sink_unseen {
            tracing::info!("the sink is there");
        }
    }

    /// Compacts one partition none of whose buckets is open, at times when nothing is due.
    async fn compact_one(&mut self, shard: Shard, now: Millis) -> Result<bool, RolloverError> {
        if self.compacted.is_some_and(|at| at.elapsed() < COMPACT_EVERY) {
            return Ok(false);
        }
        for partition in self.sink.compactable(now).await? {
            if self.refused.contains(&partition) || self.any_open(shard, &partition).await? {
                continue;
            }
            match self.sink.compact(&partition).await {
                Ok(()) => return Ok(true),
                // No reason to hold up buckets or the other partitions.
                Err(SinkError::Refused(reason)) => {
                    tracing::error!("a partition stays as it is: {reason}");
                    self.refused.push(partition);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.refused.clear();
        self.compacted = Some(clock::instant());
        Ok(false)
    }

    /// Whether a life of the partition is open, or one that will move up into it.
    async fn any_open(&self, shard: Shard, partition: &Partition) -> Result<bool, RolloverError> {
        let &Partition { period, from, to } = partition;
        let periods: Vec<Period> = self.calendar.periods().iter().copied().filter(|p| *p <= period).collect();
        Ok(!self.store.open(shard, &[], &periods, from, to).await?.lives.is_empty())
    }
}
