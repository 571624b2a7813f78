//! `meanwhile errors`: the error log of a service and of all that share its store.
//!
//! Asks `GET /v1/errors`, page by page.

use super::client::Client;
use super::output::Format;
use super::when::When;
use super::{Usage, output};
use crate::clock::Clock;
use crate::config::ServerArgs;
use crate::stats::calendar::Zone;
use crate::stats::timestamp;
use serde::{Deserialize, Serialize};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile errors
      Lists unexpected errors, those seen last first.
  meanwhile errors --view /v1/readings --from -24h
      Lists those of one route that were seen in the last day.
  meanwhile errors --search panic --format json | jq -r '.[].message'
      Prints what those say that have 'panic' in view, class or message.";

#[derive(clap::Args)]
pub struct ErrorsArgs {
    /// List only those of this route or task
    #[arg(long, value_name = "V")]
    view: Option<String>,

    /// List only those seen at this time or later
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    from: Option<When>,

    /// List only those seen before this time
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    to: Option<When>,

    /// List only those with this in view, class or message
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,

    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,

    /// Time zone of the times
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: Zone,

    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    server: ServerArgs,
}

/// An error as the service lists it.
#[derive(Debug, Deserialize, Serialize)]
struct Listed {
    id: String,
    view: String,
    class: String,
    message: String,
    place: String,
    request_id: Option<String>,
    instance: String,
    count: u64,
    first_seen: String,
    last_seen: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    errors: Vec<Listed>,
    next: Option<String>,
    partial: bool,
}

/// Lists the errors on standard output.
pub fn run(args: &ErrorsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server)?;
    let now = Clock::System.now();
    let time = |flag: &str, given: Option<&When>| match given.map(|when| when.at(now, &args.timezone)) {
        Some(None) => Err(Usage(format!("--{flag}: this lies outside the years 0 to 9999"))),
        known => Ok(known.flatten().map(timestamp::format)),
    };
    let (from, to) = (time("from", args.from.as_ref())?, time("to", args.to.as_ref())?);
    let limit = args.limit.to_string();
    let mut query = vec![("limit", &*limit)];
    let filters = [("view", &args.view), ("from", &from), ("to", &to), ("q", &args.search)];
    query.extend(filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
    let page: Page = client.get("/v1/errors", &query)?;
    match args.format {
        Format::Table if page.errors.is_empty() => output::note("no errors"),
        Format::Table => output::print(table(&page.errors, &args.timezone).as_bytes())?,
        Format::Json => {
            let mut json = serde_json::to_vec_pretty(&page.errors)?;
            json.push(b'\n');
            output::print(&json)?;
        }
    }
    if page.next.is_some() {
        output::note(&format!("there are more than {limit}: --limit lists others, --from and --search choose"));
    }
    if page.partial {
        output::note("the store cannot be read: these are only the errors that this instance still holds");
    }
    Ok(())
}

fn table(errors: &[Listed], zone: &Zone) -> String {
    let row = |error: &Listed| {
        let last = output::local_start(&error.last_seen, "", zone);
        let what = format!("{} ({})", error.message, error.place);
        vec![last, error.count.to_string(), error.view.clone(), error.class.clone(), error.id.clone(), what]
    };
    let last = format!("last seen ({zone})");
    output::table(&[&last, "times", "where", "class", "id", "what"], &["times"], errors.iter().map(row).collect())
}
