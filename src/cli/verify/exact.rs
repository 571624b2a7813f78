//! Rows in exact arithmetic: what the readings of a bucket come to, and whether a stored row says that.
//!
//! Called by `verify.rs`. A double is a whole number times a power of two, so sums and sums of squares are whole numbers
//! of any size beside one power each; nothing is rounded before a row is compared.

use num_bigint::{BigInt, Sign};
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

/// What a stored variance may be off, in parts of the exact one; all other fields are equal to the last bit.
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

/// The readings of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Exact {
    pub count: u64,
    pub min: f64,
    pub max: f64,
    sum: Dyadic,
    squares: Dyadic,
}

/// What a stored row says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stored {
    pub count: u64,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub mean: f64,
    pub var_pop: f64,
}

/// A field that is not what it should be; `exact` is rounded to a double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Difference {
    pub field: &'static str,
    pub stored: f64,
    pub exact: f64,
}

impl Exact {
    pub(super) fn of(x: f64) -> Self {
        let (sum, squares) = (Dyadic::default(), Dyadic::default());
        let mut exact = Self { count: 0, min: x, max: x, sum, squares };
        exact.push(x);
        exact
    }

    /// `x` is finite, and not -0.
    pub(super) fn push(&mut self, x: f64) {
        self.count += 1;
        (self.min, self.max) = (self.min.min(x), self.max.max(x));
        let (number, exponent) = parts(x);
        if number != 0 {
            self.sum.add(BigInt::from(number), exponent);
            self.squares.add(BigInt::from(i128::from(number) * i128::from(number)), 2 * exponent);
        }
    }

    /// Compares a stored row: what differs, and the relative error of its variance.
    pub(super) fn check(&self, stored: &Stored) -> (Vec<Difference>, f64) {
        let n = BigRational::from_integer(BigInt::from(self.count));
        let (sum, squares) = (self.sum.rational(), self.squares.rational());
        let mean = &sum / &n;
        let var_pop = squares / &n - &mean * &mean;
        let mut differences = Vec::new();
        let mut note = |field, equal: bool, stored: f64, exact: f64| {
            if !equal {
                differences.push(Difference { field, stored, exact });
            }
        };
        note("count", stored.count == self.count, stored.count as f64, self.count as f64);
        note("min", stored.min == self.min, stored.min, self.min);
        note("max", stored.max == self.max, stored.max, self.max);
        note("sum", is_nearest(stored.sum, &sum), stored.sum, double(&sum));
        note("mean", is_nearest(stored.mean, &mean), stored.mean, double(&mean));
        let error = relative_error(stored.var_pop, &var_pop);
        note("var_pop", error <= VARIANCE_ERROR, stored.var_pop, double(&var_pop));
        (differences, error)
    }
}

/// Whether no double is nearer.
fn is_nearest(x: f64, exact: &BigRational) -> bool {
    let distance = |x: f64| BigRational::from_float(x).map(|x| (x - exact).abs());
    let Some(own) = distance(x) else { return false };
    own.is_zero() || [x.next_down(), x.next_up()].into_iter().filter_map(distance).all(|other| own <= other)
}

fn relative_error(stored: f64, exact: &BigRational) -> f64 {
    let Some(off) = BigRational::from_float(stored).map(|stored| (stored - exact).abs()) else { return f64::INFINITY };
    match (off.is_zero(), exact.is_zero()) {
        (true, _) => 0.0,
        (false, true) => f64::INFINITY,
        (false, false) => double(&(off / exact)),
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

    fn stored(values: &[f64]) -> (Exact, Stored) {
        let mut exact = Exact::of(values[0]);
        for x in &values[1..] {
            exact.push(*x);
        }
        let mut moments = Moments::EMPTY;
        for x in values {
            moments.push(*x);
        }
        let (mean, var_pop) = (moments.mean().unwrap(), moments.var_pop().unwrap());
        let Moments { min, max, sum, .. } = moments;
        (exact, Stored { count: values.len() as u64, min, max, sum: sum.hi, mean, var_pop })
    }

    #[test]
    fn the_last_bit_counts() {
        let (exact, right) = stored(&[10_000_000.2, 10_000_000.1, 10_000_000.3]);
        assert_eq!(exact.check(&right).0, []);
        let check = |wrong: Stored, field: &str| {
            let (differences, _) = exact.check(&wrong);
            assert_eq!(differences.iter().map(|d| d.field).collect::<Vec<_>>(), [field]);
        };
        check(Stored { count: 4, ..right }, "count");
        check(Stored { min: right.min.next_up(), ..right }, "min");
        check(Stored { max: right.max.next_down(), ..right }, "max");
        check(Stored { sum: right.sum.next_up(), ..right }, "sum");
        check(Stored { mean: right.mean.next_down(), ..right }, "mean");
        check(Stored { var_pop: right.var_pop * (1.0 + 2e-11), ..right }, "var_pop");
        assert_eq!(exact.check(&Stored { var_pop: right.var_pop * (1.0 + 5e-12), ..right }).0, []);
        let (constant, zero) = stored(&[0.1, 0.1, 0.1]);
        assert_eq!(constant.check(&zero), (Vec::new(), 0.0));
        assert_eq!(constant.check(&Stored { var_pop: 1e-300, ..zero }).1, f64::INFINITY);
    }

    proptest! {
        #[test]
        fn what_is_folded_is_what_is_exact(values in prop::collection::vec(-1e9..1e9f64, 1..50)) {
            let (exact, right) = stored(&values);
            prop_assert_eq!(exact.check(&right).0, []);
        }
    }
}
