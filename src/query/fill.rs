//! Rows with the gaps between them filled: a row for every source in every bucket from the first of the answer to the last.
//!
//! Called by `http/stats.rs`; asks `page.rs` for the rows that there are. Gaps follow the calendar, so a local day of 23
//! hours is one bucket. An answer of many pages is filled as one: the cursor says how far it is and, for each
//! source, where its last row began, which is read again.

use super::position::{Position, hex, unhex};
use super::{EARLIEST, LATEST, PAGE_DOUBLES, Query, QueryError, StatsPage, StatsQuery, StatsRow};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// In a cursor: the source has had no row yet.
const NONE_YET: Millis = Millis::MIN;

/// A row, or the place where one would be.
#[derive(Clone, Debug, PartialEq)]
pub enum Filled {
    Row(StatsRow),
    Empty {
        source: Arc<str>,
        bucket: Bucket,
        /// The row of the source before it, if there is one in the answer.
        previous: Option<Arc<StatsRow>>,
    },
}

/// Rows by start, then source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilledPage {
    /// At most `limit`, empty ones included.
    pub rows: Vec<Filled>,
    pub next: Option<String>,
    pub partial: bool,
}

/// Where a page stopped.
struct Place {
    /// The last row that was given, empty or not; `None` before the first.
    given: Option<Position>,
    /// The cursor of the rows that there are.
    rows: Option<String>,
    /// The start of the last row of each source, in the order of their ids.
    last: Vec<Millis>,
}

impl Query {
    /// A page of rows with the gaps between them, oldest first. With `previous` an empty place has the row before it.
    ///
    /// # Errors
    /// As [`Query::stats`].
    #[expect(clippy::missing_panics_doc, reason = "a row that was looked at is there")]
    pub async fn filled(&self, query: &StatsQuery, previous: bool) -> Result<FilledPage, QueryError> {
        let mut sources = query.sources.clone();
        sources.sort_unstable();
        sources.dedup();
        let place = Place::decode(query.cursor.as_deref(), sources.len())?;
        let period = query.period.unwrap_or(self.calendar.periods()[0]);
        let StatsPage { rows, next, partial } =
            self.stats(&StatsQuery { cursor: place.rows.clone(), ..query.clone() }).await?;
        let last = self.last_rows(&sources, period, &place.last, previous).await?;
        let (limit, starts) = (query.limit, place.last);
        let mut filler = Filler { sources: &sources, last, starts, previous, limit, rows: Vec::new(), doubles: 0 };
        let mut given = place.given;
        let mut rest = rows.into_iter().peekable();
        while let Some(row) = rest.peek() {
            if filler.is_full() {
                break;
            }
            // The first place without a row that comes before it.
            let gap = given.as_ref().map(|given| self.after(&sources, period, given));
            match gap.filter(|(bucket, i)| (bucket.start, &sources[*i]) < (row.bucket.start, &row.source)) {
                Some((bucket, i)) => {
                    given = Some(Position { start: bucket.start, source: Arc::clone(&sources[i]), end: bucket.end });
                    filler.empty(i, bucket);
                }
                None if given.is_none() && row.source != sources[0] => {
                    // The first bucket is filled from its first source on.
                    given = Some(Position::before(row.bucket.start));
                }
                None => {
                    given = Some(Position::of(row));
                    filler.row(rest.next().expect("it was looked at"));
                }
            }
        }
        // Places behind the last row of the page are filled when the next row is known; behind the last of all, those
        // of its bucket.
        let mut cut = rest.peek().is_some();
        while let (false, None, Some((bucket, i))) = (cut, &next, self.beside(&sources, period, given.as_ref())) {
            cut = filler.is_full();
            if !cut {
                given = Some(Position { start: bucket.start, source: Arc::clone(&sources[i]), end: bucket.end });
                filler.empty(i, bucket);
            }
        }
        let rows = if cut { given.as_ref().map(Position::encode) } else { next };
        let next = rows.map(|rows| Place { given, rows: Some(rows), last: filler.starts }.encode());
        Ok(FilledPage { rows: filler.rows, next, partial })
    }

    /// The place that follows another one: the next source of the bucket, or the first of the next bucket.
    fn after(&self, sources: &[Arc<str>], period: Period, given: &Position) -> (Bucket, usize) {
        let bucket = self.calendar.bucket(period, given.start);
        match sources.iter().position(|source| *source > given.source) {
            Some(i) => (Bucket { start: given.start, ..bucket }, i),
            None => (self.calendar.bucket(period, bucket.end), 0),
        }
    }

    /// The place that follows another one in its bucket, if there is one.
    fn beside(&self, sources: &[Arc<str>], period: Period, given: Option<&Position>) -> Option<(Bucket, usize)> {
        let given = given?;
        Some(self.after(sources, period, given)).filter(|(bucket, _)| bucket.start == given.start)
    }

    /// The rows that begin at these times, of each source its own.
    async fn last_rows(
        &self,
        sources: &[Arc<str>],
        period: Period,
        starts: &[Millis],
        wanted: bool,
    ) -> Result<BTreeMap<usize, Arc<StatsRow>>, QueryError> {
        let mut last = BTreeMap::new();
        let times: BTreeSet<Millis> = starts.iter().copied().filter(|start| wanted && *start != NONE_YET).collect();
        for start in times {
            let of = |i: &usize| starts[*i] == start;
            let ids: Vec<Arc<str>> = (0..sources.len()).filter(of).map(|i| Arc::clone(&sources[i])).collect();
            for row in self.all_at(&ids, period, start).await?.0 {
                if let Ok(i) = sources.binary_search(&row.source) {
                    last.insert(i, Arc::new(row));
                }
            }
        }
        Ok(last)
    }
}

/// A page that is being filled.
struct Filler<'a> {
    sources: &'a [Arc<str>],
    last: BTreeMap<usize, Arc<StatsRow>>,
    starts: Vec<Millis>,
    previous: bool,
    limit: usize,
    rows: Vec<Filled>,
    /// Of the states that are shown, those of empty places included.
    doubles: usize,
}

impl Filler<'_> {
    /// As a page of rows.
    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit || self.doubles >= PAGE_DOUBLES
    }

    fn row(&mut self, row: StatsRow) {
        if let Ok(i) = self.sources.binary_search(&row.source) {
            self.starts[i] = row.bucket.start;
            if self.previous {
                self.last.insert(i, Arc::new(row.clone()));
            }
        }
        self.doubles += row.moments.doubles();
        self.rows.push(Filled::Row(row));
    }

    fn empty(&mut self, i: usize, bucket: Bucket) {
        let previous = self.last.get(&i).map(Arc::clone);
        self.doubles += previous.as_ref().map_or(0, |row| row.moments.doubles());
        self.rows.push(Filled::Empty { source: Arc::clone(&self.sources[i]), bucket, previous });
    }
}

impl Place {
    /// Two cursors with their lengths before them, then the starts.
    fn encode(&self) -> String {
        let mut bytes = Vec::new();
        for cursor in [self.given.as_ref().map(Position::encode), self.rows.clone()] {
            let cursor = cursor.unwrap_or_default();
            bytes.extend((cursor.len() as u16).to_be_bytes());
            bytes.extend(cursor.as_bytes());
        }
        bytes.extend(self.last.iter().flat_map(|start| start.to_be_bytes()));
        hex(&bytes)
    }

    fn decode(cursor: Option<&str>, sources: usize) -> Result<Self, QueryError> {
        let Some(cursor) = cursor else {
            return Ok(Self { given: None, rows: None, last: vec![NONE_YET; sources] });
        };
        let bytes = unhex(cursor).ok_or(QueryError::Cursor)?;
        let mut bytes = &bytes[..];
        let mut part = || {
            let (length, rest) = bytes.split_first_chunk::<2>()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            bytes = rest;
            std::str::from_utf8(text).ok()
        };
        let (given, rows) = (part().ok_or(QueryError::Cursor)?, part().ok_or(QueryError::Cursor)?);
        let (given, rows) = ((!given.is_empty()).then_some(given), (!rows.is_empty()).then(|| rows.to_owned()));
        let (starts, rest) = bytes.as_chunks::<8>();
        if starts.len() != sources || !rest.is_empty() {
            return Err(QueryError::Cursor);
        }
        let last: Vec<Millis> = starts.iter().map(|start| Millis::from_be_bytes(*start)).collect();
        if last.iter().any(|start| *start != NONE_YET && !(EARLIEST..=LATEST).contains(start)) {
            return Err(QueryError::Cursor);
        }
        Ok(Self { given: given.map(Position::decode).transpose()?, rows, last })
    }
}
