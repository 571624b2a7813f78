//! The contract of the sink: where the rows of written buckets are kept.
//!
//! Called by `rollover.rs` (write, compact, retain, forget), `query/` (rows, sources) and `cli/copy.rs` (scan, put).
//! `csv.rs` implements it on files, `postgres.rs` on a table. A row's version decides what is kept, never
//! the order of calls; see `stats/row.rs`.

pub mod csv;
pub mod postgres;

use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::row::{LifeRow, Row};
use crate::stats::source::SourceSpan;
use std::sync::Arc;

/// What a write or a put did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// Rows written, first versions and corrections.
    pub written: usize,
    /// Lives or rows the sink had already, version for version.
    pub same: usize,
    /// Lives or rows older than the row the sink has: skipped. Of lives it means that another instance has
    /// written a newer version meanwhile, or that a clock or a store went back.
    pub older: usize,
    /// Rows the sink would not take: they are set aside with the reason, durably, and not offered again.
    pub refused: usize,
}

/// Which rows to read.
#[derive(Clone, Debug, PartialEq)]
pub struct RowQuery {
    pub sources: Vec<Arc<str>>,
    pub period: Period,
    /// Rows whose bucket starts in `[from, to)`.
    pub from: Millis,
    pub to: Millis,
    /// At most this many rows, the oldest; 0 means no limit.
    pub limit: usize,
    /// And none after those whose states have so many doubles together; 0 means no limit.
    pub doubles: usize,
}

impl RowQuery {
    /// Leaves those of the rows, the oldest first, that are answered.
    pub fn cut(&self, rows: &mut Vec<Row>) {
        rows.truncate(if self.limit == 0 { rows.len() } else { self.limit });
        rows.truncate(if self.doubles == 0 {
            rows.len()
        } else {
            first_with(rows, self.doubles, |r| r.state.doubles())
        });
    }

    /// Whether these are so many rows, or so large ones, that there may be more.
    #[must_use]
    pub fn is_filled_by(&self, rows: &[Row]) -> bool {
        let doubles = || rows.iter().map(|row| row.state.doubles()).sum::<usize>();
        (self.limit > 0 && rows.len() >= self.limit) || (self.doubles > 0 && doubles() >= self.doubles)
    }
}

/// The most doubles of states that are read, held or written at once where nothing else is said: 45 rows of vectors of
/// 64, which are 3 MB, and with all that is computed of them some 15 MB of text. Rows of numbers have other limits.
pub const DOUBLES_AT_ONCE: usize = 200_000;

/// The end of the first rows that have so many doubles together, at least one.
pub(crate) fn first_with<T>(rows: &[T], doubles: usize, of: impl Fn(&T) -> usize) -> usize {
    let mut sum = 0;
    let enough = |row: &T| {
        sum += of(row);
        sum >= doubles
    };
    rows.iter().position(enough).map_or(rows.len(), |last| last + 1)
}

/// A part of all rows, in the sink's own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowPage {
    /// The newest version of each; may be empty on the last page.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

/// A part of the sink that can be put in its final form once none of its buckets is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    pub period: Period,
    /// Starts of its buckets lie in `[from, to)`.
    pub from: Millis,
    pub to: Millis,
}

/// Why the sink did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Nothing of the call is to be relied on; repeat it later. The store keeps the state.
    #[error("the sink is unavailable: {0}")]
    Unavailable(String),
    /// Repeating does not help until somebody acts: another process has it, a broken file, a row that another
    /// session keeps locked. Of a write, it may concern some of the buckets only.
    #[error("{0}")]
    Refused(String),
}

/// See the module; each method says what it promises.
#[async_trait::async_trait]
pub trait Sink: Send + Sync + 'static {
    /// How the sink is called in messages, without secrets.
    fn name(&self) -> String;

    /// If only the process that has it open may use it: what tells it from every other sink, also from one
    /// of the same name on another machine. `None` if several processes may.
    fn exclusive(&self) -> Option<String> {
        None
    }

    /// Sees that rows can be brought, and makes what is missing for it; nothing where that was done when the sink was
    /// opened.
    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Brings the rows of these lives up to date, durable when it returns. May be repeated.
    ///
    /// # Errors
    /// Nothing is lost: the caller keeps the lives and writes them again later.
    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError>;

    /// Brings whole rows as another sink has them, bases and versions included, durable when it returns.
    /// A row takes the place of one of a smaller version; nothing is merged. May be repeated.
    ///
    /// # Errors
    /// Some of the rows may be there: put all of them again.
    async fn put(&self, rows: Vec<Row>) -> Result<WriteReport, SinkError>;

    /// The newest version of each row asked for, ordered by (start, source).
    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, SinkError>;

    /// All rows in the sink's own order, at most `limit` (at least 1), of large ones fewer, behind the place `after`, which a page gave
    /// as its next, perhaps to another process. Rows written meanwhile may be missed; others are not.
    async fn scan(&self, after: Option<&str>, limit: usize) -> Result<RowPage, SinkError>;

    /// Known sources with this prefix, ordered by id, after `after`, at most `limit`.
    async fn sources(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<SourceSpan>, SinkError>;

    /// Partitions that hold more than one line per row and whose time is over at `now`.
    async fn compactable(&self, now: Millis) -> Result<Vec<Partition>, SinkError>;

    /// Rewrites a partition to exactly one line per row. The caller knows that no life of it is
    /// open; should one appear later, its rows are added and the partition is compacted again.
    async fn compact(&self, partition: &Partition) -> Result<(), SinkError>;

    /// Removes all rows of a source, and the source from the known ones, last; returns how many rows
    /// there were. Durable when it returns; cut off, it may be repeated. Not to be called beside a
    /// `write` that may bring rows of the source.
    async fn forget(&self, source: &str) -> Result<usize, SinkError>;

    /// Removes rows of a period whose buckets end at or before `before`, the oldest first and a bounded
    /// amount of them, and returns how many: 0 says that none is left that can be removed by itself.
    /// A source is known for as long as it has rows, by the first and last of those that are left.
    /// Should a life bring such a row again, it is a new one and goes with the next call.
    async fn retain(&self, period: Period, before: Millis) -> Result<usize, SinkError>;
}
