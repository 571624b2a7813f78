//! One file per wire format: bytes of a request in, folded parts and a list of bad lines out.
//!
//! Called by `http/receive.rs`; every format pushes its readings one by one into a [`Batch`], which
//! checks and folds them, so no list of readings ever exists. Whether a batch with bad lines is
//! refused is the caller's decision. `reading.rs` is the JSON form of one reading, `columns.rs` and
//! `template.rs` say what the columns of a table mean, `time.rs` what a timestamp means.

pub mod columns;
pub mod csv;
pub mod json;
pub mod ndjson;
mod reading;
pub mod template;
pub mod time;

use super::fold::{Folder, Lines, Part};
use crate::auth::Identity;
use crate::stats::calendar::Calendar;
use crate::stats::layout::{self, SCALAR_DOUBLES};
use crate::stats::moments::{MAX_ABS_VALUE, Unlike, numbers};
use crate::stats::vectors::LENGTHS;
use crate::stats::{Millis, source};
use std::fmt;
use time::Times;

/// Readings per request: 100 parts, about 15 MB of states while they wait for the store. A vector counts as much as
/// its state is larger than that of a number.
pub const MAX_READINGS: usize = 200_000;
/// The same in doubles of the states.
const MAX_DOUBLES: usize = MAX_READINGS * SCALAR_DOUBLES;
/// Bytes per line: a reading needs some hundred, and a line is held until its end has come.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// Bad lines named in an answer: enough to see what is wrong; all are counted.
pub const MAX_ERRORS: usize = 100;

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// From 1: the line, or the element of a JSON array.
    pub line: usize,
    /// The field at fault, if it is one; in a table the column.
    pub field: Option<String>,
    pub reason: String,
}

/// Why a body cannot be decoded at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Line and column count from 1, the column in bytes.
    #[error("{reason} at line {line}, column {column}")]
    Syntax { line: usize, column: usize, reason: String },
    #[error("the request has more than {MAX_READINGS} readings: send it in several")]
    TooManyReadings,
    /// Whoever sends it may not send for this source.
    #[error("the source {id:?} of line {line} is not among those of this token")]
    Forbidden { line: usize, id: String },
    #[error(
        "the request has more vectors than fit into one: send it in several ({} of {length} numbers fit)",
        MAX_DOUBLES / layout::state_doubles(*length)
    )]
    TooManyVectors { length: usize },
    #[error(transparent)]
    Columns(#[from] columns::ColumnError),
}

/// A decoded request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub parts: Vec<Part>,
    /// Readings in the parts.
    pub readings: usize,
    /// The earliest and the latest time of a reading in the parts.
    pub span: Option<(Millis, Millis)>,
    /// The first [`MAX_ERRORS`] bad lines.
    pub errors: Vec<LineError>,
    /// All bad lines; none of them is in the parts.
    pub error_count: usize,
    /// Empty cells of a wide table, which are no readings.
    pub empty: usize,
    /// Where each line went, if that was asked for.
    pub lines: Option<Lines>,
}

/// Takes the readings of one request from a decoder.
#[derive(Debug)]
pub struct Batch<'c> {
    folder: Folder<'c>,
    times: Times<'c>,
    readings: usize,
    /// Doubles of the states of all readings, bad ones too.
    doubles: usize,
    earliest: Millis,
    latest: Millis,
    errors: Vec<LineError>,
    error_count: usize,
    empty: usize,
    /// Who sends it, where only some sources are his.
    sender: Option<&'c Identity>,
}

impl<'c> Batch<'c> {
    /// A batch that arrives at the time of `times`. With `keep_lines` it can be said later which
    /// line went into which bucket.
    #[must_use]
    pub fn new(calendar: &'c Calendar, times: Times<'c>, keep_lines: bool) -> Self {
        let folder = if keep_lines { Folder::with_lines(calendar) } else { Folder::new(calendar) };
        let (earliest, latest) = (Millis::MAX, Millis::MIN);
        Self {
            folder,
            times,
            readings: 0,
            doubles: 0,
            earliest,
            latest,
            errors: Vec::new(),
            error_count: 0,
            empty: 0,
            sender: None,
        }
    }

    /// Refuses the request at the first source that is not one of the sender's. Each source is looked at once.
    #[must_use]
    pub fn from(self, sender: Option<&'c Identity>) -> Self {
        Self { sender: sender.filter(|sender| sender.is_limited()), ..self }
    }

    /// What was taken, bad lines beside it.
    #[must_use]
    pub fn finish(self) -> Decoded {
        let (parts, lines) = self.folder.finish_with_lines();
        let Self { readings, errors, error_count, empty, .. } = self;
        let span = (readings > 0).then_some((self.earliest, self.latest));
        Decoded { parts, readings, span, errors, error_count, empty, lines }
    }

    /// How the timestamps of this batch are read.
    fn times(&self) -> &Times<'c> {
        &self.times
    }

    /// Checks a reading and folds it, or notes what is wrong with it.
    fn take(&mut self, line: usize, source: &str, value: f64, timestamp: Millis) -> Result<(), DecodeError> {
        self.take_named(line, "value", source, value, timestamp)
    }

    /// The same for a value that the client knows as the field `name`.
    #[inline]
    fn take_named(
        &mut self,
        line: usize,
        name: &str,
        source: &str,
        value: f64,
        timestamp: Millis,
    ) -> Result<(), DecodeError> {
        if let Err(error) = source::check(source) {
            return self.refuse(line, Some("source"), format_args!("{error}"));
        }
        if value.is_nan() || value.abs() > MAX_ABS_VALUE {
            let reason = format_args!("value must be a finite number of magnitude at most {MAX_ABS_VALUE:e}");
            return self.refuse(line, Some(name), reason);
        }
        self.make_room()?;
        self.folder.at_line(line);
        let pushed = self.folder.push(source, value, timestamp);
        self.folded(line, name, source, timestamp, pushed)
    }

    /// The same for a reading that is a vector.
    fn take_vector(&mut self, line: usize, source: &str, values: &[f64], timestamp: Millis) -> Result<(), DecodeError> {
        if let Err(error) = source::check(source) {
            return self.refuse_vector(line, Some("source"), values.len(), format_args!("{error}"));
        }
        if let Some(wrong) = values.iter().position(|x| x.is_nan() || x.abs() > MAX_ABS_VALUE) {
            let reason = format_args!(
                "each number of value must be finite and of magnitude at most {MAX_ABS_VALUE:e}, number {} is not",
                wrong + 1
            );
            return self.refuse_vector(line, Some("value"), values.len(), reason);
        }
        self.make_room_for_vector(values.len())?;
        self.folder.at_line(line);
        let pushed = self.folder.push_vector(source, values, timestamp);
        self.folded(line, "value", source, timestamp, pushed)
    }

    /// Counts a reading that was pushed, or notes why the folder has passed over it.
    #[inline]
    fn folded(
        &mut self,
        line: usize,
        name: &str,
        source: &str,
        timestamp: Millis,
        pushed: Result<bool, Unlike>,
    ) -> Result<(), DecodeError> {
        match pushed {
            Ok(is_new) => {
                if is_new && self.sender.is_some_and(|sender| !sender.has_source(source)) {
                    return Err(DecodeError::Forbidden { line, id: source.to_owned() });
                }
            }
            Err(unlike) => {
                self.note_unlike(line, name, source, unlike);
                return Ok(());
            }
        }
        self.readings += 1;
        self.earliest = self.earliest.min(timestamp);
        self.latest = self.latest.max(timestamp);
        Ok(())
    }

    /// Notes a reading that the folder has passed over.
    #[cold]
    fn note_unlike(&mut self, line: usize, name: &str, source: &str, unlike: Unlike) {
        let Unlike(before, now) = unlike;
        let reason = format_args!(
            "source \"{source}\" has readings of {} in this request, this is one of {}",
            numbers(before),
            numbers(now)
        );
        self.note(line, Some(name), reason);
    }

    /// Notes a bad line. The reason is only put into words if it will be listed.
    #[cold]
    fn refuse(&mut self, line: usize, field: Option<&str>, reason: fmt::Arguments<'_>) -> Result<(), DecodeError> {
        self.refuse_places(line, field, 1, reason)
    }

    /// The same for a line that would have been so many readings.
    #[cold]
    fn refuse_places(
        &mut self,
        line: usize,
        field: Option<&str>,
        places: usize,
        reason: fmt::Arguments<'_>,
    ) -> Result<(), DecodeError> {
        self.make_room()?;
        (0..places).for_each(|_| self.folder.skip());
        self.note(line, field, reason);
        Ok(())
    }

    /// The same for a vector of this length, which keeps its place in the cut if it has an allowed one: it may be
    /// refused for its time, and not when the request is repeated.
    #[cold]
    fn refuse_vector(
        &mut self,
        line: usize,
        field: Option<&str>,
        length: usize,
        reason: fmt::Arguments<'_>,
    ) -> Result<(), DecodeError> {
        if !LENGTHS.contains(&length) {
            return self.refuse(line, field, reason);
        }
        self.make_room_for_vector(length)?;
        self.folder.skip_vector(length);
        self.note(line, field, reason);
        Ok(())
    }

    fn note(&mut self, line: usize, field: Option<&str>, reason: fmt::Arguments<'_>) {
        self.error_count += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(LineError { line, field: field.map(str::to_owned), reason: reason.to_string() });
        }
    }

    /// Counts a cell that holds no reading.
    fn pass_empty(&mut self) {
        self.empty += 1;
    }

    #[inline]
    fn make_room(&mut self) -> Result<(), DecodeError> {
        self.doubles += SCALAR_DOUBLES;
        if self.doubles > MAX_DOUBLES { Err(DecodeError::TooManyReadings) } else { Ok(()) }
    }

    fn make_room_for_vector(&mut self, length: usize) -> Result<(), DecodeError> {
        self.doubles += layout::state_doubles(length);
        if self.doubles > MAX_DOUBLES { Err(DecodeError::TooManyVectors { length }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::{Period, Zone};
    use crate::stats::timestamp;
    use std::sync::LazyLock;
    use time::Precision;

    static CALENDAR: LazyLock<Calendar> =
        LazyLock::new(|| Calendar::new(vec![Period::Seconds(60)], Zone::utc()).unwrap());

    /// A batch over minutes in UTC that arrives at 2026-11-20T05:00:00Z.
    pub(super) fn batch() -> Batch<'static> {
        let now = timestamp::parse("2026-11-20T05:00:00Z", CALENDAR.zone()).unwrap();
        Batch::new(&CALENDAR, Times { zone: CALENDAR.zone(), now, precision: Precision::Millis }, false)
    }

    /// What was folded as `HH:MM source=count@mean`, then the bad lines as `line field reason`.
    pub(super) fn shown(decoded: &Decoded) -> Vec<String> {
        let mut out = Vec::new();
        for deltas in decoded.parts.iter().flat_map(|part| &part.deltas) {
            let start = timestamp::format(deltas.buckets[0].start);
            for (source, moments) in &deltas.sources {
                out.push(format!("{} {source}={}@{}", &start[11..16], moments.count, moments.mean().unwrap()));
            }
        }
        let errors = decoded.errors.iter();
        out.extend(errors.map(|e| format!("{} {} {}", e.line, e.field.as_deref().unwrap_or("-"), e.reason)));
        out
    }

    #[test]
    fn values_at_the_border() {
        let check = |value: f64, readings: usize| {
            let mut batch = batch();
            batch.take(1, "a", value, 0).unwrap();
            assert_eq!(batch.finish().readings, readings, "{value}");
        };
        check(MAX_ABS_VALUE, 1);
        check(-MAX_ABS_VALUE, 1);
        check(-MAX_ABS_VALUE * 1.000_001, 0);
        check(f64::NAN, 0);
        check(f64::INFINITY, 0);
    }

    #[test]
    fn bad_lines_keep_their_place_in_the_cut_and_good_ones_their_line() {
        let Batch { times, .. } = batch();
        let mut batch = Batch::new(&CALENDAR, times, true);
        batch.take(1, "", 1.0, 0).unwrap();
        for line in 2..=2_001 {
            batch.take(line, "a", 1.0, 0).unwrap();
        }
        let decoded = batch.finish();
        let readings: Vec<usize> = decoded.parts.iter().map(|part| part.readings).collect();
        assert_eq!(readings, [1_999, 1]);
        assert_eq!(decoded.lines.unwrap().of(&[(1, 0)]), [2_001]);
    }
}
