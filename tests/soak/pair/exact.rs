//! The covariances of all rows in whole numbers: what the rows of both sides are held against.
//!
//! Used by `rows.rs`. Every reading is a whole number times 2 to the -SCALE, so that sums and sums of products are whole
//! numbers too and nothing is rounded before a row is looked at.

use super::readings::Readings;
use super::rows::{PERIODS, Row};
use meanwhile::stats::Millis;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use std::collections::BTreeMap;

/// Readings have their last bits well above.
const SCALE: usize = 150;
const LENGTHS: [Millis; 3] = [60_000, 3_600_000, 86_400_000];
/// What the last bits of sums of products are worth, as a part of the product of the means: a few readings close to
/// each other and far from zero have a covariance that is smaller still.
const LAST_BITS: f64 = 1.0 / (1_u128 << 104) as f64;

/// Sums of each component and of all products of two.
#[derive(Default)]
struct Sums {
    count: u64,
    sums: Vec<BigInt>,
    products: Vec<BigInt>,
}

/// By period, source and start.
pub(crate) struct Exact(BTreeMap<(&'static str, String, Millis), Sums>);

impl Exact {
    pub(crate) fn of(readings: &Readings) -> Self {
        let mut minutes: BTreeMap<(String, Millis), Sums> = BTreeMap::new();
        for reading in (0..readings.batches()).flat_map(|number| readings.batch(number)) {
            let start = reading.time - reading.time % LENGTHS[0];
            let values: Vec<BigInt> = reading.values.iter().map(|x| scaled(*x)).collect();
            let products = values.iter().flat_map(|x| values.iter().map(move |y| x * y)).collect();
            let sums = Sums { count: 1, sums: values, products };
            for source in reading.counted_in() {
                minutes.entry((source, start)).or_default().add(&sums);
            }
        }
        let mut all: BTreeMap<(&'static str, String, Millis), Sums> = BTreeMap::new();
        for ((source, start), sums) in minutes {
            for (period, length) in PERIODS.into_iter().zip(LENGTHS) {
                all.entry((period, source.clone(), start - start % length)).or_default().add(&sums);
            }
        }
        Self(all)
    }

    /// By how much the covariances of a row are off at most, as a part of the standard deviations of the two components.
    pub(crate) fn error(&self, key: &(&'static str, String, Millis), row: &Row) -> f64 {
        let Some(sums) = self.0.get(key).filter(|s| s.count == row.count && s.sums.len() == row.mean.len()) else {
            return f64::NAN;
        };
        let d = row.mean.len();
        let scatter: Vec<BigInt> = (0..d * d).map(|at| sums.scatter(at / d, at % d)).collect();
        let covar = |scatter: &BigInt| {
            let n = BigInt::from(row.count);
            BigRational::new(scatter.clone(), (&n * &n) << (2 * SCALE))
        };
        let deviations: Vec<f64> =
            (0..d).map(|i| covar(&scatter[i * d + i]).to_f64().unwrap_or(f64::NAN).sqrt()).collect();
        let mut worst: f64 = 0.0;
        for (at, scatter) in scatter.iter().enumerate() {
            let (i, j) = (at / d, at % d);
            let Some(x) = BigRational::from_float(row.covar[at]) else { return f64::NAN };
            let off = (x - covar(scatter)).abs();
            let off = off.to_f64().unwrap_or(f64::NAN) - LAST_BITS * (row.mean[i] * row.mean[j]).abs();
            if off.is_nan() || off > 0.0 {
                worst = worst.max(off / (deviations[i] * deviations[j]));
            }
        }
        worst
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        for (mine, more) in [(&mut self.sums, &other.sums), (&mut self.products, &other.products)] {
            mine.resize(more.len(), BigInt::zero());
            mine.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
        }
    }

    /// The square of the count times the covariance.
    fn scatter(&self, i: usize, j: usize) -> BigInt {
        &self.products[i * self.sums.len() + j] * self.count - &self.sums[i] * &self.sums[j]
    }
}

fn scaled(x: f64) -> BigInt {
    let exact = BigRational::from_float(x).expect("a reading is a number") * (BigInt::from(1) << SCALE);
    assert!(exact.is_integer(), "{x:e} has bits below the scale");
    exact.to_integer()
}
