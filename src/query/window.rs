//! One consistent view of the rows of a stored period: store, sink, store.
//!
//! Called by `page.rs`, which walks through time in windows. Guarantees: every reading that was
//! acknowledged before the call and whose row starts in the window is counted exactly once. What
//! moves meanwhile moves from the store to the sink or up to a parent, never back: so if all that
//! the first look saw is still there in the second, then the sink, read in between, has everything
//! else. The rule that puts a life and a row together is `Row::update`, the same as in the sinks.

use super::{MAX_SOURCES, Query, QueryError, State, StatsRow};
use crate::mutant;
use crate::sink::{RowQuery, SinkError};
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Period};
use crate::stats::moments::{Moments, Unlike};
use crate::stats::row::{LifeRow, Row, Update};
use crate::stats::timestamp;
use crate::store::{Life, OpenLife, StoreError};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often a window whose first bucket moved is read anew. One close per look is bad luck, this
/// many in a row mean that the sink is slower than the buckets are short.
const ATTEMPTS: u32 = 10;
/// After the second time it is given time to finish its move, doubled each time: 1 s in all, which
/// a month with all its days, hours and minutes needs after an import.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// Buckets of one stored period that start in `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segment {
    pub period: Period,
    pub from: Millis,
    pub to: Millis,
}

/// All rows that start in `[from, upto)` of the segment; `upto` is after `from`.
pub(super) struct Window {
    pub rows: Vec<StatsRow>,
    pub upto: Millis,
    /// One side could not be reached.
    pub partial: bool,
}

/// Lives with the moments of the sources asked for, and how far the look went.
pub(super) struct Lives {
    pub lives: Vec<OpenLife>,
    /// Lives that start at or after this were not read.
    pub until: Option<Millis>,
}

/// How much is wanted at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    /// About so many rows of the sink.
    pub rows: usize,
    /// And states of so many doubles, from either side, beyond those that begin together.
    pub doubles: usize,
}

/// That a life was seen with a source, which counts in the bucket of the answering period with this start.
#[derive(Debug)]
struct Seen {
    bucket: Bucket,
    generation: i64,
    source: Arc<str>,
    start: Millis,
}

/// What a life of the answering period itself says of one source.
struct Own {
    generation: i64,
    revision: i64,
    written: bool,
    moments: Moments,
}

/// By bucket of the answering period and source.
type Cells = BTreeMap<(Bucket, Arc<str>), Cell>;

/// One look at the store.
struct Look {
    seen: Vec<Seen>,
    /// Without rows.
    cells: Cells,
    /// Rows that start at or after this are not complete; at most the end of the segment.
    upto: Millis,
}

/// Everything that makes one row.
#[derive(Default)]
struct Cell {
    row: Option<Row>,
    own: Option<Own>,
    below: Option<Below>,
}

/// What is still in finer buckets, added up.
struct Below {
    moments: Moments,
    generation: i64,
    revision: i64,
}

impl Query {
    /// Reads the oldest rows of a segment: about `want` if the sink has that many, and all of those
    /// that begin together.
    pub(super) async fn window(
        &self,
        sources: &[Arc<str>],
        mut segment: Segment,
        want: Want,
    ) -> Result<Window, QueryError> {
        let mut first = self.look(sources, segment, want).await?.map(Look::without_states);
        for attempt in 0..ATTEMPTS {
            if attempt > 1 {
                sleep(FIRST_PAUSE * 2_u32.pow(attempt - 2)).await;
                first = self.look(sources, segment, want).await?.map(Look::without_states);
            }
            if let Ok(look) = &first {
                segment.to = segment.to.min(look.upto);
            }
            let sunk = self.sunk(sources, segment, want).await?;
            if let Ok((_, upto)) = &sunk {
                segment.to = *upto;
            }
            let second = match first {
                Ok(_) => self.look(sources, segment, want).await?,
                Err(_) => Err(StoreError::Unavailable(String::new())),
            };
            // What starts before the first bucket that moved is certain, and answered as it is.
            let moving = first.as_ref().ok().zip(second.as_ref().ok()).and_then(|(first, second)| moved(first, second));
            let moving = moving.filter(|_| !mutant::is(mutant::QUERY_LOOKS_ONCE));
            let certain = |upto: Millis| moving.map_or(upto, |moving| moving.min(upto));
            match (sunk, first, second) {
                (Err(sink), Err(store), _) | (Err(sink), _, Err(store)) => {
                    return Err(QueryError::Unavailable(format!("{store}; {sink}")));
                }
                (Ok((rows, upto)), Err(error), _) | (Ok((rows, upto)), _, Err(error)) => {
                    tracing::warn!(%error, "a query is answered without the store");
                    return Ok(Window { rows: assemble(rows, Cells::new(), upto, true), upto, partial: true });
                }
                (_, _, Ok(look)) if certain(look.upto) <= segment.from => {
                    first = Ok(look.without_states());
                    if attempt > 0 {
                        // Alone; the others come with the next window.
                        segment.to = segment.to.min(self.calendar.bucket(segment.period, segment.from).end);
                    }
                }
                (Err(error), _, Ok(Look { cells, upto, .. })) => {
                    tracing::warn!(%error, "a query is answered without the sink");
                    let upto = certain(upto);
                    return Ok(Window { rows: assemble(Vec::new(), cells, upto, false), upto, partial: true });
                }
                (Ok((rows, _)), _, Ok(Look { cells, upto, .. })) => {
                    let upto = certain(upto);
                    return Ok(Window { rows: assemble(rows, cells, upto, false), upto, partial: false });
                }
            }
        }
        Err(QueryError::Moving)
    }

    /// Looks at the answering period and everything finer that counts in its buckets. Finer states are added up as they
    /// come. `Err`: they have no room, and more sources than one call of a store takes are asked for.
    async fn look(
        &self,
        sources: &[Arc<str>],
        segment: Segment,
        want: Want,
    ) -> Result<Result<Look, StoreError>, QueryError> {
        let Segment { period, from, to } = segment;
        let periods: Vec<Period> = self.calendar.periods().iter().copied().filter(|p| *p <= period).collect();
        let end = self.calendar.bucket(period, to - 1).end;
        let whole = self.calendar.bucket(period, self.first_start(period, from)).end;
        let (mut seen, mut cells, mut until, mut doubles) = (Vec::new(), Cells::new(), None, 0);
        // So many sources as a store reads in one call; what moves is judged source by source.
        for some in sources.chunks(MAX_SOURCES) {
            let Lives { lives, until: end } = match self.lives(some, &periods, from, end, whole).await {
                Ok(lives) => lives,
                Err(error) => return Ok(Err(error)),
            };
            until = end.into_iter().chain(until).min();
            for OpenLife { life, written, moments } in lives {
                let Some(target) = self.calendar.ancestor(&life.bucket, period).filter(|t| t.start >= from) else {
                    continue;
                };
                for (source, moments) in some.iter().zip(moments) {
                    let Some(moments) = moments else { continue };
                    let (bucket, generation, start) = (life.bucket, life.generation, target.start);
                    seen.push(Seen { bucket, generation, source: Arc::clone(source), start });
                    doubles += enter(&mut cells, source, life, written, moments, target);
                }
            }
            if doubles > want.doubles && sources.len() > MAX_SOURCES {
                return Err(QueryError::Crowded);
            }
        }
        // Complete are the buckets that end by `until`: those before the one that holds it.
        let upto = until.map_or(to, |until| self.calendar.bucket(period, until).start.min(to));
        assert!(upto > from, "a look covers the first bucket whole");
        Ok(Ok(Look { seen, cells, upto }))
    }

    /// The lives of all shards that start in `[from, to)`. Where the store stops short of `whole`
    /// it is asked to go on: a bucket with more descendants than one look takes is read in pieces.
    /// Each source is still seen in each of its lives, or else has moved on, and [`moved`] finds that.
    pub(super) async fn lives(
        &self,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
        whole: Millis,
    ) -> Result<Lives, StoreError> {
        let mut all = Lives { lives: Vec::new(), until: None };
        for shard in 0..self.store.shards() {
            let mut at = from;
            loop {
                let open = self.store.open(shard, sources, periods, at, to).await?;
                all.lives.extend(open.lives);
                let Some(until) = open.until else { break };
                assert!(until > at, "a look reads the lives of at least one start");
                at = until;
                if until >= whole {
                    all.until = Some(all.until.map_or(until, |earlier| earlier.min(until)));
                    break;
                }
            }
        }
        Ok(all)
    }

    /// Rows of the sink, and up to which start they are complete. Sources that share the last start
    /// may be cut off by the limit, so that start is left to the next window. `Err` as of [`Self::look`].
    async fn sunk(
        &self,
        sources: &[Arc<str>],
        segment: Segment,
        want: Want,
    ) -> Result<Result<(Vec<Row>, Millis), SinkError>, QueryError> {
        let Segment { period, from, to } = segment;
        // What the page before had answered of its last start, and what is left to the next window.
        let limit = want.rows + 2 * sources.len() + 1;
        let mut query = RowQuery { sources: sources.to_vec(), period, from, to, limit, doubles: want.doubles };
        loop {
            let mut rows = match self.sink() {
                Ok(sink) => match sink.rows(&query).await {
                    Ok(rows) => rows,
                    Err(error) => return Ok(Err(error)),
                },
                Err(error) => return Ok(Err(error)),
            };
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Ok((rows, to))) };
            let (first, last) = (first.bucket.start, last.bucket.start);
            if !query.is_filled_by(&rows) {
                return Ok(Ok((rows, to)));
            }
            if first < last {
                rows.retain(|row| row.bucket.start < last);
                return Ok(Ok((rows, last)));
            }
            if rows.len() < query.limit && sources.len() > MAX_SOURCES {
                return Err(QueryError::Crowded);
            }
            // One start alone fills the answer: only buckets of several time zones can do that, or large states.
            (query.limit, query.doubles) = (2 * query.limit, 2 * query.doubles);
        }
    }

    /// The start of the first bucket of a period that starts at or after `t`.
    pub(super) fn first_start(&self, period: Period, t: Millis) -> Millis {
        let bucket = self.calendar.bucket(period, t);
        if bucket.start == t { t } else { bucket.end }
    }
}

/// The start of the first bucket of which the first look saw something that is gone from the second.
/// The life alone does not tell: a closing life stays until its last source has moved up, and the
/// sink may have been read before the revision that the source left behind there.
fn moved(first: &Look, second: &Look) -> Option<Millis> {
    let still: HashSet<_> = second.seen.iter().map(|p| (p.bucket, p.generation, &p.source)).collect();
    let counts = first.seen.iter().filter(|p| p.start < second.upto);
    let gone = counts.filter(|p| !still.contains(&(p.bucket, p.generation, &p.source)));
    gone.map(|p| p.start).min()
}

impl Look {
    /// What is compared with the second look.
    fn without_states(self) -> Self {
        Self { cells: Cells::new(), ..self }
    }
}

/// Enters what a life says of a source into the cell in which it counts; returns the doubles that are new.
fn enter(cells: &mut Cells, source: &Arc<str>, life: Life, written: bool, moments: Moments, target: Bucket) -> usize {
    let Life { bucket, generation, revision } = life;
    let cell = cells.entry((target, Arc::clone(source))).or_default();
    let doubles = moments.doubles();
    if bucket == target {
        cell.own = Some(Own { generation, revision, written, moments });
        return doubles;
    }
    let Some(below) = &mut cell.below else {
        cell.below = Some(Below { moments, generation, revision });
        return doubles;
    };
    add(&mut below.moments, &moments, source, &target);
    below.generation = below.generation.max(generation);
    below.revision = below.revision.max(revision);
    0
}

/// Rows from both sides that start before `upto`. `blind`: the store was not seen.
fn assemble(rows: Vec<Row>, mut cells: Cells, upto: Millis, blind: bool) -> Vec<StatsRow> {
    cells.retain(|(bucket, _), _| bucket.start < upto);
    for row in rows.into_iter().filter(|row| row.bucket.start < upto) {
        let key = (row.bucket, Arc::clone(&row.source));
        cells.entry(key).or_default().row = Some(row);
    }
    cells.into_iter().map(|((bucket, source), cell)| settle(source, bucket, cell, blind)).collect()
}

/// Readings of another length are left out: they can only come after a drain or into a row that was closed, and the
/// sink sets aside what it is given of them.
fn add(moments: &mut Moments, more: &Moments, source: &str, bucket: &Bucket) {
    if let Err(unlike) = moments.try_merge(more) {
        log_unlike(source, bucket, unlike);
    }
}

fn log_unlike(source: &str, bucket: &Bucket, unlike: Unlike) {
    let start = timestamp::format(bucket.start);
    tracing::error!(source, period = %bucket.period, start, "a query leaves out what is not of the row's length: {unlike}");
}

/// One row from its cell. Generation and revision are those of the bucket itself; they are taken
/// from below only while it has neither a life nor a row, so that they never go back: the life it
/// gets when the first of them closes has a greater generation.
fn settle(source: Arc<str>, bucket: Bucket, cell: Cell, blind: bool) -> StatsRow {
    let Cell { row, own, below } = cell;
    let written = row.is_some();
    let mut state = match &own {
        Some(own) if !own.written => State::Open,
        Some(_) => State::Settling,
        None if blind => State::Settling,
        None => State::Closed,
    };
    let merged = match own {
        None => row,
        Some(Own { generation, revision, moments, .. }) => {
            let life = LifeRow { source: Arc::clone(&source), bucket, generation, revision, moments };
            match Row::update(row.as_ref(), &life) {
                Update::Write(row) => Some(row),
                Update::Same => row,
                Update::Unlike(unlike) => {
                    log_unlike(&source, &bucket, unlike);
                    row
                }
                Update::Older => {
                    if row.as_ref().is_some_and(|row| row.generation > generation) {
                        state = State::Closed;
                    }
                    row
                }
            }
        }
    };
    if below.is_some() {
        state = state.min(if written { State::Settling } else { State::Open });
    }
    let mut moments = merged.as_ref().map_or(Moments::EMPTY, |row| row.state.clone());
    let mut version = merged.map(|row| (row.generation, row.revision));
    if let Some(below) = below {
        add(&mut moments, &below.moments, &source, &bucket);
        version = version.or(Some((below.generation, below.revision)));
    }
    let (generation, revision) = version.expect("a cell is made for a row or a part");
    StatsRow { source, bucket, moments, state, generation, revision }
}
