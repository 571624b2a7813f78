//! Periods, buckets, time zones, and which bucket feeds which.
//!
//! Called by `ingest/fold.rs` (where does a reading go), by the stores' callers (where do moments
//! move up to) and by `query/` (which rows tile a period). Periods shorter than a day lie on the
//! UTC grid; a day and longer follow the calendar of a time zone, so a day in spring may have 23
//! hours. Feeding is decided bucket by bucket, from its two ends alone: exact for every offset a
//! zone ever had, and the same on every node.

use super::Millis;
use super::source::SourceSpan;
use jiff::civil::{Date, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use std::fmt;
use std::str::FromStr;

const SECOND: Millis = 1_000;
const DAY_SECONDS: u32 = 86_400;
/// More periods than this on one service are a mistake; it bounds the cost of one reading.
pub const MAX_PERIODS: usize = 16;

/// The length of a bucket. The order is from fine to coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// A number of seconds that divides a day, at most 12 hours.
    Seconds(u32),
    Day,
    /// ISO week, from Monday.
    Week,
    Month,
    Year,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(n) if n % 3600 == 0 => write!(f, "{}h", n / 3600),
            Self::Seconds(n) if n % 60 == 0 => write!(f, "{}m", n / 60),
            Self::Seconds(n) => write!(f, "{n}s"),
            Self::Day => f.write_str("1d"),
            Self::Week => f.write_str("1w"),
            Self::Month => f.write_str("1mo"),
            Self::Year => f.write_str("1y"),
        }
    }
}

/// What is wrong with a period, a zone or a list of periods; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    #[error("\"{0}\" is not a period: write 10s, 1m, 15m, 1h, 12h, 1d, 1w, 1mo or 1y")]
    Period(String),
    #[error("the period {0} does not divide a day: buckets of {0} would drift through the days")]
    Uneven(String),
    #[error("\"{0}\" is not a time zone: write a name such as UTC or Europe/Berlin")]
    Zone(String),
    #[error("at least one period is needed")]
    NoPeriods,
    #[error("{0} periods are given, at most {MAX_PERIODS} are allowed")]
    TooManyPeriods(usize),
}

impl FromStr for Period {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let unknown = || CalendarError::Period(text.to_owned());
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(unknown)?;
        let (number, unit) = text.split_at(unit_at);
        let n: u32 = number.parse().map_err(|_| unknown())?;
        let seconds = match (n, unit) {
            (1, "d") | (24, "h") => return Ok(Self::Day),
            (1, "w") => return Ok(Self::Week),
            (1, "mo") => return Ok(Self::Month),
            (1, "y") => return Ok(Self::Year),
            (_, "s") => Some(n),
            (_, "m") => n.checked_mul(60),
            (_, "h") => n.checked_mul(3600),
            _ => return Err(unknown()),
        };
        match seconds {
            Some(s @ 1..=43_200) if DAY_SECONDS.is_multiple_of(s) => Ok(Self::Seconds(s)),
            _ => Err(CalendarError::Uneven(text.to_owned())),
        }
    }
}

/// A time zone with its name; rules come from the data bundled with jiff.
#[derive(Clone, Debug)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl FromStr for Zone {
    type Err = CalendarError;

    fn from_str(name: &str) -> Result<Self, CalendarError> {
        let rules = jiff::tz::db().get(name).map_err(|_| CalendarError::Zone(name.to_owned()))?;
        Ok(Self { name: rules.iana_name().unwrap_or(name).to_owned(), rules })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Zone {
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// The local date of an instant, as `2026-11-20`.
    #[must_use]
    pub fn date(&self, t: Millis) -> Date {
        self.local_date(t)
    }

    /// The instant of a local date and time. In a gap the time is read with the offset before it;
    /// of two, the earlier is taken. `None` outside the years -9999 to 9999.
    #[must_use]
    pub fn instant(&self, local: jiff::civil::DateTime) -> Option<Millis> {
        Some(local.to_zoned(self.rules.clone()).ok()?.timestamp().as_millisecond())
    }

    /// The local clock at an instant.
    #[must_use]
    pub fn local(&self, t: Millis) -> jiff::civil::DateTime {
        self.rules.to_datetime(timestamp(t))
    }

    fn local_date(&self, t: Millis) -> Date {
        self.local(t).date()
    }

    /// First instant of a local date. Where midnight was skipped it is the instant of the skip.
    fn midnight(&self, date: Date) -> Millis {
        let ambiguous = self.rules.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
        let skipped = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
        let instant = ambiguous.compatible().expect("dates of accepted times are in range");
        if !skipped {
            return instant.as_millisecond();
        }
        // "Compatible" counts from a midnight that did not exist, so the skip lies at or before it.
        let after = instant.saturating_add(1.millisecond()).unwrap_or(instant);
        self.rules.preceding(after).next().map_or(instant, |skip| skip.timestamp()).as_millisecond()
    }
}

/// Instants are refused outside 1900 to now + 5 minutes long before they come here; what a file
/// written by hand may hold is clamped.
fn timestamp(t: Millis) -> Timestamp {
    const LIMIT: Millis = 200_000_000_000_000;
    Timestamp::from_millisecond(t.clamp(-60_000_000_000_000, LIMIT)).expect("clamped")
}

/// One window `[start, end)` of a period. The end is part of its identity: under another time zone
/// or other rules the same start may belong to another bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    pub period: Period,
    pub start: Millis,
    pub end: Millis,
}

impl Bucket {
    #[must_use]
    pub fn contains(&self, t: Millis) -> bool {
        self.start <= t && t < self.end
    }
}

/// The buckets a reading is folded into, and the times for which they stay the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    pub buckets: Vec<Bucket>,
    pub from: Millis,
    pub to: Millis,
}

/// Where a closing bucket moves to and what must have closed before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// The coarser buckets its moments move up into.
    pub parents: Vec<Bucket>,
    /// The finer periods whose buckets, direct or through others, move up into this one.
    pub descendants: Vec<Period>,
}

/// The stored periods, in the time zone of the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    /// From fine to coarse, without repetition.
    periods: Vec<Period>,
    zone: Zone,
}

impl Calendar {
    /// # Errors
    /// If there is no period or more than [`MAX_PERIODS`].
    pub fn new(mut periods: Vec<Period>, zone: Zone) -> Result<Self, CalendarError> {
        periods.sort_unstable();
        periods.dedup();
        match periods.len() {
            0 => Err(CalendarError::NoPeriods),
            n if n > MAX_PERIODS => Err(CalendarError::TooManyPeriods(n)),
            _ => Ok(Self { periods, zone }),
        }
    }

    /// The stored periods, from fine to coarse.
    #[must_use]
    pub fn periods(&self) -> &[Period] {
        &self.periods
    }

    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The bucket of a period, stored or not, that holds `t`.
    #[must_use]
    pub fn bucket(&self, period: Period, t: Millis) -> Bucket {
        if let Period::Seconds(n) = period {
            let length = Millis::from(n) * SECOND;
            let start = t.div_euclid(length) * length;
            return Bucket { period, start, end: start + length };
        }
        let mut first = first_date(period, self.zone.local_date(t));
        let mut start = self.zone.midnight(first);
        let mut next = next_date(period, first);
        let mut end = self.zone.midnight(next);
        // Where clocks go back across midnight a local date is left and entered again; instants decide.
        while t >= end {
            start = end;
            first = next;
            next = next_date(period, first);
            end = self.zone.midnight(next);
        }
        Bucket { period, start, end }
    }

    /// The end of a source's last bucket, which is one of the finest stored period: none of a coarser one begins later.
    #[must_use]
    pub fn last_end(&self, span: &SourceSpan) -> Millis {
        self.bucket(self.periods[0], span.last).end
    }

    /// The stored buckets into which a reading at `t` is folded: those that no finer stored period
    /// tiles. Usually one, the finest.
    #[must_use]
    pub fn roots(&self, t: Millis) -> Roots {
        let mut roots = Roots { buckets: Vec::new(), from: Millis::MIN, to: Millis::MAX };
        for &period in &self.periods {
            let bucket = self.bucket(period, t);
            roots.from = roots.from.max(bucket.start);
            roots.to = roots.to.min(bucket.end);
            if self.feeder(&bucket).is_none() {
                roots.buckets.push(bucket);
            }
        }
        roots
    }

    /// The coarsest stored period whose buckets tile this one, if any.
    #[must_use]
    pub fn feeder(&self, bucket: &Bucket) -> Option<Period> {
        self.periods.iter().rev().copied().find(|&finer| finer < bucket.period && tiles(finer, bucket))
    }

    /// The stored buckets fed by this one. A bucket whose own period is no longer stored, which an
    /// earlier configuration left open, feeds those it would feed if it were: else what it holds
    /// would never come to its day.
    #[must_use]
    pub fn parents(&self, bucket: &Bucket) -> Vec<Bucket> {
        let coarser = self.periods.iter().filter(|p| **p > bucket.period);
        coarser
            .map(|&period| self.bucket(period, bucket.start))
            .filter(|parent| tiles(bucket.period, parent) && self.feeder(parent).is_none_or(|f| f <= bucket.period))
            .collect()
    }

    /// Parents and descendants of a bucket.
    #[must_use]
    pub fn family(&self, bucket: &Bucket) -> Family {
        let mut descendants = Vec::new();
        // Both ends are asked because the days of one month may have different feeders.
        for t in [bucket.start, bucket.end - 1] {
            let mut inner = *bucket;
            while let Some(finer) = self.feeder(&inner) {
                if !descendants.contains(&finer) {
                    descendants.push(finer);
                }
                inner = self.bucket(finer, t);
            }
        }
        Family { parents: self.parents(bucket), descendants }
    }

    /// The bucket of `period` into which the moments of `bucket` will have moved in the end.
    #[must_use]
    pub fn ancestor(&self, bucket: &Bucket, period: Period) -> Option<Bucket> {
        if bucket.period == period {
            return Some(*bucket);
        }
        self.parents(bucket).iter().filter(|p| p.period <= period).find_map(|parent| self.ancestor(parent, period))
    }

    /// The stored period whose rows answer a question about `period`: itself, or the coarsest
    /// whose buckets tile `bucket`. `None` if no stored period is fine enough.
    #[must_use]
    pub fn answering(&self, bucket: &Bucket) -> Option<Period> {
        if self.periods.contains(&bucket.period) { Some(bucket.period) } else { self.feeder(bucket) }
    }
}

/// Whether the buckets of `finer` tile `bucket`, given that it is finer.
fn tiles(finer: Period, bucket: &Bucket) -> bool {
    match finer {
        Period::Seconds(n) => {
            let length = Millis::from(n) * SECOND;
            bucket.start % length == 0 && bucket.end % length == 0
        }
        Period::Day => true,
        Period::Month => bucket.period == Period::Year,
        // Weeks tile nothing but a rare February.
        Period::Week | Period::Year => false,
    }
}

/// First date of the day, week, month or year that holds `date`.
fn first_date(period: Period, date: Date) -> Date {
    match period {
        Period::Week => date.saturating_sub(i64::from(date.weekday().since(Weekday::Monday)).days()),
        Period::Month => date.first_of_month(),
        Period::Year => date.first_of_year(),
        Period::Day | Period::Seconds(_) => date,
    }
}

fn next_date(period: Period, first: Date) -> Date {
    let span = match period {
        Period::Week => 7.days(),
        Period::Month => 1.month(),
        Period::Year => 1.year(),
        Period::Day | Period::Seconds(_) => 1.day(),
    };
    first.saturating_add(span)
}

#[cfg(test)]
mod zones;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn calendar(periods: &str, zone: &str) -> Calendar {
        let periods = periods.split(',').map(|p| p.parse().unwrap()).collect();
        Calendar::new(periods, zone.parse().unwrap()).unwrap()
    }

    fn at(text: &str) -> Millis {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn check_bucket(zone: &str, period: &str, t: &str, start: &str, end: &str) {
        let bucket = calendar("1m", zone).bucket(period.parse().unwrap(), at(t));
        assert_eq!((bucket.start, bucket.end), (at(start), at(end)), "{period} of {t} in {zone}");
    }

    #[test]
    fn periods_read_back_in_their_shortest_form() {
        let check = |text: &str, expected: &str| assert_eq!(text.parse::<Period>().unwrap().to_string(), expected);
        check("60s", "1m");
        check("10s", "10s");
        check("90m", "90m");
        check("12h", "12h");
        check("24h", "1d");
        check("1mo", "1mo");
    }

    #[test]
    fn periods_that_are_none() {
        for text in ["", "m", "1", "1x", "-1m", "2d", "1.5h", "99999999999s"] {
            assert!(matches!(text.parse::<Period>(), Err(CalendarError::Period(_))), "{text}");
        }
        for text in ["0s", "7m", "5h", "13h", "4294967295h"] {
            assert!(matches!(text.parse::<Period>(), Err(CalendarError::Uneven(_))), "{text}");
        }
        assert!("Mars/Olympus".parse::<Zone>().is_err());
    }

    #[test]
    fn buckets_on_the_utc_grid_and_on_a_local_calendar() {
        check_bucket("Europe/Berlin", "1h", "2026-11-20T05:59:59.999Z", "2026-11-20T05:00:00Z", "2026-11-20T06:00:00Z");
        check_bucket("UTC", "1d", "1969-12-31T23:00:00Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z");
        // 23 hours in spring, 25 in autumn.
        check_bucket("Europe/Berlin", "1d", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check_bucket("Europe/Berlin", "1d", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        // A midnight that does not exist.
        check_bucket("America/Sao_Paulo", "1d", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        // A skip that began half an hour before midnight.
        check_bucket("America/Toronto", "1d", "1919-03-31T04:45:00Z", "1919-03-31T04:30:00Z", "1919-04-01T04:00:00Z");
        // Clocks that went back from 00:01 to 23:01: the minute belongs to the day that had begun.
        check_bucket("America/St_Johns", "1d", "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
        check_bucket("Asia/Kolkata", "1w", "2026-11-20T05:00:00Z", "2026-11-15T18:30:00Z", "2026-11-22T18:30:00Z");
        check_bucket("UTC", "1w", "2021-01-01T00:00:00Z", "2020-12-28T00:00:00Z", "2021-01-04T00:00:00Z");
        check_bucket("UTC", "1mo", "2024-02-29T23:59:59Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        check_bucket("UTC", "1y", "2024-02-29T23:59:59Z", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
    }

    /// `expected`: the periods a reading is folded into; then `child>parent` for every feeding.
    fn check_feeding(periods: &str, zone: &str, t: &str, roots: &str, feeding: &str) {
        let calendar = calendar(periods, zone);
        let t = at(t);
        let got: Vec<String> = calendar.roots(t).buckets.iter().map(|b| b.period.to_string()).collect();
        assert_eq!(got.join(","), roots, "roots of {periods} in {zone}");
        let mut edges = Vec::new();
        for &period in calendar.periods() {
            for parent in calendar.parents(&calendar.bucket(period, t)) {
                edges.push(format!("{period}>{}", parent.period));
            }
        }
        assert_eq!(edges.join(","), feeding, "feeding of {periods} in {zone}");
    }

    #[test]
    fn each_period_is_fed_by_the_coarsest_that_tiles_it() {
        let t = "2026-11-20T05:00:00Z";
        check_feeding("1m,1h,1d", "UTC", t, "1m", "1m>1h,1h>1d");
        check_feeding("1m,1h,1d,1w,1mo,1y", "Europe/Berlin", t, "1m", "1m>1h,1h>1d,1d>1w,1d>1mo,1mo>1y");
        check_feeding("5m,10m,15m,30m", "UTC", t, "5m", "5m>10m,5m>15m,15m>30m");
        check_feeding("10m,15m", "UTC", t, "10m,15m", "");
        check_feeding("1h,1d", "Asia/Kolkata", t, "1h,1d", "");
        check_feeding("10m,1h,1d", "Asia/Kolkata", t, "10m", "10m>1h,10m>1d");
        check_feeding("1h,1mo", "UTC", t, "1h", "1h>1mo");
        check_feeding("1w,1mo", "UTC", "2021-02-10T00:00:00Z", "1w,1mo", "");
        // Local mean time: the day is off every grid and stands alone; the month is still fed by it.
        check_feeding("1h,1d,1mo", "Europe/Paris", "1905-05-05T00:00:00Z", "1h,1d", "1d>1mo");
    }

    #[test]
    fn what_a_dropped_period_left_open_moves_up() {
        let t = at("2026-11-20T05:00:00Z");
        let check = |left: &str, periods: &str, expected: &str| {
            let calendar = calendar(periods, "UTC");
            let parents = calendar.parents(&calendar.bucket(left.parse().unwrap(), t));
            let parents: Vec<String> = parents.iter().map(|parent| parent.period.to_string()).collect();
            assert_eq!(parents.join(","), expected, "{left} under {periods}");
        };
        check("1h", "1m,1d", "1d");
        check("1m", "1h,1d", "1h");
        check("10s", "1m,1h,1d", "1m");
        check("1d", "1m,1h,1w,1mo,1y", "1w,1mo");
        check("1d", "1m,1h", "");
        check("1w", "1d,1mo", "");
        // The hour has what its quarters had, which may be the same readings.
        check("10m", "15m,1h", "");
    }

    #[test]
    fn family_and_ancestors() {
        let calendar = calendar("1m,1h,1d,1w,1mo", "UTC");
        let t = at("2026-11-20T05:00:00Z");
        let bucket = |p: &str| calendar.bucket(p.parse().unwrap(), t);
        let family = calendar.family(&bucket("1d"));
        assert_eq!(family.parents, [bucket("1w"), bucket("1mo")]);
        assert_eq!(family.descendants, [Period::Seconds(3600), Period::Seconds(60)]);
        assert_eq!(calendar.ancestor(&bucket("1m"), Period::Month), Some(bucket("1mo")));
        assert_eq!(calendar.ancestor(&bucket("1mo"), Period::Day), None);
        assert_eq!(calendar.ancestor(&bucket("1w"), Period::Month), None);
        assert_eq!(calendar.answering(&bucket("1y")), Some(Period::Month));
        assert_eq!(calendar.answering(&bucket("30m")), Some(Period::Seconds(60)));
        assert_eq!(calendar.answering(&bucket("10s")), None);
    }

    proptest! {
        /// Whatever the zone and the instant: the bucket holds the instant, neighbours touch, the
        /// roots hold for the whole of their stated range, and every coarser bucket is reached
        /// from exactly one root.
        #[test]
        fn buckets_partition_time(
            t in -2_000_000_000_000i64..4_000_000_000_000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns",
                "Australia/Lord_Howe", "America/Sao_Paulo", "America/Toronto", "Africa/Monrovia", "Pacific/Apia", "Asia/Kathmandu"]),
        ) {
            let calendar = calendar("10m,15m,1h,1d,1w,1mo,1y", zone);
            for &period in calendar.periods() {
                let bucket = calendar.bucket(period, t);
                prop_assert!(bucket.contains(t));
                prop_assert_eq!(calendar.bucket(period, bucket.start), bucket);
                prop_assert_eq!(calendar.bucket(period, bucket.end - 1), bucket);
                prop_assert_eq!(calendar.bucket(period, bucket.end).start, bucket.end);
            }
            let roots = calendar.roots(t);
            for edge in [roots.from, t, roots.to - 1] {
                prop_assert_eq!(&calendar.roots(edge).buckets, &roots.buckets);
            }
            for &period in calendar.periods() {
                let reached: Vec<_> = roots.buckets.iter().filter_map(|r| calendar.ancestor(r, period)).collect();
                prop_assert_eq!(reached, vec![calendar.bucket(period, t)]);
            }
        }
    }
}
