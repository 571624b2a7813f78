//! Where the lines of each bucket stand in the two files of a directory, and reading them.
//!
//! `writer.rs` keeps the indexes of the directories in use and extends them as it appends; `csv.rs`
//! and `compact.rs` read rows through them. `rows.csv` is compacted, `tail.csv` takes what comes; a
//! row may stand in both and several times, and [`Newest`] decides. A file that cannot be read names
//! itself and the place: nothing is skipped in silence.

use super::disk::{self, FileId, Opened};
use super::line;
use crate::sink::SinkError;
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::row::Row;
use ::csv::{ByteRecord, ErrorKind, ReaderBuilder, Terminator};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Reading through as much is cheaper than another seek; for many buckets in one go, else every
/// bucket of a scattered file would read all of it.
pub(super) const SEEK_GAP: u64 = 16 * 1024;
const READ_BUFFER: u64 = 64 * 1024;

/// One of the two files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Rows,
    Tail,
}

impl Part {
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Rows => "rows.csv",
            Self::Tail => "tail.csv",
        }
    }
}

/// Some lines of one file, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) part: Part,
    pub(super) bytes: Range<u64>,
}

/// The lines of a directory by the start of their bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    /// The files it is true of; `None` if there is none.
    pub(super) rows: Option<FileId>,
    pub(super) tail: Option<FileId>,
    buckets: BTreeMap<Millis, Vec<Lines>>,
}

impl Index {
    /// Reads the files once; `each` is told every line's source and start.
    pub(super) fn scan(files: &Files, mut each: impl FnMut(&str, Millis)) -> Result<Self, SinkError> {
        let mut index = Self { rows: files.id(Part::Rows), tail: files.id(Part::Tail), buckets: BTreeMap::new() };
        for (part, opened) in files.each() {
            records(opened, 0..opened.id.len, |bytes, record| {
                let start = line::start(record)?;
                each(line::source(record)?, start);
                index.add(start, part, bytes);
                Ok(())
            })?;
        }
        Ok(index)
    }

    /// Whether the files of the directory are those it was made from.
    pub(super) fn is_current(&self, dir: &Path) -> Result<bool, SinkError> {
        let same = |part: Part, known| Ok(disk::id(&dir.join(part.file_name()))? == known);
        Ok(same(Part::Rows, self.rows)? && same(Part::Tail, self.tail)?)
    }

    /// Whether these are the files it was made from.
    pub(super) fn is_of(&self, files: &Files) -> bool {
        self.rows == files.id(Part::Rows) && self.tail == files.id(Part::Tail)
    }

    /// Adds lines of a bucket that stand behind all others of the file.
    pub(super) fn add(&mut self, start: Millis, part: Part, bytes: Range<u64>) {
        let lines = self.buckets.entry(start).or_default();
        match lines.last_mut() {
            Some(last) if last.part == part && last.bytes.end == bytes.start => last.bytes.end = bytes.end,
            _ => lines.push(Lines { part, bytes }),
        }
    }

    /// Whether a bucket with this start was ever written.
    pub(super) fn has(&self, start: Millis) -> bool {
        self.buckets.contains_key(&start)
    }

    /// How many starts of buckets there are.
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// The starts of all buckets, in order.
    pub(super) fn starts(&self) -> impl Iterator<Item = Millis> {
        self.buckets.keys().copied()
    }

    /// The lines of the buckets that start in `[from, to)`, in the order of the files; with those of
    /// other buckets where they fill no more than `gap` bytes.
    pub(super) fn lines(&self, from: Millis, to: Millis, gap: u64) -> Vec<Lines> {
        if from >= to {
            return Vec::new();
        }
        let mut all: Vec<Lines> = self.buckets.range(from..to).flat_map(|(_, lines)| lines.iter().cloned()).collect();
        all.sort_unstable_by_key(|lines| (lines.part, lines.bytes.start));
        all.dedup_by(|next, last| {
            let near = next.part == last.part && next.bytes.start - last.bytes.end <= gap;
            if near {
                last.bytes.end = next.bytes.end;
            }
            near
        });
        all
    }
}

/// The files of a directory, opened: appending and compacting change nothing for who holds this.
#[derive(Debug)]
pub(super) struct Files {
    period: Period,
    rows: Option<Opened>,
    tail: Option<Opened>,
}

impl Files {
    pub(super) fn open(dir: &Path, period: Period) -> Result<Self, SinkError> {
        let open = |part: Part| disk::open(dir.join(part.file_name()));
        Ok(Self { period, rows: open(Part::Rows)?, tail: open(Part::Tail)? })
    }

    fn get(&self, part: Part) -> Option<&Opened> {
        match part {
            Part::Rows => self.rows.as_ref(),
            Part::Tail => self.tail.as_ref(),
        }
    }

    fn each(&self) -> impl Iterator<Item = (Part, &Opened)> {
        [Part::Rows, Part::Tail].into_iter().filter_map(|part| Some((part, self.get(part)?)))
    }

    fn id(&self, part: Part) -> Option<FileId> {
        self.get(part).map(|opened| opened.id)
    }

    pub(super) fn tail(&self) -> Option<&Opened> {
        self.tail.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_none() && self.tail.is_none()
    }

    /// All whole lines, headers included, for who has no index.
    pub(super) fn all(&self) -> Result<Vec<Lines>, SinkError> {
        self.each().map(|(part, opened)| Ok(Lines { part, bytes: 0..disk::whole_lines(opened)? })).collect()
    }

    /// Gives every row of these lines whose source is wanted.
    pub(super) fn read(
        &self,
        lines: &[Lines],
        wanted: impl Fn(&str) -> bool,
        mut each: impl FnMut(Row),
    ) -> Result<(), SinkError> {
        self.read_where(lines, wanted, |row, _| each(row))
    }

    /// The same, each with the line it stands in.
    fn read_where(
        &self,
        lines: &[Lines],
        wanted: impl Fn(&str) -> bool,
        mut each: impl FnMut(Row, Lines),
    ) -> Result<(), SinkError> {
        for Lines { part, bytes } in lines {
            let opened = self.get(*part).expect("an index is of the files it is used with");
            records(opened, bytes.clone(), |bytes, record| {
                if wanted(line::source(record)?) {
                    each(line::parse(self.period, record)?, Lines { part: *part, bytes });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What is known of the newest versions of the rows of the buckets with one start, and how many lines were read.
    pub(super) fn known(&self, index: &Index, start: Millis) -> Result<(KnownRows, usize), SinkError> {
        let (mut newest, mut read) = (KnownRows::new(), 0);
        self.read_where(
            &index.lines(start, start + 1, 0),
            |_| true,
            |row, line| {
                read += 1;
                let key = (Arc::clone(&row.source), row.bucket.end);
                if newest.get(&key).is_none_or(|held| row.version() > held.version()) {
                    newest.insert(key, Known::of(row, line));
                }
            },
        )?;
        Ok((newest, read))
    }

    /// All of the row in a line.
    pub(super) fn row(&self, line: &Lines) -> Result<Row, SinkError> {
        let mut found = None;
        self.read(std::slice::from_ref(line), |_| true, |row| found = Some(row))?;
        found.ok_or_else(|| SinkError::Unavailable("a line that was there is gone".to_owned()))
    }
}

/// States of more doubles, those of vectors of three numbers and more, are read back instead of held.
const HELD_DOUBLES: usize = 16;

/// The newest version of a row: all of it or, where its state is large, the line it stands in.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Row(Row),
    Line { version: (i64, f64, i64), line: Lines },
}

/// The newest rows of the buckets with one start, by source and end.
pub(super) type KnownRows = BTreeMap<(Arc<str>, Millis), Known>;

impl Known {
    pub(super) fn of(row: Row, line: Lines) -> Self {
        if is_large(&row) { Self::Line { version: row.version(), line } } else { Self::Row(row) }
    }

    pub(super) fn version(&self) -> (i64, f64, i64) {
        match self {
            Self::Row(row) => row.version(),
            Self::Line { version, .. } => *version,
        }
    }
}

/// Whether a row is not to be held.
pub(super) fn is_large(row: &Row) -> bool {
    row.state.doubles() > HELD_DOUBLES
}

/// Calls `each` with the place of every record in a part of a file, but for the header.
fn records(
    opened: &Opened,
    bytes: Range<u64>,
    mut each: impl FnMut(Range<u64>, &ByteRecord) -> Result<(), String>,
) -> Result<(), SinkError> {
    let mut file = &opened.file;
    let length = bytes.end - bytes.start;
    let unreadable = |error: &io::Error| disk::unavailable("read", &opened.path, error);
    file.seek(SeekFrom::Start(bytes.start)).map_err(|error| unreadable(&error))?;
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .terminator(Terminator::Any(b'\n'))
        .buffer_capacity(length.clamp(1, READ_BUFFER) as usize)
        .from_reader(file.take(length));
    let mut record = ByteRecord::new();
    loop {
        let from = bytes.start + reader.position().byte();
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => match error.into_kind() {
                ErrorKind::Io(error) => return Err(unreadable(&error)),
                other => return Err(broken(&opened.path, from, &format!("{other:?}"))),
            },
        }
        let to = bytes.start + reader.position().byte();
        if from == 0 {
            if record != line::COLUMNS[..] {
                return Err(broken(&opened.path, 0, "the header is not that of rows"));
            }
        } else {
            each(from..to, &record).map_err(|reason| broken(&opened.path, from, &reason))?;
        }
    }
}

fn broken(path: &Path, at: u64, reason: &str) -> SinkError {
    SinkError::Refused(format!(
        "{} is damaged at byte {at}: {reason}; restore the file from a copy, or remove that line",
        path.display()
    ))
}

/// The newest version of every row that was put in, ordered by (start, source); of many the first.
#[derive(Debug, Default)]
pub(super) struct Newest {
    rows: BTreeMap<Place, Row>,
    doubles: usize,
    /// As in a `RowQuery`.
    most_rows: usize,
    most_doubles: usize,
    /// The first of those that were left out.
    end: Option<Place>,
}

/// Start, source, end.
type Place = (Millis, Arc<str>, Millis);

impl Newest {
    /// Holds at most so many rows, or those that have so many doubles together; 0 is no limit.
    pub(super) fn first(most_rows: usize, most_doubles: usize) -> Self {
        Self { most_rows, most_doubles, ..Self::default() }
    }

    pub(super) fn put(&mut self, row: Row) {
        let place = (row.bucket.start, Arc::clone(&row.source), row.bucket.end);
        if self.end.as_ref().is_some_and(|end| place >= *end) {
            return;
        }
        match self.rows.entry(place) {
            Entry::Vacant(place) => {
                self.doubles += row.state.doubles();
                place.insert(row);
            }
            Entry::Occupied(mut held) => {
                if row.version() > held.get().version() {
                    self.doubles += row.state.doubles();
                    self.doubles -= held.insert(row).state.doubles();
                }
            }
        }
        while self.is_full_without_last() {
            if let Some((place, row)) = self.rows.pop_last() {
                self.doubles -= row.state.doubles();
                self.end = Some(place);
            }
        }
    }

    fn is_full_without_last(&self) -> bool {
        let last = self.last().map_or(0, |row| row.state.doubles());
        (self.most_rows > 0 && self.rows.len() > self.most_rows)
            || (self.most_doubles > 0 && self.rows.len() > 1 && self.doubles - last >= self.most_doubles)
    }

    /// Whether rows behind the last one are of no interest.
    pub(super) fn is_full(&self) -> bool {
        (self.most_rows > 0 && self.rows.len() >= self.most_rows)
            || (self.most_doubles > 0 && self.doubles >= self.most_doubles)
    }

    pub(super) fn last(&self) -> Option<&Row> {
        self.rows.last_key_value().map(|(_, row)| row)
    }

    pub(super) fn into_rows(self) -> impl Iterator<Item = Row> {
        self.rows.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::Bucket;
    use crate::stats::moments::Moments;

    #[test]
    fn lines_of_a_bucket_grow_together_and_are_read_together() {
        let mut index = Index::default();
        index.add(1, Part::Rows, 100..200);
        index.add(2, Part::Rows, 200..300);
        index.add(1, Part::Tail, 100..200);
        index.add(1, Part::Tail, 200..250);
        index.add(3, Part::Tail, 250..300);
        index.add(1, Part::Tail, 100_000..100_100);
        assert_eq!(index.buckets[&1].len(), 3, "neighbours are one");
        let check = |from: Millis, to: Millis, gap: u64, expected: &[(Part, Range<u64>)]| {
            let expected: Vec<Lines> = expected.iter().cloned().map(|(part, bytes)| Lines { part, bytes }).collect();
            assert_eq!(index.lines(from, to, gap), expected, "{from}..{to} with {gap}");
        };
        check(2, 3, 0, &[(Part::Rows, 200..300)]);
        check(1, 2, 0, &[(Part::Rows, 100..200), (Part::Tail, 100..250), (Part::Tail, 100_000..100_100)]);
        check(
            Millis::MIN,
            Millis::MAX,
            SEEK_GAP,
            &[(Part::Rows, 100..300), (Part::Tail, 100..300), (Part::Tail, 100_000..100_100)],
        );
        check(4, 2, 0, &[]);
    }

    #[test]
    fn the_newest_version_is_kept_in_any_order() {
        let row = |generation, gen_count, revision| Row {
            source: "a".into(),
            bucket: Bucket { period: Period::Day, start: 0, end: 1 },
            generation,
            gen_count,
            revision,
            base: None,
            state: Moments::EMPTY,
        };
        let check = |older: &Row, newer: &Row| {
            for order in [[older, newer], [newer, older]] {
                let mut newest = Newest::default();
                for row in order {
                    newest.put(row.clone());
                }
                assert!(newest.into_rows().eq([newer.clone()]));
            }
        };
        check(&row(1, 9.0, 9), &row(2, 1.0, 1));
        check(&row(1, 1.0, 9), &row(1, 2.0, 1));
        check(&row(1, 1.0, 1), &row(1, 1.0, 2));
    }

    fn check_damage(content: &str, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        line::push_header(&mut bytes);
        std::fs::write(dir.path().join("tail.csv"), content.replace("HEADER", str::from_utf8(&bytes).unwrap()))
            .unwrap();
        let files = Files::open(dir.path(), Period::Day).unwrap();
        let error = Index::scan(&files, |_, _| ()).unwrap_err();
        assert!(matches!(error, SinkError::Refused(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_damaged_file_names_itself_and_the_place() {
        check_damage(
            "HEADERa,2026-11-20T00:00:00Z,x\nb,\n",
            "tail.csv is damaged at byte 130: column 2 cannot be read: \"\"",
        );
        check_damage("a,b\n", "tail.csv is damaged at byte 0: the header is not that of rows");
    }
}
