//! Sources that a frame would bring together with readings of another length; the counterpart of lua/lengths.lua.
//!
//! Called by `apply.rs`, only for stores that have had vectors and for frames that bring some.

use super::DatabaseResult;
use super::tables::{self, Lives};
use crate::stats::calendar::{Bucket, Period};
use crate::stats::layout;
use crate::store::kin::{Clash, Kin, within};
use crate::store::{Frame, Shard};
use redb::{ReadableTable, WriteTransaction};
use std::collections::HashMap;

/// What is known of the lives within the same coarsest buckets.
struct Family<'f> {
    /// By period as the frame names them; those of which none was needed yet are not read.
    lives: Vec<Option<Vec<Bucket>>>,
    lengths: HashMap<&'f str, usize>,
}

pub(super) fn clashes(
    t: &WriteTransaction,
    lives: &Lives<'_>,
    shard: Shard,
    frame: &Frame,
    kin: &Kin,
) -> DatabaseResult<Vec<Clash>> {
    let states = t.open_table(tables::STATES)?;
    let mut families: HashMap<&[Bucket], Family<'_>> = HashMap::new();
    let mut clashes = Vec::new();
    for (delta, (deltas, tops)) in frame.deltas.iter().zip(&kin.tops).enumerate() {
        let unread = || Family { lives: vec![None; kin.periods.len()], lengths: HashMap::new() };
        let family = families.entry(tops).or_insert_with(unread);
        for (source, (id, moments)) in deltas.sources.iter().enumerate() {
            let held = match family.lengths.get(&**id) {
                Some(length) => Some(*length),
                None => find_length(&states, lives, shard, kin, tops, &mut family.lives, id)?,
            };
            if let Some(held) = held.filter(|held| *held != moments.length()) {
                clashes.push(Clash { delta, source, held });
            }
            family.lengths.insert(id, held.unwrap_or(moments.length()));
        }
    }
    Ok(clashes)
}

/// Numbers per reading of a source in the first of the lives that has it. `known`: the lives read so far.
fn find_length(
    states: &impl ReadableTable<&'static [u8], &'static [u8]>,
    lives: &Lives<'_>,
    shard: Shard,
    kin: &Kin,
    tops: &[Bucket],
    known: &mut [Option<Vec<Bucket>>],
    source: &str,
) -> DatabaseResult<Option<usize>> {
    for (period, known) in kin.periods.iter().zip(known) {
        if known.is_none() {
            *known = Some(lives_within(lives, shard, *period, tops)?);
        }
        for bucket in known.iter().flatten() {
            let state = states.get(&tables::state_key(&tables::bucket_key(shard, bucket), source)[..])?;
            if let Some(length) = state.and_then(|state| layout::length(state.value())) {
                return Ok(Some(length));
            }
        }
    }
    Ok(None)
}

/// The open lives of a period within these coarsest buckets.
fn lives_within(lives: &Lives<'_>, shard: Shard, period: Period, tops: &[Bucket]) -> DatabaseResult<Vec<Bucket>> {
    let mut found = Vec::new();
    for top in tops {
        let open = lives.open(shard, period, top.start, top.end)?;
        found.extend(open.into_iter().filter(|bucket| within(&[*top], bucket)));
    }
    Ok(found)
}
