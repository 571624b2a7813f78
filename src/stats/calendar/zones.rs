//! Every zone of the bundled database from 2020 to 2030: buckets tile the time line, and each that others move up into is
//! tiled by them.
//!
//! What a bucket must be is said by the local clock, not by the calendar. Zones that have the same rules in these years
//! are looked at once: in `make test` on the days around changes of clocks and on every 41st, by `make zones` on every
//! day.

use super::*;
use std::collections::BTreeSet;

const PERIODS: [&str; 7] = ["1m", "15m", "1h", "1d", "1w", "1mo", "1y"];
const DAY: Millis = 86_400_000;

fn at(date: &str) -> Millis {
    date.parse::<Date>().unwrap().at(0, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp().as_millisecond()
}

/// The instants of these years, and a month beside them, at which clocks change, with the offset from then on; first the offset before.
fn changes(zone: &Zone) -> Vec<(Millis, i32)> {
    let (from, to) = (timestamp(at("2019-12-01")), timestamp(at("2031-02-01")));
    let after = zone.rules.following(from).take_while(|change| change.timestamp() < to);
    let after = after.map(|change| (change.timestamp().as_millisecond(), change.offset().seconds()));
    [(Millis::MIN, zone.rules.to_offset(from).seconds())].into_iter().chain(after).collect()
}

/// Neighbours touch, and the bucket is the same for all of its time.
fn check_bucket(calendar: &Calendar, period: Period, t: Millis) -> Bucket {
    let bucket = calendar.bucket(period, t);
    assert!(bucket.contains(t), "{bucket:?} {t}");
    for (t, place) in [(bucket.start, "start"), (bucket.end - 1, "end")] {
        assert_eq!(calendar.bucket(period, t), bucket, "{place}");
    }
    assert_eq!(calendar.bucket(period, bucket.start - 1).end, bucket.start, "{bucket:?}");
    assert_eq!(calendar.bucket(period, bucket.end).start, bucket.end, "{bucket:?}");
    bucket
}

/// The buckets of the period that feeds this one make it up, and each of them says so.
fn check_tiled(calendar: &Calendar, parent: Bucket) {
    let Some(finer) = calendar.feeder(&parent) else {
        assert_eq!(parent.period, calendar.periods()[0], "{parent:?} is fed by nothing");
        return;
    };
    let mut at = parent.start;
    while at < parent.end {
        let child = calendar.bucket(finer, at);
        assert_eq!(child.start, at, "a gap in {parent:?}");
        assert!(calendar.parents(&child).contains(&parent), "{child:?} does not feed {parent:?}");
        at = child.end;
    }
    assert_eq!(at, parent.end, "{parent:?} ends inside of a bucket of {finer}");
}

/// The day, and what begins with it: by the local clock, by its neighbours, and by what moves up into it.
fn check_day(calendar: &Calendar, t: Millis) -> Bucket {
    let day = check_bucket(calendar, Period::Day, t);
    let date = |t: Millis| calendar.zone.rules.to_datetime(timestamp(t)).date();
    let today = date(day.start);
    assert!(date(day.start - 1) < today && today == date(day.end - 1) && today < date(day.end), "{day:?}");
    check_tiled(calendar, day);
    let first = [
        (Period::Week, today.weekday() == Weekday::Monday),
        (Period::Month, today.day() == 1),
        (Period::Year, today.day_of_year() == 1),
    ];
    for (period, begins) in first {
        // Where a whole date was skipped, as at the date line, a month may begin with its second day; not in these years.
        assert_eq!(calendar.bucket(period, day.start).start == day.start, begins, "{period} at {day:?}");
        if begins {
            check_tiled(calendar, check_bucket(calendar, period, day.start));
        }
    }
    // A reading has one way into each of its buckets.
    for t in [day.start, day.end - 1] {
        let roots = calendar.roots(t).buckets;
        assert_eq!(roots, [calendar.bucket(calendar.periods[0], t)]);
        for &period in &calendar.periods {
            assert_eq!(calendar.ancestor(&roots[0], period), Some(calendar.bucket(period, t)), "{t}");
        }
    }
    day
}

fn calendar(zone: &str) -> Calendar {
    let periods = PERIODS.iter().map(|period| period.parse().unwrap()).collect();
    Calendar::new(periods, zone.parse().unwrap()).unwrap()
}

/// A zone for each set of rules in these years, with its changes; what another name has the same of is the same.
fn zones() -> Vec<(Calendar, Vec<(Millis, i32)>)> {
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    assert!(names.len() > 400, "{} zones, more even without links", names.len());
    let mut seen = BTreeSet::new();
    let of = |name: &String| {
        let calendar = calendar(name);
        let changes = changes(&calendar.zone);
        seen.insert(changes.clone()).then_some((calendar, changes))
    };
    let zones: Vec<_> = names.iter().filter_map(of).collect();
    assert!(zones.len() > 50, "{} sets of rules", zones.len());
    zones
}

#[test]
fn days_around_every_change_of_every_zone() {
    for (calendar, changes) in zones() {
        let around = changes.iter().skip(1).flat_map(|(t, _)| (-1..=1).map(move |day| t + day * DAY));
        let some = (at("2020-01-01")..at("2031-01-01")).step_by(41 * DAY.unsigned_abs() as usize);
        around.chain(some).for_each(|t| _ = check_day(&calendar, t));
        for (t, _) in changes.iter().skip(1) {
            for &period in &calendar.periods {
                for t in [t - 1, *t] {
                    check_bucket(&calendar, period, t);
                }
            }
        }
        check_tiled(&calendar, calendar.bucket(Period::Seconds(3_600), at("2020-01-01")));
        check_tiled(&calendar, calendar.bucket(Period::Seconds(900), at("2020-01-01")));
    }
}

#[test]
#[ignore = "minutes: make zones"]
fn every_day_of_every_zone() {
    for (calendar, _) in zones() {
        let mut t = at("2020-01-01");
        let mut days = 0;
        while t < at("2031-01-01") {
            t = check_day(&calendar, t).end;
            days += 1;
        }
        // Not one more or less, even where clocks change at midnight.
        assert!((4_018..=4_019).contains(&days), "{}: {days} days", calendar.zone);
    }
}
