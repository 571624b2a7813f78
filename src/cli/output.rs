//! What the commands print: data to standard output, notes to standard error, tables.
//!
//! Called by the client commands and by `main.rs`. A reader that closes its pipe is no failure:
//! [`is_closed_pipe`] tells it from the errors that are.

use crate::stats::calendar::{Period, Zone};
use crate::stats::timestamp;
use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::fmt::Write as _;
use std::io::{self, Write};

/// How a command that has a list or a finding to tell prints it.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

const PIPE_WIDTH: usize = 80;

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(io::Error);

/// Writes data to standard output.
pub fn print(data: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(data).and_then(|()| out.flush()).map_err(OutputError)
}

/// Writes a line to standard error; if even that is closed, nobody wants to know.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether a command ended because the reader of its output had enough, as `head` does.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<OutputError>().is_some_and(|error| error.0.kind() == io::ErrorKind::BrokenPipe)
}

/// Characters of a line: those of the terminal; where there is none, in a pipe or a file, of most
/// terminals.
#[must_use]
pub fn width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(PIPE_WIDTH, |(width, _)| width.0.into())
}

/// Lays rows out in columns without borders, so that a table is also easy to cut and to diff.
/// `numbers` are the columns that are aligned to the right.
#[must_use]
pub fn table(header: &[&str], numbers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    // Not cut to the width of the terminal: a digit that is not shown would be a wrong number.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header).add_rows(rows);
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Reads the name of the service's time zone.
pub fn zone(name: &str) -> anyhow::Result<Zone> {
    name.parse().with_context(|| format!("the service names the time zone \"{name}\"; is this client older?"))
}

/// The start of a bucket on the clock of `zone`, as short as its period allows; of two equal local
/// times the second with its offset. `text` is what the service sent, shown as it is if it is no
/// instant.
#[must_use]
pub fn local_start(text: &str, period: &str, zone: &Zone) -> String {
    let Some(t) = timestamp::parse(text, zone) else { return text.to_owned() };
    let local = zone.local(t);
    let format = match period.parse::<Period>() {
        Ok(Period::Seconds(n)) if n % 60 == 0 => "%Y-%m-%d %H:%M",
        Ok(Period::Seconds(_)) | Err(_) => "%Y-%m-%d %H:%M:%S",
        // A day whose midnight was skipped begins later.
        Ok(_) if local.hour() == 0 && local.minute() == 0 => "%Y-%m-%d",
        Ok(_) => "%Y-%m-%d %H:%M",
    };
    let mut start = local.strftime(format).to_string();
    if zone.instant(local).is_some_and(|first| first < t) {
        let minutes = Zone::utc().instant(local).map_or(0, |as_utc| as_utc - t).div_euclid(60_000);
        let sign = if minutes < 0 { '-' } else { '+' };
        let _ = write!(start, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
    }
    start
}

/// An amount with separators, for people: `12,000`.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// So many of something, for people: `1 line`, `12,000 lines`.
#[must_use]
pub fn amount(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_the_local_clock() {
        let check = |text: &str, period: &str, zone: &str, expected: &str| {
            assert_eq!(local_start(text, period, &zone.parse().unwrap()), expected, "{text} {period} {zone}");
        };
        check("2026-11-20T05:00:00Z", "1h", "UTC", "2026-11-20 05:00");
        check("2026-11-20T05:00:00Z", "1m", "Europe/Berlin", "2026-11-20 06:00");
        check("2026-11-20T05:00:10Z", "10s", "UTC", "2026-11-20 05:00:10");
        check("2026-11-19T23:00:00Z", "1d", "Europe/Berlin", "2026-11-20");
        check("2026-10-25T00:00:00Z", "1h", "Europe/Berlin", "2026-10-25 02:00");
        check("2026-10-25T01:00:00Z", "1h", "Europe/Berlin", "2026-10-25 02:00+01:00");
        check("2026-11-01T06:30:00Z", "1m", "America/New_York", "2026-11-01 01:30-05:00");
        check("2018-11-04T03:00:00Z", "1d", "America/Sao_Paulo", "2018-11-04 01:00");
        check("soon", "1h", "UTC", "soon");
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_blanks() {
        let rows = vec![vec!["a".into(), "1".into(), "open".into()], vec!["bb".into(), "21.25".into(), String::new()]];
        let text = table(&["id", "mean", "state"], &["mean"], rows);
        assert_eq!(text, "id   mean  state\na       1  open\nbb  21.25\n");
    }

    #[test]
    fn amounts() {
        let check = |n: u64, expected: &str| assert_eq!(grouped(n), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(12_345_678, "12,345,678");
        assert_eq!([0, 1, 2_000].map(|n| amount(n, "line")), ["0 lines", "1 line", "2,000 lines"]);
    }

    #[test]
    fn only_a_closed_standard_output_is_a_closed_pipe() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&OutputError(broken()).into()));
        assert!(!is_closed_pipe(&OutputError(io::Error::from(io::ErrorKind::StorageFull)).into()));
        assert!(!is_closed_pipe(&broken().into()));
    }
}
