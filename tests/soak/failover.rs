//! A Redis with a replica, which takes its place when it dies or is cut off.
//!
//! Done by `site.rs` as a fault that lasts, or by `losses.rs` where readings are lost by it. It is what
//! docs/operations.md asks of whoever decides about a failover: only a replica that has everything is
//! promoted, and an old primary comes back as the replica of the new one, with its data thrown away.

use crate::redis::Redis;
use crate::seeded::Seeded;
use crate::site::Site;
use anyhow::{Result, ensure};

impl Site {
    /// Whether the replica has all that the primary had when they last spoke.
    pub(crate) fn replica_is_attached(&self) -> bool {
        let Some(replica) = &self.replica else { return false };
        let says = |name, value: &str| replica.info("replication", name).is_some_and(|said| said == value);
        says("master_link_status", "up") && says("master_sync_in_progress", "0")
    }

    /// The primary dies; or it is cut off from its replica only, which is promoted while clients go on
    /// sending to the old one.
    pub(crate) fn begin_failover(&mut self, random: &mut Seeded) -> Result<()> {
        if random.below(2) == 0 { self.redis.as_mut().map_or(Ok(()), Redis::kill) } else { self.promote() }
    }

    fn promote(&mut self) -> Result<()> {
        let promoted = self.replica.as_mut().is_none_or(Redis::promote);
        ensure!(promoted, "the replica cannot be promoted");
        Ok(())
    }

    /// All connections lead to the new primary from here on.
    pub(crate) fn end_failover(&mut self) -> Result<()> {
        self.promote()?;
        let (Some(primary), Some(replica), Some(proxy)) = (&mut self.redis, &mut self.replica, &self.proxy) else {
            return Ok(());
        };
        primary.kill()?;
        std::mem::swap(primary, replica);
        proxy.turn_to(primary.port);
        replica.start_empty(Some(primary.port))
    }
}
