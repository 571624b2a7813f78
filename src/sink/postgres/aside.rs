//! Rows that the table refuses are set aside in `dead_letters`, each with the reason.
//!
//! Called by `write.rs` once it has found which row it is. The row is then no longer the rollover's
//! to write, so this must be durable before its life is acknowledged; the log says it as an error, and
//! the report of the write counts it. docs/postgres.md says how such rows are brought back.

use super::connections::within;
use super::failure::Failure;
use super::{PostgresSink, arrays, columns};
use crate::stats::row::Row;
use crate::stats::timestamp;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use std::time::Duration;

/// For one statement on a handful of rows.
const LIMIT: Duration = Duration::from_secs(30);

const SET_ASIDE: &str = "INSERT INTO dead_letters AS held (source, period, bucket_start, bucket_end, count, mean, var_pop, \
     var_samp, min, max, sum, sum_sq, state, base, generation, gen_count, revision, reason) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::int8[], $6::float8[], \
     $7::float8[], $8::float8[], $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::bytea[], $14::bytea[], \
     $15::int8[], $16::int8[], $17::int8[], $18::text[]) \
     ON CONFLICT (source, period, bucket_start, bucket_end, generation) DO UPDATE SET count = excluded.count, \
     mean = excluded.mean, var_pop = excluded.var_pop, var_samp = excluded.var_samp, min = excluded.min, \
     max = excluded.max, sum = excluded.sum, sum_sq = excluded.sum_sq, state = excluded.state, base = excluded.base, \
     gen_count = excluded.gen_count, revision = excluded.revision, reason = excluded.reason, refused_at = now(), \
     means = NULL, covar_pop = NULL, covar_samp = NULL, corr = NULL, mins = NULL, maxs = NULL, sums = NULL, \
     sum_products = NULL \
     WHERE (held.gen_count, held.revision) <= (excluded.gen_count, excluded.revision)";

/// Runs the statement without rows.
pub(super) async fn rehearse(connection: &mut PgConnection) -> Result<(), Failure> {
    columns::bind(sqlx::query(SET_ASIDE), &[]).bind(Vec::<String>::new()).execute(connection).await?;
    Ok(())
}

/// Sets rows aside, durable when it returns. May be repeated. `first`: none of this write was before.
pub(super) async fn put(sink: &PostgresSink, refused: &[(Row, String)], first: bool) -> Result<(), Failure> {
    let (rows, reasons): (Vec<Row>, Vec<String>) = refused.iter().cloned().unzip();
    let mut lease = sink.writer().await?;
    let statement = columns::bind(sqlx::query(SET_ASIDE), &rows).bind(&reasons);
    let work = async {
        let mut transaction = lease.connection.begin().await?;
        statement.execute(&mut *transaction).await?;
        arrays::fill(&mut transaction, arrays::LETTERS, &rows).await?;
        Ok(transaction.commit().await?)
    };
    within(LIMIT, work).await.map_err(|failed| match failed {
        // Nothing is left that would take it, so it stays in the store.
        Failure::Row(reason) => Failure::Wrong(format!("neither bucket_stats nor dead_letters take a row: {reason}")),
        other => other,
    })?;
    sink.writing.give_back(lease);
    if let Some((row, reason)) = refused.first().filter(|_| first) {
        tracing::error!(
            source = &*row.source, period = %row.bucket.period, start = timestamp::format(row.bucket.start), reason,
            "the table refuses a row: it is set aside in dead_letters, the others go on (only the first of this \
             write is named)"
        );
    }
    Ok(())
}
