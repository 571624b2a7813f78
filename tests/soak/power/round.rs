//! One round: everything starts on the disk as the last cut has left it, works for a while, and the power is
//! cut at a moment that the seed draws.
//!
//! Used by `power.rs`, which lets clients send all the time. Soon after the start the totals of all sources
//! are compared with the books, so that a loss is noticed in the round after the cut that caused it.

use super::Found;
use super::image::Cut;
use super::machine::Machine;
use crate::clients::Sharing;
use crate::http::Http;
use crate::ledger::{TIMED, UNTIMED, source_id};
use crate::redis::Redis;
use crate::seeded::Seeded;
use crate::world::PERIODS;
use anyhow::Result;
use meanwhile::failpoint;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

/// Milliseconds at most between the start of the service, or its being ready, and the cut.
const STARTING: u64 = 150;
const WORKING: u64 = 700;
const DRAINING: u64 = 500;
/// The latest pass of a named step.
const STEP_PASSES: u64 = 4;
/// Of so many crashes at a step one is followed by a start, and the cut comes later: what the crash has left
/// unsynced is found by the next process, which must not take it for safe.
const GOES_ON: u64 = 4;
/// Steps around what is written, synced, renamed and removed; drawn more often than the others.
const AROUND_FILES: [&str; 7] = ["held", "rows-torn", "rows-appended", "rows-synced", "written", "acked", "moved-up"];

/// Steps of a compaction: `sources.csv` and then the rows take their names, the tail is removed. Each comes
/// several times where several days are compacted.
const COMPACTING: [&str; 4] = ["renamed", "renamed", "removed", "compacted"];
const COMPACTING_PASSES: u64 = 4;
/// In one round of so many the clients send readings of days that are over; in those between these days close.
const OLD_DAYS: u64 = 3;

/// When the power is cut.
#[derive(PartialEq, Eq)]
enum Moment {
    /// While the service starts.
    Start,
    /// At any time while it works.
    Work,
    /// When it has ended itself at this step.
    Step(&'static str, u64),
    /// While a drain writes and closes everything.
    Drain,
    /// After a drain, when days that are over are brought into their final form.
    Compaction,
}

/// Starts, works, cuts and brings the disk back.
pub(super) fn run(machine: &mut Machine, shared: &Sharing, random: &mut Seeded, found: &mut Found) -> Result<()> {
    let moment = draw(random);
    shared.old_days.store(moment != Moment::Compaction && random.below(OLD_DAYS) == 0, Ordering::SeqCst);
    let what = work_until(&moment, machine, shared, random, found)?;
    let how = match random.below(10) {
        0 => Cut::Synced,
        1 => Cut::JournalFlushed,
        _ => Cut::AtOnce,
    };
    machine.freeze()?;
    machine.image.cut(how)?;
    *found.moments.entry(what).or_default() += 1;
    *found.cuts.entry(how).or_default() += 1;
    machine.node.kill()?;
    machine.redis.as_mut().map_or(Ok(()), Redis::kill)?;
    machine.image.start_again()
}

/// Starts and works until the power is to be cut; returns when that is.
fn work_until(
    moment: &Moment,
    machine: &mut Machine,
    shared: &Sharing,
    random: &mut Seeded,
    found: &mut Found,
) -> Result<&'static str> {
    let mut pass = |most: u64| sleep(Duration::from_millis(random.below(most)));
    let failpoint = match moment {
        Moment::Step(name, passes) => Some((*name, *passes)),
        _ => None,
    };
    machine.start(failpoint, found)?;
    if *moment == Moment::Start {
        pass(STARTING);
        return Ok("while starting");
    }
    let ready = machine.ready()?;
    if ready {
        look(machine, shared, found);
    }
    match *moment {
        Moment::Start | Moment::Work => pass(WORKING),
        Moment::Step(name, _) if !ready || machine.ends_at_step()? => {
            if random.below(GOES_ON) > 0 {
                return Ok(name);
            }
            machine.node.start()?;
            machine.ready()?;
            sleep(Duration::from_millis(random.below(WORKING)));
            return Ok("after a crash");
        }
        Moment::Step(..) => {}
        Moment::Drain => {
            let mut drain = machine.drain()?;
            pass(DRAINING);
            drain.kill()?;
            drain.wait()?;
            return Ok("while draining");
        }
        Moment::Compaction => {
            machine.drain()?.wait()?;
            machine.node.kill()?;
            let name = COMPACTING[random.below(COMPACTING.len() as u64) as usize];
            machine.node.start_until(Some(format!("{name}:{}", 1 + random.below(COMPACTING_PASSES))))?;
            if machine.ends_at_step()? {
                return Ok(name);
            }
        }
    }
    Ok("while working")
}

fn draw(random: &mut Seeded) -> Moment {
    let pass = 1 + random.below(STEP_PASSES);
    let step = |name| Moment::Step(name, pass);
    let mut one_of = |names: &[&'static str]| names[random.below(names.len() as u64) as usize];
    let (of_all, of_some) = (one_of(&failpoint::NAMES), one_of(&AROUND_FILES));
    match random.below(10) {
        0 => Moment::Start,
        1..3 => Moment::Work,
        3..5 => step(of_all),
        5..8 => step(of_some),
        8 => Moment::Drain,
        _ => Moment::Compaction,
    }
}

/// Compares what the service answers with the books: the rows that are closed are only in the files.
fn look(machine: &Machine, shared: &Sharing, found: &mut Found) {
    let http = Http::new();
    for number in 0..TIMED + UNTIMED {
        let source = source_id(number);
        let (least, _) = shared.ledger.bounds(number);
        // None where it has ended at its step meanwhile.
        let Some((count, _)) = http.total(machine.node.port, &source, PERIODS[0]) else { return };
        let (_, most) = shared.ledger.bounds(number);
        if !(least..=most).contains(&count) {
            shared.complain(format!("{source}: {count} are answered after a cut, not {least} to {most}"));
        }
    }
    found.looks += 1;
}
