//! All rows of the CSV sink, page by page: period by period, date by date, then by (start, source, end).
//!
//! Called by `csv.rs`. A cursor says which row came last and nothing else, so it outlives the process
//! and whatever happens to the files. A page needs the memory of its rows and of one index, which is held
//! until a page goes beyond its directory; a bucket with more rows than a page holds is read once for
//! each of its pages.

use super::index::{Files, Index, Newest};
use super::lock;
use super::partition::{self, DateDir};
use super::writer::Writer;
use crate::sink::{DOUBLES_AT_ONCE, RowPage, SinkError};
use crate::stats::Millis;
use crate::stats::row::Row;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The row a page ended with.
#[derive(Clone, Debug, PartialEq)]
struct Position {
    dir: DateDir,
    start: Millis,
    source: Arc<str>,
    end: Millis,
}

impl Position {
    fn of(dir: DateDir, row: &Row) -> Self {
        Self { dir, start: row.bucket.start, source: Arc::clone(&row.source), end: row.bucket.end }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(5, ' ');
        let mut word = || words.next();
        let dir = DateDir { period: word()?.parse().ok()?, date: word()?.parse().ok()? };
        Some(Self { dir, start: word()?.parse().ok()?, end: word()?.parse().ok()?, source: word()?.into() })
    }

    /// Whether a row of the same start comes after it.
    fn is_before(&self, row: &Row) -> bool {
        (&self.source, self.end) < (&row.source, row.bucket.end)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, start, source, end } = self;
        write!(f, "{} {} {start} {end} {source}", dir.period, dir.date)
    }
}

/// At most `limit` rows, of large ones fewer, at least one if there is one.
pub(super) fn scan(writer: &Mutex<Writer>, after: Option<&str>, limit: usize) -> Result<RowPage, SinkError> {
    let limit = limit.max(1);
    let unknown = |text: &str| SinkError::Refused(format!("\"{text}\" is no place in the rows of a CSV directory"));
    let mut after = after.map(|text| Position::parse(text).ok_or_else(|| unknown(text))).transpose()?;
    let root = lock(writer).root.clone();
    let mut dirs = partition::list_all(&root)?;
    dirs.sort_unstable();
    let (mut rows, mut doubles): (Vec<Row>, usize) = (Vec::new(), 0);
    for dir in dirs {
        if after.as_ref().is_some_and(|after| dir < after.dir) {
            continue;
        }
        let (files, index) = open(&mut lock(writer), dir)?;
        for start in index.starts() {
            let here = after.as_ref().filter(|after| after.dir == dir);
            if here.is_some_and(|after| start < after.start) {
                continue;
            }
            let here = here.filter(|after| after.start == start);
            for row in bucket(&files, &index, start, here, (limit - rows.len(), DOUBLES_AT_ONCE - doubles))? {
                doubles += row.state.doubles();
                rows.push(row);
            }
            if rows.len() == limit || doubles >= DOUBLES_AT_ONCE {
                let next = rows.last().map(|row| Position::of(dir, row).to_string());
                return Ok(RowPage { rows, next });
            }
        }
        // Nothing of it is asked for again.
        lock(writer).forget(dir);
        after = None;
    }
    Ok(RowPage { rows, next: None })
}

/// The files of a directory and the index that is true of them.
fn open(writer: &mut Writer, dir: DateDir) -> Result<(Files, Index), SinkError> {
    let index = writer.load(dir)?.clone();
    Ok((Files::open(&dir.path(&writer.root), dir.period)?, index))
}

/// The newest versions of the rows that start at `start`, from behind `after`, at most as many rows and doubles as there
/// is room for.
fn bucket(
    files: &Files,
    index: &Index,
    start: Millis,
    after: Option<&Position>,
    (rows, doubles): (usize, usize),
) -> Result<impl Iterator<Item = Row>, SinkError> {
    let first = RefCell::new(Newest::first(rows, doubles));
    files.read(
        &index.lines(start, start + 1, 0),
        |source| {
            let first = first.borrow();
            let begun = after.is_none_or(|after| *after.source <= *source);
            begun && (!first.is_full() || first.last().is_none_or(|last| *source <= *last.source))
        },
        |row| {
            if after.is_none_or(|after| after.is_before(&row)) {
                first.borrow_mut().put(row);
            }
        },
    )?;
    Ok(first.into_inner().into_rows())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back() {
        let check = |text: &str| assert_eq!(Position::parse(text).map(|p| p.to_string()).as_deref(), Some(text));
        check("1m 2026-11-20 1795132800000 1795132860000 kitchen");
        check("1mo 1969-12-31 -1 5  a  b ");
        for text in ["", "1m", "1m 2026-11-20 0 1", "7m 2026-11-20 0 1 a", "1m 2026-13-20 0 1 a", "1m 2026-11-20 x 1 a"]
        {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
