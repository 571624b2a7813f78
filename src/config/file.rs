//! The TOML file: its keys and values as text, each with the line it stands on.
//!
//! Called by `layers.rs`, which knows the keys there are and what their values mean. Keys are the
//! names of flags, with underscores or dashes. An error names the file and the line and never quotes
//! the line, which may hold a password.

use super::LoadError;
use std::fs;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A key and its value.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// With underscores.
    pub(super) key: String,
    /// As it would be written behind a flag.
    pub(super) value: String,
    /// From 1.
    pub(super) line: usize,
}

/// Reads a file. Entries come in the order of their lines.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, LoadError> {
    let text = fs::read_to_string(path).map_err(|error| LoadError {
        place: format!("--config {}", path.display()),
        reason: format!("cannot read it: {error}"),
    })?;
    entries(&text).map_err(|(line, reason)| LoadError { place: format!("{}:{line}", path.display()), reason })
}

/// An error is its line and the reason.
fn entries(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let line = |span: Range<usize>| 1 + text[..span.start.min(text.len())].matches('\n').count();
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().map_or(1, line), format!("this is not TOML: {}", error.message())))?;
    let mut entries: Vec<Entry> = Vec::new();
    for (key, value) in table.get_ref() {
        let (written, at) = (key.get_ref(), line(key.span()));
        if let DeValue::Table(_) = value.get_ref() {
            return Err((at, format!("{written}: there are no tables: write all keys at the top of the file")));
        }
        let value = text_of(value.get_ref())
            .ok_or_else(|| (at, format!("{written}: write a text in quotes, such as periods = \"1m,1h,1d\"")))?;
        entries.push(Entry { key: written.replace('-', "_"), value, line: at });
    }
    entries.sort_by_key(|entry| entry.line);
    for (i, entry) in entries.iter().enumerate() {
        if let Some(first) = entries[..i].iter().find(|first| first.key == entry.key) {
            return Err((entry.line, format!("{} stands on line {} already", entry.key, first.line)));
        }
    }
    Ok(entries)
}

/// What a value would be behind a flag: a list is joined by commas. `None` for tables and times.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| text_of(item.get_ref())).collect();
            items?.join(",")
        }
        DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values() {
        let check = |text: &str, expected: &[(&str, &str, usize)]| {
            let expected: Vec<Entry> = expected
                .iter()
                .map(|&(key, value, line)| Entry { key: key.into(), value: value.into(), line })
                .collect();
            assert_eq!(entries(text).unwrap(), expected, "{text}");
        };
        check("", &[]);
        check("# nothing\n", &[]);
        check("listen = \"[::1]:80\"\n\ngrace = '1s'", &[("listen", "[::1]:80", 1), ("grace", "1s", 3)]);
        check("zz = 1\naa = true\nb = 1.5", &[("zz", "1", 1), ("aa", "true", 2), ("b", "1.5", 3)]);
        check("max-connections = 10_000", &[("max_connections", "10000", 1)]);
        check("periods = [\"1m\", \"1h\"]", &[("periods", "1m,1h", 1)]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let check = |text: &str, line: usize, part: &str| {
            let (at, reason) = entries(text).unwrap_err();
            assert_eq!(at, line, "{text}: {reason}");
            assert!(reason.contains(part), "{text}: {reason}");
        };
        check("listen = \"a\"\nstore = redis://:hush@h", 2, "not TOML");
        check("\nlisten", 2, "not TOML");
        check("a = \"x\"\na = \"y\"", 2, "duplicate key");
        check("hold_on = \"x\"\nhold-on = \"y\"", 2, "hold_on stands on line 1 already");
        check("\n[serve]\nlisten = \"a\"", 2, "serve: there are no tables");
        check("grace = 2026-11-20", 1, "grace: write a text in quotes");
        check("grace = 0x10", 1, "grace: write a text in quotes");
        let (_, reason) = entries("store = redis://:hush@h").unwrap_err();
        assert!(!reason.contains("hush"), "{reason}");
    }
}
