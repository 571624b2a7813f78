//! A rollover that makes one call at a time and may stop for ever after any of them.
//!
//! It does what a rollover must (seal, page, write, ack, close) and keeps nothing but the stage it is
//! in, so two of them may work on one bucket, each unaware of the other.

use super::beside::Beside;
use crate::world::POLICY;
use meanwhile::stats::moments::Moments;
use meanwhile::stats::row::LifeRow;
use meanwhile::store::{Acked, Closed, Life, Sealed, When};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) enum Rollover {
    Idle,
    Paging { life: Life, cursor: Option<String>, read: BTreeMap<Arc<str>, Moments> },
    Writing { life: Life, rows: Vec<LifeRow> },
    Acking(Life),
    Closing { life: Life, cursor: u64, when: When },
}

impl Rollover {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// The connection was renewed. A cursor of pages means nothing to a store that has started again,
    /// so they are read anew, later; all other calls may go on.
    pub(super) fn reconnect(&mut self) {
        if matches!(self, Self::Paging { .. }) {
            *self = Self::Idle;
        }
    }

    /// What was read is not written.
    pub(super) fn drop_pages(&mut self) {
        if matches!(self, Self::Paging { .. } | Self::Writing { .. }) {
            *self = Self::Idle;
        }
    }

    /// The next call. From idle it takes the `choice`-th of the due buckets; if `forced`, of all open
    /// ones. `When::Now` seals and closes without waiting, as a drain does.
    pub(super) async fn call(&mut self, beside: &mut Beside, choice: usize, forced: bool, when: When) {
        *self = match std::mem::replace(self, Self::Idle) {
            Self::Idle => begin(beside, choice, forced, when).await,
            Self::Paging { life, cursor, read } => page(beside, life, cursor, read).await,
            Self::Writing { life, rows } => {
                beside.write(&rows);
                Self::Acking(life)
            }
            Self::Acking(life) => match beside.ack(life).await {
                Acked::Clean if may_close(beside, life, when).await => Self::Closing { life, cursor: 0, when },
                Acked::Clean | Acked::Dirty | Acked::Ignored => Self::Idle,
            },
            Self::Closing { life, cursor, when } => match beside.close(life, cursor, when).await {
                Closed::More(cursor) => Self::Closing { life, cursor, when },
                Closed::ParentClosing(parent) => Self::Closing { life: parent, cursor: 0, when },
                Closed::Done | Closed::Gone | Closed::Refused | Closed::Waiting => Self::Idle,
            },
        }
    }
}

async fn begin(beside: &Beside, choice: usize, forced: bool, when: When) -> Rollover {
    let mut buckets = beside.due().await.buckets;
    if forced {
        buckets = beside.open().await.lives.iter().map(|l| l.life.bucket).collect();
    }
    if buckets.is_empty() {
        return Rollover::Idle;
    }
    match beside.seal(buckets[choice % buckets.len()], when).await {
        Sealed::Gone | Sealed::Waiting => Rollover::Idle,
        Sealed::Closing(life) => Rollover::Closing { life, cursor: 0, when },
        Sealed::Sealed { life, acked: false } => Rollover::Paging { life, cursor: None, read: BTreeMap::new() },
        Sealed::Sealed { life, acked: true } if may_close(beside, life, when).await => {
            Rollover::Closing { life, cursor: 0, when }
        }
        // An ack puts the due time back to the close.
        Sealed::Sealed { life, acked: true } => Rollover::Acking(life),
    }
}

/// Reads one page; of a source that comes twice the greater count is right.
async fn page(beside: &Beside, life: Life, cursor: Option<String>, mut read: BTreeMap<Arc<str>, Moments>) -> Rollover {
    let Some(page) = beside.page(life, cursor.as_deref()).await else {
        return Rollover::Idle;
    };
    for (source, moments) in page.sources {
        let known = read.entry(source).or_default();
        if moments.count >= known.count {
            *known = moments;
        }
    }
    if let cursor @ Some(_) = page.next {
        return Rollover::Paging { life, cursor, read };
    }
    let Life { bucket, generation, revision } = life;
    let row = |(source, moments)| LifeRow { source, bucket, generation, revision, moments };
    Rollover::Writing { life, rows: read.into_iter().map(row).collect() }
}

async fn may_close(beside: &Beside, life: Life, when: When) -> bool {
    when == When::Now || beside.now().await >= life.bucket.end + POLICY.lateness
}
