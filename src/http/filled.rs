//! What rows look like where the gaps between them are filled (`fill=null|previous`).
//!
//! Called by `stats.rs`. The columns are those of `format.rs`, in the same order. The place of a row that is not there
//! has the count 0 and the state `empty`, so that sums over an answer stay right; in JSON also `filled`.

use super::format::{Columns, Format, HEADER, RowsBody, json};
use crate::query::{Filled, FilledPage, StatsRow};
use crate::stats::calendar::Bucket;
use crate::stats::{source, timestamp};
use serde::Serialize;
use std::fmt::Write as _;
use utoipa::ToSchema;

/// A row, or the place where one would be.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = AnyRow)]
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
    mean: Option<f64>,
    var_pop: Option<f64>,
    var_samp: Option<f64>,
    stddev_pop: Option<f64>,
    stddev_samp: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    sum_sq: Option<f64>,
    /// `empty`.
    state: &'static str,
    generation: Option<i64>,
    revision: Option<i64>,
    /// true.
    filled: bool,
}

impl<'a> EmptyColumns<'a> {
    fn of(source: &'a str, bucket: &Bucket, previous: Option<&StatsRow>) -> Self {
        let moments = previous.map(|row| row.moments);
        Self {
            source,
            period: bucket.period.to_string(),
            start: timestamp::format(bucket.start),
            end: timestamp::format(bucket.end),
            count: 0,
            sum: None,
            mean: moments.and_then(|m| m.mean()),
            var_pop: moments.and_then(|m| m.var_pop()),
            var_samp: moments.and_then(|m| m.var_samp()),
            stddev_pop: moments.and_then(|m| m.stddev_pop()),
            stddev_samp: moments.and_then(|m| m.stddev_samp()),
            min: moments.map(|m| m.min),
            max: moments.map(|m| m.max),
            sum_sq: None,
            state: "empty",
            generation: None,
            revision: None,
            filled: true,
        }
    }
}

impl<'a> AnyColumns<'a> {
    fn of(row: &'a Filled) -> Self {
        match row {
            Filled::Row(row) => Self::Row(Columns::of(row)),
            Filled::Empty { source, bucket, previous } => {
                Self::Empty(EmptyColumns::of(source, bucket, previous.as_deref()))
            }
        }
    }
}

/// A page in a format; the caller puts cursor and `partial` into headers where the body has no place for them.
pub(super) fn page(format: Format, page: &FilledPage) -> Vec<u8> {
    let columns = page.rows.iter().map(AnyColumns::of);
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
                writer.serialize(Columns::of(row).under(&source)).expect(written);
            }
            Filled::Empty { source, bucket, previous } => {
                let id = source::to_cell(source);
                let row = EmptyColumns::of(&id, bucket, previous.as_deref());
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
    let mut lines = String::new();
    for row in rows {
        let (row, source) = match row {
            Filled::Row(row) => (row, &row.source),
            Filled::Empty { previous: Some(row), source, .. } => (&**row, source),
            Filled::Empty { .. } => continue,
        };
        if let (Some(mean), Some(variance)) = (row.moments.mean(), row.moments.var_pop()) {
            writeln!(lines, "{source}, {mean:?}, {variance:?}").expect("text takes every line");
        }
    }
    lines
}
