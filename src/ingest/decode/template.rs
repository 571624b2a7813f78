//! Source ids made from the columns of a wide table: `{location}.{column}`.
//!
//! Parsed from a request's query or the command line, bound to the header of a table by `columns.rs`.
//! One code for both, so that a file and a request make the same ids.

use crate::stats::source::MAX_SOURCE_BYTES;
use std::str::FromStr;

/// The name that stands for the value column a reading comes from.
const VALUE_COLUMN: &str = "column";

/// A template as it was written; which columns it names is known, whether a file has them is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece<String>>,
}

/// A part of an id. `C` is how a column is known: by name, or by position in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<C> {
    Text(String),
    Cell(C),
    /// The name of the value column.
    Column,
}

/// A template whose columns were found in a header.
#[derive(Clone, Debug)]
pub struct Bound(Vec<Piece<usize>>);

impl FromStr for Template {
    type Err = String;

    fn from_str(template: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                text.push_str(brace);
                rest = after;
                continue;
            }
            let name = if brace == "{" { rest.split_once('}') } else { None };
            let Some((name, after)) = name.filter(|(name, _)| !name.is_empty() && !name.contains('{')) else {
                return Err(format!(
                    "\"{brace}\" at byte {at} of \"{template}\" belongs to no {{column}}: write {{name}}, or {{{{ and }}}} for braces",
                    at = template.len() - rest.len() - 1
                ));
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(if name == VALUE_COLUMN { Piece::Column } else { Piece::Cell(name.to_owned()) });
            rest = after;
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self { text: template.to_owned(), pieces })
    }
}

impl Template {
    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Finds its columns; `position` says where a column is, or why not.
    pub fn bind<E>(&self, mut position: impl FnMut(&str) -> Result<usize, E>) -> Result<Bound, E> {
        let bind = |piece: &Piece<String>| {
            Ok(match piece {
                Piece::Text(text) => Piece::Text(text.clone()),
                Piece::Cell(name) => Piece::Cell(position(name)?),
                Piece::Column => Piece::Column,
            })
        };
        Ok(Bound(self.pieces.iter().map(bind).collect::<Result<_, E>>()?))
    }
}

impl Bound {
    /// The id of a reading of the value column `column` in this row. What is already too long to be
    /// one is not made longer: templates and cells come from outside.
    pub fn fill<'r>(&self, cell: impl Fn(usize) -> &'r str, column: &str, id: &mut String) {
        id.clear();
        for piece in &self.0 {
            if id.len() > MAX_SOURCE_BYTES {
                return;
            }
            match piece {
                Piece::Text(text) => id.push_str(text),
                Piece::Cell(at) => id.push_str(cell(*at)),
                Piece::Column => id.push_str(column),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a template with the row `location` = berlin, `site` = north, for the column `wind`.
    fn check(template: &str, expected: &str) {
        let filled = template.parse::<Template>().and_then(|template| {
            let columns = ["location", "site"];
            let position = |name: &str| columns.iter().position(|c| *c == name).ok_or(format!("no column {name}"));
            let mut id = "left over".to_owned();
            template.bind(position)?.fill(|at| ["berlin", "north"][at], "wind", &mut id);
            Ok(id)
        });
        assert_eq!(filled.unwrap_or_else(|error| error), expected, "{template}");
    }

    #[test]
    fn templates() {
        check("{location}.{column}", "berlin.wind");
        check("weather", "weather");
        check("w{{{column}}}", "w{wind}");
        check("a{{b}}c", "a{b}c");
        check("{site}{location}é", "northberliné");
        check("", "");
        check("{town}", "no column town");
        check(&"{site}".repeat(1_000), &"north".repeat(52));
    }

    #[test]
    fn braces_that_belong_to_nothing() {
        for (template, at) in [("x{location", 1), ("{}", 0), ("a}b", 1), ("{a{b}", 0), ("{location}}", 10)] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(error.contains(&format!("at byte {at} of")), "{error}");
            assert!(error.contains("write {name}, or {{ and }} for braces"), "{error}");
        }
    }
}
