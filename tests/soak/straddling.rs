//! What clients have under way while a store loses everything, its idempotency keys too.
//!
//! Kept by `clients.rs`, asked by `losses.rs`. After such a loss a batch counts again if it is sent again and
//! its readings are in the files already: nobody is left who knows. So what was acknowledged before is not
//! sent again after it, and it happens when nothing is under way that could be in the files by then. What is
//! under way for a shorter time than a page waits before it is written, goes on through the loss.

use meanwhile::clock;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Less than the 3 s that a page waits, by more than a kill takes.
const YOUNG: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    losses: u64,
    held: bool,
    numbers: u64,
    /// When each batch was first sent that is not answered yet.
    first_sent: BTreeMap<u64, Instant>,
    repeating: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Straddling(Mutex<State>);

/// Whether an acknowledged batch may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Then [`Straddling::repeated`] must be called.
    Yes,
    NotNow,
    Never,
}

impl Straddling {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while it is held")
    }

    /// A batch is about to be sent for the first time; the number is for [`Self::answered`].
    pub(crate) fn sent(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        state.first_sent.insert(number, clock::instant());
        number
    }

    /// All who sent it have their answer. How often everything has been lost by now.
    pub(crate) fn answered(&self, number: u64) -> u64 {
        let mut state = self.state();
        state.first_sent.remove(&number);
        state.losses
    }

    /// `losses`: how often everything had been lost when it was acknowledged.
    pub(crate) fn repeat(&self, losses: u64) -> Again {
        let mut state = self.state();
        if losses < state.losses {
            return Again::Never;
        }
        if state.held {
            return Again::NotNow;
        }
        state.repeating += 1;
        Again::Yes
    }

    /// The repetition has its answer.
    pub(crate) fn repeated(&self) {
        self.state().repeating -= 1;
    }

    /// From now on nothing that was acknowledged is sent again, until [`Self::go_on`].
    pub(crate) fn hold(&self) {
        self.state().held = true;
    }

    /// Whether nothing is under way that could be in the files.
    pub(crate) fn is_young(&self) -> bool {
        let state = self.state();
        state.repeating == 0 && state.first_sent.values().all(|sent| sent.elapsed() < YOUNG)
    }

    /// The store has lost everything.
    pub(crate) fn lost(&self) {
        self.state().losses += 1;
    }

    pub(crate) fn go_on(&self) {
        self.state().held = false;
    }
}
