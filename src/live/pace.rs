//! How often a client wants the present rows of a channel: `rate_ms`.
//!
//! Used by the outbox, which asks what may go now; the newest rows wait, older ones are dropped.

use super::outbox::Frame;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Rows do not change more often than they are read; see `poll.rs`.
const MIN: u64 = 250;
/// An hour: who wants them more seldom asks `GET /v1/stats`.
const MAX: u64 = 3_600_000;

/// The shortest time between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(Duration);

/// A number that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is a number of milliseconds, at most {MAX}; less than {MIN} is taken as {MIN}")]
pub struct PaceError;

impl Pace {
    /// # Errors
    /// If it is longer than an hour.
    pub fn of_millis(millis: u64) -> Result<Self, PaceError> {
        if millis > MAX { Err(PaceError) } else { Ok(Self(Duration::from_millis(millis.max(MIN)))) }
    }
}

/// A channel with a pace.
#[derive(Debug)]
pub(super) struct Paced {
    channel: Arc<str>,
    pace: Pace,
    /// When the next event may go; at once if there was none.
    next: Option<Instant>,
    held: Option<Arc<Frame>>,
}

impl Paced {
    pub(super) fn new(channel: &Arc<str>, pace: Pace) -> Self {
        Self { channel: Arc::clone(channel), pace, next: None, held: None }
    }

    pub(super) fn is_of(&self, channel: &str) -> bool {
        *self.channel == *channel
    }

    /// Holds a frame back if its time has not come; whether it did.
    pub(super) fn holds(&mut self, frame: &Arc<Frame>, now: Instant) -> bool {
        let early = self.next.is_some_and(|next| now < next);
        self.held = early.then(|| Arc::clone(frame));
        early
    }

    /// When what is held may go.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.as_ref().and(self.next)
    }

    /// What is held, if its time has come.
    pub(super) fn release(&mut self, now: Instant) -> Option<Arc<Frame>> {
        self.held.take_if(|_| self.next.is_none_or(|next| next <= now))
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.next = Some(now + self.pace.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert_eq!(Pace::of_millis(0), Ok(Pace(Duration::from_millis(250))));
        assert_eq!(Pace::of_millis(MAX), Ok(Pace(Duration::from_hours(1))));
        assert_eq!(Pace::of_millis(MAX + 1), Err(PaceError));
    }
}
