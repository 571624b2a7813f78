//! The directories of the CSV sink: one per period and local date, and the times they cover.
//!
//! Used by `csv.rs` and `writer.rs`. Knows names and the calendar, reads no file. A date may be left
//! and entered again where clocks go back across midnight, and one may begin late where they go
//! forward, so the times of neighbours may overlap; every bucket of a directory starts within its own.

use super::disk::{self, unavailable};
use crate::sink::{Partition, SinkError};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Calendar, Period, Zone};
use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use std::path::{Path, PathBuf};
use std::{fs, io};

const DAY: Millis = 86_400_000;

/// One directory: the buckets of a period that start on a local date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DateDir {
    pub(super) period: Period,
    pub(super) date: Date,
}

impl DateDir {
    pub(super) fn of(bucket: &Bucket, zone: &Zone) -> Self {
        Self { period: bucket.period, date: zone.date(bucket.start) }
    }

    pub(super) fn path(&self, root: &Path) -> PathBuf {
        period_path(root, self.period).join(format!("date={}", self.date))
    }

    /// Its buckets as the rest of the program names them.
    pub(super) fn partition(&self, zone: &Zone) -> Partition {
        let first = midnight(self.date, zone);
        let next_date = self.date.saturating_add(1.day());
        let next = midnight(next_date, zone);
        // A midnight that was skipped: the date may have begun before it by as much as was skipped.
        let skipped = span(self.date.at(0, 0, 0, 0), zone.local(first));
        // The clocks went back in the day after: some of its first hour may be this date once more.
        let repeated = span(zone.local(next + DAY), next_date.saturating_add(1.day()).at(0, 0, 0, 0));
        Partition { period: self.period, from: first - skipped.max(0), to: next + repeated.max(0) }
    }

    /// When the last of its buckets is over.
    pub(super) fn end(&self, zone: &Zone) -> Millis {
        let calendar = Calendar::new(vec![self.period], zone.clone()).expect("one period is a calendar");
        calendar.bucket(self.period, self.partition(zone).to - 1).end
    }
}

/// The directories there are, of one period, in the order of their dates. Others are not ours.
pub(super) fn list(root: &Path, period: Period) -> Result<Vec<DateDir>, SinkError> {
    let mut dirs: Vec<DateDir> = names(&period_path(root, period))?
        .iter()
        .filter_map(|name| {
            let text = name.strip_prefix("date=")?;
            let date = text.parse::<Date>().ok().filter(|date| date.to_string() == text)?;
            Some(DateDir { period, date })
        })
        .collect();
    dirs.sort_unstable();
    Ok(dirs)
}

/// The directories of all periods.
pub(super) fn list_all(root: &Path) -> Result<Vec<DateDir>, SinkError> {
    let mut dirs = Vec::new();
    for period in periods(root)? {
        dirs.extend(list(root, period)?);
    }
    Ok(dirs)
}

/// Takes a directory away from all readers, durable when it returns: it gets a name that is no date.
pub(super) fn set_aside(root: &Path, dir: DateDir) -> Result<(), SinkError> {
    let path = dir.path(root);
    disk::rename(&path, &disk::temporary(&path))
}

/// The directories that were set aside, of all periods.
pub(super) fn list_set_aside(root: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let mut paths = Vec::new();
    for path in periods(root)?.into_iter().map(|period| period_path(root, period)) {
        let names = names(&path)?.into_iter();
        paths.extend(names.filter(|name| name.starts_with("date=") && disk::is_temporary(name)).map(|n| path.join(n)));
    }
    Ok(paths)
}

fn periods(root: &Path) -> Result<Vec<Period>, SinkError> {
    let ours = |name: &String| {
        let text = name.strip_prefix("period=")?;
        text.parse::<Period>().ok().filter(|period| period.to_string() == text)
    };
    Ok(names(root)?.iter().filter_map(ours).collect())
}

fn period_path(root: &Path, period: Period) -> PathBuf {
    root.join(format!("period={period}"))
}

/// The names in a directory; none if there is no such directory.
pub(super) fn names(path: &Path) -> Result<Vec<String>, SinkError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| unavailable("list", path, &error)),
    }
}

fn midnight(date: Date, zone: &Zone) -> Millis {
    zone.instant(date.at(0, 0, 0, 0)).expect("dates of accepted times are in range")
}

/// From one reading of a clock to another.
fn span(from: DateTime, to: DateTime) -> Millis {
    to.duration_since(from).as_millis() as Millis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::timestamp;

    fn dir(period: &str, date: &str) -> DateDir {
        DateDir { period: period.parse().unwrap(), date: date.parse().unwrap() }
    }

    fn check(zone: &str, period: &str, date: &str, from: &str, to: &str, end: &str) {
        let (zone, dir) = (zone.parse().unwrap(), dir(period, date));
        let partition = dir.partition(&zone);
        let got = [partition.from, partition.to, dir.end(&zone)].map(timestamp::format);
        assert_eq!(got, [from, to, end], "{period} {date} {zone}");
    }

    #[test]
    fn times_of_a_directory() {
        check("UTC", "1m", "2026-11-20", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", "2026-11-21T00:00:00Z");
        check(
            "Europe/Berlin",
            "1d",
            "2026-03-29",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        check("UTC", "1mo", "2026-02-01", "2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z", "2026-03-01T00:00:00Z");
        // Twelve hours on the UTC grid reach over the local midnight.
        check(
            "Europe/Berlin",
            "12h",
            "2026-11-20",
            "2026-11-19T23:00:00Z",
            "2026-11-20T23:00:00Z",
            "2026-11-21T00:00:00Z",
        );
    }

    /// Every minute of a directory's date starts within its times.
    fn check_minutes(zone: &str, around: &str) {
        let name: Zone = zone.parse().unwrap();
        let middle = timestamp::parse(around, &Zone::utc()).unwrap();
        for start in (middle - 2 * DAY..middle + 2 * DAY).step_by(60_000) {
            let bucket = Bucket { period: Period::Seconds(60), start, end: start + 60_000 };
            let partition = DateDir::of(&bucket, &name).partition(&name);
            assert!(partition.from <= start && start < partition.to, "{} in {zone}", timestamp::format(start));
        }
    }

    #[test]
    fn midnights_that_are_skipped_or_come_twice() {
        check_minutes("America/St_Johns", "2010-11-07T03:00:00Z");
        check_minutes("America/Sao_Paulo", "2018-11-04T03:00:00Z");
        check_minutes("America/Toronto", "1919-03-31T04:30:00Z");
        check_minutes("Pacific/Apia", "2011-12-30T10:00:00Z");
        check_minutes("Pacific/Kwajalein", "1969-09-30T13:00:00Z");
        check_minutes("Europe/Berlin", "2026-10-25T01:00:00Z");
    }

    #[test]
    fn only_directories_named_as_ours_are_listed() {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "period=1m/date=2026-11-20",
            "period=1m/date=2026-11-19",
            "period=1m/date=20261121",
            "period=60s/date=2026-11-20",
            "x",
        ] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        assert_eq!(list_all(root.path()).unwrap(), [dir("1m", "2026-11-19"), dir("1m", "2026-11-20")]);
        assert_eq!(list(root.path(), Period::Day).unwrap(), []);
    }
}
