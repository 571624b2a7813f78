//! Deaths of nodes, restarts of the store's server, and a minute in which keys expire.
//!
//! A part of `schedule.rs`. How much a crash takes away is in `history.rs`.

use super::{POLICY, Schedule};
use crate::history::Kind;
use crate::world::Fate;
use futures_util::FutureExt;
use meanwhile::store::{MAX_ADVANCE, Store};

impl Schedule {
    pub(super) fn kill(&self) {
        self.world.note("nodes killed");
        if self.kind == Kind::Undoes {
            self.go_back();
        }
        self.nodes[self.draw(self.nodes.len() as u64) as usize].kill();
        self.world.lock().drop_dead();
    }

    /// The store's server ends and starts again, perhaps with less than it had.
    pub(super) fn crash(&mut self) {
        if self.kind == Kind::Undoes {
            return;
        }
        self.world.log(|| "the store's server starts again".to_owned());
        self.world.note("restarts of the server");
        self.crashes += 1;
        let in_flight = self.world.lock().cut_off();
        for waiting in in_flight {
            waiting.decide(&self.world, Fate::LostCall);
        }
        self.go_back();
    }

    fn go_back(&self) {
        let passed = self.world.passed();
        let choices = self.world.lock().history.choices(passed);
        if choices == 0 {
            return;
        }
        let choice = self.draw(choices);
        if choice + 1 < choices {
            self.world.log(|| format!("the store goes back by {} changes", choices - 1 - choice));
            self.world.note("stores that went back");
        }
        let contents = self.world.lock().history.back_to(choice as usize);
        self.world.oracle.restore(contents);
    }

    /// A minute passes in which others use the store too, so that keys expire.
    pub(super) async fn elapse(&mut self) {
        self.world.log(|| "a minute passes".to_owned());
        for _ in 0..POLICY.idempotency_ttl / MAX_ADVANCE {
            self.settle(MAX_ADVANCE as u64).await;
            self.look();
        }
    }

    /// Looks at the store as another instance would; how many lives are open.
    pub(super) fn look(&self) -> u64 {
        self.world.now();
        let due = self.world.oracle.due(0, 0).now_or_never().expect("the oracle never waits");
        let passed = self.world.passed();
        self.world.lock().history.changed(passed, false, || self.world.oracle.save());
        due.expect("the oracle answers").open
    }
}
