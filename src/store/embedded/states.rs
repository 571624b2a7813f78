//! Merging states into a bucket and taking them out of it; the counterpart of lua/combine.lua.
//!
//! Called by `apply.rs`, `close.rs` and, to forget a source, by `embedded.rs`. A state that cannot be read is set aside, never an error.

use super::{DatabaseResult, tables};
use crate::stats::calendar::Bucket;
use crate::stats::layout::{self, LayoutError};
use crate::store::{MAX_FRAME_DOUBLES, PAGE_SOURCES, Shard, StoreError, keys};
use redb::{ReadableTable, WriteTransaction};
use std::sync::Arc;

/// States kept aside; beyond this they are only reported.
const MAX_ASIDE: u64 = 1_000;

/// A source and its packed moments.
pub(super) type State = (Arc<str>, Vec<u8>);

/// Merges states into a bucket. A stored state that cannot be read is set aside and its source
/// starts anew; a new one of another length, which apply keeps from coming, is itself set aside. The error names a source whose sums would no longer be finite.
pub(super) fn merge_into(
    transaction: &WriteTransaction,
    shard: Shard,
    bucket: &Bucket,
    states: impl Iterator<Item = State>,
) -> DatabaseResult<Result<(), StoreError>> {
    let mut table = transaction.open_table(tables::STATES)?;
    let bucket_key = tables::bucket_key(shard, bucket);
    for (source, state) in states {
        let key = tables::state_key(&bucket_key, &source);
        let old = table.get(&key[..])?.map(|v| v.value().to_vec());
        let merged = match old {
            None => state,
            Some(old) => match layout::merge(&old, &state) {
                Ok(merged) => merged,
                Err(e @ LayoutError::Shapes(..)) => {
                    set_aside(transaction, bucket, &source, &state, &e)?;
                    continue;
                }
                Err(e) => {
                    set_aside(transaction, bucket, &source, &old, &e)?;
                    state
                }
            },
        };
        if layout::decode(&merged).is_ok_and(|m| !m.is_finite()) {
            return Ok(Err(StoreError::Refused(format!("the sums of source {source} would no longer be finite"))));
        }
        table.insert(&key[..], &merged[..])?;
    }
    Ok(Ok(()))
}

fn set_aside(
    transaction: &WriteTransaction,
    bucket: &Bucket,
    source: &str,
    state: &[u8],
    reason: &LayoutError,
) -> DatabaseResult<()> {
    use redb::ReadableTableMetadata;
    let name = keys::bucket_name(bucket);
    tracing::error!(source, bucket = name, "a state cannot be read and is set aside: {reason}");
    let mut aside = transaction.open_table(tables::ASIDE)?;
    if aside.len()? < MAX_ASIDE {
        aside.insert(format!("{name}|{source}").as_str(), state)?;
    }
    Ok(())
}

/// Removes the first states of a bucket. Returns those that can be read, and whether no more are left.
pub(super) fn take_chunk(t: &WriteTransaction, shard: Shard, bucket: &Bucket) -> DatabaseResult<(Vec<State>, bool)> {
    let mut table = t.open_table(tables::STATES)?;
    let range = tables::states_range(&tables::bucket_key(shard, bucket));
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for entry in table.extract_from_if(&range.start[..]..&range.end[..], |_, _| true)?.take(PAGE_SOURCES) {
        let (key, state) = entry?;
        bytes += state.value().len();
        let (source, state) = (Arc::<str>::from(tables::source_of(key.value())), state.value().to_vec());
        match layout::merge(&state, &state) {
            Ok(_) => chunk.push((source, state)),
            Err(e) => set_aside(t, bucket, &source, &state, &e)?,
        }
        // Merging them is what takes the time, as in a frame.
        if bytes >= size_of::<f64>() * MAX_FRAME_DOUBLES {
            break;
        }
    }
    let last = table.range(&range.start[..]..&range.end[..])?.next().is_none();
    Ok((chunk, last))
}

/// Removes the states of a source; returns how many there were.
pub(super) fn forget(t: &WriteTransaction, shard: Shard, source: &str, buckets: &[Bucket]) -> DatabaseResult<usize> {
    let mut table = t.open_table(tables::STATES)?;
    let mut found = 0;
    for bucket in buckets {
        let key = tables::state_key(&tables::bucket_key(shard, bucket), source);
        found += usize::from(table.remove(&key[..])?.is_some());
    }
    Ok(found)
}
