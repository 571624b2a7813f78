//! The rows of the buckets that hold the present moment, for those who watch.
//!
//! Called by `live/poll.rs`; the same consistent look as for a page (`page.rs`), without its questions.

use super::{Query, QueryError, StatsQuery, StatsRow};
use crate::stats::Millis;
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
            let start = self.calendar.bucket(period, now).start;
            let query = StatsQuery {
                sources: sources.to_vec(),
                period: Some(period),
                from: Some(start),
                to: Some(start + 1),
                limit: sources.len(),
                cursor: None,
            };
            let page = self.rows(&query).await?;
            if page.partial {
                return Err(QueryError::Unavailable("the store or the sink is away".to_owned()));
            }
            rows.extend(page.rows);
        }
        Ok(rows)
    }

    /// Whether rows can be answered here.
    #[must_use]
    pub fn has_sink(&self) -> bool {
        self.sink.is_some()
    }
}
