//! How the rollover stands: what is open, what waits and for how long, whether the sink takes rows.
//!
//! Written by `rollover.rs` as it works, read by `http/operations.rs` for readiness and metrics. It
//! decides nothing. The store alone cannot say how long a bucket has been waiting, because sealing
//! moves its due time ahead; so the time it was first seen due is remembered here.

use crate::clock;
use crate::sink::SinkError;
use crate::stats::Millis;
use crate::stats::calendar::Bucket;
use crate::store::{Due, VISIBILITY};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Buckets remembered; the oldest come first, so that more would say nothing new.
const MAX_WAITING: usize = 10_000;
/// What was due and was not seen again for so long has been dealt with by another node.
const FORGET_AFTER: Millis = 2 * VISIBILITY;

/// See the module. Times are those of the store's clock.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when a bucket is due, and when it was last seen to be.
    waiting: HashMap<Bucket, (Millis, Millis)>,
    oldest: Option<Millis>,
    open: u64,
    now: Millis,
    /// When that was, by this node's clock.
    looked: Option<Instant>,
    sink_trouble: Option<String>,
}

/// How it stands at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub open_buckets: u64,
    /// Due and taken up by this node, but not yet written or closed.
    pub waiting_buckets: usize,
    /// For how long the longest due bucket waits.
    pub oldest_due: Duration,
    /// Why the sink did not take the last rows, or was not reached at the start.
    pub sink_trouble: Option<String>,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while it is held")
    }

    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.state();
        let since = state.waiting.values().map(|(since, _)| *since).chain(state.oldest).min();
        let age = since.map(|since| Duration::from_millis((state.now - since).try_into().unwrap_or(0)));
        let passed = state.looked.map(|looked| looked.elapsed()).unwrap_or_default();
        Report {
            open_buckets: state.open,
            waiting_buckets: state.waiting.len(),
            oldest_due: age.map(|age| age + passed).unwrap_or_default(),
            sink_trouble: state.sink_trouble.clone(),
        }
    }

    /// The store says what is due; `all` if it named everything.
    pub(super) fn looked(&self, due: &Due, all: bool) {
        let mut state = self.state();
        let since = due.oldest.unwrap_or(due.now);
        for (place, bucket) in due.buckets.iter().enumerate() {
            if state.waiting.len() < MAX_WAITING || state.waiting.contains_key(bucket) {
                // Only of the first is known since when it is due.
                let since = if place == 0 { since } else { due.now };
                state.waiting.entry(*bucket).or_insert((since, due.now)).1 = due.now;
            }
        }
        if all {
            state.waiting.retain(|_, (_, seen)| due.now - *seen < FORGET_AFTER);
        }
        (state.oldest, state.open, state.now) = (due.oldest, due.open, due.now);
        state.looked = Some(clock::instant());
    }

    /// Nothing is left to do for this bucket at present.
    pub(super) fn settled(&self, bucket: &Bucket) {
        let mut state = self.state();
        state.waiting.remove(bucket);
        // It may have been the oldest; the next look says which one is now.
        state.oldest = None;
    }

    pub(super) fn sink_said<T>(&self, answer: &Result<T, SinkError>) {
        self.state().sink_trouble = answer.as_ref().err().map(ToString::to_string);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::Period;

    fn minute(n: Millis) -> Bucket {
        Bucket { period: Period::Seconds(60), start: 60_000 * n, end: 60_000 * (n + 1) }
    }

    fn due(now: Millis, oldest: Option<Millis>, buckets: &[Bucket]) -> Due {
        Due { now, elapsed: 0, buckets: buckets.to_vec(), next: None, oldest, open: 7 }
    }

    fn check(progress: &Progress, waiting: usize, oldest_due: Millis) {
        let report = progress.report();
        assert_eq!((report.open_buckets, report.waiting_buckets), (7, waiting));
        assert_eq!(report.oldest_due.as_millis() as Millis, oldest_due);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_is_sealed_again_and_again_grows_old() {
        let progress = Progress::default();
        progress.looked(&due(100_000, Some(95_000), &[minute(0), minute(1)]), true);
        check(&progress, 2, 5_000);
        // Sealed, and not due for a while.
        progress.looked(&due(110_000, None, &[]), true);
        check(&progress, 2, 15_000);
        tokio::time::advance(Duration::from_secs(3)).await;
        check(&progress, 2, 18_000);
        progress.looked(&due(130_000, Some(129_999), &[minute(0)]), true);
        check(&progress, 2, 35_000);
        progress.settled(&minute(0));
        check(&progress, 1, 30_000);
        progress.settled(&minute(1));
        check(&progress, 0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_node_has_dealt_with_is_forgotten() {
        let progress = Progress::default();
        progress.looked(&due(100_000, Some(100_000), &[minute(0)]), true);
        progress.looked(&due(100_000 + FORGET_AFTER, None, &[]), false);
        check(&progress, 1, FORGET_AFTER);
        progress.looked(&due(100_000 + FORGET_AFTER, None, &[]), true);
        check(&progress, 0, 0);
    }

    #[test]
    fn the_sink_is_in_trouble_until_it_takes_rows_again() {
        let progress = Progress::default();
        progress.sink_said::<()>(&Err(SinkError::Unavailable("full".to_owned())));
        assert_eq!(progress.report().sink_trouble.as_deref(), Some("the sink is unavailable: full"));
        progress.sink_said(&Ok(()));
        assert_eq!(progress.report().sink_trouble, None);
    }
}
