//! How long clients waited for an answer, by the kind of fault that kept them waiting.
//!
//! Computed by `world.rs` at the end. Faults overlap, so a wait belongs to the one that lasted longest while
//! it went on; what does not last has an aftermath instead.

use crate::breaking::Happened;
use crate::faults::Fault;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A start and a new connection take less.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The longest wait of each kind of fault.
pub(crate) fn longest(faults: &[Happened], waits: &[(Instant, Instant)]) -> BTreeMap<Fault, Duration> {
    let mut longest: BTreeMap<Fault, Duration> = BTreeMap::new();
    for &(from, to) in waits {
        let overlap = |made: &Happened| {
            let ended = made.ended.max(made.began + AFTERMATH);
            ended.min(to).checked_duration_since(made.began.max(from)).unwrap_or_default()
        };
        let most = faults.iter().map(|made| (overlap(made), made.fault)).max();
        if let Some((_, fault)) = most.filter(|(overlap, _)| !overlap.is_zero()) {
            let wait = longest.entry(fault).or_default();
            *wait = (*wait).max(to.duration_since(from));
        }
    }
    longest
}
