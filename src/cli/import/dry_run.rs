//! `meanwhile import --dry-run`: what an import would count, found out without the service.
//!
//! Called by `mod.rs`. The batches are those of the import and are decoded as the service does it, so
//! a line that is bad here is bad there. What only the service knows is assumed and said: periods,
//! time zone, and that no bucket has closed. Memory grows with the rows, not with the readings.

use super::batches::Batch;
use super::{Format, ImportArgs, Opened, PROBLEMS_SHOWN, begin};
use crate::cli::client::LineProblem;
use crate::cli::output;
use crate::clock::Clock;
use crate::ingest::decode::ndjson::Ndjson;
use crate::ingest::decode::time::{Precision, Times};
use crate::ingest::decode::{self, Decoded};
use crate::stats::calendar::{Bucket, Calendar, Zone};
use crate::stats::moments::Moments;
use crate::stats::vectors::Vectors;
use crate::stats::{Millis, timestamp};
use anyhow::{Context, anyhow};
use ndarray::ArrayView1;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// A template may make one source for every row by mistake; the first ones show it.
const SOURCES_SHOWN: usize = 20;

/// What was seen so far.
struct Seen {
    calendar: Calendar,
    now: Millis,
    precision: Precision,
    lines: u64,
    readings: u64,
    /// Empty cells.
    empty: u64,
    span: Option<(Millis, Millis)>,
    /// Number and moments of each source.
    sources: BTreeMap<Arc<str>, (usize, Moments)>,
    /// Source number and start, for each period of the calendar.
    rows: Vec<HashSet<(usize, Millis)>>,
    /// The first bad lines, and how many there are.
    problems: Vec<String>,
    problem_count: u64,
}

/// Looks at the files, one after the other, and prints what it has seen.
pub(super) fn run(args: &ImportArgs, files: &[(&Path, Format)]) -> anyhow::Result<()> {
    let zone = args.files.timezone.clone().unwrap_or_else(Zone::utc);
    let calendar = Calendar::new(args.periods.clone(), zone)?;
    let mut seen = Seen::new(calendar, Clock::System.now(), args.files.precision.unwrap_or_default());
    for &(path, format) in files {
        let Opened { name, bar, mut batches } = begin(&args.files, path, format)?;
        while let Some(batch) = batches.next().with_context(|| name.clone())? {
            if args.from_line.is_none_or(|line| batch.last_line >= line) {
                seen.look_at(&name, &batch)?;
            }
        }
        bar.finish_and_clear();
    }
    output::print(seen.report().as_bytes())?;
    if seen.problem_count == 0 {
        return Ok(());
    }
    let count = output::grouped(seen.problem_count);
    let shown = seen.problems.join("\n");
    let more = match seen.problem_count - seen.problems.len() as u64 {
        0 => String::new(),
        more => format!("\nand {} more", output::grouped(more)),
    };
    Err(anyhow!("bad lines or cells: {count}; an import stops at the batch of the first\n{shown}{more}"))
}

impl Seen {
    fn new(calendar: Calendar, now: Millis, precision: Precision) -> Self {
        Self {
            rows: vec![HashSet::new(); calendar.periods().len()],
            calendar,
            now,
            precision,
            lines: 0,
            readings: 0,
            empty: 0,
            span: None,
            sources: BTreeMap::new(),
            problems: Vec::new(),
            problem_count: 0,
        }
    }

    fn look_at(&mut self, name: &str, batch: &Batch) -> anyhow::Result<()> {
        let times = Times { zone: self.calendar.zone(), now: self.now, precision: self.precision };
        let mut decoder = Ndjson::new(decode::Batch::new(&self.calendar, times, false));
        decoder.feed(&batch.body)?;
        let decoded = decoder.finish()?.finish();
        self.lines += batch.lines as u64;
        self.readings += decoded.readings as u64;
        self.empty += batch.skipped;
        self.problem_count += batch.errors.len() as u64 + decoded.error_count as u64;
        let found = decoded.errors.iter().map(|error| {
            let (field, reason) = (error.field.clone(), error.reason.clone());
            batch.locate(&LineProblem { line: error.line as u64, field, reason })
        });
        let mut problems: Vec<_> = batch.errors.iter().cloned().chain(found).collect();
        problems.sort_by_key(|problem| problem.line);
        let room = PROBLEMS_SHOWN - self.problems.len();
        self.problems.extend(problems.iter().take(room).map(|problem| format!("{name}:{problem}")));
        self.add(&decoded);
        Ok(())
    }

    fn add(&mut self, decoded: &Decoded) {
        if let Some((earliest, latest)) = decoded.span {
            let (before, after) = self.span.unwrap_or((earliest, latest));
            self.span = Some((before.min(earliest), after.max(latest)));
        }
        for deltas in decoded.parts.iter().flat_map(|part| &part.deltas) {
            let mut buckets = Vec::new();
            deltas.buckets.iter().for_each(|root| with_ancestors(&self.calendar, *root, &mut buckets));
            for (id, moments) in &deltas.sources {
                let next = self.sources.len();
                let (number, all) = self.sources.entry(Arc::clone(id)).or_insert((next, Moments::EMPTY));
                if let Err(unlike) = all.try_merge(moments) {
                    // One length may follow another with the next day; that is for the service to judge.
                    tracing::debug!(source = &**id, "shown are readings of the first length: {unlike}");
                }
                for &(place, start) in &buckets {
                    self.rows[place].insert((*number, start));
                }
            }
        }
    }

    fn report(&self) -> String {
        let (lines, readings) = (output::amount(self.lines, "line"), output::amount(self.readings, "reading"));
        let mut text = format!("{lines}, {readings}");
        if self.empty > 0 {
            let _ = write!(text, ", {} skipped", output::amount(self.empty, "empty cell"));
        }
        text.push_str("; nothing was sent\n");
        let Some((earliest, latest)) = self.span else { return text };
        let _ = writeln!(text, "from {} to {}\n", timestamp::format(earliest), timestamp::format(latest));
        let sources = self.sources.iter().take(SOURCES_SHOWN).map(|(id, (_, moments))| {
            vec![
                id.to_string(),
                output::grouped(moments.count as u64),
                extreme(moments, moments.min, Vectors::min),
                extreme(moments, moments.max, Vectors::max),
            ]
        });
        let numbers = ["readings", "min", "max"];
        text.push_str(&output::table(&["source", "readings", "min", "max"], &numbers, sources.collect()));
        match self.sources.len().saturating_sub(SOURCES_SHOWN) {
            0 => {}
            more => _ = writeln!(text, "and {}", output::amount(more as u64, "more source")),
        }
        let heading = format!("rows ({})", self.calendar.zone());
        let rows = self.calendar.periods().iter().zip(&self.rows);
        let rows = rows.map(|(period, rows)| vec![period.to_string(), output::grouped(rows.len() as u64)]).collect();
        let _ = write!(text, "\n{}", output::table(&["period", &heading], &[&heading], rows));
        text
    }
}

/// Places among the periods and starts of a bucket and of all into which it will have moved in the end.
fn with_ancestors(calendar: &Calendar, bucket: Bucket, found: &mut Vec<(usize, Millis)>) {
    let place = calendar.periods().iter().position(|period| *period == bucket.period).expect("a stored period");
    found.push((place, bucket.start));
    for parent in calendar.parents(&bucket) {
        with_ancestors(calendar, parent, found);
    }
}
/// A minimum or a maximum; of vectors one for each component.
fn extreme(moments: &Moments, scalar: f64, of: impl Fn(&Vectors) -> ArrayView1<'_, f64>) -> String {
    match &moments.vector {
        None => scalar.to_string(),
        Some(vector) => format!("{:?}", of(vector).to_vec()),
    }
}
