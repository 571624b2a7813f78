//! The mergeable statistics of one source in one bucket, and what can be read from them.
//!
//! Made by `ingest/fold.rs`, merged by the stores and by `query/`, read out by everything that
//! shows numbers. The bytes of this state are in `layout.rs`; the arithmetic is in
//! `double_double.rs`. Merging is element-wise, so any split of the readings and any order gives
//! the same answer to about 106 bits. What readings that are vectors have more is in `vectors.rs`.

use super::double_double::{DoubleDouble, n_times_q_minus_s_squared};
use super::layout::{self, SCALAR_DOUBLES};
use super::vectors::Vectors;

/// Largest magnitude of a reading: its square, times 10^28 readings, still fits a double.
pub const MAX_ABS_VALUE: f64 = 1e140;

/// Count, sum, sum of squares, minimum and maximum of a set of readings.
///
/// Of readings that are vectors everything but the count is in `vector`, and the fields of a scalar stay empty.
/// All readings of one set have the same length; a number has the length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Number of readings; an integer, exact up to 2^53 (a double because Lua has no other number).
    pub count: f64,
    pub sum: DoubleDouble,
    pub sum_sq: DoubleDouble,
    /// `+inf` when empty.
    pub min: f64,
    /// `-inf` when empty.
    pub max: f64,
    /// The rest of a set of vectors; `None` of numbers.
    pub vector: Option<Box<Vectors>>,
}

/// Two sets of readings that cannot be put together: these are their lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("readings of {} and of {} cannot be put together", numbers(*.0), numbers(*.1))]
pub struct Unlike(pub usize, pub usize);

/// A length in words.
#[must_use]
pub fn numbers(length: usize) -> String {
    if length == 1 { "1 number".to_owned() } else { format!("{length} numbers") }
}

impl Default for Moments {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Moments {
    /// No readings: neutral in [`Self::merge`].
    pub const EMPTY: Self = Self {
        count: 0.0,
        sum: DoubleDouble { hi: 0.0, lo: 0.0 },
        sum_sq: DoubleDouble { hi: 0.0, lo: 0.0 },
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        vector: None,
    };

    /// The moments of a single reading.
    #[must_use]
    pub fn of(value: f64) -> Self {
        let mut moments = Self::EMPTY;
        moments.push(value);
        moments
    }

    /// Adds one reading. `value` is finite with `|value| <=` [`MAX_ABS_VALUE`]; the decoder checks.
    #[inline]
    pub fn push(&mut self, value: f64) {
        debug_assert!(value.abs() <= MAX_ABS_VALUE);
        // -0.0 becomes 0.0, so that minimum and maximum do not depend on the order.
        let x = value + 0.0;
        self.count += 1.0;
        self.sum = self.sum.add_f64(x);
        self.sum_sq = self.sum_sq.add(DoubleDouble::square(x));
        self.min = if x < self.min { x } else { self.min };
        self.max = if x > self.max { x } else { self.max };
    }

    /// The moments of a single reading that is a vector; see [`Self::push_vector`].
    #[must_use]
    pub fn of_vector(values: &[f64]) -> Self {
        let mut moments = Self::EMPTY;
        moments.push_vector(values);
        moments
    }

    /// Adds one reading that is a vector: of one of the lengths that are allowed, the same as before, each
    /// value as for [`Self::push`]; the decoder and the folder check.
    ///
    /// # Panics
    /// If the length is another one.
    pub fn push_vector(&mut self, values: &[f64]) {
        assert!(self.vector.is_some() || self.count == 0.0, "the folder checks");
        self.count += 1.0;
        self.vector.get_or_insert_with(|| Box::new(Vectors::empty(values.len()))).push(values);
    }

    /// Numbers per reading; 1 when empty.
    #[inline]
    #[must_use]
    pub fn length(&self) -> usize {
        self.vector.as_ref().map_or(1, |vector| vector.length())
    }

    /// Doubles of its state.
    #[inline]
    #[must_use]
    pub fn doubles(&self) -> usize {
        self.vector.as_ref().map_or(SCALAR_DOUBLES, |vector| layout::state_doubles(vector.length()))
    }

    /// Adds all readings of `other`, which are of the same length. `layout::merge` and the Lua script do the same
    /// operations in the same order, to the bit.
    ///
    /// # Panics
    /// If both have readings and these differ in length; see [`Self::try_merge`].
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        self.try_merge(other).expect("lengths are compared before");
    }

    /// The same where the lengths are not known to agree.
    ///
    /// # Errors
    /// If both have readings and these differ in length; nothing is changed then.
    #[inline]
    pub fn try_merge(&mut self, other: &Self) -> Result<(), Unlike> {
        if self.vector.is_some() || other.vector.is_some() {
            return self.merge_vectors(other);
        }
        self.merge_scalars(other);
        Ok(())
    }

    #[cold]
    fn merge_vectors(&mut self, other: &Self) -> Result<(), Unlike> {
        match (&mut self.vector, &other.vector) {
            _ if other.count == 0.0 => return Ok(()),
            _ if self.count == 0.0 => {
                self.clone_from(other);
                return Ok(());
            }
            (Some(mine), Some(theirs)) if mine.length() == theirs.length() => mine.merge(theirs),
            _ => return Err(Unlike(self.length(), other.length())),
        }
        self.count += other.count;
        Ok(())
    }

    #[inline]
    fn merge_scalars(&mut self, other: &Self) {
        self.count += other.count;
        self.sum = self.sum.add(other.sum);
        self.sum_sq = self.sum_sq.add(other.sum_sq);
        self.min = if other.min < self.min { other.min } else { self.min };
        self.max = if other.max > self.max { other.max } else { self.max };
    }

    /// Whether every element can be stored: sums finite and a count that is still exact.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.sum.hi.is_finite()
            && self.sum_sq.hi.is_finite()
            && self.count <= 9_007_199_254_740_992.0
            && self.vector.as_ref().is_none_or(|vector| vector.is_finite())
    }

    /// Arithmetic mean: the exact quotient of the sum and the count, rounded once. `None` when empty, or
    /// of vectors, as all that follows.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        self.has_more_than(0.0).then(|| self.sum.quotient(self.count))
    }

    /// Population variance `(n*Q - S*S) / n^2`; never negative, 0 for equal values. `None` when empty.
    #[must_use]
    pub fn var_pop(&self) -> Option<f64> {
        self.has_more_than(0.0).then(|| self.scatter() / self.count / self.count)
    }

    /// Sample variance `(n*Q - S*S) / (n*(n-1))`. `None` for fewer than two readings.
    #[must_use]
    pub fn var_samp(&self) -> Option<f64> {
        self.has_more_than(1.0).then(|| self.scatter() / self.count / (self.count - 1.0))
    }

    /// Square root of [`Self::var_pop`].
    #[must_use]
    pub fn stddev_pop(&self) -> Option<f64> {
        self.var_pop().map(f64::sqrt)
    }

    /// Square root of [`Self::var_samp`].
    #[must_use]
    pub fn stddev_samp(&self) -> Option<f64> {
        self.var_samp().map(f64::sqrt)
    }

    fn has_more_than(&self, numbers: f64) -> bool {
        self.count > numbers && self.vector.is_none()
    }

    /// `n*Q - S*S`: `n^2` times the population variance. The subtraction is exact, so the clamp
    /// only removes what rounding inside Q and S left below zero.
    fn scatter(&self) -> f64 {
        if self.min >= self.max {
            return 0.0;
        }
        n_times_q_minus_s_squared(self.count, self.sum_sq, self.sum).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;
    use num_rational::BigRational;
    use num_traits::{Signed, ToPrimitive};
    use proptest::prelude::*;

    fn fold(values: &[f64]) -> Moments {
        let mut moments = Moments::EMPTY;
        for &value in values {
            moments.push(value);
        }
        moments
    }

    /// Mean and population variance in rational arithmetic.
    fn exact(values: &[f64]) -> (BigRational, BigRational) {
        let n = BigRational::from_integer(BigInt::from(values.len()));
        let rational = |x: &f64| BigRational::from_float(*x).unwrap();
        let mean = values.iter().map(rational).sum::<BigRational>() / &n;
        let var = values.iter().map(|x| (rational(x) - &mean).pow(2)).sum::<BigRational>() / &n;
        (mean, var)
    }

    fn check(values: &[f64]) {
        let (mean, var) = exact(values);
        // Folded at once, in reverse, and merged from uneven parts.
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        let mut merged = Moments::EMPTY;
        for part in values.chunks(7) {
            merged.merge(&fold(part));
        }
        for moments in [fold(values), fold(&reversed), merged] {
            assert_eq!(moments.mean().unwrap(), mean.to_f64().unwrap(), "mean of {} values", values.len());
            let got = BigRational::from_float(moments.var_pop().unwrap()).unwrap();
            let limit = &var * BigRational::new(1.into(), BigInt::from(10).pow(11));
            assert!((got - &var).abs() <= limit, "var_pop of {} values", values.len());
        }
    }

    #[test]
    fn the_set_that_turns_the_textbook_formula_negative() {
        let mut values = vec![10_000_000.2];
        for _ in 0..500 {
            values.extend([10_000_000.1, 10_000_000.3]);
        }
        let n = values.len() as f64;
        let (s, q) = values.iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        assert!(q / n - (s / n) * (s / n) < 0.0, "the formula this program replaces");
        check(&values);
    }

    #[test]
    fn the_pair_that_double_double_alone_gets_wrong() {
        assert_eq!(fold(&[1e16, 1e16 + 2.0]).var_pop(), Some(1.0));
    }

    #[test]
    fn an_outlier_first_and_a_constant() {
        let mut values = vec![1e9];
        values.extend((0..3600).map(|i| 20.0 + f64::from(i % 17) * 0.013));
        check(&values);
        assert_eq!(fold(&[0.1; 1000]).var_pop(), Some(0.0));
        assert_eq!(fold(&[0.1; 1000]).mean(), Some(0.1));
    }

    #[test]
    fn few_readings() {
        assert_eq!(Moments::EMPTY.mean(), None);
        assert_eq!(Moments::EMPTY.var_pop(), None);
        assert_eq!(Moments::of(3.0).var_pop(), Some(0.0));
        assert_eq!(Moments::of(3.0).var_samp(), None);
        assert_eq!(fold(&[1.0, 3.0]).var_samp(), Some(2.0));
        assert!(Moments::of(-0.0).min.is_sign_positive());
    }

    #[test]
    fn the_largest_values_stay_finite() {
        let moments = fold(&[MAX_ABS_VALUE, -MAX_ABS_VALUE]);
        assert!(moments.is_finite());
        assert_eq!(moments.mean(), Some(0.0));
        assert!((moments.var_pop().unwrap() / 1e280 - 1.0).abs() < 1e-15);
    }

    proptest! {
        /// The variance is off by no more than what 60 additions of 106 bits leave in the mean square.
        #[test]
        fn agrees_with_rational_arithmetic(base in -1e12..1e12f64, offsets in prop::collection::vec(-1.0..1.0f64, 2..60)) {
            let values: Vec<f64> = offsets.iter().map(|x| base + x).collect();
            let (mean, var) = exact(&values);
            let moments = fold(&values);
            prop_assert_eq!(moments.mean().unwrap(), mean.to_f64().unwrap());
            let got = BigRational::from_float(moments.var_pop().unwrap()).unwrap();
            let mean_square = &var + &mean * &mean;
            let power = |bits: u32| BigRational::new(1.into(), BigInt::from(1) << bits);
            prop_assert!((got - &var).abs() <= mean_square * power(96) + &var * power(50));
        }

        #[test]
        fn empty_is_neutral(values in prop::collection::vec(-1e9..1e9f64, 0..20)) {
            let moments = fold(&values);
            let mut left = Moments::EMPTY;
            left.merge(&moments);
            let mut right = moments.clone();
            right.merge(&Moments::EMPTY);
            prop_assert_eq!(&left, &moments);
            prop_assert_eq!(right, moments);
        }
    }
}
