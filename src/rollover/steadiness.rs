//! Whether the time has run evenly for a while, so that what is old can be told by it.
//!
//! A part of `retention.rs`, which removes nothing by a time that has just been set. Pure: told the
//! time and a point for measuring spans at every look. A step is seen at the first look after it; a
//! clock that is wrong and runs evenly is not noticed here.

use crate::stats::Millis;
use std::time::Duration;
use tokio::time::Instant;

/// For so long the time must have run evenly: longer than a service manager or a time server needs to
/// set a clock right after a start, and nothing against how long rows are kept.
pub(super) const EVEN_FOR: Duration = Duration::from_mins(5);
/// By so much the time may go wrong in [`EVEN_FOR`]: more than a leap second or a clock that is slowly
/// brought nearer, and too little for rows to go noticeably early.
const TOLERANCE: Millis = 30_000;

/// How the time has run, as far as the looks so far tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Evenly, for at least [`EVEN_FOR`].
    Even,
    /// Evenly, but not for long enough yet.
    Unproven,
    /// It has been set since the look it is compared with; how far, in milliseconds.
    Stepped(Millis),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Steadiness {
    /// The look that others are compared with, at most a look older than [`EVEN_FOR`].
    mark: Option<(Millis, Instant)>,
    /// The time ran evenly for [`EVEN_FOR`] before the mark.
    proven: bool,
}

impl Steadiness {
    /// Looks at the time once; the first look proves nothing.
    pub(super) fn look(&mut self, time: Millis, at: Instant) -> Pace {
        let Some((marked_time, marked_at)) = self.mark else {
            self.mark = Some((time, at));
            return Pace::Unproven;
        };
        let passed = at.saturating_duration_since(marked_at);
        let passed_millis = Millis::try_from(passed.as_millis()).unwrap_or(Millis::MAX);
        let step = time.saturating_sub(marked_time).saturating_sub(passed_millis);
        if step.saturating_abs() > TOLERANCE {
            *self = Self { mark: Some((time, at)), proven: false };
            return Pace::Stepped(step);
        }
        if passed >= EVEN_FOR {
            *self = Self { mark: Some((time, at)), proven: true };
        }
        if self.proven { Pace::Even } else { Pace::Unproven }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MINUTE: Millis = 60_000;
    const DAY: Millis = 1_440 * MINUTE;

    /// Looks at these (time, span since the first look) and what each is told.
    fn check(looks: &[(Millis, Millis, Pace)]) {
        let (begin, mut steadiness) = (clock::instant(), Steadiness::default());
        for &(time, passed, expected) in looks {
            let at = begin + Duration::from_millis(passed.try_into().unwrap());
            assert_eq!(steadiness.look(time, at), expected, "{time} at {passed} of {looks:?}");
        }
    }

    #[test]
    fn a_time_that_runs_evenly_is_proven_by_two_looks_far_enough_apart() {
        let even = 5 * MINUTE;
        check(&[(DAY, 0, Pace::Unproven), (DAY + even - 1, even - 1, Pace::Unproven), (DAY + even, even, Pace::Even)]);
        check(&[(0, 0, Pace::Unproven), (even, even, Pace::Even), (even + 1, even + 1, Pace::Even)]);
        check(&[(0, 0, Pace::Unproven), (DAY, DAY, Pace::Even), (DAY + even, DAY + even, Pace::Even)]);
        check(&[(0, 0, Pace::Unproven), (even + TOLERANCE, even, Pace::Even)]);
        check(&[(0, 0, Pace::Unproven), (even - TOLERANCE, even, Pace::Even)]);
    }

    #[test]
    fn a_step_is_seen_at_once_and_the_time_is_to_be_proven_again() {
        let (even, stays) = (5 * MINUTE, Pace::Unproven);
        let begun = [(0, 0, stays), (even, even, Pace::Even)];
        let then = |more: &[(Millis, Millis, Pace)]| check(&[&begun[..], more].concat());
        // Ahead for some seconds, before and after it was proven.
        check(&[(0, 0, stays), (60 * DAY, 0, Pace::Stepped(60 * DAY)), (7_000, 7_000, Pace::Stepped(-60 * DAY))]);
        then(&[
            (60 * DAY + even, even, Pace::Stepped(60 * DAY)),
            (even + 7_000, even + 7_000, Pace::Stepped(-60 * DAY)),
            (2 * even + 6_999, 2 * even + 6_999, stays),
            (2 * even + 7_000, 2 * even + 7_000, Pace::Even),
        ]);
        then(&[(even + MINUTE + TOLERANCE + 1, even + MINUTE, Pace::Stepped(TOLERANCE + 1))]);
        then(&[(even - TOLERANCE - 1, even, Pace::Stepped(-TOLERANCE - 1))]);
        // Time that passed while the machine slept counts for the one and not for the other.
        then(&[(DAY, even + MINUTE, Pace::Stepped(DAY - even - MINUTE)), (DAY + even, 2 * even + MINUTE, Pace::Even)]);
        then(&[(Millis::MAX, even, Pace::Stepped(Millis::MAX - even))]);
    }

    #[test]
    fn small_steps_do_not_add_up_unseen() {
        let step = |n: Millis| n * (MINUTE + 20_000);
        check(&[
            (0, 0, Pace::Unproven),
            (step(1), MINUTE, Pace::Unproven),
            (step(2), 2 * MINUTE, Pace::Stepped(40_000)),
        ]);
    }
}
