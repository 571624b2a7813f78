//! `meanwhile summary`: sources summed up over any range of time.
//!
//! Asks `GET /v1/sources` for the time zone, then `GET /v1/summary`, once: the service merges what it has stored.

use super::client::Client;
use super::statistics::{Statistics, number};
use super::when::{self, When};
use super::{Usage, output, sources};
use crate::clock::Clock;
use crate::config::ServerArgs;
use crate::stats::calendar::{Period, Zone};
use crate::stats::{Millis, source, timestamp};
use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile summary kitchen cellar
      All readings there are, in one row for each source.
  meanwhile summary --prefix weather. --from 2026-10 --to 2026-11
      October, in one row for each source whose id begins with 'weather.'.
  meanwhile summary --prefix '' --from -7d --by period --period 1d
      All sources together, day by day.
  meanwhile summary --group region:west --from -24h
      One group that the rules make, over the last day.
  meanwhile summary --prefix '' --by none --format json | jq '.rows[0].count'
      How many readings there are.

The readings are those of --from and later, and before --to; times are written
as in 'meanwhile query --help'. What is summed up are stored buckets, so an end
inside of one of the finest period takes in all of it: a note then says what is
covered, and json has it as 'covered'.";

#[derive(clap::Args)]
pub struct SummaryArgs {
    /// Ids of the sources
    #[arg(value_name = "SOURCE", required_unless_present_any = ["prefix", "group"])]
    sources: Vec<String>,

    /// And this group of the rules: the same as the source 'group:...'
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// And all sources whose id begins with this; '' is all there are, without groups
    #[arg(long, value_name = "P")]
    prefix: Option<String>,

    /// Sum up readings of this time or later: -24h, yesterday, 2026-11-20, ... [default: all]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    from: Option<When>,

    /// Sum up readings before this time
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: Option<When>,

    /// One row for each source, for each bucket of --period, or for everything
    #[arg(long, value_enum, default_value_t = By::Source)]
    by: By,

    /// With --by period: 1h, 1d, ... [default: the coarsest stored one]
    #[arg(long, value_name = "P")]
    period: Option<Period>,

    /// Time zone of --from and --to and of tables [default: that of the service]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<Zone>,

    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Source,
    Period,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Deserialize)]
struct Answer {
    covered: Option<Covered>,
    rows: Vec<Row>,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct Covered {
    from: String,
    to: String,
}

/// A row as the service sends it, in the order of its columns.
#[derive(Deserialize)]
struct Row {
    source: Option<String>,
    start: String,
    end: String,
    count: Number,
    #[serde(flatten)]
    of: Statistics,
    state: String,
}

const COLUMNS: [&str; 14] = [
    "source",
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
];

/// Prints the summary on standard output.
pub fn run(args: &SummaryArgs) -> anyhow::Result<()> {
    if args.period.is_some() && args.by != By::Period {
        return Err(Usage("--period is what --by period sums up by: add that".to_owned()).into());
    }
    let client = Client::new(&args.server)?;
    let calendar = sources::page(&client, "", Some("1"), None)?.calendar()?;
    let zone = args.timezone.as_ref().unwrap_or(calendar.zone());
    let (from, to) = when::range((&args.from, &args.to), Clock::System.now(), zone)?;
    let (from_text, to_text) = (from.map(timestamp::format), to.map(timestamp::format));
    let period = args.period.map(|period| period.to_string());

    let mut query: Vec<(&str, &str)> = args.sources.iter().map(|source| ("source", source.as_str())).collect();
    query.extend(args.group.iter().map(|group| ("group", group.as_str())));
    query.extend(args.prefix.iter().map(|prefix| ("prefix", prefix.as_str())));
    query.extend(from_text.iter().map(|from| ("from", from.as_str())));
    query.extend(to_text.iter().map(|to| ("to", to.as_str())));
    query.push((
        "by",
        match args.by {
            By::Source => "source",
            By::Period => "period",
            By::None => "none",
        },
    ));
    query.extend(period.iter().map(|period| ("period", period.as_str())));
    let json: Box<RawValue> = client.get("/v1/summary", &query)?;
    let answer: Answer = serde_json::from_str(json.get())?;

    if answer.partial {
        output::note("partial: the service could not ask both its store and its sink");
    }
    if let Some(note) = answer.covered.as_ref().and_then(|covered| rounded(covered, (from, to), zone)) {
        output::note(&note);
    }
    match args.format {
        Format::Json => output::print(format!("{}\n", json.get()).as_bytes())?,
        Format::Csv => output::print(&csv(&answer.rows)?)?,
        Format::Table if answer.rows.is_empty() => output::note("no readings in this range"),
        Format::Table => output::print(table(&answer.rows, args.by, args.period, zone).as_bytes())?,
    }
    Ok(())
}

/// What to say where more is covered than was asked for.
fn rounded(covered: &Covered, (from, to): (Option<Millis>, Option<Millis>), zone: &Zone) -> Option<String> {
    let moved =
        |asked: Option<Millis>, text: &str| asked.is_some_and(|asked| timestamp::parse(text, zone) != Some(asked));
    if !moved(from, &covered.from) && !moved(to, &covered.to) {
        return None;
    }
    let [start, end] = [&covered.from, &covered.to].map(|text| output::local_start(text, "", zone));
    Some(format!("covered: {start} to {end} ({zone}), whole buckets of the finest stored period"))
}

fn csv(rows: &[Row]) -> anyhow::Result<Vec<u8>> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for row in rows {
        let source = row.source.as_deref().map(source::to_cell).unwrap_or_default();
        let statistics = row.of.cells();
        let before = [&*source, &row.start, &row.end, &row.count.to_string()];
        let cells = before.into_iter().chain(statistics.iter().map(String::as_str)).chain([row.state.as_str()]);
        csv.write_record(cells)?;
    }
    Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

fn table(rows: &[Row], by: By, period: Option<Period>, zone: &Zone) -> String {
    const NUMBERS: [&str; 5] = ["count", "mean", "stddev", "min", "max"];
    let (start, end) = (format!("start ({zone})"), "end");
    let mut header = match by {
        By::Source => vec!["source"],
        By::Period => vec![start.as_str()],
        By::None => vec![start.as_str(), end],
    };
    header.extend(NUMBERS);
    header.push("state");
    let period = period.map(|period| period.to_string()).unwrap_or_default();
    let local = |text: &str| output::local_start(text, &period, zone);
    let row = |row: &Row| {
        let mut cells = match by {
            By::Source => vec![row.source.clone().unwrap_or_default()],
            By::Period => vec![local(&row.start)],
            By::None => vec![local(&row.start), local(&row.end)],
        };
        cells.push(row.count.to_string());
        let Statistics { mean, stddev_samp, min, max, .. } = &row.of;
        cells.extend([mean, stddev_samp, min, max].map(|statistic| number(statistic.as_ref())));
        cells.push(row.state.clone());
        cells
    };
    output::table(&header, &NUMBERS, rows.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered_is_said_where_it_is_not_what_was_asked_for() {
        let covered = Covered { from: "2026-11-20T05:00:00Z".into(), to: "2026-11-20T06:00:00Z".into() };
        let check = |from: &str, to: &str, expected: Option<&str>| {
            let [from, to] = [from, to].map(|text| timestamp::parse(text, &Zone::utc()));
            assert_eq!(rounded(&covered, (from, to), &"Europe/Berlin".parse().unwrap()).as_deref(), expected);
        };
        check("2026-11-20T05:00", "2026-11-20T06:00", None);
        check("-", "-", None);
        let note = "covered: 2026-11-20 06:00:00 to 2026-11-20 07:00:00 (Europe/Berlin), whole buckets of the finest stored period";
        check("2026-11-20T05:00:01", "-", Some(note));
        check("-", "2026-11-20T05:59", Some(note));
    }
}
