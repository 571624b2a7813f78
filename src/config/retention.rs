//! How long rows are kept, as it is written: `1m=30d,1h=2y`.
//!
//! Called by `config.rs` once it knows the stored periods and the policy, because a wrong rule would
//! throw history away: it is refused with what would be right.

use crate::stats::Millis;
use crate::stats::calendar::{Calendar, Period};
use crate::stats::policy::{Policy, Retention};

const DAY: Millis = 86_400_000;
/// Longer is for ever, which is what a period has that is not named.
const MAX_YEARS: Millis = 1_000;

/// Reads rules, ordered by period.
pub(super) fn parse(text: &str, calendar: &Calendar, policy: &Policy) -> Result<Vec<Retention>, String> {
    let mut rules: Vec<Retention> = Vec::new();
    for rule in text.split(',').map(str::trim) {
        let (period, kept) = rule.split_once('=').ok_or_else(|| {
            format!("\"{rule}\" does not say how long a period is kept: write PERIOD=TIME, as in 1m=30d,1h=2y")
        })?;
        let period: Period = period.trim().parse().map_err(|error| format!("{error}"))?;
        let keep = length(kept.trim())?;
        check(period, keep, kept.trim(), calendar, policy)?;
        if rules.iter().any(|other| other.period == period) {
            return Err(format!("{period} is named twice: keep one of them"));
        }
        rules.push(Retention { period, keep });
    }
    rules.sort_unstable_by_key(|rule| rule.period);
    Ok(rules)
}

fn check(period: Period, keep: Millis, kept: &str, calendar: &Calendar, policy: &Policy) -> Result<(), String> {
    if !calendar.periods().contains(&period) {
        let stored: Vec<String> = calendar.periods().iter().map(ToString::to_string).collect();
        return Err(format!("{period} is not stored: --periods has {}", stored.join(", ")));
    }
    if keep < longest(period) {
        return Err(format!("{kept} is shorter than a bucket of {period}: keep it for at least as long"));
    }
    if keep < policy.lateness.max(policy.grace) {
        return Err(format!("{kept} is over before a bucket closes: keep {period} longer than --grace and --lateness"));
    }
    Ok(())
}

/// The longest bucket of a period, but for the hour an autumn has more.
fn longest(period: Period) -> Millis {
    match period {
        Period::Seconds(n) => Millis::from(n) * 1_000,
        Period::Day => DAY,
        Period::Week => 7 * DAY,
        Period::Month => 31 * DAY,
        Period::Year => 366 * DAY,
    }
}

/// Beside the units of a duration, weeks, months and years of the greatest length, so that nothing
/// goes before the calendar says so.
fn length(text: &str) -> Result<Millis, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let days = match unit {
        "d" => 1,
        "w" => 7,
        "mo" => 31,
        "y" => 366,
        _ => {
            return super::duration(text)
                .map_err(|_| format!("\"{text}\" is not how long rows can be kept: write 12h, 30d, 8w, 6mo or 2y"));
        }
    };
    let n: Millis = match number.parse() {
        Ok(n) if n <= MAX_YEARS * 366 / days => n,
        _ if number.is_empty() => return Err(format!("\"{text}\" has no number: write 30d, 8w, 6mo or 2y")),
        _ => return Err(format!("{text} is longer than {MAX_YEARS} years: leave the period out to keep it for ever")),
    };
    Ok(n * days * DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::Zone;
    use crate::stats::policy::Late;

    fn parsed(text: &str) -> Result<Vec<(String, Millis)>, String> {
        let periods = ["10s", "1m", "1h", "1d", "1mo"].map(|period| period.parse().unwrap());
        let calendar = Calendar::new(periods.to_vec(), Zone::utc()).unwrap();
        let policy = Policy { grace: 5_000, lateness: 7_200_000, late: Late::Reopen, idempotency_ttl: 3_600_000 };
        let rules = parse(text, &calendar, &policy)?;
        Ok(rules.iter().map(|rule| (rule.period.to_string(), rule.keep)).collect())
    }

    #[test]
    fn rules() {
        let check = |text: &str, expected: &[(&str, Millis)]| {
            let expected: Vec<_> = expected.iter().map(|&(period, keep)| (period.to_owned(), keep)).collect();
            assert_eq!(parsed(text), Ok(expected), "{text}");
        };
        check("1m=30d", &[("1m", 30 * DAY)]);
        check("1d=2y, 1m = 4w", &[("1m", 28 * DAY), ("1d", 732 * DAY)]);
        check("60s=2h,1mo=2mo,1h=400d", &[("1m", 7_200_000), ("1h", 400 * DAY), ("1mo", 62 * DAY)]);
        check("1d=1000y", &[("1d", 366_000 * DAY)]);
    }

    #[test]
    fn what_would_throw_away_too_much_is_refused() {
        let check = |text: &str, part: &str| {
            let reason = parsed(text).unwrap_err();
            assert!(reason.contains(part), "{text}: {reason}");
        };
        check("", "write PERIOD=TIME, as in 1m=30d,1h=2y");
        check("30d", "\"30d\" does not say");
        check("1m=30d,", "\"\" does not say");
        check("1m=30d 1h=2y", "is not how long rows can be kept");
        check("7m=30d", "does not divide a day");
        check("15m=30d", "15m is not stored: --periods has 10s, 1m, 1h, 1d, 1mo");
        check("1m=soon", "write 12h, 30d, 8w, 6mo or 2y");
        check("1m=-1d", "write 12h, 30d, 8w, 6mo or 2y");
        check("1m=d", "\"d\" has no number");
        check("1m=30", "write 12h, 30d");
        check("1m=0d", "0d is shorter than a bucket of 1m");
        check("1m=1001y", "longer than 1000 years");
        check("1m=99999999999999999999d", "longer than 1000 years");
        check("1m=30d,60s=31d", "1m is named twice");
        check("1d=23h", "23h is shorter than a bucket of 1d");
        check("1mo=30d", "30d is shorter than a bucket of 1mo");
        check("1m=1h", "1h is over before a bucket closes");
    }
}
