//! Rows in exact arithmetic: what the readings of a bucket come to, and whether a stored row says that.
//!
//! Called by `verify.rs`. A double is a whole number times a power of two, so sums and sums of squares are whole numbers
//! of any size beside one power each; nothing is rounded before a row is compared.

use num_bigint::{BigInt, Sign};
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use std::fmt::Write;

/// What a stored variance may be off, in parts of the exact one, and a covariance in parts of both standard deviations;
/// all other fields are equal to the last bit.
pub(super) const VARIANCE_ERROR: f64 = 1e-11;

/// A whole number times a power of two.
#[derive(Clone, Debug, Default)]
struct Dyadic {
    number: BigInt,
    /// Of two; the smallest seen.
    exponent: i32,
}

impl Dyadic {
    fn add(&mut self, number: BigInt, exponent: i32) {
        if self.number.is_zero() {
            *self = Self { number, exponent };
        } else if exponent >= self.exponent {
            self.number += number << (exponent - self.exponent);
        } else {
            self.number <<= self.exponent - exponent;
            self.number += number;
            self.exponent = exponent;
        }
    }

    fn rational(&self) -> BigRational {
        let power = BigInt::from(1) << self.exponent.unsigned_abs();
        let number = self.number.clone();
        if self.exponent < 0 { BigRational::new(number, power) } else { BigRational::from_integer(number * power) }
    }
}

/// A finite double as a number of at most 53 bits times a power of two.
fn parts(x: f64) -> (i64, i32) {
    let bits = x.abs().to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32, (bits & ((1 << 52) - 1)).cast_signed());
    // Numbers below the normal ones have no leading bit.
    let (number, exponent) = if exponent == 0 { (fraction, -1_074) } else { (fraction | 1 << 52, exponent - 1_075) };
    if number == 0 {
        return (0, 0);
    }
    let zeros = number.trailing_zeros();
    let number = number >> zeros;
    (if x < 0.0 { -number } else { number }, exponent + zeros.cast_signed())
}

/// The readings of a bucket; of numbers as of vectors of one.
#[derive(Clone, Debug)]
pub(super) struct Exact {
    pub count: u64,
    pub min: Vec<f64>,
    pub max: Vec<f64>,
    sums: Vec<Dyadic>,
    /// Of the products of two components, row by row from the diagonal on.
    products: Vec<Dyadic>,
}

/// What a stored row says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub count: u64,
    pub min: Vec<f64>,
    pub max: Vec<f64>,
    pub sum: Vec<f64>,
    pub mean: Vec<f64>,
    /// Population covariances; of numbers the variance.
    pub covar: Vec<Vec<f64>>,
}

/// A field that is not what it should be; `exact` is rounded to a double.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    pub field: String,
    pub stored: f64,
    pub exact: f64,
}

impl Exact {
    pub(super) fn of(values: &[f64]) -> Self {
        let d = values.len();
        let (sums, products) = (vec![Dyadic::default(); d], vec![Dyadic::default(); d * (d + 1) / 2]);
        let mut exact = Self { count: 0, min: values.to_vec(), max: values.to_vec(), sums, products };
        exact.push(values);
        exact
    }

    /// Numbers per reading.
    pub(super) fn length(&self) -> usize {
        self.sums.len()
    }

    /// Whole numbers of any size that it holds.
    pub(super) fn size(&self) -> usize {
        self.sums.len() + self.products.len()
    }

    /// As many values as there were before, each finite and not -0.
    pub(super) fn push(&mut self, values: &[f64]) {
        self.count += 1;
        let parts: Vec<(i64, i32)> = values.iter().map(|x| parts(*x)).collect();
        let mut at = 0;
        for (i, x) in values.iter().enumerate() {
            (self.min[i], self.max[i]) = (self.min[i].min(*x), self.max[i].max(*x));
            let (number, exponent) = parts[i];
            if number != 0 {
                self.sums[i].add(BigInt::from(number), exponent);
            }
            for (other, power) in &parts[i..] {
                if number != 0 && *other != 0 {
                    let product = BigInt::from(i128::from(number) * i128::from(*other));
                    self.products[at].add(product, exponent + power);
                }
                at += 1;
            }
        }
    }

    /// Compares a stored row of the same length: what differs, and the largest error of a variance or covariance.
    pub(super) fn check(&self, stored: &Stored) -> (Vec<Difference>, f64) {
        let d = self.length();
        let n = BigRational::from_integer(BigInt::from(self.count));
        let sums: Vec<BigRational> = self.sums.iter().map(Dyadic::rational).collect();
        let means: Vec<BigRational> = sums.iter().map(|sum| sum / &n).collect();
        let mut differences = Vec::new();
        let mut note = |field: &str, places: &[usize], equal: bool, stored: f64, exact: f64| {
            if !equal {
                let mut field = field.to_owned();
                for place in places.iter().filter(|_| d > 1) {
                    let _ = write!(field, "[{place}]");
                }
                differences.push(Difference { field, stored, exact });
            }
        };
        note("count", &[], stored.count == self.count, stored.count as f64, self.count as f64);
        for i in 0..d {
            let (min, max, sum, mean) = (stored.min[i], stored.max[i], stored.sum[i], stored.mean[i]);
            note("min", &[i], min == self.min[i], min, self.min[i]);
            note("max", &[i], max == self.max[i], max, self.max[i]);
            note("sum", &[i], is_nearest(sum, &sums[i]), sum, double(&sums[i]));
            note("mean", &[i], is_nearest(mean, &means[i]), mean, double(&means[i]));
        }
        let (field, mut worst) = (if d > 1 { "covar_pop" } else { "var_pop" }, 0.0_f64);
        // Where row i of the triangle begins, less i.
        let row = |i: usize| i * d - i * i.saturating_sub(1) / 2 - i;
        let covar = |i: usize, j: usize| {
            let at = row(i.min(j)) + i.max(j);
            self.products[at].rational() / &n - &means[i] * &means[j]
        };
        let variances: Vec<BigRational> = (0..d).map(|i| covar(i, i)).collect();
        for (i, j) in (0..d).flat_map(|i| (0..d).map(move |j| (i, j))) {
            let (exact, x) = (covar(i, j), stored.covar[i][j]);
            let error = if i == j {
                relative_error(x, &exact, double(&exact))
            } else {
                relative_error(x, &exact, double(&variances[i]).sqrt() * double(&variances[j]).sqrt())
            };
            worst = worst.max(error);
            note(field, &[i, j], error <= VARIANCE_ERROR, x, double(&exact));
        }
        (differences, worst)
    }
}

/// Whether no double is nearer.
fn is_nearest(x: f64, exact: &BigRational) -> bool {
    let distance = |x: f64| BigRational::from_float(x).map(|x| (x - exact).abs());
    let Some(own) = distance(x) else { return false };
    own.is_zero() || [x.next_down(), x.next_up()].into_iter().filter_map(distance).all(|other| own <= other)
}

/// In parts of `whole`.
fn relative_error(stored: f64, exact: &BigRational, whole: f64) -> f64 {
    let Some(off) = BigRational::from_float(stored).map(|stored| (stored - exact).abs()) else { return f64::INFINITY };
    match (off.is_zero(), BigRational::from_float(whole).filter(|whole| !whole.is_zero())) {
        (true, _) => 0.0,
        (false, None) => f64::INFINITY,
        (false, Some(whole)) => double(&(off / whole)),
    }
}

/// Rounded, for people.
fn double(exact: &BigRational) -> f64 {
    let infinite = if exact.numer().sign() == Sign::Minus { f64::NEG_INFINITY } else { f64::INFINITY };
    exact.to_f64().unwrap_or(infinite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::moments::Moments;
    use proptest::prelude::*;

    #[test]
    fn doubles_in_parts() {
        for x in [0.0, 1.0, -0.1, 21.5, 1e140, -1e-140, 5e-324, f64::MIN_POSITIVE, 1e16 + 2.0] {
            let mut sum = Dyadic::default();
            let (number, exponent) = parts(x);
            sum.add(BigInt::from(number), exponent);
            assert_eq!(sum.rational(), BigRational::from_float(x).unwrap(), "{x:e}");
        }
    }

    fn stored(values: &[&[f64]]) -> (Exact, Stored) {
        let mut exact = Exact::of(values[0]);
        for x in &values[1..] {
            exact.push(x);
        }
        let mut moments = Moments::EMPTY;
        for x in values {
            if let [x] = x { moments.push(*x) } else { moments.push_vector(x) }
        }
        let count = values.len() as u64;
        let Some(vector) = moments.vector else {
            let (mean, var) = (moments.mean().unwrap(), moments.var_pop().unwrap());
            let [min, max, sum, mean] = [moments.min, moments.max, moments.sum.hi, mean].map(|x| vec![x]);
            return (exact, Stored { count, min, max, sum, mean, covar: vec![vec![var]] });
        };
        let covar = vector.covar_pop().unwrap().rows().into_iter().map(|row| row.to_vec()).collect();
        let [min, max] = [vector.min(), vector.max()].map(|x| x.to_vec());
        (exact, Stored { count, min, max, sum: vector.sum().to_vec(), mean: vector.mean().unwrap().to_vec(), covar })
    }

    fn check(exact: &Exact, right: &Stored, change: impl Fn(&mut Stored), fields: &[&str]) {
        let mut wrong = right.clone();
        change(&mut wrong);
        let (differences, _) = exact.check(&wrong);
        assert_eq!(differences.iter().map(|d| &*d.field).collect::<Vec<_>>(), fields);
    }

    #[test]
    fn the_last_bit_counts() {
        let (exact, right) = stored(&[&[10_000_000.2], &[10_000_000.1], &[10_000_000.3]]);
        check(&exact, &right, |_| (), &[]);
        check(&exact, &right, |row| row.count = 4, &["count"]);
        check(&exact, &right, |row| row.min[0] = row.min[0].next_up(), &["min"]);
        check(&exact, &right, |row| row.max[0] = row.max[0].next_down(), &["max"]);
        check(&exact, &right, |row| row.sum[0] = row.sum[0].next_up(), &["sum"]);
        check(&exact, &right, |row| row.mean[0] = row.mean[0].next_down(), &["mean"]);
        check(&exact, &right, |row| row.covar[0][0] *= 1.0 + 2e-11, &["var_pop"]);
        check(&exact, &right, |row| row.covar[0][0] *= 1.0 + 5e-12, &[]);
        let (constant, mut zero) = stored(&[&[0.1], &[0.1], &[0.1]]);
        assert_eq!(constant.check(&zero), (Vec::new(), 0.0));
        zero.covar[0][0] = 1e-300;
        assert_eq!(constant.check(&zero).1, f64::INFINITY);
    }

    #[test]
    fn every_component_is_named() {
        let (exact, right) = stored(&[&[1.1, -7.0, 0.1], &[1.2, 5.0, 0.1], &[1.7, 1e9, 0.1]]);
        check(&exact, &right, |_| (), &[]);
        check(&exact, &right, |row| row.min[1] = row.min[1].next_up(), &["min[1]"]);
        check(&exact, &right, |row| row.mean[2] = row.mean[2].next_down(), &["mean[2]"]);
        check(&exact, &right, |row| row.covar[0][1] *= 1.0 + 1e-10, &["covar_pop[0][1]"]);
        check(&exact, &right, |row| row.covar[2][1] = 1e-300, &["covar_pop[2][1]"]);
    }

    proptest! {
        #[test]
        fn what_is_folded_is_what_is_exact(
            (d, values) in (1..5usize, prop::collection::vec(-1e9..1e9f64, 4..50)),
        ) {
            let readings: Vec<&[f64]> = values.chunks_exact(d).collect();
            let (exact, right) = stored(&readings);
            prop_assert_eq!(exact.check(&right).0, []);
        }
    }
}
