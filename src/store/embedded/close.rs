//! Close: moves a life up into its parents, chunk by chunk, and ends it; the counterpart of
//! lua/close.lua.
//!
//! Called by `embedded.rs`, a transaction per chunk.

use super::clocks::{Clocks, past};
use super::states::{merge_into, take_chunk};
use super::tables::{self, Lives};
use super::{DatabaseResult, Inner};
use crate::mutant;
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Family};
use crate::store::{Closed, Life, Shard, StoreError, TOMBSTONE_TTL, When, keys};
use redb::WriteTransaction;

pub(super) fn close(
    inner: &Inner,
    t: &WriteTransaction,
    shard: Shard,
    closing: Life,
    family: &Family,
    when: When,
) -> DatabaseResult<Result<Closed, StoreError>> {
    let mut clocks = Clocks::open(inner, t, shard)?;
    let mut lives = Lives::of(t)?;
    let bucket = closing.bucket;
    let Some(mut life) = lives.get(shard, &bucket)? else { return Ok(Ok(Closed::Gone)) };
    if life.generation != closing.generation || life.revision != closing.revision {
        return Ok(Ok(Closed::Refused));
    }
    if !life.closing {
        let acked = life.acked == life.revision || mutant::is(mutant::CLOSE_WITHOUT_ACK);
        if life.dirty > 0 || !acked || !(when == When::Now || past(&bucket, &clocks).over) {
            return Ok(Ok(Closed::Refused));
        }
        if when == When::InTime && lives.any_open(shard, &family.descendants, bucket.start, bucket.end)? {
            return Ok(Ok(Closed::Waiting));
        }
    }
    let mut parents = Vec::with_capacity(family.parents.len());
    for parent in &family.parents {
        let record = lives.get(shard, parent)?;
        if let Some(record) = record.filter(|record| record.closing) {
            let life = Life { bucket: *parent, generation: record.generation, revision: record.revision };
            return Ok(Ok(Closed::ParentClosing(life)));
        }
        parents.push((parent, record));
    }
    let (chunk, mut last) = take_chunk(t, shard, &bucket)?;
    for (parent, record) in parents {
        if let Err(refused) = merge_into(t, shard, parent, chunk.iter().cloned())? {
            return Ok(Err(refused));
        }
        let record = clocks.touched(parent, record, false);
        lives.put(shard, parent, record)?;
    }
    if mutant::is(mutant::MOVE_UP_REPEATED) && !life.closing {
        last = merge_into(t, shard, &bucket, chunk.into_iter())?.is_err();
    }
    if last {
        lives.remove(shard, &bucket)?;
        if !mutant::is(mutant::TOMBSTONE_DROPPED_EARLY) {
            bury(t, shard, &bucket, clocks.elapsed)?;
        }
    } else {
        life.closing = true;
        life.due = clocks.now;
        lives.put(shard, &bucket, life)?;
    }
    clocks.save(t, shard)?;
    Ok(Ok(if last { Closed::Done } else { Closed::More(0) }))
}

fn bury(t: &WriteTransaction, shard: Shard, bucket: &Bucket, elapsed: Millis) -> DatabaseResult<()> {
    let (name, at) = (keys::bucket_name(bucket), elapsed + TOMBSTONE_TTL);
    let before = t.open_table(tables::TOMBSTONES)?.insert((shard, name.as_str()), at)?.map(|v| v.value());
    let mut by_time = t.open_table(tables::TOMBSTONES_BY_TIME)?;
    if let Some(before) = before {
        by_time.remove((shard, before, name.as_str()))?;
    }
    by_time.insert((shard, at, name.as_str()), ())?;
    Ok(())
}
