//! Apply: merges a frame into its buckets, or changes nothing; the counterpart of lua/apply.lua.
//!
//! Called by `embedded.rs`, in one durable transaction.

use super::clocks::{BucketAndEnd, Clocks, past};
use super::due::forget_keys;
use super::states::merge_into;
use super::tables::{self, Lives};
use super::{DatabaseResult, Inner};
use super::{lengths, rules};
use crate::mutant;
use crate::stats::Millis;
use crate::stats::layout;
use crate::store::rules::is_outdated;
use crate::store::{Answer, Frame, Late, Life, Shard, StoreError, WRITER_TTL, keys};
use redb::{ReadableTable, WriteTransaction};
use std::sync::Arc;

/// Expired keys forgotten for each one recorded: `due` alone comes too seldom to keep up with a busy day.
const FORGOTTEN_PER_KEY: usize = 2;
const DAY: Millis = 86_400_000;
/// In the table of the layout, if any state was ever one of vectors.
const VECTORS: &str = "vectors";

/// Keys of the frame that stand in a slice which has not expired.
fn seen_keys(
    transaction: &WriteTransaction,
    shard: Shard,
    frame: &Frame,
    elapsed: Millis,
) -> DatabaseResult<Vec<(usize, [u8; 16])>> {
    let mut seen = Vec::new();
    let keys = transaction.open_table(tables::KEYS)?;
    for slice in transaction.open_table(tables::SLICES)?.range((shard, elapsed + 1)..(shard, i64::MAX))? {
        let slice = slice?.0.value().1;
        for (index, key) in frame.keys.iter().enumerate() {
            if let Some(fingerprint) = keys.get((shard, slice, key.id))? {
                seen.push((index, fingerprint.value()));
            }
        }
    }
    Ok(seen)
}

fn record_keys(
    transaction: &WriteTransaction,
    shard: Shard,
    frame: &Frame,
    elapsed: Millis,
    ttl: Millis,
) -> DatabaseResult<()> {
    if frame.keys.is_empty() {
        return Ok(());
    }
    // Until then a repetition that came in time may arrive.
    let on_the_way = ttl / 2;
    let mut keys = transaction.open_table(tables::KEYS)?;
    let mut slices = transaction.open_table(tables::SLICES)?;
    for key in &frame.keys {
        // Four slices in the time of the usual ones, a day for longer ones; a slice expires as a whole.
        let length = if key.ttl <= ttl { ((ttl + on_the_way) / 4).max(1) } else { DAY };
        let slice = (elapsed + key.ttl + on_the_way + length - 1) / length * length;
        keys.insert((shard, slice, key.id), key.fingerprint)?;
        slices.insert((shard, slice), ())?;
    }
    Ok(())
}

/// Forgets writers whose records have outlived any key; a new writer pays for it.
fn forget_writers(transaction: &WriteTransaction, shard: Shard, elapsed: Millis) -> DatabaseResult<()> {
    let mut writers = transaction.open_table(tables::WRITERS)?;
    writers.retain_in((shard, 0)..=(shard, u64::MAX), |_, (_, _, used)| elapsed - used <= WRITER_TTL)?;
    Ok(())
}

pub(super) fn apply(
    inner: &Inner,
    t: &WriteTransaction,
    shard: Shard,
    frame: &Frame,
) -> DatabaseResult<Result<Answer, StoreError>> {
    let mut clocks = Clocks::open(inner, t, shard)?;
    if clocks.epoch == 0 {
        return Ok(Ok(Answer::Lost));
    }
    let writer = (shard, u64::from_be_bytes(frame.writer.0));
    let record = t.open_table(tables::WRITERS)?.get(writer)?.map(|r| r.value());
    let (last, checksum, _) = record.unwrap_or_default();
    if frame.sequence <= last && !mutant::is(mutant::NO_SEQUENCE_CHECK) {
        clocks.save(t, shard)?;
        return Ok(Ok(Answer::Dup { checksum }));
    }
    if frame.sequence > last + 1 && !mutant::is(mutant::NO_SEQUENCE_CHECK) {
        return Ok(Ok(Answer::Gap { last }));
    }
    // As in Lua, where the half is not rounded.
    if 2 * (clocks.elapsed - frame.received) > inner.policy.idempotency_ttl && !mutant::is(mutant::NO_STALE_CHECK) {
        return Ok(Ok(Answer::Stale));
    }
    let seen = seen_keys(t, shard, frame, clocks.elapsed)?;
    if !seen.is_empty() && !mutant::is(mutant::NO_KEY_CHECK) {
        return Ok(Ok(Answer::Seen(seen)));
    }
    let newest = rules::newest(&t.open_table(tables::RULES)?, shard)?;
    if is_outdated(frame.rules, newest, frame.deltas.iter().map(|deltas| deltas.bucket.start)) {
        return Ok(Ok(Answer::Rules { newest: newest.0 }));
    }
    let mut lives = Lives::of(t)?;
    let mut records = Vec::with_capacity(frame.deltas.len());
    let (mut closing, mut late) = (Vec::new(), Vec::new());
    for (index, BucketAndEnd { bucket, over }) in frame.deltas.iter().map(|d| past(&d.bucket, &clocks)).enumerate() {
        let life = lives.get(shard, &bucket)?;
        if let Some(life) = life.filter(|life| life.closing) {
            closing.push(Life { bucket, generation: life.generation, revision: life.revision });
        }
        if inner.policy.late == Late::Refuse && over {
            late.push(index);
        }
        records.push((bucket, over, life));
    }
    if !closing.is_empty() && !mutant::is(mutant::CLOSING_LIFE_TAKES_READINGS) {
        return Ok(Ok(Answer::Closing(closing)));
    }
    if !late.is_empty() {
        return Ok(Ok(Answer::Late(late)));
    }
    let any_vector = frame.deltas.iter().flat_map(|d| &d.sources).any(|(_, moments)| moments.vector.is_some());
    let known = t.open_table(tables::META)?.get(VECTORS)?.is_some();
    if !frame.deltas.is_empty() && (any_vector || known) {
        let Some(kin) = &frame.kin else { return Ok(Ok(Answer::Mixed)) };
        let clashes = lengths::clashes(t, &lives, shard, frame, kin)?;
        if !clashes.is_empty() && !mutant::is(mutant::LENGTHS_NOT_COMPARED) {
            return Ok(Ok(Answer::Unlike(clashes)));
        }
        if any_vector && !known {
            t.open_table(tables::META)?.insert(VECTORS, 1)?;
        }
    }
    // What may have closed and been forgotten is late by any rule but one that came later.
    let forgotten = t.open_table(tables::FORGOTTEN)?.get(shard)?.map_or(Millis::MIN, |end| end.value());
    for ((bucket, over, life), deltas) in records.into_iter().zip(&frame.deltas) {
        // In the order of the keys, so that neighbours share a page of the file.
        let mut sources: Vec<_> = deltas.sources.iter().collect();
        sources.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let states = sources.into_iter().map(|(source, m)| (Arc::clone(source), layout::encode(m).to_vec()));
        if let Err(refused) = merge_into(t, shard, &bucket, states)? {
            return Ok(Err(refused));
        }
        let buried = life.is_none()
            && t.open_table(tables::TOMBSTONES)?.get((shard, keys::bucket_name(&bucket).as_str()))?.is_some();
        let life = clocks.touched(&bucket, life, !over && !buried && bucket.end > forgotten);
        lives.put(shard, &bucket, life)?;
    }
    t.open_table(tables::WRITERS)?.insert(writer, (frame.sequence, frame.checksum, clocks.elapsed))?;
    forget_keys(t, shard, clocks.elapsed, FORGOTTEN_PER_KEY * frame.keys.len())?;
    record_keys(t, shard, frame, clocks.elapsed, inner.policy.idempotency_ttl)?;
    if frame.sequence == 1 {
        forget_writers(t, shard, clocks.elapsed)?;
    }
    clocks.save(t, shard)?;
    Ok(Ok(Answer::Applied))
}
