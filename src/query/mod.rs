//! Answers questions about sources: what the store and the sink hold, merged into rows.
//!
//! Called by `http/{stats,summary,sources,state}.rs`; calls the store's `open` and `page` and the sink's
//! `rows` and `sources`, and changes nothing. Guarantees: a reading that was acknowledged before
//! the question is in the answer exactly once, wherever its bucket was moving meanwhile; a page
//! costs a bounded amount of memory; what could not be reached is said (`partial`), never left out
//! silently. Pages are in `page.rs`, sums over any range in `summary.rs`, the one consistent look in `window.rs`,
//! sources and open lives in `sources.rs`; parameters, status codes and formats are in `http/`.

mod current;
mod fill;
mod near;
mod page;
mod position;
mod sources;
mod summary;
mod summing;
#[cfg(test)]
pub(crate) mod tests;
mod tiles;
mod window;

pub use fill::{Filled, FilledPage};
pub use sources::{OpenState, SourcesPage};
pub use summary::{By, MAX_SUMMARY_BUCKETS, MAX_SUMMARY_ROWS, MAX_SUMMARY_SOURCES, SummaryQuery};
pub use summing::{Summary, SummaryRow, Tile};

use crate::sink::{DOUBLES_AT_ONCE, Sink, SinkError};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Calendar, Period};
use crate::stats::moments::{Moments, Unlike};
use crate::store::Store;
use std::sync::Arc;

/// Rows or sources on one page: about 4 MB of JSON.
pub const PAGE_ROWS: usize = 10_000;
/// And doubles of their states on one page, but for those of a bucket: as in the sinks. Rows of numbers have fewer.
pub const PAGE_DOUBLES: usize = DOUBLES_AT_ONCE;
/// Sources one question may name: a look then still takes in 100 lives.
pub const MAX_SOURCES: usize = 100;

/// Where a range without a beginning begins, 1800-01-01: readings from before 1900 are refused, and
/// a calendar asked far outside of what it knows only costs time.
const EARLIEST: Millis = -5_364_662_400_000;
/// Where a range without an end ends, 3000-01-01: readings from the future are refused.
const LATEST: Millis = 32_503_680_000_000;

/// Which rows are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsQuery {
    /// At least one, at most [`MAX_SOURCES`]; repetitions count once.
    pub sources: Vec<Arc<str>>,
    /// The finest stored period if absent.
    pub period: Option<Period>,
    /// Rows whose bucket starts in `[from, to)`; absent: without that bound.
    pub from: Option<Millis>,
    pub to: Option<Millis>,
    /// Rows on the page, 1 to [`PAGE_ROWS`].
    pub limit: usize,
    /// The `next` of the page before, with the other fields unchanged.
    pub cursor: Option<String>,
}

/// How final a row is; of several parts the least counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Never written to the sink.
    Open,
    /// Written, and still (or, where the store could not be reached, maybe still) in the store.
    Settling,
    /// In the sink only.
    Closed,
}

/// One source in one bucket, over everything that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsRow {
    pub source: Arc<str>,
    pub bucket: Bucket,
    pub moments: Moments,
    pub state: State,
    /// Of the newest life; the greatest where the row is made of several.
    pub generation: i64,
    pub revision: i64,
}

/// Rows by start, then source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsPage {
    /// At most `limit`; fewer, even none, do not mean that it is the last page.
    pub rows: Vec<StatsRow>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
    /// The store or the sink could not be reached: the rows are what the other one has.
    pub partial: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Neither the store nor the sink has heard of it; `near` are up to five ids like it.
    #[error("the source \"{id}\" is not known")]
    UnknownSource { id: Arc<str>, near: Vec<Arc<str>> },
    /// No stored period tiles a bucket of the period asked for.
    #[error("the period {period} cannot be put together from the stored ones: ask for one of {stored}, or a multiple")]
    Period { period: Period, stored: String },
    /// A question beyond a limit, or one that has no answer; by the parameter to change.
    #[error("{reason}")]
    Refused { parameter: &'static str, reason: String },
    /// The rows that tile a bucket of the period asked for are of readings of different lengths.
    #[error("{unlike}: \"{id}\" has both in the {period} from {start}; ask for a stored period")]
    Unlike { id: Arc<str>, period: Period, start: String, unlike: Unlike },
    #[error("the cursor is not one that a page gave as its next: leave it out to begin with the first page")]
    Cursor,
    /// Buckets moved in every attempt.
    #[error("buckets kept moving from the store to the sink while they were read: try again")]
    Moving,
    /// The states of so many sources have no room together; a summary asks for fewer.
    #[error("there is no room for the states of all these sources")]
    Crowded,
    /// What was needed could not be reached.
    #[error("{0}")]
    Unavailable(String),
    /// Rows are in a sink, and this instance has none.
    #[error("this instance has no sink (--role ingest)")]
    NoSink,
}

/// The two sides of every answer, and the calendar that says what belongs together.
pub struct Query {
    store: Arc<dyn Store>,
    /// `None` if another instance has it: then only [`Self::state`] can be answered.
    sink: Option<Arc<dyn Sink>>,
    calendar: Arc<Calendar>,
    listing: sources::ListingCache,
}

impl Query {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, sink: Option<Arc<dyn Sink>>, calendar: Arc<Calendar>) -> Self {
        Self { store, sink, calendar, listing: sources::ListingCache::default() }
    }

    fn sink(&self) -> Result<&dyn Sink, SinkError> {
        self.sink.as_deref().ok_or_else(|| SinkError::Refused(QueryError::NoSink.to_string()))
    }

    /// Even an open bucket may have a row, of an earlier life; so no row is certain without a sink.
    fn refuse_without_sink(&self) -> Result<(), QueryError> {
        if self.sink.is_none() { Err(QueryError::NoSink) } else { Ok(()) }
    }

    /// The stored periods and the time zone of every answer.
    #[must_use]
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }
}
