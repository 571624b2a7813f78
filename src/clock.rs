//! The only place that asks the operating system for the time; everything else is told.
//!
//! A [`Clock`] is the wall clock of the node: for the arrival time of readings, for refusing absurd
//! timestamps, for keeping rows from going early, and as the store clock of the embedded store. What is
//! late or due is judged by the store's clock, never by this one. Tests set the time by hand.

use crate::stats::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Wall clock, real or set by hand.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    /// The time it holds; clones share it.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `t` until [`Self::set`].
    #[must_use]
    pub fn manual(t: Millis) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(t)))
    }

    /// The time, in milliseconds since 1970; it may step forwards and backwards.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Millis {
        match self {
            Self::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => since.as_millis().try_into().unwrap_or(Millis::MAX),
                Err(before) => -before.duration().as_millis().try_into().unwrap_or(Millis::MAX),
            },
            Self::Manual(t) => t.load(Ordering::SeqCst),
        }
    }

    /// Sets a manual clock; forwards or backwards.
    ///
    /// # Panics
    /// On the system clock, which nobody here may set.
    pub fn set(&self, t: Millis) {
        match self {
            Self::System => panic!("the system clock cannot be set"),
            Self::Manual(clock) => clock.store(t, Ordering::SeqCst),
        }
    }
}

/// A point for measuring spans: never steps, says nothing about the date. It is tokio's, so that
/// tests can let time pass without waiting.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn instant() -> Instant {
    Instant::now()
}
