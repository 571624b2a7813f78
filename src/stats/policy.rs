//! The times that decide when a bucket is written and closed, and when its rows go: one set for a
//! service, the same on every node.
//!
//! Made by `config.rs`, kept by the stores, which judge by their own clock; [`Retention`] by the rollover.

use super::Millis;
use super::calendar::Period;

/// See the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A bucket is first written this long after its end.
    pub grace: Millis,
    /// It closes this long after its end; until then stragglers are corrections.
    pub lateness: Millis,
    pub late: Late,
    /// How long an idempotency key is kept at least, in the store's `elapsed`.
    pub idempotency_ttl: Millis,
}

/// What happens to a reading whose bucket is past `end + lateness`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// The bucket takes it, in a new life if the last one has closed.
    #[default]
    Reopen,
    /// It is refused by name.
    Refuse,
}

/// For how long the sink keeps the rows of a period; without a rule for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub period: Period,
    /// Counted from the end of a row's bucket, by the store's clock.
    pub keep: Millis,
}

/// Longest time to live a request may ask for its idempotency key.
pub const MAX_IDEMPOTENCY_TTL: Millis = 7 * 86_400_000;
