//! The one writer of the CSV sink: decides which lives, or rows of another sink, need a line, appends
//! the lines, and knows where every line of the directories in use stands.
//!
//! Held behind a mutex by `csv.rs`. Guarantees that what it reports as written or as the same is on
//! the disk: a file it has not synced itself is synced before it is believed. After any failure it
//! forgets what it knew of the directories and reads them again. How a write gets to the disk is in
//! `unsynced.rs`; moving a directory into its final form in `compact.rs`, removing it in `retain.rs`.

use super::SOURCES_FILE;
use super::aside;
use super::catalogue::Catalogue;
use super::disk::{self, Disk};
use super::holes;
use super::index::{Files, Index, Known, Lines, Part, SEEK_GAP, is_large};
use super::line;
use super::offer::Offer;
use super::partition::DateDir;
use super::recent::{BucketRows, Recent};
use super::unsynced::Unsynced;
use crate::failpoint;
use crate::mutant;
use crate::sink::{DOUBLES_AT_ONCE, SinkError, WriteReport};
use crate::stats::Millis;
use crate::stats::calendar::{Period, Zone};
use crate::stats::moments::{Moments, Unlike};
use crate::stats::row::{Row, Update};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// Directories whose index is kept: the open day of every period, days around them, and those an
/// import or late readings touch, or a copy that comes source by source.
const LOADED_DIRS: usize = 64;
/// Buckets in the indexes that are kept, some 60 MB: four days of `1s`, and more than 64 of `1m`.
const LOADED_BUCKETS: usize = 400_000;

/// Rows appended at once: some 4 MB of lines in memory; of large ones `DOUBLES_AT_ONCE`.
const ROWS_PER_APPEND: usize = 10_000;

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) root: PathBuf,
    pub(super) zone: Zone,
    pub(super) disk: Disk,
    pub(super) catalogue: Catalogue,
    /// What was appended since a removal began to look through the files.
    pub(super) added: Option<Catalogue>,
    /// Directories with a tail: not in their final form.
    pub(super) tails: BTreeSet<DateDir>,
    /// Directories that could not be read for their sources, as it was logged.
    unread: BTreeSet<DateDir>,
    loaded: HashMap<DateDir, (u64, Index)>,
    /// Rises with every use of an index.
    uses: u64,
    recent: Recent,
    /// Tails whose fsync failed, with the length that is to be kept.
    suspects: HashMap<DateDir, u64>,
    /// Rows read back from files to decide about a life: corrections and restarts only.
    pub(super) read_back: usize,
}

impl Writer {
    pub(super) fn new(root: PathBuf, zone: Zone) -> Self {
        Self {
            root,
            zone,
            disk: Disk::REAL,
            catalogue: Catalogue::default(),
            added: None,
            tails: BTreeSet::new(),
            unread: BTreeSet::new(),
            loaded: HashMap::new(),
            uses: 0,
            recent: Recent::default(),
            suspects: HashMap::new(),
            read_back: 0,
        }
    }

    /// Brings lives of the store, or whole rows of another sink.
    pub(super) fn write<T: Offer>(&mut self, mut offers: Vec<T>) -> Result<WriteReport, SinkError> {
        fn place<T: Offer>(offer: &T) -> (Period, Millis) {
            (offer.bucket().period, offer.bucket().start)
        }
        // In place, and cut where they stand: a second copy would be as large as all of them.
        offers.sort_by(|a, b| (place(a), a.source()).cmp(&(place(b), b.source())));
        let zone = self.zone.clone();
        let dir_of = |offer: &T| DateDir::of(offer.bucket(), &zone);
        let groups = || offers.chunk_by(|a, b| place(a) == place(b) || dir_of(a) == dir_of(b));
        // What was appended before something failed is synced when it is read again.
        self.write_all(groups().map(|offers| (dir_of(&offers[0]), offers)))
            .inspect_err(|_| groups().for_each(|offers| self.forget(dir_of(&offers[0]))))
    }

    /// Appends to all directories, then makes it durable.
    fn write_all<'o, T: Offer + 'o>(
        &mut self,
        groups: impl Iterator<Item = (DateDir, &'o [T])>,
    ) -> Result<WriteReport, SinkError> {
        let (mut report, mut unsynced) = (WriteReport::default(), Unsynced::default());
        let mut refused = Vec::new();
        for (dir, offers) in groups {
            let written = self.write_dir(dir, offers, &mut unsynced, &mut refused)?;
            report.written += written.written;
            report.same += written.same;
            report.older += written.older;
        }
        unsynced.sync(&self.disk, &self.root).map_err(|failed| {
            self.suspects.extend(failed.suspects);
            failed.error
        })?;
        failpoint::pass("rows-synced");
        aside::put(&self.disk, &self.root, &refused)?;
        report.refused = refused.len();
        Ok(report)
    }

    /// Appends what belongs into one directory, ordered by start.
    fn write_dir<T: Offer>(
        &mut self,
        dir: DateDir,
        offers: &[T],
        unsynced: &mut Unsynced,
        refused: &mut Vec<(Row, Unlike)>,
    ) -> Result<WriteReport, SinkError> {
        self.load(dir)?;
        let mut report = WriteReport::default();
        let (mut rows, mut doubles): (Vec<Row>, usize) = (Vec::new(), 0);
        for same_start in offers.chunk_by(|a, b| a.bucket().start == b.bucket().start) {
            let start = same_start[0].bucket().start;
            let mut held = self.held(dir, start)?;
            if held.is_empty() {
                // Growing holds the old table and the new one at a time.
                held.reserve(same_start.len());
            }
            for offer in same_start {
                let key = (Arc::clone(offer.source()), offer.bucket().end);
                match self.update(dir, offer, held.get(&key))? {
                    Update::Same => report.same += 1,
                    Update::Older => {
                        report.older += 1;
                        if report.older == 1 {
                            offer.log_older();
                        }
                    }
                    Update::Unlike(unlike) => refused.push((offer.alone(), unlike)),
                    Update::Write(mut row) => {
                        report.written += 1;
                        row.base = row.base.filter(|_| !mutant::is(mutant::BASE_NOT_STORED));
                        doubles += row.state.doubles();
                        rows.push(row.clone());
                        held.insert(key, Known::Row(row));
                        if rows.len() == ROWS_PER_APPEND || doubles >= DOUBLES_AT_ONCE {
                            doubles = 0;
                            self.append(dir, &mut rows, &mut held, unsynced)?;
                        }
                    }
                }
            }
            if rows.iter().any(is_large) {
                doubles = 0;
                self.append(dir, &mut rows, &mut held, unsynced)?;
            }
            self.recent.put(dir, start, held);
        }
        if !rows.is_empty() {
            self.append(dir, &mut rows, &mut BucketRows::new(), unsynced)?;
        }
        Ok(report)
    }

    /// What becomes of the row the directory has. One that is not held is read only if its version does not say that.
    fn update<T: Offer>(&mut self, dir: DateDir, offer: &T, held: Option<&Known>) -> Result<Update, SinkError> {
        let (version, line) = match held {
            None => return Ok(offer.update(None)),
            Some(Known::Row(row)) => return Ok(offer.update(Some(row))),
            Some(Known::Line { version, line }) => (*version, line),
        };
        let (generation, gen_count, revision) = version;
        let bare = Row { generation, gen_count, revision, base: None, state: Moments::EMPTY, ..offer.alone() };
        match offer.update(Some(&bare)) {
            known @ (Update::Same | Update::Older) => Ok(known),
            Update::Write(_) | Update::Unlike(_) => {
                self.read_back += 1;
                Ok(offer.update(Some(&Files::open(&dir.path(&self.root), dir.period)?.row(line)?)))
            }
        }
    }

    /// The newest rows of the buckets with this start.
    fn held(&mut self, dir: DateDir, start: Millis) -> Result<BucketRows, SinkError> {
        if let Some(rows) = self.recent.take(dir, start) {
            return Ok(rows);
        }
        let index = &self.loaded[&dir].1;
        if !index.has(start) {
            return Ok(BucketRows::new());
        }
        let files = Files::open(&dir.path(&self.root), dir.period)?;
        let (known, read) = files.known(index, start)?;
        self.read_back += read;
        Ok(known.into_iter().collect())
    }

    /// Appends rows, ordered by start, to the tail of a loaded directory. Of large ones only where they stand is held
    /// then; these are all in `held`.
    fn append(
        &mut self,
        dir: DateDir,
        rows: &mut Vec<Row>,
        held: &mut BucketRows,
        unsynced: &mut Unsynced,
    ) -> Result<(), SinkError> {
        let path = dir.path(&self.root);
        let index = &mut self.loaded.get_mut(&dir).expect("loaded before").1;
        let good = index.tail.map_or(0, |tail| tail.len);
        let mut bytes = Vec::new();
        if good == 0 {
            fs::create_dir_all(&path).map_err(|error| disk::unavailable("create", &path, &error))?;
            line::push_header(&mut bytes);
        }
        let mut ends = Vec::with_capacity(rows.len());
        let mut at = good + bytes.len() as u64;
        for row in &*rows {
            line::push(&mut bytes, row);
            ends.push(good + bytes.len() as u64);
        }
        index.tail = Some(disk::append(&self.disk, &path.join(Part::Tail.file_name()), index.tail, &bytes)?);
        unsynced.add(dir, good);
        for (row, &end) in rows.iter().zip(&ends) {
            index.add(row.bucket.start, Part::Tail, at..end);
            if is_large(row) {
                let line = Lines { part: Part::Tail, bytes: at..end };
                let key = (Arc::clone(&row.source), row.bucket.end);
                held.insert(key, Known::Line { version: row.version(), line });
            }
            self.catalogue.add(&row.source, row.bucket.start);
            if let Some(added) = &mut self.added {
                added.add(&row.source, row.bucket.start);
            }
            at = end;
        }
        self.tails.insert(dir);
        rows.clear();
        Ok(())
    }

    /// Makes sure that the index of a directory is loaded and true, and that the files are durable.
    pub(super) fn load(&mut self, dir: DateDir) -> Result<&Index, SinkError> {
        let path = dir.path(&self.root);
        let tail = path.join(Part::Tail.file_name());
        if let Some(&good) = self.suspects.get(&dir) {
            if disk::id(&tail)?.is_some() {
                disk::renew(&self.disk, &tail, good)?;
            }
            self.suspects.remove(&dir);
        }
        let current = match self.loaded.get(&dir) {
            Some((_, index)) => index.is_current(&path)?,
            None => false,
        };
        if !current {
            self.forget(dir);
            disk::repair(&tail)?;
            holes::mend(&self.disk, &tail)?;
            let files = Files::open(&path, dir.period)?;
            self.sync_found(dir, &files)?;
            let index = Index::scan(&files, |source, start| self.catalogue.add(source, start))?;
            if index.tail.is_some() {
                self.tails.insert(dir);
            } else {
                self.tails.remove(&dir);
            }
            self.keep(dir, index);
        }
        self.uses += 1;
        let (used, index) = self.loaded.get_mut(&dir).expect("loaded above");
        *used = self.uses;
        Ok(index)
    }

    /// Syncs what an earlier process may have written and not synced before it died.
    fn sync_found(&mut self, dir: DateDir, files: &Files) -> Result<(), SinkError> {
        if let Some(tail) = files.tail()
            && let Err(error) = (self.disk.sync)(&tail.file)
        {
            self.suspects.insert(dir, tail.id.len);
            return Err(disk::unavailable("sync", &tail.path, &error));
        }
        if files.is_empty() { Ok(()) } else { self.sync_dirs(dir) }
    }

    /// Makes the names on the way to the files of a directory durable.
    fn sync_dirs(&self, dir: DateDir) -> Result<(), SinkError> {
        let path = dir.path(&self.root);
        path.ancestors().take(3).try_for_each(disk::sync_dir)
    }

    /// Keeps an index, in the place of those that were not used for longest.
    fn keep(&mut self, dir: DateDir, index: Index) {
        let mut held: usize = self.loaded.values().map(|(_, index)| index.len()).sum();
        while (self.loaded.len() >= LOADED_DIRS || held + index.len() > LOADED_BUCKETS)
            && let Some(&idle) = self.loaded.iter().min_by_key(|(_, (used, _))| used).map(|(dir, _)| dir)
        {
            held -= self.loaded.remove(&idle).map_or(0, |(_, index)| index.len());
        }
        self.loaded.insert(dir, (self.uses, index));
    }

    /// Directories whose index is held.
    #[cfg(test)]
    pub(super) fn loaded(&self) -> usize {
        self.loaded.len()
    }

    /// Drops what is known of a directory; the files are read again when it is next touched.
    pub(super) fn forget(&mut self, dir: DateDir) {
        self.loaded.remove(&dir);
        self.recent.forget(dir);
    }

    /// Drops everything about a directory that goes.
    pub(super) fn drop_dir(&mut self, dir: DateDir) {
        self.forget(dir);
        self.tails.remove(&dir);
        self.suspects.remove(&dir);
    }

    /// Says once why a directory cannot be read, where that keeps nothing from going on.
    pub(super) fn log_unread(&mut self, dir: DateDir, error: &SinkError) {
        if self.unread.insert(dir) {
            tracing::error!(
                "{error} (sources that may have rows there stay listed; once it is mended, delete {SOURCES_FILE} while \
                 the service is stopped, and it is made anew)"
            );
        }
    }

    /// The files of a directory as they are now, and the lines of the buckets that start in
    /// `[from, to)`, among others.
    pub(super) fn view(&self, dir: DateDir, from: Millis, to: Millis) -> Result<(Files, Vec<Lines>), SinkError> {
        let path = dir.path(&self.root);
        let files = Files::open(&path, dir.period)?;
        let lines = match self.loaded.get(&dir) {
            Some((_, index)) if index.is_of(&files) => index.lines(from, to, SEEK_GAP),
            _ => files.all()?,
        };
        Ok((files, lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::Period;
    use jiff::ToSpan;
    use jiff::civil::date;

    /// Keeps one index after the other of so many buckets; how many are held at the end.
    fn check(dirs: i64, buckets: Millis, expected: usize) {
        let mut writer = Writer::new(PathBuf::new(), Zone::utc());
        let dir =
            |n: i64| DateDir { period: Period::Seconds(1), date: date(2026, 1, 1).checked_add(n.days()).unwrap() };
        for n in 0..dirs {
            let mut index = Index::default();
            (0..buckets).for_each(|start| index.add(start, Part::Tail, 0..1));
            writer.uses += 1;
            writer.keep(dir(n), index);
        }
        assert_eq!(writer.loaded.len(), expected, "{dirs} of {buckets}");
        let newest = (0..dirs).rev().take(expected);
        assert!(newest.map(dir).all(|dir| writer.loaded.contains_key(&dir)), "{dirs} of {buckets}");
    }

    #[test]
    fn indexes_are_bounded_in_number_and_in_size() {
        check(3, 10, 3);
        check(66, 1_440, LOADED_DIRS);
        check(6, 86_400, 4);
        check(2, 400_001, 1);
    }
}
