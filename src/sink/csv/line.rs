//! A row as one line of a CSV file, and back.
//!
//! Called by `index.rs` (reading) and by `writer.rs` and `compact.rs` (writing). Pure: rows in, bytes
//! out. The columns up to `sum_sq` are for people and their tools; what is read back are `state` and
//! `base`, the bytes of `stats/layout.rs` in hexadecimal, so nothing depends on decimal digits.

use crate::stats::calendar::{Bucket, Period, Zone};
use crate::stats::layout;
use crate::stats::moments::Moments;
use crate::stats::row::Row;
use crate::stats::{Millis, source, timestamp};
use ::csv::{ByteRecord, Terminator, WriterBuilder};
use ndarray::{Array2, ArrayView1};
use std::sync::LazyLock;

/// The header of every file of rows.
pub(super) const COLUMNS: [&str; 16] = [
    "source",
    "start",
    "end",
    "count",
    "mean",
    "var_pop",
    "var_samp",
    "min",
    "max",
    "sum",
    "sum_sq",
    "state",
    "base",
    "generation",
    "gen_count",
    "revision",
];

/// Appends a record as one line.
///
/// # Panics
/// If a cell contains a line feed: a record is one line, and no source id has one.
pub(super) fn push_record<'a>(out: &mut Vec<u8>, cells: impl IntoIterator<Item = &'a str>) {
    let from = out.len();
    let mut writer =
        WriterBuilder::new().terminator(Terminator::Any(b'\n')).buffer_capacity(1024).from_writer(&mut *out);
    writer.write_record(cells).and_then(|()| Ok(writer.flush()?)).expect("memory takes every record");
    drop(writer);
    assert_eq!(memchr::memchr(b'\n', &out[from..]), Some(out.len() - from - 1), "a record is one line");
}

/// Appends the header line.
pub(super) fn push_header(out: &mut Vec<u8>) {
    push_record(out, COLUMNS);
}

/// Appends a row as one line.
pub(super) fn push(out: &mut Vec<u8>, row: &Row) {
    push_record(out, cells(row).iter().map(String::as_str));
}

/// The cells of a row in the order of [`COLUMNS`].
pub(super) fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let [mean, var_pop, var_samp, min, max, sum, sum_sq] = numbers(&row.state);
    [
        source::to_cell(&row.source).into_owned(),
        timestamp::format(row.bucket.start),
        timestamp::format(row.bucket.end),
        number(row.state.count),
        mean,
        var_pop,
        var_samp,
        min,
        max,
        sum,
        sum_sq,
        hex(&row.state),
        row.base.as_ref().map(hex).unwrap_or_default(),
        row.generation.to_string(),
        number(row.gen_count),
        row.revision.to_string(),
    ]
}

/// The cells from `mean` to `sum_sq`. Of vectors they are arrays of JSON; the variances and the sum of squares are
/// whole matrices, with what the name says on the diagonal.
fn numbers(shown: &Moments) -> [String; 7] {
    if let Some(vector) = &shown.vector {
        let list = |values: ArrayView1<'_, f64>| {
            let values: Vec<String> = values.iter().map(|x| number(*x)).collect();
            format!("[{}]", values.join(","))
        };
        let matrix = |values: Array2<f64>| {
            let rows: Vec<String> = values.rows().into_iter().map(list).collect();
            format!("[{}]", rows.join(","))
        };
        return [
            vector.mean().map(|mean| list(mean.view())).unwrap_or_default(),
            vector.covar_pop().map(matrix).unwrap_or_default(),
            vector.covar_samp().map(matrix).unwrap_or_default(),
            list(vector.min()),
            list(vector.max()),
            list(vector.sum().view()),
            matrix(vector.sum_products()),
        ];
    }
    let optional = |x: Option<f64>| x.map(number).unwrap_or_default();
    [
        optional(shown.mean()),
        optional(shown.var_pop()),
        optional(shown.var_samp()),
        number(shown.min),
        number(shown.max),
        number(shown.sum.hi),
        number(shown.sum_sq.hi),
    ]
}

/// The row of a record in a file of this period.
///
/// # Errors
/// Names the column that cannot be read, and what stands there.
pub(super) fn parse(period: Period, record: &ByteRecord) -> Result<Row, String> {
    let source = source(record)?;
    let (start, end) = (start(record)?, time(record, 2)?);
    let wrong = |column: usize| unreadable(record, column);
    let state = unhex(record, 11)?.ok_or_else(|| wrong(11))?;
    Ok(Row {
        source: source.into(),
        bucket: Bucket { period, start, end },
        generation: text(record, 13)?.parse().map_err(|_| wrong(13))?,
        gen_count: text(record, 14)?.parse().map_err(|_| wrong(14))?,
        revision: text(record, 15)?.parse().map_err(|_| wrong(15))?,
        base: unhex(record, 12)?,
        state,
    })
}

/// The source of a record, without reading the rest.
pub(super) fn source(record: &ByteRecord) -> Result<&str, String> {
    text(record, 0).map(source::from_cell)
}

/// The start of a record's bucket, without reading the rest.
pub(super) fn start(record: &ByteRecord) -> Result<Millis, String> {
    time(record, 1)
}

/// An instant in any cell of a record, which may be of another table.
pub(super) fn time(record: &ByteRecord, column: usize) -> Result<Millis, String> {
    static UTC: LazyLock<Zone> = LazyLock::new(Zone::utc);
    timestamp::parse(text(record, column)?, &UTC).ok_or_else(|| unreadable(record, column))
}

fn text(record: &ByteRecord, column: usize) -> Result<&str, String> {
    let cell = record.get(column).ok_or_else(|| format!("the line has only {} columns", record.len()))?;
    std::str::from_utf8(cell).map_err(|_| unreadable(record, column))
}

fn unreadable(record: &ByteRecord, column: usize) -> String {
    let cell = String::from_utf8_lossy(&record[column]);
    let cell: String = cell.chars().take(40).collect();
    format!("column {} cannot be read: {cell:?}", column + 1)
}

/// The shortest digits that read back to the same double; with an exponent where zeros would pile up.
fn number(x: f64) -> String {
    if x == 0.0 || (1e-5..1e16).contains(&x.abs()) || !x.is_finite() { x.to_string() } else { format!("{x:e}") }
}

fn hex(moments: &Moments) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    layout::encode(moments).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The state in a cell; `None` if the cell is empty.
fn unhex(record: &ByteRecord, column: usize) -> Result<Option<Moments>, String> {
    let cell = text(record, column)?.as_bytes();
    if cell.is_empty() {
        return Ok(None);
    }
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = cell.as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[hi, lo]| Some(digit(*hi)? << 4 | digit(*lo)?)).collect();
    match bytes {
        Some(bytes) if rest.is_empty() => {
            layout::decode(&bytes).map(Some).map_err(|e| format!("column {} cannot be read: {e}", column + 1))
        }
        _ => Err(unreadable(record, column)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(source: &str, values: &[f64], base: Option<f64>) -> Row {
        let mut state = Moments::EMPTY;
        for &value in values {
            state.push(value);
        }
        let bucket = Bucket { period: Period::Day, start: 1_795_132_800_000, end: 1_795_219_200_000 };
        let base = base.map(Moments::of);
        Row { source: source.into(), bucket, generation: -5, gen_count: state.count, revision: i64::MAX, base, state }
    }

    fn record(line: &[u8]) -> ByteRecord {
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(line);
        reader.byte_records().next().unwrap().unwrap()
    }

    fn check(row: &Row) {
        let mut line = Vec::new();
        push(&mut line, row);
        let back = parse(Period::Day, &record(&line)).unwrap();
        assert_eq!(&back, row, "{}", String::from_utf8_lossy(&line));
    }

    #[test]
    fn the_line_people_see() {
        let mut line = Vec::new();
        push_header(&mut line);
        push(&mut line, &row("kitchen", &[1.5, 2.5], None));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "source,start,end,count,mean,var_pop,var_samp,min,max,sum,sum_sq,state,base,generation,gen_count,revision\n\
             kitchen,2026-11-20T00:00:00Z,2026-11-21T00:00:00Z,2,2,0.25,0.5,1.5,2.5,4,8.5,\
             01010100\
             0000000000000040\
             0000000000001040\
             0000000000000000\
             0000000000002140\
             0000000000000000\
             000000000000f83f\
             0000000000000440,,-5,2,9223372036854775807\n"
        );
    }

    #[test]
    fn vectors_stand_in_the_same_columns() {
        let mut state = Moments::of_vector(&[1.0, 2.0]);
        state.push_vector(&[3.0, 1e140]);
        let row = Row { state: state.clone(), gen_count: 2.0, base: Some(state), ..row("pair", &[], None) };
        check(&row);
        let cells = cells(&Row { state: Moments::of_vector(&[1.5, -2.0]), ..row });
        let expected = ["1", "[1.5,-2]", "[[0,0],[0,0]]", "", "[1.5,-2]", "[1.5,-2]", "[1.5,-2]", "[[2.25,-3],[-3,4]]"];
        assert_eq!(cells[3..11], expected);
    }

    #[test]
    fn nasty_ids_survive() {
        let long = "ü".repeat(128);
        let ids = [
            "=1+1",
            "+a",
            "-a",
            "@a",
            "'",
            "''=",
            "a'b",
            "\"",
            "a,b",
            ",",
            " a ",
            "#a",
            "a;b",
            "Zürich 温度 🌡",
            "\u{feff}x",
            &long,
        ];
        for id in ids {
            check(&row(id, &[1.0], None));
        }
        let mut line = Vec::new();
        push(&mut line, &row("=1+1", &[1.0], None));
        push(&mut line, &row("-a,\"b\"", &[-1e130], Some(0.1)));
        let lines = String::from_utf8(line).unwrap();
        assert!(lines.starts_with("'=1+1,2026"), "a spreadsheet shows it as text: {lines}");
        let quoted =
            "\n\"'-a,\"\"b\"\"\",2026-11-20T00:00:00Z,2026-11-21T00:00:00Z,1,-1e130,0,,-1e130,-1e130,-1e130,1e260,";
        assert!(lines.contains(quoted), "{lines}");
    }

    #[test]
    fn doubles_read_back_from_the_shown_columns() {
        let check = |x: f64, expected: &str| {
            assert_eq!(number(x), expected);
            assert_eq!(expected.parse::<f64>().unwrap().to_bits(), x.to_bits());
        };
        check(0.1, "0.1");
        check(3600.0, "3600");
        check(-0.0, "-0");
        check(1e140, "1e140");
        check(5e-324, "5e-324");
        check(0.1 + 0.2, "0.30000000000000004");
        check(9_007_199_254_740_993.0, "9007199254740992");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let check = |line: &str, expected: &str| {
            assert_eq!(parse(Period::Day, &record(line.as_bytes())).unwrap_err(), expected, "{line}");
        };
        let day = "2026-11-20T00:00:00Z";
        check("a", "the line has only 1 columns");
        check("a,yesterday,x", "column 2 cannot be read: \"yesterday\"");
        check(&format!("a,{day},{day},,,,,,,,,,,,,"), "column 12 cannot be read: \"\"");
        check(&format!("a,{day},{day},,,,,,,,,01x1,,,,"), "column 12 cannot be read: \"01x1\"");
        check(
            &format!("a,{day},{day},,,,,,,,,0101,,,,"),
            "column 12 cannot be read: state has 2 bytes, which is not what its header says",
        );
    }

    #[test]
    #[should_panic(expected = "a record is one line")]
    fn an_id_with_a_line_feed_is_a_bug() {
        push(&mut Vec::new(), &row("a\nb", &[1.0], None));
    }

    proptest! {
        #[test]
        fn any_row_reads_back(id in "[^\\p{Cc}\u{2028}\u{2029}]{1,60}", values in prop::collection::vec(-1e140..1e140f64, 1..5), base: Option<bool>) {
            check(&row(&id, &values, base.map(|b| if b { 1e-300 } else { 7.25 })));
        }
    }
}
