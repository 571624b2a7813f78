//! What a crash of the store takes away: nothing, what no frame or barrier has made durable, or its last
//! two seconds.
//!
//! Kept by `world.rs`, told by `store.rs` after each call that changed something, asked by `schedule.rs`.

use crate::oracle::State as Contents;
use meanwhile::stats::Millis;

/// What the weak store may lose; shorter than the hold of 3 s.
const LOSES: Millis = 2_000;

/// The three stores of docs/reliability.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Redis with `appendfsync always`: several nodes, nothing is lost.
    Keeps,
    /// The embedded store: one node, which dies with it. Calls since the last frame or barrier are undone.
    Undoes,
    /// Redis with `appendfsync everysec`: several nodes, the last two seconds may be lost.
    Forgets,
}

/// The contents a crash may go back to, the oldest first, and when they were the present ones.
pub(crate) struct History {
    pub(crate) kind: Kind,
    states: Vec<(Millis, Contents)>,
}

impl History {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, states: Vec::new() }
    }

    /// A call has changed the contents to these; `durable`: no crash takes it back.
    pub(crate) fn changed(&mut self, passed: Millis, durable: bool, contents: impl FnOnce() -> Contents) {
        match self.kind {
            Kind::Keeps => return,
            Kind::Undoes if durable => self.states.clear(),
            Kind::Undoes => {}
            Kind::Forgets => {
                // The last one that is old enough stays: it was the present one until the next.
                let old = self.states.iter().take_while(|(at, _)| *at < passed - LOSES).count();
                self.states.drain(..old.saturating_sub(1));
            }
        }
        self.states.push((passed, contents()));
    }

    /// How many states a crash can choose from now.
    pub(crate) fn choices(&mut self, passed: Millis) -> u64 {
        if self.kind == Kind::Forgets {
            let old = self.states.iter().take_while(|(at, _)| *at < passed - LOSES).count();
            self.states.drain(..old.saturating_sub(1));
        }
        self.states.len() as u64
    }

    /// Goes back to one of them, which is on disk then: the next crash does not go back behind it.
    pub(crate) fn back_to(&mut self, choice: usize) -> Contents {
        let state = self.states.swap_remove(choice);
        self.states = vec![state];
        self.states[0].1.clone()
    }
}
