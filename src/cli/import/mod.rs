//! `meanwhile import`: brings files into a running service, each reading counted once.
//!
//! A file is cut into batches (`batches.rs`; `table.rs` for CSV) that are sent one
//! after the other (`send.rs`), or only looked at (`dry_run.rs`); `verify/` reads files in the same way. Keys made from the content make it safe to repeat an import as a
//! whole for as long as the service remembers them.

mod batches;
mod dry_run;
mod lines;
mod send;
mod table;

use self::batches::{Batch, Batches};
use self::table::Shape;
use super::client::{Client, ClientError, LineProblem};
use super::{Usage, output};
use crate::clock::Clock;
use crate::config::{ServerArgs, duration};
use crate::ingest::decode::columns::{self, Wide};
use crate::ingest::decode::template::Template;
use crate::ingest::decode::time::Precision;
use crate::stats::calendar::{Period, Zone};
use crate::stats::{Millis, timestamp};
use crate::store::MAX_IDEMPOTENCY_TTL;
use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressBarIter, ProgressStyle};
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file name that means standard input.
pub(super) const STDIN: &str = "-";
/// How long a file waits for the service: it can be imported again. Standard input cannot.
const RETRY_FILES_FOR: Duration = Duration::from_mins(1);
/// A whole file may be bad in the same way; the first lines show it.
const PROBLEMS_SHOWN: usize = 100;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile import readings.ndjson
      One reading per line, as in {\"source\": \"kitchen\", \"value\": 21.5,
      \"timestamp\": \"2026-11-20T05:00:00Z\"}; without a timestamp it is of now.
  meanwhile import readings.csv
      A table with the columns source,value and, if it has them, the times in timestamp.
  meanwhile import weather.csv --time date --source '{location}.{column}' --values temp_max,temp_min
      A wide table: each row is two readings, of 'berlin.temp_max' and 'berlin.temp_min'.
  zcat readings.ndjson.gz | meanwhile import - --format ndjson
      From standard input. What was read cannot be read again, so this goes on
      trying until it is acknowledged, however long the service is away.
  meanwhile import weather.csv --time date --source '{location}' --values temp --dry-run
      Says what would be counted, and which lines are bad; sends nothing.

Lines go in batches of 1,000, in the order of the file. A batch with a bad line
is not counted at all, the ones before it are. Repeating an import with the same
options is safe for 7 days: what was counted is not counted again, whatever the
file is called. But import a file when it is complete: if it has grown since, its
last batch is another one and is counted anew.";

/// Files of readings, and how to read them; `verify` takes the same.
#[derive(clap::Args)]
pub(super) struct FileArgs {
    /// Files of readings, in this order; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// What the files are, if their names do not say it (.csv, .ndjson, .jsonl)
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// CSV: the column that holds the time, or 'now' if all readings are of now; a wide table needs
    /// it, a table of source,value has 'timestamp' without it
    #[arg(long, value_name = "COL")]
    time: Option<String>,

    /// Wide CSV: the id of a reading's source; {name} is the row's cell in that column, {column} the
    /// name of the value column, {{ and }} are braces
    #[arg(long, value_name = "TEMPLATE", requires = "values")]
    source: Option<Template>,

    /// Wide CSV: the columns that hold values; an empty cell is no reading
    #[arg(long, value_name = "COLS", value_delimiter = ',', requires = "source")]
    values: Vec<String>,

    /// CSV: the zone of dates and of times without offset [default: that of the service]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<Zone>,

    /// The unit of times that are numbers [default: ms]
    #[arg(long, value_name = "s|ms|us|ns")]
    pub precision: Option<Precision>,
}

#[derive(clap::Args)]
pub struct ImportArgs {
    #[command(flatten)]
    files: FileArgs,

    /// Begin with the batch that holds this line of the file
    #[arg(long, value_name = "N")]
    from_line: Option<u64>,

    /// How long to go on trying while the service cannot be reached or cannot take more [default: 60s
    /// for files, for ever for standard input]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    retry_for: Option<Millis>,

    /// Only look: sources, time range, rows by period, bad lines; nothing is sent
    #[arg(long)]
    dry_run: bool,

    /// The periods to count rows for, as the service has them
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1m,1h,1d", requires = "dry_run")]
    periods: Vec<Period>,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Csv,
    Ndjson,
}

/// What was done so far.
#[derive(Default)]
struct Totals {
    lines: u64,
    accepted: u64,
    /// Of the accepted, those that had been counted before.
    duplicates: u64,
    skipped: u64,
    /// Readings refused as too late, and where the first stands.
    late: u64,
    first_late: Option<String>,
}

/// Imports the files, one after the other.
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let files = check(args)?;
    if args.dry_run {
        return dry_run::run(args, &files);
    }
    let client = Client::new(&args.server)?;
    let started = Clock::System.now();
    let mut totals = Totals::default();
    for (path, format) in files {
        import(args, &client, path, format, &mut totals)?;
    }
    output::note(&totals.summary(started));
    match totals.first_late {
        None => Ok(()),
        Some(first) => Err(anyhow!(
            "{} refused, too late because the bucket had closed, the first at {first}: \
             a service that runs with --late reopen takes what is late",
            output::amount(totals.late, "reading")
        )),
    }
}

/// What can be known to be wrong before anything is sent; the format of each file.
fn check(args: &ImportArgs) -> Result<Vec<(&Path, Format)>, Usage> {
    if args.from_line.is_some() && args.files.files.len() > 1 {
        return Err(Usage("--from-line speaks of one file: import the others by themselves".to_owned()));
    }
    formats(&args.files)
}

/// The format of each file.
pub(super) fn formats(args: &FileArgs) -> Result<Vec<(&Path, Format)>, Usage> {
    let format = |path: &Path| {
        let extension = path.extension().map(OsStr::to_ascii_lowercase);
        let named = match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("csv") => Some(Format::Csv),
            Some("ndjson" | "jsonl") => Some(Format::Ndjson),
            _ => None,
        };
        args.format.or(named).ok_or_else(|| {
            Usage(format!("cannot tell what {} is: add --format csv or --format ndjson", path.display()))
        })
    };
    let files: Vec<(&Path, Format)> =
        args.files.iter().map(|path| Ok((path.as_path(), format(path)?))).collect::<Result<_, Usage>>()?;
    let for_tables = args.time.is_some() || args.source.is_some() || args.timezone.is_some();
    match files.iter().find(|(_, format)| *format == Format::Ndjson) {
        Some((path, _)) if for_tables => Err(Usage(format!(
            "--time, --source, --values and --timezone are for CSV, and {} is NDJSON",
            path.display()
        ))),
        _ => Ok(files),
    }
}

/// A file that is being read.
pub(super) struct Opened {
    /// As it is called in messages.
    pub name: String,
    pub bar: ProgressBar,
    pub batches: Batches<ProgressBarIter<Box<dyn Read>>>,
}

pub(super) fn begin(args: &FileArgs, path: &Path, format: Format) -> anyhow::Result<Opened> {
    let (file, length) = open(path)?;
    let name = if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() };
    let bar = progress(length);
    let file = bar.wrap_read(file);
    let batches = match format {
        Format::Ndjson => Batches::ndjson(file),
        Format::Csv => Batches::csv(file, &shape(args)).with_context(|| name.clone())?,
    };
    Ok(Opened { name, bar, batches })
}

/// `None` is for ever.
fn retry_for(args: &ImportArgs, path: &Path) -> Option<Duration> {
    match args.retry_for {
        Some(given) => Some(Duration::from_millis(given.unsigned_abs())),
        None if path == Path::new(STDIN) => None,
        None => Some(RETRY_FILES_FOR),
    }
}

fn import(args: &ImportArgs, client: &Client, path: &Path, format: Format, totals: &mut Totals) -> anyhow::Result<()> {
    let Opened { name, bar, mut batches } = begin(&args.files, path, format)?;
    let options = options(&args.files, format);
    let target = target(args);
    let retry_for = retry_for(args, path);
    let lines_before = totals.lines;
    while let Some(batch) = batches.next().with_context(|| name.clone())? {
        // Read all the same: only so do the batches begin where they began the first time.
        if args.from_line.is_some_and(|line| batch.last_line < line) {
            continue;
        }
        let imported = totals.lines - lines_before;
        if !batch.errors.is_empty() {
            bar.finish_and_clear();
            return Err(bad_lines(&name, &batch, &batch.errors, batch.errors.len(), imported));
        }
        let say = |text: &str| bar.suspend(|| output::note(text));
        match send::send(client, &target, &batch, &batch.key(&options), retry_for, say) {
            Ok(acknowledged) => totals.add(&name, &batch, &acknowledged),
            Err(error) => {
                bar.finish_and_clear();
                return Err(failed(&name, &batch, &error, imported));
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Opens a file; with its length, if it has one.
fn open(path: &Path) -> anyhow::Result<(Box<dyn Read>, Option<u64>)> {
    if path == Path::new(STDIN) {
        return Ok((Box::new(stdin().lock()), None));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(file), length))
}

/// Shown on a terminal only.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {bytes}, {bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
}

fn shape(args: &FileArgs) -> Shape {
    let wide = |source: &Template| Wide { source: source.clone(), values: args.values.clone() };
    let columns = columns::Shape { time: args.time.clone(), wide: args.source.as_ref().map(wide) };
    Shape { columns, zone: args.timezone.clone() }
}

/// What decides beside the content what is counted, for the keys. Its text never changes for the
/// same options.
fn options(args: &FileArgs, format: Format) -> String {
    let zone = args.timezone.as_ref().map(ToString::to_string);
    let source = args.source.as_ref().map(Template::as_str);
    let format = if format == Format::Csv { "csv" } else { "ndjson" };
    let mut options =
        serde_json::to_string(&(format, &args.time, source, &args.values, zone)).expect("options are text");
    // Came later than the others: without it the text is what it was.
    options.extend(args.precision.map(Precision::symbol));
    options
}

/// Where the batches go.
fn target(args: &ImportArgs) -> String {
    let query = args.files.precision.map(|precision| format!("?precision={}", precision.symbol()));
    format!("/v1/readings{}", query.unwrap_or_default())
}

/// A batch that the service did not take.
fn failed(name: &str, batch: &Batch, error: &ClientError, imported: u64) -> anyhow::Error {
    if let ClientError::Problem(problem) = error
        && !problem.errors.is_empty()
    {
        let located: Vec<_> = problem.errors.iter().map(|error| batch.locate(error)).collect();
        let count = problem.error_count.and_then(|count| count.try_into().ok()).unwrap_or(located.len());
        return bad_lines(name, batch, &located, count, imported);
    }
    let line = batch.first_line;
    anyhow!(
        "{error}\n{name} is imported up to before line {line}; to go on, repeat the same command, \
         or add --from-line {line}"
    )
}

/// Lines that have to be corrected: `FILE:LINE: field: reason`.
fn bad_lines(name: &str, batch: &Batch, problems: &[LineProblem], count: usize, imported: u64) -> anyhow::Error {
    let (first, last) = (batch.first_line, batch.last_line);
    let lines = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
    let mut text = format!("{name} has bad lines; of its {lines} nothing was counted");
    let shown = problems.len().min(PROBLEMS_SHOWN);
    for problem in &problems[..shown] {
        let _ = write!(text, "\n{name}:{problem}");
    }
    if count > shown {
        let _ = write!(text, "\nand {} more", count - shown);
    }
    let imported = output::amount(imported, "line");
    let _ = write!(
        text,
        "\nimported before them: {imported}; correct the bad ones and repeat the same command: \
         what was imported is not counted again"
    );
    anyhow!(text)
}

impl Totals {
    fn add(&mut self, name: &str, batch: &Batch, acknowledged: &send::Acknowledged) {
        self.lines += batch.lines as u64;
        self.accepted += acknowledged.accepted;
        if acknowledged.duplicate {
            self.duplicates += acknowledged.accepted;
        }
        self.skipped += batch.skipped;
        self.late += acknowledged.rejected.len() as u64;
        if let (None, Some(first)) = (&self.first_late, acknowledged.rejected.first()) {
            let problem = LineProblem { line: first.line, field: None, reason: String::new() };
            self.first_late = Some(format!("{name}:{}", batch.locate(&problem).line));
        }
    }

    /// What the import came to. `started` is when its first key may have been recorded.
    fn summary(&self, started: Millis) -> String {
        let (lines, accepted) = (output::amount(self.lines, "line"), output::amount(self.accepted, "reading"));
        let mut text = format!("{lines}, {accepted} accepted");
        if self.duplicates > 0 {
            let _ = write!(text, ", {} of them had been counted already", output::grouped(self.duplicates));
        }
        if self.skipped > 0 {
            let _ = write!(text, ", {} skipped", output::amount(self.skipped, "empty cell"));
        }
        // Keys that were there already are older than this import.
        let until = match self.duplicates {
            0 => timestamp::format((started + MAX_IDEMPOTENCY_TTL) / 1_000 * 1_000),
            _ => "7 days after it was first imported".to_owned(),
        };
        let _ = write!(text, "\nrepeating this import counts nothing twice until {until}");
        text
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
