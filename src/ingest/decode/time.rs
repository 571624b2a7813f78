//! What the timestamp of a reading means, and which ones are refused.
//!
//! Called by the decoders of all formats. Texts are read by `stats/timestamp.rs`, the most common
//! form by a shortcut here. A time that is absurd for a reading is refused with a hint, because a
//! wrong unit would otherwise open buckets in 1970 or in the year 50,000.

use crate::stats::calendar::Zone;
use crate::stats::{Millis, timestamp};
use std::fmt;
use std::str::FromStr;

/// How far a reading may be ahead of its arrival: more than clocks differ, less than a wrong zone.
pub const MAX_AHEAD: Millis = 5 * 60_000;
/// 1900-01-01T00:00:00Z: before that nobody measured what is sent over HTTP.
pub const EARLIEST: Millis = -2_208_988_800_000;
/// 1973-01-01T00:00:00Z: a number that means an earlier time is often one in a coarser unit, since
/// seconds taken for milliseconds stay before 1973 until the year 5000.
const SUSPECT_BEFORE: Millis = 94_694_400_000;
/// A number is taken for one of another unit if that brings it this close to now: ten years.
const PLAUSIBLE: Millis = 3_652 * 86_400_000;

/// The unit of numeric timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    Seconds,
    #[default]
    Millis,
    Micros,
    Nanos,
}

const PRECISIONS: [Precision; 4] = [Precision::Seconds, Precision::Millis, Precision::Micros, Precision::Nanos];

impl Precision {
    /// As it is written in `?precision=`.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Nanos => "ns",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Millis => "milliseconds",
            Self::Micros => "microseconds",
            Self::Nanos => "nanoseconds",
        }
    }

    /// Units per second.
    fn per_second(self) -> i64 {
        match self {
            Self::Seconds => 1,
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        }
    }

    /// An integer number of units in milliseconds, what is below cut off.
    fn millis(self, n: i64) -> Millis {
        let per_second = self.per_second();
        if per_second <= 1_000 { n.saturating_mul(1_000 / per_second) } else { n.div_euclid(per_second / 1_000) }
    }

    /// The same for a number with a fraction. It is rounded to microseconds first: 0.123 s, a little
    /// less than that as a double, is 123 ms.
    fn millis_of_fraction(self, x: f64) -> Millis {
        let micros = (x * (1e6 / self.per_second() as f64)).round();
        // Saturates, which is refused as too far away like the true number.
        (micros as i64).div_euclid(1_000)
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = PRECISIONS.into_iter().find(|precision| precision.symbol() == text);
        found.ok_or_else(|| format!("\"{text}\" is not a precision: write s, ms, us or ns"))
    }
}

/// A numeric timestamp as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Kept apart because a double does not hold every nanosecond of today.
    Integer(i64),
    Fraction(f64),
}

impl Number {
    fn millis(self, precision: Precision) -> Millis {
        match self {
            Self::Integer(n) => precision.millis(n),
            Self::Fraction(x) => precision.millis_of_fraction(x),
        }
    }
}

/// Why a timestamp is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeError {
    NotATime {
        number_in_quotes: bool,
    },
    /// By so many milliseconds; the unit that would fit, if one does.
    Ahead {
        by: Millis,
        fits: Option<Precision>,
    },
    WrongUnit {
        stated: Precision,
        fits: Precision,
    },
    BeforeEarliest {
        fits: Option<Precision>,
    },
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = match *self {
            Self::NotATime { number_in_quotes } => {
                f.write_str("timestamp is neither RFC 3339 (2026-11-20T05:00:00Z) nor a date nor a number")?;
                return if number_in_quotes { f.write_str(": write the number without quotes") } else { Ok(()) };
            }
            Self::Ahead { by, fits } => {
                let (seconds, minutes) = (by / 1_000, MAX_AHEAD / 60_000);
                match seconds / 86_400 {
                    0..=1 => write!(f, "timestamp is {seconds} s ahead of the service's clock")?,
                    days => write!(f, "timestamp is {days} days ahead of the service's clock")?,
                }
                write!(f, ", at most {minutes} minutes are allowed")?;
                fits
            }
            Self::WrongUnit { stated, fits } => {
                write!(f, "timestamp is before 1973 if it means {}", stated.name())?;
                Some(fits)
            }
            Self::BeforeEarliest { fits } => {
                f.write_str("timestamp is before the year 1900")?;
                fits
            }
        };
        fits.map_or(Ok(()), |unit| write!(f, "; it looks like {}: add ?precision={}", unit.name(), unit.symbol()))
    }
}

impl std::error::Error for TimeError {}

/// How the timestamps of one request are read.
#[derive(Clone, Copy, Debug)]
pub struct Times<'c> {
    /// For times without offset.
    pub zone: &'c Zone,
    /// When the request arrived: the time of readings without timestamp.
    pub now: Millis,
    pub precision: Precision,
}

impl Times<'_> {
    /// Reads RFC 3339, a date or a local time.
    ///
    /// # Errors
    /// If it is none of these or out of range.
    pub fn of_text(&self, text: &str) -> Result<Millis, TimeError> {
        let t = utc_seconds(text.as_bytes()).or_else(|| timestamp::parse(text, self.zone));
        let t = t.ok_or_else(|| TimeError::NotATime { number_in_quotes: text.trim().parse::<f64>().is_ok() })?;
        self.check(t, || None)
    }

    /// Reads a number of units since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// If it is out of range or looks like a number in another unit.
    pub fn of_number(&self, number: Number) -> Result<Millis, TimeError> {
        let stated = self.precision;
        let t = number.millis(stated);
        let fits = || {
            let plausible = |unit: &Precision| number.millis(*unit).abs_diff(self.now) <= PLAUSIBLE as u64;
            PRECISIONS.into_iter().filter(|unit| *unit != stated).find(plausible)
        };
        // What is near now as it stands is never suspect, wherever the clock stands.
        if (EARLIEST..SUSPECT_BEFORE).contains(&t) && self.now.abs_diff(t) > PLAUSIBLE as u64 {
            return fits().map_or(Ok(t), |fits| Err(TimeError::WrongUnit { stated, fits }));
        }
        self.check(t, fits)
    }

    fn check(&self, t: Millis, fits: impl FnOnce() -> Option<Precision>) -> Result<Millis, TimeError> {
        let by = t.saturating_sub(self.now);
        if by > MAX_AHEAD {
            return Err(TimeError::Ahead { by, fits: fits() });
        }
        if t < EARLIEST {
            return Err(TimeError::BeforeEarliest { fits: fits() });
        }
        Ok(t)
    }
}

/// Reads exactly `YYYY-MM-DDTHH:MM:SSZ`, with `.f`, `.ff` or `.fff` before the `Z`; `None` for
/// everything else, right or wrong. Four times as fast as the general parser.
fn utc_seconds(text: &[u8]) -> Option<Millis> {
    let (seconds, fraction) = text.split_at_checked(19)?;
    let millis = match fraction {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=3).contains(&digits.len()) => {
            number(digits)? * [100, 10, 1][digits.len() - 1]
        }
        _ => return None,
    };
    let [_, _, _, _, b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _] = seconds else {
        return None;
    };
    let (year, month, day) = (number(&seconds[..4])?, number(&seconds[5..7])?, number(&seconds[8..10])?);
    let (hour, minute, second) = (number(&seconds[11..13])?, number(&seconds[14..16])?, number(&seconds[17..])?);
    // Leap seconds and impossible dates are left to the general parser.
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(seconds * 1_000 + millis)
}

/// A number of only ASCII digits.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |n, digit| digit.is_ascii_digit().then(|| n * 10 + i64::from(digit - b'0')))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, for years from 0 on. Years are counted from March, so that the leap day is the
/// last of its year and the months before it have lengths of a fixed pattern.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + (153 * months_since_march + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: &str = "2026-11-20T05:00:00Z";

    fn now() -> Millis {
        timestamp::parse(NOW, &Zone::utc()).unwrap()
    }

    fn shown(result: Result<Millis, TimeError>) -> String {
        result.map_or_else(|error| error.to_string(), timestamp::format)
    }

    #[track_caller]
    fn check_text(text: &str, expected: &str) {
        let zone = "Europe/Berlin".parse().unwrap();
        let times = Times { zone: &zone, now: now(), precision: Precision::Millis };
        assert_eq!(shown(times.of_text(text)), expected, "{text}");
    }

    #[track_caller]
    fn check_number(number: Number, precision: &str, expected: &str) {
        let times = Times { zone: &Zone::utc(), now: now(), precision: precision.parse().unwrap() };
        assert_eq!(shown(times.of_number(number)), expected, "{number:?} {precision}");
    }

    #[test]
    fn texts() {
        check_text("2026-11-20T05:00:00Z", NOW);
        check_text("2026-11-20T06:00:00.25+01:00", "2026-11-20T05:00:00.250Z");
        check_text("2026-11-20", "2026-11-19T23:00:00Z");
        check_text("2026-11-20 05:00:00", "2026-11-20T04:00:00Z");
        check_text("2026-11-20T05:05:00Z", "2026-11-20T05:05:00Z");
        check_text(
            "2026-11-20T05:05:01Z",
            "timestamp is 301 s ahead of the service's clock, at most 5 minutes are allowed",
        );
        check_text("1900-01-01T00:00:00Z", "1900-01-01T00:00:00Z");
        check_text("1899-12-31T23:59:59Z", "timestamp is before the year 1900");
        let not_a_time = "timestamp is neither RFC 3339 (2026-11-20T05:00:00Z) nor a date nor a number";
        check_text("yesterday", not_a_time);
        check_text("2026-02-29T00:00:00Z", not_a_time);
        check_text("1795150800000", &format!("{not_a_time}: write the number without quotes"));
    }

    #[test]
    fn numbers_in_every_unit() {
        use Number::{Fraction, Integer};
        check_number(Integer(1_795_150_800), "s", NOW);
        check_number(Integer(1_795_150_800_000), "ms", NOW);
        check_number(Integer(1_795_150_800_000_000), "us", NOW);
        check_number(Integer(1_795_150_800_000_000_000), "ns", NOW);
        check_number(Integer(1_795_150_799_999_999_999), "ns", "2026-11-20T04:59:59.999Z");
        check_number(Fraction(1_795_150_799.123), "s", "2026-11-20T04:59:59.123Z");
        check_number(Fraction(1_795_150_799_999.9), "ms", "2026-11-20T04:59:59.999Z");
        check_number(Integer(-1), "s", "1969-12-31T23:59:59Z");
        check_number(Fraction(-0.5), "ms", "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn numbers_in_the_wrong_unit() {
        use Number::{Fraction, Integer};
        let early = "timestamp is before 1973 if it means milliseconds; it looks like seconds: add ?precision=s";
        check_number(Integer(1_795_150_800), "ms", early);
        check_number(Fraction(1_795_150_800.5), "ms", early);
        let ahead = |days: u64, hint: &str| {
            format!("timestamp is {days} days ahead of the service's clock, at most 5 minutes are allowed{hint}")
        };
        let nanos = "; it looks like nanoseconds: add ?precision=ns";
        check_number(Integer(1_795_150_600_000_000_000), "ms", &ahead(20_777_185_241, nanos));
        let millis = "; it looks like milliseconds: add ?precision=ms";
        check_number(Integer(1_795_150_800_000), "s", &ahead(20_756_431, millis));
        // Nothing fits: told as it is.
        check_number(Integer(1_000), "ms", "1970-01-01T00:00:01Z");
        check_number(Integer(-9_000_000_000_000), "ms", "timestamp is before the year 1900");
        check_number(Fraction(1e300), "ms", &ahead(106_731_213, ""));
    }

    #[test]
    fn a_clock_that_stands_in_1970_suspects_nothing_near_it() {
        let times = Times { zone: &Zone::utc(), now: 1_000_000, precision: Precision::Millis };
        assert_eq!(times.of_number(Number::Integer(900_000)), Ok(900_000));
    }

    #[test]
    fn precisions() {
        assert_eq!("us".parse(), Ok(Precision::Micros));
        assert_eq!("m".parse::<Precision>(), Err("\"m\" is not a precision: write s, ms, us or ns".to_owned()));
    }

    #[test]
    fn the_shortcut_leaves_alone_what_it_does_not_know() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(utc_seconds(text.as_bytes()).map(timestamp::format).as_deref(), expected, "{text}");
        };
        check("2024-02-29T23:59:59Z", Some("2024-02-29T23:59:59Z"));
        check("2026-11-20T05:00:00.5Z", Some("2026-11-20T05:00:00.500Z"));
        check("2026-11-20T05:00:00.025Z", Some("2026-11-20T05:00:00.025Z"));
        for text in [
            "2100-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2016-12-31T23:59:60Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234Z",
            "2026-01-01T00:00:00.+1Z",
            "2026-01-01 00:00:00Z",
            "+026-01-01T00:00:00Z",
            "",
            "Z",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn the_shortcut_agrees_with_the_general_parser(t in -62_167_219_200_000..253_402_300_800_000i64) {
            prop_assert_eq!(utc_seconds(timestamp::format(t).as_bytes()), Some(t));
        }
    }
}
