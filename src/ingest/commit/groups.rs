//! Which groups the sources of a bucket are in, remembered from frame to frame.
//!
//! Used by `pending.rs`. Groups are not folded with readings: a frame's deltas are merged into those of their groups as
//! it is made, so that a service without rules pays nothing, and a frame that is made anew is made by the same code.

use crate::stats::Millis;
use crate::stats::moments::Moments;
use crate::store::BucketDeltas;
use crate::store::rules::History;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::sync::Arc;

/// Sources that are remembered with their groups, some 10 MB of them; beyond this they are looked up anew.
const REMEMBERED: usize = 100_000;

type ByNumber<T> = HashMap<u64, T, RandomState>;
type BySource<T> = HashMap<Arc<str>, T, RandomState>;

/// See the module.
#[derive(Default)]
pub(super) struct Groups {
    history: Arc<History>,
    /// By the version's number and the source.
    known: ByNumber<BySource<Arc<[Arc<str>]>>>,
    remembered: usize,
    any: bool,
    /// It was said that a source is not in a group because the group's id would be none.
    said: bool,
}

impl Groups {
    pub(super) fn new(history: Arc<History>) -> Self {
        let any = !history.has_no_groups();
        Self { history, any, ..Self::default() }
    }

    pub(super) fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Whether there is any group at all.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// The groups of a source in a root bucket with this start.
    pub(super) fn of(&mut self, start: Millis, source: &Arc<str>) -> Arc<[Arc<str>]> {
        let Some((version, rules)) = self.history.at(start).filter(|_| self.any) else { return Arc::default() };
        if let Some(groups) = self.known.get(&version.number).and_then(|known| known.get(source)) {
            return Arc::clone(groups);
        }
        if self.remembered >= REMEMBERED {
            self.known.clear();
            self.remembered = 0;
        }
        let explained = rules.explain(source);
        if let Some((name, error)) = explained.dropped.first().filter(|_| !self.said) {
            self.said = true;
            tracing::warn!(%source, group = name, "a source is not in a group, and maybe others are not: {error}");
        }
        let groups: Arc<[Arc<str>]> = explained.groups.into();
        self.known.entry(version.number).or_default().insert(Arc::clone(source), Arc::clone(&groups));
        self.remembered += 1;
        groups
    }

    /// Adds the groups of a bucket's sources behind them. The members of a group are of one length.
    pub(super) fn add_to(&mut self, deltas: &mut BucketDeltas) {
        let mut made: Vec<(Arc<str>, Moments)> = Vec::new();
        let mut places: BySource<usize> = BySource::default();
        for (source, moments) in &deltas.sources {
            for group in &*self.of(deltas.bucket.start, source) {
                if let Some(&at) = places.get(group) {
                    made[at].1.merge(moments);
                } else {
                    places.insert(Arc::clone(group), made.len());
                    made.push((Arc::clone(group), moments.clone()));
                }
            }
        }
        deltas.sources.append(&mut made);
    }
}
