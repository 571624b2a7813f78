//! A node's way to the store: each call waits at its gate, and is then carried out on the oracle, or not,
//! or answered, or not.
//!
//! Handed by `node.rs` to the committer, the rollover and the queries of one node. What a call does is the
//! oracle's; only pages and chunks are small here, so that a life of three sources has several.

use crate::history::Kind;
use crate::oracle::Oracle;
use crate::world::{Fate, Side, World};
use futures_util::FutureExt;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Family, Period};
use meanwhile::stats::complete::Complete;
use meanwhile::store::nodes::{Node, Registered};
use meanwhile::store::rules::{Changed, Version};
use meanwhile::store::{
    AckLog, Acked, Answer, Closed, Due, Durability, Frame, Head, Life, Open, OpenBuckets, Page, Policy, Sealed, Shard,
    Store, StoreError, When, WriterId,
};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

/// Sources per page and per chunk of a close.
const FEW: usize = 1;
/// Of a hundred heads and looks for what is due so many wait at a gate: they come by themselves every few
/// seconds, and would be most of what happens.
const GATED: u64 = 25;

pub(crate) struct NodeStore {
    pub(crate) world: Arc<World>,
    pub(crate) node: usize,
}

/// What a call does to the contents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Changes,
    /// What was changed before, too, is not lost in a crash of the embedded store.
    Durable,
}

fn at_once<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the oracle never waits")
}

fn no_answer() -> StoreError {
    StoreError::Unknown("no answer".to_owned())
}

impl World {
    /// Whether the rollover's connection had been cut since its last call, so that this one fails. The call after one
    /// that got no answer has another connection.
    fn renews(&self, node: usize, fate: Fate) -> bool {
        let mut state = self.lock();
        let was_cut = std::mem::take(&mut state.cut[node]);
        if was_cut || matches!(fate, Fate::LostCall | Fate::LostAnswer | Fate::Delayed) {
            state.renewed[node] += 1;
        }
        was_cut
    }

    /// Carries a call out on the store.
    fn carry_out<T: Debug>(
        &self,
        (node, what): (usize, &'static str),
        effect: impl Fn(&T) -> Effect,
        run: impl FnOnce(&Oracle) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.now();
        let answer = run(&self.oracle);
        self.log(|| format!("node {node} {what} -> {answer:?}"));
        if let Ok(effect) = answer.as_ref().map(effect)
            && effect != Effect::None
        {
            let passed = self.passed();
            self.lock().history.changed(passed, effect == Effect::Durable, || self.oracle.save());
        }
        answer
    }
}

impl NodeStore {
    async fn call<T: Debug + 'static>(
        &self,
        side: Side,
        what: &'static str,
        effect: impl Fn(&T) -> Effect + Send + 'static,
        run: impl FnOnce(&Oracle) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let fate = self.world.gate(self.node, side, what).await;
        if side == Side::Rollover && self.world.renews(self.node, fate) {
            return Err(no_answer());
        }
        let who = (self.node, what);
        match fate {
            Fate::Done => self.world.carry_out(who, effect, run),
            Fate::Refused => Err(StoreError::Unavailable("loading".to_owned())),
            Fate::LostCall => Err(no_answer()),
            Fate::LostAnswer => {
                let _ = self.world.carry_out(who, effect, run);
                Err(no_answer())
            }
            Fate::Delayed => {
                self.world.leave(self.node, side, what, move |world| drop(world.carry_out(who, effect, run)));
                Err(no_answer())
            }
        }
    }
}

#[async_trait::async_trait]
impl Store for NodeStore {
    fn name(&self) -> String {
        "simulated".to_owned()
    }

    fn durability(&self) -> Durability {
        match self.world.lock().history.kind {
            Kind::Keeps | Kind::Undoes => Durability::Disk,
            Kind::Forgets => Durability::Seconds,
        }
    }

    fn policy(&self) -> Policy {
        self.world.oracle.policy()
    }

    fn connection(&self) -> u64 {
        self.world.lock().renewed[self.node]
    }

    async fn head(&self, shard: Shard, writer: WriterId) -> Result<Head, StoreError> {
        let run = move |oracle: &Oracle| at_once(oracle.head(shard, writer));
        if !self.world.chance(GATED) {
            return self.world.carry_out((self.node, "head"), |_| Effect::None, run);
        }
        self.call(Side::Commits, "head", |_| Effect::None, run).await
    }

    async fn found(&self, shard: Shard) -> Result<i64, StoreError> {
        self.call(Side::Commits, "found", |_| Effect::Durable, move |oracle| at_once(oracle.found(shard))).await
    }

    async fn apply(&self, shard: Shard, frame: &Frame) -> Result<Answer, StoreError> {
        let frame = frame.clone();
        let world = Arc::clone(&self.world);
        let effect = |answer: &Answer| if *answer == Answer::Applied { Effect::Durable } else { Effect::Changes };
        let run = move |oracle: &Oracle| {
            let answer = at_once(oracle.apply(shard, &frame));
            world.log(|| format!("frame {} {:?}", frame.sequence, frame.deltas));
            world.note(match &answer {
                Ok(Answer::Lost) => "frames: Lost",
                Ok(Answer::Dup { .. }) => "frames: Dup",
                Ok(Answer::Gap { .. }) => "frames: Gap",
                Ok(Answer::Stale) => "frames: Stale",
                Ok(Answer::Seen(_)) => "frames: Seen",
                Ok(Answer::Rules { .. }) => "frames: Rules",
                Ok(Answer::Closing(_)) => "frames: Closing",
                Ok(Answer::Late(_)) => "frames: Late",
                Ok(Answer::Mixed) => "frames: Mixed",
                Ok(Answer::Unlike(_)) => "frames: Unlike",
                Ok(Answer::Applied) => "frames: Applied",
                Err(_) => "frames: refused",
            });
            answer
        };
        self.call(Side::Commits, "apply", effect, run).await
    }

    async fn rules(&self, shard: Shard) -> Result<Vec<Version>, StoreError> {
        let run = move |oracle: &Oracle| at_once(oracle.rules(shard));
        self.world.carry_out((self.node, "rules"), |_| Effect::None, run)
    }

    async fn change_rules(&self, _: Shard, _: &[Period], _: &Version) -> Result<Changed, StoreError> {
        unreachable!("there are no rules here")
    }

    async fn restore_rules(&self, _: Shard, _: &[Version]) -> Result<(), StoreError> {
        unreachable!("there are no rules here")
    }

    async fn due(&self, shard: Shard, limit: usize) -> Result<Due, StoreError> {
        let run = move |oracle: &Oracle| at_once(oracle.due(shard, limit));
        if !self.world.chance(GATED) {
            return self.world.carry_out((self.node, "due"), |_| Effect::Changes, run);
        }
        self.call(Side::Rollover, "due", |_| Effect::Changes, run).await
    }

    async fn seal(&self, shard: Shard, bucket: Bucket, family: &Family, when: When) -> Result<Sealed, StoreError> {
        let family = family.clone();
        let run = move |oracle: &Oracle| at_once(oracle.seal(shard, bucket, &family, when));
        self.call(Side::Rollover, "seal", |_| Effect::Changes, run).await
    }

    async fn page(
        &self,
        _: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        let after = cursor.map(Arc::<str>::from);
        let run = move |oracle: &Oracle| {
            let Some(held) = oracle.sources(bucket, generation) else { return Ok(None) };
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = held.range((from, Bound::Unbounded));
            let sources: Vec<_> =
                rest.by_ref().take(FEW).map(|(source, held)| (Arc::clone(source), held.clone())).collect();
            let next = sources.last().filter(|_| rest.next().is_some()).map(|(source, _)| source.to_string());
            Ok(Some(Page { sources, next }))
        };
        self.call(Side::Rollover, "page", |_| Effect::None, run).await
    }

    async fn ack(&self, shard: Shard, life: Life) -> Result<Acked, StoreError> {
        self.call(Side::Rollover, "ack", |_| Effect::Changes, move |oracle| at_once(oracle.ack(shard, life))).await
    }

    async fn acked(&self, _: Shard, _: Option<i64>, _: usize) -> Result<AckLog, StoreError> {
        unreachable!("nobody watches here")
    }

    async fn close(&self, _: Shard, life: Life, family: &Family, _: u64, when: When) -> Result<Closed, StoreError> {
        let family = family.clone();
        let run = move |oracle: &Oracle| {
            let held = oracle.sources(life.bucket, life.generation).unwrap_or_default();
            let left: BTreeSet<Arc<str>> = held.keys().skip(FEW).cloned().collect();
            Ok(oracle.close_beside(life, &family, &left, when))
        };
        self.call(Side::Rollover, "close", |_| Effect::Changes, run).await
    }

    async fn barrier(&self, shard: Shard) -> Result<(), StoreError> {
        self.call(Side::Rollover, "barrier", |()| Effect::Durable, move |oracle| at_once(oracle.barrier(shard))).await
    }

    async fn open(
        &self,
        shard: Shard,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<Open, StoreError> {
        let (sources, periods) = (sources.to_vec(), periods.to_vec());
        let run = move |oracle: &Oracle| at_once(oracle.open(shard, &sources, &periods, from, to));
        self.call(Side::Queries, "open", |_| Effect::None, run).await
    }

    async fn buckets(&self, shard: Shard, cursor: Option<&str>) -> Result<OpenBuckets, StoreError> {
        let cursor = cursor.map(str::to_owned);
        let run = move |oracle: &Oracle| at_once(oracle.buckets(shard, cursor.as_deref()));
        self.call(Side::Rollover, "buckets", |_| Effect::None, run).await
    }

    async fn forget(&self, _: Shard, _: &str, _: &[Bucket]) -> Result<usize, StoreError> {
        unreachable!("no source is forgotten here")
    }

    async fn drained(&self, shard: Shard) -> Result<(), StoreError> {
        self.call(Side::Rollover, "drained", |()| Effect::Changes, move |oracle| at_once(oracle.drained(shard))).await
    }

    async fn register(&self, _: &Node) -> Result<Vec<Registered>, StoreError> {
        unreachable!("there is no list of instances here")
    }

    async fn leave(&self, _: &str) -> Result<Vec<Registered>, StoreError> {
        unreachable!("there is no list of instances here")
    }

    async fn complete(&self) -> Result<Complete, StoreError> {
        unreachable!("nothing is summed up here")
    }

    async fn keep_complete(&self, _: &Complete) -> Result<(), StoreError> {
        unreachable!("no rows go here, and the periods stay")
    }
}
