//! Summaries: what is asked for, which sources that means, and what the range is put together from.
//!
//! Called by `http/{summary,compare}.rs`. Guarantees: every reading of the sources that was acknowledged before the
//! call and whose time lies in the covered range is in the summary exactly once; what is covered is said to the
//! millisecond. Which stored buckets make up the range is in `tiles.rs`, reading and merging them in `summing.rs`.

use super::summing::Summary;
use super::tiles::{Tiling, tiling};
use super::window::Segment;
use super::{EARLIEST, LATEST, PAGE_ROWS, Query, QueryError};
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::complete::Complete;
use crate::stats::source::SourceSpan;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sources of one summary: their ids alone are some 10 MB.
pub const MAX_SUMMARY_SOURCES: usize = 100_000;
/// Buckets that the sources of one summary may have in its range: a minute of work, and no client waits longer.
pub const MAX_SUMMARY_BUCKETS: u64 = 10_000_000;
/// Rows of a summary by period, which are held until all sources are read.
pub const MAX_SUMMARY_ROWS: u64 = 10_000;

/// What the readings are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// One row for each source that has readings.
    Source,
    /// One row for each bucket of a period, over all sources; stored or not.
    Period(Period),
    /// One row.
    None,
}

/// What is to be summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryQuery {
    /// At most [`super::MAX_SOURCES`]; repetitions count once.
    pub sources: Vec<Arc<str>>,
    /// And all sources whose ids begin with it.
    pub prefix: Option<String>,
    /// Readings of `[from, to)`. Absent: from the first bucket there is, to the end of the coarsest that holds
    /// the last one, or the present.
    pub from: Option<Millis>,
    pub to: Option<Millis>,
    pub by: By,
}

impl Query {
    /// Finds the sources and what the range is put together from. Of those with the prefix only the `visible` ones are
    /// summed up. `now` ends a range without an end.
    ///
    /// # Errors
    /// As [`Query::stats`]; `Refused` beyond one of the limits.
    pub async fn summary(
        self: &Arc<Self>,
        asked: &SummaryQuery,
        visible: &(dyn Fn(&str) -> bool + Sync),
        now: Millis,
    ) -> Result<Summary, QueryError> {
        self.refuse_without_sink()?;
        let mut partial = false;
        let spans = self.selected(asked, visible, &mut partial).await?;
        // Where that cannot be asked, the spans could not be either.
        let complete = self.store.complete().await;
        partial |= complete.is_err();
        let tiling = self.covering(asked, &spans, &complete.unwrap_or_default(), now)?;
        let sources: Vec<Arc<str>> = spans.into_keys().collect();
        if let Some(tiling) = &tiling {
            self.refuse_too_much(tiling, sources.len())?;
        }
        let query = Arc::clone(self);
        Ok(Summary::new(query, asked.by, sources, tiling, partial))
    }

    /// The sources asked for, each with the starts of its first and last bucket; those that were named and have none
    /// yet without.
    async fn selected(
        &self,
        asked: &SummaryQuery,
        visible: &(dyn Fn(&str) -> bool + Sync),
        partial: &mut bool,
    ) -> Result<BTreeMap<Arc<str>, Option<(Millis, Millis)>>, QueryError> {
        let mut spans = BTreeMap::new();
        for id in &asked.sources {
            // In the order of ids an id comes before all that it is a prefix of.
            let page = self.sources(id, 1, None).await?;
            *partial |= page.partial;
            let found = page.sources.into_iter().find(|span| span.source == *id);
            spans.insert(Arc::clone(id), found.map(|SourceSpan { first, last, .. }| (first, last)));
        }
        let silent: Vec<Arc<str>> =
            spans.iter().filter(|(_, span)| span.is_none()).map(|(id, _)| Arc::clone(id)).collect();
        self.refuse_unknown(&silent).await?;
        let Some(prefix) = &asked.prefix else { return Ok(spans) };
        let mut cursor: Option<String> = None;
        loop {
            let page = self.sources(prefix, PAGE_ROWS, cursor.as_deref()).await?;
            *partial |= page.partial;
            spans.extend(
                page.sources
                    .into_iter()
                    .filter(|span| visible(&span.source))
                    .map(|SourceSpan { source, first, last }| (source, Some((first, last)))),
            );
            if spans.len() > MAX_SUMMARY_SOURCES {
                let reason = format!(
                    "more than {MAX_SUMMARY_SOURCES} sources begin with \"{prefix}\": ask for parts of them, by longer prefixes"
                );
                return Err(QueryError::Refused { parameter: "prefix", reason });
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(spans);
            }
        }
    }

    /// What the range is put together from; `None` where nothing is asked of anybody.
    fn covering(
        &self,
        asked: &SummaryQuery,
        spans: &BTreeMap<Arc<str>, Option<(Millis, Millis)>>,
        complete: &Complete,
        now: Millis,
    ) -> Result<Option<Tiling>, QueryError> {
        if spans.is_empty() {
            return Ok(None);
        }
        let coarsest = *self.calendar.periods().last().expect("a calendar has a period");
        let known = spans.values().flatten();
        let first = known.clone().map(|(first, _)| *first).min().unwrap_or(now);
        let last = known.map(|(_, last)| *last).max().unwrap_or(now);
        let from = asked.from.unwrap_or_else(|| self.calendar.bucket(coarsest, first).start);
        // Not only to the last known one: a source is listed a second after its first reading.
        let to = asked.to.unwrap_or_else(|| self.calendar.bucket(coarsest, last.max(now)).end);
        let (from, to) = (from.clamp(EARLIEST, LATEST), to.clamp(EARLIEST, LATEST));
        let cut = if let By::Period(period) = asked.by { Some(period) } else { None };
        if let Some(period) = cut {
            if period < self.calendar.periods()[0] {
                return Err(self.unanswerable(period));
            }
            let rows = count(self, Segment { period, from, to }, MAX_SUMMARY_ROWS);
            if rows > MAX_SUMMARY_ROWS {
                let reason = format!(
                    "the range has more than {MAX_SUMMARY_ROWS} buckets of {period}: ask for a coarser period, or for less time"
                );
                return Err(QueryError::Refused { parameter: "period", reason });
            }
        }
        let tiling = tiling(&self.calendar, complete, from, to.max(from), cut);
        tiling.map(Some).ok_or_else(|| self.unanswerable(cut.expect("only a cut can be too fine")))
    }

    fn refuse_too_much(&self, tiling: &Tiling, sources: usize) -> Result<(), QueryError> {
        let each = MAX_SUMMARY_BUCKETS / sources as u64;
        let buckets = tiling.tiles.iter().fold(0, |sum, tile| sum + count(self, *tile, each));
        if buckets <= each {
            return Ok(());
        }
        let periods: Vec<String> = self.calendar.periods().iter().map(ToString::to_string).collect();
        let reason = format!(
            "{sources} sources may have more than {MAX_SUMMARY_BUCKETS} buckets in this range: ask for less time, for fewer \
             sources, or for whole buckets of the coarsest of the stored periods ({})",
            periods.join(", ")
        );
        Err(QueryError::Refused { parameter: "from", reason })
    }
}

/// How many buckets a tile has; more than `most` are not counted on.
fn count(query: &Query, tile: Segment, most: u64) -> u64 {
    if let Period::Seconds(n) = tile.period {
        let length = Millis::from(n) * 1_000;
        return (tile.to - tile.from).max(0).unsigned_abs().div_ceil(length.unsigned_abs());
    }
    let (mut at, mut buckets) = (tile.from, 0);
    while at < tile.to && buckets <= most {
        at = query.calendar.bucket(tile.period, at).end;
        buckets += 1;
    }
    buckets
}
