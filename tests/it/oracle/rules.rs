//! What each call does to the contents of the oracle: the rules of the contract, on plain maps.
//!
//! Called by `oracle.rs`, which locks, asks the clock and answers. Nothing here waits or fails but by
//! the contract.

use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Family, Period};
use meanwhile::stats::complete::Complete;
use meanwhile::stats::moments::Moments;
use meanwhile::store::kin::Clash;
use meanwhile::store::nodes::Node;
use meanwhile::store::rules::{ALL_TIME, Changed, MAX_VERSIONS, MAX_VERSIONS_BYTES, Version};
use meanwhile::store::{
    Answer, BucketDeltas, Closed, Frame, Late, Life, MAX_ADVANCE, MAX_DIRTY, Policy, StoreError, When, WriterId,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Everything a shard holds.
#[derive(Clone, Default)]
pub(crate) struct State {
    pub(super) epoch: Option<i64>,
    /// Highest generation ever given, epochs included.
    pub(super) highest: i64,
    /// The clock at the last call that saved; `None` before the first.
    pub(super) last_clock: Option<Millis>,
    pub(super) elapsed: Millis,
    pub(super) now: Millis,
    /// The number of the lives that begin in the present call.
    pub(super) begun: Option<i64>,
    /// Sequence and checksum of each writer's last applied frame.
    pub(super) writers: HashMap<WriterId, (u64, u32)>,
    pub(super) keys: HashMap<[u8; 16], Key>,
    pub(super) lives: BTreeMap<Bucket, Present>,
    /// When, in `elapsed`, the bucket closed.
    pub(super) tombstones: HashMap<Bucket, Millis>,
    /// Highest end of a bucket whose tombstone is gone.
    pub(super) forgotten: Option<Millis>,
    /// Whether it ever had a vector.
    pub(super) vectors: bool,
    /// Drained, and not founded since.
    pub(super) drained: bool,
    /// The log of acks, as much of it as is kept, and how many there were.
    pub(super) log: Vec<(Millis, Life)>,
    pub(super) acks: usize,
    /// Versions of the rules, the oldest first.
    pub(super) versions: Vec<Version>,
    /// By number, with the `elapsed` at which each was last heard of.
    pub(super) nodes: BTreeMap<u64, (Node, Millis)>,
    pub(super) complete: Complete,
}

/// An idempotency key that was counted.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) fingerprint: [u8; 16],
    /// In `elapsed`. From then on a store may forget it, or not yet.
    pub(super) expires: Millis,
    /// Whether the store beside this one still remembers it after that.
    pub(super) remembered: bool,
}

/// A life that is in the store.
#[derive(Clone)]
pub(super) struct Present {
    pub(super) generation: i64,
    pub(super) revision: i64,
    /// The revision the sink has; 0 if none.
    pub(super) acked: i64,
    /// Since when, in `now`, there are readings that no revision covers.
    pub(super) dirty_since: Option<Millis>,
    pub(super) closing: bool,
    pub(super) due: Millis,
    pub(super) sources: BTreeMap<Arc<str>, Moments>,
}

impl Present {
    pub(super) fn life(&self, bucket: Bucket) -> Life {
        Life { bucket, generation: self.generation, revision: self.revision }
    }
}

/// When a life must be looked at that is dirty since then.
pub(super) fn due_again(bucket: Bucket, now: Millis, since: Millis, grace: Millis) -> Millis {
    (bucket.end + grace).max((now + grace).min(since + MAX_DIRTY))
}

fn brings_vectors(frame: &Frame) -> bool {
    frame.deltas.iter().flat_map(|deltas| &deltas.sources).any(|(_, moments)| moments.length() > 1)
}

impl State {
    /// `elapsed` and `now` as a call at this clock sees them.
    pub(super) fn times(&self, clock: Millis) -> (Millis, Millis) {
        let advance = (clock - self.last_clock.unwrap_or(clock)).clamp(0, MAX_ADVANCE);
        (self.elapsed + advance, clock.max(self.now + advance))
    }

    pub(super) fn tick(&mut self, clock: Millis) {
        (self.elapsed, self.now) = self.times(clock);
        self.begun = None;
        self.last_clock = Some(clock);
    }

    pub(super) fn next_generation(&mut self) -> i64 {
        let begun = *self.begun.get_or_insert(self.now.max(self.highest + 1));
        self.highest = begun;
        begun
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

    pub(super) fn descendants_open(&self, bucket: Bucket, family: &Family) -> bool {
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
        let (newest, from) = self.newest_rules();
        let just_one_behind = frame.rules + 1 == newest;
        if frame.rules != newest && buckets.iter().any(|bucket| !just_one_behind || bucket.start >= from) {
            return Some(Answer::Rules { newest });
        }
        let closing: Vec<Life> = buckets.iter().filter_map(|b| self.first_closing(&[*b])).collect();
        if !closing.is_empty() {
            return Some(Answer::Closing(closing));
        }
        let over = |b: &Bucket| policy.late == Late::Refuse && self.now >= b.end + policy.lateness;
        let late: Vec<usize> = (0..buckets.len()).filter(|&i| over(&buckets[i])).collect();
        if !late.is_empty() {
            return Some(Answer::Late(late));
        }
        self.check_lengths(frame)
    }

    fn check_lengths(&self, frame: &Frame) -> Option<Answer> {
        if frame.deltas.is_empty() || !(self.vectors || brings_vectors(frame)) {
            return None;
        }
        let Some(kin) = &frame.kin else { return Some(Answer::Mixed) };
        let mut clashes = Vec::new();
        for (delta, (deltas, tops)) in frame.deltas.iter().zip(&kin.tops).enumerate() {
            let inside = |bucket: &Bucket| tops.iter().any(|t| t.start <= bucket.start && bucket.end <= t.end);
            for (source, (id, moments)) in deltas.sources.iter().enumerate() {
                let lives = self.lives.iter().filter(|(bucket, _)| inside(bucket));
                let held = lives.filter_map(|(_, life)| life.sources.get(id)).map(Moments::length).next();
                if let Some(held) = held.filter(|held| *held != moments.length()) {
                    clashes.push(Clash { delta, source, held });
                }
            }
        }
        (!clashes.is_empty()).then_some(Answer::Unlike(clashes))
    }

    /// Number and beginning of the newest version of the rules.
    pub(super) fn newest_rules(&self) -> (u64, Millis) {
        self.versions.last().map_or((0, Millis::MIN), |version| (version.number, version.from))
    }

    pub(super) fn change_rules(&mut self, periods: &[Period], version: &Version) -> Changed {
        let (newest, from) = self.newest_rules();
        if version.number != newest + 1 {
            return Changed::Other { newest };
        }
        let has_had = !self.lives.is_empty() || !self.tombstones.is_empty() || self.forgotten.is_some();
        if newest == 0 && !has_had && version.from == ALL_TIME {
            return self.take_rules(std::slice::from_ref(version));
        }
        let starts = self.lives.keys().filter(|bucket| periods.contains(&bucket.period)).map(|bucket| bucket.start);
        let after = starts.chain([self.now, from]).max().expect("there is now");
        if version.from <= after {
            return Changed::Early { after };
        }
        self.take_rules(std::slice::from_ref(version))
    }

    pub(super) fn take_rules(&mut self, versions: &[Version]) -> Changed {
        let (newest, _) = self.newest_rules();
        self.versions.extend(versions.iter().filter(|version| version.number > newest).cloned());
        let too_much = |versions: &[Version]| {
            let bytes: usize = versions.iter().map(|version| version.text.len()).sum();
            versions.len() > 1 && (versions.len() > MAX_VERSIONS || bytes > MAX_VERSIONS_BYTES)
        };
        while too_much(&self.versions) {
            self.versions.remove(0);
        }
        Changed::Done
    }

    pub(super) fn apply(&mut self, frame: &Frame, policy: Policy) -> Result<Answer, StoreError> {
        if let Some(answer) = self.check_frame(frame, policy) {
            return Ok(answer);
        }
        self.vectors |= brings_vectors(frame);
        for deltas in &frame.deltas {
            let first_life = self.now < deltas.bucket.end + policy.lateness;
            let first_life = first_life && self.forgotten.is_none_or(|end| deltas.bucket.end > end);
            let first_life = first_life && !self.tombstones.contains_key(&deltas.bucket);
            self.merge(deltas, first_life, policy.grace);
        }
        if self.lives.values().flat_map(|l| l.sources.values()).any(|m| !m.is_finite()) {
            return Err(StoreError::Refused("a sum is not finite".into()));
        }
        for key in &frame.keys {
            let expires = self.elapsed + key.ttl + policy.idempotency_ttl / 2;
            self.keys.insert(key.id, Key { fingerprint: key.fingerprint, expires, remembered: false });
        }
        self.writers.insert(frame.writer, (frame.sequence, frame.checksum));
        Ok(Answer::Applied)
    }

    /// Whether a close may begin or go on, by the life's own state and those around it.
    pub(super) fn check_close(&self, life: Life, family: &Family, lateness: Millis, when: When) -> Option<Closed> {
        let Some(present) = self.lives.get(&life.bucket) else {
            return Some(Closed::Gone);
        };
        if present.life(life.bucket) != life {
            return Some(Closed::Refused);
        }
        if !present.closing {
            let clean = present.dirty_since.is_none() && present.acked == present.revision;
            let over = when == When::Now || self.now >= life.bucket.end + lateness;
            if !clean || !over {
                return Some(Closed::Refused);
            }
            if when == When::InTime && self.descendants_open(life.bucket, family) {
                return Some(Closed::Waiting);
            }
        }
        // At every chunk: a drain does not wait for its descendants, one of which may be half moved up.
        self.first_closing(&family.parents).map(Closed::ParentClosing)
    }

    /// Moves `count` sources of a closing life up into its parents.
    pub(super) fn move_up(
        &mut self,
        bucket: Bucket,
        family: &Family,
        left: impl Fn(&str) -> bool,
        grace: Millis,
    ) -> Closed {
        let now = self.now;
        let life = self.lives.get_mut(&bucket).expect("checked");
        life.closing = true;
        life.due = now;
        let moved: Vec<_> = life.sources.extract_if(.., |source, _| !left(source)).collect();
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
