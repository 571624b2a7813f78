//! How much one may send: readings in a time, sources that were not known before.
//!
//! Called by the routes that take readings, with what was decoded and before anything goes to the store. The counters
//! are those of `auth/allowance.rs`.

use super::problem::{Kind, Problem};
use crate::auth::Identity;
use crate::clock;
use crate::ingest::decode::Decoded;
use crate::query::Query;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Counts what is about to be committed.
///
/// # Errors
/// If it is more than the sender may send; then nothing of it is counted.
pub(super) async fn allow(sender: &Identity, decoded: &Decoded, query: &Query) -> Result<(), Problem> {
    if sender.allowance.counts_sources() {
        allow_sources(sender, decoded, query).await?;
    }
    sender.allowance.take(decoded.readings, clock::instant()).map_err(too_fast)
}

async fn allow_sources(sender: &Identity, decoded: &Decoded, query: &Query) -> Result<(), Problem> {
    let deltas = decoded.parts.iter().flat_map(|part| &part.deltas);
    let sources: BTreeSet<&Arc<str>> = deltas.flat_map(|deltas| &deltas.sources).map(|(source, _)| source).collect();
    let unseen: Vec<Arc<str>> = sender.allowance.unseen(sources).into_iter().cloned().collect();
    // Where it cannot be told, it is another time.
    let Some(new) = query.unknown(&unseen).await else { return Ok(()) };
    let noted = sender.allowance.note(&unseen, &new);
    noted.map_err(|most| {
        let detail = format!(
            "{} of the sources are not known, and this token may add {most} in all; nothing was counted",
            new.len()
        );
        Problem::new(Kind::TooManySources, detail)
    })
}

pub(super) fn too_fast(wait: Duration) -> Problem {
    Problem::too_fast("this token sends more readings than it may; this request has counted nothing, repeat it", wait)
}
