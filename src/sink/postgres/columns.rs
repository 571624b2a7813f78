//! Rows as the columns of `bucket_stats`, and back.
//!
//! Used by `write.rs`, `read.rs` and `history.rs`. Numbers travel in binary, so every double arrives
//! bit for bit. What is read back are `state` and `base`, the bytes of `stats/layout.rs`; the columns
//! between are for people. `migrations/` has the types.

use super::arrays;
use super::failure::Failure;
use crate::stats::layout;
use crate::stats::moments::Moments;
use crate::stats::row::Row;
use crate::stats::{Millis, timestamp};
use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;

/// Instants of the years 69 to 8307: no bucket of the service lies outside, and the server holds more.
const EARLIEST: Millis = -60_000_000_000_000;
const LATEST: Millis = 200_000_000_000_000;

/// The columns of a row in the order in which they are bound, without `written_at`.
const NAMES: [&str; 17] = [
    "source",
    "period",
    "bucket_start",
    "bucket_end",
    "count",
    "mean",
    "var_pop",
    "var_samp",
    "min",
    "max",
    "sum",
    "sum_sq",
    "state",
    "base",
    "generation",
    "gen_count",
    "revision",
];

/// Whether a column of `bucket_stats` is one of those the migrations made.
pub(super) fn is_ours(column: &str) -> bool {
    column == "written_at" || NAMES.contains(&column) || arrays::NAMES.contains(&column)
}

/// Why a row cannot stand in the table; what has passed here is taken by every column's type.
pub(super) fn fault(row: &Row) -> Option<&'static str> {
    let Row { bucket, state, base, gen_count, .. } = row;
    let finite = |m: &Moments| m.is_finite() && m.count >= 1.0 && extremes_are_finite(m);
    if !finite(state) || base.as_ref().is_some_and(|base| !finite(base)) || !(1.0..=state.count).contains(gen_count) {
        return Some("the state is not one that readings can lead to");
    }
    (instant(bucket.start).is_none() || instant(bucket.end).is_none()).then_some("the bucket lies outside of all time")
}

fn extremes_are_finite(moments: &Moments) -> bool {
    match &moments.vector {
        None => moments.min.is_finite() && moments.max.is_finite(),
        Some(vector) => vector.min().iter().chain(vector.max()).all(|x| x.is_finite()),
    }
}

/// `None` outside of what the server can hold.
fn instant(t: Millis) -> Option<DateTime<Utc>> {
    (EARLIEST..=LATEST).contains(&t).then(|| DateTime::from_timestamp_millis(t)).flatten()
}

/// A time as it is bound; one that lies outside of all time becomes the end of it.
pub(super) fn time(t: Millis) -> DateTime<Utc> {
    instant(t.clamp(EARLIEST, LATEST)).unwrap_or_default()
}

/// Starts of buckets as they are bound.
pub(super) fn starts(rows: &[Row]) -> Vec<DateTime<Utc>> {
    rows.iter().map(|row| time(row.bucket.start)).collect()
}

/// How many rows are asked for, as it is bound.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// A statistic of numbers; vectors have theirs in other columns (`arrays.rs`).
fn number(moments: &Moments, x: f64) -> Option<f64> {
    moments.vector.is_none().then_some(x)
}

/// Binds rows as one array per column, in the order of [`NAMES`].
pub(super) fn bind<'q>(
    statement: Query<'q, Postgres, PgArguments>,
    rows: &'q [Row],
) -> Query<'q, Postgres, PgArguments> {
    fn of<'r, T>(rows: &'r [Row], column: impl Fn(&'r Row) -> T) -> Vec<T> {
        rows.iter().map(column).collect()
    }
    let doubles = |column: fn(&Moments) -> Option<f64>| of(rows, |row| column(&row.state));
    statement
        .bind(of(rows, |row| &*row.source))
        .bind(of(rows, |row| row.bucket.period.to_string()))
        .bind(starts(rows))
        .bind(of(rows, |row| time(row.bucket.end)))
        .bind(of(rows, |row| row.state.count as i64))
        .bind(doubles(Moments::mean))
        .bind(doubles(Moments::var_pop))
        .bind(doubles(Moments::var_samp))
        .bind(doubles(|state| number(state, state.min)))
        .bind(doubles(|state| number(state, state.max)))
        .bind(doubles(|state| number(state, state.sum.hi)))
        .bind(doubles(|state| number(state, state.sum_sq.hi)))
        .bind(of(rows, |row| layout::encode(&row.state).to_vec()))
        .bind(of(rows, |row| row.base.as_ref().map(|base| layout::encode(base).to_vec())))
        .bind(of(rows, |row| row.generation))
        .bind(of(rows, |row| row.gen_count as i64))
        .bind(of(rows, |row| row.revision))
}

/// The row of a record with `source, period, bucket_start, bucket_end, generation, gen_count, revision,
/// base, state`.
pub(super) fn row(record: &PgRow) -> Result<Row, Failure> {
    let source: &str = record.try_get("source")?;
    let period: &str = record.try_get("period")?;
    let start: DateTime<Utc> = record.try_get("bucket_start")?;
    let end: DateTime<Utc> = record.try_get("bucket_end")?;
    let start = start.timestamp_millis();
    let damaged = |what: String| {
        let at = timestamp::format(start);
        Failure::Wrong(format!("the row of {source:?} in {period} at {at} cannot be read: {what}"))
    };
    let moments = |bytes: &[u8]| layout::decode(bytes).map_err(|error| damaged(error.to_string()));
    let base: Option<&[u8]> = record.try_get("base")?;
    let gen_count: i64 = record.try_get("gen_count")?;
    let known = period.parse().map_err(|_| damaged("it is no period".to_owned()))?;
    Ok(Row {
        source: source.into(),
        bucket: crate::stats::calendar::Bucket { period: known, start, end: end.timestamp_millis() },
        generation: record.try_get("generation")?,
        gen_count: gen_count as f64,
        revision: record.try_get("revision")?,
        base: base.map(moments).transpose()?,
        state: moments(record.try_get("state")?)?,
    })
}
