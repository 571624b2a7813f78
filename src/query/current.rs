//! The rows of the buckets that hold the present moment, and of those just written, for those who watch.
//!
//! Called by `live/`; the same consistent look as for a page (`page.rs`), without its questions.

use super::{PAGE_ROWS, Query, QueryError, State, StatsQuery, StatsRow};
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::store::Life;
use std::sync::Arc;

impl Query {
    /// Of each source and stored period the row of the bucket that holds `now`, if there is one; in no particular
    /// order of the periods. A source nobody has heard of has none.
    ///
    /// # Errors
    /// As [`Query::stats`]; `Unavailable` also where a page would be partial.
    pub async fn current(&self, sources: &[Arc<str>], now: Millis) -> Result<Vec<StatsRow>, QueryError> {
        let mut rows = Vec::new();
        for &period in self.calendar.periods() {
            rows.extend(self.at(sources, period, self.calendar.bucket(period, now).start).await?);
        }
        Ok(rows)
    }

    /// The rows of these sources that the sink has in the version of a life; others have none.
    ///
    /// # Errors
    /// As [`Query::stats`]; `Unavailable` also where a page would be partial.
    pub async fn written(&self, sources: &[Arc<str>], life: &Life) -> Result<Vec<StatsRow>, QueryError> {
        let Life { bucket, generation, revision } = *life;
        let mut rows = self.at(sources, bucket.period, bucket.start).await?;
        let version = (bucket, generation, revision, true);
        rows.retain(|row| (row.bucket, row.generation, row.revision, row.state != State::Open) == version);
        Ok(rows)
    }

    /// The rows that begin at an instant.
    async fn at(&self, sources: &[Arc<str>], period: Period, start: Millis) -> Result<Vec<StatsRow>, QueryError> {
        let (from, to) = (Some(start), Some(start + 1));
        let query =
            StatsQuery { sources: sources.to_vec(), period: Some(period), from, to, limit: PAGE_ROWS, cursor: None };
        let page = self.rows(&query).await?;
        if page.partial {
            return Err(QueryError::Unavailable("the store or the sink is away".to_owned()));
        }
        Ok(page.rows)
    }

    /// Whether rows can be answered here.
    #[must_use]
    pub fn has_sink(&self) -> bool {
        self.sink.is_some()
    }
}
