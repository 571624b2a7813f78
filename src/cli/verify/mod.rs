//! `meanwhile verify`: recomputes rows from the files they came from, exactly, and compares what the service has.
//!
//! Reads the files as `import` does (`import/`), sums up in whole numbers of any size (`exact.rs`), and asks
//! `GET /v1/stats` for the rows. Memory holds `SUMS_AT_ONCE` sums, whatever the size of the files: where they come to
//! more, the files are read again for the next ones.

mod exact;

use self::exact::{Difference, Exact, Stored, VARIANCE_ERROR};
use super::client::{Client, ClientError};
use super::import::{self, FileArgs, Format, Opened};
use super::{Usage, output, sources};
use crate::clock::Clock;
use crate::config::ServerArgs;
use crate::ingest::decode::ndjson::Ndjson;
use crate::ingest::decode::time::Times;
use crate::ingest::decode::{self, Decoded};
use crate::stats::calendar::{Calendar, Period};
use crate::stats::moments::numbers;
use crate::stats::{Millis, timestamp};
use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Sums that are held together, two for a row of numbers and 44 for one of vectors of 8: some 300 MB at most, of long
/// numbers.
const SUMS_AT_ONCE: usize = 1_000_000;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile verify readings.ndjson
      Recomputes the rows of the finest stored period that the file comes to.
  meanwhile verify weather.csv --time date --source '{location}.{column}' --values temp_max,temp_min --period 1mo
      The months of a wide table, with the options it was imported with.

Count, minimum, maximum, sum and mean have to be equal to the last bit: the
double nearest to the exact number. The variance may be off by 1e-11 of the exact
one, a covariance of vectors by as much of both standard deviations. Each difference is a line: source, start of the bucket, field, what is
stored, what is exact. The exit status is 1 if there is one.

All readings of a bucket have to be in the files: name all that were imported.
Buckets that the files do not touch are not looked at.";

#[derive(clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    files: FileArgs,

    /// Length of the buckets [default: the finest stored one]
    #[arg(long, value_name = "P")]
    period: Option<Period>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Source, one number or those of a vector, time.
type Reading = (Arc<str>, Vec<f64>, Millis);

/// A bucket of a source.
type Key = (Arc<str>, Millis);

/// What was compared so far.
#[derive(Default)]
struct Totals {
    rows: u64,
    readings: u64,
    /// Rows whose bucket has not closed: readings may still come.
    unfinished: u64,
    differences: u64,
    /// The greatest relative error of a variance that is right.
    error: f64,
    /// Some were of vectors.
    vectors: bool,
}

/// Compares all rows, and prints what differs.
pub fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let files = import::formats(&args.files)?;
    if args.files.files.iter().any(|path| path == Path::new(import::STDIN)) {
        return Err(
            Usage("files are read more than once where they are long: write standard input to one".to_owned()).into()
        );
    }
    let client = Client::new(&args.server)?;
    let calendar = sources::page(&client, "", Some("1"), None)?.calendar()?;
    let period = args.period.unwrap_or(calendar.periods()[0]);
    let mut totals = Totals::default();
    let mut from = None;
    loop {
        let Held { rows, end, .. } = pass(args, &files, &calendar, period, from)?;
        compare(&client, period, &rows, &mut totals)?;
        from = end;
        if from.is_none() {
            break;
        }
    }
    let summary = totals.summary(period);
    if totals.unfinished > 0 {
        let rows = output::amount(totals.unfinished, "row");
        output::note(&format!(
            "not closed yet: {rows}; what is in the store was compared, and readings may still come"
        ));
    }
    if totals.differences > 0 {
        return Err(anyhow!("{} in {summary}", output::amount(totals.differences, "difference")));
    }
    output::print(format!("{summary}: all equal\n").as_bytes())?;
    Ok(())
}

/// The first rows from a place on, by source and start, that fit into memory.
struct Held {
    /// Sums that are held at most, and how many are.
    most: usize,
    size: usize,
    from: Option<Key>,
    rows: BTreeMap<Key, Exact>,
    /// Where the next ones begin, if there are more.
    end: Option<Key>,
}

impl Held {
    fn new(most: usize, from: Option<Key>) -> Self {
        Self { most, size: 0, from, rows: BTreeMap::new(), end: None }
    }

    /// Adds a reading, if it is of these.
    fn add(&mut self, key: Key, values: &[f64]) -> anyhow::Result<()> {
        if self.from.as_ref().is_some_and(|from| key < *from) || self.end.as_ref().is_some_and(|end| key >= *end) {
            return Ok(());
        }
        match self.rows.get_mut(&key) {
            Some(row) if row.length() != values.len() => {
                let (here, before) = (numbers(values.len()), numbers(row.length()));
                bail!("{here} of \"{}\", whose bucket has readings of {before}: both cannot have been counted", key.0);
            }
            Some(row) => row.push(values),
            None => {
                let row = Exact::of(values);
                self.size += row.size();
                self.rows.insert(key, row);
            }
        }
        while self.size > self.most
            && let Some((key, row)) = self.rows.pop_last()
        {
            self.size -= row.size();
            self.end = Some(key);
        }
        Ok(())
    }
}

/// Reads the files once and sums up the first rows from `from` on.
fn pass(
    args: &VerifyArgs,
    files: &[(&Path, Format)],
    calendar: &Calendar,
    period: Period,
    from: Option<Key>,
) -> anyhow::Result<Held> {
    let mut rows = Held::new(SUMS_AT_ONCE, from);
    let times = Times {
        zone: args.files.timezone.as_ref().unwrap_or(calendar.zone()),
        now: Clock::System.now(),
        precision: args.files.precision.unwrap_or_default(),
    };
    for &(path, format) in files {
        let Opened { name, bar, mut batches } = import::begin(&args.files, path, format)?;
        while let Some(batch) = batches.next().with_context(|| name.clone())? {
            if let Some(problem) = batch.errors.first() {
                bail!("{name}:{problem}; a file with a bad line cannot have been imported as a whole");
            }
            for (i, line) in batch.body.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let place = || format!("{name}:{}", batch.origins.get(i).map_or(0, |origin| origin.line));
                let Some((source, values, time)) = reading(calendar, &times, line).with_context(place)? else {
                    continue;
                };
                rows.add((source, calendar.bucket(period, time).start), &values).with_context(place)?;
            }
        }
        bar.finish_and_clear();
    }
    Ok(rows)
}

/// The reading of a line, decoded as the service does it; `None` if the line is blank.
fn reading(calendar: &Calendar, times: &Times<'_>, line: &[u8]) -> anyhow::Result<Option<Reading>> {
    let mut decoder = Ndjson::new(decode::Batch::new(calendar, *times, false));
    decoder.feed(line)?;
    let Decoded { parts, span, errors, .. } = decoder.finish()?.finish();
    if let Some(error) = errors.first() {
        bail!("{}; a file with a bad line cannot have been imported as a whole", error.reason);
    }
    let Some((time, _)) = span else { return Ok(None) };
    if time == times.now {
        bail!("this reading has no timestamp: it was counted as of the moment it came, which nobody knows now");
    }
    let (source, moments) = &parts[0].deltas[0].sources[0];
    // Of a single reading.
    let values = moments.vector.as_ref().map_or_else(|| vec![moments.min], |vector| vector.min().to_vec());
    Ok(Some((Arc::clone(source), values, time)))
}

#[derive(Deserialize)]
struct Page {
    rows: Vec<Row>,
    next: Option<String>,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct Row {
    start: String,
    count: u64,
    min: Numbers,
    max: Numbers,
    sum: Numbers,
    mean: Numbers,
    var_pop: Numbers,
    covar_pop: Option<Vec<Vec<f64>>>,
    state: String,
}

/// A number, or of vectors a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    One(f64),
    List(Vec<f64>),
}

impl From<Numbers> for Vec<f64> {
    fn from(numbers: Numbers) -> Self {
        match numbers {
            Numbers::One(x) => vec![x],
            Numbers::List(list) => list,
        }
    }
}

/// Asks for the rows of one source after the other and prints what differs.
fn compare(client: &Client, period: Period, rows: &BTreeMap<Key, Exact>, totals: &mut Totals) -> anyhow::Result<()> {
    let mut left = rows.iter().peekable();
    while let Some(((source, first), _)) = left.peek() {
        let (source, first) = (Arc::clone(source), *first);
        let mut of_source = BTreeMap::new();
        while let Some(((_, start), exact)) = left.next_if(|((id, _), _)| *id == source) {
            of_source.insert(*start, exact);
        }
        let last = of_source.last_key_value().map_or(first, |(start, _)| *start);
        let mut stored = stored(client, &source, period, (first, last))?;
        let mut text = String::new();
        for (start, exact) in of_source {
            totals.rows += 1;
            totals.readings += exact.count;
            let at = timestamp::format(start);
            let Some((row, closed)) = stored.remove(&start) else {
                totals.differences += 1;
                let _ =
                    writeln!(text, "{source}  {at}  the row is missing, of {}", output::amount(exact.count, "reading"));
                continue;
            };
            totals.unfinished += u64::from(!closed);
            totals.vectors |= exact.length() > 1;
            if row.mean.len() != exact.length() {
                totals.differences += 1;
                let (stored, exact) = (numbers(row.mean.len()), numbers(exact.length()));
                let _ =
                    writeln!(text, "{source}  {at}  length: stored are readings of {stored}, and these are of {exact}");
                continue;
            }
            let (differences, error) = exact.check(&row);
            totals.differences += differences.len() as u64;
            for Difference { field, stored, exact } in &differences {
                let _ = writeln!(text, "{source}  {at}  {field}: stored {stored}, exact {exact}");
            }
            if error <= VARIANCE_ERROR {
                totals.error = totals.error.max(error);
            }
        }
        output::print(text.as_bytes())?;
    }
    Ok(())
}

/// The rows the service has of a source that start in a range, both ends included, and whether their bucket has closed.
fn stored(
    client: &Client,
    source: &str,
    period: Period,
    (first, last): (Millis, Millis),
) -> anyhow::Result<BTreeMap<Millis, (Stored, bool)>> {
    let (period, from, to) = (period.to_string(), timestamp::format(first), timestamp::format(last + 1));
    let mut found = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("source", source), ("period", &period), ("from", &from), ("to", &to)];
        query.extend(cursor.iter().map(|cursor| ("cursor", cursor.as_str())));
        let page: Page = match client.get("/v1/stats", &query) {
            // Nobody has heard of it: all its rows are missing.
            Err(ClientError::Problem(problem)) if problem.status == 404 => return Ok(found),
            page => page?,
        };
        if page.partial {
            bail!("the service could not ask both its store and its sink: try again when it can");
        }
        for row in page.rows {
            let Row { count, min, max, sum, mean, var_pop, covar_pop, .. } = row;
            let covar = covar_pop.unwrap_or_else(|| vec![var_pop.into()]);
            let [min, max, sum, mean] = [min, max, sum, mean].map(Vec::from);
            let start = timestamp::parse(&row.start, &crate::stats::calendar::Zone::utc());
            let start = start.with_context(|| format!("the service names the time \"{}\"", row.start))?;
            found.insert(start, (Stored { count, min, max, sum, mean, covar }, row.state == "closed"));
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

impl Totals {
    fn summary(&self, period: Period) -> String {
        let (rows, readings) = (output::amount(self.rows, "row"), output::amount(self.readings, "reading"));
        let mut text = format!("{rows} of {period} from {readings}");
        let _ = write!(
            text,
            "; count, min, max, sum and mean to the last bit, {} within {VARIANCE_ERROR:e} ({})",
            if self.vectors { "var_pop and covar_pop" } else { "var_pop" },
            if self.error > 0.0 { format!("at most {:.1e} off", self.error) } else { "none is off".to_owned() }
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Pass by pass, however few rows one holds, come all rows in order, each once and with all its readings.
        #[test]
        fn passes_are_one(readings in prop::collection::vec((0..4u8, 0..9i64, -9..9i32), 0..60), most in 1..8usize) {
            let mut expected: BTreeMap<Key, (u64, f64)> = BTreeMap::new();
            let key = |source: u8, start: Millis| (Arc::from(source.to_string()), start);
            for (source, start, value) in &readings {
                let sum = expected.entry(key(*source, *start)).or_default();
                *sum = (sum.0 + 1, sum.1 + f64::from(*value));
            }
            let (mut got, mut from) = (Vec::new(), None);
            loop {
                // Each has two sums.
                let mut rows = Held::new(2 * most, from);
                for (source, start, value) in &readings {
                    rows.add(key(*source, *start), &[f64::from(*value)]).unwrap();
                }
                prop_assert!(rows.rows.len() <= most);
                got.extend(rows.rows);
                from = rows.end;
                if from.is_none() {
                    break;
                }
            }
            let keys: Vec<&Key> = got.iter().map(|(key, _)| key).collect();
            prop_assert_eq!(keys, expected.keys().collect::<Vec<_>>());
            for ((key, exact), (count, _)) in got.iter().zip(expected.values()) {
                prop_assert_eq!(exact.count, *count, "{:?}", key);
            }
        }
    }
}
