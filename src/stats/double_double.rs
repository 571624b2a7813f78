//! Sums of about 106 bits: an unevaluated pair `hi + lo` of doubles, and the exact read-out of
//! quotients and of `n*Q - S*S` from such pairs.
//!
//! Called by `moments.rs` and `layout.rs`. `store/lua/merge.lua` repeats [`DoubleDouble::add`]
//! operation by operation; golden vectors in the tests hold the two together, so neither may be
//! "simplified" alone. Pure arithmetic: no I/O, no clock, no allocation.

/// An unevaluated sum `hi + lo` with `hi = fl(hi + lo)`, so `hi` is the value rounded to a double.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoubleDouble {
    /// The sum rounded to the nearest double.
    pub hi: f64,
    /// What `hi` misses, at most half a unit in the last place of `hi`.
    pub lo: f64,
}

/// Exact sum of two doubles: `s + e == a + b` with `s = fl(a + b)` (Knuth, TAOCP 2, 4.2.2, Th. B).
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let bb = s - a;
    (s, (a - (s - bb)) + (b - bb))
}

/// As [`two_sum`], for `|a| >= |b|` (Dekker 1971, "A floating-point technique", sec. 4).
#[inline]
fn fast_two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    (s, b - (s - a))
}

/// Exact product of two doubles as `p + e` (fused multiply-add; Ogita, Rump, Oishi 2005, Alg. 3.5).
/// Exact while the product neither overflows nor underflows: below about 1.5e-146 in magnitude of
/// `sqrt(|a*b|)` the error term starts to lose bits.
#[inline]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    (p, a.mul_add(b, -p))
}

impl DoubleDouble {
    /// The exact square of a double.
    #[inline]
    #[must_use]
    pub fn square(x: f64) -> Self {
        Self::product(x, x)
    }

    /// The exact product of two doubles.
    #[inline]
    #[must_use]
    pub fn product(x: f64, y: f64) -> Self {
        let (hi, lo) = two_product(x, y);
        Self { hi, lo }
    }

    /// Sum of two pairs with relative error below 3 * 2^-106 (Joldes, Muller, Popescu 2017,
    /// Algorithm 6). Adding zero returns the other pair unchanged.
    #[inline]
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "an operator would hide which of the additions it is")]
    pub fn add(self, other: Self) -> Self {
        let (sh, sl) = two_sum(self.hi, other.hi);
        let (th, tl) = two_sum(self.lo, other.lo);
        let (vh, vl) = fast_two_sum(sh, sl + th);
        let (hi, lo) = fast_two_sum(vh, tl + vl);
        Self { hi, lo }
    }

    /// Adds one double, relative error below 2 * 2^-106 (same paper, Algorithm 4).
    #[inline]
    #[must_use]
    pub fn add_f64(self, x: f64) -> Self {
        let (sh, sl) = two_sum(self.hi, x);
        let (hi, lo) = fast_two_sum(sh, self.lo + sl);
        Self { hi, lo }
    }

    /// `self / n` correctly rounded, for an integer `1 <= n <= 2^53`: among all doubles the nearest
    /// to the exact quotient. The candidate from the rounded division is compared with its
    /// neighbours in exact arithmetic.
    #[must_use]
    pub fn quotient(self, n: f64) -> f64 {
        debug_assert!(n >= 1.0 && n.fract() == 0.0);
        let first = self.hi / n;
        // One correction step brings the candidate within one unit of the answer.
        let mut best = first + self.rest(first, n);
        for candidate in [best.next_down(), best.next_up()] {
            if self.distance(candidate, n).less_than(&self.distance(best, n)) {
                best = candidate;
            }
        }
        best
    }

    /// What `q` lacks of `self / n`, to a double; for a `q` near it.
    #[must_use]
    pub fn rest(self, q: f64, n: f64) -> f64 {
        let (p, e) = two_product(q, n);
        (((self.hi - p) - e) + self.lo) / n
    }

    /// `|self - q*n|`, exactly.
    fn distance(self, q: f64, n: f64) -> Expansion<4> {
        let (p, e) = two_product(q, -n);
        let mut difference = Expansion::new();
        for term in [self.hi, self.lo, p, e] {
            difference.add(term);
        }
        difference.abs()
    }
}

/// `n*q - s*s`, exact before one final rounding; `n` is an integer up to 2^53.
///
/// With `s` the sum and `q` the sum of squares this is `n^2` times the population variance. Ten
/// doubles represent it without error: finishing in double-double alone is wrong on {1e16, 1e16+2}.
#[must_use]
pub fn n_times_q_minus_s_squared(n: f64, q: DoubleDouble, s: DoubleDouble) -> f64 {
    let mut sum = Expansion::<10>::new();
    for (a, b) in [(n, q.hi), (n, q.lo), (-s.hi, s.hi), (-2.0 * s.hi, s.lo), (-s.lo, s.lo)] {
        let (p, e) = two_product(a, b);
        sum.add(e);
        sum.add(p);
    }
    sum.round()
}

/// `a*b - c*d`, exact before one final rounding. With `a` the count, `b` the sum of products and `c`, `d` the
/// sums of two components it is `n^2` times their population covariance.
#[must_use]
pub fn difference_of_products(a: DoubleDouble, b: DoubleDouble, c: DoubleDouble, d: DoubleDouble) -> f64 {
    let mut sum = Expansion::<16>::new();
    for (x, y, sign) in [(a, b, 1.0), (c, d, -1.0)] {
        for (x, y) in [(x.lo, y.lo), (x.lo, y.hi), (x.hi, y.lo), (x.hi, y.hi)] {
            let (p, e) = two_product(sign * x, y);
            sum.add(e);
            sum.add(p);
        }
    }
    sum.round()
}

/// A sum of at most `N` doubles kept exactly: components that do not overlap, in increasing
/// magnitude (Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic", Grow-Expansion).
struct Expansion<const N: usize> {
    parts: [f64; N],
    len: usize,
}

impl<const N: usize> Expansion<N> {
    fn new() -> Self {
        Self { parts: [0.0; N], len: 0 }
    }

    fn add(&mut self, x: f64) {
        let mut carry = x;
        let mut kept = 0;
        for i in 0..self.len {
            let (s, e) = two_sum(carry, self.parts[i]);
            if e != 0.0 {
                self.parts[kept] = e;
                kept += 1;
            }
            carry = s;
        }
        if carry != 0.0 {
            self.parts[kept] = carry;
            kept += 1;
        }
        self.len = kept;
    }

    /// The value rounded to nearest, ties to even: the components are summed from the largest down
    /// and a tie is decided by the sign of what is left (as in Python's `math.fsum`).
    fn round(&self) -> f64 {
        let mut i = self.len;
        if i == 0 {
            return 0.0;
        }
        i -= 1;
        let mut hi = self.parts[i];
        let mut lo = 0.0;
        while i > 0 {
            i -= 1;
            let (s, e) = two_sum(hi, self.parts[i]);
            hi = s;
            lo = e;
            if lo != 0.0 {
                break;
            }
        }
        // `hi` was rounded half-way and something smaller pulls the same way: step over.
        if i > 0 && ((lo < 0.0 && self.parts[i - 1] < 0.0) || (lo > 0.0 && self.parts[i - 1] > 0.0)) {
            let twice = lo * 2.0;
            let next = hi + twice;
            if twice == next - hi {
                hi = next;
            }
        }
        hi
    }

    /// The sign is that of the largest component.
    fn sign(&self) -> f64 {
        self.parts[..self.len].last().map_or(0.0, |top| top.signum())
    }

    fn abs(mut self) -> Self {
        if self.sign() < 0.0 {
            for part in &mut self.parts[..self.len] {
                *part = -*part;
            }
        }
        self
    }

    fn less_than(&self, other: &Self) -> bool {
        let mut difference = Expansion::<16>::new();
        for &part in &self.parts[..self.len] {
            difference.add(part);
        }
        for &part in &other.parts[..other.len] {
            difference.add(-part);
        }
        difference.sign() < 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;
    use num_rational::BigRational;
    use num_traits::{Signed, Zero};
    use proptest::prelude::*;

    fn exact(x: f64) -> BigRational {
        BigRational::from_float(x).unwrap()
    }

    fn value(x: DoubleDouble) -> BigRational {
        exact(x.hi) + exact(x.lo)
    }

    /// Whether `x` is a double nearest to `truth`.
    fn is_nearest(x: f64, truth: &BigRational) -> bool {
        let off = |y: f64| (exact(y) - truth).abs();
        off(x) <= off(x.next_up()) && off(x) <= off(x.next_down())
    }

    fn pair(a: f64, b: f64) -> DoubleDouble {
        let (hi, lo) = two_sum(a, b);
        DoubleDouble { hi, lo }
    }

    fn double() -> impl Strategy<Value = f64> {
        (-1.0e3..1.0e3f64, -60..60i32).prop_map(|(m, e)| m * 2f64.powi(e))
    }

    proptest! {
        #[test]
        fn a_square_is_exact(x in double()) {
            prop_assert_eq!(value(DoubleDouble::square(x)), exact(x) * exact(x));
        }

        #[test]
        fn addition_keeps_106_bits(a in double(), b in double(), c in double(), d in double()) {
            let (x, y) = (pair(a, b), pair(c, d));
            let truth = value(x) + value(y);
            let error = (value(x.add(y)) - &truth).abs();
            let bound = truth.abs() * BigRational::new(3.into(), BigInt::from(1) << 106);
            prop_assert!(error <= bound);
        }

        #[test]
        fn the_quotient_is_the_nearest_double(a in double(), b in double(), n in 1u32..1_000_000) {
            let x = pair(a, b);
            let truth = value(x) / exact(f64::from(n));
            prop_assert!(is_nearest(x.quotient(f64::from(n)), &truth));
        }

        #[test]
        fn n_q_minus_s_s_is_rounded_once(a in double(), b in double(), c in double(), d in double(), n in 1u32..1_000_000) {
            let (q, s) = (pair(a, b), pair(c, d));
            let n = f64::from(n);
            let truth = exact(n) * value(q) - value(s) * value(s);
            let got = n_times_q_minus_s_squared(n, q, s);
            let right = if truth.is_zero() { got == 0.0 } else { is_nearest(got, &truth) };
            prop_assert!(right);
        }
    }

    proptest! {
        #[test]
        fn a_difference_of_products_is_rounded_once(a in double(), b in double(), c in double(), d in double(), e in double(), f in double()) {
            let (x, y, z, w) = (pair(a, b), pair(c, d), pair(e, f), pair(b, e));
            let truth = value(x) * value(y) - value(z) * value(w);
            let got = difference_of_products(x, y, z, w);
            let right = if truth.is_zero() { got == 0.0 } else { is_nearest(got, &truth) };
            prop_assert!(right);
        }

        #[test]
        fn on_the_diagonal_it_is_the_variance(a in double(), b in double(), c in double(), d in double(), n in 1u32..1_000_000) {
            let (q, s, n) = (pair(a, b), pair(c, d), f64::from(n));
            let exact = difference_of_products(DoubleDouble { hi: n, lo: 0.0 }, q, s, s);
            prop_assert_eq!(exact, n_times_q_minus_s_squared(n, q, s));
        }
    }

    #[test]
    fn adding_zero_changes_nothing() {
        let x = pair(1e16, 1.5);
        assert_eq!(x.add(DoubleDouble::default()), x);
        assert_eq!(DoubleDouble::default().add(x), x);
        assert_eq!(x.add_f64(0.0), x);
    }
}
