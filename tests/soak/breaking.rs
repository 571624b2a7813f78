//! Breaks things as long as a run lasts: each victim on its own, so that an instance dies while Redis is
//! stopped and the wire is slow.
//!
//! Used by `world.rs`. What is drawn comes from the seed, for each victim from a shuffled deck, so that
//! each kind has its share of every run. Whatever else is going on, an instance that has ended is started
//! again, as a service manager would. What makes a store forget is in `losses.rs`.

use crate::clients::Sharing;
use crate::faults::{self, Fault, Victim};
use crate::kinds::Traits;
use crate::processes::Ended;
use crate::seeded::Seeded;
use crate::site::Site;
use anyhow::Result;
use meanwhile::clock;
use std::thread::sleep;
use std::time::Duration;
use tokio::time::Instant;

const STEP: Duration = Duration::from_millis(10);
/// What cannot be made just now is drawn again after this.
const POSTPONED: Duration = Duration::from_millis(100);
/// An instance that was just started comes so far before it is broken again, mostly.
const STARTING: Duration = Duration::from_millis(500);

/// What may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Anything,
    /// Not what keeps the rollover from writing, which would come to nothing where pages wait; but the
    /// instance with the sink may have to end itself on the way.
    Rollover {
        failpoints: bool,
    },
    /// Only what ends no instance and keeps none from its store for long.
    Harmless,
}

/// A fault that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened {
    pub(crate) fault: Fault,
    pub(crate) began: Instant,
    /// The same where it does not last.
    pub(crate) ended: Instant,
}

/// One victim, and what is done to it.
struct Lane {
    victim: Victim,
    /// What is left of its shuffled deck.
    deck: Vec<Fault>,
    under_way: Option<(Fault, Instant)>,
    /// When that ends, or the next begins.
    until: Instant,
}

/// See the module.
pub(crate) struct Faults<'a> {
    pub(crate) site: &'a mut Site,
    pub(crate) shared: &'a Sharing,
    pub(crate) random: Seeded,
    pub(crate) traits: Traits,
    lanes: Vec<Lane>,
    /// What may be broken just now.
    pub(crate) mood: Mood,
    /// What was made.
    pub(crate) made: Vec<Happened>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(site: &'a mut Site, shared: &'a Sharing, seed: u64, traits: Traits) -> Self {
        let mut victims = site.victims();
        if !traits.forgetful.is_empty() {
            victims.push(Victim::Memory);
        }
        let until = clock::instant();
        let lanes = victims.into_iter().map(|victim| Lane { victim, deck: Vec::new(), under_way: None, until });
        let (random, lanes) = (Seeded::new(seed), lanes.collect());
        Self { site, shared, random, traits, lanes, mood: Mood::Anything, made: Vec::new() }
    }

    /// Makes faults for so long; then everything runs again, or is about to.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<()> {
        let started = clock::instant();
        while started.elapsed() < duration {
            self.step()?;
        }
        self.mend(|_| true)?;
        self.lanes.clear();
        Ok(())
    }

    /// Looks at everything once, and begins and ends what is to begin and end now.
    fn step(&mut self) -> Result<()> {
        self.tend()?;
        for lane in 0..self.lanes.len() {
            self.go_on(lane)?;
        }
        sleep(STEP);
        Ok(())
    }

    /// Goes on until `done`; whether that was within so long.
    pub(crate) fn until(&mut self, patience: Duration, mut done: impl FnMut(&Site) -> bool) -> Result<bool> {
        let started = clock::instant();
        while !done(self.site) {
            if started.elapsed() > patience {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    /// Lets so many milliseconds pass.
    pub(crate) fn pass(&mut self, milliseconds: u64) -> Result<()> {
        self.until(Duration::from_millis(milliseconds), |_| false).map(drop)
    }

    /// Ends what is under way at these victims.
    pub(crate) fn mend(&mut self, which: impl Fn(Victim) -> bool) -> Result<()> {
        for lane in 0..self.lanes.len() {
            if which(self.lanes[lane].victim) {
                self.end(lane)?;
            }
        }
        Ok(())
    }

    fn go_on(&mut self, lane: usize) -> Result<()> {
        let now = clock::instant();
        if now < self.lanes[lane].until {
            return Ok(());
        }
        if self.lanes[lane].under_way.is_some() {
            return self.end(lane);
        }
        let (fault, victim) = (self.draw(lane), self.lanes[lane].victim);
        let allowed = match self.mood {
            Mood::Anything => true,
            Mood::Rollover { failpoints } => fault.spares_rollover(victim, failpoints),
            Mood::Harmless => fault.is_harmless(),
        };
        if !allowed || !self.is_worth_it(fault, victim) {
            self.lanes[lane].deck.insert(0, fault);
            self.lanes[lane].until = now + POSTPONED;
            return Ok(());
        }
        if victim == Victim::Memory {
            // It goes on with the others meanwhile, and must not come here again.
            self.lanes[lane].until = now + Duration::from_hours(1);
            self.lose(fault)?;
            self.rest(lane);
            return Ok(());
        }
        if let Some(lasting) = self.site.begin(fault, victim, &mut self.random)? {
            self.lanes[lane].under_way = Some((fault, now));
            self.lanes[lane].until = now + Duration::from_millis(lasting);
            if fault == Fault::Failpoint {
                // It had to be started anew for that.
                self.made.push(Happened { fault: Fault::KillNode, began: now, ended: now });
            }
        } else {
            self.made.push(Happened { fault, began: now, ended: now });
            self.rest(lane);
        }
        Ok(())
    }

    fn draw(&mut self, lane: usize) -> Fault {
        if self.lanes[lane].deck.is_empty() {
            let mut deck = faults::deck(self.lanes[lane].victim, &self.traits);
            for last in (1..deck.len()).rev() {
                deck.swap(last, self.random.below(last as u64 + 1) as usize);
            }
            self.lanes[lane].deck = deck;
        }
        self.lanes[lane].deck.pop().expect("every victim has a deck")
    }

    /// Not an instance that has hardly begun to start, not a failover to what is no replica yet.
    fn is_worth_it(&self, fault: Fault, victim: Victim) -> bool {
        if victim == Victim::Redis && fault == Fault::Failover {
            return self.site.replica_is_attached();
        }
        let Victim::Node(number) = victim else { return true };
        let node = &self.site.nodes[number];
        node.is_ready() || (!node.is_down() && node.started.elapsed() > STARTING)
    }

    fn end(&mut self, lane: usize) -> Result<()> {
        let Some((fault, began)) = self.lanes[lane].under_way.take() else { return Ok(()) };
        self.site.end(fault, self.lanes[lane].victim, &mut self.random)?;
        // One of these is counted when it has happened.
        if fault != Fault::Failpoint {
            self.made.push(Happened { fault, began, ended: clock::instant() });
        }
        self.rest(lane);
        Ok(())
    }

    fn rest(&mut self, lane: usize) {
        let (victim, nodes) = (self.lanes[lane].victim, self.site.nodes.len());
        let quiet = faults::quiet(victim, nodes, &self.traits, &mut self.random);
        self.lanes[lane].until = clock::instant() + Duration::from_millis(quiet);
    }

    fn tend(&mut self) -> Result<()> {
        for number in 0..self.site.nodes.len() {
            let node = &mut self.site.nodes[number];
            if let Some(how) = node.ended()? {
                let now = clock::instant();
                match how {
                    Ended::AtFailpoint => {
                        self.made.push(Happened { fault: Fault::Failpoint, began: now, ended: now });
                    }
                    Ended::NotStarted | Ended::AsAsked => {}
                    Ended::Unexpected(status) => {
                        self.shared.complain(format!("the service has ended by itself: {status}"));
                    }
                }
                let lane = self.lanes.iter().position(|lane| lane.victim == Victim::Node(number));
                lane.map_or(Ok(()), |lane| self.end(lane))?;
            }
            let node = &mut self.site.nodes[number];
            if node.is_down() && node.may_start() {
                node.start()?;
            }
        }
        Ok(())
    }
}
