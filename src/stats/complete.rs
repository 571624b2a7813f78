//! Since when the rows of each stored period hold every reading of their time.
//!
//! Kept by the store, noted by `app.rs` at the start of an instance and by the rollover before it removes rows, asked by
//! `query/summary.rs`: a period that was added to the list later, or whose rows are no longer kept, lacks readings that
//! finer rows have. A bucket that begins before that time is not relied on, so an instant too late costs some reading
//! of finer rows, and one too early would cost readings. Of a store in which nothing was ever noted all is believed.

use super::Millis;
use super::calendar::{Calendar, Period};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From when on a period that is added has all readings: those of the near future may have been closed without it, by
/// a drain, and clocks differ.
pub const SETTLED_AFTER: Millis = 10 * 60_000;

/// See the module. By the name of the period, with the zone if it follows one: in another zone other buckets begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Complete(BTreeMap<String, Millis>);

impl Complete {
    /// A bucket of this stored period that begins then, or later, has every reading of its time.
    #[must_use]
    pub fn since(&self, calendar: &Calendar, period: Period) -> Millis {
        let noted = self.0.get(&name(calendar, period)).copied();
        noted.unwrap_or(if self.0.is_empty() { Millis::MIN } else { Millis::MAX })
    }

    /// Notes that from `now` on these periods are stored, and no others; whether that is new.
    pub fn store(&mut self, calendar: &Calendar, now: Millis) -> bool {
        let new = if self.0.is_empty() { Millis::MIN } else { now + SETTLED_AFTER };
        let since = |name: String| {
            let since = self.0.get(&name).copied().unwrap_or(new);
            (name, since)
        };
        let stored = calendar.periods().iter().map(|&period| since(name(calendar, period))).collect();
        let before = std::mem::replace(&mut self.0, stored);
        before != self.0
    }

    /// Notes that rows which begin before `time` may go; whether that is new.
    pub fn remove(&mut self, calendar: &Calendar, period: Period, time: Millis) -> bool {
        match self.0.get_mut(&name(calendar, period)) {
            Some(since) if *since < time => {
                *since = time;
                true
            }
            _ => false,
        }
    }
}

fn name(calendar: &Calendar, period: Period) -> String {
    match period {
        Period::Seconds(_) => period.to_string(),
        _ => format!("{period} {}", calendar.zone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(periods: &str, zone: &str) -> Calendar {
        Calendar::new(periods.split(',').map(|p| p.parse().unwrap()).collect(), zone.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_period_is_complete_since_it_was_added() {
        let [hour, day]: [Period; 2] = ["1h", "1d"].map(|p| p.parse().unwrap());
        let (few, more) = (calendar("1m,1h", "UTC"), calendar("1m,1h,1d", "UTC"));
        let mut complete = Complete::default();
        assert_eq!(complete.since(&more, day), Millis::MIN, "nothing was ever noted");
        assert!(complete.store(&few, 1_000));
        assert_eq!(complete.since(&few, hour), Millis::MIN);
        assert_eq!(complete.since(&more, day), Millis::MAX, "it is not stored");
        assert!(!complete.store(&few, 2_000), "nothing is new");
        assert!(complete.store(&more, 3_000));
        assert!(!complete.store(&more, 4_000));
        let since = |complete: &Complete, calendar| [hour, day].map(|p| complete.since(calendar, p));
        assert_eq!(since(&complete, &more), [Millis::MIN, 3_000 + SETTLED_AFTER]);
        // Days of another zone are others.
        let there = calendar("1m,1h,1d", "Europe/Berlin");
        assert!(complete.store(&there, 5_000));
        assert_eq!(since(&complete, &there), [Millis::MIN, 5_000 + SETTLED_AFTER]);
        // What was taken off the list has a gap.
        complete.store(&calendar("1m", "UTC"), 6_000);
        complete.store(&few, 7_000);
        assert_eq!(complete.since(&few, hour), 7_000 + SETTLED_AFTER);
    }

    #[test]
    fn rows_that_go_take_completeness_with_them() {
        let (hour, calendar) = ("1h".parse().unwrap(), calendar("1m,1h", "UTC"));
        let mut complete = Complete::default();
        complete.store(&calendar, 0);
        assert!(complete.remove(&calendar, hour, 10));
        assert!(!complete.remove(&calendar, hour, 10));
        assert!(!complete.remove(&calendar, hour, 5), "it never goes back");
        assert!(!complete.remove(&calendar, Period::Day, 10), "it is not stored");
        assert_eq!(complete.since(&calendar, hour), 10);
    }
}
