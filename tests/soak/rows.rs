//! The rows in the sink as any other program would read them; nothing here is shared with the service.
//!
//! Used by `verdict.rs`, when nobody writes any more. The rule for readers of files is that of docs/csv.md: of
//! several lines of a row the one with the highest version counts. A table has one line of each.

use crate::ledger::Tally;
use crate::postgres::Postgres;
use anyhow::{Context, Result, ensure};
use meanwhile::stats::Millis;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Generation, `gen_count`, revision.
type Version = (i64, u64, i64);

/// The rows of one period.
#[derive(Default)]
pub(crate) struct Rows {
    /// By source and start.
    pub(crate) newest: BTreeMap<(String, Millis), Tally>,
    /// Lines that cannot be read.
    pub(crate) unreadable: Vec<String>,
    /// Lines of the same version of a row that say different things.
    pub(crate) differing: u64,
}

/// Where rows are.
pub(crate) enum Place<'a> {
    /// A directory of CSV files.
    Files(PathBuf),
    Table(&'a Postgres),
}

/// All rows of a period.
pub(crate) fn read(place: &Place, period: &str) -> Result<Rows> {
    let (mut rows, mut lines) = (Rows::default(), BTreeMap::new());
    match place {
        Place::Files(sink) => {
            let folder = sink.join(format!("period={period}"));
            for file in files(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                rows.take_all(&mut lines, &fs::read_to_string(&file)?, &file.display().to_string());
            }
        }
        Place::Table(postgres) => rows.take_all(&mut lines, &postgres.rows(period)?, "bucket_stats"),
    }
    rows.newest = newest(lines);
    Ok(rows)
}

/// What a line says, by source, start and version.
type Lines = BTreeMap<(String, Millis), BTreeMap<Version, (Tally, String)>>;

struct Line {
    row: (String, Millis),
    version: Version,
    tally: Tally,
    /// All its cells.
    text: String,
}

impl Line {
    fn of(record: &BTreeMap<String, String>) -> Result<Self> {
        let cell = |name: &str| record.get(name).with_context(|| format!("no column {name}"));
        let number = |name: &str| -> Result<u64> {
            let value: f64 = cell(name)?.parse()?;
            ensure!(value >= 0.0 && value.fract() == 0.0, "{name} is {value}");
            Ok(value as u64)
        };
        let start = chrono::DateTime::parse_from_rfc3339(cell("start")?)?.timestamp_millis();
        Ok(Self {
            row: (cell("source")?.clone(), start),
            version: (cell("generation")?.parse()?, number("gen_count")?, cell("revision")?.parse()?),
            tally: Tally { count: number("count")?, sum: number("sum")?, sum_sq: number("sum_sq")? },
            text: format!("{record:?}"),
        })
    }
}

impl Rows {
    fn take_all(&mut self, lines: &mut Lines, text: &str, place: &str) {
        for record in csv::Reader::from_reader(text.as_bytes()).deserialize() {
            match record.map_err(anyhow::Error::from).and_then(|record| Line::of(&record)) {
                Ok(line) => self.take(lines, line),
                Err(error) => self.unreadable.push(format!("{place}: {error:#}")),
            }
        }
        if !text.ends_with('\n') {
            self.unreadable.push(format!("{place}: ends in the middle of a line"));
        }
    }

    fn take(&mut self, lines: &mut Lines, line: Line) {
        let versions = lines.entry(line.row).or_default();
        match versions.get(&line.version) {
            Some((_, text)) if *text != line.text => self.differing += 1,
            _ => drop(versions.insert(line.version, (line.tally, line.text))),
        }
    }
}

fn newest(lines: Lines) -> BTreeMap<(String, Millis), Tally> {
    let last =
        |versions: BTreeMap<Version, (Tally, String)>| versions.into_values().next_back().map(|(tally, _)| tally);
    lines.into_iter().filter_map(|(row, versions)| Some((row, last(versions)?))).collect()
}

/// The CSV files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "csv") {
            found.push(path);
        }
    }
    Ok(found)
}
