//! Times as people type them: `-24h`, `yesterday`, `2026-11`, `2026-11-20 06:00`.
//!
//! Read from `--from` and `--to` while the command line is parsed, so that a slip is found before
//! anything is sent; turned into an instant by the commands once the zone is known. Every form names
//! one instant: a day, a month or a year its first. The time is an argument.

use super::Usage;
use crate::stats::calendar::Zone;
use crate::stats::{Millis, timestamp};
use chrono::DateTime;
use jiff::{Span, ToSpan};
use std::ops::RangeInclusive;
use std::str::FromStr;

const OFFSETS: [&str; 2] = ["%Y-%m-%d %H:%M%:z", "%Y-%m-%dT%H:%M%:z"];

/// What RFC 3339 can say: the years 0 to 9999.
const TIMES: RangeInclusive<Millis> = -62_167_219_200_000..=253_402_300_799_999;

/// A time that may depend on now and on a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    /// The start of a day, so many days before today.
    Day(i64),
    /// That much before now, by the clock: 24 hours, but seven days are the same time a week ago.
    Ago(i64, Unit),
    /// What `timestamp::parse` reads.
    Written(String),
    Instant(Millis),
}

/// A unit as it is typed after a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of fixed length, in milliseconds.
    Fixed(Millis),
    Days,
    Weeks,
    Months,
    Years,
}

const UNITS: [(&str, Unit); 7] = [
    ("s", Unit::Fixed(1_000)),
    ("m", Unit::Fixed(60_000)),
    ("h", Unit::Fixed(3_600_000)),
    ("d", Unit::Days),
    ("w", Unit::Weeks),
    ("mo", Unit::Months),
    ("y", Unit::Years),
];

const NAMES: [(&str, Unit); 7] = [
    ("second", Unit::Fixed(1_000)),
    ("minute", Unit::Fixed(60_000)),
    ("hour", Unit::Fixed(3_600_000)),
    ("day", Unit::Days),
    ("week", Unit::Weeks),
    ("month", Unit::Months),
    ("year", Unit::Years),
];

/// The instants that `--from` and `--to` mean; `None` is without bound.
pub(super) fn range(
    (from, to): (&Option<When>, &Option<When>),
    now: Millis,
    zone: &Zone,
) -> Result<(Option<Millis>, Option<Millis>), Usage> {
    let instant = |flag: &str, when: &Option<When>| match when.as_ref().map(|when| when.at(now, zone)) {
        Some(None) => Err(Usage(format!("--{flag}: this lies outside the years 0 to 9999"))),
        known => Ok(known.flatten()),
    };
    match (instant("from", from)?, instant("to", to)?) {
        (Some(from), Some(to)) if from > to => {
            let [from, to] = [from, to].map(timestamp::format);
            Err(Usage(format!("--from is after --to ({from} is after {to}): exchange them")))
        }
        range => Ok(range),
    }
}

/// A length of time as people type it: `28d`, `4 weeks`, `the 4 weeks before`, `the week before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length(i64, Unit);

impl FromStr for Length {
    type Err = NotALength;

    fn from_str(text: &str) -> Result<Self, NotALength> {
        let words = text.trim();
        let words = words.strip_prefix("the ").unwrap_or(words);
        let words = words.strip_suffix(" before").unwrap_or(words).trim();
        let unit_at = words.find(|c: char| !c.is_ascii_digit()).ok_or(NotALength)?;
        let (number, unit) = words.split_at(unit_at);
        let n = if number.is_empty() { 1 } else { number.parse().map_err(|_| NotALength)? };
        let unit = unit.trim();
        let named = NAMES.iter().find(|(name, _)| unit.strip_suffix('s').unwrap_or(unit) == *name);
        let short = UNITS.iter().find(|(name, _)| !number.is_empty() && unit == *name);
        let unit = named.or(short).ok_or(NotALength)?.1;
        if n == 0 { Err(NotALength) } else { Ok(Self(n, unit)) }
    }
}

impl Length {
    /// So long before an instant, by the clock of the zone; if it lies in the years 0 to 9999.
    #[must_use]
    pub fn before(&self, t: Millis, zone: &Zone) -> Option<Millis> {
        When::Ago(self.0, self.1).at(t, zone)
    }
}

/// A text that is no length; says what one looks like.
#[derive(Debug, thiserror::Error)]
#[error("not a length of time: write 10m, 24h, 28d, 2w, 1mo, \"4 weeks\" or \"the 4 weeks before\"")]
pub struct NotALength;

/// A text that is no time; says what one looks like.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a time: write now, -24h, -7d, today, yesterday, 2026-11, 2026-11-20, \"2026-11-20 06:00\" or \
     2026-11-20T05:00:00Z"
)]
pub struct NotATime;

impl FromStr for When {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let text = text.trim();
        match text {
            "now" => return Ok(Self::Now),
            "today" => return Ok(Self::Day(0)),
            "yesterday" => return Ok(Self::Day(1)),
            _ => {}
        }
        if let Some(ago) = text.strip_prefix('-') {
            let unit_at = ago.find(|c: char| !c.is_ascii_digit()).ok_or(NotATime)?;
            let (number, unit) = ago.split_at(unit_at);
            let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotATime)?.1;
            return Ok(Self::Ago(number.parse().map_err(|_| NotATime)?, unit));
        }
        // As tables show the second of two equal local times.
        if let Some(instant) = OFFSETS.iter().find_map(|format| DateTime::parse_from_str(text, format).ok()) {
            return Ok(Self::Instant(instant.timestamp_millis()));
        }
        let digits = |part: &str, n: usize| part.len() == n && part.bytes().all(|byte| byte.is_ascii_digit());
        let date = match text.split_once('-') {
            None if digits(text, 4) => format!("{text}-01-01"),
            Some((year, month)) if digits(year, 4) && digits(month, 2) => format!("{text}-01"),
            _ => text.to_owned(),
        };
        match timestamp::parse(&date, &Zone::utc()) {
            Some(_) => Ok(Self::Written(date)),
            None => Err(NotATime),
        }
    }
}

impl When {
    /// The instant, if it lies in the years 0 to 9999. Where a local time does not exist or exists
    /// twice, the rules of [`Zone::instant`] hold.
    #[must_use]
    pub fn at(&self, now: Millis, zone: &Zone) -> Option<Millis> {
        let t = match self {
            Self::Now => now,
            Self::Instant(t) => *t,
            Self::Written(text) => timestamp::parse(text, zone)?,
            Self::Day(ago) => zone.instant(zone.date(now).checked_sub(ago.days()).ok()?.at(0, 0, 0, 0))?,
            Self::Ago(n, Unit::Fixed(length)) => now.checked_sub(n.checked_mul(*length)?)?,
            Self::Ago(n, unit) => zone.instant(zone.local(now).checked_sub(span(*n, *unit)?).ok()?)?,
        };
        TIMES.contains(&t).then_some(t)
    }
}

/// `None` if it is longer than there are dates.
fn span(n: i64, unit: Unit) -> Option<Span> {
    match unit {
        Unit::Fixed(length) => Span::new().try_milliseconds(n.checked_mul(length)?),
        Unit::Days => Span::new().try_days(n),
        Unit::Weeks => Span::new().try_weeks(n),
        Unit::Months => Span::new().try_months(n),
        Unit::Years => Span::new().try_years(n),
    }
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` read at `now`, both shown in UTC.
    fn check(text: &str, now: &str, zone: &str, expected: &str) {
        let now = timestamp::parse(now, &Zone::utc()).unwrap();
        let got = text.parse::<When>().ok().and_then(|when| when.at(now, &zone.parse().unwrap()));
        assert_eq!(got.map_or("-".to_owned(), timestamp::format), expected, "{text} at {now} in {zone}");
    }

    const NOON: &str = "2026-11-20T12:30:15.250Z";

    #[test]
    fn what_people_type() {
        check("now", NOON, "UTC", NOON);
        check("-24h", NOON, "UTC", "2026-11-19T12:30:15.250Z");
        check("-90m", NOON, "UTC", "2026-11-20T11:00:15.250Z");
        check("-15s", NOON, "UTC", "2026-11-20T12:30:00.250Z");
        check("-7d", NOON, "UTC", "2026-11-13T12:30:15.250Z");
        check("-2w", NOON, "UTC", "2026-11-06T12:30:15.250Z");
        check("-1mo", "2026-03-31", "UTC", "2026-02-28T00:00:00Z");
        check("-1y", NOON, "UTC", "2025-11-20T12:30:15.250Z");
        check("today", NOON, "UTC", "2026-11-20T00:00:00Z");
        check("yesterday", NOON, "UTC", "2026-11-19T00:00:00Z");
        check("2026", NOON, "UTC", "2026-01-01T00:00:00Z");
        check("2026-11", NOON, "UTC", "2026-11-01T00:00:00Z");
        check("2026-11-20", NOON, "Europe/Berlin", "2026-11-19T23:00:00Z");
        check("2026-11-20 06:00", NOON, "Europe/Berlin", "2026-11-20T05:00:00Z");
        check("2026-11-20T06:00:30", NOON, "Europe/Berlin", "2026-11-20T05:00:30Z");
        check("2026-11-20T05:00:00Z", NOON, "Europe/Berlin", "2026-11-20T05:00:00Z");
        check(" 2026-10-25 02:00+01:00 ", NOON, "UTC", "2026-10-25T01:00:00Z");
    }

    #[test]
    fn days_are_those_of_the_zone() {
        // Half past midnight in Berlin is still the evening before in UTC.
        check("today", "2026-11-19T23:30:00Z", "Europe/Berlin", "2026-11-19T23:00:00Z");
        check("today", "2026-11-19T23:30:00Z", "America/New_York", "2026-11-19T05:00:00Z");
        check("yesterday", "2026-11-19T23:30:00Z", "Europe/Berlin", "2026-11-18T23:00:00Z");
        check("2026-11", NOON, "Asia/Kolkata", "2026-10-31T18:30:00Z");
    }

    #[test]
    fn clocks_that_change() {
        // The night of spring: 24 hours are 24 hours, a day is the same time of the day before.
        check("-24h", "2026-03-29T10:00:00Z", "Europe/Berlin", "2026-03-28T10:00:00Z");
        check("-1d", "2026-03-29T10:00:00Z", "Europe/Berlin", "2026-03-28T11:00:00Z");
        check("-1d", "2026-03-30T10:00:00Z", "Europe/Berlin", "2026-03-29T10:00:00Z");
        check("today", "2026-03-29T10:00:00Z", "Europe/Berlin", "2026-03-28T23:00:00Z");
        // Half past two does not exist; a day after it, a day ago is an hour later by the clock.
        check("-1d", "2026-03-30T00:30:00Z", "Europe/Berlin", "2026-03-29T01:30:00Z");
        check("2026-03-29 02:30", NOON, "Europe/Berlin", "2026-03-29T01:30:00Z");
        // In autumn it exists twice: the earlier one.
        check("-24h", "2026-10-25T10:00:00Z", "Europe/Berlin", "2026-10-24T10:00:00Z");
        check("-1d", "2026-10-25T10:00:00Z", "Europe/Berlin", "2026-10-24T09:00:00Z");
        check("-1d", "2026-10-26T01:30:00Z", "Europe/Berlin", "2026-10-25T00:30:00Z");
        check("2026-10-25 02:30", NOON, "Europe/Berlin", "2026-10-25T00:30:00Z");
        // A day that begins at one.
        check("yesterday", "2018-11-05T12:00:00Z", "America/Sao_Paulo", "2018-11-04T03:00:00Z");
    }

    #[test]
    fn lengths() {
        let check = |text: &str, zone: &str, expected: &str| {
            let now = timestamp::parse("2026-03-30T10:00:00Z", &Zone::utc()).unwrap();
            let got = text.parse::<Length>().ok().and_then(|length| length.before(now, &zone.parse().unwrap()));
            assert_eq!(got.map_or("-".to_owned(), timestamp::format), expected, "{text} in {zone}");
        };
        check("28d", "UTC", "2026-03-02T10:00:00Z");
        check("the 4 weeks before", "UTC", "2026-03-02T10:00:00Z");
        check("4 weeks", "UTC", "2026-03-02T10:00:00Z");
        check("the week before", "UTC", "2026-03-23T10:00:00Z");
        check("10m", "UTC", "2026-03-30T09:50:00Z");
        check("1 month", "UTC", "2026-02-28T10:00:00Z");
        // Across the change of the clocks a day is the same time of the day.
        check("2d", "Europe/Berlin", "2026-03-28T11:00:00Z");
        for text in ["", "0d", "d", "4", "four weeks", "1 fortnight", "-1d", "99999999999999999999d"] {
            check(text, "UTC", "-");
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in ["", "soon", "-", "24h", "-h", "-1", "-1.5h", "-1x", "--1h", "-99999999999999999999h", "20.11.2026"]
        {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
        for text in ["2026-13", "2026-11-31", "26-11", "2026-1", "02026", "Today", "2026-11-20 25:00"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
        // Beyond all dates.
        for text in ["-9999999999d", "-99999y", "-3000y", "-9223372036854775807h", "-9223372036854775807mo"] {
            check(text, NOON, "UTC", "-");
        }
    }
}
