//! What rows look like where the gaps between them are filled (`fill=null|previous`).
//!
//! Called by `stats.rs`. The columns are those of `format.rs`, in the same order. The place of a row that is not there
//! has the count 0 and the state `empty`, so that sums over an answer stay right; in JSON also `filled`.

use super::cell::{self, Cell, Statistics};
use super::format::{Columns, Format, HEADER, RowsBody, json, line};
use crate::query::{Filled, FilledPage, StatsRow};
use crate::stats::calendar::Bucket;
use crate::stats::{source, timestamp};
use serde::Serialize;
use utoipa::ToSchema;

/// A row, or the place where one would be.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = AnyRow)]
#[expect(clippy::large_enum_variant, reason = "made and written out again one by one, or a page of them")]
pub(super) enum AnyColumns<'a> {
    Row(Columns<'a>),
    Empty(EmptyColumns<'a>),
}

/// An empty bucket. With `fill=previous` mean, variances and extremes are those of the row before.
#[derive(Serialize, ToSchema)]
#[schema(as = EmptyRow)]
pub(super) struct EmptyColumns<'a> {
    source: &'a str,
    period: String,
    start: String,
    end: String,
    /// 0.
    count: u64,
    sum: Option<f64>,
    #[schema(schema_with = cell::optional_schema)]
    mean: Cell,
    #[schema(schema_with = cell::optional_schema)]
    var_pop: Cell,
    #[schema(schema_with = cell::optional_schema)]
    var_samp: Cell,
    #[schema(schema_with = cell::optional_schema)]
    stddev_pop: Cell,
    #[schema(schema_with = cell::optional_schema)]
    stddev_samp: Cell,
    #[schema(schema_with = cell::optional_schema)]
    min: Cell,
    #[schema(schema_with = cell::optional_schema)]
    max: Cell,
    sum_sq: Option<f64>,
    /// `empty`.
    state: &'static str,
    generation: Option<i64>,
    revision: Option<i64>,
    /// true.
    filled: bool,
}

impl<'a> EmptyColumns<'a> {
    fn of(source: &'a str, bucket: &Bucket, shown: Statistics) -> Self {
        Self {
            source,
            period: bucket.period.to_string(),
            start: timestamp::format(bucket.start),
            end: timestamp::format(bucket.end),
            count: 0,
            sum: None,
            mean: shown.mean,
            var_pop: shown.var_pop,
            var_samp: shown.var_samp,
            stddev_pop: shown.stddev_pop,
            stddev_samp: shown.stddev_samp,
            min: shown.min,
            max: shown.max,
            sum_sq: None,
            state: "empty",
            generation: None,
            revision: None,
            filled: true,
        }
    }
}

impl<'a> AnyColumns<'a> {
    fn of(row: &'a Filled, expected: &dyn Fn(&StatsRow) -> Option<f64>) -> Self {
        match row {
            Filled::Row(row) => Self::Row(Columns::of(row).expecting(expected(row))),
            Filled::Empty { source, bucket, previous } => {
                let shown = previous.as_ref().map(|row| Statistics::of(&row.moments));
                Self::Empty(EmptyColumns::of(source, bucket, shown.unwrap_or_default()))
            }
        }
    }
}

/// A page in a format; the caller puts cursor and `partial` into headers where the body has no place for them.
pub(super) fn page(format: Format, page: &FilledPage, expected: &dyn Fn(&StatsRow) -> Option<f64>) -> Vec<u8> {
    let columns = page.rows.iter().map(|row| AnyColumns::of(row, expected));
    match format {
        Format::Json => json(&RowsBody { rows: columns.collect(), next: page.next.as_deref(), partial: page.partial }),
        Format::Ndjson => columns.flat_map(|row| [json(&row), b"\n".to_vec()].concat()).collect(),
        Format::Csv => csv(&page.rows),
        Format::Text => text(&page.rows).into_bytes(),
    }
}

fn csv(rows: &[Filled]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let written = "a record of columns, into memory";
    writer.write_record(HEADER).expect(written);
    for row in rows {
        match row {
            Filled::Row(row) => {
                let source = source::to_cell(&row.source);
                writer.serialize(Columns::flat(row).under(&source)).expect(written);
            }
            Filled::Empty { source, bucket, previous } => {
                let id = source::to_cell(source);
                let shown = previous.as_ref().map(|row| Statistics::flat(&row.moments)).unwrap_or_default();
                let row = EmptyColumns::of(&id, bucket, shown);
                let place = (row.source, row.period, row.start, row.end, row.count, row.sum, row.mean);
                let spread = (row.var_pop, row.var_samp, row.stddev_pop, row.stddev_samp, row.min, row.max);
                let rest = (row.sum_sq, row.state, row.generation, row.revision);
                writer.serialize((place, spread, rest)).expect(written);
            }
        }
    }
    writer.into_inner().expect("memory does not fail")
}

/// `id, mean, variance`, one line per bucket; none where there is nothing to say.
fn text(rows: &[Filled]) -> String {
    let of = |row: &Filled| match row {
        Filled::Row(row) => line(&row.source, &row.moments),
        Filled::Empty { source, previous, .. } => line(source, &previous.as_ref()?.moments),
    };
    rows.iter().filter_map(of).collect()
}
