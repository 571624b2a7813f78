//! Removes directories whose rows are no longer kept, and keeps `sources.csv` true.
//!
//! Called by `csv.rs`, not beside a compaction; holds the writer only to look and to take a directory
//! away. Every step leaves files that a start understands: the directory gets a name that nobody
//! reads, its files go, `sources.csv` is written without it, the empty directory goes. As long as
//! there is such a directory, a start does not believe `sources.csv` and makes it anew from all rows
//! (`recover` in `csv.rs`); what failed of it is tried again by the next call. A source's first and last row are sought among the rows that are left only
//! where it was in this directory; a source without rows leaves the catalogue. Where rows cannot be read
//! a source stays known for as long as it may have one there.

use super::catalogue::{Catalogue, Span};
use super::disk::{self, Disk};
use super::index::{Files, Index};
use super::partition::{self, DateDir};
use super::writer::Writer;
use super::{SOURCES_FILE, lock};
use crate::sink::SinkError;
use crate::stats::Millis;
use crate::stats::calendar::Period;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Removes the oldest directory with rows all of whose buckets end at or before `before`; returns how
/// many rows it had, 0 if there is none.
pub(super) fn retain(writer: &Mutex<Writer>, period: Period, before: Millis) -> Result<usize, SinkError> {
    let (root, zone) = {
        let writer = lock(writer);
        (writer.root.clone(), writer.zone.clone())
    };
    // Otherwise a date that was made again could not get the name it has.
    let mut stays = finish_begun(writer, &root);
    for dir in partition::list(&root, period)?.into_iter().take_while(|dir| dir.end(&zone) <= before) {
        match remove(writer, &root, dir) {
            Ok(0) => {}
            // What cannot be read is not thrown away, and keeps nothing else.
            Err(error) => stays = stays.and(Err(error)),
            removed => return removed,
        }
    }
    stays.map(|()| 0)
}

/// Ends removals that an earlier call could not end.
fn finish_begun(writer: &Mutex<Writer>, root: &Path) -> Result<(), SinkError> {
    if partition::list_set_aside(root)?.is_empty() {
        return Ok(());
    }
    let (disk, sources) = {
        let writer = lock(writer);
        (writer.disk, writer.catalogue.to_bytes())
    };
    finish(&disk, root, &sources)
}

fn remove(writer: &Mutex<Writer>, root: &Path, dir: DateDir) -> Result<usize, SinkError> {
    lock(writer).added = Some(Catalogue::default());
    let looked = look(writer, dir);
    let (disk, rows, sources) = {
        let mut writer = lock(writer);
        let added = writer.added.take().unwrap_or_default();
        let doomed = looked?;
        take_away(&mut writer, dir, &doomed, &added)?;
        (writer.disk, doomed.rows, writer.catalogue.to_bytes())
    };
    // The rows are gone. What is left of their files the next call finds, and says why if it stays.
    let _ = finish(&disk, root, &sources);
    Ok(rows)
}

/// Takes a directory from readers and from the catalogue; `added` since the look is in no file it read.
pub(super) fn take_away(
    writer: &mut Writer,
    dir: DateDir,
    doomed: &Doomed,
    added: &Catalogue,
) -> Result<(), SinkError> {
    let path = dir.path(&writer.root);
    if !doomed.index.is_current(&path)? {
        return Err(SinkError::Unavailable(format!("{} was changed while it was removed", path.display())));
    }
    partition::set_aside(&writer.root, dir)?;
    writer.drop_dir(dir);
    for (source, span) in &doomed.spans {
        writer.catalogue.set(source, *span);
    }
    writer.catalogue.merge(added);
    Ok(())
}

/// Ends every removal that was begun: first the files, since on a full disk nothing can be written
/// before they are gone. A file that cannot be removed keeps its directory and no other.
pub(super) fn finish(disk: &Disk, root: &Path, sources: &[u8]) -> Result<(), SinkError> {
    let (mut emptied, mut stays) = (Vec::new(), Ok(()));
    for dir in partition::list_set_aside(root)? {
        match empty(disk, &dir) {
            Ok(()) => emptied.push(dir),
            Err(error) => stays = stays.and(Err(error)),
        }
    }
    disk::replace(disk, &root.join(SOURCES_FILE), |file| file.write_all(sources))?;
    for dir in &emptied {
        // Of a directory that stands elsewhere only the link.
        fs::remove_dir_all(dir).map_err(|error| disk::unavailable("remove", dir, &error))?;
    }
    stays
}

/// Removes what is in a directory, as much of it as can be.
fn empty(disk: &Disk, dir: &Path) -> Result<(), SinkError> {
    let mut stays = Ok(());
    for path in partition::names(dir)?.iter().map(|name| dir.join(name)) {
        if let Err(error) = (disk.remove)(&path) {
            stays = stays.and(Err(disk::unavailable("remove", &path, &error)));
        }
    }
    stays
}

/// A directory that is to go.
pub(super) struct Doomed {
    index: Index,
    rows: usize,
    spans: SpansLeft,
}

/// What the catalogue will say of the sources whose first or last row goes; `None` where no row is left.
type SpansLeft = Vec<(Arc<str>, Option<Span>)>;

pub(super) fn look(writer: &Mutex<Writer>, dir: DateDir) -> Result<Doomed, SinkError> {
    let root = lock(writer).root.clone();
    let files = Files::open(&dir.path(&root), dir.period)?;
    let (mut own, mut rows) = (Catalogue::default(), 0);
    let index = Index::scan(&files, |source, start| {
        own.add(source, start);
        rows += 1;
    })?;
    if index.tail.is_some() {
        // Lines are not rows.
        rows = 0;
        for start in index.starts() {
            rows += files.known(&index, start)?.0.len();
        }
    }
    let mut others = partition::list_all(&root)?;
    others.retain(|other| *other != dir);
    Ok(Doomed { index, rows, spans: spans_left(writer, &own, &others)? })
}

/// What is left of the sources whose first or last row is in `own`, going by the other directories.
fn spans_left(writer: &Mutex<Writer>, own: &Catalogue, others: &[DateDir]) -> Result<SpansLeft, SinkError> {
    let (mut up, mut down) = (HashMap::new(), HashMap::new());
    let mut spans = Vec::new();
    {
        let writer = lock(writer);
        for (source, (own_first, own_last)) in own.iter() {
            let (first, last) = writer.catalogue.get(source).unwrap_or((*own_first, *own_last));
            let (first_goes, last_goes) = (*own_first <= first, last <= *own_last);
            if first_goes {
                up.insert(Arc::clone(source), (first, last));
            }
            if last_goes {
                down.insert(Arc::clone(source), (-last, -first));
            }
            if first_goes || last_goes {
                spans.push((Arc::clone(source), (first, last), (first_goes, last_goes)));
            }
        }
    }
    let (firsts, lasts) = (nearest(writer, others, up, 1)?, nearest(writer, others, down, -1)?);
    let left = |(source, (first, last), (first_goes, last_goes)): (Arc<str>, Span, (bool, bool))| {
        let first = if first_goes { firsts.get(&source).copied() } else { Some(first) };
        let last = if last_goes { lasts.get(&source).map(|last| -last) } else { Some(last) };
        (source, first.zip(last))
    };
    Ok(spans.into_iter().map(left).collect())
}

/// The start of the first row of each source in one direction of time, 1 or -1, all times multiplied
/// by it. No row of a source lies outside of its span. Reads no further than it must.
fn nearest(
    writer: &Mutex<Writer>,
    dirs: &[DateDir],
    mut sought: HashMap<Arc<str>, Span>,
    direction: Millis,
) -> Result<HashMap<Arc<str>, Millis>, SinkError> {
    let begin = sought.values().map(|(from, _)| *from).min().unwrap_or(Millis::MAX);
    let zone = lock(writer).zone.clone();
    let ends = |dir: &DateDir| {
        let partition = dir.partition(&zone);
        let ends = [direction * partition.from, direction * (partition.to - 1)];
        (ends[0].min(ends[1]), ends[0].max(ends[1]), *dir)
    };
    let mut ahead: Vec<(Millis, Millis, DateDir)> = dirs.iter().map(ends).filter(|(_, far, _)| *far >= begin).collect();
    ahead.sort_unstable();
    let mut found: HashMap<Arc<str>, Millis> = HashMap::new();
    for (near, far, dir) in ahead {
        sought.retain(|source, (_, to)| near <= *to && found.get(source).is_none_or(|at| near < *at));
        if sought.is_empty() {
            break;
        }
        let (files, lines) = lock(writer).view(dir, Millis::MIN, Millis::MAX)?;
        let read = files.read(
            &lines,
            |source| sought.contains_key(source),
            |row| {
                let at = direction * row.bucket.start;
                found.entry(row.source).and_modify(|nearest| *nearest = at.min(*nearest)).or_insert(at);
            },
        );
        match read {
            Ok(()) => {}
            // Nobody knows what is there. To keep all other dates for it would fill the disk; so a source
            // whose rows may be there is taken to have one as near as can be.
            Err(error @ SinkError::Refused(_)) => {
                lock(writer).log_unread(dir, &error);
                for (source, (from, _)) in sought.iter().filter(|(_, (from, _))| *from <= far) {
                    let at = near.max(*from);
                    found.entry(Arc::clone(source)).and_modify(|nearest| *nearest = at.min(*nearest)).or_insert(at);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
