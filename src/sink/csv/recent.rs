//! The newest rows of the buckets written last, so that the next page of a bucket, a repetition and
//! a correction need not read files.
//!
//! Used by `writer.rs` alone; what is forgotten here is read back from the files.

use super::index::Known;
use super::partition::DateDir;
use crate::stats::Millis;
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

/// Rows in one generation; two are held, some 300 bytes a row (of large ones only where they stand), besides a bucket
/// that is larger.
const GENERATION_ROWS: usize = 50_000;

/// Rows of the buckets with one start, by source and end.
pub(super) type BucketRows = HashMap<(Arc<str>, Millis), Known>;

/// Two generations of buckets; when the young one is full the old one goes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<(DateDir, Millis), BucketRows>,
    old: HashMap<(DateDir, Millis), BucketRows>,
    young_rows: usize,
}

impl Recent {
    /// All rows of the buckets with this start, if they are held; to be put back.
    pub(super) fn take(&mut self, dir: DateDir, start: Millis) -> Option<BucketRows> {
        if let Some(rows) = self.young.remove(&(dir, start)) {
            self.young_rows -= rows.len();
            return Some(rows);
        }
        self.old.remove(&(dir, start))
    }

    pub(super) fn put(&mut self, dir: DateDir, start: Millis, rows: BucketRows) {
        self.young_rows += rows.len();
        self.young.insert((dir, start), rows);
        if self.young_rows > GENERATION_ROWS {
            self.old = mem::take(&mut self.young);
            self.young_rows = 0;
        }
    }

    /// Drops what is held of a directory.
    pub(super) fn forget(&mut self, dir: DateDir) {
        self.young.retain(|(of, _), _| *of != dir);
        self.old.retain(|(of, _), _| *of != dir);
        self.young_rows = self.young.values().map(HashMap::len).sum();
    }
}
