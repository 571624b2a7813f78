//! Answers from the table: rows of sources, and the sources there are.
//!
//! Called by `postgres.rs` for `query/`. Every statement follows the primary key, so what it costs is
//! what it returns; the order is that of bytes, as everywhere in the service.

use super::connections::within;
use super::failure::Failure;
use super::{PostgresSink, columns};
use crate::sink::RowQuery;
use crate::stats::row::Row;
use crate::stats::source::SourceSpan;
use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use std::time::Duration;

/// For one question; longer than the server's own limit for its statement.
const LIMIT: Duration = Duration::from_secs(15);

/// The oldest rows of each source, and the oldest of those: with many sources this reads `limit` rows
/// of each, where sorting all rows of the range would read the range.
/// Of large rows only so many that their states have so many doubles together.
const ROWS: &str = "SELECT page.* FROM (SELECT first.*, sum((octet_length(state) - 4) / 8) OVER \
     (ORDER BY bucket_start, source ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM (SELECT found.* FROM unnest($1::text[]) AS asked (id) CROSS JOIN LATERAL \
     (SELECT source, period, bucket_start, bucket_end, generation, gen_count, revision, base, state FROM bucket_stats \
     WHERE source = asked.id AND period = $2 AND bucket_start >= $3 AND bucket_start < $4 \
     ORDER BY source, period, bucket_start LIMIT $5) AS found ORDER BY bucket_start, source LIMIT $5) AS first) AS page \
     WHERE $6::int8 IS NULL OR before IS NULL OR before < $6 ORDER BY bucket_start, source";

const SOURCES: &str = "SELECT id, first_bucket, last_bucket FROM sources WHERE id >= $1 AND ($2::text IS NULL OR id > $2) ORDER BY id LIMIT $3";

/// See `Sink::rows`.
pub(super) async fn rows(sink: &PostgresSink, query: &RowQuery) -> Result<Vec<Row>, Failure> {
    let mut sources: Vec<&str> = query.sources.iter().map(|source| &**source).collect();
    sources.sort_unstable();
    sources.dedup();
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    // No limit is NULL.
    let limit = (query.limit > 0).then_some(columns::limit(query.limit));
    let statement = sqlx::query(ROWS)
        .bind(sources)
        .bind(query.period.to_string())
        .bind(columns::time(query.from))
        .bind(columns::time(query.to))
        .bind(limit)
        .bind((query.doubles > 0).then_some(columns::limit(query.doubles)));
    let mut lease = sink.asking.lease().await?;
    let records = within(LIMIT, async { Ok(statement.fetch_all(&mut lease.connection).await?) }).await?;
    sink.asking.give_back(lease);
    records.iter().map(columns::row).collect()
}

/// See `Sink::sources`.
pub(super) async fn sources(
    sink: &PostgresSink,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<SourceSpan>, Failure> {
    let statement = sqlx::query(SOURCES).bind(prefix).bind(after).bind(columns::limit(limit));
    let mut lease = sink.asking.lease().await?;
    let records = within(LIMIT, async { Ok(statement.fetch_all(&mut lease.connection).await?) }).await?;
    sink.asking.give_back(lease);
    // In the order of bytes, ids with a prefix stand together.
    let spans = records.iter().map(span).take_while(|span| !matches!(span, Ok(s) if !s.source.starts_with(prefix)));
    spans.collect()
}

fn span(record: &PgRow) -> Result<SourceSpan, Failure> {
    let [first, last]: [DateTime<Utc>; 2] = [record.try_get("first_bucket")?, record.try_get("last_bucket")?];
    let source: &str = record.try_get("id")?;
    Ok(SourceSpan { source: source.into(), first: first.timestamp_millis(), last: last.timestamp_millis() })
}
