//! Pages of rows: from a question to windows of a stored period, and back to the period asked for.
//!
//! Called by `http/stats.rs`; calls `window.rs` until the page is full or the range is over. A
//! period that is not stored is put together from the rows that tile its buckets, bucket by bucket:
//! in a zone with half-hour summer time a day is tiled by hours for a part of the year only. Rows of
//! one stored period never overlap, so windows read one after another cannot count anything twice.

use super::position::Position;
use super::window::{Lives, Segment, Want};
use super::{EARLIEST, LATEST, PAGE_DOUBLES, PAGE_ROWS, Query, QueryError, StatsPage, StatsQuery, StatsRow};
use crate::clock;
use crate::sink::{RowQuery, first_with};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use crate::stats::timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Windows read for one page, once it got anywhere: where little is found a page ends early rather
/// than late.
const MAX_WINDOWS: usize = 32;
/// The same as a time, for where every window waits for buckets that move.
const PAGE_TIME: Duration = Duration::from_secs(1);
/// Buckets of the calendar that are looked at, at once, for who answers them: eleven years of days.
const SEGMENT_BUCKETS: usize = 4_000;

/// A question with everything filled in.
struct Ask {
    sources: Vec<Arc<str>>,
    period: Period,
    stored: bool,
    /// Buckets to read start in `[from, to)`; of a period that is not stored, these are the bounds
    /// of its first and last bucket.
    from: Millis,
    to: Millis,
    limit: usize,
    after: Option<Position>,
}

impl Query {
    /// A page of rows of one source or several, oldest first, open buckets included.
    pub async fn stats(&self, query: &StatsQuery) -> Result<StatsPage, QueryError> {
        let ask = self.ask(query)?;
        let page = self.page(&ask).await?;
        if ask.after.is_none() && !page.partial {
            let silent = |source: &Arc<str>| !page.rows.iter().any(|row| row.source == *source);
            let silent: Vec<Arc<str>> = ask.sources.iter().filter(|s| silent(s)).cloned().collect();
            self.refuse_unknown(&silent).await?;
        }
        Ok(page)
    }

    /// The same, also of sources that are not known: they have no rows.
    pub(super) async fn rows(&self, query: &StatsQuery) -> Result<StatsPage, QueryError> {
        self.page(&self.ask(query)?).await
    }

    fn ask(&self, query: &StatsQuery) -> Result<Ask, QueryError> {
        let periods = self.calendar.periods();
        let period = query.period.unwrap_or(periods[0]);
        if period < periods[0] {
            return Err(self.unanswerable(period));
        }
        let mut sources = query.sources.clone();
        sources.sort_unstable();
        sources.dedup();
        let after = query.cursor.as_deref().map(Position::decode).transpose()?;
        let mut from = query.from.unwrap_or(EARLIEST).clamp(EARLIEST, LATEST);
        let mut to = query.to.unwrap_or(LATEST).clamp(EARLIEST, LATEST);
        if let Some(after) = &after {
            from = from.max(after.start);
        }
        let stored = periods.contains(&period);
        // Rows of a stored period are taken by their start as it is, whatever zone gave it to them.
        if !stored && from < to {
            from = self.first_start(period, from);
            to = if from < to { self.calendar.bucket(period, to - 1).end } else { from };
        }
        Ok(Ask { sources, period, stored, from, to, limit: query.limit.clamp(1, PAGE_ROWS), after })
    }

    async fn page(&self, ask: &Ask) -> Result<StatsPage, QueryError> {
        self.refuse_without_sink()?;
        let mut found: BTreeMap<Position, StatsRow> = BTreeMap::new();
        let mut partial = false;
        // What starts before `at` has been read; the rows that start before `whole` are complete.
        let (mut at, mut whole) = (ask.from, ask.from);
        let (started, mut windows) = (clock::instant(), 0);
        while at < ask.to {
            let Some(segment) = self.segment(ask, at, &mut partial).await? else {
                (at, whole) = (ask.to, ask.to);
                break;
            };
            let rows = if ask.stored { ask.limit - found.len() } else { PAGE_ROWS };
            let want = Want { rows, doubles: PAGE_DOUBLES };
            let window = match self.window(&ask.sources, segment, want).await {
                // What was found is certain; the next page tries again.
                Err(QueryError::Moving) if whole > ask.from => break,
                other => other?,
            };
            partial |= window.partial;
            for row in window.rows {
                self.add(ask, &mut found, row)?;
            }
            at = window.upto;
            whole = if ask.stored || at >= ask.to { at } else { self.calendar.bucket(ask.period, at).start };
            windows += 1;
            let complete = found.range(..Position::before(whole));
            let doubles = complete.clone().map(|(_, row)| row.moments.doubles()).sum::<usize>();
            let (complete, large) = (complete.count(), doubles >= PAGE_DOUBLES);
            let long = windows >= MAX_WINDOWS || large || started.elapsed() > PAGE_TIME;
            if complete >= ask.limit || (long && whole > ask.from) {
                break;
            }
        }
        let mut rows: Vec<StatsRow> = found.into_values().take_while(|row| row.bucket.start < whole).collect();
        let mut next = (at < ask.to).then(|| Position::before(whole));
        let most = first_with(&rows, PAGE_DOUBLES, |row| row.moments.doubles()).min(ask.limit);
        if rows.len() > most {
            rows.truncate(most);
            next = rows.last().map(Position::of);
        }
        Ok(StatsPage { rows, next: next.map(|position| position.encode()), partial })
    }

    /// All rows that begin at an instant, of large states in several pages; and whether a side was away.
    pub(super) async fn all_at(
        &self,
        sources: &[Arc<str>],
        period: Period,
        start: Millis,
    ) -> Result<(Vec<StatsRow>, bool), QueryError> {
        let (from, to) = (Some(start), Some(start + 1));
        let mut query =
            StatsQuery { sources: sources.to_vec(), period: Some(period), from, to, limit: PAGE_ROWS, cursor: None };
        let (mut rows, mut partial) = (Vec::new(), false);
        loop {
            let page = self.rows(&query).await?;
            rows.extend(page.rows);
            partial |= page.partial;
            if page.next.is_none() {
                return Ok((rows, partial));
            }
            query.cursor = page.next;
        }
    }

    /// Adds a row of a stored period to the row of the period asked for.
    fn add(&self, ask: &Ask, found: &mut BTreeMap<Position, StatsRow>, mut row: StatsRow) -> Result<(), QueryError> {
        if !ask.stored {
            row.bucket = self.calendar.bucket(ask.period, row.bucket.start);
        }
        let position = Position::of(&row);
        if ask.after.as_ref().is_some_and(|after| position <= *after) {
            return Ok(());
        }
        match found.get_mut(&position) {
            None => {
                found.insert(position, row);
            }
            Some(sum) => {
                if let Err(unlike) = sum.moments.try_merge(&row.moments) {
                    let (id, start) = (row.source, timestamp::format(sum.bucket.start));
                    return Err(QueryError::Unlike { id, period: ask.period, start, unlike });
                }
                sum.state = sum.state.min(row.state);
                sum.generation = sum.generation.max(row.generation);
                sum.revision = sum.revision.max(row.revision);
            }
        }
        Ok(())
    }

    /// The next stretch of time that one stored period answers; `None` if nothing is left in it.
    async fn segment(&self, ask: &Ask, at: Millis, partial: &mut bool) -> Result<Option<Segment>, QueryError> {
        if ask.stored {
            return Ok(Some(Segment { period: ask.period, from: at, to: ask.to }));
        }
        // On the UTC grid every bucket is tiled alike; on a calendar only those with data are judged.
        let on_grid = matches!(ask.period, Period::Seconds(_));
        let data = if on_grid { Some(at) } else { self.first_data(ask, at, partial).await? };
        let Some(data) = data else { return Ok(None) };
        let first = self.calendar.bucket(ask.period, data);
        let period = self.calendar.answering(&first).ok_or_else(|| self.unanswerable(ask.period))?;
        let to = if on_grid { ask.to } else { self.answered_alike(first, period, ask.to) };
        Ok(Some(Segment { period, from: first.start.max(at), to }))
    }

    /// The end of the last bucket, from `first` on without a gap, that `period` answers.
    fn answered_alike(&self, first: Bucket, period: Period, to: Millis) -> Millis {
        let mut end = first.end;
        for _ in 1..SEGMENT_BUCKETS {
            let next = self.calendar.bucket(first.period, end);
            if end >= to || self.calendar.answering(&next) != Some(period) {
                break;
            }
            end = next.end;
        }
        end
    }

    /// The start of the first life or row from `at` on, in any of the periods that could answer;
    /// `None` if there is nothing. The store comes first: what leaves it meanwhile is in the sink
    /// by then.
    async fn first_data(&self, ask: &Ask, at: Millis, partial: &mut bool) -> Result<Option<Millis>, QueryError> {
        let finer = || self.calendar.periods().iter().copied().filter(|p| *p < ask.period);
        let periods: Vec<Period> = finer().collect();
        let mut first: Option<Millis> = None;
        let mut note = |t: Millis| first = Some(first.map_or(t, |f| f.min(t)));
        let mut from = at;
        let open = loop {
            // One call of the store after the other: what is behind the first data is of no interest.
            match self.lives(&ask.sources, &periods, from, ask.to, from).await {
                Ok(Lives { lives, until }) => {
                    let mut with_data = lives.iter().filter(|life| life.moments.iter().any(Option::is_some)).peekable();
                    let found = with_data.peek().is_some();
                    with_data.for_each(|life| note(life.life.bucket.start));
                    match until.filter(|_| !found) {
                        Some(until) => from = until,
                        None => break Ok(()),
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let sink = self.sink.as_ref().ok_or(QueryError::NoSink)?;
        for period in finer() {
            let query = RowQuery { sources: ask.sources.clone(), period, from: at, to: ask.to, limit: 1, doubles: 0 };
            match (sink.rows(&query).await, &open) {
                (Ok(rows), _) => rows.iter().for_each(|row| note(row.bucket.start)),
                (Err(sink), Err(store)) => return Err(QueryError::Unavailable(format!("{store}; {sink}"))),
                (Err(_), Ok(())) => *partial = true,
            }
        }
        *partial |= open.is_err();
        Ok(first)
    }

    pub(super) fn unanswerable(&self, period: Period) -> QueryError {
        let stored: Vec<String> = self.calendar.periods().iter().map(ToString::to_string).collect();
        QueryError::Period { period, stored: stored.join(", ") }
    }
}
