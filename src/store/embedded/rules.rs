//! Versions of the rules in the embedded store; the counterpart of lua/change.lua.
//!
//! Called by `embedded.rs` and, for the newest version, by `apply.rs`.

use super::clocks::Clocks;
use super::tables::{self, Lives};
use super::{DatabaseResult, Inner};
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::store::Shard;
use crate::store::rules::{ALL_TIME, Changed, Version, dropped};
use redb::{ReadableTable, ReadableTableMetadata, StorageError, WriteTransaction};

/// Number and `from` of the newest version; 0 if there is none.
pub(super) fn newest(
    table: &impl ReadableTable<(Shard, u64), (i64, &'static str)>,
    shard: Shard,
) -> Result<(u64, Millis), StorageError> {
    let last = table.range((shard, 0)..=(shard, u64::MAX))?.next_back().transpose()?;
    Ok(last.map_or((0, ALL_TIME), |(key, version)| (key.value().1, version.value().0)))
}

pub(super) fn all(t: &redb::ReadTransaction, shard: Shard) -> DatabaseResult<Vec<Version>> {
    let mut versions = Vec::new();
    for entry in t.open_table(tables::RULES)?.range((shard, 0)..=(shard, u64::MAX))? {
        let (key, version) = entry?;
        let (from, text) = version.value();
        versions.push(Version { number: key.value().1, from, text: text.to_owned() });
    }
    Ok(versions)
}

pub(super) fn change(
    inner: &Inner,
    t: &WriteTransaction,
    shard: Shard,
    periods: &[Period],
    version: &Version,
) -> DatabaseResult<Changed> {
    let clocks = Clocks::open(inner, t, shard)?;
    let (number, from) = newest(&t.open_table(tables::RULES)?, shard)?;
    if version.number != number + 1 {
        return Ok(Changed::Other { newest: number });
    }
    {
        let lives = Lives::of(t)?;
        // What was never there has no bucket that is open, remembered or forgotten.
        let has_had = !lives.is_empty()?
            || !t.open_table(tables::TOMBSTONES)?.is_empty()?
            || t.open_table(tables::FORGOTTEN)?.get(shard)?.is_some();
        if number > 0 || has_had || version.from != ALL_TIME {
            let mut after = clocks.now.max(if number > 0 { from } else { Millis::MIN });
            for period in periods {
                after = after.max(lives.last_start(shard, *period)?.unwrap_or(after));
            }
            if version.from <= after {
                return Ok(Changed::Early { after });
            }
        }
    }
    take(t, shard, std::slice::from_ref(version))?;
    clocks.save(t, shard)?;
    Ok(Changed::Done)
}

/// Takes the versions that are newer than its own; drops the oldest beyond the limits. Returns the newest number.
pub(super) fn take(t: &WriteTransaction, shard: Shard, versions: &[Version]) -> DatabaseResult<u64> {
    let mut table = t.open_table(tables::RULES)?;
    let (own, _) = newest(&table, shard)?;
    for version in versions.iter().filter(|version| version.number > own) {
        table.insert((shard, version.number), (version.from, &*version.text))?;
    }
    let mut kept = Vec::new();
    for entry in table.range((shard, 0)..=(shard, u64::MAX))? {
        let (key, version) = entry?;
        kept.push((key.value().1, version.value().1.len()));
    }
    let sizes: Vec<usize> = kept.iter().map(|(_, size)| *size).collect();
    for (number, _) in &kept[..dropped(&sizes)] {
        table.remove((shard, *number))?;
    }
    Ok(newest(&table, shard)?.0)
}
