//! `meanwhile query`: the statistics of sources, bucket by bucket.
//!
//! Asks `GET /v1/sources` for the periods, the time zone and the span of the sources, chooses what
//! was left open (period, range), then follows `GET /v1/stats` page by page, printing each. Numbers
//! are shown in every digit the service sent.

use super::client::Client;
use super::{Usage, output, sources};
use crate::config::ServerArgs;
use crate::stats::calendar::{Calendar, Period};
use crate::stats::{Millis, source, timestamp};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Number;

/// What is shown without a range: a screen, not a history.
const NEWEST_BUCKETS: usize = 50;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile query kitchen
      Shows the newest 50 buckets, of the finest period whose 50 buckets hold all there is.
  meanwhile query kitchen cellar --period 1h --from 2026-11-20 --to 2026-11-21
      Shows the hours of one day of two sources.
  meanwhile query kitchen --period 1m --from 2026-11-01 --format csv > kitchen.csv
      Exports the minutes since the first of November.
  meanwhile query kitchen --format json | jq '.[].mean'
      Prints the means only.

Times are RFC 3339 (2026-11-20T05:00:00Z), dates (2026-11-20) or local times
(2026-11-20T06:00) in the time zone of the service. --from is included, --to is
not; both speak of the start of a bucket. A bucket is open until it is first
written to the sink, settling until it closes, then closed.";

#[derive(clap::Args)]
pub struct QueryArgs {
    /// Ids of the sources
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,

    /// Length of the buckets: 1m, 1h, 1d, ...; one that is not stored is merged from finer ones
    #[arg(long, value_name = "P")]
    period: Option<Period>,

    /// Show buckets that start at this time or later
    #[arg(long, value_name = "T")]
    from: Option<String>,

    /// Show buckets that start before this time
    #[arg(long, value_name = "T")]
    to: Option<String>,

    /// How to print them; text is the classic line 'id, mean, variance'
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Text,
}

/// A row as the service sends it, in the order of its columns.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    source: String,
    period: String,
    start: String,
    end: String,
    count: Number,
    sum: Option<Number>,
    mean: Option<Number>,
    var_pop: Option<Number>,
    var_samp: Option<Number>,
    stddev_pop: Option<Number>,
    stddev_samp: Option<Number>,
    min: Option<Number>,
    max: Option<Number>,
    sum_sq: Option<Number>,
    state: String,
    generation: Number,
    revision: Number,
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

#[derive(Debug, Deserialize)]
struct Page {
    rows: Vec<Row>,
    next: Option<String>,
    /// Either the store or the sink could not be asked.
    #[serde(default)]
    partial: bool,
}

/// Starts of buckets in `[from, to)`; `None` is without bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    from: Option<Millis>,
    to: Option<Millis>,
}

/// Prints the rows asked for on standard output.
pub fn run(args: &QueryArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let (calendar, span) = survey(&client, &args.sources)?;
    let instant = |flag: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => timestamp::parse(text, calendar.zone()).map(Some).ok_or_else(|| {
            Usage(format!(
                "--{flag}: \"{text}\" is not a time: write 2026-11-20T05:00:00Z, 2026-11-20 or 2026-11-20T06:00"
            ))
        }),
    };
    let asked = Range { from: instant("from", &args.from)?, to: instant("to", &args.to)? };
    let (period, range) = plan(&calendar, span, args.period, asked);

    let (period, from, to) = (period.to_string(), range.from.map(timestamp::format), range.to.map(timestamp::format));
    let mut query: Vec<(&str, &str)> = args.sources.iter().map(|source| ("source", source.as_str())).collect();
    query.push(("period", &period));
    query.extend(from.iter().map(|from| ("from", from.as_str())));
    query.extend(to.iter().map(|to| ("to", to.as_str())));

    let mut printer = Printer { format: args.format, calendar, several: args.sources.len() > 1, rows: 0 };
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.clone();
        query.extend(cursor.iter().map(|cursor| ("cursor", cursor.as_str())));
        let page: Page = client.get("/v1/stats", &query)?;
        if page.partial {
            output::note("partial: the service could not ask both its store and its sink");
        }
        output::print(&printer.page(&page.rows)?)?;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    output::print(printer.end())?;
    if printer.rows == 0 {
        output::note(&format!("no {period} buckets in this range"));
    }
    Ok(())
}

/// The calendar of the service, and the starts of the first and last bucket of these sources. A
/// source that is not known has none; the question for its rows will say so, with near ids.
fn survey(client: &Client, ids: &[String]) -> anyhow::Result<(Calendar, Option<(Millis, Millis)>)> {
    let mut calendar = None;
    let mut span: Option<(Millis, Millis)> = None;
    for id in ids {
        // An id is its own first completion in the order of ids.
        let page = sources::page(client, id, Some("1"), None)?;
        if calendar.is_none() {
            let periods: Result<_, _> = page.periods.iter().map(|period| period.parse()).collect();
            let known = periods.and_then(|periods| Calendar::new(periods, page.timezone.parse()?));
            calendar =
                Some(known.context("the service names its periods in a way unknown here; is this client older?")?);
        }
        let zone = calendar.as_ref().expect("set above").zone();
        for source in page.sources.iter().filter(|source| source.source == *id) {
            let (Some(first), Some(last)) =
                (timestamp::parse(&source.first, zone), timestamp::parse(&source.last, zone))
            else {
                continue;
            };
            span = Some(span.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
        }
    }
    Ok((calendar.expect("at least one source is asked for"), span))
}

/// Chooses what was left open. Without a period: the finest whose buckets over the range, or over
/// all there is, are at most [`NEWEST_BUCKETS`]. Without a range: the newest ones of the period.
fn plan(calendar: &Calendar, span: Option<(Millis, Millis)>, period: Option<Period>, asked: Range) -> (Period, Range) {
    let finest = calendar.periods()[0];
    let Some((first, last)) = span else { return (period.unwrap_or(finest), asked) };
    let (from, to) = (asked.from.unwrap_or(first), asked.to.unwrap_or(last + 1));
    let coarsest = *calendar.periods().last().expect("a calendar has a period");
    let fitting = || calendar.periods().iter().copied().find(|&period| fits(calendar, period, from, to));
    let period = period.or_else(fitting).unwrap_or(coarsest);
    if asked != Range::default() {
        return (period, asked);
    }
    let mut oldest = calendar.bucket(period, last);
    for _ in 1..NEWEST_BUCKETS {
        oldest = calendar.bucket(period, oldest.start - 1);
    }
    // Open to the right: what begins while we ask is welcome.
    (period, Range { from: Some(oldest.start), to: None })
}

/// Whether at most [`NEWEST_BUCKETS`] buckets of the period cover `[from, to)`.
fn fits(calendar: &Calendar, period: Period, from: Millis, to: Millis) -> bool {
    let mut end = from;
    for _ in 0..NEWEST_BUCKETS {
        end = calendar.bucket(period, end).end;
        if end >= to {
            return true;
        }
    }
    false
}

/// Turns pages into text; the pages of one answer make one document.
struct Printer {
    format: Format,
    calendar: Calendar,
    /// Whether a table needs the column that tells the sources apart.
    several: bool,
    /// Rows so far.
    rows: usize,
}

impl Printer {
    fn page(&mut self, rows: &[Row]) -> anyhow::Result<Vec<u8>> {
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
            Format::Text => {
                for row in rows {
                    let line =
                        format!("{}, {}, {}\n", row.source, number(row.mean.as_ref()), number(row.var_pop.as_ref()));
                    text.extend_from_slice(line.as_bytes());
                }
            }
        }
        Ok(text)
    }

    /// What closes the document.
    fn end(&self) -> &'static [u8] {
        match self.format {
            Format::Json if self.rows == 0 => b"[]\n",
            Format::Json => b"\n]\n",
            Format::Table | Format::Csv | Format::Text => b"",
        }
    }

    fn table(&self, rows: &[Row]) -> String {
        const NUMBERS: [&str; 5] = ["count", "mean", "stddev", "min", "max"];
        let zone = self.calendar.zone();
        let start = format!("start ({zone})");
        let mut header = vec![start.as_str()];
        header.extend(NUMBERS);
        header.push("state");
        if self.several {
            header.insert(0, "source");
        }
        let row = |row: &Row| {
            let numbers = [row.mean.as_ref(), row.stddev_samp.as_ref(), row.min.as_ref(), row.max.as_ref()];
            let mut cells = vec![output::local_start(&row.start, &row.period, zone), row.count.to_string()];
            cells.extend(numbers.map(number));
            cells.push(row.state.clone());
            if self.several {
                cells.insert(0, row.source.clone());
            }
            cells
        };
        output::table(&header, &NUMBERS, rows.iter().map(row).collect())
    }
}

/// A row in the order of [`COLUMNS`].
fn cells(row: &Row) -> [String; COLUMNS.len()] {
    [
        source::to_cell(&row.source).into_owned(),
        row.period.clone(),
        row.start.clone(),
        row.end.clone(),
        row.count.to_string(),
        number(row.sum.as_ref()),
        number(row.mean.as_ref()),
        number(row.var_pop.as_ref()),
        number(row.var_samp.as_ref()),
        number(row.stddev_pop.as_ref()),
        number(row.stddev_samp.as_ref()),
        number(row.min.as_ref()),
        number(row.max.as_ref()),
        number(row.sum_sq.as_ref()),
        row.state.clone(),
        row.generation.to_string(),
        row.revision.to_string(),
    ]
}

/// A number in the digits it came in; empty if there is none.
fn number(number: Option<&Number>) -> String {
    number.map(Number::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(zone: &str) -> Calendar {
        let periods = ["1m", "1h", "1d"].map(|period| period.parse().unwrap()).to_vec();
        Calendar::new(periods, zone.parse().unwrap()).unwrap()
    }

    /// Instants as text, a `-` for none.
    fn at(text: &str) -> Option<Millis> {
        (text != "-").then(|| timestamp::parse(text, &"UTC".parse().unwrap()).unwrap())
    }

    fn check_plan(zone: &str, span: [&str; 2], period: Option<&str>, asked: [&str; 2], expected: (&str, [&str; 2])) {
        let span = at(span[0]).map(|first| (first, at(span[1]).unwrap()));
        let asked = Range { from: at(asked[0]), to: at(asked[1]) };
        let (got, range) = plan(&calendar(zone), span, period.map(|p| p.parse().unwrap()), asked);
        let shown = |t: Option<Millis>| t.map_or("-".to_owned(), timestamp::format);
        assert_eq!((got.to_string().as_str(), [shown(range.from).as_str(), &shown(range.to)]), expected);
    }

    #[test]
    fn what_is_left_open_is_chosen() {
        let minutes = ["2026-11-20T05:00:00Z", "2026-11-20T05:49:00Z"];
        let open = ["-", "-"];
        // 50 minutes fit as minutes, one more makes hours of them, more than 50 hours make days.
        check_plan("UTC", minutes, None, open, ("1m", ["2026-11-20T05:00:00Z", "-"]));
        check_plan("UTC", [minutes[0], "2026-11-20T05:50:00Z"], None, open, ("1h", ["2026-11-18T04:00:00Z", "-"]));
        check_plan("UTC", ["2026-11-17", minutes[1]], None, open, ("1d", ["2026-10-02T00:00:00Z", "-"]));
        // Years do not fit: the coarsest, the newest 50.
        check_plan("UTC", ["2020-01-01", minutes[1]], None, open, ("1d", ["2026-10-02T00:00:00Z", "-"]));
        // A period that was asked for stands, stored or not; days follow the zone.
        check_plan("UTC", minutes, Some("15m"), open, ("15m", ["2026-11-19T17:30:00Z", "-"]));
        check_plan("Europe/Berlin", minutes, Some("1d"), open, ("1d", ["2026-10-01T22:00:00Z", "-"]));
        // A range stands as it is and decides the period.
        let day = ["2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z"];
        check_plan("UTC", minutes, None, day, ("1h", day));
        check_plan("UTC", minutes, None, [minutes[0], "-"], ("1m", [minutes[0], "-"]));
        check_plan("UTC", open, None, open, ("1m", open));
    }

    const ROWS: &str = r#"{"rows": [
        {"source": "-a,b", "period": "1h", "start": "2026-11-20T05:00:00Z", "end": "2026-11-20T06:00:00Z", "count": 2,
         "sum": 0.30000000000000004, "mean": 0.15000000000000002, "var_pop": 1e-300, "var_samp": 2e-300, "stddev_pop": 1e-150,
         "stddev_samp": 1.5e-150, "min": 0.1, "max": 0.2, "sum_sq": 0.05, "state": "settling", "generation": 7, "revision": 8},
        {"source": "-a,b", "period": "1h", "start": "2026-11-20T06:00:00Z", "end": "2026-11-20T07:00:00Z", "count": 1,
         "sum": 21.5, "mean": 21.5, "var_pop": 0.0, "var_samp": null, "stddev_pop": 0.0, "stddev_samp": null, "min": 21.5,
         "max": 21.5, "sum_sq": 462.25, "state": "open", "generation": 7, "revision": 0}], "next": null}"#;

    /// Prints the two rows as two pages of one answer.
    fn check_format(format: Format, several: bool, expected: &str) {
        let page: Page = serde_json::from_str(ROWS).unwrap();
        let mut printer = Printer { format, calendar: calendar("Europe/Berlin"), several, rows: 0 };
        let mut text = printer.page(&page.rows[..1]).unwrap();
        text.extend(printer.page(&page.rows[1..]).unwrap());
        text.extend_from_slice(printer.end());
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
        let page: serde_json::Value = serde_json::from_str(ROWS).unwrap();
        let parsed: Page = serde_json::from_str(ROWS).unwrap();
        let mut printer = Printer { format: Format::Json, calendar: calendar("UTC"), several: false, rows: 0 };
        assert_eq!(printer.end(), b"[]\n");
        let mut text = printer.page(&parsed.rows[..1]).unwrap();
        text.extend(printer.page(&parsed.rows[1..]).unwrap());
        text.extend_from_slice(printer.end());
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap(), page["rows"]);
    }

    #[test]
    fn tables_show_local_time_and_tell_sources_apart() {
        let page: Page = serde_json::from_str(ROWS).unwrap();
        let mut printer =
            Printer { format: Format::Table, calendar: calendar("Europe/Berlin"), several: false, rows: 0 };
        let expected = "\
start (Europe/Berlin)  count                 mean    stddev   min   max  state
2026-11-20 06:00           2  0.15000000000000002  1.5e-150   0.1   0.2  settling
2026-11-20 07:00           1                 21.5            21.5  21.5  open
";
        assert_eq!(String::from_utf8(printer.page(&page.rows).unwrap()).unwrap(), expected);
        printer.several = true;
        assert!(printer.table(&page.rows).starts_with("source  start (Europe/Berlin)"));
    }
}
