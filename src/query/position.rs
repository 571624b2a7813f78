//! A place in the order of rows, and the opaque text that stands for it between two pages.
//!
//! Used by `page.rs` and `fill.rs` for rows and by `sources.rs` for ids. Rows are ordered by (start, source, end);
//! a cursor names the last place that was answered, so rows that arrive later move nothing.

use super::{EARLIEST, LATEST, QueryError, StatsRow};
use crate::stats::Millis;
use std::sync::Arc;

/// The place of a row. The end only tells buckets apart that two time zones began at the same instant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub start: Millis,
    pub source: Arc<str>,
    pub end: Millis,
}

impl Position {
    pub(super) fn of(row: &StatsRow) -> Self {
        Self { start: row.bucket.start, source: Arc::clone(&row.source), end: row.bucket.end }
    }

    /// After every row that starts before `start`, before every other.
    pub(super) fn before(start: Millis) -> Self {
        Self { start, source: "".into(), end: start }
    }

    pub(super) fn encode(&self) -> String {
        let mut bytes = self.start.to_be_bytes().to_vec();
        bytes.extend(self.end.to_be_bytes());
        bytes.extend(self.source.as_bytes());
        hex(&bytes)
    }

    pub(super) fn decode(cursor: &str) -> Result<Self, QueryError> {
        let bytes = unhex(cursor).ok_or(QueryError::Cursor)?;
        let (start, rest) = bytes.split_first_chunk::<8>().ok_or(QueryError::Cursor)?;
        let (end, source) = rest.split_first_chunk::<8>().ok_or(QueryError::Cursor)?;
        let start = Millis::from_be_bytes(*start);
        let source = std::str::from_utf8(source).map_err(|_| QueryError::Cursor)?;
        if !(EARLIEST..=LATEST).contains(&start) {
            return Err(QueryError::Cursor);
        }
        Ok(Self { start, source: source.into(), end: Millis::from_be_bytes(*end) })
    }
}

/// The cursor of a list of ids: the last id that was answered.
pub(super) fn encode_id(id: &str) -> String {
    hex(id.as_bytes())
}

pub(super) fn decode_id(cursor: &str) -> Result<String, QueryError> {
    let bytes = unhex(cursor).ok_or(QueryError::Cursor)?;
    String::from_utf8(bytes).map_err(|_| QueryError::Cursor)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [a, b] = *pair { Some(digit(a)? << 4 | digit(b)?) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        let check = |start: Millis, source: &str, end: Millis| {
            let position = Position { start, source: source.into(), end };
            assert_eq!(Position::decode(&position.encode()), Ok(position));
        };
        check(0, "a", 60_000);
        check(-86_400_000, "Zürich {max}", 0);
        check(LATEST, "", LATEST);
        assert_eq!(decode_id(&encode_id("Zürich")), Ok("Zürich".to_owned()));
    }

    #[test]
    fn what_is_no_cursor() {
        let good = Position::before(0).encode();
        let beyond = Position::before(LATEST + 1).encode();
        for text in ["", "zz", &good[1..], &good[2..], &format!("{good}ff"), &beyond, "é"] {
            assert_eq!(Position::decode(text), Err(QueryError::Cursor), "{text}");
        }
        assert_eq!(decode_id("fff"), Err(QueryError::Cursor));
    }
}
