//! Faults that make a store forget what it has confirmed.
//!
//! Made by `breaking.rs` in worlds whose store may. A loss is for the instances to find out that were
//! there: the service promises to say it as long as one lives that knows. So they live from before it is
//! confirmed until they have said that it is gone, and only what is harmless breaks meanwhile.

use crate::breaking::{Faults, Happened, Mood};
use crate::faults::{Fault, Victim};
use crate::kinds::MayLose;
use crate::processes::Node;
use crate::redis::Redis;
use crate::site::{Site, a_while};
use anyhow::Result;
use meanwhile::clock;
use std::time::Duration;

/// Milliseconds of Redis' writing that a power cut takes at most.
const SYNC_EVERY: u64 = 1_000;
/// Milliseconds until Redis syncs next, and for which that stalls at most.
const NEXT_SYNC: u64 = 1_000;
const STALLED: u64 = 2_500;
/// Milliseconds for which two primaries may both be there: less than a page waits before it is written.
const APART: u64 = 1_500;
/// After so long Redis has written to its file what it had confirmed before that to instances that died.
const SETTLED: Duration = Duration::from_millis(500);
/// Milliseconds in which the rollover may write pages that wait 3 s, at least and how much more at most.
const ROLLOVER: u64 = 4_500;
const ROLLOVER_MORE: u64 = 2_500;
/// The slowest stop before that, and a start.
const SETTLING: Duration = Duration::from_mins(1);
/// Much longer than it takes an instance to find its store again.
const NOTICED: Duration = Duration::from_mins(1);

impl Faults<'_> {
    /// Makes the store forget, and waits until that has been said.
    pub(crate) fn lose(&mut self, fault: Fault) -> Result<()> {
        self.let_the_rollover_get_on()?;
        self.mood = Mood::Harmless;
        if self.settle()? && self.nothing_straddles()? {
            let began = clock::instant();
            match fault {
                Fault::PowerCut => self.cut_power()?,
                Fault::Failover => self.fail_over()?,
                Fault::SlowDisk => self.kill_on_a_slow_disk()?,
                _ => self.kill_redis(None)?,
            }
            let ended = clock::instant();
            self.made.push(Happened { fault, began, ended });
            // What an instance brings now has the next number: with the answer it knows what is missing.
            let shared = self.shared;
            if !self.until(NOTICED, |_| shared.all_answered_since(ended))? {
                self.shared.complain(format!("not all instances answer {NOTICED:?} after: {}", fault.name()));
            }
        }
        self.shared.straddling.go_on();
        self.mood = Mood::Anything;
        Ok(())
    }

    /// Every other time: so that there are rows of what is lost, and pages on their way.
    fn let_the_rollover_get_on(&mut self) -> Result<()> {
        if self.random.below(2) == 0 {
            return Ok(());
        }
        self.mend(|victim| matches!(victim, Victim::Node(0) | Victim::Redis | Victim::Wire))?;
        // After many failures the rollover would sleep for longer than this lasts.
        let now = clock::instant();
        self.site.nodes[0].kill()?;
        self.site.nodes[0].start()?;
        self.made.push(Happened { fault: Fault::KillNode, began: now, ended: now });
        self.mood = Mood::Rollover { failpoints: self.random.below(3) == 0 };
        let time = ROLLOVER + self.random.below(ROLLOVER_MORE);
        self.pass(time)
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

    /// Of a store that loses its keys too, what is in the files already must not be asked for again.
    fn nothing_straddles(&mut self) -> Result<bool> {
        if self.traits.may_lose != MayLose::Everything {
            return Ok(true);
        }
        let straddling = &self.shared.straddling;
        straddling.hold();
        self.until(SETTLING, |_| straddling.is_young())
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

    /// While a sync is under way Redis confirms what it has not written, for two seconds.
    fn kill_on_a_slow_disk(&mut self) -> Result<()> {
        self.site.shim.as_ref().map_or(Ok(()), |shim| shim.stall(true))?;
        let stalled = NEXT_SYNC + self.random.below(STALLED);
        self.pass(stalled)?;
        self.kill_redis(None)
    }

    /// What the primary confirms while it is cut off, or just before it dies, its replica does not have.
    fn fail_over(&mut self) -> Result<()> {
        if !self.until(SETTLING, Site::replica_is_attached)? {
            return Ok(());
        }
        self.site.begin_failover(&mut self.random)?;
        let apart = self.random.below(APART);
        self.pass(apart)?;
        self.site.end_failover()
    }

    /// Kills it and starts it again, without what it wrote after its file was `kept` long.
    fn kill_redis(&mut self, kept: Option<u64>) -> Result<()> {
        if let Some(redis) = &mut self.site.redis {
            redis.kill()?;
            if let Some(kept) = kept {
                redis.forget_after(kept)?;
            }
        }
        self.site.shim.as_ref().map_or(Ok(()), |shim| shim.stall(false))?;
        if self.traits.may_lose == MayLose::Everything {
            self.shared.straddling.lost();
        }
        let away = a_while(&mut self.random);
        self.pass(away)?;
        self.site.redis.as_mut().map_or(Ok(()), Redis::start_again)
    }
}
