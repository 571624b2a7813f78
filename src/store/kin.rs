//! Which buckets meet further up: readings of different lengths must not come into two of them.
//!
//! Made by `ingest/commit/` for frames that need it, and followed by the stores in `apply`. A minute that holds
//! vectors of two numbers and another that holds vectors of three could not both move up into their hour; so the
//! length of a source is the same in all open lives inside one coarsest bucket.

use super::BucketDeltas;
use crate::stats::calendar::{Bucket, Calendar, Period};

/// For each bucket of a frame, the coarsest buckets into which its moments will have moved in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// The periods in which lives are to be looked for, the coarsest first: there most sources are found.
    pub periods: Vec<Period>,
    /// Of each of the frame's deltas: every life that lies within one of these buckets meets it.
    pub tops: Vec<Vec<Bucket>>,
}

/// A source that a frame brings to a bucket, and that has readings of another length in a life that meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Index in the frame's deltas.
    pub delta: usize,
    /// Index in the sources of these.
    pub source: usize,
    /// The length of the readings there are.
    pub held: usize,
}

impl Kin {
    #[must_use]
    pub fn of(calendar: &Calendar, deltas: &[BucketDeltas]) -> Self {
        let periods = calendar.periods().iter().rev().copied().collect();
        Self { periods, tops: deltas.iter().map(|deltas| tops(calendar, deltas.bucket)).collect() }
    }
}

/// Whether a life of this bucket will meet all that lies within these coarsest ones.
#[must_use]
pub fn within(tops: &[Bucket], bucket: &Bucket) -> bool {
    tops.iter().any(|top| top.start <= bucket.start && bucket.end <= top.end)
}

fn tops(calendar: &Calendar, bucket: Bucket) -> Vec<Bucket> {
    let mut tops = Vec::new();
    let mut below = vec![bucket];
    while let Some(bucket) = below.pop() {
        let parents = calendar.parents(&bucket);
        if parents.is_empty() && !tops.contains(&bucket) {
            tops.push(bucket);
        }
        below.extend(parents);
    }
    tops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::timestamp;

    #[test]
    fn the_coarsest_buckets_of_each_way_up() {
        let check = |periods: &str, zone: &str, expected: &[&str]| {
            let periods = periods.split(',').map(|p| p.parse().unwrap()).collect();
            let calendar = Calendar::new(periods, zone.parse().unwrap()).unwrap();
            let at = timestamp::parse("2026-11-20T05:00:30Z", calendar.zone()).unwrap();
            let show = |b: &Bucket| format!("{} {}", b.period, &timestamp::format(b.start)[..16]);
            let mut tops: Vec<_> = tops(&calendar, calendar.roots(at).buckets[0]).iter().map(show).collect();
            tops.sort();
            assert_eq!(tops, expected, "{periods:?}", periods = calendar.periods());
        };
        check("1m", "UTC", &["1m 2026-11-20T05:00"]);
        check("1m,1h,1d", "UTC", &["1d 2026-11-20T00:00"]);
        check("1m,1h,1d,1w,1mo", "UTC", &["1mo 2026-11-01T00:00", "1w 2026-11-16T00:00"]);
        check("1h,1d", "Asia/Kolkata", &["1h 2026-11-20T05:00"]);
    }
}
