//! Steps of the clock that the store goes by, and what must hold of its two clocks meanwhile.
//!
//! Used by `site.rs`, which makes them faults. `now` never goes back, and `elapsed` advances with the time
//! that has passed and by a step for 5 s at most; looked at in Redis, since the embedded store shows neither.

use crate::redis::Redis;
use crate::seeded::Seeded;
use crate::shim::Shim;
use anyhow::Result;
use meanwhile::clock;
use meanwhile::stats::Millis;
use tokio::time::Instant;

/// Milliseconds of a step: seconds, minutes, up to an hour.
const STEPS: [Millis; 4] = [10_000, 300_000, 3_600_000, 3_600_000];
/// By how much a step may bring on what expires: the most that one call adds.
const MAX_ADVANCE: Millis = 5_000;
/// Between reading the clocks and noting when.
const SLACK: Millis = 1_000;

/// What the store said.
struct Look {
    at: Instant,
    now: Millis,
    elapsed: Millis,
}

#[derive(Default)]
pub(crate) struct Steps {
    last: Option<Look>,
    /// Steps since then.
    since: Millis,
    /// What did not hold.
    pub(crate) wrong: Vec<String>,
}

impl Steps {
    /// Sets the clock ahead or back by a length that is drawn.
    pub(crate) fn step(&mut self, shim: &Shim, redis: Option<&Redis>, back: bool, random: &mut Seeded) -> Result<()> {
        let most = STEPS[random.below(STEPS.len() as u64) as usize];
        // The longest of them half of the time when it comes to it: a whole hour.
        let length = most.min(1_000 + random.below(2 * most as u64).cast_signed());
        self.set(shim, redis, if back { -length } else { length })
    }

    /// Sets it so far ahead of the right time.
    pub(crate) fn set(&mut self, shim: &Shim, redis: Option<&Redis>, ahead: Millis) -> Result<()> {
        if let Some(redis) = redis {
            self.look(redis);
        }
        self.since += 1;
        shim.step_clock(ahead)
    }

    fn look(&mut self, redis: &Redis) {
        let before = clock::instant();
        let said = redis.cli(&["HMGET", "mw:{0}", "now", "elapsed"]).unwrap_or_default();
        let mut numbers = said.lines().map_while(|line| line.trim().parse::<Millis>().ok());
        // It may be away just now.
        let (Some(now), Some(elapsed)) = (numbers.next(), numbers.next()) else { return };
        if let Some(last) = &self.last {
            let passed = before.elapsed() + before.duration_since(last.at);
            let most = Millis::try_from(passed.as_millis()).unwrap_or(Millis::MAX) + self.since * MAX_ADVANCE + SLACK;
            let advance = elapsed - last.elapsed;
            if now < last.now || !(0..=most).contains(&advance) {
                self.wrong.push(format!(
                    "after {} steps in {passed:?} elapsed has advanced by {advance} ms, now by {} ms",
                    self.since,
                    now - last.now
                ));
            }
        }
        (self.last, self.since) = (Some(Look { at: before, now, elapsed }), 0);
    }
}
