//! Folds readings into deltas per (bucket, source), before anything reaches the store.
//!
//! Called by `decode/`; makes what `commit.rs` commits. A request is cut by reading index into
//! parts of bounded size, the same cut for every repetition of the request on any node.

use crate::store::BucketDeltas;

/// The most one part may hold, in doubles of its readings' states: 2,000 scalar readings.
pub const PART_DOUBLES: usize = 14_000;

/// What some consecutive readings of a request folded to: the unit that is keyed and committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// No bucket twice, no source twice in one bucket.
    pub deltas: Vec<BucketDeltas>,
    /// Readings folded into it.
    pub readings: usize,
}
