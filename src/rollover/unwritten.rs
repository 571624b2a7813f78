//! What a write left behind because the sink was away: it is tried again before anything newer.
//!
//! A part of `rollover.rs`, which asks for it in each tick. The store hides a bucket that was sealed for a
//! while, so that what has become due meanwhile would be written before it. Until the sink can be reached
//! again nothing is sealed: another instance, whose way to the sink may be free, finds all of it in its time.
//! A sink that can be reached and still does not take these buckets is not to hold up newer ones: then they
//! wait until the store shows them again.

use super::{Rollover, RolloverError};
use crate::sink::SinkError;
use crate::stats::calendar::Bucket;
use crate::store::{Shard, When};

/// Buckets of one shard that were sealed, at most those of a tick.
#[derive(Default)]
pub(super) struct Unwritten {
    shard: Shard,
    buckets: Vec<Bucket>,
    /// They have been tried again since the sink was last seen away.
    tried: bool,
}

impl Rollover {
    /// Rolls over what was left behind, else what is due. The error is that of the first bucket that failed.
    pub(super) async fn work(&mut self, shard: Shard, due: &[Bucket]) -> Result<(), RolloverError> {
        let left = self.unwritten.take_if(|left| left.shard == shard);
        let mut work = Unwritten { shard, buckets: due.to_vec(), tried: false };
        if let Some(mut left) = left {
            let prepared = self.sink.prepare().await;
            if prepared.is_err() {
                self.progress.sink_said(&prepared);
                left.tried = false;
                self.unwritten = Some(left);
                return Ok(prepared?);
            }
            if !left.tried {
                work = Unwritten { tried: true, ..left };
            }
        }
        let done = match self.roll_over(shard, &work.buckets, When::InTime).await {
            Err(RolloverError::Sink(SinkError::Refused(_))) => self.one_by_one(shard, &work.buckets).await,
            other => other.map(drop),
        };
        if matches!(done, Err(RolloverError::Sink(SinkError::Unavailable(_)))) {
            self.unwritten = Some(work);
        }
        done
    }

    /// Whether anything of a shard was left behind.
    pub(super) fn has_unwritten(&self, shard: Shard) -> bool {
        self.unwritten.as_ref().is_some_and(|left| left.shard == shard)
    }
}
