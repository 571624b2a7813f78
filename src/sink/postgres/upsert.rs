//! The statements of a write: rows by version, the rows there are, the sources.
//!
//! Called by `write.rs` within a transaction, rows in the order of their keys, each key once. Every statement
//! takes its rows as arrays, one per column (`columns.rs`), so a chunk is one round trip.

use super::failure::Failure;
use super::{arrays, aside, columns};
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::row::Row;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

macro_rules! upsert {
    ($guard:literal) => {
        concat!(
            "INSERT INTO bucket_stats AS held (source, period, bucket_start, bucket_end, count, mean, var_pop, var_samp, \
             min, max, sum, sum_sq, state, base, generation, gen_count, revision) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::int8[], $6::float8[], \
             $7::float8[], $8::float8[], $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::bytea[], \
             $14::bytea[], $15::int8[], $16::int8[], $17::int8[]) \
             ON CONFLICT (source, period, bucket_start) DO UPDATE SET count = excluded.count, mean = excluded.mean, \
             var_pop = excluded.var_pop, var_samp = excluded.var_samp, min = excluded.min, max = excluded.max, \
             sum = excluded.sum, sum_sq = excluded.sum_sq, state = excluded.state, base = excluded.base, \
             generation = excluded.generation, gen_count = excluded.gen_count, revision = excluded.revision, \
             written_at = now(), means = NULL, covar_pop = NULL, covar_samp = NULL, corr = NULL, mins = NULL, \
             maxs = NULL, sums = NULL, sum_products = NULL WHERE held.bucket_end = excluded.bucket_end AND ",
            $guard
        )
    };
}

/// Into rows that are not there, or hold an earlier version of the same first life.
const UPSERT_LIVES: &str = upsert!(
    "held.base IS NULL AND held.generation = excluded.generation \
     AND (held.gen_count, held.revision) < (excluded.gen_count, excluded.revision)"
);

/// Into rows that are not there, or hold an earlier version.
const UPSERT_ROWS: &str = upsert!(
    "(held.generation, held.gen_count, held.revision) < (excluded.generation, excluded.gen_count, excluded.revision)"
);

/// The upsert before has locked these rows already, in the same order.
const HELD: &str = "SELECT source, period, bucket_start, bucket_end, generation, gen_count, revision, base, state \
     FROM bucket_stats WHERE (source, period, bucket_start) IN \
     (SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])) \
     ORDER BY source, period, bucket_start FOR UPDATE";

const UPSERT_SOURCES: &str = "INSERT INTO sources AS held (id, first_bucket, last_bucket) \
     SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) \
     ON CONFLICT (id) DO UPDATE SET first_bucket = least(held.first_bucket, excluded.first_bucket), \
     last_bucket = greatest(held.last_bucket, excluded.last_bucket) \
     WHERE excluded.first_bucket < held.first_bucket OR excluded.last_bucket > held.last_bucket";

/// What a row is found by.
pub(super) type Key = (Arc<str>, Period, Millis);

pub(super) fn key(row: &Row) -> Key {
    (Arc::clone(&row.source), row.bucket.period, row.bucket.start)
}

/// Writes lives that are the first of their row, or a correction of it; returns how many.
pub(super) async fn lives(connection: &mut PgConnection, rows: &[Row]) -> Result<usize, Failure> {
    put(connection, UPSERT_LIVES, rows).await
}

/// Writes rows over earlier versions; returns how many.
pub(super) async fn rows(connection: &mut PgConnection, rows: &[Row]) -> Result<usize, Failure> {
    put(connection, UPSERT_ROWS, rows).await
}

async fn put(connection: &mut PgConnection, statement: &'static str, rows: &[Row]) -> Result<usize, Failure> {
    let done = columns::bind(sqlx::query(statement), rows).execute(&mut *connection).await?;
    arrays::fill(connection, arrays::ROWS, rows).await?;
    Ok(done.rows_affected() as usize)
}

/// The rows the table has for these, locked.
pub(super) async fn held(connection: &mut PgConnection, rows: &[Row]) -> Result<HashMap<Key, Row>, Failure> {
    let records = sqlx::query(HELD)
        .bind(rows.iter().map(|row| &*row.source).collect::<Vec<&str>>())
        .bind(rows.iter().map(|row| row.bucket.period.to_string()).collect::<Vec<String>>())
        .bind(columns::starts(rows))
        .fetch_all(connection)
        .await?;
    let found = records.iter().map(|record| columns::row(record).map(|row| (key(&row), row)));
    found.collect()
}

/// Widens what is known of the sources of these rows.
pub(super) async fn sources(connection: &mut PgConnection, rows: impl Iterator<Item = &Row>) -> Result<(), Failure> {
    let spans = spans(rows);
    sqlx::query(UPSERT_SOURCES)
        .bind(spans.keys().copied().collect::<Vec<&str>>())
        .bind(spans.values().map(|span| columns::time(span.0)).collect::<Vec<DateTime<Utc>>>())
        .bind(spans.values().map(|span| columns::time(span.1)).collect::<Vec<DateTime<Utc>>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// First and last start by source, in the order of ids.
fn spans<'r>(rows: impl Iterator<Item = &'r Row>) -> BTreeMap<&'r str, (Millis, Millis)> {
    let mut spans = BTreeMap::new();
    for row in rows {
        let start = row.bucket.start;
        let span: &mut (Millis, Millis) = spans.entry(&*row.source).or_insert((start, start));
        *span = (span.0.min(start), span.1.max(start));
    }
    spans
}

/// Runs every statement of a write, here and in `aside.rs`, without rows.
pub(super) async fn rehearse(connection: &mut PgConnection) -> Result<(), Failure> {
    lives(connection, &[]).await?;
    rows(connection, &[]).await?;
    held(connection, &[]).await?;
    sources(connection, std::iter::empty()).await?;
    arrays::rehearse(connection).await?;
    aside::rehearse(connection).await
}
