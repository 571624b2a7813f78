//! The store contract in its plainest form: maps behind a lock, a promise per line.
//!
//! Written from the doc comments of the trait alone, so that a store and its tests cannot share a
//! misunderstanding. `contract.rs` runs against it as against a store, `model.rs` runs it beside
//! one; what a call changes is in `oracle/rules.rs`. Simple instead of fast or small: it forgets no
//! writer and pages by position.

// Named, so that tests/simulator/ can share this file.
#[path = "oracle/rules.rs"]
mod rules;

pub(crate) use rules::State;

use meanwhile::clock::Clock;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Family, Period};
use meanwhile::stats::complete::Complete;
use meanwhile::stats::layout;
use meanwhile::stats::moments::Moments;
use meanwhile::store::nodes::{NODE_TTL, Node, Registered};
use meanwhile::store::rules::{Changed, Version};
use meanwhile::store::{
    AckLog, Acked, Answer, Closed, Due, Durability, Frame, Head, LOG_LIVES, Life, OPEN_DOUBLES, Open, OpenBuckets,
    OpenLife, PAGE_SOURCES, Page, Policy, Sealed, Shard, Store, StoreError, TOMBSTONE_TTL, VISIBILITY, WAITING_RECHECK,
    When, WriterId, open_buckets,
};
use rules::{Present, due_again};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

/// A store whose whole content is a value: it can be saved, restored and looked into.
#[derive(Clone)]
pub(crate) struct Oracle {
    state: Arc<Mutex<State>>,
    policy: Policy,
    clock: Clock,
}

impl Oracle {
    pub(crate) fn new(policy: Policy, clock: Clock) -> Self {
        Self { state: Arc::default(), policy, clock }
    }

    /// The same contents under other rules.
    pub(crate) fn with_policy(&self, policy: Policy) -> Self {
        Self { policy, ..self.clone() }
    }

    pub(crate) fn save(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    pub(crate) fn restore(&self, saved: State) {
        *self.state.lock().unwrap() = saved;
    }

    /// Starts from the times of another founded store, so that the two can be compared.
    pub(crate) fn adopt(&self, head: &Head) {
        let mut state = self.state.lock().unwrap();
        (state.elapsed, state.now, state.last_clock) = (head.elapsed, head.now, Some(self.clock.now()));
        (state.epoch, state.highest) = (head.epoch, head.epoch.unwrap_or_default());
    }

    /// How many writers it has seen.
    pub(crate) fn writers(&self) -> usize {
        self.state.lock().unwrap().writers.len()
    }

    /// The lives that are half moved up: which sources went first is the store's own choice.
    pub(crate) fn closing(&self) -> Vec<Bucket> {
        let state = self.state.lock().unwrap();
        state.lives.iter().filter(|(_, l)| l.closing).map(|(b, _)| *b).collect()
    }

    /// What a life holds; `None` if it is not there.
    pub(crate) fn sources(&self, bucket: Bucket, generation: i64) -> Option<BTreeMap<Arc<str>, Moments>> {
        let state = self.state.lock().unwrap();
        state.lives.get(&bucket).filter(|l| l.generation == generation).map(|l| l.sources.clone())
    }

    /// Whether a key is past its time, so that a store may have forgotten it or not.
    pub(crate) fn is_expired(&self, id: &[u8; 16]) -> bool {
        let state = self.state.lock().unwrap();
        let (elapsed, _) = state.times(self.clock.now());
        state.keys.get(id).is_some_and(|k| k.expires <= elapsed)
    }

    /// Follows another store in what it made of an expired key.
    pub(crate) fn follow(&self, id: &[u8; 16], remembered: bool) {
        self.state.lock().unwrap().keys.get_mut(id).expect("recorded").remembered = remembered;
    }

    /// One chunk of a close, the same as that of another store, which has these sources left.
    pub(crate) fn close_beside(&self, life: Life, family: &Family, left: &BTreeSet<Arc<str>>, when: When) -> Closed {
        let mut state = self.tick();
        if let Some(answer) = state.check_close(life, family, self.policy.lateness, when) {
            return answer;
        }
        state.move_up(life.bucket, family, |source| left.contains(source), self.policy.grace)
    }

    fn tick(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.tick(self.clock.now());
        state
    }
}

#[async_trait::async_trait]
impl Store for Oracle {
    fn name(&self) -> String {
        "oracle".into()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn policy(&self) -> Policy {
        self.policy
    }

    fn connection(&self) -> u64 {
        0
    }

    async fn head(&self, _: Shard, writer: WriterId) -> Result<Head, StoreError> {
        let state = self.state.lock().unwrap();
        let (elapsed, now) = state.times(self.clock.now());
        let (sequence, _) = state.writers.get(&writer).copied().unwrap_or_default();
        Ok(Head { epoch: state.epoch, elapsed, now, sequence, rules: state.newest_rules().0 })
    }

    async fn found(&self, _: Shard) -> Result<i64, StoreError> {
        let mut state = self.tick();
        let drained = std::mem::take(&mut state.drained);
        let epoch = state.epoch.filter(|_| !drained).unwrap_or_else(|| state.next_generation());
        state.epoch = Some(epoch);
        Ok(epoch)
    }

    async fn apply(&self, _: Shard, frame: &Frame) -> Result<Answer, StoreError> {
        let mut state = self.tick();
        let mut next = state.clone();
        let answer = next.apply(frame, self.policy)?;
        if answer == Answer::Applied {
            *state = next;
        }
        Ok(answer)
    }

    async fn rules(&self, _: Shard) -> Result<Vec<Version>, StoreError> {
        Ok(self.state.lock().unwrap().versions.clone())
    }

    async fn change_rules(&self, _: Shard, periods: &[Period], version: &Version) -> Result<Changed, StoreError> {
        Ok(self.tick().change_rules(periods, version))
    }

    async fn restore_rules(&self, _: Shard, versions: &[Version]) -> Result<(), StoreError> {
        self.tick().take_rules(versions);
        Ok(())
    }

    async fn due(&self, _: Shard, limit: usize) -> Result<Due, StoreError> {
        let mut state = self.tick();
        let (now, elapsed) = (state.now, state.elapsed);
        let lateness = self.policy.lateness;
        let kept = |b: &Bucket, closed: &Millis| elapsed < *closed + TOMBSTONE_TTL || now < b.end + lateness;
        let forgotten = state.tombstones.iter().filter(|(b, closed)| !kept(b, closed)).map(|(b, _)| b.end).max();
        state.forgotten = state.forgotten.max(forgotten);
        state.tombstones.retain(|b, closed| kept(b, closed));
        let mut due: Vec<_> = state.lives.iter().filter(|(_, l)| l.due <= now).map(|(b, l)| (l.due, *b)).collect();
        due.sort_unstable();
        let (oldest, open) = (due.first().map(|(since, _)| *since), state.lives.len() as u64);
        let buckets = due.into_iter().take(limit).map(|(_, bucket)| bucket).collect();
        let next = state.lives.values().map(|l| l.due).filter(|due| *due > now).min();
        Ok(Due { now, elapsed, buckets, next, oldest, open })
    }

    async fn seal(&self, _: Shard, bucket: Bucket, family: &Family, when: When) -> Result<Sealed, StoreError> {
        let mut state = self.tick();
        let now = state.now;
        let waiting = when == When::InTime && state.descendants_open(bucket, family);
        let Some(life) = state.lives.get_mut(&bucket) else {
            return Ok(Sealed::Gone);
        };
        if life.closing {
            return Ok(Sealed::Closing(life.life(bucket)));
        }
        if waiting {
            life.due = (now + WAITING_RECHECK).max(bucket.end + self.policy.grace);
            return Ok(Sealed::Waiting);
        }
        if life.dirty_since.take().is_some() {
            life.revision = now.max(life.revision + 1);
        }
        life.due = now + VISIBILITY;
        Ok(Sealed::Sealed { life: life.life(bucket), acked: life.acked == life.revision })
    }

    async fn page(
        &self,
        _: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        let state = self.state.lock().unwrap();
        let Some(life) = state.lives.get(&bucket).filter(|l| l.generation == generation) else {
            return Ok(None);
        };
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let sources =
            life.sources.iter().skip(from).take(PAGE_SOURCES).map(|(s, m)| (Arc::clone(s), m.clone())).collect();
        let end = from + PAGE_SOURCES;
        Ok(Some(Page { sources, next: (end < life.sources.len()).then(|| end.to_string()) }))
    }

    async fn ack(&self, _: Shard, life: Life) -> Result<Acked, StoreError> {
        let mut state = self.tick();
        let now = state.now;
        let exactly = |l: &&mut Present| l.life(life.bucket) == life && !l.closing;
        let Some(present) = state.lives.get_mut(&life.bucket).filter(exactly) else {
            return Ok(Acked::Ignored);
        };
        let anew = std::mem::replace(&mut present.acked, life.revision) != life.revision;
        if anew {
            let mark = now.max(state.log.last().map_or(0, |(mark, _)| *mark) + 1);
            state.log.push((mark, life));
            state.acks += 1;
            let dropped = state.log.len().saturating_sub(LOG_LIVES);
            state.log.drain(..dropped);
        }
        let present = state.lives.get_mut(&life.bucket).expect("found above");
        if let Some(since) = present.dirty_since {
            present.due = due_again(life.bucket, now, since, self.policy.grace);
            return Ok(Acked::Dirty);
        }
        present.due = now.max(life.bucket.end + self.policy.lateness);
        Ok(Acked::Clean)
    }

    async fn acked(&self, _: Shard, after: Option<i64>, limit: usize) -> Result<AckLog, StoreError> {
        let state = self.state.lock().unwrap();
        let last = state.log.last().map_or(0, |(mark, _)| *mark);
        let mut log = AckLog { epoch: state.epoch, whole: true, lives: Vec::new(), last };
        if let Some(after) = after {
            let oldest = state.log.first().map(|(mark, _)| *mark);
            log.whole = state.log.len() == state.acks || oldest.is_some_and(|oldest| after >= oldest);
            log.lives = state.log.iter().filter(|(mark, _)| *mark > after).take(limit).copied().collect();
        }
        Ok(log)
    }

    async fn close(&self, _: Shard, life: Life, family: &Family, _: u64, when: When) -> Result<Closed, StoreError> {
        let mut state = self.tick();
        if let Some(answer) = state.check_close(life, family, self.policy.lateness, when) {
            return Ok(answer);
        }
        let left: BTreeSet<_> = state.lives[&life.bucket].sources.keys().skip(PAGE_SOURCES).cloned().collect();
        Ok(state.move_up(life.bucket, family, |source| left.contains(source), self.policy.grace))
    }

    async fn barrier(&self, _: Shard) -> Result<(), StoreError> {
        Ok(())
    }

    async fn open(
        &self,
        _: Shard,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<Open, StoreError> {
        let state = self.state.lock().unwrap();
        let asked = |b: &Bucket| periods.contains(&b.period) && from <= b.start && b.start < to;
        let mut starts: Vec<Millis> = state.lives.keys().filter(|b| asked(b)).map(|b| b.start).collect();
        starts.sort_unstable();
        let mut until = starts.get(open_buckets(sources.len())).copied();
        // Beyond so many doubles it ends with the start that it is at.
        let mut bytes = 0;
        for (n, start) in starts.iter().enumerate() {
            if bytes >= 8 * OPEN_DOUBLES && *start > starts[n - 1] {
                until = Some(until.map_or(*start, |until| until.min(*start)));
                break;
            }
            let here = state.lives.iter().filter(|(bucket, _)| asked(bucket) && bucket.start == *start);
            let held = |life: &Present| sources.iter().filter_map(|s| life.sources.get(s)).map(bytes_of).sum::<usize>();
            bytes += if n == 0 || *start > starts[n - 1] { here.map(|(_, life)| held(life)).sum() } else { 0 };
        }
        let mut lives = Vec::new();
        for &period in periods {
            for (bucket, life) in &state.lives {
                if bucket.period == period && asked(bucket) && until.is_none_or(|until| bucket.start < until) {
                    let moments = sources.iter().map(|s| life.sources.get(s).cloned()).collect();
                    lives.push(OpenLife { life: life.life(*bucket), written: life.acked != 0, moments });
                }
            }
        }
        Ok(Open { lives, until })
    }

    async fn buckets(&self, _: Shard, cursor: Option<&str>) -> Result<OpenBuckets, StoreError> {
        let state = self.state.lock().unwrap();
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let (end, all) = (from + PAGE_SOURCES, state.lives.len());
        let buckets = state.lives.keys().skip(from).take(PAGE_SOURCES).copied().collect();
        Ok(OpenBuckets { buckets, next: (end < all).then(|| end.to_string()) })
    }

    async fn forget(&self, _: Shard, source: &str, buckets: &[Bucket]) -> Result<usize, StoreError> {
        let mut state = self.state.lock().unwrap();
        let mut forget = |bucket: &&Bucket| state.lives.get_mut(*bucket)?.sources.remove(source);
        Ok(buckets.iter().filter(|bucket| forget(bucket).is_some()).count())
    }

    async fn drained(&self, _: Shard) -> Result<(), StoreError> {
        self.tick().drained = true;
        Ok(())
    }

    async fn register(&self, node: &Node) -> Result<Vec<Registered>, StoreError> {
        let mut state = self.tick();
        let elapsed = state.elapsed;
        state.nodes.retain(|_, (_, heard)| elapsed - *heard < NODE_TTL);
        let next = state.nodes.keys().next_back().map_or(1, |last| last + 1);
        let number = state.nodes.iter().find(|(_, (known, _))| known.id == node.id).map_or(next, |(number, _)| *number);
        state.nodes.insert(number, (node.clone(), elapsed));
        Ok(registered(&state))
    }

    async fn leave(&self, id: &str) -> Result<Vec<Registered>, StoreError> {
        let mut state = self.tick();
        let elapsed = state.elapsed;
        state.nodes.retain(|_, (node, heard)| node.id != id && elapsed - *heard < NODE_TTL);
        Ok(registered(&state))
    }

    async fn complete(&self) -> Result<Complete, StoreError> {
        Ok(self.state.lock().unwrap().complete.clone())
    }

    async fn keep_complete(&self, complete: &Complete) -> Result<(), StoreError> {
        self.state.lock().unwrap().complete = complete.clone();
        Ok(())
    }
}

fn registered(state: &State) -> Vec<Registered> {
    let entry = |(number, (node, heard)): (&u64, &(Node, Millis))| Registered {
        node: node.clone(),
        number: *number,
        heard: state.elapsed - heard,
    };
    state.nodes.iter().map(entry).collect()
}

/// What a state takes up in a store.
fn bytes_of(moments: &Moments) -> usize {
    layout::encode(moments).len()
}
