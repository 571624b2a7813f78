//! The shard's head and its two clocks in one transaction, and what follows from them for a life.
//!
//! Used by every verb of the embedded store that changes something; the counterpart of lua/clock.lua
//! and lua/life.lua.

use super::tables::{self, LifeRecord};
use super::{DatabaseResult, Inner};
use crate::mutant;
use crate::stats::Millis;
use crate::stats::calendar::Bucket;
use crate::store::{MAX_ADVANCE, MAX_DIRTY, Policy, Shard};
use redb::{ReadableTable, WriteTransaction};

/// The shard's head and its clocks in one call; the counterpart of lua/clock.lua.
pub(super) struct Clocks {
    pub(super) epoch: i64,
    pub(super) elapsed: Millis,
    clock: Millis,
    pub(super) now: Millis,
    highest: i64,
    /// Of the lives that begin in this call.
    begun: Option<i64>,
    pub(super) policy: Policy,
}

impl Clocks {
    pub(super) fn read(
        inner: &Inner,
        heads: &impl ReadableTable<Shard, (i64, i64, i64, i64, i64)>,
        shard: Shard,
    ) -> DatabaseResult<Self> {
        let clock = inner.clock.now();
        let (epoch, elapsed, last, now, highest) = heads.get(shard)?.map_or((0, 0, clock, 0, 0), |h| h.value());
        let most = if mutant::is(mutant::KEYS_EXPIRE_BY_WALL_CLOCK) { Millis::MAX } else { MAX_ADVANCE };
        let advance = (clock - last).clamp(0, most);
        let (elapsed, now) = (elapsed + advance, clock.max(now + advance));
        Ok(Self { epoch, elapsed, clock, now, highest, begun: None, policy: inner.policy })
    }

    pub(super) fn open(inner: &Inner, transaction: &WriteTransaction, shard: Shard) -> DatabaseResult<Self> {
        Self::read(inner, &transaction.open_table(tables::HEADS)?, shard)
    }

    pub(super) fn save(&self, transaction: &WriteTransaction, shard: Shard) -> DatabaseResult<()> {
        let head = (self.epoch, self.elapsed, self.clock, self.now, self.highest);
        transaction.open_table(tables::HEADS)?.insert(shard, head)?;
        Ok(())
    }

    pub(super) fn next_generation(&mut self) -> i64 {
        let begun = *self.begun.get_or_insert(self.now.max(self.highest + 1));
        self.highest = begun;
        begun
    }

    pub(super) fn due_at(&self, bucket: &Bucket, dirty: Millis) -> Millis {
        (bucket.end + self.policy.grace).max((self.now + self.policy.grace).min(dirty + MAX_DIRTY))
    }

    /// The life after readings came: dirty, due, and born if there was none.
    pub(super) fn touched(&mut self, bucket: &Bucket, life: Option<LifeRecord>, first: bool) -> LifeRecord {
        let mut life = life.unwrap_or_else(|| LifeRecord {
            generation: if first { self.epoch } else { self.next_generation() },
            revision: 0,
            acked: 0,
            dirty: 0,
            closing: false,
            due: 0,
        });
        if life.dirty == 0 {
            life.dirty = self.now;
        }
        life.due = self.due_at(bucket, life.dirty);
        life
    }
}

pub(super) struct BucketAndEnd {
    pub(super) bucket: Bucket,
    /// Past `end + lateness`.
    pub(super) over: bool,
}

pub(super) fn past(bucket: &Bucket, clocks: &Clocks) -> BucketAndEnd {
    BucketAndEnd { bucket: *bucket, over: clocks.now >= bucket.end + clocks.policy.lateness }
}
