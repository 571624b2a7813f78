//! `meanwhile sources`: the known sources with their first and last bucket.
//!
//! Asks `GET /v1/sources`, page by page; `query.rs` and `watch.rs` ask it too, for the span of its sources and the
//! periods and time zone of the service.

use super::client::{Client, ClientError};
use super::output;
use super::output::Format;
use crate::config::{ServerArgs, duration};
use crate::stats::Millis;
use crate::stats::calendar::{Calendar, Zone};
use anyhow::Context;
use serde::{Deserialize, Serialize};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile sources
      Lists all sources.
  meanwhile sources --prefix weather.
      Lists those whose id begins with 'weather.'.
  meanwhile sources --silent 10m
      Lists those whose last bucket ended more than 10 minutes ago.
  meanwhile sources --format json | jq -r '.[].source'
      Prints only the ids.";

#[derive(clap::Args)]
pub struct SourcesArgs {
    /// List only the sources whose id begins with this
    #[arg(long, value_name = "P", default_value = "")]
    prefix: String,

    /// List only the sources whose last bucket ended longer ago than this: 10m, 24h, 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    silent: Option<Millis>,

    /// Time zone of a table [default: that of the service]; json is in UTC
    #[arg(long, value_name = "ZONE")]
    timezone: Option<Zone>,

    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    server: ServerArgs,
}

/// A source as the service lists it; the times are starts of buckets in RFC 3339.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Listed {
    pub source: String,
    pub first: String,
    pub last: String,
}

/// A page of the list, with what the service says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub sources: Vec<Listed>,
    pub next: Option<String>,
    /// The stored periods.
    pub periods: Vec<String>,
    pub timezone: String,
}

impl Page {
    /// The periods and the time zone of the service.
    pub(super) fn calendar(&self) -> anyhow::Result<Calendar> {
        let periods: Result<_, _> = self.periods.iter().map(|period| period.parse()).collect();
        let known = periods.and_then(|periods| Calendar::new(periods, self.timezone.parse()?));
        known.context("the service names its periods in a way unknown here; is this client older?")
    }
}

/// One page: the sources with this prefix in the order of their ids, at most `limit` if given.
pub(super) fn page(
    client: &Client,
    prefix: &str,
    limit: Option<&str>,
    cursor: Option<&str>,
) -> Result<Page, ClientError> {
    ask(client, vec![("prefix", prefix)], limit, cursor)
}

fn ask<'q>(
    client: &Client,
    mut query: Vec<(&'q str, &'q str)>,
    limit: Option<&'q str>,
    cursor: Option<&'q str>,
) -> Result<Page, ClientError> {
    query.extend(limit.map(|limit| ("limit", limit)));
    query.extend(cursor.map(|cursor| ("cursor", cursor)));
    client.get("/v1/sources", &query)
}

/// Lists the sources on standard output.
pub fn run(args: &SourcesArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let silent = args.silent.map(|length| format!("{length}ms"));
    let mut query = vec![("prefix", args.prefix.as_str())];
    query.extend(silent.iter().map(|silent| ("silent_for", silent.as_str())));
    let mut page = ask(&client, query.clone(), None, None)?;
    let zone = args.timezone.clone().map_or_else(|| output::zone(&page.timezone), Ok)?;
    let mut sources = page.sources;
    while let Some(cursor) = page.next {
        page = ask(&client, query.clone(), None, Some(&cursor))?;
        sources.append(&mut page.sources);
    }
    match args.format {
        Format::Table if sources.is_empty() && args.silent.is_some() => output::note("no silent sources"),
        Format::Table if sources.is_empty() => output::note("no sources"),
        Format::Table => output::print(table(&sources, &zone).as_bytes())?,
        Format::Json => {
            let mut json = serde_json::to_vec_pretty(&sources)?;
            json.push(b'\n');
            output::print(&json)?;
        }
    }
    Ok(())
}

fn table(sources: &[Listed], zone: &Zone) -> String {
    let local = |text: &str| output::local_start(text, "", zone);
    let rows = sources.iter().map(|s| vec![s.source.clone(), local(&s.first), local(&s.last)]).collect();
    output::table(&["source", &format!("first bucket ({zone})"), "last bucket"], &[], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_zone_once() {
        let source =
            Listed { source: "a".into(), first: "2026-11-19T23:00:00Z".into(), last: "2026-11-20T05:00:00Z".into() };
        let expected = "source  first bucket (Europe/Berlin)  last bucket\na       2026-11-20 00:00:00           2026-11-20 06:00:00\n";
        assert_eq!(table(&[source], &"Europe/Berlin".parse().unwrap()), expected);
    }
}
