//! Forgetting a source: its rows in the sink, its states in all open lives, and what of it another node has
//! written meanwhile.
//!
//! A part of `rollover.rs`, which does it between two ticks: no page with the source is on its way to
//! the sink then. Another node may have one, see docs/operations.md. May be cut off and repeated. The
//! rows come first: a row that had seen more of a life than the store has left would make what comes
//! after look older than it.

use super::orders::{Forgotten, OrderError};
use super::{Rollover, RolloverError};
use crate::stats::calendar::Bucket;
use crate::store::{FORGET_BUCKETS, Shard, StoreError};
use tokio::time::sleep;

/// Looks at all lives, until one finds nothing: a close on another node may have moved a state up past
/// the look, at most once per period. What is sent all the time is found each time.
const LOOKS: usize = 8;

impl Rollover {
    /// Carries out the next order to forget; whether there was one.
    pub(super) async fn forget_next(&mut self) -> bool {
        let Some((source, answer)) = self.desk.next_to_forget() else { return false };
        let forgotten = self.forget(&source).await;
        match &forgotten {
            Ok(Forgotten { states: 0, rows: 0 }) => {}
            Ok(Forgotten { states, rows }) => tracing::info!(source = &*source, states, rows, "a source was forgotten"),
            Err(error) => tracing::error!(source = &*source, "a source was not, or not wholly, forgotten: {error}"),
        }
        // A client that went away needs no answer.
        let _ = answer.send(forgotten.map_err(|error| OrderError(error.to_string())));
        true
    }

    async fn forget(&self, source: &str) -> Result<Forgotten, RolloverError> {
        let mut rows = self.sink.forget(source).await?;
        let connection = self.store.connection();
        let mut states = 0;
        for shard in 0..self.store.shards() {
            for _ in 0..LOOKS {
                let found = self.forget_in_store(shard, source).await?;
                if found == 0 {
                    break;
                }
                states += found;
            }
            // A state that came back with the store would be written again.
            sleep(self.hold).await;
            self.store.barrier(shard).await?;
        }
        if self.store.connection() != connection {
            let reason = "the connection was renewed, states may have come back: forget the source again";
            return Err(StoreError::Unavailable(reason.to_owned()).into());
        }
        rows += self.sink.forget(source).await?;
        Ok(Forgotten { states, rows })
    }

    /// One look at all lives, the finer periods first, since states move up, also into lives that begin
    /// by it.
    async fn forget_in_store(&self, shard: Shard, source: &str) -> Result<usize, StoreError> {
        let mut open = self.open_buckets(shard).await?;
        let mut moving: Vec<Bucket> = open.iter().copied().collect();
        while let Some(bucket) = moving.pop() {
            moving.extend(self.calendar.family(&bucket).parents.into_iter().filter(|parent| open.insert(*parent)));
        }
        let open: Vec<_> = open.into_iter().collect();
        let mut found = 0;
        for some in open.chunks(FORGET_BUCKETS) {
            found += self.store.forget(shard, source, some).await?;
        }
        Ok(found)
    }
}
