//! The mergeable statistics of readings that are vectors, and the matrices that can be read from them.
//!
//! Held by `moments.rs` where a source sends arrays of numbers. The doubles stand in the order of
//! `layout.rs`, which merges them, so a state is its bytes. Every entry of a matrix is read out as the
//! variance of a scalar is: an exact difference of products, rounded once. Matrices are symmetric to
//! the bit; that they have no negative eigenvalue is true but for that rounding, and not forced.

use super::double_double::{DoubleDouble, difference_of_products};
use super::layout;
use super::moments::MAX_ABS_VALUE;
use ndarray::{Array1, Array2, ArrayView1};

/// Components of a vector. One number alone is no vector; see [`layout::MAX_DIMENSION`].
pub const LENGTHS: std::ops::RangeInclusive<usize> = 2..=layout::MAX_DIMENSION as usize;

/// Count, sums, sums of products, minima and maxima of vectors of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    length: usize,
    /// Count; sums of x; sums of the upper triangle of x xT, row by row; minima; maxima.
    doubles: Vec<f64>,
}

/// The line `y = intercept + slope * x` of least squares, `x` being the first component and `y` the second;
/// named and defined as in SQL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regression {
    pub slope: f64,
    pub intercept: f64,
    /// Square of the correlation; 1 where `y` is constant.
    pub r2: f64,
}

impl Vectors {
    /// No readings of this length.
    ///
    /// # Panics
    /// If the length is not one of [`LENGTHS`].
    #[must_use]
    pub fn empty(length: usize) -> Self {
        assert!(LENGTHS.contains(&length), "the decoder checks");
        let mut doubles = vec![0.0; layout::state_doubles(length)];
        let extremes = doubles.len() - 2 * length;
        doubles[extremes..extremes + length].fill(f64::INFINITY);
        doubles[extremes + length..].fill(f64::NEG_INFINITY);
        Self { length, doubles }
    }

    /// From the doubles of a state, count first.
    pub(super) fn from_doubles(length: usize, doubles: Vec<f64>) -> Self {
        debug_assert!(LENGTHS.contains(&length) && doubles.len() == layout::state_doubles(length));
        Self { length, doubles }
    }

    /// All of it in the order of the layout.
    pub(super) fn doubles(&self) -> &[f64] {
        &self.doubles
    }

    /// Components of each reading.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Adds one reading of this length, of finite values of magnitude at most [`MAX_ABS_VALUE`]. Costs
    /// `length * (length + 1) / 2` products.
    pub(super) fn push(&mut self, values: &[f64]) {
        assert_eq!(values.len(), self.length, "the folder checks");
        debug_assert!(values.iter().all(|x| x.abs() <= MAX_ABS_VALUE));
        self.doubles[0] += 1.0;
        let mut at = 1;
        for &x in values {
            let sum = self.pair(at).add_f64(x + 0.0);
            self.put(at, sum);
            at += 2;
        }
        for (i, &x) in values.iter().enumerate() {
            for &y in &values[i..] {
                let sum = self.pair(at).add(DoubleDouble::product(x, y));
                self.put(at, sum);
                at += 2;
            }
        }
        let (min, max) = self.doubles[at..].split_at_mut(self.length);
        for ((min, max), &value) in min.iter_mut().zip(max).zip(values) {
            // As for scalars: -0.0 becomes 0.0.
            let x = value + 0.0;
            *min = if x < *min { x } else { *min };
            *max = if x > *max { x } else { *max };
        }
    }

    /// Adds all readings of another of the same length.
    pub(super) fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.length, other.length);
        self.doubles = layout::merge_vectors(self.length, &self.doubles, &other.doubles);
    }

    /// Whether every sum can be stored.
    pub(super) fn is_finite(&self) -> bool {
        self.doubles[..self.extremes()].iter().all(|x| x.is_finite())
    }

    fn count(&self) -> f64 {
        self.doubles[0]
    }

    fn pair(&self, at: usize) -> DoubleDouble {
        DoubleDouble { hi: self.doubles[at], lo: self.doubles[at + 1] }
    }

    fn put(&mut self, at: usize, pair: DoubleDouble) {
        (self.doubles[at], self.doubles[at + 1]) = (pair.hi, pair.lo);
    }

    /// Where the minima begin.
    fn extremes(&self) -> usize {
        self.doubles.len() - 2 * self.length
    }

    /// Sum of component `i`.
    fn sum_of(&self, i: usize) -> DoubleDouble {
        self.pair(1 + 2 * i)
    }

    /// Sum of the products of components `i` and `j`.
    fn product_of(&self, i: usize, j: usize) -> DoubleDouble {
        let (i, j) = (i.min(j), i.max(j));
        let before = i * self.length - i * i.saturating_sub(1) / 2;
        self.pair(1 + 2 * (self.length + before + j - i))
    }

    /// The least value of each component; `+inf` when empty.
    #[must_use]
    pub fn min(&self) -> ArrayView1<'_, f64> {
        let at = self.extremes();
        ArrayView1::from(&self.doubles[at..at + self.length])
    }

    /// The greatest value of each component; `-inf` when empty.
    #[must_use]
    pub fn max(&self) -> ArrayView1<'_, f64> {
        ArrayView1::from(&self.doubles[self.extremes() + self.length..])
    }

    /// Sum of each component.
    #[must_use]
    pub fn sum(&self) -> Array1<f64> {
        Array1::from_shape_fn(self.length, |i| self.sum_of(i).hi)
    }

    /// Sums of the products of the components with one another; the squares are on the diagonal.
    #[must_use]
    pub fn sum_products(&self) -> Array2<f64> {
        self.symmetric(|i, j| self.product_of(i, j).hi)
    }

    /// Mean of each component: the exact quotient, rounded once. `None` when empty.
    #[must_use]
    pub fn mean(&self) -> Option<Array1<f64>> {
        (self.count() > 0.0).then(|| Array1::from_shape_fn(self.length, |i| self.sum_of(i).quotient(self.count())))
    }

    /// Population covariances `(n*Sxy - Sx*Sy) / n^2`; the variances are on the diagonal, never negative. A
    /// component whose values are all equal has covariance 0 with every one. `None` when empty.
    #[must_use]
    pub fn covar_pop(&self) -> Option<Array2<f64>> {
        let n = self.count();
        (n > 0.0).then(|| self.symmetric(|i, j| self.scatter(i, j) / n / n))
    }

    /// Sample covariances `(n*Sxy - Sx*Sy) / (n*(n-1))`. `None` for fewer than two readings.
    #[must_use]
    pub fn covar_samp(&self) -> Option<Array2<f64>> {
        let n = self.count();
        (n > 1.0).then(|| self.symmetric(|i, j| self.scatter(i, j) / n / (n - 1.0)))
    }

    /// Correlations, within [-1, 1], exactly 1 on the diagonal. Not a number where one of the two has the
    /// variance 0. `None` when empty.
    #[must_use]
    pub fn corr(&self) -> Option<Array2<f64>> {
        let roots: Vec<f64> = (0..self.length).map(|i| self.scatter(i, i).sqrt()).collect();
        (self.count() > 0.0).then(|| {
            self.symmetric(|i, j| match (i == j, roots[i] > 0.0 && roots[j] > 0.0) {
                (_, false) => f64::NAN,
                (true, true) => 1.0,
                (false, true) => (self.scatter(i, j) / roots[i] / roots[j]).clamp(-1.0, 1.0),
            })
        })
    }

    /// The regression of the second component on the first. `None` unless there are exactly two and the first
    /// has values that differ.
    #[must_use]
    pub fn regression(&self) -> Option<Regression> {
        if self.length != 2 {
            return None;
        }
        let (xx, xy, yy) = (self.scatter(0, 0), self.scatter(0, 1), self.scatter(1, 1));
        let mean = self.mean().filter(|_| xx > 0.0)?;
        let slope = xy / xx;
        // (Sy*Sxx - Sx*Sxy) / (n*Sxx - Sx*Sx): far from x = 0 the means would leave few digits.
        let rest = difference_of_products(self.sum_of(1), self.product_of(0, 0), self.sum_of(0), self.product_of(0, 1));
        let exact = rest / xx;
        let intercept = if exact.is_finite() { exact } else { (-slope).mul_add(mean[0], mean[1]) };
        let r = xy / xx.sqrt() / yy.sqrt();
        Some(Regression { slope, intercept, r2: if yy > 0.0 { (r * r).min(1.0) } else { 1.0 } })
    }

    /// `n*Sxy - Sx*Sy`: `n^2` times the population covariance.
    fn scatter(&self, i: usize, j: usize) -> f64 {
        let constant = |i: usize| self.min()[i] >= self.max()[i];
        if constant(i) || constant(j) {
            return 0.0;
        }
        let n = DoubleDouble { hi: self.count(), lo: 0.0 };
        let scatter = difference_of_products(n, self.product_of(i, j), self.sum_of(i), self.sum_of(j));
        if i == j { scatter.max(0.0) } else { scatter }
    }

    /// A matrix of which each entry is computed once.
    fn symmetric(&self, entry: impl Fn(usize, usize) -> f64) -> Array2<f64> {
        let mut matrix = Array2::zeros((self.length, self.length));
        for i in 0..self.length {
            for j in i..self.length {
                let x = entry(i, j);
                (matrix[(i, j)], matrix[(j, i)]) = (x, x);
            }
        }
        matrix
    }
}

#[cfg(test)]
#[path = "vectors/tests.rs"]
mod tests;
