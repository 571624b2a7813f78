//! The log of acks: which lives the sink has got, in their order. The counterpart of the log in lua/ack.lua and of
//! lua/acked.lua.
//!
//! Called by `embedded.rs` and by the ack in `seal.rs`. What is read here a crash may still undo.

use super::DatabaseResult;
use super::tables;
use crate::stats::Millis;
use crate::store::{AckLog, LOG_LIVES, Life, Shard, keys};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

/// Adds an entry, and drops the oldest if there are too many.
pub(super) fn note(t: &WriteTransaction, shard: Shard, life: Life, now: Millis) -> DatabaseResult<()> {
    let mut logged = t.open_table(tables::LOGGED)?;
    let (last, count) = logged.get(shard)?.map_or((0, 0), |logged| logged.value());
    let mark = now.max(last + 1);
    logged.insert(shard, (mark, count + 1))?;
    let mut log = t.open_table(tables::LOG)?;
    log.insert((shard, mark), (keys::bucket_name(&life.bucket).as_str(), life.generation, life.revision))?;
    if log.len()? > LOG_LIVES as u64 {
        log.pop_first()?;
    }
    Ok(())
}

/// The entries behind a mark.
pub(super) fn since(t: &ReadTransaction, shard: Shard, after: Option<i64>, limit: usize) -> DatabaseResult<AckLog> {
    let epoch = t.open_table(tables::HEADS)?.get(shard)?.map(|head| head.value().0).filter(|epoch| *epoch != 0);
    let (last, count) = t.open_table(tables::LOGGED)?.get(shard)?.map_or((0, 0), |logged| logged.value());
    let mut found = AckLog { epoch, whole: true, lives: Vec::new(), last };
    let Some(after) = after else { return Ok(found) };
    let log = t.open_table(tables::LOG)?;
    let oldest = log.first()?.map(|(key, _)| key.value().1);
    // Whoever has the mark of the oldest one, or a later one, has missed none.
    found.whole = log.len()? == count || oldest.is_some_and(|oldest| after >= oldest);
    for entry in log.range((shard, after + 1)..=(shard, i64::MAX))?.take(limit) {
        let (key, life) = entry?;
        let (name, generation, revision) = life.value();
        if let Some(bucket) = keys::parse_bucket_name(name) {
            found.lives.push((key.value().1, Life { bucket, generation, revision }));
        }
    }
    Ok(found)
}
