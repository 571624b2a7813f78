//! What a write has appended and is not on the disk yet, and how it gets there: all files and directories of the
//! write together, several at a time, because a disk takes many fsyncs at once in little more time than one.
//!
//! Used by `writer.rs`, which reports nothing as written before. What one fsync does and what follows from
//! one that failed is in `disk.rs`.

use super::disk::{self, Disk};
use super::index::Part;
use super::partition::DateDir;
use crate::sink::SinkError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Fsyncs under way at once; more gain nothing on the disks of one machine.
const AT_ONCE: usize = 8;

/// Directories with a tail that grew, and how long it was before.
#[derive(Debug, Default)]
pub(super) struct Unsynced(BTreeMap<DateDir, u64>);

/// One fsync.
enum Step {
    /// Of the tail of a directory.
    Tail(DateDir, u64, PathBuf),
    Names(PathBuf),
}

/// What did not get to the disk.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: SinkError,
    /// Tails that are not to be synced again, and the length that is to be kept.
    pub(super) suspects: Vec<(DateDir, u64)>,
}

impl Unsynced {
    /// Takes note of bytes after the first `good` ones.
    pub(super) fn add(&mut self, dir: DateDir, good: u64) {
        self.0.entry(dir).or_insert(good);
    }

    /// Returns once everything is durable.
    pub(super) fn sync(self, disk: &Disk, root: &Path) -> Result<(), Failed> {
        let mut names = BTreeSet::new();
        let mut steps = Vec::new();
        for (dir, good) in self.0 {
            let path = dir.path(root);
            if good == 0 {
                names.extend(path.ancestors().take(3).map(Path::to_owned));
            }
            steps.push(Step::Tail(dir, good, path.join(Part::Tail.file_name())));
        }
        steps.extend(names.into_iter().map(Step::Names));
        let mut failed: Option<Failed> = None;
        for (step, error) in several_at_once(&steps, |step| step.take(disk)) {
            let failed = failed.get_or_insert(Failed { error, suspects: Vec::new() });
            if let Step::Tail(dir, good, _) = step {
                failed.suspects.push((*dir, *good));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Step {
    fn take(&self, disk: &Disk) -> Result<(), SinkError> {
        match self {
            Self::Tail(_, _, path) => disk::sync(disk, path),
            Self::Names(path) => disk::sync_dir(path),
        }
    }
}

/// Takes all steps; returns those that failed.
fn several_at_once(steps: &[Step], take: impl Fn(&Step) -> Result<(), SinkError> + Sync) -> Vec<(&Step, SinkError)> {
    let next = AtomicUsize::new(0);
    let take_some = || {
        let mine = std::iter::from_fn(|| steps.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.filter_map(|step| Some((step, take(step).err()?))).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        // This thread is one of them, and the only one for the one file of an open day.
        let others: Vec<_> = (1..AT_ONCE.min(steps.len())).map(|_| scope.spawn(take_some)).collect();
        let mut failed = take_some();
        for other in others {
            failed.extend(other.join().expect("fsyncs do not panic"));
        }
        failed
    })
}
