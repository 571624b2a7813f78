//! What the store has lost of what it had confirmed: how much, and of which time.
//!
//! Written by the task in `shard.rs`, which finds out when the store knows less of its sequence than it does;
//! read by `http/operations.rs`. Guarantees that a loss is never said to be smaller or shorter than
//! it was, as far as this process can know: what others had confirmed is for them to say, and what
//! nobody lives to remember is said by nobody.

use crate::stats::{Millis, timestamp};
use std::collections::VecDeque;
use std::fmt;

/// Seconds remembered, 16 bytes each: longer than any store that comes back has been losing.
const SECONDS: usize = 3_600;

/// A store that came back without something it had confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The whole contents, also what this process has not brought; else the last frames only.
    pub everything: bool,
    /// Frames that were confirmed to this process and are gone.
    pub frames: u64,
    /// They were confirmed between these two, by this node's clock.
    pub from: Millis,
    /// When it was found out.
    pub to: Millis,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.everything { "the store has lost its contents" } else { "the store went back in time" })
    }
}

/// All losses since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    pub times: u64,
    /// Of all of them.
    pub frames: u64,
    pub last: Option<Loss>,
}

impl Losses {
    pub(super) fn add(&mut self, loss: Loss) {
        self.times += 1;
        self.frames += loss.frames;
        self.last = Some(loss);
    }
}

/// When a writer's frames were confirmed, to the second.
pub(super) struct Confirmed {
    /// When the writer began.
    began: Millis,
    /// The first frame of each second in which there was one, the oldest first.
    firsts: VecDeque<(Millis, u64)>,
}

impl Confirmed {
    pub(super) fn new(began: Millis) -> Self {
        Self { began, firsts: VecDeque::new() }
    }

    /// A frame was sent at `sent` at the latest and is confirmed.
    pub(super) fn note(&mut self, sequence: u64, sent: Millis) {
        let second = sent - sent.rem_euclid(1_000);
        // A clock that went back makes a window longer, never shorter.
        if self.firsts.back().is_some_and(|(last, _)| *last >= second) {
            return;
        }
        if self.firsts.len() == SECONDS {
            self.firsts.pop_front();
        }
        self.firsts.push_back((second, sequence));
    }

    /// A time before which no frame after `last` was confirmed.
    pub(super) fn after(&self, last: u64) -> Millis {
        // The second of the first lost frame is the last one that began with it or before it.
        let second = self.firsts.iter().rev().find(|(_, first)| *first <= last + 1);
        second.map_or(self.began, |(second, _)| *second)
    }

    pub(super) fn loss(&self, everything: bool, last: u64, sequence: u64, now: Millis) -> Loss {
        Loss { everything, frames: sequence.saturating_sub(last), from: self.after(last).min(now), to: now }
    }
}

impl Loss {
    /// Both ends of the window as the log and `/readyz` name them.
    #[must_use]
    pub fn window(&self) -> [String; 2] {
        [self.from, self.to].map(timestamp::format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_never_said_to_be_shorter() {
        let mut confirmed = Confirmed::new(500);
        let check = |confirmed: &Confirmed, last: u64, expected: Millis| assert_eq!(confirmed.after(last), expected);
        check(&confirmed, 0, 500);
        for (sequence, at) in [(1, 1_200), (2, 1_900), (3, 3_000), (4, 5_999)] {
            confirmed.note(sequence, at);
        }
        check(&confirmed, 0, 1_000);
        check(&confirmed, 1, 1_000);
        check(&confirmed, 2, 3_000);
        check(&confirmed, 3, 5_000);
        // The clock went back: what comes now is taken to be as old as what came before.
        confirmed.note(5, 2_000);
        check(&confirmed, 4, 5_000);
        let loss = confirmed.loss(false, 2, 5, 7_000);
        assert_eq!((loss.frames, loss.from, loss.to), (3, 3_000, 7_000));
        assert_eq!(confirmed.loss(true, 0, 5, 800).from, 800, "a window never ends before it begins");
    }

    #[test]
    fn what_is_too_long_ago_to_be_remembered_began_with_the_writer() {
        let mut confirmed = Confirmed::new(-7);
        for second in 0..SECONDS as u64 + 10 {
            confirmed.note(second + 1, second.cast_signed() * 1_000);
        }
        assert_eq!((confirmed.firsts.len(), confirmed.after(3), confirmed.after(10)), (SECONDS, -7, 10_000));
    }
}
