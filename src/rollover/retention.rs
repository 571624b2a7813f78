//! Removes rows that are no longer kept, at times when nothing is due.
//!
//! A part of `rollover.rs`, which asks it before compacting. One call removes what the sink removes in
//! one call. How old a row is goes by the store's clock or the node's, whichever is behind, and only
//! while that time runs evenly (`steadiness.rs`): rows that go by a wrong clock do not come back.
//! Nothing is removed beside a life that is as old, since its rows would come again; but a
//! source that never stops sending into the distant past cannot hold it up for longer than
//! [`HELD_UP_AT_MOST`]. Removing under an open life is safe all the same: what it holds moves up from
//! the store, not from the rows. Which rows go is configured (`config/retention.rs`).

use super::steadiness::{EVEN_FOR, Pace, Steadiness};
use super::{Rollover, RolloverError};
use crate::clock::{self, Clock};
use crate::sink::{Partition, SinkError};
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::policy::Retention;
use crate::telemetry::metrics;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often the sink is asked, once it has nothing more to remove: rows live for hours at least, and
/// a look lists a directory per rule.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// For how long open lives may keep rows of their age: an import of old readings is over by then.
const HELD_UP_AT_MOST: Duration = Duration::from_hours(1);

/// The rules, and where the rollover stands with them.
#[derive(Debug, Default)]
pub(super) struct Retaining {
    rules: Vec<Retention>,
    /// The node's: the store's stays ahead for long after a clock was ahead for a moment.
    clock: Clock,
    steadiness: Steadiness,
    /// A step of the time was logged, and it has not run evenly since.
    warned: bool,
    /// When everything was last found removed.
    looked: Option<Instant>,
    /// Since when a period waits for open lives.
    held_up: HashMap<Period, Instant>,
    /// Why rows of a period stay that should go, as it was logged.
    failing: HashMap<Period, String>,
}

impl Rollover {
    /// Removes rows by these rules, going by the store's clock as far as this one agrees.
    #[must_use]
    pub fn retaining(mut self, rules: Vec<Retention>, clock: Clock) -> Self {
        if !rules.is_empty() {
            let minutes = EVEN_FOR.as_secs() / 60;
            tracing::info!("rows that --retain no longer keeps go once the clocks have run evenly for {minutes} min");
        }
        self.retaining = Retaining { rules, clock, ..Retaining::default() };
        self
    }

    /// Removes some rows; `false` if there is nothing more to remove now.
    pub(super) async fn retain_some(&mut self, now: Millis) -> Result<bool, RolloverError> {
        if self.retaining.rules.is_empty() || self.retaining.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(false);
        }
        let now = now.min(self.retaining.clock.now());
        if !self.retaining.runs_evenly(now) {
            self.retaining.looked = Some(clock::instant());
            return Ok(false);
        }
        for Retention { period, keep } in self.retaining.rules.clone() {
            let before = now - keep;
            if self.waits_for_lives(period, before).await? {
                continue;
            }
            // First: a summary must not rely on rows while they go.
            let mut complete = self.store.complete().await?;
            if complete.remove(&self.calendar, period, before) {
                self.store.keep_complete(&complete).await?;
            }
            match self.sink.retain(period, before).await {
                Ok(0) => drop(self.retaining.failing.remove(&period)),
                Ok(rows) => {
                    metrics::rows_removed(rows);
                    return Ok(true);
                }
                Err(error) => self.retaining.failed(period, &error),
            }
        }
        self.retaining.looked = Some(clock::instant());
        Ok(false)
    }

    async fn waits_for_lives(&mut self, period: Period, before: Millis) -> Result<bool, RolloverError> {
        let old = Partition { period, from: Millis::MIN, to: before };
        let mut open = false;
        for shard in 0..self.store.shards() {
            open |= self.any_open(shard, &old).await?;
        }
        if !open {
            self.retaining.held_up.remove(&period);
            return Ok(false);
        }
        let since = *self.retaining.held_up.entry(period).or_insert_with(clock::instant);
        Ok(since.elapsed() < HELD_UP_AT_MOST)
    }
}

impl Retaining {
    /// Whether rows may go by this time, which is the present one; a step is logged once.
    fn runs_evenly(&mut self, now: Millis) -> bool {
        match self.steadiness.look(now, clock::instant()) {
            Pace::Even => {
                self.warned = false;
                true
            }
            Pace::Unproven => false,
            Pace::Stepped(by) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        "no rows are removed until the clocks have run evenly for {} min: the time has moved by {} s \
                         beside what has passed, because a clock was set or the machine slept",
                        EVEN_FOR.as_secs() / 60,
                        by / 1_000,
                    );
                }
                false
            }
        }
    }

    /// Logs once why rows stay, which is no reason to hold up buckets or the other periods: the next
    /// look tries again.
    fn failed(&mut self, period: Period, error: &SinkError) {
        let reason = error.to_string();
        if self.failing.get(&period) != Some(&reason) {
            tracing::error!("rows of {period} stay that --retain no longer keeps, tried again every minute: {reason}");
            self.failing.insert(period, reason);
        }
    }
}
