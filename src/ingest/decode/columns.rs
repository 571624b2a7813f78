//! Which columns of a table hold the time, the sources and the values, found by name in its header.
//!
//! Used by `csv.rs` for tables that come over HTTP and by `cli/import/` for files, so that the same
//! table means the same readings on both ways. What cannot be found is refused before the first row.

use super::template::{Bound, Template};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The time column of a narrow table that names no other.
const TIME: &str = "timestamp";
/// What stands for the time of arrival in the place of a column, unless a column is called so.
const NOW: &str = "now";
/// How much of a header is repeated to whoever sent it.
const SHOWN_HEADER_CHARS: usize = 200;

/// What the columns of a table mean, as the user said it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// A column, or `now` for the time of arrival. Without it: `timestamp` in a narrow table that has
    /// it, else the time of arrival; a wide table is refused, because its rows may be years old.
    pub time: Option<String>,
    /// `None`: a narrow table, `source,value[,timestamp]`.
    pub wide: Option<Wide>,
}

/// How a row of a wide table becomes several readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wide {
    pub source: Template,
    pub values: Vec<String>,
}

/// The columns of a table, by position.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Cells of the header, and so of every row.
    count: usize,
    pub time: Option<(usize, String)>,
    pub source: Naming,
    pub values: Vec<(usize, Arc<str>)>,
}

/// Where the id of a reading comes from.
#[derive(Clone, Debug)]
pub enum Naming {
    /// A narrow table: the cell of this column. A value is never missing.
    Column(usize),
    /// A wide table: an empty value cell is no reading.
    Template(Bound),
}

/// Why a header does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    #[error("there is no column \"{name}\": the header has {header}")]
    Missing { name: String, header: String },
    #[error("the column \"{0}\" stands in the header twice")]
    Ambiguous(String),
    #[error("the column \"{0}\" is named as a value twice")]
    NamedTwice(String),
    /// The header of a narrow table without its columns.
    #[error("a table has the columns source,value[,timestamp], separated by commas; this one has {0}")]
    NotNarrow(String),
    /// A narrow table with a column that could be the time under a name we do not know, and every
    /// reading would be counted as of now.
    #[error("the column \"{column}\" is none of {known}")]
    Unknown { column: String, known: String },
    /// A wide table of which nobody has said where its times are.
    #[error("it is not said which column holds the time: the header has {0}")]
    NoTime(String),
    #[error("the header {0}")]
    Unreadable(&'static str),
}

impl ColumnError {
    /// Whether the remedy is to describe the table as a wide one.
    #[must_use]
    pub fn lacks_description(&self) -> bool {
        matches!(self, Self::NotNarrow(_) | Self::Unknown { .. })
    }
}

impl Columns {
    /// Finds the columns of `shape` in a header.
    ///
    /// # Errors
    /// If one is not there or there twice, if a narrow table has others, or a wide one is without time.
    pub fn find(header: &[&str], shape: &Shape) -> Result<Self, ColumnError> {
        // By name once: both lists may be long.
        let mut positions = HashMap::with_capacity(header.len());
        for (at, name) in header.iter().enumerate() {
            positions.entry(*name).and_modify(|place| *place = None).or_insert(Some(at));
        }
        let position = |name: &str| match positions.get(name) {
            Some(Some(at)) => Ok(*at),
            Some(None) => Err(ColumnError::Ambiguous(name.to_owned())),
            None => Err(ColumnError::Missing { name: name.to_owned(), header: shown(header) }),
        };
        let mut time = shape.time.as_deref();
        let arrival = time == Some(NOW) && !positions.contains_key(NOW);
        let (source, values) = if let Some(wide) = &shape.wide {
            let mut named = HashSet::new();
            let value = |name: &String| {
                let at = position(name)?;
                if named.insert(at) { Ok((at, Arc::from(&**name))) } else { Err(ColumnError::NamedTwice(name.clone())) }
            };
            let values = wide.values.iter().map(value).collect::<Result<_, _>>()?;
            (Naming::Template(wide.source.bind(position)?), values)
        } else {
            time = time.or_else(|| positions.contains_key(TIME).then_some(TIME));
            if !positions.contains_key("source") || !positions.contains_key("value") {
                return Err(ColumnError::NotNarrow(shown(header)));
            }
            let known = |column: &str| matches!(column, "source" | "value") || Some(column) == time;
            if let Some(column) = header.iter().find(|column| !known(column)) {
                let known =
                    if arrival { "source,value".to_owned() } else { format!("source,value,{}", time.unwrap_or(TIME)) };
                return Err(ColumnError::Unknown { column: (*column).to_owned(), known });
            }
            (Naming::Column(position("source")?), vec![(position("value")?, Arc::from("value"))])
        };
        let time = match time {
            None if shape.wide.is_some() => return Err(ColumnError::NoTime(shown(header))),
            Some(name) if !arrival => Some((position(name)?, name.to_owned())),
            _ => None,
        };
        Ok(Self { count: header.len(), time, source, values })
    }

    /// What is wrong with a row of so many cells, if something is: `has 1 cell, the header has 2`.
    #[must_use]
    pub fn misfit(&self, cells: usize) -> Option<String> {
        let noun = if cells == 1 { "cell" } else { "cells" };
        (cells != self.count).then(|| format!("has {cells} {noun}, the header has {}", self.count))
    }
}

/// A header in an error message.
fn shown(header: &[&str]) -> String {
    let all = header.join(", ");
    match all.char_indices().nth(SHOWN_HEADER_CHARS) {
        Some((end, _)) => format!("{}...", &all[..end]),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(time: Option<&str>, source: &str, values: &str) -> Shape {
        let values = values.split(',').map(str::to_owned).collect();
        Shape { time: time.map(str::to_owned), wide: Some(Wide { source: source.parse().unwrap(), values }) }
    }

    fn narrow(time: Option<&str>) -> Shape {
        Shape { time: time.map(str::to_owned), wide: None }
    }

    fn find(header: &str, shape: &Shape) -> Result<Columns, ColumnError> {
        Columns::find(&header.split(',').collect::<Vec<_>>(), shape)
    }

    /// Positions of the time and of the values.
    #[track_caller]
    fn check(header: &str, shape: &Shape, time: Option<usize>, values: &[usize]) {
        let columns = find(header, shape).unwrap();
        let got: Vec<usize> = columns.values.iter().map(|(at, _)| *at).collect();
        assert_eq!((columns.time.map(|(at, _)| at), got.as_slice()), (time, values), "{header}");
    }

    #[track_caller]
    fn check_refused(header: &str, shape: &Shape, expected: &str) {
        assert_eq!(find(header, shape).unwrap_err().to_string(), expected, "{header}");
    }

    #[test]
    fn columns_stand_in_any_order() {
        check("value,source", &narrow(None), None, &[0]);
        check("timestamp,source,value", &narrow(None), Some(0), &[2]);
        check("source,value,when", &narrow(Some("when")), Some(2), &[1]);
        check("date,place,wind,temp", &wide(Some("date"), "{place}.{column}", "temp,wind"), Some(0), &[3, 2]);
        check("timestamp,wind", &wide(Some("timestamp"), "w", "wind"), Some(0), &[1]);
    }

    #[test]
    fn now_is_said_on_purpose() {
        check("date,wind", &wide(Some("now"), "w", "wind"), None, &[1]);
        check("now,wind", &wide(Some("now"), "w", "wind"), Some(0), &[1]);
        check("source,value", &narrow(Some("now")), None, &[1]);
        check_refused(
            "date,wind",
            &wide(None, "w", "wind"),
            "it is not said which column holds the time: the header has date, wind",
        );
        check_refused(
            "source,value,timestamp",
            &narrow(Some("now")),
            "the column \"timestamp\" is none of source,value",
        );
        check_refused(
            "source,value,timestamp,when",
            &narrow(Some("when")),
            "the column \"timestamp\" is none of source,value,when",
        );
    }

    #[test]
    fn headers_that_do_not_fit() {
        let narrow_table = "a table has the columns source,value[,timestamp], separated by commas; this one has";
        check_refused("date,wind", &narrow(None), &format!("{narrow_table} date, wind"));
        check_refused("source;value", &narrow(None), &format!("{narrow_table} source;value"));
        check_refused(&"x".repeat(500), &narrow(None), &format!("{narrow_table} {}...", "x".repeat(200)));
        check_refused("source,value,time", &narrow(None), "the column \"time\" is none of source,value,timestamp");
        check_refused(
            "source,value",
            &narrow(Some("when")),
            "there is no column \"when\": the header has source, value",
        );
        check_refused("date,wind", &wide(None, "x", "gust"), "there is no column \"gust\": the header has date, wind");
        check_refused("date,wind", &wide(None, "{at}", "wind"), "there is no column \"at\": the header has date, wind");
        check_refused("a,a", &wide(None, "x", "a"), "the column \"a\" stands in the header twice");
        check_refused("a,b", &wide(None, "x", "a,a"), "the column \"a\" is named as a value twice");
    }
}
