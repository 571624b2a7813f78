//! Drives the close of a life to its end, whoever meets it: the rollover, or a commit that was told
//! that a bucket it wants is closing.
//!
//! Uses only the contract in `mod.rs`. May be interrupted anywhere and repeated by anybody.

use super::{Closed, Life, PAGE_PAUSE, Shard, Store, StoreError, When};
use crate::failpoint;
use crate::stats::calendar::Calendar;
use tokio::time::sleep;

/// How a driven close ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseEnd {
    /// The life has left the store.
    Done,
    /// It cannot close now: dirty, not acked, too early, or descendants are open.
    NotNow,
}

/// Moves a life up into its parents, chunk by chunk; a parent that is closing itself is finished first.
pub async fn drive_close(
    store: &dyn Store,
    shard: Shard,
    calendar: &Calendar,
    life: Life,
    when: When,
) -> Result<CloseEnd, StoreError> {
    // The last is being worked on. Parents are coarser, so this is never longer than the periods.
    let mut stack = vec![(life, 0)];
    while let Some((current, cursor)) = stack.pop() {
        let family = calendar.family(&current.bucket);
        let closed = store.close(shard, current, &family, cursor, when).await?;
        failpoint::pass("moved-up");
        match closed {
            Closed::Done | Closed::Gone => {}
            Closed::More(cursor) => {
                stack.push((current, cursor));
                sleep(PAGE_PAUSE).await;
            }
            Closed::ParentClosing(parent) => stack.extend([(current, cursor), (parent, 0)]),
            Closed::Refused | Closed::Waiting => return Ok(CloseEnd::NotNow),
        }
    }
    Ok(CloseEnd::Done)
}
