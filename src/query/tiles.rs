//! Which stored buckets make up a range of time: the coarsest that fit, without a gap and without overlap.
//!
//! Called by `summary.rs`. Pure arithmetic on the calendar. A bucket of any stored period holds every reading of its
//! time, so a coarse one stands for all the finer ones below it: a year is twelve rows where months are stored.

use super::window::Segment;
use crate::stats::Millis;
use crate::stats::calendar::{Calendar, Period};

/// A range that stored buckets make up exactly.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tiling {
    pub from: Millis,
    pub to: Millis,
    /// In the order of time; neighbours differ in their period.
    pub tiles: Vec<Segment>,
}

/// The tiling of `[from, to)`; where its ends do not lie on the grid of any tiling, of the range up to the next ends of
/// buckets of the finest stored period around it. `cut` has every tile end where a bucket of that period does.
/// `None` if no stored period is fine enough for `cut`.
pub(super) fn tiling(calendar: &Calendar, from: Millis, to: Millis, cut: Option<Period>) -> Option<Tiling> {
    if let Some(tiles) = within(calendar, from, to, cut) {
        return Some(Tiling { from, to, tiles });
    }
    let finest = calendar.periods()[0];
    let from = calendar.bucket(finest, from).start;
    let last = calendar.bucket(finest, to);
    let to = if last.start == to { to } else { last.end };
    within(calendar, from, to, cut).map(|tiles| Tiling { from, to, tiles })
}

/// The tiles of a range, piece by piece where it is cut.
fn within(calendar: &Calendar, from: Millis, to: Millis, cut: Option<Period>) -> Option<Vec<Segment>> {
    let mut tiles: Vec<Segment> = Vec::new();
    let mut at = from;
    while at < to {
        let end = cut.map_or(to, |period| calendar.bucket(period, at).end.min(to));
        for tile in fill(calendar, calendar.periods(), at, end)? {
            match tiles.last_mut() {
                Some(last) if last.period == tile.period && last.to == tile.from => last.to = tile.to,
                _ => tiles.push(tile),
            }
        }
        at = end;
    }
    Some(tiles)
}

/// The buckets of the coarsest of these periods that lie in the range, with finer ones on both sides. Where those do
/// not fit (hours beside a day that begins at half past), the next finer period is tried for all of it.
fn fill(calendar: &Calendar, periods: &[Period], from: Millis, to: Millis) -> Option<Vec<Segment>> {
    if from == to {
        return Some(Vec::new());
    }
    // Else every way would be tried in vain.
    let on_a_grid = |t| periods.iter().any(|&period| calendar.bucket(period, t).start == t);
    if !on_a_grid(from) || !on_a_grid(to) {
        return None;
    }
    for (i, &period) in periods.iter().enumerate().rev() {
        let first = calendar.bucket(period, from);
        let first = if first.start == from { from } else { first.end };
        let end = calendar.bucket(period, to).start;
        if first >= end {
            continue;
        }
        let sides = (fill(calendar, &periods[..i], from, first), fill(calendar, &periods[..i], end, to));
        if let (Some(mut tiles), Some(after)) = sides {
            tiles.push(Segment { period, from: first, to: end });
            tiles.extend(after);
            return Some(tiles);
        }
    }
    None
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
        let tiling = tiling(&calendar, from, to, cut.map(|p| p.parse().unwrap())).unwrap();
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
        assert_eq!(tiling(&hours, 0, 86_400_000, Some(Period::Day)), None);
    }

    proptest! {
        /// Whatever the range: the tiles are whole buckets, touch, and reach from end to end; no end moves further than
        /// a finest bucket.
        #[test]
        fn tiles_cover_the_range_once(
            from in 1_500_000_000_000i64..1_900_000_000_000, length in 1i64..40_000_000_000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"]),
        ) {
            let calendar = calendar("10m,1h,1d,1w,1mo", zone);
            let to = from + length;
            let tiling = tiling(&calendar, from, to, None).unwrap();
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
