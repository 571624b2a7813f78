//! The parts that will travel in the next frame, merged as they arrive.
//!
//! Used by `shard.rs`. Keeps the parts until the frame has an answer, because a frame may have to
//! be made again without some of them.

use super::refused;
use crate::ingest::commit::PartOutcome;
use crate::ingest::fold::{Part, RootDeltas};
use crate::stats::Millis;
use crate::stats::calendar::Bucket;
use crate::stats::moments::Moments;
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

    /// Numbers per reading of each of its sources.
    fn lengths(&self) -> impl Iterator<Item = (Arc<str>, usize)> {
        let sources = self.part.deltas.iter().flat_map(|deltas| &deltas.sources);
        sources.map(|(source, moments)| (Arc::clone(source), moments.length()))
    }

    /// Its key as the store is to know it.
    fn record(&self) -> Option<KeyRecord> {
        let marked = |key: KeyRecord| refused::mark(key.fingerprint, self.too_late.len());
        self.key.map(|key| KeyRecord { fingerprint: marked(key), ..key })
    }
}

type Lengths = hashbrown::HashMap<Arc<str>, usize, foldhash::fast::RandomState>;
type SourceIndex = hashbrown::HashMap<Arc<str>, usize, foldhash::fast::RandomState>;

/// Works and their merged deltas.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) works: Vec<Work>,
    deltas: Vec<BucketDeltas>,
    /// Where a source stands in the deltas of the same index.
    indexes: Vec<SourceIndex>,
    doubles: usize,
    /// The length of each source's readings, kept while any of them is not a single number.
    lengths: Option<Lengths>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.works.is_empty()
    }

    /// Whether any of it is a vector.
    pub(super) fn has_vectors(&self) -> bool {
        self.lengths.is_some()
    }

    /// Whether this part has to wait for the next frame: a frame has a size, and readings of one length of each
    /// source. One part always fits.
    pub(super) fn is_full_for(&self, work: &Work) -> bool {
        if self.is_empty() {
            return false;
        }
        let room = MAX_FRAME_DOUBLES.saturating_sub(self.doubles);
        // Counting the sources it would add costs as much as merging them, so only when it matters.
        (work.doubles > room && self.new_doubles(work) > room) || self.clashes(work)
    }

    /// Whether a source would have readings of two lengths.
    fn clashes(&self, work: &Work) -> bool {
        if work.scalar && self.lengths.is_none() {
            return false;
        }
        let made;
        let lengths = if let Some(lengths) = &self.lengths {
            lengths
        } else {
            made = self.works.iter().flat_map(Work::lengths).collect();
            &made
        };
        work.lengths().any(|(source, length)| lengths.get(&source).is_some_and(|held| *held != length))
    }

    fn new_doubles(&self, work: &Work) -> usize {
        let sum = |doubles: &mut dyn Iterator<Item = &Moments>| doubles.map(Moments::doubles).sum::<usize>();
        let new = |bucket: &Bucket, deltas: &RootDeltas| match self.position(bucket) {
            None => sum(&mut deltas.sources.iter().map(|(_, moments)| moments)),
            Some(at) => {
                let new = deltas.sources.iter().filter(|(source, _)| !self.indexes[at].contains_key(source));
                sum(&mut new.map(|(_, moments)| moments))
            }
        };
        work.part.deltas.iter().flat_map(|deltas| deltas.buckets.iter().map(|bucket| new(bucket, deltas))).sum()
    }

    fn position(&self, bucket: &Bucket) -> Option<usize> {
        self.deltas.iter().position(|d| d.bucket == *bucket)
    }

    pub(super) fn add(&mut self, work: Work) {
        if let Some(lengths) = &mut self.lengths {
            lengths.extend(work.lengths());
        } else if !work.scalar {
            self.lengths = Some(self.works.iter().flat_map(Work::lengths).chain(work.lengths()).collect());
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
            }
        }
    }

    /// The frame of everything in it. The deltas are given away; [`Self::merge_again`] makes them again.
    pub(super) fn frame(&mut self, writer: WriterId, sequence: u64) -> Frame {
        let received = self.works.iter().map(|work| work.arrival.received).min().unwrap_or_default();
        let keys = self.works.iter().filter_map(Work::record).collect();
        self.indexes.clear();
        Frame::new(writer, sequence, received, keys, std::mem::take(&mut self.deltas))
    }

    /// Takes out the works for which `take` is true. [`Self::merge_again`] is to follow.
    pub(super) fn take_if(&mut self, take: impl Fn(&Work) -> bool) -> Vec<Work> {
        let (taken, kept) = std::mem::take(&mut self.works).into_iter().partition(take);
        self.works = kept;
        taken
    }

    /// Merges the works anew after a frame was made of them that has to be made again.
    pub(super) fn merge_again(&mut self) {
        for work in std::mem::take(self).works {
            self.add(work);
        }
    }
}
