//! Sets of readings that ruin the textbook formula of the variance, and the truth about them.
//!
//! Used by the accuracy section. The truth is rational arithmetic over the doubles themselves, so
//! nothing is rounded before the end.

use crate::random::Random;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

const SEED: u64 = 0x7365_7473;
/// An hour of readings, one a second.
const HOUR: usize = 3_600;

pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// In the order in which they are posted, unless shuffled.
    pub(crate) values: Vec<f64>,
    /// Exact mean.
    mean: BigRational,
    /// Exact population variance.
    var_pop: BigRational,
}

/// All sets, the same in every run.
pub(crate) fn all() -> Vec<Set> {
    let mut random = Random::new(SEED);
    let mut noise =
        |mean: f64, deviation: f64| -> Vec<f64> { (0..HOUR).map(|_| mean + deviation * random.normal()).collect() };
    let pairs = [10_000_000.1, 10_000_000.3].repeat(500);
    vec![
        Set::new("1e7 +- 0.1", [vec![10_000_000.2], pairs].concat()),
        Set::new("1.75e9 + N(0, 1)", noise(1.75e9, 1.0)),
        Set::new("1013.25 + N(0, 0.001)", noise(1013.25, 0.001)),
        Set::new("1e9, then N(20, 0.1)", [vec![1e9], noise(20.0, 0.1)].concat()),
        Set::new("1e16, 1e16 + 2", vec![1e16, 1e16 + 2.0]),
        Set::new("constant 0.1", vec![0.1; HOUR]),
    ]
}

impl Set {
    fn new(name: &'static str, values: Vec<f64>) -> Self {
        let rational = |x: &f64| BigRational::from_float(*x).expect("the sets are finite");
        let n = BigRational::from_integer(BigInt::from(values.len()));
        let mean = values.iter().map(rational).sum::<BigRational>() / &n;
        let mean_square = values.iter().map(|x| rational(x).pow(2)).sum::<BigRational>() / &n;
        let var_pop = mean_square - &mean * &mean;
        Self { name, values, mean, var_pop }
    }

    /// The variance rounded to a double, for showing.
    pub(crate) fn var_pop(&self) -> f64 {
        nearest(&self.var_pop)
    }

    /// Whether `mean` is the double nearest to the mean.
    pub(crate) fn is_mean(&self, mean: f64) -> bool {
        mean == nearest(&self.mean)
    }

    /// `|var_pop - exact| / exact`. Where the exact variance is 0, anything else is infinitely wrong.
    pub(crate) fn relative_error(&self, var_pop: f64) -> f64 {
        let Some(given) = BigRational::from_float(var_pop) else { return f64::INFINITY };
        let difference = (given - &self.var_pop).abs();
        match (difference.is_zero(), self.var_pop.is_zero()) {
            (true, _) => 0.0,
            (false, true) => f64::INFINITY,
            (false, false) => nearest(&(difference / &self.var_pop)),
        }
    }

    /// `sum_sq / n - mean^2` in doubles: what services that keep two plain sums answer.
    pub(crate) fn textbook_var_pop(&self) -> f64 {
        let n = self.values.len() as f64;
        let sum: f64 = self.values.iter().sum();
        let sum_sq: f64 = self.values.iter().map(|x| x * x).sum();
        sum_sq / n - (sum / n) * (sum / n)
    }
}

fn nearest(x: &BigRational) -> f64 {
    x.to_f64().expect("the sets are far from the limits of a double")
}
