//! Rows of CSV files as readings, from narrow tables (source, value, timestamp) and wide ones.
//!
//! Called by `batches.rs`, which decides how many rows make a batch. A row is converted whole or
//! named with its line; columns that the file does not have are refused before the first row.

use super::batches::{Batch, Origin};
use super::lines::{Lines, Watched, watch};
use crate::cli::client::LineProblem;
use crate::ingest::decode::columns::{self, ColumnError, Columns, Naming};
use crate::stats::calendar::Zone;
use crate::stats::timestamp;
use anyhow::{Context, bail};
use serde::Serialize;
use std::io::Read;
use std::sync::Arc;

/// What the columns of a table mean, as the user said it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub columns: columns::Shape,
    /// Where local times are local; `None` leaves them to the service.
    pub zone: Option<Zone>,
}

/// A table that is being read.
pub(in crate::cli) struct Table<R> {
    reader: csv::Reader<Watched<R>>,
    lines: Lines,
    columns: Columns,
    row: csv::StringRecord,
    zone: Option<Zone>,
    /// The id of the present reading; its memory is used again.
    id: String,
}

/// A reading as it is sent.
#[derive(Serialize)]
struct Reading<'r> {
    source: &'r str,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<&'r Stamp>,
}

/// A time cell: a number stays one, so that the service reads it in its unit.
#[derive(Serialize)]
#[serde(untagged)]
enum Stamp {
    Integer(i64),
    Number(f64),
    Text(String),
}

impl<R: Read> Table<R> {
    /// Reads the header and finds the columns in it.
    pub(super) fn open(file: R, shape: &Shape) -> anyhow::Result<Self> {
        let (file, lines) = watch(file);
        // Flexible, because rows of another length are to be named, not to end the import at once.
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
        let header = match reader.headers() {
            Ok(header) if header.is_empty() => bail!("the file is empty: its first line names the columns"),
            Ok(header) => header.clone(),
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                bail!("the header is not UTF-8: save the file as UTF-8")
            }
            Err(error) => return Err(error).context("cannot read the header"),
        };
        let columns = match Columns::find(&header.iter().collect::<Vec<_>>(), &shape.columns) {
            Ok(columns) => columns,
            Err(error) if error.lacks_description() => {
                bail!("{error}: for another table say --source TEMPLATE --values COLS --time COL")
            }
            Err(error @ ColumnError::NoTime(_)) => {
                bail!("{error}: say --time COL, or --time now if all its readings are of now")
            }
            Err(error) => return Err(error.into()),
        };
        let (zone, row, id) = (shape.zone.clone(), csv::StringRecord::new(), String::new());
        Ok(Self { reader, lines, columns, row, zone, id })
    }

    /// Adds the readings of the next row to the batch, or what is wrong with it. `begin` is told the
    /// line of the row first. `false` at the end of the file.
    pub(super) fn read_row(&mut self, batch: &mut Batch, begin: fn(&mut Batch, u64)) -> anyhow::Result<bool> {
        let mut cells = std::mem::take(&mut self.row).into_byte_record();
        if !self.reader.read_byte_record(&mut cells)? {
            return Ok(false);
        }
        let end = self.reader.position().byte();
        let is_open = self.lines.is_beyond(end);
        // The byte before the position ends the row: what follows it is not read yet.
        let last_line = self.lines.line_of(end.saturating_sub(1));
        let inside: usize = cells.iter().map(|cell| memchr::memchr_iter(b'\n', cell).count()).sum();
        // Those behind the file are on no line of it.
        let inside = if is_open { inside - 2 } else { inside };
        let line = last_line - inside as u64;
        let reason = match csv::StringRecord::from_byte_record(cells) {
            _ if is_open => Some("ends inside a quoted cell: a quote is left open".to_owned()),
            Err(_) => Some("is not UTF-8".to_owned()),
            Ok(row) => {
                self.row = row;
                self.columns.misfit(self.row.len())
            }
        };
        begin(batch, line);
        batch.last_line = last_line;
        match reason {
            Some(reason) => batch.errors.push(LineProblem { line, field: None, reason }),
            None => self.convert(line, batch),
        }
        Ok(true)
    }

    fn convert(&mut self, line: u64, batch: &mut Batch) {
        let row = &self.row;
        let problem = |field: &str, reason: String| LineProblem { line, field: Some(field.to_owned()), reason };
        let stamp = match &self.columns.time {
            None => None,
            Some((at, name)) => match stamp(row[*at].trim(), self.zone.as_ref()) {
                Ok(stamp) => Some(stamp),
                Err(reason) => {
                    batch.errors.push(problem(name, reason));
                    return;
                }
            },
        };
        for (at, name) in &self.columns.values {
            let cell = row[*at].trim();
            if cell.is_empty() && matches!(self.columns.source, Naming::Template(_)) {
                batch.skipped += 1;
                continue;
            }
            let Some(value) = cell.parse().ok().filter(|value: &f64| value.is_finite()) else {
                batch.errors.push(problem(name, format!("\"{cell}\" is not a finite number")));
                continue;
            };
            match &self.columns.source {
                Naming::Column(at) => row[*at].clone_into(&mut self.id),
                Naming::Template(template) => template.fill(|at| &row[at], name, &mut self.id),
            }
            let reading = Reading { source: &self.id, value, timestamp: stamp.as_ref() };
            serde_json::to_writer(&mut batch.body, &reading).expect("a reading is text and finite numbers");
            batch.body.push(b'\n');
            batch.origins.push(Origin { line, column: Some(Arc::clone(name)) });
        }
    }
}

/// What is sent for a time cell.
fn stamp(cell: &str, zone: Option<&Zone>) -> Result<Stamp, String> {
    if cell.is_empty() {
        return Err("is empty: every row needs its time".to_owned());
    }
    if let Ok(integer) = cell.parse() {
        return Ok(Stamp::Integer(integer));
    }
    if let Some(number) = cell.parse().ok().filter(|number: &f64| number.is_finite()) {
        return Ok(Stamp::Number(number));
    }
    let Some(zone) = zone else { return Ok(Stamp::Text(cell.to_owned())) };
    match timestamp::parse(cell, zone) {
        Some(t) => Ok(Stamp::Text(timestamp::format(t))),
        None => Err(format!("\"{cell}\" is not a time: 2026-11-20T05:00:00Z, 2026-11-20 or 2026-11-20 06:00 are")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::batches::Batches;
    use crate::ingest::decode::columns::Wide;

    fn wide(time: Option<&str>, source: &str, values: &str, zone: Option<&str>) -> Shape {
        let values = values.split(',').map(str::to_owned).collect();
        let wide = Some(Wide { source: source.parse().unwrap(), values });
        let columns = columns::Shape { time: time.map(str::to_owned), wide };
        Shape { columns, zone: zone.map(|zone| zone.parse().unwrap()) }
    }

    fn narrow(time: Option<&str>) -> Shape {
        Shape { columns: columns::Shape { time: time.map(str::to_owned), wide: None }, zone: None }
    }

    fn batch(file: &str, shape: &Shape) -> Batch {
        Batches::csv(file.as_bytes(), shape).unwrap().next().unwrap().unwrap()
    }

    /// Lines of the batch as `source value timestamp`; skipped cells counted.
    fn check(file: &str, shape: &Shape, expected: &[&str], skipped: u64) {
        let batch = batch(file, shape);
        assert_eq!(batch.errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
        let lines: Vec<String> = std::str::from_utf8(&batch.body)
            .unwrap()
            .lines()
            .map(|line| {
                let reading: serde_json::Value = serde_json::from_str(line).unwrap();
                let time = reading.get("timestamp").map_or_else(String::new, |t| format!(" {t}"));
                format!("{} {}{time}", reading["source"].as_str().unwrap(), reading["value"])
            })
            .collect();
        assert_eq!((lines, batch.skipped), (expected.iter().map(ToString::to_string).collect(), skipped));
    }

    fn check_errors(file: &str, shape: &Shape, expected: &[&str]) {
        assert_eq!(batch(file, shape).errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{file}");
    }

    fn check_refused(file: &str, shape: &Shape, expected: &str) {
        let error = format!("{:#}", Table::open(file.as_bytes(), shape).err().unwrap());
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn narrow_tables() {
        check("source,value\na,1\nb,-0.1\n", &narrow(None), &["a 1.0", "b -0.1"], 0);
        check("\u{feff}value,source\n1e3,\"a,b\"\r\n", &narrow(None), &["a,b 1000.0"], 0);
        let stamped = "source,value,timestamp\na,1,2026-11-20\na, 2 ,1763614800000\na,3,1763614800000.5\n";
        let expected = ["a 1.0 \"2026-11-20\"", "a 2.0 1763614800000", "a 3.0 1763614800000.5"];
        check(stamped, &narrow(None), &expected, 0);
        check("when,source,value\n2026-11-20,a,1\n", &narrow(Some("when")), &["a 1.0 \"2026-11-20\""], 0);
    }

    #[test]
    fn wide_tables() {
        let file = "date,location,temp_max,temp_min,wind\n2026-07-01,berlin,25.5,,3\n2026-07-02,oslo,19,11,\n";
        let shape = wide(Some("date"), "{location}.{column}", "temp_max,temp_min", None);
        let expected = [
            "berlin.temp_max 25.5 \"2026-07-01\"",
            "oslo.temp_max 19.0 \"2026-07-02\"",
            "oslo.temp_min 11.0 \"2026-07-02\"",
        ];
        check(file, &shape, &expected, 1);
        let shape = wide(Some("date"), "{location}", "wind", Some("Europe/Berlin"));
        check(file, &shape, &["berlin 3.0 \"2026-06-30T22:00:00Z\""], 1);
        check(file, &wide(Some("now"), "w", "wind", None), &["w 3.0"], 1);
    }

    #[test]
    fn every_double_arrives() {
        check(
            "source,value\na,0.1\na,9007199254740993\na,5e-324\n",
            &narrow(None),
            &["a 0.1", "a 9007199254740992.0", "a 5e-324"],
            0,
        );
    }

    #[test]
    fn rows_that_cannot_be_converted_are_named_by_line_and_column() {
        check_errors("source,value\na,1\n\na,x\n", &narrow(None), &["4: value: \"x\" is not a finite number"]);
        check_errors("source,value\r\na,1\r\n\r\na,x\r\n", &narrow(None), &["4: value: \"x\" is not a finite number"]);
        check_errors(
            "source,value\n\"a\nb\",x\na,y",
            &narrow(None),
            &["2: value: \"x\" is not a finite number", "4: value: \"y\" is not a finite number"],
        );
        check_errors("source,value\na,\n", &narrow(None), &["2: value: \"\" is not a finite number"]);
        check_errors(
            "source,value\na,NaN\na,1e999\n",
            &narrow(None),
            &["2: value: \"NaN\" is not a finite number", "3: value: \"1e999\" is not a finite number"],
        );
        check_errors("source,value\n\"a\nb\",1\na\n", &narrow(None), &["4: has 1 cell, the header has 2"]);
        let open = wide(Some("now"), "s", "v", None);
        let file = "v,note\n1,\"fine\"\n2,\"5 in\n3,x\n";
        check_errors(file, &open, &["3: ends inside a quoted cell: a quote is left open"]);
        check("v,note\n1,5\" wide\n2,\"\n\"", &open, &["s 1.0", "s 2.0"], 0);
        let latin_1 = b"source,value\na\xe9,1\nb,x\n".as_slice();
        let batch = Batches::csv(latin_1, &narrow(None)).unwrap().next().unwrap().unwrap();
        let shown: Vec<_> = batch.errors.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["2: is not UTF-8", "3: value: \"x\" is not a finite number"]);
        let batch =
            Batches::csv(b"source,value\n\"\n\xe9\",1\n".as_slice(), &narrow(None)).unwrap().next().unwrap().unwrap();
        assert_eq!(batch.errors[0].to_string(), "2: is not UTF-8");
        let zoned = wide(Some("t"), "{s}", "v", Some("UTC"));
        check_errors(
            "t,s,v\n20.11.2026,a,1\n",
            &zoned,
            &["2: t: \"20.11.2026\" is not a time: 2026-11-20T05:00:00Z, 2026-11-20 or 2026-11-20 06:00 are"],
        );
        check_errors("t,s,v\n,a,1\n", &zoned, &["2: t: is empty: every row needs its time"]);
    }

    #[test]
    fn a_row_over_several_lines_counts_as_all_of_them() {
        let batch = batch("source,value\n\"a\nb\",1\n", &narrow(None));
        assert_eq!((batch.first_line, batch.last_line, batch.lines), (2, 3, 1));
    }

    #[test]
    fn columns_the_file_does_not_have() {
        let file = "date,location,wind\n";
        check_refused(
            file,
            &wide(Some("day"), "{location}", "wind", None),
            "no column \"day\": the header has date, location, wind",
        );
        check_refused(
            file,
            &wide(None, "{place}", "wind", None),
            "no column \"place\": the header has date, location, wind",
        );
        check_refused(file, &wide(None, "x", "wind,gust", None), "no column \"gust\"");
        check_refused("", &narrow(None), "the file is empty");
        check_refused("a,a\n", &wide(None, "x", "a", None), "\"a\" stands in the header twice");
        check_refused(file, &narrow(None), "this one has date, location, wind");
        check_refused(
            file,
            &wide(None, "{location}", "wind", None),
            "the header has date, location, wind: say --time COL, or --time now if all its readings are of now",
        );
        check_refused("source,value,time\n", &narrow(None), "the column \"time\" is none of source,value,timestamp");
        check_refused("source,value\n", &narrow(Some("when")), "no column \"when\"");
    }

    #[test]
    fn a_header_in_another_encoding() {
        let utf_16 = b"\xff\xfes\0o\0,\0\n\0".as_slice();
        let error = Table::open(utf_16, &narrow(None)).err().unwrap();
        assert_eq!(error.to_string(), "the header is not UTF-8: save the file as UTF-8");
    }

    #[test]
    fn problems_of_the_service_are_named_by_line_and_column() {
        let file = "date,temp,wind\n2026-07-01,1,2\n\n2026-07-02,,4\n";
        let batch = batch(file, &wide(Some("date"), "{column}", "temp,wind", None));
        let check = |line: u64, field: &str, expected: &str| {
            let problem = LineProblem { line, field: Some(field.to_owned()), reason: "bad".to_owned() };
            assert_eq!(batch.locate(&problem).to_string(), expected);
        };
        check(2, "value", "2: wind: bad");
        check(3, "value", "4: wind: bad");
        check(3, "timestamp", "4: timestamp: bad");
    }
}
