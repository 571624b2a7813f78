//! Source ids: what they may be, the error that says what is wrong with one, and how they stand in
//! a CSV file.
//!
//! Checked once, where a reading is decoded; everywhere else an id is an opaque string.

use super::Millis;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest id in bytes: keeps a key (source, period, start) far below the index limit of Postgres.
pub const MAX_SOURCE_BYTES: usize = 256;

/// Ids of groups, which are made by rules and never by a client.
pub const RESERVED_PREFIX: &str = "group:";

/// Why an id is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    Empty,
    TooLong(usize),
    ControlCharacter(char),
    Reserved,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "source is empty"),
            Self::TooLong(bytes) => write!(f, "source has {bytes} bytes, at most {MAX_SOURCE_BYTES} are allowed"),
            Self::ControlCharacter(c) => write!(f, "source contains the control character U+{:04X}", u32::from(*c)),
            Self::Reserved => write!(f, "source begins with \"{RESERVED_PREFIX}\", which is reserved for groups"),
        }
    }
}

impl std::error::Error for SourceError {}

/// Accepts 1 to 256 bytes of UTF-8 without control characters (C0, DEL, C1) and without the line
/// and paragraph separators U+2028 and U+2029, which some readers take for line ends.
///
/// # Errors
/// Says which of these rules the id breaks.
pub fn check(id: &str) -> Result<(), SourceError> {
    if id.is_empty() {
        return Err(SourceError::Empty);
    }
    if id.len() > MAX_SOURCE_BYTES {
        return Err(SourceError::TooLong(id.len()));
    }
    // The common case, printable ASCII, is decided on bytes.
    if !id.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        let breaks = |c: &char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if let Some(c) = id.chars().find(breaks) {
            return Err(SourceError::ControlCharacter(c));
        }
    }
    if id.starts_with(RESERVED_PREFIX) {
        return Err(SourceError::Reserved);
    }
    Ok(())
}

/// Accepts what [`check`] does, and groups.
///
/// # Errors
/// Says which rule the id breaks.
pub fn check_known(id: &str) -> Result<(), SourceError> {
    match check(id) {
        Err(SourceError::Reserved) if id.len() > RESERVED_PREFIX.len() => Ok(()),
        checked => checked,
    }
}

/// A source with the starts of its first and last bucket, over all periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpan {
    pub source: Arc<str>,
    pub first: Millis,
    pub last: Millis,
}

/// A cell that begins with one of these gets a guard: formulas to a spreadsheet, the guard itself,
/// and the byte order mark, which readers drop at the beginning of what they read.
const GUARDED: [char; 8] = ['=', '+', '-', '@', '\t', '\r', '\u{feff}', GUARD];
const GUARD: char = '\'';

/// An id as a CSV cell that no spreadsheet takes for a formula; quoting is up to the writer.
#[must_use]
pub fn to_cell(id: &str) -> Cow<'_, str> {
    if id.starts_with(GUARDED) { Cow::Owned(format!("{GUARD}{id}")) } else { Cow::Borrowed(id) }
}

/// The id of a cell made by [`to_cell`].
#[must_use]
pub fn from_cell(cell: &str) -> &str {
    cell.strip_prefix(GUARD).unwrap_or(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let check_cell = |id: &str, cell: &str| {
            assert_eq!(to_cell(id), cell, "{id:?}");
            assert_eq!(from_cell(cell), id, "{cell:?}");
        };
        check_cell("kitchen", "kitchen");
        check_cell("=1+1", "'=1+1");
        check_cell("'quoted", "''quoted");
        for first in ["+", "-", "@", "\t", "\r"] {
            check_cell(&format!("{first}1"), &format!("'{first}1"));
        }
        check_cell("\u{feff}a", "'\u{feff}a");
        check_cell("a=b", "a=b");
    }

    #[test]
    fn ids() {
        let check_id = |id: &str, expected: Result<(), SourceError>| assert_eq!(check(id), expected, "{id:?}");
        check_id("kitchen", Ok(()));
        check_id("Zürich.temp {max}", Ok(()));
        check_id(&"x".repeat(256), Ok(()));
        check_id(&"x".repeat(257), Err(SourceError::TooLong(257)));
        check_id("", Err(SourceError::Empty));
        check_id("a\nb", Err(SourceError::ControlCharacter('\n')));
        check_id("a\u{85}b", Err(SourceError::ControlCharacter('\u{85}')));
        check_id("a\u{2028}b", Err(SourceError::ControlCharacter('\u{2028}')));
        check_id("group:region", Err(SourceError::Reserved));
        assert_eq!(check_known("group:region"), Ok(()));
        assert_eq!(check_known("group:"), Err(SourceError::Reserved));
        assert_eq!(check_known(&format!("group:{}", "x".repeat(251))), Err(SourceError::TooLong(257)));
    }
}
