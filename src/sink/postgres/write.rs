//! Bringing rows into the table: sorted chunks, one transaction each, decided by the version of a row.
//!
//! Called by `postgres.rs`; the statements are in `upsert.rs`. A life that is the first of its row, or a
//! correction of it, is written by one upsert for the whole chunk; where the table holds an earlier
//! life, the row is locked and put together by `Row::update`, since SQL cannot add double-doubles.
//! Guarantees: a chunk is written whole or not at all; a repetition, after whatever happened, changes
//! nothing more; all writers lock rows in the order of their keys; a row that the table refuses is set
//! aside with the reason, alone (`aside.rs`).

use super::columns;
use super::connections::{Lease, within};
use super::failure::Failure;
use super::upsert::{self, key};
use super::{PostgresSink, aside};
use crate::sink::{DOUBLES_AT_ONCE, WriteReport, first_with};
use crate::stats::row::{LifeRow, Row, Update};
use crate::stats::timestamp;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use std::cmp::Ordering;
use std::time::Duration;
use tokio::time::sleep;

/// Rows of one transaction: larger ones gain nothing and hold locks for longer.
const CHUNK_ROWS: usize = 5_000;
/// For one transaction, all its statements together; longer than the server's own limit for one.
const TRANSACTION: Duration = Duration::from_mins(1);
/// How often a transaction is repeated that lost against another session, or with its connection.
const ATTEMPTS: u32 = 6;
/// Before the first repetition, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// What the rows are that are offered to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Lives: without a base, to be put together with the row there is.
    Lives,
    /// Rows with all their lives: the greater version stays.
    Whole,
}

/// What one transaction did.
#[derive(Default)]
struct Done {
    written: usize,
    same: usize,
    older: usize,
    /// What does not belong into the table, each row with the reason.
    refused: Vec<(Row, String)>,
}

/// Writes rows in as many transactions as they need. See the module.
pub(super) async fn write(sink: &PostgresSink, rows: Vec<Row>, offer: Offer) -> Result<WriteReport, Failure> {
    let mut report = WriteReport::default();
    for rows in rounds(rows) {
        let mut waiting = chunks(&rows);
        while let Some(part) = waiting.pop() {
            let refused = match settled(sink, part, offer).await {
                Ok(done) => {
                    report.written += done.written;
                    report.same += done.same;
                    report.older += done.older;
                    done.refused
                }
                Err(Failure::Row(reason)) if part.len() == 1 => vec![(part[0].clone(), reason)],
                Err(Failure::Row(_)) => {
                    let (left, right) = part.split_at(part.len() / 2);
                    waiting.extend([right, left]);
                    continue;
                }
                Err(Failure::Locked(reason)) => return Err(whose_lock(sink, reason).await),
                Err(other) => return Err(other),
            };
            if !refused.is_empty() {
                aside::put(sink, &refused, report.refused == 0).await?;
                report.refused += refused.len();
            }
        }
    }
    Ok(report)
}

/// The rows of one transaction each, the first ones last. Large rows are fewer: of vectors everything computed of them
/// travels as text.
fn chunks(mut rows: &[Row]) -> Vec<&[Row]> {
    let mut chunks = Vec::new();
    while !rows.is_empty() {
        let at_most = &rows[..rows.len().min(CHUNK_ROWS)];
        let (chunk, rest) = rows.split_at(first_with(at_most, DOUBLES_AT_ONCE, |row| row.state.doubles()));
        chunks.push(chunk);
        rows = rest;
    }
    chunks.reverse();
    chunks
}

/// Whether a lock is one of a row, which holds up its own bucket, or of a table, which holds up all of them. A new
/// connection rehearses every statement without rows, where only that of a table is in the way.
async fn whose_lock(sink: &PostgresSink, reason: String) -> Failure {
    match sink.writer().await {
        Ok(lease) => {
            sink.writing.give_back(lease);
            Failure::Locked(reason)
        }
        Err(Failure::Locked(reason)) => Failure::Away(reason),
        Err(other) => other,
    }
}

/// Rows in the order of their keys. One statement cannot touch a row twice, so of rows with one key
/// each later version waits for the next round.
fn rounds(mut rows: Vec<Row>) -> Vec<Vec<Row>> {
    rows.sort_by(in_order);
    let mut rounds = Vec::new();
    while !rows.is_empty() {
        // Nearly always: then nothing is copied.
        if rows.is_sorted_by(|a, b| key(a) != key(b)) {
            rounds.push(rows);
            break;
        }
        let (mut round, mut later): (Vec<Row>, Vec<Row>) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let taken = round.last().is_some_and(|last| key(last) == key(&row));
            if taken { later.push(row) } else { round.push(row) }
        }
        rounds.push(round);
        rows = later;
    }
    rounds
}

/// The order of keys, then of versions. By the name of the period, as the server sorts.
fn in_order(a: &Row, b: &Row) -> Ordering {
    let (of_a, of_b) = (a.bucket.period, b.bucket.period);
    let by_period = || if of_a == of_b { Ordering::Equal } else { of_a.to_string().cmp(&of_b.to_string()) };
    let rest = |row: &Row| (row.bucket.start, row.generation, row.gen_count as i64, row.revision);
    a.source.cmp(&b.source).then_with(by_period).then_with(|| rest(a).cmp(&rest(b)))
}

/// One chunk, until it is written or cannot be. A connection that is lost at the commit leaves it open
/// whether that happened: the same again then changes nothing.
async fn settled(sink: &PostgresSink, rows: &[Row], offer: Offer) -> Result<Done, Failure> {
    let mut attempt = 0;
    loop {
        let failed = match once(sink, rows, offer).await {
            Err(failed @ (Failure::Again(_) | Failure::Lost(_))) => failed,
            other => return other,
        };
        attempt += 1;
        // A server that cannot be reached is asked again by the rollover, later.
        let lost_for_good = matches!(failed, Failure::Lost(_)) && attempt > 1;
        if attempt == ATTEMPTS || lost_for_good {
            return Err(failed);
        }
        tracing::debug!(reason = %failed, "a transaction is repeated");
        sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1)).await;
    }
}

async fn once(sink: &PostgresSink, rows: &[Row], offer: Offer) -> Result<Done, Failure> {
    let mut lease: Lease = sink.writer().await?;
    let done = within(TRANSACTION, transaction(&mut lease.connection, rows, offer)).await;
    // After an error of a row the transaction is rolled back and the connection as good as before.
    if matches!(done, Ok(_) | Err(Failure::Row(_))) {
        sink.writing.give_back(lease);
    }
    done
}

async fn transaction(connection: &mut PgConnection, rows: &[Row], offer: Offer) -> Result<Done, Failure> {
    if let Some(fault) = rows.iter().find_map(columns::fault) {
        return Err(Failure::Row(fault.to_owned()));
    }
    let mut done = Done::default();
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    done.written = match offer {
        Offer::Lives => upsert::lives(&mut transaction, rows).await?,
        Offer::Whole => upsert::rows(&mut transaction, rows).await?,
    };
    if done.written < rows.len() {
        merge(&mut transaction, rows, offer, &mut done).await?;
    }
    let kept = rows.iter().filter(|row| !done.refused.iter().any(|(refused, _)| refused == *row));
    upsert::sources(&mut transaction, kept).await?;
    transaction.commit().await?;
    Ok(done)
}

/// Decides about the rows that the first upsert has passed over, and writes those that are to be.
async fn merge(connection: &mut PgConnection, rows: &[Row], offer: Offer, done: &mut Done) -> Result<(), Failure> {
    let held = upsert::held(connection, rows).await?;
    let mut merged = Vec::new();
    for row in rows {
        match decide(held.get(&key(row)), row, offer) {
            Ok(Update::Same) => done.same += 1,
            Ok(Update::Older) => done.older += 1,
            Ok(Update::Write(row)) => merged.push(row),
            Ok(Update::Unlike(unlike)) => done.refused.push((row.clone(), unlike.to_string())),
            Err(reason) => done.refused.push((row.clone(), reason)),
        }
    }
    // What the upsert has just written is among them.
    done.same = done.same.saturating_sub(done.written);
    if upsert::rows(connection, &merged).await? != merged.len() {
        // They are locked: nobody else can be faster.
        return Err(Failure::Row("a trigger of bucket_stats drops or changes the row".to_owned()));
    }
    done.written += merged.len();
    Ok(())
}

/// What becomes of a row that the first upsert may have passed over.
fn decide(held: Option<&Row>, row: &Row, offer: Offer) -> Result<Update, String> {
    if let Some(held) = held.filter(|held| held.bucket.end != row.bucket.end) {
        let end = timestamp::format(held.bucket.end);
        return Err(format!("the table has a bucket with this start that ends at {end}, of another time zone"));
    }
    let Row { source, bucket, generation, revision, state, .. } = row.clone();
    Ok(match (offer, held) {
        (Offer::Lives, held) => Row::update(held, &LifeRow { source, bucket, generation, revision, moments: state }),
        (Offer::Whole, Some(held)) if held.version() == row.version() => Update::Same,
        (Offer::Whole, Some(held)) if held.version() > row.version() => Update::Older,
        (Offer::Whole, _) => Update::Write(row.clone()),
    })
}
