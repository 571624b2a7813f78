//! How much one may do: readings in a time, and sources that nobody knew before.
//!
//! Kept per identity by `auth.rs` while the process runs, asked by the routes that take readings. Time is an argument.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// What was not used is saved up for so long: a client that sends every few seconds is as well off as one that sends
/// all the time.
const SAVED: f64 = 10.0;

/// So much in a time, a second's worth at once or more. What is taken is taken whole, and may run into debt: a batch
/// larger than all that could ever be saved up has to pass too, and then the next has to wait.
#[derive(Debug)]
pub struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(per_second: f64, now: Instant) -> Self {
        Self { level: per_second * SAVED, at: now }
    }

    /// Takes `amount`, which may be nothing.
    ///
    /// # Errors
    /// How long to wait, if nothing may be taken now.
    pub fn take(&mut self, amount: f64, per_second: f64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * per_second).min(per_second * SAVED);
        self.at = now;
        if self.level <= 0.0 {
            return Err(Duration::from_secs_f64((1.0 - self.level) / per_second));
        }
        self.level -= amount;
        Ok(())
    }

    /// Whether it is as full as it can be by now, so that a new one would be the same.
    #[must_use]
    pub fn is_full(&self, per_second: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level + passed * per_second >= per_second * SAVED
    }
}

/// What one identity has used up.
#[derive(Debug, Default)]
pub struct Allowance {
    limits: Mutex<Limits>,
    readings: Mutex<Option<Bucket>>,
    sources: Mutex<Sources>,
}

/// As they stand in the file; `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) rate: Option<f64>,
    pub(super) new_sources: Option<usize>,
}

#[derive(Debug, Default)]
struct Sources {
    hasher: foldhash::fast::RandomState,
    /// Hashes of those it has sent, known or new: 8 bytes for each, as long as the process runs.
    seen: HashSet<u64>,
    new: usize,
}

impl Allowance {
    pub(super) fn set(&self, limits: Limits) {
        *lock(&self.limits) = limits;
    }

    fn limits(&self) -> Limits {
        *lock(&self.limits)
    }

    /// Counts so many readings; 0 asks whether there is room for any.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, readings: usize, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.limits().rate else { return Ok(()) };
        let mut bucket = lock(&self.readings);
        bucket.get_or_insert_with(|| Bucket::full(rate, now)).take(readings as f64, rate, now)
    }

    /// Whether new sources are counted at all.
    #[must_use]
    pub fn counts_sources(&self) -> bool {
        self.limits().new_sources.is_some()
    }

    /// Which of these it has not sent before, as far as this process knows.
    pub fn unseen<'s, S: AsRef<str>>(&self, sources: impl IntoIterator<Item = &'s S>) -> Vec<&'s S> {
        let kept = lock(&self.sources);
        sources.into_iter().filter(|source| !kept.seen.contains(&kept.hasher.hash_one(source.as_ref()))).collect()
    }

    /// Notes sources, and that so many of them are new; one that was noted before is not counted again.
    ///
    /// # Errors
    /// The limit, if that would be too many; then nothing is noted.
    pub fn note<S: AsRef<str>>(&self, known: &[S], new: &[S]) -> Result<(), usize> {
        let Some(most) = self.limits().new_sources else { return Ok(()) };
        let mut kept = lock(&self.sources);
        let hash = |kept: &Sources, source: &S| kept.hasher.hash_one(source.as_ref());
        let fresh: HashSet<u64> =
            new.iter().map(|source| hash(&kept, source)).filter(|hash| !kept.seen.contains(hash)).collect();
        if kept.new + fresh.len() > most {
            return Err(most);
        }
        kept.new += fresh.len();
        kept.seen.extend(fresh);
        for source in known {
            let hash = hash(&kept, source);
            kept.seen.insert(hash);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is held")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn so_much_in_a_time() {
        let start = clock::instant();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut bucket = Bucket::full(10.0, start);
        assert!(bucket.is_full(10.0, start));
        // Ten seconds' worth, and once more than there is.
        assert_eq!(bucket.take(99.0, 10.0, start), Ok(()));
        assert_eq!(bucket.take(21.0, 10.0, start), Ok(()));
        // 20 of debt, and one to be there.
        assert_eq!(bucket.take(0.0, 10.0, start), Err(Duration::from_secs_f64(2.1)));
        assert_eq!(bucket.take(1.0, 10.0, at(1.0)), Err(Duration::from_secs_f64(1.1)));
        assert_eq!(bucket.take(1.0, 10.0, at(2.1)), Ok(()));
        assert!(bucket.take(1.0, 10.0, at(2.1)).is_err());
        assert!(!bucket.is_full(10.0, at(12.0)) && bucket.is_full(10.0, at(12.2)));
        // No more than that is ever saved up, and a clock that goes back gives nothing.
        assert_eq!(bucket.take(100.0, 10.0, at(1_000.0)), Ok(()));
        assert!(bucket.take(1.0, 10.0, at(1_000.0)).is_err());
        assert!(bucket.take(1.0, 10.0, at(0.0)).is_err());
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let allowance = Allowance::default();
        assert_eq!(allowance.take(usize::MAX, clock::instant()), Ok(()));
        assert!(!allowance.counts_sources());
        assert_eq!(allowance.note(&["a"], &["b"]), Ok(()));
    }

    #[test]
    fn a_limit_holds_for_all_requests_together() {
        let (allowance, now) = (Allowance::default(), clock::instant());
        allowance.set(Limits { rate: Some(5.0), new_sources: None });
        assert_eq!(allowance.take(50, now), Ok(()));
        assert!(allowance.take(0, now).is_err());
    }

    #[test]
    fn new_sources_are_counted_once() {
        let allowance = Allowance::default();
        allowance.set(Limits { rate: None, new_sources: Some(2) });
        assert_eq!(allowance.note(&["old"], &["a", "a"]), Ok(()));
        assert_eq!(allowance.unseen(&["a", "old", "b"]), [&"b"]);
        assert_eq!(allowance.note(&[], &["a", "b"]), Ok(()));
        assert_eq!(allowance.note(&["old"], &["a", "c"]), Err(2));
        assert_eq!(allowance.unseen(&["c"]), [&"c"], "what is refused is not noted");
        assert_eq!(allowance.note(&["old", "older"], &["a"]), Ok(()));
    }
}
