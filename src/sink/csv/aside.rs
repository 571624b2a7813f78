//! Lives that cannot be put together with their row, because their readings are of another length: they are set
//! aside in a file of their own, each with the reason.
//!
//! Called by `writer.rs`, before the write that brought them counts as done, and by `forget.rs`; they are then no longer the
//! rollover's to write. The file has the columns of the others behind the period and the reason; `state` holds
//! the exact sums. Lives that come again, in a later revision or after a crash, have one more line.

use super::disk::{self, Disk};
use super::line;
use crate::sink::{DOUBLES_AT_ONCE, SinkError, first_with};
use crate::stats::moments::Unlike;
use crate::stats::row::Row;
use crate::stats::{source, timestamp};
use std::io::Write;
use std::path::Path;

/// The column of the id.
const SOURCE: usize = 2;

/// In the directory of the sink.
pub(super) const FILE: &str = "dead_letters.csv";

/// Removes what was set aside of a source, durable when it returns.
pub(super) fn forget(disk: &Disk, root: &Path, source: &str) -> Result<(), SinkError> {
    let path = root.join(FILE);
    if disk::id(&path)?.is_none() {
        return Ok(());
    }
    let unreadable = |error: csv::Error| SinkError::Refused(format!("{}: {error}", path.display()));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(&path).map_err(unreadable)?;
    let (mut kept, mut found) = (Vec::new(), false);
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        if record.get(SOURCE).map(source::from_cell) == Some(source) {
            found = true;
        } else {
            line::push_record(&mut kept, &record);
        }
    }
    if found { disk::replace(disk, &path, |file| file.write_all(&kept)) } else { Ok(()) }
}

/// Appends rows, durable when it returns.
pub(super) fn put(disk: &Disk, root: &Path, refused: &[(Row, Unlike)]) -> Result<(), SinkError> {
    let Some((first, reason)) = refused.first() else { return Ok(()) };
    let path = root.join(FILE);
    let known = disk::id(&path)?;
    if known.is_some() {
        disk::repair(&path)?;
    }
    let mut known = disk::id(&path)?;
    let mut bytes = Vec::new();
    if known.is_none() {
        line::push_record(&mut bytes, ["period", "reason"].into_iter().chain(line::COLUMNS));
    }
    let mut left = refused;
    while !left.is_empty() {
        let (some, rest) = left.split_at(first_with(left, DOUBLES_AT_ONCE, |(row, _)| row.state.doubles()));
        for (row, unlike) in some {
            let (period, reason) = (row.bucket.period.to_string(), unlike.to_string());
            let cells = line::cells(row);
            line::push_record(&mut bytes, [&*period, &*reason].into_iter().chain(cells.iter().map(String::as_str)));
        }
        known = Some(disk::append(disk, &path, known, &bytes)?);
        bytes.clear();
        left = rest;
    }
    disk::sync(disk, &path)?;
    disk::sync_dir(root)?;
    tracing::error!(
        source = &*first.source, period = %first.bucket.period, start = timestamp::format(first.bucket.start), %reason,
        "a life cannot be added to its row: it is set aside in {FILE}, the others go on (only the first of this \
         write is named)"
    );
    Ok(())
}
