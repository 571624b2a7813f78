//! Instants as text: what is accepted from people and programs, and the one form that is written.
//!
//! Used by the decoders, by query parameters, by the sinks and by the CLI.

use super::Millis;
use super::calendar::Zone;
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat};

/// RFC 3339 in UTC, with a fraction only where there is one: `2026-11-20T05:00:00Z`.
#[must_use]
pub fn format(t: Millis) -> String {
    DateTime::from_timestamp_millis(t).map_or_else(|| t.to_string(), |d| d.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Reads RFC 3339, a date, or a date and time without offset; the last two in `zone`. A space may
/// stand for the `T`. Fractions below a millisecond are cut off. `None` if it is none of these.
#[must_use]
pub fn parse(text: &str, zone: &Zone) -> Option<Millis> {
    let text = text.trim();
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.timestamp_millis());
    }
    let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    zone.instant(civil(local)?)
}

/// chrono's local date and time as jiff's, which knows the zone's rules.
fn civil(local: NaiveDateTime) -> Option<jiff::civil::DateTime> {
    let utc = jiff::Timestamp::from_millisecond(local.and_utc().timestamp_millis()).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_datetime(utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_instants() {
        let check = |text: &str, zone: &str, expected: Option<&str>| {
            let got = parse(text, &zone.parse().unwrap()).map(format);
            assert_eq!(got.as_deref(), expected, "{text} in {zone}");
        };
        check("2026-11-20T05:00:00Z", "UTC", Some("2026-11-20T05:00:00Z"));
        check("2026-11-20T05:00:00.125+01:00", "UTC", Some("2026-11-20T04:00:00.125Z"));
        check("2026-11-20", "Europe/Berlin", Some("2026-11-19T23:00:00Z"));
        check("2026-07-01 12:30:00", "Europe/Berlin", Some("2026-07-01T10:30:00Z"));
        check("2026-07-01T12:30", "UTC", Some("2026-07-01T12:30:00Z"));
        // Does not exist in Berlin: an hour later by the clock.
        check("2026-03-29 02:30:00", "Europe/Berlin", Some("2026-03-29T01:30:00Z"));
        check("20.11.2026", "UTC", None);
        check("", "UTC", None);
    }
}
