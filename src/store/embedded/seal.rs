//! Seal and ack: a life's content gets a revision, and the sink has it. The counterpart of
//! lua/seal.lua and lua/ack.lua.
//!
//! Called by `embedded.rs`.

use super::acks;
use super::clocks::Clocks;
use super::tables::{LifeRecord, Lives};
use super::{DatabaseResult, Inner};
use crate::mutant;
use crate::stats::calendar::{Bucket, Family};
use crate::store::{Acked, Life, Sealed, Shard, VISIBILITY, WAITING_RECHECK, When};
use redb::WriteTransaction;

pub(super) fn seal(
    inner: &Inner,
    t: &WriteTransaction,
    shard: Shard,
    bucket: Bucket,
    family: &Family,
    when: When,
) -> DatabaseResult<Sealed> {
    let clocks = Clocks::open(inner, t, shard)?;
    let mut lives = Lives::of(t)?;
    let Some(mut life) = lives.get(shard, &bucket)? else { return Ok(Sealed::Gone) };
    let named = |life: &LifeRecord| Life { bucket, generation: life.generation, revision: life.revision };
    if life.closing {
        return Ok(Sealed::Closing(named(&life)));
    }
    clocks.save(t, shard)?;
    if when == When::InTime && lives.any_open(shard, &family.descendants, bucket.start, bucket.end)? {
        life.due = (clocks.now + WAITING_RECHECK).max(bucket.end + clocks.policy.grace);
        lives.put(shard, &bucket, life)?;
        return Ok(Sealed::Waiting);
    }
    let acked = life.dirty == 0 && life.acked == life.revision || mutant::is(mutant::CLOSE_WITHOUT_ACK);
    if life.dirty > 0 {
        if !mutant::is(mutant::REVISION_NOT_RAISED) {
            life.revision = clocks.now.max(life.revision + 1);
        }
        life.dirty = 0;
    }
    life.due = clocks.now + VISIBILITY;
    lives.put(shard, &bucket, life)?;
    Ok(Sealed::Sealed { life: named(&life), acked })
}

pub(super) fn ack(inner: &Inner, t: &WriteTransaction, shard: Shard, acked: Life) -> DatabaseResult<Acked> {
    let clocks = Clocks::open(inner, t, shard)?;
    let mut lives = Lives::of(t)?;
    let Some(mut life) = lives.get(shard, &acked.bucket)? else { return Ok(Acked::Ignored) };
    if life.closing || life.generation != acked.generation || life.revision != acked.revision {
        return Ok(Acked::Ignored);
    }
    clocks.save(t, shard)?;
    if life.acked != life.revision {
        acks::note(t, shard, acked, clocks.now)?;
    }
    life.acked = life.revision;
    let answer = if life.dirty > 0 {
        life.due = clocks.due_at(&acked.bucket, life.dirty);
        Acked::Dirty
    } else {
        life.due = clocks.now.max(acked.bucket.end + clocks.policy.lateness);
        Acked::Clean
    };
    lives.put(shard, &acked.bucket, life)?;
    Ok(answer)
}
