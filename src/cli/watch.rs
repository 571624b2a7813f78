//! `meanwhile watch`: chosen sources in the terminal, as they change.
//!
//! Asks `GET /v1/sources` for the periods and the time zone, then listens to `GET /v1/stream`
//! (`watch/follow.rs`). On a terminal the state (`watch/state.rs`) is drawn (`watch/terminal.rs`, `watch/screen.rs`),
//! else each event is a line (`watch/plain.rs`). The first connection is made or fails as with every command; later
//! ones are tried until the command is ended.

mod events;
mod follow;
mod plain;
mod screen;
mod state;
mod terminal;

use self::follow::{Follower, History};
use self::screen::Look;
use self::state::{State, Update};
use super::client::Client;
use super::{Usage, output, sources};
use crate::config::{self, ServerArgs};
use crate::stats::calendar::{Period, Zone};
use std::io::{IsTerminal, stdout};
use std::sync::mpsc::{self, Receiver};

/// Each has two of the 100 channels a connection may listen to.
const MAX_SOURCES: usize = 50;
/// Updates that wait to be shown; beyond them the service is kept waiting, which then has limits of its own.
const MAX_UPDATES: usize = 1_000;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile watch kitchen
      Shows the present buckets of 'kitchen' as they move, and the minutes that have closed.
  meanwhile watch kitchen cellar --period 1h
      Shows two sources, and the hours that have closed.
  meanwhile watch kitchen --plain | grep ^closed >> closed.txt
      Writes a line for each closed bucket.

Keys: q, Esc or Ctrl-C ends; Tab, the arrows, j and k choose the source whose
closed buckets are shown. A broken connection is tried again until you end it;
then nothing is missing that the service still knows. A source that has no
readings yet is waited for.

With --plain, and wherever standard output is no terminal, each event is a line
(of the present buckets one each), its cells separated by tabs:
  live       source, period, start, count, mean, stddev, min, max
  live       source, 'no readings' (in the present buckets)
  closed     the same as live; a bucket that comes again was corrected
  recovered  source, 'all' or 'not all': whether what was missed has come
  gap        source, how many events were left out, or 'unknown'
What becomes of the connection goes to standard error.";

#[derive(clap::Args)]
pub struct WatchArgs {
    /// Ids of the sources, up to 50
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,

    /// Length of the closed buckets that are shown: one the service stores [default: the finest];
    /// with --plain, of all buckets [default: every one]
    #[arg(long, value_name = "P")]
    period: Option<Period>,

    /// Time zone of the starts [default: that of the service]; days begin where they begin for the
    /// service
    #[arg(long, value_name = "ZONE")]
    timezone: Option<Zone>,

    /// Print a line for each event instead of taking the screen
    #[arg(long)]
    plain: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Shows what happens until it is ended.
pub fn run(args: &WatchArgs) -> anyhow::Result<()> {
    let mut ids: Vec<String> = Vec::new();
    for id in &args.sources {
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    if ids.len() > MAX_SOURCES {
        return Err(Usage(format!("{} sources are given, at most {MAX_SOURCES} can be watched", ids.len())).into());
    }
    let client = Client::new(&args.server)?;
    let calendar = sources::page(&client, &ids[0], Some("1"), None)?.calendar()?;
    let stored = calendar.periods();
    if let Some(period) = args.period.filter(|period| !stored.contains(period)) {
        let stored = stored.iter().map(Period::to_string).collect::<Vec<_>>().join(", ");
        return Err(Usage(format!("--period: the service does not store {period}: choose one of {stored}")).into());
    }
    let zone = args.timezone.clone().unwrap_or_else(|| calendar.zone().clone());
    let period = args.period.unwrap_or(stored[0]);
    let plain = args.plain || !stdout().is_terminal();

    let history = (!plain).then_some(History { calendar, period });
    let follower = Follower::new(client, ids.clone(), history);
    let stream = follower.connect()?;
    let (sender, updates) = mpsc::sync_channel(MAX_UPDATES);
    std::thread::spawn(move || follower.run(stream, &sender));
    if plain {
        return print(&updates, args.period, &zone);
    }
    let look = Look { zone, unicode: config::locale_is_utf8(), url: config::Secret::new(&args.server.url) };
    terminal::run(&updates, State::new(&ids, period), &look)
}

/// A line for each event, until nobody reads them.
fn print(updates: &Receiver<Update>, period: Option<Period>, zone: &Zone) -> anyhow::Result<()> {
    for update in updates {
        if let Some(note) = plain::note(&update) {
            output::note(&note);
        }
        let lines = plain::lines(&update, period, zone);
        if !lines.is_empty() {
            output::print(lines.as_bytes())?;
        }
    }
    anyhow::bail!("what listens to the service has ended by itself")
}
