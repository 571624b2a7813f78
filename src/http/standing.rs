//! How somebody stands who stays connected: as he was let in, with other rights by now, or not at all any more.
//!
//! Used by `stream.rs` and `socket/session.rs`, which ask what may be heard and wait for changes here. A change of the
//! file of tokens and the end of a token are seen as they come; the file is looked at once a second (`auth.rs`).

use super::auth::{Caller, Guard};
use crate::auth::{Auth, Denied};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How long is waited for the end of a token at most, before the clock is asked again: it may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// See the module.
pub(super) struct Standing {
    guard: Arc<Guard>,
    caller: Caller,
    changes: Option<watch::Receiver<u64>>,
}

impl Standing {
    pub(super) fn new(guard: &Arc<Guard>, caller: Caller) -> Self {
        let mut changes = guard.auth().map(|auth| auth.changes());
        if let Some(changes) = &mut changes {
            // What has changed since he was let in is not missed.
            changes.mark_changed();
        }
        Self { guard: Arc::clone(guard), caller, changes }
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Returns when the rights may be others. May be dropped and called again.
    ///
    /// # Errors
    /// When there are none any more.
    pub(super) async fn changed(&mut self) -> Result<(), Denied> {
        let (Some(auth), Some(changes), Caller::Known(identity)) =
            (self.guard.auth(), &mut self.changes, &mut self.caller)
        else {
            return pending().await;
        };
        let auth: &Auth = auth;
        loop {
            let now = self.guard.clock().now();
            let left =
                identity.expires().map(|expires| Duration::from_millis(expires.saturating_sub(now).max(0) as u64));
            let changed = tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                () = sleep(left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY))) => false,
            };
            let before = Arc::clone(identity);
            *identity = auth.still(&before, self.guard.clock().now())?;
            if changed {
                return Ok(());
            }
        }
    }
}
