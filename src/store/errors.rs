//! The error log in a store: a bounded list of rows that all instances share.
//!
//! Beside the contract in `mod.rs`, since nothing that counts depends on it: both stores keep it, and what only plays
//! a store in tests need not. Called by `errorlog.rs` alone.

use super::StoreError;
use crate::incidents::Incident;

/// Rows that are kept, those seen last: weeks of a service that is well, and 2 MB at most.
pub const MAX_ERRORS: usize = 1_000;

/// See the module.
#[async_trait::async_trait]
pub trait ErrorLog: Send + Sync + 'static {
    /// Adds rows, or to the counts of those that are there; drops those beyond [`MAX_ERRORS`] that were not seen for
    /// the longest. After `Unknown` it may be called again: then a count may be too high, and nothing is lost.
    async fn note_errors(&self, rows: &[Incident]) -> Result<(), StoreError>;

    /// All rows, in no order.
    async fn errors(&self) -> Result<Vec<Incident>, StoreError>;
}
