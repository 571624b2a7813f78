//! The CSV sink's files as any tool reads them: lines by row, the newest version of each.
//!
//! Used by the tests from the outside. Nothing here is shared with the sink: what these tests find
//! is what any other reader of CSV would find.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// One line of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) count: u64,
    pub(crate) mean: String,
    pub(crate) var_pop: String,
    pub(crate) var_samp: String,
    pub(crate) min: String,
    pub(crate) max: String,
    pub(crate) sum: String,
    /// Generation, `gen_count` and revision: readers take the highest.
    pub(crate) version: (i64, u64, i64),
}

/// All lines of a period by (source, start).
pub(crate) fn lines(sink: &Path, period: &str) -> BTreeMap<(String, String), Vec<Line>> {
    let mut lines: BTreeMap<_, Vec<Line>> = BTreeMap::new();
    for file in files(&sink.join(format!("period={period}"))) {
        let read = csv::ReaderBuilder::new().flexible(true).from_path(&file);
        // A file may be replaced by its compacted form between two looks.
        let Ok(mut reader) = read else { continue };
        for record in reader.deserialize() {
            // The last line of a file that is being written may be half there.
            let Ok(record) = record else { continue };
            let record: BTreeMap<String, String> = record;
            if let Some((row, line)) = line(&record) {
                lines.entry(row).or_default().push(line);
            }
        }
    }
    lines
}

/// The newest line of each row of a period.
pub(crate) fn newest(sink: &Path, period: &str) -> BTreeMap<(String, String), Line> {
    let newest = |lines: Vec<Line>| lines.into_iter().max_by_key(|line| line.version).expect("rows have lines");
    lines(sink, period).into_iter().map(|(row, lines)| (row, newest(lines))).collect()
}

/// Count and sum of a source over the newest lines of a period.
pub(crate) fn total(sink: &Path, period: &str, source: &str) -> (u64, f64) {
    let rows = newest(sink, period).into_iter().filter(|((id, _), _)| id == source);
    rows.fold((0, 0.0), |(count, sum), (_, line)| (count + line.count, sum + line.sum.parse::<f64>().unwrap()))
}

fn line(record: &BTreeMap<String, String>) -> Option<((String, String), Line)> {
    let cell = |name: &str| record.get(name).cloned();
    let line = Line {
        count: cell("count")?.parse().ok()?,
        mean: cell("mean")?,
        var_pop: cell("var_pop")?,
        var_samp: cell("var_samp")?,
        min: cell("min")?,
        max: cell("max")?,
        sum: cell("sum")?,
        version: (cell("generation")?.parse().ok()?, cell("gen_count")?.parse().ok()?, cell("revision")?.parse().ok()?),
    };
    Some(((cell("source")?, cell("start")?), line))
}

/// The CSV files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| -> io::Result<Vec<PathBuf>> { fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect() };
    let mut found = Vec::new();
    for path in list(dir).unwrap_or_default() {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ext| ext == "csv") {
            found.push(path);
        }
    }
    found
}
