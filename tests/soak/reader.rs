//! A reader that asks for totals all the time: no acknowledged reading may be missing in an answer, none
//! may be in it twice, whatever is being killed.
//!
//! Started by `world.rs`. What was acknowledged before the question is the least, what was sent before the
//! answer the most that may be counted. On a store that may forget only the most holds.

use crate::clients::Sharing;
use crate::http::Http;
use crate::ledger::{TIMED, UNTIMED, source_id};
use crate::seeded::Seeded;
use crate::world::PERIODS;
use std::thread::sleep;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(150);

/// What a reader has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: u64,
    /// Answers outside the bounds.
    pub(crate) wrong: u64,
}

/// Asks until told to stop.
pub(crate) fn run(shared: &Sharing, seed: u64) -> Seen {
    let (http, mut random, mut seen) = (Http::new(), Seeded::new(seed), Seen::default());
    while !shared.stopped() {
        let source = random.below((TIMED + UNTIMED) as u64) as usize;
        let period = PERIODS[random.below(PERIODS.len() as u64) as usize];
        let port = shared.ports[0];
        let (least, _) = shared.ledger.bounds(source);
        if let Some((count, _)) = http.total(port, &source_id(source), period) {
            let (_, most) = shared.ledger.bounds(source);
            seen.answers += 1;
            if count > most || (shared.durable && count < least) {
                seen.wrong += 1;
                let source = source_id(source);
                shared.complain(format!("{source}, {period}: {count} are answered, not {least} to {most}"));
            }
        }
        sleep(PAUSE);
    }
    seen
}
