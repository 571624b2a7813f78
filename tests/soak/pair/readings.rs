//! The readings that both sides of the comparison are sent: made up from the seed, the same for each.
//!
//! Used by `senders.rs`, `rows.rs` and `exact.rs`. Real doubles of scales at which sums in doubles fail, of many sources, across
//! a midnight; one source in five sends vectors, and all are in groups. A batch is made when it is asked for, so that a million readings take no memory.

use crate::seeded::Seeded;
use meanwhile::stats::Millis;
use std::fmt::Write;

const SOURCES: u64 = 50;
/// One source in so many sends vectors, of so many numbers.
const VECTORS: u64 = 5;
const LENGTH: u64 = 8;
/// Readings of one batch.
const BATCH: u64 = 100;
/// Milliseconds of the readings' own time from one to the next: some 12 of a source in each minute.
const STEP: Millis = 100;
/// By how many milliseconds a reading may be older than its place says, so that batches overlap by minutes.
const SCATTER: u64 = 90_000;
const DAY: Millis = 86_400_000;

/// Of 'source-017': 'group:numbers' and 'group:tens:1'.
pub(crate) const RULES: &str = r#"
[[rule]]
match = "source-??0"
groups = ["vectors"]

[[rule]]
match = "source-??5"
groups = ["vectors"]

[[rule]]
match = "source-???"
groups = ["numbers", "tens:{2}"]
"#;

/// See the module.
pub(crate) struct Readings {
    seed: u64,
    pub(crate) count: u64,
    first: Millis,
}

pub(crate) struct Reading {
    pub(crate) source: String,
    /// One number, or a vector.
    pub(crate) values: Vec<f64>,
    pub(crate) time: Millis,
}

impl Reading {
    /// The sources that have it: its own, and by [`RULES`] its groups.
    pub(crate) fn counted_in(&self) -> Vec<String> {
        let tens = self.source.chars().nth_back(1).expect("three digits");
        let groups = if self.values.len() > 1 {
            vec!["group:vectors".to_owned()]
        } else {
            vec!["group:numbers".to_owned(), format!("group:tens:{tens}")]
        };
        [vec![self.source.clone()], groups].concat()
    }
}

impl Readings {
    /// Half of them on the day before yesterday, half of them yesterday.
    pub(crate) fn new(seed: u64, count: u64, now: Millis) -> Self {
        Self { seed, count, first: now - now % DAY - DAY - count.cast_signed() / 2 * STEP }
    }

    pub(crate) fn batches(&self) -> usize {
        self.count.div_ceil(BATCH) as usize
    }

    /// A batch by its number.
    pub(crate) fn batch(&self, number: usize) -> Vec<Reading> {
        let mut random = Seeded::new(self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (number as u64) << 20);
        let first = number as u64 * BATCH;
        (first..self.count.min(first + BATCH))
            .map(|place| {
                let source = random.below(SOURCES);
                let time = self.first + place.cast_signed() * STEP - random.below(SCATTER).cast_signed();
                Reading { source: format!("source-{source:03}"), values: values(source, &mut random), time }
            })
            .collect()
    }
}

/// As lines of a request.
pub(crate) fn lines(readings: &[Reading]) -> String {
    let mut lines = String::new();
    for Reading { source, values, time } in readings {
        let value = if let [value] = values[..] { format!("{value:?}") } else { format!("{values:?}") };
        writeln!(lines, r#"{{"source":"{source}","value":{value},"timestamp":{time}}}"#)
            .expect("memory takes everything");
    }
    lines
}

/// Components of a vector have something in common, and are of different kinds.
fn values(source: u64, random: &mut Seeded) -> Vec<f64> {
    if source % VECTORS > 0 {
        return vec![value(source, random)];
    }
    let shared = unit(random) - 0.5;
    (0..LENGTH).map(|kind| value(kind, random) + shared * kind as f64).collect()
}

/// Each source has readings of one kind.
fn value(source: u64, random: &mut Seeded) -> f64 {
    let noise = unit(random) - 0.5;
    let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
    match source % 6 {
        0 => 1e9 + noise,
        // They cancel each other.
        1 => sign * 1e9 + noise,
        2 => 1013.25 + noise * 1e-3,
        3 => sign * unit(random) * 10_f64.powi(random.below(13) as i32 - 6),
        4 if random.below(50) == 0 => 1e9,
        4 => 20.0 + noise / 10.0,
        _ => 0.1,
    }
}

/// All 53 bits of it.
fn unit(random: &mut Seeded) -> f64 {
    const UNITS: u64 = 1 << 53;
    random.below(UNITS) as f64 / UNITS as f64
}
