//! Rows of real numbers, read from the sinks without the service, and what of them differs.
//!
//! Used by `pair.rs`, when nobody writes any more. Files are read by the rule of docs/csv.md, the table as it is
//! (docs/postgres.md). Numbers are compared as doubles, bit for bit; only the variance may differ a little.

use super::readings::Readings;
use crate::postgres::Postgres;
use anyhow::{Context, Result, ensure};
use meanwhile::stats::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub(crate) const PERIODS: [&str; 3] = ["1m", "1h", "1d"];
/// By how much of itself a variance may depend on the order in which readings came.
const VARIANCE: f64 = 1e-11;
/// What the last bits of a sum of squares are worth, as a part of the square of the mean: a few readings close to
/// each other and far from zero have a variance that is smaller still.
const LAST_BITS: f64 = 1.0 / (1_u128 << 104) as f64;
/// Differences described.
const NOTES: usize = 10;

/// What is compared of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    var: f64,
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
        let double = |n: usize| -> Result<f64> { Ok(cell(n).parse()?) };
        let start = chrono::DateTime::parse_from_rfc3339(cell(1))?.timestamp_millis();
        let key = (period, cell(0).to_owned(), start);
        let version = (cell(8).parse()?, cell(9).parse()?, cell(10).parse()?);
        if versions.get(&key).is_none_or(|held| *held < version) {
            let [min, max, mean, var] = [double(3)?, double(4)?, double(5)?, double(6)?];
            let row = Row { count: cell(2).parse()?, min, max, mean, var, merged: !cell(7).is_empty() };
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
    /// Rows whose variances differ by more than `VARIANCE` of themselves and `LAST_BITS`.
    pub(crate) far: usize,
    /// The largest part of itself by which a variance differs.
    pub(crate) variance: f64,
    pub(crate) notes: Vec<String>,
}

impl Difference {
    pub(crate) fn is_none(&self) -> bool {
        let Self { rows, merged: _, missing, count, extremes, mean, far, variance: _, notes: _ } = self;
        *rows > 0 && [missing, count, extremes, mean, far].iter().all(|&&n| n == 0)
    }

    /// Of rows against those of the quiet instance.
    pub(crate) fn between(quiet: &Rows, rows: &Rows) -> Self {
        let mut found = Self { rows: rows.len(), ..Self::default() };
        found.merged = rows.values().filter(|row| row.merged).count();
        for key in quiet.keys().chain(rows.keys()).collect::<BTreeSet<_>>() {
            let before = found.bad();
            match (quiet.get(key), rows.get(key)) {
                (Some(a), Some(b)) => found.take(a, b),
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
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        self.count += usize::from(a.count != b.count);
        self.extremes += usize::from(!same(a.min, b.min) || !same(a.max, b.max));
        self.mean += usize::from(!same(a.mean, b.mean));
        let (apart, var) = ((a.var - b.var).abs(), a.var.max(b.var));
        if !same(a.var, b.var) {
            self.variance = self.variance.max(apart / var);
        }
        // Also if one of them is no number.
        let near = apart <= VARIANCE * var + LAST_BITS * a.mean * a.mean;
        self.far += usize::from(!near);
    }
}

/// Sees that the finest rows of the quiet instance are those of the readings, so that both sides cannot
/// lack the same.
pub(crate) fn check_quiet(quiet: &Rows, readings: &Readings) -> Result<()> {
    let mut expected: BTreeMap<(String, Millis), (u64, f64, f64)> = BTreeMap::new();
    for reading in (0..readings.batches()).flat_map(|number| readings.batch(number)) {
        let cell = expected.entry((reading.source, reading.time - reading.time % 60_000));
        let (count, min, max) = cell.or_insert((0, f64::INFINITY, f64::NEG_INFINITY));
        (*count, *min, *max) = (*count + 1, min.min(reading.value), max.max(reading.value));
    }
    let finest = quiet.iter().filter(|((period, ..), _)| *period == PERIODS[0]);
    let found = finest.map(|((_, source, start), row)| ((source.clone(), *start), (row.count, row.min, row.max)));
    ensure!(found.collect::<BTreeMap<_, _>>() == expected, "the quiet instance has other rows than readings were sent");
    for period in PERIODS {
        let rows = quiet.iter().filter(|((of, ..), _)| *of == period);
        let count: u64 = rows.map(|(_, row)| row.count).sum();
        ensure!(count == readings.count, "{period} of the quiet instance has {count} readings of {}", readings.count);
    }
    Ok(())
}
