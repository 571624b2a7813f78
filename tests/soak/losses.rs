//! Faults that make a store forget what it has confirmed.
//!
//! Made by `breaking.rs` in worlds whose store may. A loss is for the instances to find out that were
//! there: the service promises to say it as long as one lives that knows. So they live from before it is
//! confirmed until they have said that it is gone, and only what is harmless breaks meanwhile.

use crate::breaking::{Faults, Happened};
use crate::faults::{Fault, Victim};
use crate::processes::Node;
use crate::redis::Redis;
use crate::site::{Site, a_while};
use anyhow::Result;
use meanwhile::clock;
use std::time::Duration;

/// Milliseconds of Redis' writing that a power cut takes at most.
const SYNC_EVERY: u64 = 1_000;
/// After so long Redis has written to its file what it had confirmed before that to instances that died.
const SETTLED: Duration = Duration::from_millis(500);
/// The slowest stop before that, and a start.
const SETTLING: Duration = Duration::from_mins(1);
/// Longer than it takes an instance to find its store again.
const NOTICED: Duration = Duration::from_secs(20);

impl Faults<'_> {
    /// Makes the store forget, and waits until that has been said.
    pub(crate) fn lose(&mut self, fault: Fault) -> Result<()> {
        self.calm = true;
        if self.settle()? {
            let began = clock::instant();
            match fault {
                Fault::PowerCut => self.cut_power()?,
                _ => self.kill_redis(None)?,
            }
            let ended = clock::instant();
            self.made.push(Happened { fault, began, ended });
            // What an instance brings now has the next number: with the answer it knows what is missing.
            let shared = self.shared;
            self.until(NOTICED, |_| shared.all_answered_since(ended))?;
        }
        self.calm = false;
        Ok(())
    }

    /// Mends everything, and waits until all instances have been there for a while; whether they are.
    fn settle(&mut self) -> Result<bool> {
        self.mend(|victim| victim != Victim::Disk)?;
        for node in self.site.nodes.iter_mut().filter(|node| node.has_failpoint()) {
            node.kill()?;
            node.start()?;
        }
        let settled = |node: &Node| node.is_ready() && !node.is_stopping() && node.started.elapsed() > SETTLED;
        self.until(SETTLING, |site| site.nodes.iter().all(settled))
    }

    /// What Redis writes now is not brought to the disk.
    fn cut_power(&mut self) -> Result<()> {
        let rests = |site: &Site| site.redis.as_ref().is_some_and(Redis::keeps_its_file);
        if !self.until(SETTLING, rests)? {
            return Ok(());
        }
        let written = self.site.redis.as_ref().map(Redis::written).transpose()?;
        let lost = self.random.below(SYNC_EVERY);
        self.pass(lost)?;
        self.kill_redis(written)
    }

    /// Kills it and starts it again, without what it wrote after its file was `kept` long.
    fn kill_redis(&mut self, kept: Option<u64>) -> Result<()> {
        if let Some(redis) = &mut self.site.redis {
            redis.kill()?;
            if let Some(kept) = kept {
                redis.forget_after(kept)?;
            }
        }
        let away = a_while(&mut self.random);
        self.pass(away)?;
        self.site.redis.as_mut().map_or(Ok(()), Redis::start_again)
    }
}
