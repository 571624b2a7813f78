//! The drain: everything that is open is sealed, written and closed now, the finest period first, so
//! that minutes move up into hours, hours into days, and the days close.
//!
//! A part of `rollover.rs`, which takes a step of it between two ticks. It deals with what was open
//! when it began and what that moves up into, each bucket once: readings that come meanwhile cannot
//! keep it from ending, they begin new lives and are named as still open. It is written down nowhere:
//! broken off by a crash or a stop, it leaves buckets that the ticks write and close in their time.

use super::orders::{Drain, DrainReport};
use super::{Rolled, Rollover, RolloverError};
use crate::sink::SinkError;
use crate::stats::calendar::{Bucket, Period};
use crate::store::{Shard, StoreError, When};
use std::collections::BTreeSet;

/// Buckets of one step: more than in a tick, because each step waits for the hold.
const BUCKETS_PER_STEP: usize = 2_000;
/// How often a life is sealed and written that takes readings while it is; then it is left open.
const ATTEMPTS: usize = 5;
/// Buckets that the sink refuses one by one; the rest of their batches is left open then, since each try takes
/// the hold.
const REFUSALS: usize = 16;
/// Buckets that are named as still open.
const NAMED: usize = 20;

/// A drain under way.
pub(super) struct Draining {
    /// What is to be closed, the finest period first.
    left: BTreeSet<(Period, Shard, Bucket)>,
    /// What the present step is about; all of one period and shard.
    shard: Shard,
    batch: Vec<Bucket>,
    /// Parts of a batch that the sink refused, of the same period and shard.
    halves: Vec<Vec<Bucket>>,
    attempts: usize,
    refusals: usize,
    report: DrainReport,
    /// Why some buckets could not be written, or not as they are, although others could.
    refused: Option<String>,
}

impl Rollover {
    /// Takes a step of the drain that was ordered; whether there is more to do.
    pub(super) async fn drain_on(&mut self) -> bool {
        if !self.desk.is_drain_wanted() {
            return false;
        }
        let mut draining = match self.draining.take() {
            Some(draining) => draining,
            None => match self.begin_drain().await {
                Ok(draining) => draining,
                Err(error) => return self.drain_failed(DrainReport::default(), &error.to_string()),
            },
        };
        match self.drain_step(&mut draining).await {
            Ok(true) => {
                self.desk.drain_stands(Drain::Running(draining.report.clone()));
                self.draining = Some(draining);
                true
            }
            Ok(false) => match draining.refused {
                Some(reason) => self.drain_failed(draining.report, &reason),
                None => self.drained(draining.report),
            },
            Err(error) => self.drain_failed(draining.report, &error.to_string()),
        }
    }

    fn drained(&self, report: DrainReport) -> bool {
        let DrainReport { buckets_written: written, buckets_closed: closed, still_open, .. } = report;
        tracing::info!(written, closed, still_open, "the store is drained");
        self.desk.drain_stands(Drain::Done(report));
        false
    }

    fn drain_failed(&self, report: DrainReport, reason: &str) -> bool {
        let (written, closed) = (report.buckets_written, report.buckets_closed);
        tracing::error!(written, closed, "the drain broke off, what is open stays in the store: {reason}");
        self.desk.drain_stands(Drain::Failed(report, reason.to_owned()));
        false
    }

    async fn begin_drain(&self) -> Result<Draining, StoreError> {
        let mut left = BTreeSet::new();
        for shard in 0..self.store.shards() {
            left.extend(self.open_buckets(shard).await?.into_iter().map(|bucket| (bucket.period, shard, bucket)));
        }
        tracing::info!(buckets = left.len(), "draining the store: what is open is written and closed now");
        let report = DrainReport { buckets_left: left.len(), ..DrainReport::default() };
        Ok(Draining {
            left,
            shard: 0,
            batch: Vec::new(),
            halves: Vec::new(),
            attempts: 0,
            refusals: 0,
            report,
            refused: None,
        })
    }

    /// One bounded piece of work; `false` if nothing is left.
    async fn drain_step(&mut self, draining: &mut Draining) -> Result<bool, RolloverError> {
        if draining.batch.is_empty() && !draining.next_batch() {
            self.end_drain(&mut draining.report).await?;
            return Ok(false);
        }
        let mut batch = std::mem::take(&mut draining.batch);
        let open = match self.roll_over(draining.shard, &batch, When::Now).await {
            Ok(rolled) => draining.count(rolled),
            // A broken file holds up the buckets that belong into it, and no others: they are found by halves.
            Err(RolloverError::Sink(SinkError::Refused(reason))) => {
                let half = batch.split_off(batch.len() / 2);
                if batch.is_empty() || draining.refusals >= REFUSALS {
                    draining.refusals += 1;
                    draining.refused = Some(reason);
                } else {
                    draining.halves.extend([half, batch]);
                }
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        for bucket in batch.iter().filter(|bucket| !open.contains(bucket)) {
            let parents = self.calendar.family(bucket).parents;
            draining.left.extend(parents.into_iter().map(|parent| (parent.period, draining.shard, parent)));
        }
        draining.attempts += 1;
        if draining.attempts < ATTEMPTS {
            draining.batch = open;
        }
        let halves: usize = draining.halves.iter().map(Vec::len).sum();
        draining.report.buckets_left = draining.left.len() + draining.batch.len() + halves;
        Ok(true)
    }

    /// Makes what was closed durable and looks at what is open now.
    async fn end_drain(&mut self, report: &mut DrainReport) -> Result<(), StoreError> {
        let mut open = BTreeSet::new();
        for shard in 0..self.store.shards() {
            self.store.drained(shard).await?;
            self.store.barrier(shard).await?;
            open.extend(self.open_buckets(shard).await?);
            let due = self.store.due(shard, 0).await?;
            self.progress.looked(&due, false);
        }
        report.still_open = open.len();
        report.first_open = open.into_iter().take(NAMED).collect();
        Ok(())
    }

    /// All open buckets of a shard, of any period.
    pub(super) async fn open_buckets(&self, shard: Shard) -> Result<BTreeSet<Bucket>, StoreError> {
        let mut open = BTreeSet::new();
        let mut cursor = None;
        loop {
            let page = self.store.buckets(shard, cursor.as_deref()).await?;
            open.extend(page.buckets);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(open);
            }
        }
    }
}

impl Draining {
    /// Takes the next buckets of one period and shard; `false` if there are none.
    fn next_batch(&mut self) -> bool {
        self.attempts = 0;
        if let Some(half) = self.halves.pop() {
            self.batch = half;
            return true;
        }
        let Some(&(period, shard, _)) = self.left.first() else { return false };
        self.shard = shard;
        while self.batch.len() < BUCKETS_PER_STEP
            && let Some(&next @ (of, at, bucket)) = self.left.first()
            && (of, at) == (period, shard)
        {
            self.left.remove(&next);
            self.batch.push(bucket);
        }
        true
    }

    /// Adds up what was done; returns what is still open of it.
    fn count(&mut self, rolled: Rolled) -> Vec<Bucket> {
        self.report.buckets_written += rolled.written;
        self.report.buckets_closed += rolled.closed;
        self.report.rows_written += rolled.rows;
        if rolled.older > 0 {
            let reason = "the sink has newer rows than the store for some buckets: a clock or a store went back";
            self.refused.get_or_insert_with(|| reason.to_owned());
        }
        rolled.open
    }
}
