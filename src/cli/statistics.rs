//! The statistics of a row as the service sends them, for numbers and vectors alike.
//!
//! Used by `query/print.rs` and `summary.rs`. Numbers stay in the digits they came in.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value};

/// In the order of their columns.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Statistics {
    pub(super) sum: Option<Statistic>,
    pub(super) mean: Option<Statistic>,
    pub(super) var_pop: Option<Statistic>,
    pub(super) var_samp: Option<Statistic>,
    pub(super) stddev_pop: Option<Statistic>,
    pub(super) stddev_samp: Option<Statistic>,
    pub(super) min: Option<Statistic>,
    pub(super) max: Option<Statistic>,
    pub(super) sum_sq: Option<Statistic>,
    /// What only vectors have.
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    sum_products: Option<Value>,
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    covar_pop: Option<Value>,
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    covar_samp: Option<Value>,
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    corr: Option<Value>,
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    regr_slope: Option<Value>,
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    regr_intercept: Option<Value>,
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    regr_r2: Option<Value>,
}

impl Statistics {
    /// As cells of a CSV: nine columns, from `sum` to `sum_sq`, without those that only vectors have.
    pub(super) fn cells(&self) -> [String; 9] {
        [
            number(self.sum.as_ref()),
            number(self.mean.as_ref()),
            matrix(self.covar_pop.as_ref(), self.var_pop.as_ref()),
            matrix(self.covar_samp.as_ref(), self.var_samp.as_ref()),
            number(self.stddev_pop.as_ref()),
            number(self.stddev_samp.as_ref()),
            number(self.min.as_ref()),
            number(self.max.as_ref()),
            matrix(self.sum_products.as_ref(), self.sum_sq.as_ref()),
        ]
    }
}

/// A statistic in the digits it came in; of vectors a list.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Statistic {
    Number(Number),
    List(Vec<Number>),
}

impl Statistic {
    pub(super) fn double(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            Self::List(_) => None,
        }
    }
}

/// A member that is there, null or not.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A statistic in the digits it came in; empty if there is none.
pub(super) fn number(statistic: Option<&Statistic>) -> String {
    match statistic {
        None => String::new(),
        Some(Statistic::Number(number)) => number.to_string(),
        Some(Statistic::List(numbers)) => {
            format!("[{}]", numbers.iter().map(Number::to_string).collect::<Vec<_>>().join(","))
        }
    }
}

/// In a CSV, the whole matrix whose diagonal the statistic is, if there is one; as the service writes it there.
fn matrix(whole: Option<&Value>, statistic: Option<&Statistic>) -> String {
    whole.filter(|whole| !whole.is_null()).map_or_else(|| number(statistic), Value::to_string)
}
