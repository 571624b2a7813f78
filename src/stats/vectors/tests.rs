//! Vectors against exact rational arithmetic, on sets that are made to hurt.

use super::super::moments::{Moments, Unlike};
use super::*;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use proptest::prelude::*;

fn fold(values: &[Vec<f64>]) -> Moments {
    let mut moments = Moments::EMPTY;
    for values in values {
        moments.push_vector(values);
    }
    moments
}

fn vector(values: &[Vec<f64>]) -> Vectors {
    *fold(values).vector.expect("readings that are vectors")
}

fn rational(x: f64) -> BigRational {
    BigRational::from_float(x).unwrap()
}

/// Mean of each component and the population covariances, without rounding.
fn exact(values: &[Vec<f64>]) -> (Vec<BigRational>, Vec<Vec<BigRational>>) {
    let n = BigRational::from_integer(BigInt::from(values.len()));
    let d = values[0].len();
    let column = |i: usize| values.iter().map(move |reading| rational(reading[i]));
    let means: Vec<BigRational> = (0..d).map(|i| column(i).sum::<BigRational>() / &n).collect();
    let entry = |i: usize, j: usize| {
        column(i).zip(column(j)).map(|(x, y)| (x - &means[i]) * (y - &means[j])).sum::<BigRational>() / &n
    };
    let covariances = (0..d).map(|i| (0..d).map(|j| entry(i, j)).collect()).collect();
    (means, covariances)
}

/// Means to the bit, and each covariance within 1e-11 of the exact one, relative to it or, where the two
/// components are nearly independent, to their standard deviations. In order, reversed and merged from parts.
fn check(values: &[Vec<f64>]) {
    let (means, covariances) = exact(values);
    let reversed: Vec<_> = values.iter().rev().cloned().collect();
    let mut merged = Moments::EMPTY;
    values.chunks(7).for_each(|part| merged.merge(&fold(part)));
    for moments in [fold(values), fold(&reversed), merged] {
        let got = moments.vector.unwrap();
        let expected: Vec<f64> = means.iter().map(|mean| mean.to_f64().unwrap()).collect();
        assert_eq!(got.mean().unwrap().to_vec(), expected);
        for ((i, j), &x) in got.covar_pop().unwrap().indexed_iter() {
            let truth = &covariances[i][j];
            let scale = truth.abs() * truth.abs();
            let spread = &covariances[i][i] * &covariances[j][j];
            let limit = BigRational::new(1.into(), BigInt::from(10).pow(22)) * if i == j { scale } else { spread };
            let off = rational(x) - truth;
            assert!(
                &off * &off <= limit,
                "({i}, {j}) of {} readings: {x} for {}",
                values.len(),
                truth.to_f64().unwrap()
            );
        }
    }
}

#[test]
fn sets_that_leave_plain_doubles_without_digits() {
    let around = |base: f64, step: f64| -> Vec<Vec<f64>> {
        (0..500)
            .map(|i| {
                let (a, b) = (f64::from(i % 17), f64::from(i * i % 23));
                vec![base + step * a, base - step * (a + 0.1 * b), base + step * b]
            })
            .collect()
    };
    check(&around(1e7, 0.1));
    check(&around(1.75e9, 1.0));
    check(&around(1013.25, 0.001));
    let mut outlier = vec![vec![1e9, -1e9, 1e9]];
    outlier.extend(around(20.0, 0.013));
    check(&outlier);
    check(&around(-1e-3, 1e-9));
}

#[test]
fn a_small_set_by_hand() {
    let got = vector(&[vec![1.0, 2.0], vec![3.0, -5.0], vec![5.0, 0.0]]);
    assert_eq!(got.sum().to_vec(), [9.0, -3.0]);
    assert_eq!(got.min().to_vec(), [1.0, -5.0]);
    assert_eq!(got.max().to_vec(), [5.0, 2.0]);
    assert_eq!(got.sum_products(), ndarray::array![[35.0, -13.0], [-13.0, 29.0]]);
    assert_eq!(got.covar_pop().unwrap(), ndarray::array![[24.0 / 9.0, -12.0 / 9.0], [-12.0 / 9.0, 78.0 / 9.0]]);
    assert_eq!(got.covar_samp().unwrap(), ndarray::array![[4.0, -2.0], [-2.0, 13.0]]);
    let corr = got.corr().unwrap();
    assert_eq!((corr[(0, 0)], corr[(1, 1)]), (1.0, 1.0));
    assert!((corr[(0, 1)] + 2.0 / 52f64.sqrt()).abs() < 1e-15);
    let Regression { slope, intercept, r2 } = got.regression().unwrap();
    assert_eq!((slope, intercept), (-0.5, 0.5));
    assert!((r2 - 1.0 / 13.0).abs() < 1e-16);
}

#[test]
fn every_pair_of_components_has_its_own_sum() {
    let reading: Vec<f64> = (1..=64).map(f64::from).collect();
    let got = vector(std::slice::from_ref(&reading));
    for ((i, j), &x) in got.sum_products().indexed_iter() {
        assert_eq!(x, reading[i] * reading[j]);
    }
}

#[test]
fn what_does_not_vary_has_no_correlation() {
    let got = vector(&[vec![0.1, 1.0, 7.0], vec![0.1, 2.0, 5.0], vec![0.1, 4.0, 1.0]]);
    let (covar, corr) = (got.covar_pop().unwrap(), got.corr().unwrap());
    for i in 0..3 {
        assert_eq!((covar[(0, i)], covar[(i, 0)]), (0.0, 0.0));
        assert!(corr[(0, i)].is_nan() && corr[(i, 0)].is_nan());
    }
    assert_eq!((corr[(1, 1)], corr[(1, 2)], corr[(2, 2)]), (1.0, -1.0, 1.0));
    assert_eq!(got.regression(), None, "of three components");
    let upright = vector(&[vec![2.0, 1.0], vec![2.0, 3.0]]);
    assert_eq!(upright.regression(), None);
    let level = vector(&[vec![1.0, 2.0], vec![3.0, 2.0]]).regression().unwrap();
    assert_eq!(level, Regression { slope: 0.0, intercept: 2.0, r2: 1.0 });
}

#[test]
fn few_readings() {
    let none = Vectors::empty(2);
    assert_eq!((none.mean(), none.covar_pop(), none.covar_samp(), none.corr()), (None, None, None, None));
    let one = vector(&[vec![3.0, -0.0]]);
    assert_eq!(one.covar_pop().unwrap(), Array2::<f64>::zeros((2, 2)));
    assert_eq!(one.covar_samp(), None);
    assert!(one.min()[1].is_sign_positive());
    let moments = fold(&[vec![3.0, 4.0]]);
    assert_eq!((moments.mean(), moments.var_pop(), moments.count, moments.length()), (None, None, 1.0, 2));
}

#[test]
fn the_line_is_right_far_from_its_origin() {
    // Seconds since 1970 on the one side, a temperature that rises by a degree an hour on the other.
    let values: Vec<Vec<f64>> =
        (0..3_600).map(|i| vec![1_795_132_800.0 + f64::from(i), 20.0 + f64::from(i) / 4_096.0]).collect();
    let Regression { slope, intercept, r2 } = vector(&values).regression().unwrap();
    assert_eq!((slope, intercept, r2), (1.0 / 4_096.0, 20.0 - 1_795_132_800.0 / 4_096.0, 1.0));
}

#[test]
fn the_largest_values_stay_finite() {
    let moments = fold(&[vec![MAX_ABS_VALUE, -MAX_ABS_VALUE], vec![-MAX_ABS_VALUE, MAX_ABS_VALUE], vec![0.0, 1.0]]);
    assert!(moments.is_finite());
    let got = moments.vector.unwrap();
    assert_eq!(got.corr().unwrap()[(0, 1)], -1.0);
    let line = got.regression().unwrap();
    assert!((line.slope + 1.0).abs() < 1e-15 && line.intercept.is_finite() && line.r2 == 1.0, "{line:?}");
}

#[test]
fn other_lengths_do_not_merge() {
    let (mut two, three) = (Moments::of_vector(&[1.0, 2.0]), Moments::of_vector(&[1.0, 2.0, 3.0]));
    let before = two.clone();
    assert_eq!(two.try_merge(&three), Err(Unlike(2, 3)));
    assert_eq!(two.try_merge(&Moments::of(1.0)), Err(Unlike(2, 1)));
    assert_eq!(Moments::of(1.0).try_merge(&two), Err(Unlike(1, 2)));
    assert_eq!(two.try_merge(&Moments::EMPTY), Ok(()));
    assert_eq!(two, before);
    let mut empty = Moments::EMPTY;
    assert_eq!(empty.try_merge(&two), Ok(()));
    assert_eq!(empty, two);
}

proptest! {
    /// Off by no more than what 60 additions of 106 bits leave in the mean product.
    #[test]
    fn agrees_with_rational_arithmetic(base in -1e9..1e9f64, readings in prop::collection::vec(prop::collection::vec(-1.0..1.0f64, 4), 2..40)) {
        let values: Vec<Vec<f64>> = readings.iter().map(|r| vec![base + r[0], r[1], base - r[2] + r[0], r[3] * 1e-6]).collect();
        let (means, covariances) = exact(&values);
        let got = vector(&values);
        for ((i, j), &x) in got.covar_pop().unwrap().indexed_iter() {
            let truth = &covariances[i][j];
            let product = |i: usize| &covariances[i][i] + &means[i] * &means[i];
            let power = |bits: u32| BigRational::new(1.into(), BigInt::from(1) << bits);
            let limit = (product(i) + product(j)) * power(94) + truth.abs() * power(50);
            prop_assert!((rational(x) - truth).abs() <= limit);
        }
        let corr = got.corr().unwrap();
        prop_assert!(corr.iter().all(|r| r.is_nan() || (-1.0..=1.0).contains(r)));
        prop_assert_eq!(&corr.t().to_owned(), &corr);
    }

    /// However readings are split and put together: counts, extremes and means are the same to the bit.
    #[test]
    fn any_order_and_any_split(readings in prop::collection::vec(prop::collection::vec(-1e6..1e6f64, 3), 1..60), seed in any::<u64>()) {
        let whole = vector(&readings);
        let mut order: Vec<usize> = (0..readings.len()).collect();
        order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(seed | 1));
        let mut parts = vec![Moments::EMPTY; 4];
        for (n, i) in order.into_iter().enumerate() {
            parts[(seed as usize + n * n) % 4].push_vector(&readings[i]);
        }
        let mut merged = Moments::EMPTY;
        for part in &parts {
            merged.merge(part);
        }
        prop_assert_eq!(merged.count, readings.len() as f64);
        let merged = merged.vector.unwrap();
        prop_assert_eq!(merged.mean(), whole.mean());
        prop_assert_eq!((merged.min(), merged.max()), (whole.min(), whole.max()));
        let (a, b) = (merged.covar_pop().unwrap(), whole.covar_pop().unwrap());
        let far = |((i, j), x): ((usize, usize), &f64)| (x - b[(i, j)]).abs() > 1e-11 * (b[(i, i)] * b[(j, j)]).sqrt();
        prop_assert!(!a.indexed_iter().any(far));
    }
}

#[test]
fn a_correlation_of_nearly_one_stays_within_one() {
    let values: Vec<Vec<f64>> = (0..100).map(|i| vec![0.1 * f64::from(i), 0.3 * f64::from(i)]).collect();
    let r = vector(&values).corr().unwrap()[(0, 1)];
    assert!(r <= 1.0 && r > 1.0 - 1e-12);
    assert!(!exact(&values).1[0][1].is_zero());
}
