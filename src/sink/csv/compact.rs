//! Brings a directory into its final form: `rows.csv` with one line per row, and no tail.
//!
//! Called by `csv.rs`, one directory at a time, and by `forget.rs` to leave a source out; holds the writer only to look and to put the new
//! file in its place, and needs the memory of one bucket, without its large rows, and one index. Every step leaves files
//! whose newest versions are right: `sources.csv` is brought up to date, the new `rows.csv` is
//! durable under another name, it takes its name, only then the tail goes. What was appended
//! meanwhile stays in the tail, and the directory is compacted again.

use super::disk::{self, Disk};
use super::index::{Files, Index, Known, Part};
use super::line;
use super::partition::DateDir;
use super::writer::Writer;
use super::{SOURCES_FILE, lock};
use crate::failpoint;
use crate::sink::{Partition, SinkError};
use crate::stats::Millis;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Mutex;

/// Bytes of lines, some of numbers and one of a long vector, that are written when there are so many.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// What is compacted, as it was when the compaction began.
pub(super) struct Work {
    dir: DateDir,
    path: PathBuf,
    index: Index,
    files: Files,
    disk: Disk,
}

impl Work {
    fn next(&self) -> PathBuf {
        disk::temporary(&self.path.join(Part::Rows.file_name()))
    }

    /// Writes the lines of the buckets that start at `start`, of the sources that are to be kept; returns how many.
    fn copy(
        &self,
        start: Millis,
        keep: &impl Fn(&str) -> bool,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<usize>, SinkError> {
        let (mut bytes, mut kept) = (Vec::new(), 0);
        for ((source, _), known) in self.files.known(&self.index, start)?.0 {
            if !keep(&source) {
                continue;
            }
            kept += 1;
            match known {
                Known::Row(row) => line::push(&mut bytes, &row),
                Known::Line { line, .. } => line::push(&mut bytes, &self.files.row(&line)?),
            }
            if bytes.len() >= WRITTEN_AT_ONCE {
                if let Err(error) = write(&bytes) {
                    return Ok(Err(error));
                }
                bytes.clear();
            }
        }
        Ok(write(&bytes).map(|()| kept))
    }
}

/// Compacts a partition; nothing happens if it has no tail. Not to be called for two at a time.
pub(super) fn compact(writer: &Mutex<Writer>, partition: &Partition) -> Result<(), SinkError> {
    let Some(work) = begin(writer, partition)? else { return Ok(()) };
    write_new(&work, |_| true)?;
    finish(&mut lock(writer), &work)
}

pub(super) fn begin(writer: &Mutex<Writer>, partition: &Partition) -> Result<Option<Work>, SinkError> {
    let found = {
        let writer = lock(writer);
        writer.tails.iter().find(|dir| dir.partition(&writer.zone) == *partition).copied()
    };
    let Some(dir) = found else { return Ok(None) };
    Ok(Some(begin_in(writer, dir)?).filter(|work| work.index.tail.is_some()))
}

/// Looks at a directory that is to be written anew.
pub(super) fn begin_in(writer: &Mutex<Writer>, dir: DateDir) -> Result<Work, SinkError> {
    let (work, sources, root) = {
        let mut writer = lock(writer);
        let index = writer.load(dir)?.clone();
        let path = dir.path(&writer.root);
        let files = Files::open(&path, dir.period)?;
        let work = Work { dir, path, index, files, disk: writer.disk };
        let sources = work.index.tail.is_some().then(|| writer.catalogue.to_bytes());
        (work, sources, writer.root.clone())
    };
    if let Some(sources) = sources {
        disk::replace(&work.disk, &root.join(SOURCES_FILE), |file| file.write_all(&sources))?;
    }
    Ok(work)
}

/// Writes the new `rows.csv` under its temporary name, bucket by bucket, with the rows of the sources
/// that are to be kept; returns how many.
pub(super) fn write_new(work: &Work, keep: impl Fn(&str) -> bool) -> Result<usize, SinkError> {
    let mut unreadable = None;
    let mut kept = 0;
    let written = disk::create(&work.disk, &work.next(), |file| {
        let mut out = BufWriter::new(file);
        let mut header = Vec::new();
        line::push_header(&mut header);
        out.write_all(&header)?;
        for start in work.index.starts() {
            match work.copy(start, &keep, |bytes| out.write_all(bytes)) {
                Ok(rows) => kept += rows?,
                Err(error) => {
                    unreadable = Some(error);
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        out.flush()
    });
    written.map_err(|error| unreadable.unwrap_or(error))?;
    Ok(kept)
}

/// Puts the new file in its place, and removes the tail unless it has grown.
pub(super) fn finish(writer: &mut Writer, work: &Work) -> Result<(), SinkError> {
    let (rows, tail) = (work.path.join(Part::Rows.file_name()), work.path.join(Part::Tail.file_name()));
    writer.forget(work.dir);
    if disk::id(&rows)? != work.index.rows {
        return Err(SinkError::Unavailable(format!("{} was changed while it was compacted", rows.display())));
    }
    disk::rename(&work.next(), &rows)?;
    failpoint::pass("compacted");
    if work.index.tail.is_some() && disk::id(&tail)? == work.index.tail {
        disk::remove(&tail)?;
        writer.tails.remove(&work.dir);
    }
    Ok(())
}
