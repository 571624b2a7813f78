//! Due: what the rollover must look at; forgets what has expired. The counterpart of lua/due.lua.
//!
//! Called by `embedded.rs`; `apply.rs` forgets keys too.

use super::clocks::{Clocks, past};
use super::tables::{self, Lives};
use super::{DatabaseResult, Inner};
use crate::stats::Millis;
use crate::store::{Due, Shard, TOMBSTONE_TTL, keys};
use redb::{ReadableTable, WriteTransaction};

/// Expired slices' keys and tombstones forgotten in one call of `due`.
pub(super) const SWEEP: usize = 1_000;

pub(super) fn due(inner: &Inner, t: &WriteTransaction, shard: Shard, limit: usize) -> DatabaseResult<Due> {
    let clocks = Clocks::open(inner, t, shard)?;
    forget_keys(t, shard, clocks.elapsed, SWEEP)?;
    forget_tombstones(t, shard, &clocks)?;
    if clocks.epoch != 0 {
        clocks.save(t, shard)?;
    }
    Ok(Lives::of(t)?.due_by(shard, clocks.now, clocks.elapsed, limit)?)
}

/// Forgets up to `most` keys of the first slice that has expired.
pub(super) fn forget_keys(t: &WriteTransaction, shard: Shard, elapsed: Millis, most: usize) -> DatabaseResult<()> {
    let mut slices = t.open_table(tables::SLICES)?;
    let expired = match slices.range((shard, i64::MIN)..=(shard, elapsed))?.next() {
        Some(slice) => slice?.0.value(),
        None => return Ok(()),
    };
    let mut keys = t.open_table(tables::KEYS)?;
    let (first, last) = ((shard, expired.1, [0; 16]), (shard, expired.1, [0xff; 16]));
    let mut removed = 0;
    for key in keys.extract_from_if(first..=last, |_, _| true)?.take(most) {
        key?;
        removed += 1;
    }
    if removed < most {
        slices.remove(expired)?;
    }
    Ok(())
}

fn forget_tombstones(t: &WriteTransaction, shard: Shard, clocks: &Clocks) -> DatabaseResult<()> {
    let mut by_time = t.open_table(tables::TOMBSTONES_BY_TIME)?;
    let mut expired = Vec::new();
    for entry in by_time.range((shard, i64::MIN, "")..(shard, clocks.elapsed + 1, ""))?.take(SWEEP) {
        let key = entry?.0;
        let (_, at, name) = key.value();
        expired.push((at, name.to_owned()));
    }
    if expired.is_empty() {
        return Ok(());
    }
    let mut tombstones = t.open_table(tables::TOMBSTONES)?;
    let mut forgotten = Millis::MIN;
    for (at, name) in expired {
        by_time.remove((shard, at, name.as_str()))?;
        let bucket = keys::parse_bucket_name(&name);
        if bucket.is_some_and(|bucket| !past(&bucket, clocks).over) {
            let at = clocks.elapsed + TOMBSTONE_TTL;
            by_time.insert((shard, at, name.as_str()), ())?;
            tombstones.insert((shard, name.as_str()), at)?;
        } else {
            tombstones.remove((shard, name.as_str()))?;
            forgotten = forgotten.max(bucket.map_or(Millis::MIN, |bucket| bucket.end));
        }
    }
    let mut highest = t.open_table(tables::FORGOTTEN)?;
    let before = highest.get(shard)?.map(|end| end.value());
    if before.is_none_or(|before| before < forgotten) {
        highest.insert(shard, forgotten)?;
    }
    Ok(())
}
