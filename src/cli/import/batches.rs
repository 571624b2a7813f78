//! Cuts a file into batches of NDJSON, always at the same lines.
//!
//! Called by `mod.rs`; `table.rs` converts the rows of CSV files. The same file read with the same
//! options gives the same batches with the same keys, wherever the import begins: that is what makes
//! repeating it safe. Sending is in `send.rs`.

use super::table::{Shape, Table};
use crate::cli::client::LineProblem;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Data lines in a batch. Never changed: another cut gives other keys, and an import repeated over
/// an upgrade would count twice.
const BATCH_LINES: usize = 1_000;
/// A batch ends early at this size: a quarter of what the service takes. Wide tables need it. Never
/// changed either.
const BATCH_BYTES: usize = 4 << 20;
/// A longer line is no reading; the service takes 64 KiB.
const MAX_LINE_BYTES: u64 = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Consecutive lines of a file, as they are sent.
#[derive(Debug, Default)]
pub(in crate::cli) struct Batch {
    /// NDJSON.
    pub body: Vec<u8>,
    /// Where each line of the body comes from.
    pub origins: Vec<Origin>,
    /// Numbers in the file, from 1, of its first and last data line.
    pub first_line: u64,
    pub last_line: u64,
    /// Data lines in it.
    pub lines: usize,
    /// Empty value cells, which are no readings.
    pub skipped: u64,
    /// What cannot be converted, by line of the file. If there is any, the batch is not to be sent.
    pub errors: Vec<LineProblem>,
}

/// The place in the file where a reading stands.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Origin {
    pub line: u64,
    /// The value column, in a table.
    pub column: Option<Arc<str>>,
}

impl Batch {
    /// Takes note of a data line; the reader calls this before it adds what the line holds.
    fn begin_line(&mut self, line: u64) {
        if self.lines == 0 {
            self.first_line = line;
        }
        self.last_line = line;
        self.lines += 1;
    }

    fn is_full(&self) -> bool {
        self.lines >= BATCH_LINES || self.body.len() >= BATCH_BYTES
    }

    /// The idempotency key: the same for the same readings at the same place of a file read with
    /// the same options, whatever the file is called.
    pub(super) fn key(&self, options: &str) -> String {
        let mut hash = Xxh3::new();
        hash.update(&self.first_line.to_le_bytes());
        hash.update(&(options.len() as u64).to_le_bytes());
        hash.update(options.as_bytes());
        hash.update(&self.body);
        format!("import-{:032x}", hash.digest128())
    }

    /// Names a problem of the body by line and column of the file.
    pub(super) fn locate(&self, problem: &LineProblem) -> LineProblem {
        let mut located = problem.clone();
        let origin = usize::try_from(problem.line).ok().and_then(|line| self.origins.get(line.checked_sub(1)?));
        if let Some(origin) = origin {
            located.line = origin.line;
            if let (Some(column), Some("value")) = (&origin.column, problem.field.as_deref()) {
                located.field = Some(column.to_string());
            }
        }
        located
    }
}

/// A file that is being read, batch by batch.
pub(in crate::cli) enum Batches<R> {
    Ndjson { reader: BufReader<R>, line: u64 },
    Csv(Box<Table<R>>),
}

impl<R: Read> Batches<R> {
    pub(super) fn ndjson(file: R) -> Self {
        Self::Ndjson { reader: BufReader::new(file), line: 0 }
    }

    /// # Errors
    /// The file has no header, or not the columns it should have.
    pub(super) fn csv(file: R, shape: &Shape) -> anyhow::Result<Self> {
        Ok(Self::Csv(Box::new(Table::open(file, shape)?)))
    }

    /// The next batch; `None` at the end of the file.
    ///
    /// # Errors
    /// The file cannot be read on.
    pub(in crate::cli) fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        let mut batch = Batch::default();
        while !batch.is_full() {
            let more = match self {
                Self::Ndjson { reader, line } => read_line(reader, line, &mut batch)?,
                Self::Csv(table) => table.read_row(&mut batch, Batch::begin_line)?,
            };
            if !more {
                break;
            }
        }
        Ok((batch.lines > 0).then_some(batch))
    }
}

/// Adds a line of NDJSON as it is: what is wrong with it the service says.
fn read_line(reader: &mut impl BufRead, line: &mut u64, batch: &mut Batch) -> anyhow::Result<bool> {
    let start = batch.body.len();
    let read = reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut batch.body)?;
    if read == 0 {
        return Ok(false);
    }
    *line += 1;
    if batch.body.last() != Some(&b'\n') {
        anyhow::ensure!((read as u64) < MAX_LINE_BYTES, "line {line} is longer than 1 MiB: is this NDJSON?");
        batch.body.push(b'\n');
    }
    if *line == 1 && batch.body[start..].starts_with(BYTE_ORDER_MARK) {
        batch.body.drain(start..start + BYTE_ORDER_MARK.len());
    }
    batch.begin_line(*line);
    batch.origins.push(Origin { line: *line, column: None });
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(file: &str) -> Vec<Batch> {
        let mut batches = Batches::ndjson(file.as_bytes());
        std::iter::from_fn(|| batches.next().unwrap()).collect()
    }

    fn file(lines: std::ops::Range<usize>) -> String {
        lines.fold(String::new(), |text, i| text + &format!("{{\"source\": \"a\", \"value\": {i}}}\n"))
    }

    fn keys(file: &str, options: &str) -> Vec<String> {
        batches(file).iter().map(|batch| batch.key(options)).collect()
    }

    #[test]
    fn batches_of_a_thousand_lines_cover_the_file() {
        let check = |lines: usize, expected: &[(u64, u64)]| {
            let text = file(0..lines);
            let got = batches(&text);
            assert_eq!(got.iter().map(|b| (b.first_line, b.last_line)).collect::<Vec<_>>(), expected);
            assert_eq!(got.iter().flat_map(|b| b.body.clone()).collect::<Vec<_>>(), text.as_bytes());
            assert!(got.iter().all(|b| b.origins.len() == b.lines));
        };
        check(0, &[]);
        check(1, &[(1, 1)]);
        check(1_000, &[(1, 1_000)]);
        check(2_001, &[(1, 1_000), (1_001, 2_000), (2_001, 2_001)]);
    }

    #[test]
    fn a_batch_of_long_lines_ends_early() {
        let line = format!("{}\n", "x".repeat((1 << 20) - 1));
        let got = batches(&line.repeat(5));
        assert_eq!(got.iter().map(|batch| batch.lines).collect::<Vec<_>>(), [4, 1]);
    }

    #[test]
    fn a_file_without_line_ends_is_refused_early() {
        let mut batches = Batches::ndjson(std::io::repeat(b'x'));
        assert!(batches.next().unwrap_err().to_string().contains("line 1 is longer than 1 MiB"));
    }

    #[test]
    fn the_mark_at_the_beginning_and_the_end_without_a_newline_do_not_matter() {
        let got = batches("\u{feff}{\"source\": 1}\n{}");
        assert_eq!(String::from_utf8(got[0].body.clone()).unwrap(), "{\"source\": 1}\n{}\n");
    }

    #[test]
    fn the_same_lines_at_the_same_place_have_the_same_key() {
        let text = file(0..2_500);
        let all = keys(&text, "ndjson");
        assert_eq!(all, keys(&text, "ndjson"));
        assert!(all.iter().all(|key| key.len() == 39 && key.bytes().all(|b| b.is_ascii_graphic())));
        // A later change leaves the batches before it alone; other options change them all.
        let changed = keys(&(file(0..1_999) + "{}\n" + &file(2_000..2_500)), "ndjson");
        assert_eq!((changed[0] == all[0], changed[1] == all[1], changed[2] == all[2]), (true, false, true));
        assert!(keys(&text, "csv").iter().zip(&all).all(|(a, b)| a != b));
        // The same lines elsewhere in the file are other readings.
        let twice = keys(&file(0..1_000).repeat(2), "ndjson");
        assert_ne!(twice[0], twice[1]);
    }

    #[test]
    fn problems_are_named_by_the_line_of_the_file() {
        let batch = &batches(&file(0..1_500))[1];
        let problem = |line| LineProblem { line, field: Some("value".into()), reason: "bad".into() };
        let check = |line: u64, expected: &str| assert_eq!(batch.locate(&problem(line)).to_string(), expected);
        check(1, "1001: value: bad");
        check(500, "1500: value: bad");
        // A line the batch does not have stays as it is.
        check(0, "0: value: bad");
        check(501, "501: value: bad");
    }
}
