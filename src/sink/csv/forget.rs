//! Takes a source out of the files: each directory that holds it is written anew without it.
//!
//! Called by `csv.rs`, never beside a compaction. A directory is rewritten as `compact.rs` does it, so
//! that a crash leaves the old files or the new; the catalogue forgets the source last: cut off at any
//! point, the source is still known, and to forget it again goes on. What was torn off a file by a
//! crash (`*.torn`) is left alone.

use super::aside;
use super::compact::{self, begin_in, write_new};
use super::disk;
use super::partition::{self, DateDir};
use super::writer::Writer;
use super::{SOURCES_FILE, lock};
use crate::sink::SinkError;
use crate::stats::Millis;
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::sync::Mutex;

/// How often a directory is written anew that somebody appends to meanwhile; nobody should.
const ATTEMPTS: usize = 3;

/// Removes all rows of a source; returns how many there were.
pub(super) fn forget(writer: &Mutex<Writer>, source: &str) -> Result<usize, SinkError> {
    let (root, zone, span) = {
        let writer = lock(writer);
        (writer.root.clone(), writer.zone.clone(), writer.catalogue.get(source))
    };
    let Some((first, last)) = span else { return Ok(0) };
    let mut rows = 0;
    for dir in partition::list_all(&root)? {
        let times = dir.partition(&zone);
        if times.from <= last && first < times.to {
            rows += forget_in(writer, dir, source)?;
        }
    }
    let mut writer = lock(writer);
    aside::forget(&writer.disk, &root, source)?;
    writer.catalogue.remove(source);
    let bytes = writer.catalogue.to_bytes();
    let written = disk::replace(&writer.disk, &root.join(SOURCES_FILE), |file| file.write_all(&bytes));
    if written.is_err() {
        // Known as long as the file knows it.
        writer.catalogue.add(source, first);
        writer.catalogue.add(source, last);
    }
    written.map(|()| rows)
}

/// The same in one directory.
fn forget_in(writer: &Mutex<Writer>, dir: DateDir, source: &str) -> Result<usize, SinkError> {
    let mut before = None;
    for _ in 0..ATTEMPTS {
        let left = count(writer, dir, source)?;
        let before = *before.get_or_insert(left);
        if left == 0 {
            return Ok(before);
        }
        let work = begin_in(writer, dir)?;
        let kept = write_new(&work, |id| id != source)?;
        let mut writer = lock(writer);
        compact::finish(&mut writer, &work)?;
        if kept == 0 && !writer.tails.contains(&dir) {
            remove(&mut writer, dir)?;
        }
    }
    let path = dir.path(&lock(writer).root);
    Err(SinkError::Unavailable(format!("{} is written to while a source is taken out of it", path.display())))
}

/// How many rows of a source a directory has.
fn count(writer: &Mutex<Writer>, dir: DateDir, source: &str) -> Result<usize, SinkError> {
    let (files, lines) = lock(writer).view(dir, Millis::MIN, Millis::MAX)?;
    let mut rows = HashSet::new();
    files.read(&lines, |id| id == source, |row| _ = rows.insert(row.bucket))?;
    Ok(rows.len())
}

/// Removes a directory without rows; what else a person has put there keeps it.
fn remove(writer: &mut Writer, dir: DateDir) -> Result<(), SinkError> {
    writer.drop_dir(dir);
    let path = dir.path(&writer.root);
    disk::remove(&path.join(super::index::Part::Rows.file_name()))?;
    let _ = fs::remove_dir(&path);
    Ok(())
}
