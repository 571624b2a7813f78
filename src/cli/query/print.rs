//! The rows of an answer as text: one document, whatever the number of pages.
//!
//! Called by `query.rs` page by page. Numbers are shown in every digit the service sent; a plot is
//! drawn at the end (`plot.rs`), of points alone, so that a year of minutes fits in memory.

use super::Format;
use super::plot::{self, Band, Look, Point, Series};
use crate::cli::output;
use crate::cli::statistics::{Statistic, Statistics, number};
use crate::stats::{source, timestamp};
use anyhow::bail;
use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A row as the service sends it, in the order of its columns.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Row {
    source: String,
    period: String,
    start: String,
    end: String,
    count: Number,
    #[serde(flatten)]
    of: Statistics,
    state: String,
    generation: Option<Number>,
    revision: Option<Number>,
    /// How many readings it should have, and how many of them it has, where a rule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completeness: Option<f64>,
    /// The place of a row that is not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    filled: bool,
}

const COLUMNS: [&str; 17] = [
    "source",
    "period",
    "start",
    "end",
    "count",
    "sum",
    "mean",
    "var_pop",
    "var_samp",
    "stddev_pop",
    "stddev_samp",
    "min",
    "max",
    "sum_sq",
    "state",
    "generation",
    "revision",
];

/// Turns pages into text; the pages of one answer make one document.
pub(super) struct Printer {
    format: Format,
    look: Look,
    /// Whether a table needs the column that tells the sources apart.
    several: bool,
    /// Rows so far.
    rows: usize,
    /// What there is to draw, by source in the order of their first rows.
    series: Vec<Series>,
    /// Of the rows, for the plot.
    period: String,
}

impl Printer {
    pub(super) fn new(format: Format, look: Look, several: bool) -> Self {
        Self { format, look, several, rows: 0, series: Vec::new(), period: String::new() }
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The text of the rows that follow.
    pub(super) fn page(&mut self, rows: &[Row]) -> anyhow::Result<Vec<u8>> {
        let first = self.rows == 0;
        self.rows += rows.len();
        let mut text = Vec::new();
        match self.format {
            // Aligned within a page: a table of any length is printed as it comes.
            Format::Table if rows.is_empty() => {}
            Format::Table => text = self.table(rows).into_bytes(),
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(text);
                if first {
                    csv.write_record(COLUMNS)?;
                }
                for row in rows {
                    csv.write_record(cells(row))?;
                }
                text = csv.into_inner().map_err(csv::IntoInnerError::into_error)?;
            }
            Format::Json => {
                for (i, row) in rows.iter().enumerate() {
                    text.extend_from_slice(if first && i == 0 { b"[\n" } else { b",\n" });
                    serde_json::to_writer(&mut text, row)?;
                }
            }
            Format::Plot => {
                if let Some(row) = rows.iter().find(|row| matches!(row.of.mean, Some(Statistic::List(_)))) {
                    bail!(
                        "{} has readings that are vectors, which are not plotted: ask for --format table or json",
                        row.source
                    );
                }
                for row in rows {
                    self.collect(row);
                }
            }
            Format::Text => {
                for row in rows.iter().filter(|row| row.of.mean.is_some()) {
                    let line = format!(
                        "{}, {}, {}\n",
                        row.source,
                        number(row.of.mean.as_ref()),
                        number(row.of.var_pop.as_ref())
                    );
                    text.extend_from_slice(line.as_bytes());
                }
            }
        }
        Ok(text)
    }

    /// What closes the document.
    pub(super) fn end(&self) -> Vec<u8> {
        match self.format {
            Format::Json if self.rows == 0 => b"[]\n".to_vec(),
            Format::Json => b"\n]\n".to_vec(),
            Format::Plot => plot::draw(&self.series, &self.period, &self.look).into_bytes(),
            Format::Table | Format::Csv | Format::Text => Vec::new(),
        }
    }

    /// Keeps of a row what is drawn; nothing if it is none.
    fn collect(&mut self, row: &Row) {
        let double = |number: &Option<Statistic>| number.as_ref().and_then(Statistic::double);
        let time = |text: &str| timestamp::parse(text, &self.look.zone);
        let point = || {
            let mean = double(&row.of.mean)?;
            let (low, high) = match self.look.band {
                Band::Minmax => (double(&row.of.min)?, double(&row.of.max)?),
                // Of a single reading there is none.
                Band::Stddev => {
                    double(&row.of.stddev_samp).map_or((mean, mean), |around| (mean - around, mean + around))
                }
            };
            Some(Point { start: time(&row.start)?, end: time(&row.end)?, count: row.count.as_f64()?, mean, low, high })
        };
        let Some(point) = point() else { return };
        match self.series.iter_mut().find(|series| series.source == row.source) {
            Some(series) => series.points.push(point),
            None => self.series.push(Series { source: row.source.clone(), points: vec![point] }),
        }
        self.period.clone_from(&row.period);
    }

    fn table(&self, rows: &[Row]) -> String {
        const NUMBERS: [&str; 5] = ["count", "mean", "stddev", "min", "max"];
        const COMPLETE: &str = "complete";
        let zone = &self.look.zone;
        let start = format!("start ({zone})");
        let mut header = vec![start.as_str()];
        header.extend(NUMBERS);
        let any_expected = rows.iter().any(|row| row.completeness.is_some());
        if any_expected {
            header.push(COMPLETE);
        }
        header.push("state");
        if self.several {
            header.insert(0, "source");
        }
        let row = |row: &Row| {
            let numbers = [row.of.mean.as_ref(), row.of.stddev_samp.as_ref(), row.of.min.as_ref(), row.of.max.as_ref()];
            let mut cells = vec![output::local_start(&row.start, &row.period, zone), row.count.to_string()];
            cells.extend(numbers.map(number));
            if any_expected {
                cells.push(row.completeness.map(|part| format!("{:.1}%", 100.0 * part)).unwrap_or_default());
            }
            cells.push(row.state.clone());
            if self.several {
                cells.insert(0, row.source.clone());
            }
            cells
        };
        output::table(&header, &[&NUMBERS[..], &[COMPLETE]].concat(), rows.iter().map(row).collect())
    }
}

/// A row in the order of [`COLUMNS`].
fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let [sum, mean, var_pop, var_samp, stddev_pop, stddev_samp, min, max, sum_sq] = row.of.cells();
    let version = |number: Option<&Number>| number.map(Number::to_string).unwrap_or_default();
    [
        source::to_cell(&row.source).into_owned(),
        row.period.clone(),
        row.start.clone(),
        row.end.clone(),
        row.count.to_string(),
        sum,
        mean,
        var_pop,
        var_samp,
        stddev_pop,
        stddev_samp,
        min,
        max,
        sum_sq,
        row.state.clone(),
        version(row.generation.as_ref()),
        version(row.revision.as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    const ROWS: &str = r#"[
        {"source": "-a,b", "period": "1h", "start": "2026-11-20T05:00:00Z", "end": "2026-11-20T06:00:00Z", "count": 2,
         "sum": 0.30000000000000004, "mean": 0.15000000000000002, "var_pop": 1e-300, "var_samp": 2e-300, "stddev_pop": 1e-150,
         "stddev_samp": 1.5e-150, "min": 0.1, "max": 0.2, "sum_sq": 0.05, "state": "settling", "generation": 7, "revision": 8},
        {"source": "-a,b", "period": "1h", "start": "2026-11-20T06:00:00Z", "end": "2026-11-20T07:00:00Z", "count": 1,
         "sum": 21.5, "mean": 21.5, "var_pop": 0.0, "var_samp": null, "stddev_pop": 0.0, "stddev_samp": null, "min": 21.5,
         "max": 21.5, "sum_sq": 462.25, "state": "open", "generation": 7, "revision": 0}]"#;

    fn rows() -> Vec<Row> {
        serde_json::from_str(ROWS).unwrap()
    }

    fn printer(format: Format, zone: &str, several: bool) -> Printer {
        let look =
            Look { zone: zone.parse().unwrap(), width: 40, rows: plot::ROWS, unicode: false, band: Band::Stddev };
        Printer::new(format, look, several)
    }

    /// Prints the two rows as two pages of one answer.
    fn check_format(format: Format, several: bool, expected: &str) {
        let mut printer = printer(format, "Europe/Berlin", several);
        let mut text = printer.page(&rows()[..1]).unwrap();
        text.extend(printer.page(&rows()[1..]).unwrap());
        text.extend(printer.end());
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn csv_has_one_header_and_every_digit() {
        let expected = "source,period,start,end,count,sum,mean,var_pop,var_samp,stddev_pop,stddev_samp,min,max,sum_sq,state,generation,revision
\"'-a,b\",1h,2026-11-20T05:00:00Z,2026-11-20T06:00:00Z,2,0.30000000000000004,0.15000000000000002,1e-300,2e-300,1e-150,1.5e-150,0.1,0.2,0.05,settling,7,8
\"'-a,b\",1h,2026-11-20T06:00:00Z,2026-11-20T07:00:00Z,1,21.5,21.5,0.0,,0.0,,21.5,21.5,462.25,open,7,0
";
        check_format(Format::Csv, false, expected);
    }

    #[test]
    fn text_is_the_classic_line() {
        check_format(Format::Text, false, "-a,b, 0.15000000000000002, 1e-300\n-a,b, 21.5, 0.0\n");
    }

    #[test]
    fn json_is_one_array_with_the_rows_as_they_came() {
        let mut printer = printer(Format::Json, "UTC", false);
        assert_eq!(printer.end(), b"[]\n");
        let mut text = printer.page(&rows()[..1]).unwrap();
        text.extend(printer.page(&rows()[1..]).unwrap());
        text.extend(printer.end());
        let expected: serde_json::Value = serde_json::from_str(ROWS).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap(), expected);
    }

    #[test]
    fn tables_show_local_time_and_tell_sources_apart() {
        let mut printer = printer(Format::Table, "Europe/Berlin", false);
        let expected = "\
start (Europe/Berlin)  count                 mean    stddev   min   max  state
2026-11-20 06:00           2  0.15000000000000002  1.5e-150   0.1   0.2  settling
2026-11-20 07:00           1                 21.5            21.5  21.5  open
";
        assert_eq!(String::from_utf8(printer.page(&rows()).unwrap()).unwrap(), expected);
        printer.several = true;
        assert!(printer.table(&rows()).starts_with("source  start (Europe/Berlin)"));
    }
    #[test]
    fn a_plot_comes_at_the_end_with_the_band_of_the_sample() {
        let mut printer = printer(Format::Plot, "UTC", false);
        assert_eq!(printer.page(&rows()).unwrap(), b"");
        let points: Vec<_> = printer.series[0].points.iter().map(|p| (p.count, p.low, p.mean, p.high)).collect();
        assert_eq!(
            points,
            [
                (2.0, 0.150_000_000_000_000_02, 0.150_000_000_000_000_02, 0.150_000_000_000_000_02),
                (1.0, 21.5, 21.5, 21.5)
            ]
        );
        let text = String::from_utf8(printer.end()).unwrap();
        assert!(text.starts_with("-a,b: mean and +- stddev of each 1h\n"), "{text}");
        assert_eq!(printer.rows(), 2);
    }
}
