//! All rows, page by page, and rows that go: what copying, keeping only so much and forgetting a source need.
//!
//! Called by `postgres.rs`; putting whole rows in is `write.rs`.
//!
//! Nothing here knows of lives in a store: the callers see to it that no bucket is under way. Deleting goes in
//! batches of their own transactions, so that writing is never kept waiting for long.

use super::connections::within;
use super::failure::Failure;
use super::{PostgresSink, columns};
use crate::sink::{DOUBLES_AT_ONCE, RowPage, SinkError};
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::row::Row;
use sqlx::{Connection, Row as _};
use std::collections::BTreeSet;
use std::time::Duration;

/// For one batch or page.
const LIMIT: Duration = Duration::from_mins(1);
/// Rows deleted in one transaction.
const BATCH_ROWS: i64 = 20_000;
/// Of one source, so that a batch takes the oldest rows of many.
const BATCH_ROWS_OF_SOURCE: i64 = 1_000;

/// Of large rows only so many that their states have so many doubles together.
const SCAN: &str = "SELECT page.* FROM (SELECT first.*, sum((octet_length(state) - 4) / 8) OVER \
     (ORDER BY source, period, bucket_start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM \
     (SELECT source, period, bucket_start, bucket_end, generation, gen_count, revision, base, state \
     FROM bucket_stats WHERE (source, period, bucket_start) > ($1, $2, $3) \
     ORDER BY source, period, bucket_start LIMIT $4) AS first) AS page \
     WHERE before IS NULL OR before < $5 ORDER BY source, period, bucket_start";

/// Through the primary key, source by source: there is no index by period alone.
const RETAIN: &str = "DELETE FROM bucket_stats WHERE (source, period, bucket_start) IN \
     (SELECT old.source, old.period, old.bucket_start FROM sources CROSS JOIN LATERAL \
     (SELECT source, period, bucket_start FROM bucket_stats \
     WHERE source = sources.id AND period = $1 AND bucket_start < $2 AND bucket_end <= $2 \
     ORDER BY source, period, bucket_start LIMIT $3) AS old LIMIT $4) RETURNING source";

/// From here on no write changes what these sources are known by, until the end of the transaction.
const LOCK_SOURCES: &str = "SELECT FROM sources WHERE id = ANY($1) ORDER BY id FOR UPDATE";

const DROP_SOURCES: &str = "DELETE FROM sources WHERE id = ANY($1) \
     AND NOT EXISTS (SELECT FROM bucket_stats WHERE source = sources.id)";

/// From period to period of each source, and to both ends of each: some steps in the index, where a
/// minimum over all rows of the source would read all of them.
const SPAN_SOURCES: &str = "UPDATE sources SET first_bucket = span.first, last_bucket = span.last \
     FROM unnest($1::text[]) AS asked (id) CROSS JOIN LATERAL (WITH RECURSIVE of_source (period) AS (\
     (SELECT period FROM bucket_stats WHERE source = asked.id ORDER BY source, period LIMIT 1) UNION ALL \
     SELECT (SELECT next.period FROM bucket_stats AS next WHERE next.source = asked.id AND next.period > of_source.period \
     ORDER BY next.source, next.period LIMIT 1) FROM of_source WHERE of_source.period IS NOT NULL) \
     SELECT min(ends.first) AS first, max(ends.last) AS last FROM (SELECT \
     (SELECT min(bucket_start) FROM bucket_stats WHERE source = asked.id AND period = of_source.period) AS first, \
     (SELECT max(bucket_start) FROM bucket_stats WHERE source = asked.id AND period = of_source.period) AS last \
     FROM of_source WHERE period IS NOT NULL) AS ends) AS span \
     WHERE sources.id = asked.id AND span.first IS NOT NULL";

const FORGET_ROWS: &str = "DELETE FROM bucket_stats WHERE (source, period, bucket_start) IN \
     (SELECT source, period, bucket_start FROM bucket_stats WHERE source = $1 LIMIT $2)";

/// See `Sink::scan`; `after` is the key of the last row of a page.
pub(super) async fn scan(sink: &PostgresSink, after: Option<&str>, limit: usize) -> Result<RowPage, SinkError> {
    let position = match after {
        None => Position { source: "", period: "", start: Millis::MIN },
        Some(cursor) => {
            Position::parse(cursor).ok_or_else(|| SinkError::Refused("no page gave this cursor".to_owned()))?
        }
    };
    page(sink, &position, limit).await.map_err(Failure::into_error)
}

async fn page(sink: &PostgresSink, after: &Position<'_>, limit: usize) -> Result<RowPage, Failure> {
    let statement = sqlx::query(SCAN).bind(after.source).bind(after.period).bind(columns::time(after.start));
    let statement = statement.bind(columns::limit(limit)).bind(columns::limit(DOUBLES_AT_ONCE));
    let mut lease = sink.asking.lease().await?;
    let records = within(LIMIT, async { Ok(statement.fetch_all(&mut lease.connection).await?) }).await?;
    sink.asking.give_back(lease);
    let rows: Vec<Row> = records.iter().map(columns::row).collect::<Result<_, _>>()?;
    let doubles: usize = rows.iter().map(|row| row.state.doubles()).sum();
    let next = rows.last().filter(|_| rows.len() == limit || doubles >= DOUBLES_AT_ONCE);
    let next = next.map(|row| format!("{}:{}:{}", row.bucket.start, row.bucket.period, row.source));
    Ok(RowPage { rows, next })
}

/// See `Sink::retain`; the oldest rows of each source. Nothing was removed, or, if the connection was lost,
/// perhaps all of the batch.
pub(super) async fn retain(sink: &PostgresSink, period: Period, before: Millis) -> Result<usize, Failure> {
    let mut lease = sink.writer().await?;
    let work = async {
        let mut transaction = lease.connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let statement = sqlx::query(RETAIN).bind(period.to_string()).bind(columns::time(before));
        let statement = statement.bind(BATCH_ROWS_OF_SOURCE).bind(BATCH_ROWS);
        let removed = statement.fetch_all(&mut *transaction).await?;
        let sources: Result<BTreeSet<&str>, sqlx::Error> = removed.iter().map(|row| row.try_get(0)).collect();
        let sources: Vec<&str> = sources?.into_iter().collect();
        for statement in [LOCK_SOURCES, DROP_SOURCES, SPAN_SOURCES] {
            sqlx::query(statement).bind(&sources).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(removed.len())
    };
    let removed = within(LIMIT, work).await?;
    sink.writing.give_back(lease);
    Ok(removed)
}

/// See `Sink::forget`; also the rows that were set aside.
pub(super) async fn forget(sink: &PostgresSink, source: &str) -> Result<usize, Failure> {
    let mut removed = 0;
    loop {
        match delete(sink, sqlx::query(FORGET_ROWS).bind(source).bind(BATCH_ROWS)).await? {
            0 => break,
            batch => removed += batch,
        }
    }
    for statement in ["DELETE FROM dead_letters WHERE source = $1", "DELETE FROM sources WHERE id = $1"] {
        delete(sink, sqlx::query(statement).bind(source)).await?;
    }
    Ok(removed)
}

async fn delete(
    sink: &PostgresSink,
    statement: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
) -> Result<usize, Failure> {
    let mut lease = sink.writer().await?;
    let deleted = within(LIMIT, async { Ok(statement.execute(&mut lease.connection).await?) }).await?;
    sink.writing.give_back(lease);
    Ok(deleted.rows_affected() as usize)
}

/// The key of the last row of a page.
struct Position<'c> {
    source: &'c str,
    period: &'c str,
    start: Millis,
}

impl<'c> Position<'c> {
    /// A source may hold any character, so it comes last.
    fn parse(cursor: &'c str) -> Option<Self> {
        let mut parts = cursor.splitn(3, ':');
        let (start, period, source) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        Some(Self { source, period, start })
    }
}
