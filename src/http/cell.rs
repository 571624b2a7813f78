//! A statistic as it stands in an answer: a number, of vectors a list of them or a matrix.
//!
//! Used by `format.rs`, `filled.rs`, `summary.rs` and `compare.rs`. Of readings that are single numbers nothing is written otherwise than if there
//! were no vectors. What is not a number becomes null.

use crate::stats::moments::Moments;
use ndarray::{Array2, ArrayView1};
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Cell {
    #[default]
    None,
    Number(f64),
    List(Vec<f64>),
    Matrix(Vec<Vec<f64>>),
    /// In a CSV: a list or a matrix as JSON.
    Text(String),
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Number(x) => x.serialize(serializer),
            Self::List(values) => values.serialize(serializer),
            Self::Matrix(rows) => rows.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

impl From<Option<f64>> for Cell {
    fn from(x: Option<f64>) -> Self {
        x.map_or(Self::None, Self::Number)
    }
}

impl From<ArrayView1<'_, f64>> for Cell {
    fn from(values: ArrayView1<'_, f64>) -> Self {
        Self::List(values.to_vec())
    }
}

impl From<Option<Array2<f64>>> for Cell {
    fn from(matrix: Option<Array2<f64>>) -> Self {
        matrix.map_or(Self::None, |matrix| Self::Matrix(matrix.rows().into_iter().map(|row| row.to_vec()).collect()))
    }
}

impl Cell {
    fn diagonal(matrix: Option<&Array2<f64>>, root: bool) -> Self {
        let of = |matrix: &Array2<f64>| matrix.diag().iter().map(|x| if root { x.sqrt() } else { *x }).collect();
        matrix.map_or(Self::None, |matrix| Self::List(of(matrix)))
    }

    /// As it stands in a cell of a CSV.
    fn flat(self) -> Self {
        match self {
            Self::List(_) | Self::Matrix(_) => {
                Self::Text(serde_json::to_string(&self).expect("numbers write into memory"))
            }
            other => other,
        }
    }
}

/// The statistics of a row that have a column for numbers and vectors alike. By default there are none.
#[derive(Default)]
pub(super) struct Statistics {
    pub(super) sum: Cell,
    pub(super) mean: Cell,
    pub(super) var_pop: Cell,
    pub(super) var_samp: Cell,
    pub(super) stddev_pop: Cell,
    pub(super) stddev_samp: Cell,
    pub(super) min: Cell,
    pub(super) max: Cell,
    pub(super) sum_sq: Cell,
}

impl Statistics {
    pub(super) fn of(moments: &Moments) -> Self {
        let Some(vector) = &moments.vector else {
            return Self {
                sum: Cell::Number(moments.sum.hi),
                mean: moments.mean().into(),
                var_pop: moments.var_pop().into(),
                var_samp: moments.var_samp().into(),
                stddev_pop: moments.stddev_pop().into(),
                stddev_samp: moments.stddev_samp().into(),
                min: Cell::Number(moments.min),
                max: Cell::Number(moments.max),
                sum_sq: Cell::Number(moments.sum_sq.hi),
            };
        };
        let (pop, samp) = (vector.covar_pop(), vector.covar_samp());
        Self {
            sum: vector.sum().view().into(),
            mean: vector.mean().map_or(Cell::None, |mean| mean.view().into()),
            var_pop: Cell::diagonal(pop.as_ref(), false),
            var_samp: Cell::diagonal(samp.as_ref(), false),
            stddev_pop: Cell::diagonal(pop.as_ref(), true),
            stddev_samp: Cell::diagonal(samp.as_ref(), true),
            min: vector.min().into(),
            max: vector.max().into(),
            sum_sq: Cell::diagonal(Some(&vector.sum_products()), false),
        }
    }

    /// For a CSV: of vectors as JSON, variances and sums of squares as whole matrices, as in the files of the CSV
    /// sink.
    pub(super) fn flat(moments: &Moments) -> Self {
        let mut all = Self::of(moments);
        if let Some(vector) = &moments.vector {
            all.var_pop = vector.covar_pop().into();
            all.var_samp = vector.covar_samp().into();
            all.sum_sq = Some(vector.sum_products()).into();
        }
        let Self { sum, mean, var_pop, var_samp, stddev_pop, stddev_samp, min, max, sum_sq } = all;
        Self {
            sum: sum.flat(),
            mean: mean.flat(),
            var_pop: var_pop.flat(),
            var_samp: var_samp.flat(),
            stddev_pop: stddev_pop.flat(),
            stddev_samp: stddev_samp.flat(),
            min: min.flat(),
            max: max.flat(),
            sum_sq: sum_sq.flat(),
        }
    }
}

/// The statistics that only vectors have; `None` are left out of an answer.
#[derive(Default)]
pub(super) struct Together {
    pub(super) sum_products: Option<Cell>,
    pub(super) covar_pop: Option<Cell>,
    pub(super) covar_samp: Option<Cell>,
    pub(super) corr: Option<Cell>,
    pub(super) regr_slope: Option<Cell>,
    pub(super) regr_intercept: Option<Cell>,
    pub(super) regr_r2: Option<Cell>,
}

impl Together {
    pub(super) fn of(moments: &Moments) -> Self {
        let Some(vector) = &moments.vector else { return Self::default() };
        let line = (vector.length() == 2).then(|| vector.regression());
        Self {
            sum_products: Some(Some(vector.sum_products()).into()),
            covar_pop: Some(vector.covar_pop().into()),
            covar_samp: Some(vector.covar_samp().into()),
            corr: Some(vector.corr().into()),
            regr_slope: line.map(|line| line.map(|line| line.slope).into()),
            regr_intercept: line.map(|line| line.map(|line| line.intercept).into()),
            regr_r2: line.map(|line| line.map(|line| line.r2).into()),
        }
    }
}

fn kind(of: &[Type]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(of.iter().cloned().collect::<SchemaType>())
}

/// A number or, of vectors, a list of them.
pub(super) fn schema() -> Schema {
    let list = ArrayBuilder::new().items(kind(&[Type::Number]));
    OneOfBuilder::new().item(kind(&[Type::Number])).item(list).build().into()
}

/// The same where there may be none.
pub(super) fn optional_schema() -> Schema {
    let list = ArrayBuilder::new().items(kind(&[Type::Number]));
    OneOfBuilder::new().item(kind(&[Type::Number, Type::Null])).item(list).build().into()
}

/// A matrix of numbers, row by row.
pub(super) fn matrix_schema() -> Schema {
    let row = ArrayBuilder::new().items(kind(&[Type::Number, Type::Null]));
    OneOfBuilder::new().item(kind(&[Type::Null])).item(ArrayBuilder::new().items(row)).build().into()
}
