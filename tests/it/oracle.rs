//! The store contract in its plainest form: maps behind a lock, a promise per line.
//!
//! Written from the doc comments of the trait alone, so that a store and its tests cannot share a
//! misunderstanding. `contract.rs` runs against it as against a store, `model.rs` runs it beside
//! one. Simple instead of fast or small: it forgets no writer and pages by position.

use meanwhile::clock::Clock;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Family, Period};
use meanwhile::stats::moments::Moments;
use meanwhile::store::{
    Acked, Answer, BucketDeltas, Closed, Due, Durability, Frame, Head, Late, Life, MAX_ADVANCE, MAX_DIRTY,
    OPEN_BUCKETS, Open, OpenLife, PAGE_SOURCES, Page, Policy, Sealed, Shard, Store, StoreError, TOMBSTONE_TTL,
    VISIBILITY, WAITING_RECHECK, WriterId,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

/// A store whose whole content is a value: it can be saved, restored and looked into.
#[derive(Clone)]
pub(crate) struct Oracle {
    state: Arc<Mutex<State>>,
    policy: Policy,
    clock: Clock,
}

#[derive(Clone, Default)]
pub(crate) struct State {
    epoch: Option<i64>,
    /// Highest generation ever given, epochs included.
    highest: i64,
    /// The clock at the last call that saved; `None` before the first.
    last_clock: Option<Millis>,
    elapsed: Millis,
    now: Millis,
    /// Sequence and checksum of each writer's last applied frame.
    writers: HashMap<WriterId, (u64, u32)>,
    keys: HashMap<[u8; 16], Key>,
    lives: BTreeMap<Bucket, Present>,
    /// When, in `elapsed`, the bucket closed.
    tombstones: HashMap<Bucket, Millis>,
}

#[derive(Clone)]
struct Key {
    fingerprint: [u8; 16],
    /// In `elapsed`. From then on a store may forget it, or not yet.
    expires: Millis,
    /// Whether the store beside this one still remembers it after that.
    remembered: bool,
}

/// A life that is in the store.
#[derive(Clone)]
struct Present {
    generation: i64,
    revision: i64,
    /// The revision the sink has; 0 if none.
    acked: i64,
    /// Since when, in `now`, there are readings that no revision covers.
    dirty_since: Option<Millis>,
    closing: bool,
    due: Millis,
    sources: BTreeMap<Arc<str>, Moments>,
}

impl Present {
    fn life(&self, bucket: Bucket) -> Life {
        Life { bucket, generation: self.generation, revision: self.revision }
    }
}

/// When a life must be looked at that is dirty since then.
fn due_again(bucket: Bucket, now: Millis, since: Millis, grace: Millis) -> Millis {
    (bucket.end + grace).max((now + grace).min(since + MAX_DIRTY))
}

impl State {
    /// `elapsed` and `now` as a call at this clock sees them.
    fn times(&self, clock: Millis) -> (Millis, Millis) {
        let advance = (clock - self.last_clock.unwrap_or(clock)).clamp(0, MAX_ADVANCE);
        (self.elapsed + advance, clock.max(self.now + advance))
    }

    fn tick(&mut self, clock: Millis) {
        (self.elapsed, self.now) = self.times(clock);
        self.last_clock = Some(clock);
    }

    fn next_generation(&mut self) -> i64 {
        self.highest = self.now.max(self.highest + 1);
        self.highest
    }

    /// Puts readings into a life, which begins with `generation` if there is none.
    fn touch(&mut self, bucket: Bucket, generation: i64, grace: Millis) -> &mut BTreeMap<Arc<str>, Moments> {
        let now = self.now;
        let life = self.lives.entry(bucket).or_insert_with(|| Present {
            generation,
            revision: 0,
            acked: 0,
            dirty_since: None,
            closing: false,
            due: 0,
            sources: BTreeMap::new(),
        });
        life.due = due_again(bucket, now, *life.dirty_since.get_or_insert(now), grace);
        &mut life.sources
    }

    fn merge(&mut self, deltas: &BucketDeltas, first_life: bool, grace: Millis) {
        let generation = match (self.lives.get(&deltas.bucket), self.epoch) {
            (Some(life), _) => life.generation,
            (None, Some(epoch)) if first_life => epoch,
            (None, _) => self.next_generation(),
        };
        let sources = self.touch(deltas.bucket, generation, grace);
        for (source, moments) in &deltas.sources {
            sources.entry(Arc::clone(source)).or_default().merge(moments);
        }
    }

    fn descendants_open(&self, bucket: Bucket, family: &Family) -> bool {
        let inside = |b: &Bucket| family.descendants.contains(&b.period) && bucket.contains(b.start);
        self.lives.keys().any(inside)
    }

    fn first_closing(&self, buckets: &[Bucket]) -> Option<Life> {
        buckets.iter().find_map(|b| self.lives.get(b).filter(|l| l.closing).map(|l| l.life(*b)))
    }

    fn check_frame(&self, frame: &Frame, policy: Policy) -> Option<Answer> {
        if self.epoch.is_none() {
            return Some(Answer::Lost);
        }
        let (last, checksum) = self.writers.get(&frame.writer).copied().unwrap_or_default();
        if frame.sequence <= last {
            return Some(Answer::Dup { checksum });
        }
        if frame.sequence > last + 1 {
            return Some(Answer::Gap { last });
        }
        if self.elapsed - frame.received > policy.idempotency_ttl / 2 {
            return Some(Answer::Stale);
        }
        let alive = |key: &&Key| key.remembered || self.elapsed < key.expires;
        let seen = |(i, id)| self.keys.get(id).filter(alive).map(|k| (i, k.fingerprint));
        let seen: Vec<_> = frame.keys.iter().map(|k| &k.id).enumerate().filter_map(seen).collect();
        if !seen.is_empty() {
            return Some(Answer::Seen(seen));
        }
        let buckets: Vec<Bucket> = frame.deltas.iter().map(|d| d.bucket).collect();
        let closing: Vec<Life> = buckets.iter().filter_map(|b| self.first_closing(&[*b])).collect();
        if !closing.is_empty() {
            return Some(Answer::Closing(closing));
        }
        let over = |b: &Bucket| policy.late == Late::Refuse && self.now >= b.end + policy.lateness;
        let late: Vec<usize> = (0..buckets.len()).filter(|&i| over(&buckets[i])).collect();
        (!late.is_empty()).then_some(Answer::Late(late))
    }

    fn apply(&mut self, frame: &Frame, policy: Policy) -> Result<Answer, StoreError> {
        if let Some(answer) = self.check_frame(frame, policy) {
            return Ok(answer);
        }
        for deltas in &frame.deltas {
            let first_life = self.now < deltas.bucket.end + policy.lateness;
            let first_life = first_life && !self.tombstones.contains_key(&deltas.bucket);
            self.merge(deltas, first_life, policy.grace);
        }
        if self.lives.values().flat_map(|l| l.sources.values()).any(|m| !m.is_finite()) {
            return Err(StoreError::Refused("a sum is not finite".into()));
        }
        for key in &frame.keys {
            let expires = self.elapsed + key.ttl;
            self.keys.insert(key.id, Key { fingerprint: key.fingerprint, expires, remembered: false });
        }
        self.writers.insert(frame.writer, (frame.sequence, frame.checksum));
        Ok(Answer::Applied)
    }

    /// Whether a close may begin or go on, by the life's own state and those around it.
    fn check_close(&self, life: Life, family: &Family, lateness: Millis) -> Option<Closed> {
        let Some(present) = self.lives.get(&life.bucket) else {
            return Some(Closed::Gone);
        };
        if present.life(life.bucket) != life {
            return Some(Closed::Refused);
        }
        if present.closing {
            return None;
        }
        let clean = present.dirty_since.is_none() && present.acked == present.revision;
        if !clean || self.now < life.bucket.end + lateness {
            return Some(Closed::Refused);
        }
        if self.descendants_open(life.bucket, family) {
            return Some(Closed::Waiting);
        }
        self.first_closing(&family.parents).map(Closed::ParentClosing)
    }

    /// Moves `count` sources of a closing life up into its parents.
    fn move_up(&mut self, bucket: Bucket, family: &Family, count: usize, grace: Millis) -> Closed {
        let now = self.now;
        let life = self.lives.get_mut(&bucket).expect("checked");
        life.closing = true;
        life.due = now;
        let moved: Vec<_> = std::iter::from_fn(|| life.sources.pop_first()).take(count).collect();
        let done = life.sources.is_empty();
        for &parent in &family.parents {
            self.merge(&BucketDeltas { bucket: parent, sources: moved.clone() }, false, grace);
        }
        if done {
            self.lives.remove(&bucket);
            self.tombstones.insert(bucket, self.elapsed);
        }
        if done { Closed::Done } else { Closed::More(0) }
    }
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

    /// One chunk of a close, as large as the other store's was: the last one takes what is left.
    pub(crate) fn close_beside(&self, life: Life, family: &Family, last: bool) -> Closed {
        let mut state = self.tick();
        if let Some(answer) = state.check_close(life, family, self.policy.lateness) {
            return answer;
        }
        let left = state.lives[&life.bucket].sources.len();
        state.move_up(life.bucket, family, if last { left } else { left / 2 }, self.policy.grace)
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
        Ok(Head { epoch: state.epoch, elapsed, now, sequence })
    }

    async fn found(&self, _: Shard) -> Result<i64, StoreError> {
        let mut state = self.tick();
        let epoch = state.epoch.unwrap_or_else(|| state.next_generation());
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

    async fn due(&self, _: Shard, limit: usize) -> Result<Due, StoreError> {
        let mut state = self.tick();
        let (now, elapsed) = (state.now, state.elapsed);
        let lateness = self.policy.lateness;
        state.tombstones.retain(|b, closed| elapsed < *closed + TOMBSTONE_TTL || now < b.end + lateness);
        let mut due: Vec<_> = state.lives.iter().filter(|(_, l)| l.due <= now).map(|(b, l)| (l.due, *b)).collect();
        due.sort_unstable();
        let buckets = due.into_iter().take(limit).map(|(_, bucket)| bucket).collect();
        let next = state.lives.values().map(|l| l.due).filter(|due| *due > now).min();
        Ok(Due { now, elapsed, buckets, next })
    }

    async fn seal(&self, _: Shard, bucket: Bucket, family: &Family) -> Result<Sealed, StoreError> {
        let mut state = self.tick();
        let now = state.now;
        let waiting = state.descendants_open(bucket, family);
        let Some(life) = state.lives.get_mut(&bucket) else {
            return Ok(Sealed::Gone);
        };
        if life.closing {
            return Ok(Sealed::Closing(life.life(bucket)));
        }
        if waiting {
            life.due = now + WAITING_RECHECK;
            return Ok(Sealed::Waiting);
        }
        if life.dirty_since.take().is_some() {
            life.revision = now.max(life.revision + 1);
        }
        life.due = now + VISIBILITY;
        Ok(Sealed::Sealed { life: life.life(bucket), acked: life.acked == life.revision })
    }

    async fn page(&self, _: Shard, bucket: Bucket, generation: i64, cursor: u64) -> Result<Option<Page>, StoreError> {
        let state = self.state.lock().unwrap();
        let Some(life) = state.lives.get(&bucket).filter(|l| l.generation == generation) else {
            return Ok(None);
        };
        let from = cursor as usize;
        let sources = life.sources.iter().skip(from).take(PAGE_SOURCES).map(|(s, m)| (Arc::clone(s), *m)).collect();
        let end = from + PAGE_SOURCES;
        Ok(Some(Page { sources, next: (end < life.sources.len()).then_some(end as u64) }))
    }

    async fn ack(&self, _: Shard, life: Life) -> Result<Acked, StoreError> {
        let mut state = self.tick();
        let now = state.now;
        let exactly = |l: &&mut Present| l.life(life.bucket) == life && !l.closing;
        let Some(present) = state.lives.get_mut(&life.bucket).filter(exactly) else {
            return Ok(Acked::Ignored);
        };
        present.acked = life.revision;
        if let Some(since) = present.dirty_since {
            present.due = due_again(life.bucket, now, since, self.policy.grace);
            return Ok(Acked::Dirty);
        }
        present.due = now.max(life.bucket.end + self.policy.lateness);
        Ok(Acked::Clean)
    }

    async fn close(&self, _: Shard, life: Life, family: &Family, _: u64) -> Result<Closed, StoreError> {
        let mut state = self.tick();
        if let Some(answer) = state.check_close(life, family, self.policy.lateness) {
            return Ok(answer);
        }
        Ok(state.move_up(life.bucket, family, PAGE_SOURCES, self.policy.grace))
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
        let until = starts.get(OPEN_BUCKETS).copied();
        let mut lives = Vec::new();
        for &period in periods {
            for (bucket, life) in &state.lives {
                if bucket.period == period && asked(bucket) && until.is_none_or(|until| bucket.start < until) {
                    let moments = sources.iter().map(|s| life.sources.get(s).copied()).collect();
                    lives.push(OpenLife { life: life.life(*bucket), written: life.acked != 0, moments });
                }
            }
        }
        Ok(Open { lives, until })
    }
}
