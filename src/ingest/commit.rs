//! Brings parts of requests into the store, in frames: one in flight per shard, and what arrives
//! meanwhile joins the next (group commit). A request is answered only after the store confirmed
//! every frame it travelled in.
//!
//! Called by `http/readings.rs`; calls the store's `apply` and, where a bucket is being closed, its
//! `close`.

use super::fold::Part;
use crate::stats::Millis;

/// One request for the committer.
#[derive(Debug)]
pub struct Request {
    pub parts: Vec<Part>,
    /// Without a key a client's own retry counts twice.
    pub key: Option<RequestKey>,
}

/// The idempotency key of a request, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Hash of (token, key).
    pub id: u128,
    /// Hash of the decompressed body and the query.
    pub fingerprint: u128,
    pub ttl: Millis,
}

/// A request whose readings are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Every part had been counted before, under the same key with the same body.
    pub duplicate: bool,
    /// Under `late = refuse`: the (part, bucket of the part) that were too late and are not counted.
    pub too_late: Vec<(usize, usize)>,
}

/// A request that was not, or maybe not, counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// More is waiting than the node holds in memory. Nothing was counted.
    #[error("too many readings are waiting for the store")]
    Busy,
    /// Nothing was counted.
    #[error("{0}")]
    NotApplied(String),
    /// Some or all of it may have been counted: repeat with the same key.
    #[error("{0}")]
    Unknown(String),
    /// The key was used with another body. Nothing of this request was counted.
    #[error("the idempotency key was used with another body")]
    KeyReused,
}
