//! The sources the CSV sink has rows of, with their first and last bucket, and `sources.csv`.
//!
//! Kept in memory by `writer.rs`; `compact.rs` writes the file before it removes a tail, so that the
//! file and the tails always cover every source; `retain.rs` narrows what is said of sources whose
//! rows go. It can be made anew from the rows at any time.

use super::disk::Opened;
use super::line;
use crate::sink::Partition;
use crate::stats::source::{self, SourceSpan};
use crate::stats::{Millis, timestamp};
use ::csv::ReaderBuilder;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

const COLUMNS: [&str; 3] = ["source", "first", "last"];

/// Starts of the first and the last bucket.
pub(super) type Span = (Millis, Millis);

/// Sources by id.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Catalogue(BTreeMap<Arc<str>, Span>);

impl Catalogue {
    /// Reads the file.
    ///
    /// # Errors
    /// Says what is wrong with it: it can then be made from the rows.
    pub(super) fn read(opened: &Opened) -> Result<Self, String> {
        let mut catalogue = Self::default();
        let mut reader = ReaderBuilder::new().from_reader(&opened.file);
        if reader.byte_headers().map_err(|error| error.to_string())? != COLUMNS[..] {
            return Err("the header is not that of sources".to_owned());
        }
        for record in reader.byte_records() {
            let record = record.map_err(|error| error.to_string())?;
            let source = line::source(&record)?;
            catalogue.add(source, line::time(&record, 1)?);
            catalogue.add(source, line::time(&record, 2)?);
        }
        Ok(catalogue)
    }

    /// The bytes of the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        line::push_record(&mut bytes, COLUMNS);
        for (source, &(first, last)) in &self.0 {
            let cells = [source::to_cell(source).into_owned(), timestamp::format(first), timestamp::format(last)];
            line::push_record(&mut bytes, cells.iter().map(String::as_str));
        }
        bytes
    }

    /// Takes note of a bucket of a source.
    pub(super) fn add(&mut self, source: &str, start: Millis) {
        if let Some((first, last)) = self.0.get_mut(source) {
            *first = start.min(*first);
            *last = start.max(*last);
        } else {
            self.0.insert(source.into(), (start, start));
        }
    }

    /// Forgets a source.
    pub(super) fn remove(&mut self, source: &str) {
        self.0.remove(source);
    }

    /// The first and last bucket of a source, if it is known.
    pub(super) fn get(&self, source: &str) -> Option<Span> {
        self.0.get(source).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Span)> {
        self.0.iter()
    }

    /// Says anew what is known of a source; `None` if it has no rows.
    pub(super) fn set(&mut self, source: &Arc<str>, span: Option<Span>) {
        match span {
            Some(span) => self.0.insert(Arc::clone(source), span),
            None => self.0.remove(source),
        };
    }

    /// Takes note of all that another one knows.
    pub(super) fn merge(&mut self, other: &Self) {
        for (source, &(first, last)) in &other.0 {
            self.add(source, first);
            self.add(source, last);
        }
    }

    /// Takes note of the rows that may be in a directory which cannot be read, going by what was told of
    /// all rows before: spans become too wide rather than too narrow.
    pub(super) fn add_unread(&mut self, told: &Self, times: &Partition) {
        for (source, &(first, last)) in &told.0 {
            if first < times.to && times.from <= last {
                self.add(source, first.max(times.from));
                self.add(source, last.min(times.to - 1));
            }
        }
    }

    /// Sources with this prefix after `after`, at most `limit`, ordered by id.
    pub(super) fn spans(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<SourceSpan> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let found = self.0.range::<str, _>((from, Bound::Unbounded)).take_while(|(id, _)| id.starts_with(prefix));
        found
            .take(limit)
            .map(|(source, &(first, last))| SourceSpan { source: Arc::clone(source), first, last })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::csv::disk;

    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::default();
        for (source, start) in [("b", 60_000), ("=a", 0), ("ba", 5), ("b", -60_000), ("b,\"c", 7), ("b", 0)] {
            catalogue.add(source, start);
        }
        catalogue
    }

    fn read(content: &[u8]) -> Result<Catalogue, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sources.csv");
        std::fs::write(&path, content).unwrap();
        Catalogue::read(&disk::open(path).unwrap().unwrap())
    }

    #[test]
    fn the_file_reads_back() {
        let bytes = catalogue().to_bytes();
        assert!(
            bytes.starts_with(
                b"source,first,last\n'=a,1970-01-01T00:00:00Z,1970-01-01T00:00:00Z\nb,1969-12-31T23:59:00Z,"
            )
        );
        assert_eq!(read(&bytes), Ok(catalogue()));
        assert!(read(b"").is_err());
        assert!(read(b"source,first,last\na,2026-11-20T00:00:00Z\n").is_err());
    }

    #[test]
    fn pages_of_sources() {
        let check = |prefix: &str, after: Option<&str>, limit: usize, expected: &[&str]| {
            let spans = catalogue().spans(prefix, after, limit);
            let ids: Vec<&str> = spans.iter().map(|span| &*span.source).collect();
            assert_eq!(ids, expected, "{prefix:?} after {after:?}");
        };
        check("", None, 10, &["=a", "b", "b,\"c", "ba"]);
        check("b", None, 2, &["b", "b,\"c"]);
        check("b", Some("b,\"c"), 2, &["ba"]);
        check("b", Some("a"), 1, &["b"]);
        check("b", Some("c"), 1, &[]);
        assert_eq!(catalogue().spans("b", None, 1)[0].first, -60_000);
        assert_eq!(catalogue().spans("b", None, 1)[0].last, 60_000);
    }
}
