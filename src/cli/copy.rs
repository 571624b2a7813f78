//! `meanwhile copy`: brings the rows of one sink into another, states and versions included.
//!
//! Opens both sinks itself, without a service: a directory that another process writes to is refused by its lock. It
//! keeps no place: a row that is there already is passed over, so a copy that was interrupted is
//! repeated. It holds one page of rows, beside what the sinks hold of the bucket they are at. What a
//! row's version decides is in `stats/row.rs`.

use super::{Usage, output};
use crate::clock::Clock;
use crate::config::{self, SinkUrl};
use crate::sink::csv::{self, CsvSink};
use crate::sink::postgres::PostgresSink;
use crate::sink::{Sink, WriteReport};
use crate::stats::calendar::Zone;
use crate::stats::timestamp;
use crate::telemetry::{self, LogFormat};
use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use tracing_subscriber::layer::Identity;

/// Rows held at once, some 25 MB while they are written: fewer would mean more readings of a bucket
/// that has more.
const PAGE_ROWS: usize = 20_000;
/// How often the progress bar moves by itself.
const DRAW_EVERY: Duration = Duration::from_millis(100);

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile copy --from csv:./meanwhile-data/csv --to csv:/srv/statistics
      Brings all rows into another directory; a service can then go on with
      --sink csv:/srv/statistics.
  meanwhile copy --from csv:old --to csv:new --timezone Europe/Berlin
      The new directory names its dates by the clock of Berlin.
  meanwhile copy --from csv:./meanwhile-data/csv --to postgres://meanwhile@db/statistics
      Brings them into a table, and copies back with --from and --to exchanged.

Stop the service first: a directory in use is refused, because rows written meanwhile
would be missing; a table is not, so repeat the copy if something wrote to it. What is still open stays in the store and goes on in the new sink. Rows
are copied to the bit; where both have one, the newer version stays. A copy that was
interrupted is repeated: it ends as if it had not been. Nothing is removed from --from,
but its directory must be writable, since it is locked and repaired if a crash left
something half done: of a read-only backup make a copy first (cp -a).";

#[derive(clap::Args)]
pub struct CopyArgs {
    /// The sink to read: csv:DIR, or postgres://USER@HOST:PORT/DATABASE (the password may stand in ~/.pgpass)
    #[arg(long, value_name = "SINK")]
    from: String,

    /// The sink to bring its rows to: csv:DIR, which is made if it is not there, or postgres://...
    #[arg(long, value_name = "SINK")]
    to: String,

    /// The zone by whose dates a new directory names its days [default: that of --from]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<Zone>,
}

/// Copies everything, and says what it came to.
pub fn run(args: &CopyArgs) -> anyhow::Result<()> {
    let (from, to) = (sink("--from", &args.from)?, sink("--to", &args.to)?);
    if are_same(&from, &to) {
        return Err(Usage(format!("--from and --to are the same sink, {to}: name another one")).into());
    }
    telemetry::install("warn", LogFormat::Text, Identity::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let (source, zone) = open_source(&from).with_context(|| format!("--from {from}"))?;
        let target = open_target(&to, args.timezone.as_ref(), zone).await;
        let target = target.with_context(|| format!("--to {to}"))?;
        let mut report = WriteReport::default();
        let bar = progress();
        let copied = copy(&*source, &*target, &bar, &mut report).await;
        bar.finish_and_clear();
        match copied {
            Ok(()) if report.refused > 0 => bail!(
                "{}; {} rows the table would not take, which are set aside in dead_letters with the reason",
                summary(&report, &to),
                output::grouped(report.refused as u64),
            ),
            Ok(()) => output::note(&summary(&report, &to)),
            Err(error) => bail!("{error:#}\n{}; to go on, repeat the same command", summary(&report, &to)),
        }
        Ok(())
    })
}

/// The rows, and then the final form of what is over: nobody else has the target.
async fn copy(from: &dyn Sink, to: &dyn Sink, bar: &ProgressBar, report: &mut WriteReport) -> anyhow::Result<()> {
    let reading = || format!("--from {}", from.name());
    let writing = || format!("--to {}", to.name());
    let mut after: Option<String> = None;
    loop {
        let page = from.scan(after.as_deref(), PAGE_ROWS).await.with_context(reading)?;
        if let Some(last) = page.rows.last() {
            bar.set_message(format!("{} {}", last.bucket.period, timestamp::format(last.bucket.start)));
        }
        let rows = page.rows.len();
        let WriteReport { written, same, older, refused } = to.put(page.rows).await.with_context(writing)?;
        report.written += written;
        report.same += same;
        report.older += older;
        report.refused += refused;
        bar.inc(rows as u64);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let partitions = to.compactable(Clock::System.now()).await.with_context(writing)?;
    for (done, partition) in partitions.iter().enumerate() {
        bar.set_message(format!("final form of {} of {}", done + 1, partitions.len()));
        to.compact(partition).await.with_context(writing)?;
    }
    Ok(())
}

fn summary(report: &WriteReport, to: &SinkUrl) -> String {
    let [written, same, older] = [report.written, report.same, report.older].map(|rows| output::grouped(rows as u64));
    format!("{written} rows written, {same} already there, {older} older than those of {to}")
}

/// Shown on a terminal only. How many rows there are is known when all are read.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} rows, {rate}/s, {msg}");
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // A bar that cannot be drawn is no reason to stop.
        let _ = out.write_str(&output::grouped(state.per_sec() as u64));
    };
    let bar = ProgressBar::no_length().with_style(style.expect("the template is valid").with_key("rate", rate));
    bar.enable_steady_tick(DRAW_EVERY);
    bar
}

/// Not left to the parser of flags, which would print an address with its password.
fn sink(flag: &str, url: &str) -> Result<SinkUrl, Usage> {
    config::sink(url).map_err(|reason| Usage(format!("{flag}: {reason}")))
}

fn are_same(from: &SinkUrl, to: &SinkUrl) -> bool {
    match (from, to) {
        (SinkUrl::Postgres(from), SinkUrl::Postgres(to)) => from == to,
        (SinkUrl::Csv(_), SinkUrl::Postgres(_)) | (SinkUrl::Postgres(_), SinkUrl::Csv(_)) => false,
        (SinkUrl::Csv(from), SinkUrl::Csv(to)) => {
            // What is not there yet is no other.
            from == to || fs::canonicalize(from).ok().is_some_and(|from| fs::canonicalize(to).ok() == Some(from))
        }
    }
}

/// The sink, and the zone by which a new one begins; a table has none.
fn open_source(url: &SinkUrl) -> anyhow::Result<(Box<dyn Sink>, Option<Zone>)> {
    match url {
        SinkUrl::Postgres(address) => Ok((Box::new(PostgresSink::new(address.reveal(), url.to_string())?), None)),
        SinkUrl::Csv(dir) => match csv::begun_in(dir)? {
            Some(zone) => Ok((Box::new(CsvSink::open(dir, zone.clone())?), Some(zone))),
            None if !dir.exists() => Err(anyhow!("there is no such directory")),
            None => Err(anyhow!(
                "no sink has been in this directory: the file .zone is missing, which says by which time zone its \
                 dates are named; if it was left behind when the rows were moved here, bring it as well"
            )),
        },
    }
}

async fn open_target(url: &SinkUrl, timezone: Option<&Zone>, otherwise: Option<Zone>) -> anyhow::Result<Box<dyn Sink>> {
    match url {
        SinkUrl::Postgres(_) if timezone.is_some() => {
            Err(Usage("--timezone: a table has no directories to name: leave it out".to_owned()).into())
        }
        SinkUrl::Postgres(address) => {
            let sink = PostgresSink::new(address.reveal(), url.to_string())?;
            sink.prepare().await?;
            Ok(Box::new(sink))
        }
        SinkUrl::Csv(dir) => {
            let zone = match (csv::begun_in(dir)?, timezone) {
                (Some(begun), Some(given)) if begun != *given => {
                    return Err(Usage(format!(
                        "--timezone: the dates of {} are those of {begun}, in which it was begun: leave --timezone out",
                        dir.display()
                    ))
                    .into());
                }
                (Some(begun), _) => begun,
                (None, _) if holds_files(dir)? => {
                    bail!("the directory holds other files and no sink: choose a new or an empty one")
                }
                (None, given) => given.cloned().or(otherwise).ok_or_else(|| {
                    Usage(
                        "--timezone: say by which zone the new directory names its dates: that of the service, \
                         which a table does not know"
                            .to_owned(),
                    )
                })?,
            };
            Ok(Box::new(CsvSink::open(dir, zone)?))
        }
    }
}

/// Whether there is anything in a directory but for files such as the lock of a start that was cut off.
fn holds_files(dir: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            Ok(entries.any(|entry| entry.is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", dir.display())),
    }
}
