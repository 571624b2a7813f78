//! Summaries: the stored moments of any set of sources over any range, merged.
//!
//! Called by `http/{summary,compare}.rs`. Guarantees: every reading of the sources that was acknowledged before the
//! call and whose time lies in the covered range is in it exactly once; what is covered is said to the millisecond;
//! memory is bounded by [`BATCH_SOURCES`], [`ROWS_AT_ONCE`] and [`DOUBLES_AT_ONCE`], whatever is asked. Which stored buckets make up the
//! range is in `tiles.rs`, the one consistent look at them in `window.rs`.

use super::tiles::{Tiling, tiling};
use super::window::{Segment, Want};
use super::{EARLIEST, LATEST, MAX_SOURCES, PAGE_DOUBLES, PAGE_ROWS, Query, QueryError, State, StatsRow};
use crate::sink::first_with;
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::complete::Complete;
use crate::stats::moments::Moments;
use crate::stats::source::SourceSpan;
use crate::stats::timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Sources of one summary: their ids alone are some 10 MB.
pub const MAX_SUMMARY_SOURCES: usize = 100_000;
/// Buckets that the sources of one summary may have in its range: a minute of work, and no client waits longer.
pub const MAX_SUMMARY_BUCKETS: u64 = 10_000_000;
/// Rows of a summary by period, which are held until all sources are read.
pub const MAX_SUMMARY_ROWS: u64 = 10_000;
/// Sources that are read together: files of rows are read once for all of them.
const BATCH_SOURCES: usize = 10_000;
/// Rows of one look at the sink, about 30 MB; and states of one look at the store.
const ROWS_AT_ONCE: usize = 60_000;
/// Doubles of the states of one look, which those of numbers do not reach: 64 MB. Of larger ones fewer sources are read
/// together.
const DOUBLES_AT_ONCE: usize = 8_000_000;
/// How often buckets that keep moving are asked for again: each time the query itself has tried for a second.
const MOVING_TRIES: u32 = 5;

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
    /// At most [`MAX_SOURCES`]; repetitions count once.
    pub sources: Vec<Arc<str>>,
    /// And all sources whose ids begin with it.
    pub prefix: Option<String>,
    /// Readings of `[from, to)`. Absent: from the first bucket there is, to the end of the coarsest that holds
    /// the last one, or the present.
    pub from: Option<Millis>,
    pub to: Option<Millis>,
    pub by: By,
}

/// Some readings summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryRow {
    /// `None`: all sources together.
    pub source: Option<Arc<str>>,
    /// The times it is of, `[start, end)`: what is covered, or the part of it that lies in a bucket of the period.
    pub start: Millis,
    pub end: Millis,
    pub moments: Moments,
    /// Of all parts the least final.
    pub state: State,
}

/// What a range is put together from: buckets of one stored period that start in `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub period: Period,
    pub from: Millis,
    pub to: Millis,
}

/// A summary that is being made: ask for its rows with [`Summary::next`] until there are no more.
pub struct Summary {
    query: Arc<Query>,
    by: By,
    /// By id.
    sources: Vec<Arc<str>>,
    /// Those before this one have been read.
    read: usize,
    /// How many are read together: fewer once their states were too large.
    together: usize,
    /// Rows by source that have been read and not been given, in their order.
    ready: VecDeque<SummaryRow>,
    /// `None` if there is no source.
    tiling: Option<Tiling>,
    partial: bool,
    /// By start; what is summed over all sources is held until the last.
    sums: BTreeMap<Millis, Sum>,
    /// Of the states of these, or of the sources that are being read.
    doubles: usize,
}

/// Moments on their way.
struct Sum {
    moments: Moments,
    state: State,
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
        Ok(Summary {
            query,
            by: asked.by,
            sources,
            read: 0,
            together: BATCH_SOURCES,
            ready: VecDeque::new(),
            tiling,
            partial,
            sums: BTreeMap::new(),
            doubles: 0,
        })
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

impl Summary {
    /// How many sources are summed up, with readings in the range or without.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// The range that is summed up, exactly; `None` without sources. It begins before `from` or ends after `to` where
    /// these do not lie on the grid of the stored periods.
    #[must_use]
    pub fn covered(&self) -> Option<(Millis, Millis)> {
        self.tiling.as_ref().map(|tiling| (tiling.from, tiling.to))
    }

    /// The stored buckets it is put together from.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> {
        let tiles = self.tiling.iter().flat_map(|tiling| &tiling.tiles);
        tiles.map(|&Segment { period, from, to }| Tile { period, from, to })
    }

    /// The store or the sink could not be reached so far: the rows are what the other one has.
    #[must_use]
    pub fn partial(&self) -> bool {
        self.partial
    }

    /// The next rows, by source or by start; `None` after the last. Rows of a summary by source come while others are
    /// still to be read.
    ///
    /// # Errors
    /// As [`Query::stats`].
    pub async fn next(&mut self) -> Result<Option<Vec<SummaryRow>>, QueryError> {
        let Some(tiling) = self.tiling.clone() else { return Ok(None) };
        let end = self.sources.len();
        if self.read == end && self.ready.is_empty() {
            return Ok(None);
        }
        while self.ready.is_empty() && self.read < end {
            let batch = self.sources[self.read..end.min(self.read + self.together)].to_vec();
            let mut by_source: HashMap<Arc<str>, Sum> = HashMap::new();
            match self.batch(&batch, &tiling, &mut by_source).await {
                // Of these not so many: nothing of them was given.
                Err(QueryError::Crowded) if self.by == By::Source && batch.len() > 1 => {
                    (self.together, self.doubles) = (batch.len() / 4 + 1, 0);
                    continue;
                }
                other => other?,
            }
            self.read += batch.len();
            if self.by == By::Source {
                self.doubles = 0;
                let mut rows: Vec<SummaryRow> =
                    by_source.into_iter().map(|(source, sum)| sum.row(Some(source), tiling.from, tiling.to)).collect();
                rows.sort_unstable_by(|a, b| a.source.cmp(&b.source));
                self.ready = rows.into();
                break;
            }
        }
        if self.by == By::Source {
            let some = first_with(self.ready.make_contiguous(), PAGE_DOUBLES, |row| row.moments.doubles());
            return Ok(Some(self.ready.drain(..some).collect()));
        }
        let (by, calendar) = (self.by, &self.query.calendar);
        let end_of = |start| match by {
            By::Period(period) => calendar.bucket(period, start).end.min(tiling.to),
            By::Source | By::None => tiling.to,
        };
        let sums = std::mem::take(&mut self.sums);
        Ok(Some(sums.into_iter().map(|(start, sum)| sum.row(None, start, end_of(start))).collect()))
    }

    /// Adds all buckets of some sources. `Crowded`: so many sums of their own have no room.
    async fn batch(
        &mut self,
        batch: &[Arc<str>],
        tiling: &Tiling,
        by_source: &mut HashMap<Arc<str>, Sum>,
    ) -> Result<(), QueryError> {
        for tile in &tiling.tiles {
            self.tile(batch, *tile, by_source).await?;
        }
        Ok(())
    }

    /// Adds the buckets of a tile, so many at once that their rows fit in memory.
    async fn tile(
        &mut self,
        batch: &[Arc<str>],
        tile: Segment,
        by_source: &mut HashMap<Arc<str>, Sum>,
    ) -> Result<(), QueryError> {
        let buckets = (ROWS_AT_ONCE / batch.len()).max(1);
        let query = Arc::clone(&self.query);
        let mut at = tile.from;
        while at < tile.to {
            let mut end = at;
            for _ in 0..buckets {
                end = query.calendar.bucket(tile.period, end).end.min(tile.to);
                if end == tile.to {
                    break;
                }
            }
            let piece = Segment { from: at, to: end, ..tile };
            let together = query.sources_at_once(piece).await;
            let mut left: Vec<(&[Arc<str>], Segment)> = batch.chunks(together).rev().map(|s| (s, piece)).collect();
            while let Some((sources, piece)) = left.pop() {
                // In halves, from where it came to.
                if let Some(rest) = self.piece(sources, piece, by_source).await? {
                    let (first, second) = sources.split_at(sources.len() / 2);
                    left.extend([(second, rest), (first, rest)]);
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Adds the rows of some sources that start in the piece; returns what is left of it where so many sources have no
    /// room.
    async fn piece(
        &mut self,
        sources: &[Arc<str>],
        mut piece: Segment,
        by_source: &mut HashMap<Arc<str>, Sum>,
    ) -> Result<Option<Segment>, QueryError> {
        let query = Arc::clone(&self.query);
        let mut tries = MOVING_TRIES;
        while piece.from < piece.to {
            let want = Want { rows: ROWS_AT_ONCE, doubles: DOUBLES_AT_ONCE };
            let window = match query.window(sources, piece, want).await {
                Err(QueryError::Crowded) => return Ok(Some(piece)),
                Err(QueryError::Moving) if tries > 1 => {
                    tries -= 1;
                    continue;
                }
                other => other?,
            };
            self.partial |= window.partial;
            for row in window.rows {
                match self.by {
                    By::Source => match by_source.get_mut(&row.source) {
                        Some(sum) => sum.add(&row)?,
                        None => {
                            self.doubles += row.moments.doubles();
                            by_source.insert(Arc::clone(&row.source), Sum::of(row));
                        }
                    },
                    By::Period(_) | By::None => self.add(row)?,
                }
            }
            if self.doubles > DOUBLES_AT_ONCE {
                return Err(QueryError::Crowded);
            }
            (piece.from, tries) = (window.upto, MOVING_TRIES);
        }
        Ok(None)
    }

    /// Adds a row to the sum of all sources.
    fn add(&mut self, row: StatsRow) -> Result<(), QueryError> {
        let from = self.tiling.as_ref().map_or(EARLIEST, |tiling| tiling.from);
        let start = match self.by {
            By::Period(period) => self.query.calendar.bucket(period, row.bucket.start).start.max(from),
            By::Source | By::None => from,
        };
        match self.sums.get_mut(&start) {
            Some(sum) => sum.add(&row)?,
            None => {
                self.doubles += row.moments.doubles();
                if self.doubles > DOUBLES_AT_ONCE {
                    let reason = format!(
                        "rows of vectors of {} numbers are large, and these are too many at once: ask for a coarser period, or \
                         for less time",
                        row.moments.length()
                    );
                    return Err(QueryError::Refused { parameter: "period", reason });
                }
                self.sums.insert(start, Sum::of(row));
            }
        }
        Ok(())
    }
}

impl Query {
    /// How many sources a look at this piece may have, so that its states fit in memory: all, mostly, and few where
    /// many buckets are open, as they are during an import of history.
    async fn sources_at_once(&self, piece: Segment) -> usize {
        let periods: Vec<Period> = self.calendar.periods().iter().copied().filter(|p| *p <= piece.period).collect();
        let mut lives = 0;
        for shard in 0..self.store.shards() {
            // A store that cannot be reached is found out by the look itself.
            let Ok(open) = self.store.open(shard, &[], &periods, piece.from, piece.to).await else { continue };
            lives += open.lives.len();
            if open.until.is_some() {
                return MAX_SOURCES;
            }
        }
        (ROWS_AT_ONCE / lives.max(1)).clamp(MAX_SOURCES, BATCH_SOURCES)
    }
}

impl Sum {
    fn of(row: StatsRow) -> Self {
        Self { moments: row.moments, state: row.state }
    }

    fn add(&mut self, row: &StatsRow) -> Result<(), QueryError> {
        self.moments.try_merge(&row.moments).map_err(|unlike| {
            let start = timestamp::format(row.bucket.start);
            let reason = format!("{unlike}: \"{}\" has the latter from {start} on; sum up what is alike", row.source);
            QueryError::Refused { parameter: "source", reason }
        })?;
        self.state = self.state.min(row.state);
        Ok(())
    }

    fn row(self, source: Option<Arc<str>>, start: Millis, end: Millis) -> SummaryRow {
        SummaryRow { source, start, end, moments: self.moments, state: self.state }
    }
}
