//! Everything that can be broken in a world, and how.
//!
//! Built by `world.rs`; `breaking.rs` decides when something breaks and for how long. A fault that lasts
//! begins and ends here.

use crate::disk::SmallDisk;
use crate::faults::{Fault, LONG, LONG_ONE_IN, SHORT, Victim};
use crate::postgres::Postgres;
use crate::processes::Node;
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::seeded::Seeded;
use crate::shim::Shim;
use crate::steps::Steps;
use anyhow::Result;
use meanwhile::failpoint;

/// Milliseconds by which a slow wire is late at most.
const DELAY: u64 = 300;
/// The latest pass of a failpoint that ends the service.
const FAILPOINT_PASSES: u64 = 3;
/// Milliseconds an instance has for getting to its failpoint; the rollover takes a while where pages wait.
const FAILPOINT_PATIENCE: u64 = 1_000;
const ROLLOVER_PATIENCE: u64 = 5_000;
/// Milliseconds an instance may take to stop; it has 20 s itself.
const STOP_PATIENCE: u64 = 40_000;
/// What an instance without a sink passes.
const OF_INGEST: [&str; 4] = ["decoded", "frame-made", "frame-applied", "answering"];

pub(crate) struct Site {
    /// The first have the sink; others only take readings.
    pub(crate) nodes: Vec<Node>,
    /// How many have it.
    pub(crate) writers: usize,
    pub(crate) redis: Option<Redis>,
    pub(crate) replica: Option<Redis>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) disk: Option<SmallDisk>,
    /// Below the store.
    pub(crate) shim: Option<Shim>,
    /// Those of the clock, in a world where it steps.
    pub(crate) steps: Option<Steps>,
    pub(crate) postgres: Option<Postgres>,
}

impl Site {
    /// What there is to be broken.
    pub(crate) fn victims(&self) -> Vec<Victim> {
        let mut victims: Vec<Victim> = (0..self.nodes.len()).map(Victim::Node).collect();
        if self.redis.is_some() {
            victims.extend([Victim::Redis, Victim::Wire]);
        }
        if self.disk.is_some() {
            victims.push(Victim::Disk);
        }
        if self.steps.is_some() {
            victims.push(Victim::Clock);
        }
        if self.postgres.is_some() {
            victims.push(Victim::Postgres);
        }
        victims
    }

    /// Begins a fault. How many milliseconds it lasts, `None` if it is over; one of an instance that is to
    /// end by itself lasts so long at most.
    pub(crate) fn begin(&mut self, fault: Fault, victim: Victim, random: &mut Seeded) -> Result<Option<u64>> {
        match victim {
            Victim::Node(number) => return self.begin_at(number, fault, random),
            Victim::Disk => self.disk.as_ref().map_or(Ok(()), SmallDisk::fill)?,
            Victim::Clock => {
                if let (Some(shim), Some(steps)) = (&self.shim, &mut self.steps) {
                    steps.step(shim, self.redis.as_ref(), fault == Fault::ClockBack, random)?;
                }
            }
            Victim::Postgres => {
                let lasts = self.postgres.as_mut().map_or(Ok(false), |postgres| postgres.begin(fault))?;
                return Ok(lasts.then(|| a_while(random)));
            }
            Victim::Redis | Victim::Wire | Victim::Memory => return self.begin_behind(fault, random),
        }
        Ok(Some(a_while(random)))
    }

    fn begin_at(&mut self, number: usize, fault: Fault, random: &mut Seeded) -> Result<Option<u64>> {
        let node = &mut self.nodes[number];
        match fault {
            Fault::Failpoint => {
                let redis = self.redis.is_some();
                let writes = number < self.writers;
                let of_writer = |name: &str| !redis || !name.starts_with("embedded");
                let passed = |name: &&str| if writes { of_writer(name) } else { OF_INGEST.contains(name) };
                let names: Vec<&str> = failpoint::NAMES.into_iter().filter(passed).collect();
                let name = names[random.below(names.len() as u64) as usize];
                let pass = 1 + random.below(FAILPOINT_PASSES);
                node.kill()?;
                node.start_until(Some(format!("{name}:{pass}")))?;
                Ok(Some(if writes && redis { ROLLOVER_PATIENCE } else { FAILPOINT_PATIENCE }))
            }
            Fault::Restart => {
                node.ask_to_stop()?;
                Ok(Some(STOP_PATIENCE))
            }
            Fault::StopNode => {
                node.signal("STOP")?;
                Ok(Some(a_while(random)))
            }
            _ => {
                node.kill()?;
                node.start()?;
                Ok(None)
            }
        }
    }

    fn begin_behind(&mut self, fault: Fault, random: &mut Seeded) -> Result<Option<u64>> {
        if fault == Fault::Failover {
            self.begin_failover(random)?;
            return Ok(Some(a_while(random)));
        }
        let (Some(redis), Some(proxy)) = (&mut self.redis, &self.proxy) else { return Ok(None) };
        // Whether it is heard is no matter: the next fault comes soon.
        match fault {
            Fault::FlushScripts => drop(redis.cli(&["SCRIPT", "FLUSH"])),
            Fault::KillClients => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])),
            Fault::Cut => proxy.cut(),
            _ => {
                match fault {
                    Fault::StopRedis => redis.signal("STOP")?,
                    Fault::Delay => proxy.set_delay(1 + random.below(DELAY)),
                    Fault::Dark => proxy.set_dark(true),
                    _ => redis.kill()?,
                }
                return Ok(Some(a_while(random)));
            }
        }
        Ok(None)
    }

    /// Ends a fault that lasts.
    pub(crate) fn end(&mut self, fault: Fault, victim: Victim, random: &mut Seeded) -> Result<()> {
        match victim {
            Victim::Node(number) if fault == Fault::StopNode => return self.nodes[number].signal("CONT"),
            Victim::Postgres => return self.postgres.as_mut().map_or(Ok(()), |postgres| postgres.end(fault)),
            // The others of an instance end with its process.
            Victim::Node(_) => return Ok(()),
            Victim::Disk => return self.disk.as_ref().map_or(Ok(()), SmallDisk::free),
            Victim::Clock => {
                let (Some(shim), Some(steps)) = (&self.shim, &mut self.steps) else { return Ok(()) };
                return steps.set(shim, self.redis.as_ref(), 0);
            }
            Victim::Redis | Victim::Wire | Victim::Memory => {}
        }
        if fault == Fault::Failover {
            return self.end_failover();
        }
        let (Some(redis), Some(proxy)) = (&mut self.redis, &self.proxy) else { return Ok(()) };
        match fault {
            Fault::KillRedis => redis.start_again()?,
            Fault::StopRedis => redis.signal("CONT")?,
            Fault::Delay => proxy.set_delay(0),
            Fault::Dark => {
                proxy.set_dark(false);
                if random.below(2) == 0 {
                    proxy.cut();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Milliseconds for which something is stopped or away.
pub(crate) fn a_while(random: &mut Seeded) -> u64 {
    let most = if random.below(LONG_ONE_IN) == 0 { LONG } else { SHORT };
    random.below(most)
}
