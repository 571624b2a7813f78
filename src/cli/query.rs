//! `meanwhile query`: the statistics of sources, bucket by bucket.
//!
//! Asks `GET /v1/sources` for the periods, the time zone and the span of the sources, chooses what
//! was left open (period, range), then follows `GET /v1/stats` page by page. What is printed of each
//! page is in `query/print.rs`.

mod axis;
pub(super) mod plot;
mod print;

use self::plot::{Band, Look};
use self::print::{Printer, Row};
use super::client::Client;
use super::when::{self, When};
use super::{Usage, output, sources};
use crate::clock::Clock;
use crate::config::{self, ServerArgs};
use crate::stats::calendar::{Calendar, Period, Zone};
use crate::stats::{Millis, timestamp};
use serde::Deserialize;

/// What is shown without a range: a screen, not a history.
const NEWEST_BUCKETS: usize = 50;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile query kitchen
      Shows the newest 50 buckets, of the finest period whose 50 buckets hold all there is.
  meanwhile query kitchen --from -24h --format plot
      Draws the mean of the last 24 hours between minimum and maximum.
  meanwhile query kitchen cellar --period 1h --from yesterday --to today
      Shows the hours of one day of two sources.
  meanwhile query kitchen --period 1m --from 2026-11-01 --format csv > kitchen.csv
      Exports the minutes since the first of November.
  meanwhile query kitchen --period 1d --from 2026-11 --fill null --format csv
      Has a line for every day between the first and the last one with readings.
  meanwhile query kitchen --format json | jq '.[].mean'
      Prints the means only.

--from is included, --to is not; both speak of the start of a bucket. A time is
  now, -90m, -24h      that long ago, to the second
  -7d, -2w, -1mo, -1y  the same time of the day, so many days, weeks, ... ago
  today, yesterday     their first moment
  2026-11, 2026-11-20  the first moment of that month, of that day
  '2026-11-20 06:00', 2026-11-20T06:00:30, 2026-11-20T05:00:00Z
So '--from 2026-10 --to 2026-11' is October, and '--from yesterday --to today'
all of yesterday. Where clocks go back, '02:30' is the first one and a table
shows the offset of the second: 2026-10-25 02:30+01:00.

A bucket is open until it is first written to the sink, settling until it
closes, then closed; with --fill, empty is a bucket that has no reading.";

#[derive(clap::Args)]
pub struct QueryArgs {
    /// Ids of the sources
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,

    /// Length of the buckets: 1m, 1h, 1d, ...; one that is not stored is merged from finer ones
    #[arg(long, value_name = "P")]
    period: Option<Period>,

    /// Show buckets that start at this time or later: -24h, yesterday, 2026-11-20, ...
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    from: Option<When>,

    /// Show buckets that start before this time
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: Option<When>,

    /// Time zone of --from and --to, of tables and of plots [default: that of the service]; days
    /// begin where they begin for the service
    #[arg(long, value_name = "ZONE")]
    timezone: Option<Zone>,

    /// How to print them; text is the classic line 'id, mean, variance'
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Rows also for empty buckets between the first and the last: with nothing in them, or with what
    /// the row before had
    #[arg(long, value_enum, default_value_t = Fill::None)]
    fill: Fill,

    /// What a plot shows around the mean [default: minmax]
    #[arg(long, value_enum)]
    band: Option<Band>,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Text,
    Plot,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fill {
    None,
    Null,
    Previous,
}

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
    if args.band.is_some() && args.format != Format::Plot {
        return Err(Usage("--band is what a plot shows: add --format plot".to_owned()).into());
    }
    let client = Client::new(&args.server)?;
    let (calendar, span) = survey(&client, &args.sources)?;
    let zone = args.timezone.as_ref().unwrap_or(calendar.zone());
    let (from, to) = when::range((&args.from, &args.to), Clock::System.now(), zone)?;
    let asked = Range { from, to };
    let (period, range) = plan(&calendar, span, args.period, asked);

    let (period, from, to) = (period.to_string(), range.from.map(timestamp::format), range.to.map(timestamp::format));
    let mut query: Vec<(&str, &str)> = args.sources.iter().map(|source| ("source", source.as_str())).collect();
    query.push(("period", &period));
    match args.fill {
        // What an older service does not know is not said to it.
        Fill::None => {}
        Fill::Null => query.push(("fill", "null")),
        Fill::Previous => query.push(("fill", "previous")),
    }
    query.extend(from.iter().map(|from| ("from", from.as_str())));
    query.extend(to.iter().map(|to| ("to", to.as_str())));

    let look = Look {
        zone: zone.clone(),
        width: output::width(),
        rows: plot::ROWS,
        unicode: config::locale_is_utf8(),
        band: args.band.unwrap_or_default(),
    };
    let mut printer = Printer::new(args.format, look, args.sources.len() > 1);
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
    output::print(&printer.end())?;
    if printer.rows() == 0 {
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
            calendar = Some(page.calendar()?);
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
    // Open to the right: what begins while we ask is welcome.
    (period, Range { from: Some(newest(calendar, period, last, NEWEST_BUCKETS)), to: None })
}

/// Where the first of so many buckets begins of which the last one holds `last`.
pub(super) fn newest(calendar: &Calendar, period: Period, last: Millis, buckets: usize) -> Millis {
    let mut oldest = calendar.bucket(period, last);
    for _ in 1..buckets {
        oldest = calendar.bucket(period, oldest.start - 1);
    }
    oldest.start
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
}
