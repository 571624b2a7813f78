//! What goes wrong: faults drawn from the seed, one after another, as long as a run lasts.
//!
//! Used by `world.rs`. They come from a shuffled deck, so that each kind has its share of every run.
//! Whatever else is going on, an instance that has ended is started again, as a service manager would.

use crate::clients::Sharing;
use crate::disk::SmallDisk;
use crate::processes::{Ended, Node, Redis};
use crate::proxy::Proxy;
use crate::seeded::Seeded;
use anyhow::Result;
use meanwhile::{clock, failpoint};
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

/// Milliseconds of quiet between two faults at most.
const QUIET: u64 = 1_200;
/// Milliseconds for which something is stopped or away: mostly short, sometimes longer than a bucket
/// waits for late readings and than the service waits for an answer.
const SHORT: u64 = 1_000;
const LONG: u64 = 8_000;
/// Milliseconds of Redis' writing that a power cut takes at most.
const SYNC_EVERY: u64 = 1_000;
/// Milliseconds after which everything older than the last second was confirmed to the present instances.
const SETTLED: u64 = 2_000;
const START_PATIENCE: Duration = Duration::from_secs(10);
/// An instance asks its store every 2 s at least; there may have been nothing to lose.
const ANNOUNCED: Duration = Duration::from_secs(6);
/// The latest pass of a failpoint that ends the service.
const FAILPOINT_PASSES: u64 = 10;
const TEND_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillNode,
    /// It ends itself at a failpoint.
    Failpoint,
    KillRedis,
    /// And what it wrote in its last second is gone.
    PowerCut,
    /// SIGTERM, and a start.
    Restart,
    StopNode,
    StopRedis,
    FlushScripts,
    KillClients,
    Cut,
    Delay,
    Dark,
    DiskFull,
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill -9 of the service",
            Self::Failpoint => "end of the service at a failpoint",
            Self::KillRedis => "kill -9 of Redis",
            Self::PowerCut => "Redis loses its last second",
            Self::Restart => "restart of the service",
            Self::StopNode => "service stopped",
            Self::StopRedis => "Redis stopped",
            Self::FlushScripts => "SCRIPT FLUSH",
            Self::KillClients => "CLIENT KILL",
            Self::Cut => "connections cut",
            Self::Delay => "connections slow",
            Self::Dark => "connections dark",
            Self::DiskFull => "disk of the sink full",
        }
    }

    fn needs_redis(self) -> bool {
        !matches!(self, Self::KillNode | Self::Failpoint | Self::Restart | Self::StopNode | Self::DiskFull)
    }
}

/// How often each stands in a deck; kills are half of it.
const DECK: [(Fault, usize); 13] = [
    (Fault::KillNode, 10),
    (Fault::Failpoint, 10),
    (Fault::KillRedis, 5),
    (Fault::PowerCut, 5),
    (Fault::Restart, 2),
    (Fault::StopNode, 4),
    (Fault::StopRedis, 3),
    (Fault::FlushScripts, 2),
    (Fault::KillClients, 3),
    (Fault::Cut, 4),
    (Fault::Delay, 3),
    (Fault::Dark, 3),
    (Fault::DiskFull, 2),
];

/// Everything that can be broken in a world.
pub(crate) struct Site {
    /// The first has the sink; others only take readings.
    pub(crate) nodes: Vec<Node>,
    pub(crate) redis: Option<Redis>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) disk: Option<SmallDisk>,
}

/// See the module.
pub(crate) struct Faults<'a> {
    site: &'a mut Site,
    shared: &'a Sharing,
    random: Seeded,
    deck: Vec<Fault>,
    /// How many of each were made.
    pub(crate) made: BTreeMap<Fault, u64>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(site: &'a mut Site, shared: &'a Sharing, seed: u64) -> Self {
        Self { site, shared, random: Seeded::new(seed), deck: Vec::new(), made: BTreeMap::new() }
    }

    /// Makes faults for so long; then everything runs again, or is about to.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<()> {
        let started = clock::instant();
        while started.elapsed() < duration {
            let fault = self.draw();
            self.make(fault)?;
            if fault != Fault::Failpoint {
                *self.made.entry(fault).or_default() += 1;
            }
            let quiet = self.random.below(QUIET);
            self.pass(quiet)?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            let possible = |fault: Fault| match fault {
                Fault::DiskFull => self.site.disk.is_some(),
                // A store that has promised more must not be made to lose it.
                Fault::PowerCut => !self.shared.durable,
                fault => !fault.needs_redis() || self.site.redis.is_some(),
            };
            self.deck = DECK.iter().filter(|(fault, _)| possible(*fault)).flat_map(|(f, n)| vec![*f; *n]).collect();
            for last in (1..self.deck.len()).rev() {
                self.deck.swap(last, self.random.below(last as u64 + 1) as usize);
            }
        }
        self.deck.pop().expect("shuffled above")
    }

    fn make(&mut self, fault: Fault) -> Result<()> {
        let node = self.random.below(self.site.nodes.len() as u64) as usize;
        match fault {
            Fault::KillNode => {
                self.site.nodes[node].kill()?;
                self.site.nodes[node].start()
            }
            // Counted when it has ended itself.
            Fault::Failpoint => {
                let name = failpoint::NAMES[self.random.below(failpoint::NAMES.len() as u64) as usize];
                let pass = 1 + self.random.below(FAILPOINT_PASSES);
                self.site.nodes[node].kill()?;
                self.site.nodes[node].start_until(Some(format!("{name}:{pass}")))
            }
            Fault::Restart => {
                if let Err(error) = self.site.nodes[node].stop() {
                    self.shared.complain(format!("{error:#}"));
                }
                self.site.nodes[node].start()
            }
            Fault::StopNode => {
                self.site.nodes[node].signal("STOP")?;
                self.pass_a_while()?;
                self.site.nodes[node].signal("CONT")
            }
            Fault::DiskFull => self.fill_the_disk(),
            _ => self.break_redis(fault),
        }
    }

    fn break_redis(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillRedis => return self.kill_redis(None),
            Fault::PowerCut => return self.cut_power(),
            _ => {}
        }
        let (Some(redis), Some(proxy)) = (&self.site.redis, &self.site.proxy) else { return Ok(()) };
        // Whether it is heard is no matter: the next fault comes soon.
        match fault {
            Fault::FlushScripts => drop(redis.cli(&["SCRIPT", "FLUSH"])),
            Fault::KillClients => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])),
            Fault::Cut => proxy.cut(),
            Fault::StopRedis => redis.signal("STOP")?,
            Fault::Delay => proxy.set_delay(1 + self.random.below(300)),
            _ => proxy.set_dark(true),
        }
        if matches!(fault, Fault::StopRedis | Fault::Delay | Fault::Dark) {
            self.pass_a_while()?;
        }
        let cut_after = self.random.below(2) == 0;
        let (Some(redis), Some(proxy)) = (&self.site.redis, &self.site.proxy) else { return Ok(()) };
        match fault {
            Fault::StopRedis => redis.signal("CONT")?,
            Fault::Delay => proxy.set_delay(0),
            Fault::Dark => {
                proxy.set_dark(false);
                if cut_after {
                    proxy.cut();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The loss is for the instances to find out that were there; so they live until they have, and
    /// those that came only now are given time to confirm something.
    fn cut_power(&mut self) -> Result<()> {
        for node in self.site.nodes.iter_mut().filter(|node| node.has_failpoint()) {
            node.kill()?;
            node.start()?;
        }
        self.tend_until(START_PATIENCE, |site| site.nodes.iter().all(Node::is_ready))?;
        self.pass(SETTLED)?;
        let written = self.site.redis.as_ref().map(Redis::written).transpose()?;
        let lost = self.random.below(SYNC_EVERY);
        self.pass(lost)?;
        let announced = |site: &Site| -> usize { site.nodes.iter().map(|node| node.losses().len()).sum() };
        let before = announced(self.site);
        self.kill_redis(written)?;
        self.tend_until(ANNOUNCED, |site| announced(site) >= before + site.nodes.len())?;
        Ok(())
    }

    /// Kills it and starts it again, without what it wrote after its file was `kept` long.
    fn kill_redis(&mut self, kept: Option<u64>) -> Result<()> {
        if let Some(redis) = &mut self.site.redis {
            redis.kill()?;
            if let Some(kept) = kept {
                redis.forget_after(kept)?;
            }
        }
        self.pass_a_while()?;
        if let Some(redis) = &mut self.site.redis {
            redis.start_again()?;
        }
        Ok(())
    }

    fn fill_the_disk(&mut self) -> Result<()> {
        if let Some(disk) = &self.site.disk {
            disk.fill()?;
        }
        self.pass_a_while()?;
        self.site.disk.as_ref().map_or(Ok(()), SmallDisk::free)
    }

    fn pass_a_while(&mut self) -> Result<()> {
        let most = if self.random.below(4) == 0 { LONG } else { SHORT };
        let time = self.random.below(most);
        self.pass(time)
    }

    /// Lets so many milliseconds pass, and starts again what has ended.
    fn pass(&mut self, milliseconds: u64) -> Result<()> {
        let started = clock::instant();
        loop {
            self.tend()?;
            let left = Duration::from_millis(milliseconds).saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(TEND_EVERY));
        }
    }

    fn tend(&mut self) -> Result<()> {
        for node in &mut self.site.nodes {
            if let Some(how) = node.ended()? {
                match how {
                    Ended::AtFailpoint => *self.made.entry(Fault::Failpoint).or_default() += 1,
                    Ended::NotStarted => {}
                    Ended::Unexpected(status) => {
                        self.shared.complain(format!("the service has ended by itself: {status}"));
                    }
                }
                node.start()?;
            }
        }
        Ok(())
    }

    /// Keeps the instances running until `done`; whether that was within so long.
    pub(crate) fn tend_until(&mut self, patience: Duration, mut done: impl FnMut(&Site) -> bool) -> Result<bool> {
        let started = clock::instant();
        while !done(self.site) {
            if started.elapsed() > patience {
                return Ok(false);
            }
            self.pass(200)?;
        }
        Ok(true)
    }
}
