//! Two sets of readings beside each other, from their moments alone: are the means different, are the variances?
//!
//! Called by `http/compare.rs`. Pure arithmetic. Difference of means by Welch's t (Welch 1947, "The generalization of
//! Student's problem when several different population variances are involved"; degrees of freedom after
//! Satterthwaite 1946), ratio of variances by F. Both suppose independent readings, F also normal ones; docs/comparing.md
//! says what follows. The difference itself is exact to a double: neither mean is rounded before it is taken.

use super::distributions::{f_above, f_below, f_quantile, t_beyond, t_quantile};
use super::moments::Moments;

/// Two sets of readings, `a - b` and `a / b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Of the means; `None` if one of the sets is empty.
    pub difference: Option<f64>,
    /// `None` if a set has fewer than two readings, or both are constant: nothing says how certain a mean is.
    pub welch: Option<Welch>,
    /// Of the sample variances; `None` if a set has fewer than two readings, or one is constant.
    pub ratio: Option<Ratio>,
}

/// How certain a difference of means is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    pub standard_error: f64,
    pub t: f64,
    /// After Welch and Satterthwaite; not a whole number.
    pub df: f64,
    /// Of a difference at least as large, on either side, if there were none.
    pub p: f64,
    /// The confidence interval of the difference.
    pub low: f64,
    pub high: f64,
}

/// A ratio of variances and how certain it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub f: f64,
    pub df_a: f64,
    pub df_b: f64,
    /// Of a ratio at least as far from 1, on either side, if they were equal.
    pub p: f64,
    /// The confidence interval of the ratio.
    pub low: f64,
    pub high: f64,
}

/// Compares two sets; `confidence` is that of the intervals, between 0 and 1.
#[must_use]
pub fn compare(a: &Moments, b: &Moments, confidence: f64) -> Comparison {
    debug_assert!(0.0 < confidence && confidence < 1.0);
    let difference = difference(a, b);
    let variances = a.var_samp().zip(b.var_samp());
    let welch = difference.zip(variances).and_then(|(difference, (var_a, var_b))| {
        let (of_a, of_b) = (var_a / a.count, var_b / b.count);
        welch(difference, (of_a, a.count - 1.0), (of_b, b.count - 1.0), confidence)
    });
    let ratio = variances.filter(|(var_a, var_b)| *var_a > 0.0 && *var_b > 0.0);
    let ratio = ratio.map(|(var_a, var_b)| {
        let (f, df_a, df_b) = (var_a / var_b, a.count - 1.0, b.count - 1.0);
        let tail = (1.0 - confidence) / 2.0;
        Ratio {
            f,
            df_a,
            df_b,
            p: (2.0 * f_below(f, df_a, df_b).min(f_above(f, df_a, df_b))).min(1.0),
            low: f / f_quantile(tail, df_a, df_b),
            high: f * f_quantile(tail, df_b, df_a),
        }
    });
    Comparison { difference, welch, ratio }
}

/// The difference of the means, rounded once or twice.
fn difference(a: &Moments, b: &Moments) -> Option<f64> {
    let (mean_a, mean_b) = (a.mean()?, b.mean()?);
    let rests = a.sum.rest(mean_a, a.count) - b.sum.rest(mean_b, b.count);
    Some((mean_a - mean_b) + rests)
}

/// Of a difference, and of each side the squared standard error of its mean and its degrees of freedom.
fn welch(difference: f64, a: (f64, f64), b: (f64, f64), confidence: f64) -> Option<Welch> {
    let squared = a.0 + b.0;
    if squared <= 0.0 {
        return None;
    }
    // As parts of the sum, so that nothing overflows.
    let (part_a, part_b) = (a.0 / squared, b.0 / squared);
    let df = 1.0 / (part_a * part_a / a.1 + part_b * part_b / b.1);
    let standard_error = squared.sqrt();
    let t = difference / standard_error;
    let around = t_quantile(1.0 - confidence, df) * standard_error;
    let (low, high) = (difference - around, difference + around);
    Some(Welch { standard_error, t, df, p: t_beyond(t, df), low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f64]) -> Moments {
        let mut moments = Moments::EMPTY;
        for value in values {
            moments.push(*value);
        }
        moments
    }

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-10 * expected.abs(), "{got}, not {expected}");
    }

    /// Student's sleep data (1908), as often worked out with these tests: t = -1.8608 with 17.776 degrees of freedom.
    const SLEEP: [[f64; 10]; 2] =
        [[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]];

    /// The digits are those of another program, which integrates the densities numerically.
    #[test]
    fn sleep() {
        let Comparison { difference, welch, ratio } = compare(&moments(&SLEEP[0]), &moments(&SLEEP[1]), 0.95);
        let (welch, ratio) = (welch.unwrap(), ratio.unwrap());
        near(difference.unwrap(), -1.58);
        near(welch.standard_error, 0.849_091_017_238_761_9);
        near(welch.t, -1.860_813_467_486_853_3);
        near(welch.df, 17.776_473_516_178_49);
        near(welch.p, 0.079_394_140_187_356_02);
        near(welch.low, -3.365_483_230_711_692_6);
        near(welch.high, 0.205_483_230_711_692_28);
        near(ratio.f, 0.798_342_617_998_392_6);
        near(ratio.p, 0.742_719_931_726_043_6);
        near(ratio.low, 0.198_297_013_510_534_08);
        near(ratio.high, 3.214_122_716_369_867_6);
    }

    #[test]
    fn few_readings_of_unequal_spread_at_another_confidence() {
        let (a, b) = (moments(&[20.1, 20.4, 19.8, 20.0, 20.3, 20.2]), moments(&[20.9, 21.7, 20.2, 22.4]));
        let Comparison { welch, ratio, .. } = compare(&a, &b, 0.99);
        let (welch, ratio) = (welch.unwrap(), ratio.unwrap());
        near(welch.df, 3.205_628_773_546_396);
        near(welch.p, 0.090_258_722_476_107_78);
        near(welch.low, -3.831_642_941_297_529_2);
        near(welch.high, 1.498_309_607_964_200_7);
        near(ratio.p, 0.006_828_884_525_847_573);
        near(ratio.low, 0.001_125_645_252_729_540_6);
        near(ratio.high, 0.844_586_811_830_734_6);
    }

    #[test]
    fn what_cannot_be_said() {
        let check = |a: &[f64], b: &[f64]| compare(&moments(a), &moments(b), 0.95);
        assert_eq!(check(&[], &[1.0]).difference, None);
        let single = check(&[1.0], &[2.0, 3.0]);
        assert_eq!((single.difference, single.welch, single.ratio), (Some(-1.5), None, None));
        let constant = check(&[1.0, 1.0], &[2.0, 2.0]);
        assert_eq!((constant.difference, constant.welch, constant.ratio), (Some(-1.0), None, None));
        // One constant side leaves the uncertainty to the other.
        let one = check(&[1.0, 1.0, 1.0], &[2.0, 4.0]);
        assert_eq!((one.welch.unwrap().df, one.ratio), (1.0, None));
    }

    #[test]
    fn a_small_difference_of_large_means_keeps_its_digits() {
        let base = 1.75e9;
        let a: Vec<f64> = (0..3).map(|i| base + f64::from(i) * 2.0_f64.powi(-20)).collect();
        let b: Vec<f64> = (0..3).map(|i| base + f64::from(i * i) * 2.0_f64.powi(-20)).collect();
        // The true difference is a third of 2^-19; the means are rounded to 2^-22.
        near(compare(&moments(&a), &moments(&b), 0.95).difference.unwrap(), -(2.0_f64.powi(-19)) / 3.0);
    }
}
