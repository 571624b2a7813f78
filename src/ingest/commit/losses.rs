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
    /// When it was found out; later, if the clock had been later when they were confirmed.
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
    /// When the writer began, or to what time the clock went back since.
    began: Millis,
    /// The first frame of each second in which there was one, the oldest first.
    firsts: VecDeque<(Millis, u64)>,
    /// The latest time at which one was confirmed.
    latest: Millis,
}

impl Confirmed {
    pub(super) fn new(began: Millis) -> Self {
        Self { began, firsts: VecDeque::new(), latest: began }
    }

    /// A frame was sent at `sent` at the latest and is confirmed at `now`.
    pub(super) fn note(&mut self, mut sequence: u64, sent: Millis, now: Millis) {
        let sent = sent.min(now);
        (self.began, self.latest) = (self.began.min(sent), self.latest.max(now));
        let second = sent - sent.rem_euclid(1_000);
        // A clock that went back makes a window longer, never shorter: what came before is taken to be as old.
        while let Some(&(last, first)) = self.firsts.back()
            && last >= second
        {
            if last == second {
                return;
            }
            sequence = first;
            self.firsts.pop_back();
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
        let frames = sequence.saturating_sub(last);
        Loss { everything, frames, from: self.after(last).min(now), to: self.latest.max(now) }
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
            confirmed.note(sequence, at, at);
        }
        check(&confirmed, 0, 1_000);
        check(&confirmed, 1, 1_000);
        check(&confirmed, 2, 3_000);
        check(&confirmed, 3, 5_000);
        let loss = confirmed.loss(false, 2, 5, 7_000);
        assert_eq!((loss.frames, loss.from, loss.to), (3, 3_000, 7_000));
        assert_eq!(confirmed.loss(true, 0, 5, 800).from, 800, "a window never ends before it begins");
    }

    /// A clock that is set while frames are confirmed, or between that and the moment it is found out.
    #[test]
    fn a_clock_that_went_back_makes_a_window_longer() {
        let mut confirmed = Confirmed::new(500);
        let check = |confirmed: &Confirmed, last: u64, now: Millis, expected: (Millis, Millis)| {
            let loss = confirmed.loss(false, last, last + 1, now);
            assert_eq!((loss.from, loss.to), expected);
        };
        confirmed.note(1, 3_000, 3_400);
        confirmed.note(2, 9_000, 9_800);
        check(&confirmed, 1, 7_000, (7_000, 9_800));
        check(&confirmed, 1, 12_000, (9_000, 12_000));
        // The second frame may have been confirmed before the third or after it.
        confirmed.note(3, 6_100, 6_300);
        check(&confirmed, 2, 12_000, (6_000, 12_000));
        check(&confirmed, 1, 12_000, (6_000, 12_000));
        check(&confirmed, 0, 12_000, (3_000, 12_000));
        confirmed.note(4, 7_000, 200);
        check(&confirmed, 0, 12_000, (0, 12_000));
        check(&confirmed, 3, 150, (0, 9_800));
    }

    #[test]
    fn what_is_too_long_ago_to_be_remembered_began_with_the_writer() {
        let mut confirmed = Confirmed::new(-7);
        for second in 0..SECONDS as u64 + 10 {
            let at = second.cast_signed() * 1_000;
            confirmed.note(second + 1, at, at);
        }
        assert_eq!((confirmed.firsts.len(), confirmed.after(3), confirmed.after(10)), (SECONDS, -7, 10_000));
    }
}
