//! Summaries on their way: reads the stored buckets of a range, so many sources and so much time at once, and merges.
//!
//! Made by `summary.rs`, asked for rows by `http/{summary,compare}.rs`. Memory is bounded by [`BATCH_SOURCES`],
//! [`ROWS_AT_ONCE`] and [`DOUBLES_AT_ONCE`], whatever is asked; each piece is a consistent look of `window.rs`.

use super::summary::By;
use super::tiles::Tiling;
use super::window::{Segment, Want};
use super::{EARLIEST, MAX_SOURCES, PAGE_DOUBLES, Query, QueryError, State, StatsRow};
use crate::sink::first_with;
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::moments::Moments;
use crate::stats::timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Sources that are read together: files of rows are read once for all of them.
const BATCH_SOURCES: usize = 10_000;
/// Rows of one look at the sink, about 30 MB; and states of one look at the store.
const ROWS_AT_ONCE: usize = 60_000;
/// Doubles of the states of one look, which those of numbers do not reach: 64 MB. Of larger ones fewer sources are read
/// together.
const DOUBLES_AT_ONCE: usize = 8_000_000;
/// How often buckets that keep moving are asked for again: each time the query itself has tried for a second.
const MOVING_TRIES: u32 = 5;

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

impl Summary {
    /// Nothing is read yet. `sources` are by id; without one there is no tiling.
    pub(super) fn new(
        query: Arc<Query>,
        by: By,
        sources: Vec<Arc<str>>,
        tiling: Option<Tiling>,
        partial: bool,
    ) -> Self {
        Self {
            query,
            by,
            sources,
            read: 0,
            together: BATCH_SOURCES,
            ready: VecDeque::new(),
            tiling,
            partial,
            sums: BTreeMap::new(),
            doubles: 0,
        }
    }

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
                    By::Source => {
                        if let Some(sum) = by_source.get_mut(&row.source) {
                            sum.add(&row)?;
                        } else {
                            self.doubles += row.moments.doubles();
                            by_source.insert(Arc::clone(&row.source), Sum::of(row));
                        }
                    }
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
        if let Some(sum) = self.sums.get_mut(&start) {
            return sum.add(&row);
        }
        self.doubles += row.moments.doubles();
        if self.doubles > DOUBLES_AT_ONCE {
            let reason = format!(
                "rows of vectors of {} numbers are large, and these are too many at once: ask for a coarser period, or for \
                 less time",
                row.moments.length()
            );
            return Err(QueryError::Refused { parameter: "period", reason });
        }
        self.sums.insert(start, Sum::of(row));
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
