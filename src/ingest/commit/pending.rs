//! The parts that will travel in the next frame, merged as they arrive.
//!
//! Used by `shard.rs`. Keeps the parts until the frame has an answer, because a frame may have to
//! be made again without some of them.

use super::groups::Groups;
use super::refused;
use crate::ingest::commit::PartOutcome;
use crate::ingest::fold::{Part, RootDeltas};
use crate::stats::Millis;
use crate::stats::calendar::Bucket;
use crate::stats::moments::Moments;
use crate::stats::rules::MAX_GROUPS;
use crate::store::rules::History;
use crate::store::{BucketDeltas, Frame, KeyRecord, MAX_FRAME_DOUBLES, WriterId};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

/// When a request came in.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    /// The store's `elapsed` as last heard then.
    pub(super) received: Millis,
    /// No part of it is sent for the first time after this.
    pub(super) deadline: Instant,
}

/// One part on its way, and who waits for it.
pub(super) struct Work {
    pub(super) part: Part,
    pub(super) key: Option<KeyRecord>,
    pub(super) arrival: Arrival,
    /// Deltas of the part (by index) that are not counted, because one of their buckets is too late.
    pub(super) too_late: Vec<usize>,
    /// Doubles of the states it may add to the store.
    pub(super) doubles: usize,
    /// Whether all its readings are single numbers.
    pub(super) scalar: bool,
    pub(super) answer: oneshot::Sender<PartOutcome>,
    /// Its share of the bounded queue, given back when it is answered.
    pub(super) _share: OwnedSemaphorePermit,
}

impl Work {
    /// Whoever waited may be gone, which is no matter.
    pub(super) fn answer(self, outcome: PartOutcome) {
        let _ = self.answer.send(outcome);
    }

    /// Numbers per reading of each of its sources, and of their groups.
    fn lengths(&self, groups: &mut Groups) -> Vec<(Arc<str>, usize)> {
        let (mut lengths, any) = (Vec::new(), groups.any());
        for deltas in &self.part.deltas {
            for (source, moments) in &deltas.sources {
                lengths.push((Arc::clone(source), moments.length()));
                for bucket in deltas.buckets.iter().filter(|_| any) {
                    let of_groups = groups.of(bucket.start, source);
                    lengths.extend(of_groups.iter().map(|group| (Arc::clone(group), moments.length())));
                }
            }
        }
        lengths
    }

    /// Its key as the store is to know it.
    fn record(&self) -> Option<KeyRecord> {
        let marked = |key: KeyRecord| refused::mark(key.fingerprint, self.too_late.len());
        self.key.map(|key| KeyRecord { fingerprint: marked(key), ..key })
    }
}

/// A group whose members are of two lengths.
pub(super) struct Unlike {
    pub(super) source_id: Arc<str>,
    pub(super) held: usize,
    pub(super) given: usize,
}

type Lengths = hashbrown::HashMap<Arc<str>, usize, foldhash::fast::RandomState>;
type SourceSet = hashbrown::HashSet<Arc<str>, foldhash::fast::RandomState>;
type SourceIndex = hashbrown::HashMap<Arc<str>, usize, foldhash::fast::RandomState>;

/// Works and their merged deltas.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) works: Vec<Work>,
    deltas: Vec<BucketDeltas>,
    /// Where a source stands in the deltas of the same index.
    indexes: Vec<SourceIndex>,
    /// Groups that will stand in them.
    grouped: Vec<SourceSet>,
    /// With those of the groups.
    doubles: usize,
    /// The length of each source's and each group's readings, kept while any of them is not a single number.
    lengths: Option<Lengths>,
    groups: Groups,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.works.is_empty()
    }

    /// Whether any of it is a vector.
    pub(super) fn has_vectors(&self) -> bool {
        self.lengths.is_some()
    }

    /// The version of the rules that is followed.
    pub(super) fn history(&self) -> &Arc<History> {
        self.groups.history()
    }

    /// Follows these rules from now on. Returns the works that do not fit any more: with a group whose members are of
    /// two lengths in themselves or with others.
    pub(super) fn follow(&mut self, history: Arc<History>) -> Vec<(Work, Option<Unlike>)> {
        let works = self.take_works();
        self.groups = Groups::new(history);
        let mut left = Vec::new();
        for work in works {
            let unlike = self.unlike_within(&work);
            if unlike.is_some() || self.clashes(&work) {
                left.push((work, unlike));
            } else {
                self.add(work);
            }
        }
        left
    }

    /// A group that would get readings of two lengths from this part alone.
    pub(super) fn unlike_within(&mut self, work: &Work) -> Option<Unlike> {
        if work.scalar || !self.groups.any() {
            return None;
        }
        let mut lengths = Lengths::default();
        let of_work = work.lengths(&mut self.groups);
        of_work.into_iter().find_map(|(source_id, given)| {
            let held = *lengths.entry(Arc::clone(&source_id)).or_insert(given);
            (held != given).then_some(Unlike { source_id, held, given })
        })
    }

    /// The groups that a source of the frame is in.
    pub(super) fn groups_of(&mut self, bucket: &Bucket, source: &Arc<str>) -> Arc<[Arc<str>]> {
        self.groups.of(bucket.start, source)
    }

    /// Whether this part has to wait for the next frame: a frame has a size, and readings of one length of each
    /// source and each group. One part always fits.
    pub(super) fn is_full_for(&mut self, work: &Work) -> bool {
        if self.is_empty() {
            return false;
        }
        let room = MAX_FRAME_DOUBLES.saturating_sub(self.doubles);
        // Counting the sources it would add costs as much as merging them, so only when it matters.
        let most = if self.groups.any() { 1 + MAX_GROUPS } else { 1 };
        (most * work.doubles > room && self.new_doubles(work) > room) || self.clashes(work)
    }

    /// Whether a source would have readings of two lengths.
    fn clashes(&mut self, work: &Work) -> bool {
        if work.scalar && self.lengths.is_none() {
            return false;
        }
        let made;
        let lengths = if let Some(lengths) = &self.lengths {
            lengths
        } else {
            made = self.works.iter().flat_map(|work| work.lengths(&mut self.groups)).collect();
            &made
        };
        let mut of_work = work.lengths(&mut self.groups).into_iter();
        of_work.any(|(source, length)| lengths.get(&source).is_some_and(|held| *held != length))
    }

    fn new_doubles(&mut self, work: &Work) -> usize {
        let new = |bucket: &Bucket, deltas: &RootDeltas| {
            let at = self.deltas.iter().position(|d| d.bucket == *bucket);
            let is_new = |source: &Arc<str>| at.is_none_or(|at| !self.indexes[at].contains_key(source));
            let mut groups = SourceSet::default();
            let mut doubles = 0;
            for (source, moments) in deltas.sources.iter().filter(|(source, _)| is_new(source)) {
                doubles += moments.doubles();
                if self.groups.any() {
                    for group in &*self.groups.of(bucket.start, source) {
                        let there = at.is_some_and(|at| self.grouped[at].contains(group));
                        if !there && groups.insert(Arc::clone(group)) {
                            doubles += moments.doubles();
                        }
                    }
                }
            }
            doubles
        };
        let mut new = new;
        let mut doubles = 0;
        for deltas in &work.part.deltas {
            for bucket in &deltas.buckets {
                doubles += new(bucket, deltas);
            }
        }
        doubles
    }

    fn position(&self, bucket: &Bucket) -> Option<usize> {
        self.deltas.iter().position(|d| d.bucket == *bucket)
    }

    pub(super) fn add(&mut self, work: Work) {
        if let Some(lengths) = &mut self.lengths {
            lengths.extend(work.lengths(&mut self.groups));
        } else if !work.scalar {
            let works = self.works.iter().chain([&work]);
            self.lengths = Some(works.flat_map(|work| work.lengths(&mut self.groups)).collect());
        }
        for (index, deltas) in work.part.deltas.iter().enumerate() {
            if !work.too_late.contains(&index) {
                deltas.buckets.iter().for_each(|bucket| self.merge(bucket, &deltas.sources));
            }
        }
        self.works.push(work);
    }

    fn merge(&mut self, bucket: &Bucket, states: &[(Arc<str>, Moments)]) {
        let at = self.position(bucket).unwrap_or_else(|| {
            self.deltas.push(BucketDeltas { bucket: *bucket, sources: Vec::new() });
            self.indexes.push(SourceIndex::default());
            self.grouped.push(SourceSet::default());
            self.deltas.len() - 1
        });
        let (sources, index) = (&mut self.deltas[at].sources, &mut self.indexes[at]);
        for (source, moments) in states {
            if let Some(&known) = index.get(source) {
                sources[known].1.merge(moments);
            } else {
                index.insert(Arc::clone(source), sources.len());
                sources.push((Arc::clone(source), moments.clone()));
                self.doubles += moments.doubles();
                if self.groups.any() {
                    let groups = self.groups.of(bucket.start, source);
                    let new = groups.iter().filter(|group| self.grouped[at].insert(Arc::clone(group))).count();
                    self.doubles += new * moments.doubles();
                }
            }
        }
    }

    /// The frame of everything in it. The deltas are given away; [`Self::merge_again`] makes them again.
    pub(super) fn frame(&mut self, writer: WriterId, sequence: u64) -> Frame {
        let received = self.works.iter().map(|work| work.arrival.received).min().unwrap_or_default();
        let keys = self.works.iter().filter_map(Work::record).collect();
        self.indexes.clear();
        self.grouped.clear();
        let mut deltas = std::mem::take(&mut self.deltas);
        if self.groups.any() {
            for deltas in &mut deltas {
                self.groups.add_to(deltas);
            }
        }
        let frame = Frame::new(writer, sequence, received, keys, deltas);
        Frame { rules: self.history().number(), ..frame }
    }

    /// Takes out the works for which `take` is true. [`Self::merge_again`] is to follow.
    pub(super) fn take_if(&mut self, take: impl Fn(&Work) -> bool) -> Vec<Work> {
        let (taken, kept) = std::mem::take(&mut self.works).into_iter().partition(take);
        self.works = kept;
        taken
    }

    /// Merges the works anew after a frame was made of them that has to be made again.
    pub(super) fn merge_again(&mut self) {
        for work in self.take_works() {
            self.add(work);
        }
    }

    /// Takes out everything; the rules stay.
    pub(super) fn take_works(&mut self) -> Vec<Work> {
        let groups = std::mem::take(&mut self.groups);
        std::mem::replace(self, Self { groups, ..Self::default() }).works
    }
}
