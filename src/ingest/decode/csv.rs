//! `text/csv`: a table with a header, decoded while the body arrives.
//!
//! Called by `http/receive.rs` with chunks as the network cuts them; `columns.rs` says what the
//! header means. A row of a wide table is several readings, an empty cell is none. A row that cannot
//! be converted is a bad line like any other, named by the line it begins on. A row is held until its
//! end has come, and no longer one than a line may be.

use super::columns::{ColumnError, Columns, Naming, Shape};
use super::time::{Number, TimeError, Times};
use super::{Batch, DecodeError, MAX_LINE_BYTES};
use crate::stats::Millis;
use csv_core::ReadRecordResult;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Longest part of a cell that is repeated to the client.
const SHOWN_CELL_CHARS: usize = 40;

/// A body on its way.
#[derive(Debug)]
pub struct Csv<'c> {
    batch: Batch<'c>,
    shape: Shape,
    /// Known once the header has come.
    columns: Option<Columns>,
    reader: csv_core::Reader,
    /// The first bytes, until it is known whether they are a mark; then `None`.
    head: Option<Vec<u8>>,
    /// The line of the next byte, from 1.
    line: usize,
    row: Row,
    /// The id of the present reading; its memory is used again.
    id: String,
}

/// The row that is being read.
#[derive(Debug, Default)]
struct Row {
    /// The line it begins on.
    line: usize,
    /// Bytes of the body that belong to it.
    bytes: usize,
    /// It is too long: it has been noted, the rest of it is dropped.
    dropping: bool,
    /// The cells without their quotes, one behind the other, in the first `filled` bytes.
    cells: Vec<u8>,
    filled: usize,
    /// Where each cell ends, in the first `ended` elements.
    ends: Vec<usize>,
    ended: usize,
}

impl Row {
    /// Makes room for more of the row; what is dropped needs none.
    fn grow(&mut self) {
        if self.dropping {
            (self.filled, self.ended) = (0, 0);
        }
        if self.filled == self.cells.len() {
            self.cells.resize((2 * self.cells.len()).max(256), 0);
        }
        if self.ended == self.ends.len() {
            self.ends.resize((2 * self.ends.len()).max(16), 0);
        }
    }

    fn clear(&mut self) {
        (self.bytes, self.dropping, self.filled, self.ended) = (0, false, 0, 0);
    }

    /// The cells; `None` if one of them is not UTF-8.
    fn cells(&self) -> Option<Cells<'_>> {
        let text = std::str::from_utf8(&self.cells[..self.filled]).ok()?;
        let ends = &self.ends[..self.ended];
        // Two cells that are no UTF-8 may be some together.
        ends.iter().all(|end| text.is_char_boundary(*end)).then_some(Cells { text, ends })
    }
}

/// The cells of a whole row.
#[derive(Clone, Copy)]
struct Cells<'r> {
    text: &'r str,
    ends: &'r [usize],
}

impl<'r> Cells<'r> {
    fn get(&self, at: usize) -> &'r str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }
}

impl<'c> Csv<'c> {
    #[must_use]
    pub fn new(batch: Batch<'c>, shape: Shape) -> Self {
        let (mut reader, id) = (csv_core::Reader::new(), String::new());
        // The reader drops a mark at its own beginning, if it comes in one piece. Here that would be a second
        // one; without room for output this reads nothing, and the beginning is over.
        reader.read_record(b"\n", &mut [], &mut []);
        Self { batch, shape, columns: None, reader, head: Some(Vec::new()), line: 1, row: Row::default(), id }
    }

    /// Decodes what has arrived.
    ///
    /// # Errors
    /// If the header does not fit or there are too many readings.
    pub fn feed(&mut self, mut chunk: &[u8]) -> Result<(), DecodeError> {
        if let Some(mut head) = self.head.take() {
            let (first, rest) = chunk.split_at(chunk.len().min(BYTE_ORDER_MARK.len() - head.len()));
            head.extend_from_slice(first);
            if head.len() < BYTE_ORDER_MARK.len() {
                self.head = Some(head);
                return Ok(());
            }
            self.rows(head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&head))?;
            chunk = rest;
        }
        self.rows(chunk)
    }

    /// The batch, with the last row, which need not have an end.
    ///
    /// # Errors
    /// If the header does not fit or there are too many readings.
    pub fn finish(mut self) -> Result<Batch<'c>, DecodeError> {
        if let Some(head) = self.head.take() {
            self.rows(&head)?;
        }
        if self.row.bytes > 0 {
            // A row that this does not end has a quote left open. Its length is no matter any more.
            self.row.bytes = 1;
            self.rows(b"\n")?;
            if self.row.bytes > 0 && !self.row.dropping {
                self.refuse_row("ends inside a quoted cell: a quote is left open")?;
            }
        }
        Ok(self.batch)
    }

    fn rows(&mut self, mut input: &[u8]) -> Result<(), DecodeError> {
        while let Some(&first) = input.first() {
            let row = &mut self.row;
            if row.bytes == 0 {
                // Passed over here, because the reader would not count them.
                if matches!(first, b'\r' | b'\n') {
                    self.line += usize::from(first == b'\n');
                    input = &input[1..];
                    continue;
                }
                row.line = self.line;
            }
            // A row and one end of line.
            let most = if row.dropping { input.len() } else { input.len().min(MAX_LINE_BYTES + 1 - row.bytes) };
            let (cells, ends) = (&mut row.cells[row.filled..], &mut row.ends[row.ended..]);
            let (read, bytes, filled, ended) = self.reader.read_record(&input[..most], cells, ends);
            row.bytes += bytes;
            row.filled += filled;
            row.ended += ended;
            self.line += memchr::memchr_iter(b'\n', &input[..bytes]).count();
            input = &input[bytes..];
            match read {
                ReadRecordResult::Record => self.end_row()?,
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => row.grow(),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            }
            if self.row.bytes > MAX_LINE_BYTES && !self.row.dropping {
                self.refuse_row("has more than 65536 bytes: is a quote left open?")?;
                self.row.dropping = true;
            }
        }
        Ok(())
    }

    /// Notes that the present row is not one; without a header nothing else can be read.
    #[cold]
    fn refuse_row(&mut self, reason: &'static str) -> Result<(), DecodeError> {
        if self.columns.is_none() {
            return Err(ColumnError::Unreadable(reason).into());
        }
        self.batch.refuse(self.row.line, None, format_args!("the row {reason}"))
    }

    fn end_row(&mut self) -> Result<(), DecodeError> {
        let taken = if self.row.dropping {
            Ok(())
        } else if let Some(cells) = self.row.cells() {
            if let Some(columns) = &self.columns {
                take_row(&mut self.batch, columns, cells, self.row.line, &mut self.id)
            } else {
                let header: Vec<&str> = (0..cells.ends.len()).map(|at| cells.get(at)).collect();
                self.columns = Some(Columns::find(&header, &self.shape)?);
                Ok(())
            }
        } else {
            self.refuse_row("is not UTF-8")
        };
        self.row.clear();
        taken
    }
}

/// Hands the readings of a row to the batch.
fn take_row(
    batch: &mut Batch<'_>,
    columns: &Columns,
    row: Cells<'_>,
    line: usize,
    id: &mut String,
) -> Result<(), DecodeError> {
    if let Some(misfit) = columns.misfit(row.ends.len()) {
        return batch.refuse(line, None, format_args!("the row {misfit}"));
    }
    let is_wide = matches!(columns.source, Naming::Template(_));
    let time = match &columns.time {
        None => batch.times().now,
        Some((at, name)) => match time(row.get(*at).trim(), batch.times()) {
            Ok(time) => time,
            Err(reason) => {
                // Whether a time is refused depends on the clock: all readings keep their places.
                let is_reading = |(at, _): &&(usize, _)| !is_wide || !row.get(*at).trim().is_empty();
                let places = columns.values.iter().filter(is_reading).count();
                return batch.refuse_places(line, Some(name), places, format_args!("{reason}"));
            }
        },
    };
    for (at, name) in &columns.values {
        let cell = row.get(*at).trim();
        if cell.is_empty() && is_wide {
            batch.pass_empty();
            continue;
        }
        let Ok(value) = cell.parse() else {
            let shown: String = cell.chars().take(SHOWN_CELL_CHARS).collect();
            batch.refuse(line, Some(name), format_args!("\"{shown}\" is not a finite number"))?;
            continue;
        };
        let source = match &columns.source {
            Naming::Column(at) => row.get(*at),
            Naming::Template(template) => {
                template.fill(|at| row.get(at), name, id);
                id.as_str()
            }
        };
        batch.take_named(line, name, source, value, time)?;
    }
    Ok(())
}

/// The time of a cell: a number in the unit of the request, or a text.
fn time(cell: &str, times: &Times<'_>) -> Result<Millis, String> {
    if cell.is_empty() {
        return Err("timestamp is empty: every row needs its time".to_owned());
    }
    let time = if let Ok(integer) = cell.parse() {
        times.of_number(Number::Integer(integer))
    } else if let Some(number) = cell.parse().ok().filter(|number: &f64| number.is_finite()) {
        times.of_number(Number::Fraction(number))
    } else {
        // What is left of numbers are those that are not finite.
        times.of_text(cell).map_err(|error| match error {
            TimeError::NotATime { .. } => TimeError::NotATime { number_in_quotes: false },
            other => other,
        })
    };
    time.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::columns::Wide;
    use super::super::tests::{batch, shown};
    use super::super::{Decoded, MAX_READINGS};
    use super::*;

    fn narrow() -> Shape {
        Shape::default()
    }

    fn wide(time: Option<&str>, source: &str, values: &str) -> Shape {
        let values = values.split(',').map(str::to_owned).collect();
        Shape { time: time.map(str::to_owned), wide: Some(Wide { source: source.parse().unwrap(), values }) }
    }

    fn decode(shape: &Shape, chunks: &[&[u8]]) -> Result<Decoded, DecodeError> {
        let mut decoder = Csv::new(batch(), shape.clone());
        for chunk in chunks {
            decoder.feed(chunk)?;
        }
        Ok(decoder.finish()?.finish())
    }

    /// The same at every way to cut the body in two, and byte by byte.
    #[track_caller]
    fn check(shape: &Shape, body: impl AsRef<[u8]>, expected: &[&str], empty: usize) {
        let body = body.as_ref();
        let check = |chunks: &[&[u8]], how: &str| {
            let decoded = decode(shape, chunks).unwrap();
            assert_eq!(
                (shown(&decoded), decoded.empty),
                (expected.iter().map(ToString::to_string).collect(), empty),
                "{how}"
            );
        };
        for cut in 0..=body.len().min(300) {
            check(&[&body[..cut], &body[cut..]], &format!("cut at {cut}"));
        }
        check(&body.chunks(1).collect::<Vec<_>>(), "byte by byte");
    }

    #[track_caller]
    fn check_refused(shape: &Shape, body: impl AsRef<[u8]>, expected: &str) {
        assert_eq!(decode(shape, &[body.as_ref()]).unwrap_err().to_string(), expected);
        assert_eq!(decode(shape, &body.as_ref().chunks(1).collect::<Vec<_>>()).unwrap_err().to_string(), expected);
    }

    #[test]
    fn narrow_tables() {
        check(&narrow(), "source,value\na,1\nb,-0.5e1\na,2", &["05:00 a=2@1.5", "05:00 b=1@-5"], 0);
        check(
            &narrow(),
            "\u{feff}value,source\r\n1, a \r\n\r\n 3 ,\"b,\"\"ü\"\"\"\r\n",
            &["05:00  a =1@1", "05:00 b,\"ü\"=1@3"],
            0,
        );
        let stamped = "source,value,timestamp\na,1,2026-11-20T04:00:00Z\na,2,1795147200000\na,3,1795147200000.5\n";
        check(&narrow(), stamped, &["04:00 a=3@2"], 0);
        let named = Shape { time: Some("when".to_owned()), wide: None };
        check(&named, "when,source,value\n2026-11-20 03:00,a,1\n", &["03:00 a=1@1"], 0);
    }

    #[test]
    fn wide_tables() {
        let table = "date,location,temp_max,temp_min,wind\n2026-11-19,berlin,25.5,,3\n2026-11-20,oslo,19,11,\n";
        check(
            &wide(Some("date"), "{location}.{column}", "temp_max,temp_min"),
            table,
            &["00:00 berlin.temp_max=1@25.5", "00:00 oslo.temp_max=1@19", "00:00 oslo.temp_min=1@11"],
            1,
        );
        check(&wide(Some("now"), "{location}", "wind"), table, &["05:00 berlin=1@3"], 1);
    }

    #[test]
    fn a_table_without_rows_is_an_empty_batch() {
        for body in ["", "\u{feff}", "\n\r\n", "source,value", "source,value\n"] {
            check(&narrow(), body, &[], 0);
        }
    }

    #[test]
    fn one_mark_is_passed_over_and_no_more() {
        let columns = "a table has the columns source,value[,timestamp], separated by commas; this one has";
        let twice = "\u{feff}\u{feff}source,value\na,1\n";
        check_refused(&narrow(), twice, &format!("{columns} \u{feff}source, value"));
    }

    #[test]
    fn bad_rows_are_named_by_the_line_they_begin_on_and_the_rest_goes_on() {
        check(
            &narrow(),
            "source,value\r\na,1\r\n\r\na,x\r\n\"b\nc\",y\na\nd,1",
            &[
                "05:00 a=1@1",
                "05:00 d=1@1",
                "4 value \"x\" is not a finite number",
                "5 value \"y\" is not a finite number",
                "7 - the row has 1 cell, the header has 2",
            ],
            0,
        );
        let limit = "value must be a finite number of magnitude at most 1e140";
        check(
            &narrow(),
            "source,value\na,\na,NaN\na,1e999\na,1e141\n",
            &[
                "2 value \"\" is not a finite number",
                &format!("3 value {limit}"),
                &format!("4 value {limit}"),
                &format!("5 value {limit}"),
            ],
            0,
        );
        check(
            &narrow(),
            "source,value\n,1\ngroup:x,1\n",
            &["2 source source is empty", "3 source source begins with \"group:\", which is reserved for groups"],
            0,
        );
        check(&narrow(), b"source,value\na\xe9,1\nb,2\n", &["05:00 b=1@2", "2 - the row is not UTF-8"], 0);
        check(&wide(Some("now"), "{a}{b}", "v"), b"a,b,v\n\xc3,\xa9,1\n", &["2 - the row is not UTF-8"], 0);
        check(
            &wide(Some("now"), "{column}", "t,w"),
            "t,w\nx,2\n3,1e141\n",
            &["05:00 w=1@2", "05:00 t=1@3", "2 t \"x\" is not a finite number", &format!("3 w {limit}")],
            0,
        );
        let long = format!("source,value\na,{}\n", "x".repeat(500));
        check(&narrow(), long, &[&format!("2 value \"{}\" is not a finite number", "x".repeat(40))], 0);
    }

    #[test]
    fn bad_times_are_named_by_their_column() {
        let when = wide(Some("when"), "{column}", "v,w");
        let not_a_time = "timestamp is neither RFC 3339 (2026-11-20T05:00:00Z) nor a date nor a number";
        check(
            &when,
            "when,v,w\nsoon,1,2\n,1,\nnan,1,1\n1795150800,1,1\n",
            &[
                &format!("2 when {not_a_time}"),
                "3 when timestamp is empty: every row needs its time",
                &format!("4 when {not_a_time}"),
                "5 when timestamp is before 1973 if it means milliseconds; it looks like seconds: add ?precision=s",
            ],
            0,
        );
    }

    /// A time that is refused now and taken later must not move the cut of the request.
    #[test]
    fn a_row_of_a_bad_time_keeps_the_places_of_its_readings() {
        let shape = wide(Some("t"), "s", "u,v,w");
        let rows = "2026-11-20T04:00:00Z,1,1,\n".repeat(999) + "2026-11-20T04:00:00Z,,,1\n";
        let cut = |first: &str| {
            let decoded = decode(&shape, &[format!("t,u,v,w\n{first}\n{rows}").as_bytes()]).unwrap();
            decoded.parts.iter().map(|part| part.readings).collect::<Vec<_>>()
        };
        assert_eq!(cut("2026-11-20T04:00:00Z,1,,1"), [2_000, 1]);
        assert_eq!(cut("2026-11-21T04:00:00Z,1,,1"), [1_998, 1]);
    }

    #[test]
    fn headers_that_do_not_fit_end_it() {
        let columns = "a table has the columns source,value[,timestamp], separated by commas; this one has";
        check_refused(&narrow(), "a,b\n1,2\n", &format!("{columns} a, b"));
        check_refused(&narrow(), "a,b", &format!("{columns} a, b"));
        check_refused(&wide(None, "x", "c"), "a,b\n", "there is no column \"c\": the header has a, b");
        check_refused(&narrow(), b"\xff\xfes\n", "the header is not UTF-8");
        check_refused(&narrow(), "\"source,value\na,1\n", "the header ends inside a quoted cell: a quote is left open");
        check_refused(&narrow(), "x".repeat(70_000), "the header has more than 65536 bytes: is a quote left open?");
    }

    #[test]
    fn a_quote_left_open_is_not_read_as_a_cell() {
        let open = "the row ends inside a quoted cell: a quote is left open";
        check(
            &wide(Some("now"), "s", "v"),
            "v,note\n1,\"fine\"\n2,\"5 in\n3,x\n",
            &["05:00 s=1@1", &format!("3 - {open}")],
            0,
        );
        check(&wide(Some("now"), "s", "v"), "v,note\n1,5\" wide\n", &["05:00 s=1@1"], 0);
    }

    #[test]
    fn a_long_row_is_refused_and_the_rest_goes_on() {
        let long = "2 - the row has more than 65536 bytes: is a quote left open?";
        let padded = |bytes: usize| format!("source,value\na,{}1\na,3\n", " ".repeat(bytes - 3));
        check(&narrow(), padded(MAX_LINE_BYTES), &["05:00 a=2@2"], 0);
        check(&narrow(), padded(MAX_LINE_BYTES + 1), &["05:00 a=1@3", long], 0);
        check(&narrow(), format!("source,value\n{}\na,3\n", ",".repeat(3 * MAX_LINE_BYTES)), &["05:00 a=1@3", long], 0);
        check(&narrow(), format!("source,value\n\"{}\n", "x\n".repeat(MAX_LINE_BYTES)), &[long], 0);
    }

    #[test]
    fn a_row_without_end_is_not_held() {
        for byte in [b'x', b','] {
            let mut decoder = Csv::new(batch(), narrow());
            decoder.feed(b"source,value\n").unwrap();
            for _ in 0..20 {
                decoder.feed(&vec![byte; MAX_LINE_BYTES]).unwrap();
            }
            assert!(decoder.row.cells.len() <= 2 * MAX_LINE_BYTES && decoder.row.ends.len() <= 2 * MAX_LINE_BYTES);
            assert_eq!(decoder.finish().unwrap().finish().error_count, 1);
        }
    }

    #[test]
    fn too_many_readings_end_it() {
        let mut decoder = Csv::new(batch(), narrow());
        decoder.feed(b"source,value\n").unwrap();
        decoder.feed("a,1\n".repeat(MAX_READINGS).as_bytes()).unwrap();
        assert_eq!(decoder.feed(b"a,1\n"), Err(DecodeError::TooManyReadings));
    }
}
