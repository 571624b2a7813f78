//! Rows of real numbers, read from the sinks without the service, and what of them differs.
//!
//! Used by `pair.rs`, when nobody writes any more. Files are read by the rule of docs/csv.md, the table as it is
//! (docs/postgres.md). Numbers are compared as doubles, bit for bit; variances and
//! covariances with the exact ones.

use super::exact::Exact;
use super::readings::Readings;
use crate::postgres::Postgres;
use anyhow::{Context, Result, ensure};
use meanwhile::stats::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub(crate) const PERIODS: [&str; 3] = ["1m", "1h", "1d"];
/// The largest error of a variance or covariance.
const VARIANCE: f64 = 1e-11;
/// Differences described.
const NOTES: usize = 10;

/// What is compared of a row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(super) count: u64,
    /// Of each component; of numbers there is one.
    min: Vec<f64>,
    max: Vec<f64>,
    pub(super) mean: Vec<f64>,
    /// Covariances, row by row.
    pub(super) covar: Vec<f64>,
    /// Whether it was put together of several lives.
    merged: bool,
}

/// By period, source and start.
pub(crate) type Rows = BTreeMap<(&'static str, String, Millis), Row>;

/// All rows in a directory of CSV files.
pub(crate) fn of_files(sink: &Path) -> Result<Rows> {
    let (mut rows, mut versions) = (Rows::new(), BTreeMap::new());
    for period in PERIODS {
        for date in fs::read_dir(sink.join(format!("period={period}")))? {
            for file in fs::read_dir(date?.path())? {
                let path = file?.path();
                if path.extension().is_none_or(|extension| extension != "csv") {
                    continue;
                }
                let text = fs::read_to_string(&path)?;
                read(&text, period, &mut rows, &mut versions).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(rows)
}

/// All rows of a table.
pub(crate) fn of_table(postgres: &Postgres) -> Result<Rows> {
    let (mut rows, mut versions) = (Rows::new(), BTreeMap::new());
    for period in PERIODS {
        read(&postgres.rows(period)?, period, &mut rows, &mut versions).context("bucket_stats")?;
    }
    Ok(rows)
}

/// Generation, `gen_count`, revision of the row that is held.
type Versions = BTreeMap<(&'static str, String, Millis), (i64, u64, i64)>;

fn read(text: &str, period: &'static str, rows: &mut Rows, versions: &mut Versions) -> Result<()> {
    ensure!(text.ends_with('\n'), "ends in the middle of a line");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers()?.clone();
    let column = |name: &str| headers.iter().position(|header| header == name).with_context(|| format!("no {name}"));
    let at =
        ["source", "start", "count", "min", "max", "mean", "var_pop", "base", "generation", "gen_count", "revision"];
    let at = at.into_iter().map(column).collect::<Result<Vec<_>>>()?;
    for record in reader.records() {
        let record = record?;
        let cell = |n: usize| &record[at[n]];
        // A number, an array or one of arrays.
        let doubles = |n: usize| -> Result<Vec<f64>> {
            let numbers = cell(n).split(',').map(|x| x.trim_matches(|c| matches!(c, '[' | ']' | ' ')));
            Ok(numbers.map(str::parse).collect::<Result<_, _>>()?)
        };
        let start = chrono::DateTime::parse_from_rfc3339(cell(1))?.timestamp_millis();
        let key = (period, cell(0).to_owned(), start);
        let version = (cell(8).parse()?, cell(9).parse()?, cell(10).parse()?);
        if versions.get(&key).is_none_or(|held| *held < version) {
            let [min, max, mean, covar] = [doubles(3)?, doubles(4)?, doubles(5)?, doubles(6)?];
            ensure!(covar.len() == mean.len() * mean.len(), "{} covariances of {}", covar.len(), mean.len());
            let row = Row { count: cell(2).parse()?, min, max, mean, covar, merged: !cell(7).is_empty() };
            rows.insert(key.clone(), row);
            versions.insert(key, version);
        }
    }
    Ok(())
}

/// What a comparison has found; all but the first two and `variance` must be 0.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) rows: usize,
    /// Rows put together of several lives.
    pub(crate) merged: usize,
    /// Rows that only one side has.
    pub(crate) missing: usize,
    pub(crate) count: usize,
    pub(crate) extremes: usize,
    pub(crate) mean: usize,
    /// Rows with a variance or covariance that is not the exact one, see `exact.rs`.
    pub(crate) far: usize,
    /// The largest error of one.
    pub(crate) variance: f64,
    pub(crate) notes: Vec<String>,
}

impl Difference {
    pub(crate) fn is_none(&self) -> bool {
        let Self { rows, merged: _, missing, count, extremes, mean, far, variance: _, notes: _ } = self;
        *rows > 0 && [missing, count, extremes, mean, far].iter().all(|&&n| n == 0)
    }

    /// Of rows against those of the quiet instance, and against the readings.
    pub(crate) fn between(quiet: &Rows, rows: &Rows, exact: &Exact) -> Self {
        let mut found = Self { rows: rows.len(), ..Self::default() };
        found.merged = rows.values().filter(|row| row.merged).count();
        for key in quiet.keys().chain(rows.keys()).collect::<BTreeSet<_>>() {
            let before = found.bad();
            match (quiet.get(key), rows.get(key)) {
                (Some(a), Some(b)) => {
                    found.take(a, b);
                    let error = exact.error(key, b);
                    found.variance = found.variance.max(error);
                    // Also if it is no number.
                    found.far += usize::from(error > VARIANCE || error.is_nan());
                }
                _ => found.missing += 1,
            }
            if found.bad() > before && found.notes.len() < NOTES {
                found.notes.push(format!("{key:?}: {:?} of the quiet one, {:?}", quiet.get(key), rows.get(key)));
            }
        }
        found
    }

    fn bad(&self) -> usize {
        self.missing + self.count + self.extremes + self.mean + self.far
    }

    fn take(&mut self, a: &Row, b: &Row) {
        let same = |a: &[f64], b: &[f64]| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()));
        self.count += usize::from(a.count != b.count);
        self.extremes += usize::from(!same(&a.min, &b.min) || !same(&a.max, &b.max));
        self.mean += usize::from(!same(&a.mean, &b.mean));
    }
}

/// Sees that the finest rows of the quiet instance are those of the readings, so that both sides cannot
/// lack the same.
pub(crate) fn check_quiet(quiet: &Rows, readings: &Readings, exact: &Exact) -> Result<()> {
    type Expected = (u64, Vec<f64>, Vec<f64>);
    let mut expected: BTreeMap<(String, Millis), Expected> = BTreeMap::new();
    for reading in (0..readings.batches()).flat_map(|number| readings.batch(number)) {
        for source in reading.counted_in() {
            let cell = expected.entry((source, reading.time - reading.time % 60_000));
            let (count, min, max) = cell.or_insert_with(|| (0, reading.values.clone(), reading.values.clone()));
            *count += 1;
            for ((min, max), x) in min.iter_mut().zip(max).zip(&reading.values) {
                (*min, *max) = (min.min(*x), max.max(*x));
            }
        }
    }
    let finest = quiet.iter().filter(|((period, ..), _)| *period == PERIODS[0]);
    let of = |row: &Row| (row.count, row.min.clone(), row.max.clone());
    let found = finest.map(|((_, source, start), row)| ((source.clone(), *start), of(row)));
    ensure!(found.collect::<BTreeMap<_, _>>() == expected, "the quiet instance has other rows than readings were sent");
    for period in PERIODS {
        let own = |source: &str| !source.starts_with("group:");
        let rows = quiet.iter().filter(|((of, source, _), _)| *of == period && own(source));
        let count: u64 = rows.map(|(_, row)| row.count).sum();
        ensure!(count == readings.count, "{period} of the quiet instance has {count} readings of {}", readings.count);
    }
    for (key, row) in quiet {
        let error = exact.error(key, row);
        ensure!(error <= VARIANCE, "a covariance in {key:?} of the quiet instance is {error:e} off: {row:?}");
    }
    Ok(())
}
