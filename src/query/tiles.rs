//! Which stored buckets make up a range of time: the coarsest that fit, without a gap and without overlap.
//!
//! Called by `summary.rs`. Pure arithmetic on the calendar. A bucket of any stored period holds every reading of its
//! time, so a coarse one stands for all the finer ones below it: a year is twelve rows where months are stored. From
//! when on that is so of a period that was added later, or whose rows are removed, says `stats/complete.rs`.

use super::window::Segment;
use crate::stats::Millis;
use crate::stats::calendar::{Calendar, Period};
use crate::stats::complete::Complete;

/// A range that stored buckets make up exactly.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tiling {
    pub from: Millis,
    pub to: Millis,
    /// In the order of time; neighbours differ in their period.
    pub tiles: Vec<Segment>,
}

/// The tiling of `[from, to)`; where its ends do not lie on the grid of any tiling, of the range up to the next ends of
/// buckets around it, of the finest stored period that has all readings of that time. `cut` has every tile end where a
/// bucket of that period does. `None` if no stored period is fine enough for `cut`.
pub(super) fn tiling(
    calendar: &Calendar,
    complete: &Complete,
    from: Millis,
    to: Millis,
    cut: Option<Period>,
) -> Option<Tiling> {
    let trusted = Stored::complete(calendar, complete);
    let exact = trusted.within(from, to, cut).map(|tiles| Tiling { from, to, tiles });
    let all = Stored::all(calendar);
    exact.or_else(|| trusted.around(from, to, cut)).or_else(|| {
        // A cut is finer than what is complete there: what there is of it is better than nothing.
        let pieces = [&trusted, &all];
        pieced(calendar, &pieces, from, to, cut).map(|tiles| Tiling { from, to, tiles }).or_else(|| {
            let finest = calendar.periods()[0];
            let (from, to) = (calendar.bucket(finest, from).start, next_end(calendar, finest, to));
            pieced(calendar, &pieces, from, to, cut).map(|tiles| Tiling { from, to, tiles })
        })
    })
}

/// The stored periods, from fine to coarse, and from when on a bucket of each may be a tile.
struct Stored<'c> {
    calendar: &'c Calendar,
    periods: Vec<(Period, Millis)>,
}

/// The tiles of a range, piece by piece where it is cut; each by the first that can make it up.
fn pieced(
    calendar: &Calendar,
    by: &[&Stored<'_>],
    from: Millis,
    to: Millis,
    cut: Option<Period>,
) -> Option<Vec<Segment>> {
    let mut tiles: Vec<Segment> = Vec::new();
    let mut at = from;
    while at < to {
        let end = cut.map_or(to, |period| calendar.bucket(period, at).end.min(to));
        for tile in by.iter().find_map(|stored| stored.fill(stored.periods.len(), at, end))? {
            match tiles.last_mut() {
                Some(last) if last.period == tile.period && last.to == tile.from => last.to = tile.to,
                _ => tiles.push(tile),
            }
        }
        at = end;
    }
    Some(tiles)
}

/// The end of the bucket of a period that holds what is before `t`.
fn next_end(calendar: &Calendar, period: Period, t: Millis) -> Millis {
    let bucket = calendar.bucket(period, t);
    if bucket.start == t { t } else { bucket.end }
}

impl<'c> Stored<'c> {
    fn all(calendar: &'c Calendar) -> Self {
        Self { calendar, periods: calendar.periods().iter().map(|&period| (period, Millis::MIN)).collect() }
    }

    /// Only buckets that have all readings of their time. Before all of these begin there are those of the period that
    /// begins first.
    fn complete(calendar: &'c Calendar, complete: &Complete) -> Self {
        let since = |&period: &Period| (period, complete.since(calendar, period));
        let mut periods: Vec<(Period, Millis)> = calendar.periods().iter().map(since).collect();
        let first = periods.iter().map(|(_, since)| *since).min();
        if let Some((_, since)) = periods.iter_mut().rev().find(|(_, since)| Some(*since) == first) {
            *since = Millis::MIN;
        }
        Self { calendar, periods }
    }

    fn within(&self, from: Millis, to: Millis, cut: Option<Period>) -> Option<Vec<Segment>> {
        pieced(self.calendar, &[self], from, to, cut)
    }

    /// The tiling of the range and of what lies beside its ends in a bucket, the finest possible.
    fn around(&self, from: Millis, to: Millis, cut: Option<Period>) -> Option<Tiling> {
        (0..self.periods.len()).find_map(|finest| {
            let holding = |t: Millis| {
                let buckets = self.periods[finest..].iter().filter(|(_, since)| *since <= t);
                let mut buckets = buckets.map(|(period, since)| (self.calendar.bucket(*period, t), *since));
                buckets.find(|(bucket, since)| bucket.start >= *since).map(|(bucket, _)| bucket)
            };
            let from = holding(from)?.start;
            let to = holding(to).map(|bucket| if bucket.start == to { to } else { bucket.end })?;
            self.within(from, to, cut).map(|tiles| Tiling { from, to, tiles })
        })
    }

    /// The buckets of the coarsest of the first `n` periods that lie in the range, with finer ones on both sides. Where
    /// those do not fit (hours beside a day that begins at half past), the next finer period is tried for all of it.
    fn fill(&self, n: usize, from: Millis, to: Millis) -> Option<Vec<Segment>> {
        if from == to {
            return Some(Vec::new());
        }
        let periods = &self.periods[..n];
        // Else every way would be tried in vain.
        let on_a_grid = |t| periods.iter().any(|(period, _)| self.calendar.bucket(*period, t).start == t);
        if !on_a_grid(from) || !on_a_grid(to) {
            return None;
        }
        for (i, &(period, since)) in periods.iter().enumerate().rev().filter(|(_, (_, since))| *since < to) {
            let first = next_end(self.calendar, period, from.max(since));
            let end = self.calendar.bucket(period, to).start;
            if first >= end {
                continue;
            }
            if let (Some(mut tiles), Some(after)) = (self.fill(i, from, first), self.fill(i, end, to)) {
                tiles.push(Segment { period, from: first, to: end });
                tiles.extend(after);
                return Some(tiles);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::timestamp;
    use proptest::prelude::*;

    fn calendar(periods: &str, zone: &str) -> Calendar {
        let periods = periods.split(',').map(|p| p.parse().unwrap()).collect();
        Calendar::new(periods, zone.parse().unwrap()).unwrap()
    }

    /// Times are local; tiles are shown as `period xN`.
    fn check(periods: &str, zone: &str, range: [&str; 2], cut: Option<&str>, expected: &str) -> Tiling {
        let calendar = calendar(periods, zone);
        let [from, to] = range.map(|text| timestamp::parse(text, calendar.zone()).unwrap());
        let tiling = tiling(&calendar, &Complete::default(), from, to, cut.map(|p| p.parse().unwrap())).unwrap();
        let shown = tiling.tiles.iter().map(|tile| {
            let (mut at, mut n) = (tile.from, 0);
            while at < tile.to {
                (at, n) = (calendar.bucket(tile.period, at).end, n + 1);
            }
            format!("{} x{n}", tile.period)
        });
        assert_eq!(shown.collect::<Vec<_>>().join(", "), expected, "{range:?}");
        tiling
    }

    #[test]
    fn the_coarsest_that_fit() {
        let all = "1m,1h,1d,1w,1mo";
        check(all, "UTC", ["2026-01-01", "2027-01-01"], None, "1mo x12");
        check(all, "Europe/Berlin", ["2026-03-01", "2026-04-01"], None, "1mo x1");
        check(all, "UTC", ["2026-11-19 22:58", "2026-11-21 01:01"], None, "1m x2, 1h x1, 1d x1, 1h x1, 1m x1");
        // Between two months that are not whole, weeks; the 2nd of November is a Monday.
        check(all, "UTC", ["2026-11-01", "2026-11-30"], None, "1d x1, 1w x4");
        // Buckets of which neither divides the other.
        check("10m,15m", "UTC", ["2026-11-20 00:15", "2026-11-20 01:00"], None, "15m x3");
        check("10m,15m", "UTC", ["2026-11-20 00:10", "2026-11-20 00:40"], None, "10m x3");
    }

    #[test]
    fn ends_off_the_grid_move_outward() {
        let tiling = check("1m,1h", "UTC", ["2026-11-20 05:00:30", "2026-11-20 06:00:01"], None, "1h x1, 1m x1");
        assert_eq!([tiling.from, tiling.to].map(timestamp::format), ["2026-11-20T05:00:00Z", "2026-11-20T06:01:00Z"]);
        // Days that begin at half past beside hours: a day alone is exact, more is put together from hours.
        let day = check("1h,1d", "Asia/Kolkata", ["2026-11-20", "2026-11-21"], None, "1d x1");
        assert_eq!(timestamp::format(day.from), "2026-11-19T18:30:00Z");
        let more = check("1h,1d", "Asia/Kolkata", ["2026-11-20", "2026-11-21 02:00"], None, "1h x27");
        assert_eq!([more.from, more.to].map(timestamp::format), ["2026-11-19T18:00:00Z", "2026-11-20T21:00:00Z"]);
    }

    #[test]
    fn tiles_end_where_the_cut_is() {
        check("1h,1d,1mo", "UTC", ["2026-11-29", "2026-12-02"], Some("1mo"), "1d x3");
        check("1h,1d,1mo", "UTC", ["2026-11-01", "2026-12-02"], Some("1d"), "1d x31");
        check("1h,1d", "UTC", ["2026-11-01 22:00", "2026-11-03"], Some("6h"), "1h x26");
        check("1h,1d", "UTC", ["2026-11-01 22:00", "2026-11-03"], Some("1d"), "1h x2, 1d x1");
        let hours = calendar("1h", "Asia/Kolkata");
        assert_eq!(tiling(&hours, &Complete::default(), 0, 86_400_000, Some(Period::Day)), None);
    }

    /// `since`: from when on buckets of a period are complete; of the others all are.
    fn check_since(periods: &str, since: &[(&str, &str)], range: [&str; 2], cut: Option<&str>, expected: &str) {
        let calendar = calendar(periods, "UTC");
        let at = |text: &str| timestamp::parse(text, calendar.zone()).unwrap();
        let mut complete = Complete::default();
        complete.store(&calendar, 0);
        for (period, time) in since {
            complete.remove(&calendar, period.parse().unwrap(), at(time));
        }
        let [from, to] = range.map(at);
        let tiling = tiling(&calendar, &complete, from, to, cut.map(|p| p.parse().unwrap())).unwrap();
        let hour = |t: Millis| timestamp::format(t)[5..16].replace('T', " ");
        let shown = tiling.tiles.iter().map(|tile| format!("{} {} {}", hour(tile.from), tile.period, hour(tile.to)));
        assert_eq!(shown.collect::<Vec<_>>().join(", "), expected, "{periods} {since:?} {range:?} {cut:?}");
    }

    #[test]
    fn only_what_is_complete() {
        let year = ["2026-01-01", "2027-01-01"];
        // Days were added in the middle of the 10th of June, months of days in October.
        let added = [("1d", "2026-06-10 12:00"), ("1mo", "2026-10-02")];
        let expected = "01-01 00:00 1h 06-11 00:00, 06-11 00:00 1d 11-01 00:00, 11-01 00:00 1mo 01-01 00:00";
        check_since("1m,1h,1d,1mo", &added, year, None, expected);
        let expected = "01-01 00:00 1h 06-11 00:00, 06-11 00:00 1d 01-01 00:00";
        check_since("1m,1h,1d,1mo", &added, year, Some("1d"), expected);
        // All was added at some time: before that, what was added first.
        let all = [("1h", "2026-03-01"), ("1d", "2026-02-01")];
        check_since("1h,1d", &all, ["2026-01-01", "2026-04-01"], None, "01-01 00:00 1d 04-01 00:00");
        // Minutes are kept for a while, and hours for longer: an end that lies inside of what is kept moves outward.
        let kept = [("1m", "2026-06-10 12:00"), ("1h", "2026-03-01")];
        let range = ["2026-06-09 22:30", "2026-06-10 13:30"];
        let expected = "06-09 22:00 1h 06-10 13:00, 06-10 13:00 1m 06-10 13:30";
        check_since("1m,1h,1d", &kept, range, None, expected);
        let range = ["2026-02-01 10:30", "2026-02-03 10:30"];
        check_since("1m,1h,1d", &kept, range, None, "02-01 00:00 1d 02-04 00:00");
        // Of what cannot be cut otherwise there is what there is.
        let range = ["2026-02-27 10:30", "2026-03-02 01:00"];
        let expected = "02-27 10:30 1m 02-27 11:00, 02-27 11:00 1h 03-02 01:00";
        check_since("1m,1h,1d", &kept, range, Some("1h"), expected);
        // And where it can, what is complete.
        let added = [("1m", "2026-03-05"), ("1h", "2026-03-10")];
        let expected = "03-01 00:00 1h 03-05 00:00, 03-05 00:00 1m 03-10 00:00, 03-10 00:00 1h 03-12 00:00";
        check_since("1m,1h,1d", &added, ["2026-03-01", "2026-03-12"], Some("1h"), expected);
    }

    proptest! {
        /// Whatever is complete: the tiles touch, reach from end to end, and are whole buckets; none begins before its
        /// period is complete while another one is.
        #[test]
        fn tiles_are_complete(
            from in 1_780_000_000_000i64..1_790_000_000_000, length in 1i64..10_000_000_000,
            since in prop::collection::vec(prop::option::of(1_775_000_000i64..1_800_000_000), 4),
            cut in prop::sample::select(vec![None, Some(Period::Seconds(3_600)), Some(Period::Day), Some(Period::Month)]),
        ) {
            let calendar = calendar("10m,1h,1d,1mo", "Europe/Berlin");
            let mut complete = Complete::default();
            complete.store(&calendar, 0);
            for (period, since) in calendar.periods().iter().zip(&since) {
                complete.remove(&calendar, *period, since.map_or(Millis::MIN, |since| since * 1_000));
            }
            let tiling = tiling(&calendar, &complete, from, from + length, cut).unwrap();
            prop_assert!(tiling.from <= from && from + length <= tiling.to);
            let starts = calendar.periods().iter().map(|period| complete.since(&calendar, *period));
            let first = starts.clone().min().unwrap();
            let mut at = tiling.from;
            for tile in &tiling.tiles {
                prop_assert_eq!(tile.from, at);
                prop_assert_eq!(calendar.bucket(tile.period, tile.from).start, tile.from);
                prop_assert_eq!(calendar.bucket(tile.period, tile.to).start, tile.to);
                let since = complete.since(&calendar, tile.period);
                if cut.is_none() {
                    prop_assert!(tile.from >= since || since == first, "{} {tiling:?}", tile.period);
                }
                at = tile.to;
            }
            prop_assert_eq!(at, tiling.to);
            // Of a period that always was complete no end moves beyond a bucket.
            for (period, since) in calendar.periods().iter().zip(starts) {
                if since == Millis::MIN {
                    prop_assert!(calendar.bucket(*period, from).start <= tiling.from);
                    prop_assert!(tiling.to <= next_end(&calendar, *period, from + length));
                    break;
                }
            }
        }

        /// Whatever the range: the tiles are whole buckets, touch, and reach from end to end; no end moves further than
        /// a finest bucket.
        #[test]
        fn tiles_cover_the_range_once(
            from in 1_500_000_000_000i64..1_900_000_000_000, length in 1i64..40_000_000_000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"]),
        ) {
            let calendar = calendar("10m,1h,1d,1w,1mo", zone);
            let to = from + length;
            let tiling = tiling(&calendar, &Complete::default(), from, to, None).unwrap();
            prop_assert!(tiling.from <= from && from - tiling.from < 600_000);
            prop_assert!(to <= tiling.to && tiling.to - to < 600_000);
            let mut at = tiling.from;
            for tile in tiling.tiles {
                prop_assert_eq!(tile.from, at);
                prop_assert!(tile.to > at);
                prop_assert_eq!(calendar.bucket(tile.period, tile.from).start, tile.from);
                prop_assert_eq!(calendar.bucket(tile.period, tile.to).start, tile.to);
                at = tile.to;
            }
            prop_assert_eq!(at, tiling.to);
        }
    }
}
