//! The rows of the buckets that hold the present moment, and of those just written, for those who watch.
//!
//! Called by `live/`. The present rows are the same consistent look as for a page (`page.rs`), without its questions;
//! what was written is told as it was written, so that one is read from the sink alone.

use super::{PAGE_ROWS, Query, QueryError, State, StatsRow};
use crate::sink::RowQuery;
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use crate::stats::glob::Glob;
use crate::stats::row::Row;
use std::collections::HashSet;
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

    /// The rows of these sources as the sink has them, of the buckets of a period that start in `[from, to)`; readings
    /// that are not written yet are not in them. By start, then source. Costs what the sink takes to read them, and
    /// one look at which buckets are open.
    ///
    /// # Errors
    /// `NoSink`; `Unavailable` if the store or the sink is away.
    pub async fn written(
        &self,
        sources: &[Arc<str>],
        period: Period,
        from: Millis,
        to: Millis,
    ) -> Result<Vec<StatsRow>, QueryError> {
        let sink = self.sink.as_ref().ok_or(QueryError::NoSink)?;
        let query = RowQuery { sources: sources.to_vec(), period, from, to, limit: 0, doubles: 0 };
        let rows = sink.rows(&query).await.map_err(|error| QueryError::Unavailable(error.to_string()))?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let lives = self.lives(&[], &[period], from, to, to).await;
        let lives = lives.map_err(|error| QueryError::Unavailable(error.to_string()))?.lives;
        let open: HashSet<Bucket> = lives.into_iter().map(|life| life.life.bucket).collect();
        let row = |Row { source, bucket, generation, revision, state: moments, .. }: Row| {
            let state = if open.contains(&bucket) { State::Settling } else { State::Closed };
            StatsRow { source, bucket, moments, state, generation, revision }
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// The ids of all sources that have rows and that one of these patterns stands for, in order. A source is among
    /// them as soon as a row of it is in the sink. Costs a look through all ids that begin alike.
    ///
    /// # Errors
    /// `NoSink`; `Unavailable` if the sink is away.
    pub async fn matching(&self, patterns: &[Arc<Glob>]) -> Result<Vec<Arc<str>>, QueryError> {
        let prefixes: Vec<String> = patterns.iter().map(|pattern| pattern.prefix()).collect();
        let Some(prefix) = prefixes.iter().map(String::as_str).reduce(|a, b| common(a, b)) else {
            return Ok(Vec::new());
        };
        let sink = self.sink.as_ref().ok_or(QueryError::NoSink)?;
        let mut found = Vec::new();
        let mut after: Option<Arc<str>> = None;
        loop {
            let spans = sink.sources(prefix, after.as_deref(), PAGE_ROWS).await;
            let spans = spans.map_err(|error| QueryError::Unavailable(error.to_string()))?;
            after = spans.last().map(|span| Arc::clone(&span.source));
            let more = spans.len() == PAGE_ROWS;
            let ids = spans.into_iter().map(|span| span.source);
            found.extend(ids.filter(|id| patterns.iter().any(|pattern| pattern.matches(id))));
            if !more {
                return Ok(found);
            }
        }
    }

    /// The rows that begin at an instant.
    async fn at(&self, sources: &[Arc<str>], period: Period, start: Millis) -> Result<Vec<StatsRow>, QueryError> {
        match self.all_at(sources, period, start).await? {
            (_, true) => Err(QueryError::Unavailable("the store or the sink is away".to_owned())),
            (rows, false) => Ok(rows),
        }
    }

    /// Whether rows can be answered here.
    #[must_use]
    pub fn has_sink(&self) -> bool {
        self.sink.is_some()
    }
}

/// What two texts begin with.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    &a[..same.unwrap_or(a.len().min(b.len()))]
}

#[cfg(test)]
mod tests {
    use super::common;

    #[test]
    fn what_two_texts_begin_with() {
        for (a, b, expected) in [("", "a", ""), ("abc", "abd", "ab"), ("ab", "abc", "ab"), ("z\u{fc}", "z\u{f6}", "z")]
        {
            assert_eq!((common(a, b), common(b, a)), (expected, expected));
        }
    }
}
