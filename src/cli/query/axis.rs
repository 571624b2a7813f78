//! Where the ticks of a time axis stand: at full hours, days, months of a local clock.
//!
//! Called by `plot.rs`. The steps are those a wall calendar has; which one is used follows from how
//! many labels there is room for.

use crate::stats::Millis;
use crate::stats::calendar::Zone;
use jiff::civil::{DateTime, Weekday};
use jiff::{Span, ToSpan};

const DAY_SECONDS: i64 = 86_400;
/// On average; it only chooses the step.
const MONTH_SECONDS: i64 = 2_629_746;
const MONTHS_OF_A_YEAR: i64 = 12;

/// The distance of two ticks. Each counts from the start of the next larger unit, a week from Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Divides a day.
    Seconds(i64),
    Day,
    Week,
    /// Divides a year, or is a number of years.
    Months(i64),
}

const STEPS: [Step; 28] = [
    Step::Seconds(1),
    Step::Seconds(5),
    Step::Seconds(10),
    Step::Seconds(30),
    Step::Seconds(60),
    Step::Seconds(2 * 60),
    Step::Seconds(5 * 60),
    Step::Seconds(10 * 60),
    Step::Seconds(30 * 60),
    Step::Seconds(3_600),
    Step::Seconds(2 * 3_600),
    Step::Seconds(3 * 3_600),
    Step::Seconds(6 * 3_600),
    Step::Seconds(12 * 3_600),
    Step::Day,
    Step::Week,
    Step::Months(1),
    Step::Months(3),
    Step::Months(6),
    Step::Months(12),
    Step::Months(2 * 12),
    Step::Months(5 * 12),
    Step::Months(10 * 12),
    Step::Months(20 * 12),
    Step::Months(50 * 12),
    Step::Months(100 * 12),
    Step::Months(500 * 12),
    Step::Months(1_000 * 12),
];

impl Step {
    fn seconds(self) -> i64 {
        match self {
            Self::Seconds(n) => n,
            Self::Day => DAY_SECONDS,
            Self::Week => 7 * DAY_SECONDS,
            Self::Months(n) => n * MONTH_SECONDS,
        }
    }

    fn span(self) -> Span {
        match self {
            Self::Seconds(n) => n.seconds(),
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Months(n) => n.months(),
        }
    }

    /// The last tick at or before a local time.
    fn floor(self, local: DateTime) -> DateTime {
        let date = local.date();
        let day = date.at(0, 0, 0, 0);
        match self {
            Self::Seconds(n) => {
                let since =
                    i64::from(local.hour()) * 3_600 + i64::from(local.minute()) * 60 + i64::from(local.second());
                day.saturating_add((since / n * n).seconds())
            }
            Self::Day => day,
            Self::Week => day.saturating_sub(i64::from(date.weekday().since(Weekday::Monday)).days()),
            Self::Months(n) => {
                let months = i64::from(date.year()) * MONTHS_OF_A_YEAR + i64::from(date.month()) - 1;
                date.first_of_month().at(0, 0, 0, 0).saturating_sub(months.rem_euclid(n).months())
            }
        }
    }

    /// A tick as short as its neighbours allow: the times of one day are told from the next's by its
    /// date in the place of midnight.
    fn label(self, local: DateTime) -> String {
        let midnight = local == local.date().at(0, 0, 0, 0);
        let format = match self {
            Self::Seconds(_) if midnight => "%m-%d",
            Self::Seconds(n) if n % 60 == 0 => "%H:%M",
            Self::Seconds(_) => "%H:%M:%S",
            Self::Day | Self::Week => "%m-%d",
            Self::Months(n) if n < MONTHS_OF_A_YEAR => "%Y-%m",
            Self::Months(_) => "%Y",
        };
        local.strftime(format).to_string()
    }
}

/// The ticks in `[from, to)` with their labels, in order: about `most`, never many more.
pub(super) fn ticks(zone: &Zone, from: Millis, to: Millis, most: usize) -> Vec<(Millis, String)> {
    let room = |step: &&Step| (to - from).unsigned_abs() / 1_000 / step.seconds().unsigned_abs() < most.max(1) as u64;
    let step = *STEPS.iter().find(room).unwrap_or(&STEPS[STEPS.len() - 1]);
    let mut ticks: Vec<(Millis, String)> = Vec::new();
    let mut local = step.floor(zone.local(from));
    while let Some(t) = zone.instant(local).filter(|t| *t < to) {
        // A local time that was skipped is read as the one after it, which then comes twice.
        if t >= from && ticks.last().is_none_or(|(last, _)| *last < t) {
            ticks.push((t, step.label(zone.local(t))));
        }
        match local.checked_add(step.span()) {
            Ok(next) => local = next,
            Err(_) => break,
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::timestamp;

    fn check(zone: &str, from: &str, to: &str, expected: &[&str]) {
        let zone = zone.parse().unwrap();
        let at = |text: &str| timestamp::parse(text, &zone).unwrap();
        let labels: Vec<String> = ticks(&zone, at(from), at(to), 6).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, expected, "{from} to {to} in {zone}");
    }

    #[test]
    fn ticks_stand_at_round_local_times() {
        check(
            "UTC",
            "2026-11-20T05:00:00",
            "2026-11-20T05:00:05",
            &["05:00:00", "05:00:01", "05:00:02", "05:00:03", "05:00:04"],
        );
        check("UTC", "2026-11-20 05:07", "2026-11-20 05:57", &["05:10", "05:20", "05:30", "05:40", "05:50"]);
        check("Asia/Kolkata", "2026-11-20 05:00", "2026-11-20 09:00", &["05:00", "06:00", "07:00", "08:00"]);
        check("Europe/Berlin", "2026-11-20", "2026-11-21", &["11-20", "06:00", "12:00", "18:00"]);
        check("Europe/Berlin", "2026-11-20 15:00", "2026-11-22", &["18:00", "11-21", "06:00", "12:00", "18:00"]);
        check("Europe/Berlin", "2026-11-20", "2026-11-25", &["11-20", "11-21", "11-22", "11-23", "11-24"]);
        check("UTC", "2026-11-01", "2026-12-01", &["11-02", "11-09", "11-16", "11-23", "11-30"]);
        check("UTC", "2026-08-15", "2026-12-15", &["2026-09", "2026-10", "2026-11", "2026-12"]);
        check("UTC", "2025-12-15", "2026-12-15", &["2026-01", "2026-04", "2026-07", "2026-10"]);
        check("UTC", "1901-01-01", "2026-01-01", &["1950", "2000"]);
    }

    #[test]
    fn where_clocks_change_no_tick_comes_twice() {
        check("Europe/Berlin", "2026-03-29 00:00", "2026-03-29 06:00", &["03-29", "01:00", "03:00", "04:00", "05:00"]);
        // From 02:00 to 03:00 are two hours.
        check("Europe/Berlin", "2026-10-25 00:00", "2026-10-25 04:00", &["10-25", "01:00", "02:00", "03:00"]);
        // A day that begins at one.
        let expected = ["11-03", "12:00", "01:00", "12:00", "11-05", "12:00"];
        check("America/Sao_Paulo", "2018-11-03", "2018-11-06", &expected);
    }
}
