//! What rows look like outside: JSON, NDJSON, CSV and the classic text line.
//!
//! Called by `stats.rs`, `sources.rs` and `state.rs`. Pure: values in, bytes out. Guarantees: JSON
//! and CSV have the same columns in the same order; every double is written with the fewest digits
//! that read back to it; a text cell of a CSV that a spreadsheet might take for a formula gets a
//! leading quote, as in the files of the CSV sink.

use super::cell::{self, Cell, Statistics, Together};
use super::filled::AnyColumns;
use crate::query::{OpenState, State, StatsRow};
use crate::stats::calendar::Calendar;
use crate::stats::moments::Moments;
use crate::stats::source::{self, SourceSpan};
use crate::stats::timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// The formats of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
    Text,
}

const FORMATS: [(&str, Format, &str); 4] = [
    ("json", Format::Json, "application/json"),
    ("ndjson", Format::Ndjson, "application/x-ndjson"),
    ("csv", Format::Csv, "text/csv"),
    ("text", Format::Text, "text/plain"),
];

impl Format {
    /// By the name that `?format=` takes.
    pub(super) fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|(known, ..)| *known == name).map(|(_, format, _)| *format)
    }

    /// By an Accept header: of the media types that are known, the one with the highest `q`, of
    /// equals the first. JSON if none is named, so that no client is turned away.
    pub(super) fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Self::Json);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let q = parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let known = FORMATS.iter().find(|(.., known)| known.eq_ignore_ascii_case(media));
            if let Some((_, format, _)) = known
                && q > best.0
            {
                best = (q, *format);
            }
        }
        best.1
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// A page in this format. The cursor and `partial` stand in the body of JSON only; the caller
    /// puts them into headers elsewhere.
    pub(super) fn page(
        self,
        rows: &[StatsRow],
        next: Option<&str>,
        partial: bool,
        expected: &dyn Fn(&StatsRow) -> Option<f64>,
    ) -> Vec<u8> {
        let columns = |row| Columns::of(row).expecting(expected(row));
        match self {
            Self::Json => {
                json(&RowsBody { rows: rows.iter().map(|row| AnyColumns::Row(columns(row))).collect(), next, partial })
            }
            Self::Ndjson => rows.iter().flat_map(|row| [json(&columns(row)), b"\n".to_vec()].concat()).collect(),
            Self::Csv => csv_rows(rows),
            Self::Text => text(rows).into_bytes(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Rows)]
pub(super) struct RowsBody<'a> {
    pub(super) rows: Vec<AnyColumns<'a>>,
    pub(super) next: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) partial: bool,
}

/// The columns of a row; their order is that of JSON and CSV.
#[derive(Serialize, ToSchema)]
#[schema(as = Row)]
pub(super) struct Columns<'a> {
    source: &'a str,
    period: String,
    start: String,
    end: String,
    count: u64,
    #[schema(schema_with = cell::schema)]
    sum: Cell,
    #[schema(schema_with = cell::optional_schema)]
    mean: Cell,
    #[schema(schema_with = cell::optional_schema)]
    var_pop: Cell,
    #[schema(schema_with = cell::optional_schema)]
    var_samp: Cell,
    #[schema(schema_with = cell::optional_schema)]
    stddev_pop: Cell,
    #[schema(schema_with = cell::optional_schema)]
    stddev_samp: Cell,
    #[schema(schema_with = cell::schema)]
    min: Cell,
    #[schema(schema_with = cell::schema)]
    max: Cell,
    #[schema(schema_with = cell::schema)]
    sum_sq: Cell,
    /// Of vectors only, as all up to `regr_r2`: sums of the products of the components with one another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = cell::matrix_schema, required = false)]
    sum_products: Option<Cell>,
    /// Population covariances; null entries stand for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = cell::matrix_schema, required = false)]
    covar_pop: Option<Cell>,
    /// Sample covariances; null for a single reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = cell::matrix_schema, required = false)]
    covar_samp: Option<Cell>,
    /// Correlations; null where one of the two does not vary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = cell::matrix_schema, required = false)]
    corr: Option<Cell>,
    /// Of vectors of two: slope of the second component over the first. Null where that does not vary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    regr_slope: Option<Cell>,
    /// Where that line crosses 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    regr_intercept: Option<Cell>,
    /// How much of the variance of the second component the line explains, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    regr_r2: Option<Cell>,
    state: &'static str,
    generation: i64,
    revision: i64,
    /// Where a rule says how often readings are expected: how many the whole bucket should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 360.0)]
    expected: Option<f64>,
    /// How many there are of those: 1 if all, more if more came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.975)]
    completeness: Option<f64>,
}

pub(super) const HEADER: [&str; 17] = [
    "source",
    "period",
    "start",
    "end",
    "count",
    "sum",
    "mean",
    "var_pop",
    "var_samp",
    "stddev_pop",
    "stddev_samp",
    "min",
    "max",
    "sum_sq",
    "state",
    "generation",
    "revision",
];

impl<'a> Columns<'a> {
    /// The same under another id: a cell of a table.
    pub(super) fn under<'c>(self, source: &'c str) -> Columns<'c>
    where
        'a: 'c,
    {
        Columns { source, ..self }
    }

    /// With how many readings there should be.
    pub(super) fn expecting(self, expected: Option<f64>) -> Self {
        let completeness = expected.map(|expected| self.count as f64 / expected);
        Self { expected, completeness, ..self }
    }

    pub(super) fn of(row: &'a StatsRow) -> Self {
        Self::with(row, Statistics::of(&row.moments), Together::of(&row.moments))
    }

    /// As the row of a CSV.
    pub(super) fn flat(row: &'a StatsRow) -> Self {
        Self::with(row, Statistics::flat(&row.moments), Together::default())
    }

    fn with(row: &'a StatsRow, shown: Statistics, together: Together) -> Self {
        let StatsRow { source, bucket, moments, state, generation, revision } = row;
        let Statistics { sum, mean, var_pop, var_samp, stddev_pop, stddev_samp, min, max, sum_sq } = shown;
        let Together { sum_products, covar_pop, covar_samp, corr, regr_slope, regr_intercept, regr_r2 } = together;
        Self {
            source,
            period: bucket.period.to_string(),
            start: timestamp::format(bucket.start),
            end: timestamp::format(bucket.end),
            count: moments.count as u64,
            sum,
            mean,
            var_pop,
            var_samp,
            stddev_pop,
            stddev_samp,
            min,
            max,
            sum_sq,
            sum_products,
            covar_pop,
            covar_samp,
            corr,
            regr_slope,
            regr_intercept,
            regr_r2,
            state: state_name(*state),
            generation: *generation,
            revision: *revision,
            expected: None,
            completeness: None,
        }
    }
}

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Settling => "settling",
        State::Closed => "closed",
    }
}

/// Rows as an array of JSON.
pub(super) fn rows(rows: &[StatsRow]) -> Vec<u8> {
    json(&rows.iter().map(Columns::of).collect::<Vec<_>>())
}

pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("columns have text keys and write into memory")
}

fn csv_rows(rows: &[StatsRow]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let written = "a record of columns, into memory";
    // Written by hand, so that an answer without rows has it as well.
    writer.write_record(HEADER).expect(written);
    for row in rows {
        writer.serialize(Columns::flat(row).under(&source::to_cell(&row.source))).expect(written);
    }
    writer.into_inner().expect("memory does not fail")
}

/// `id, mean, variance`, one line per bucket.
fn text(rows: &[StatsRow]) -> String {
    rows.iter().filter_map(|row| line(&row.source, &row.moments)).collect()
}

/// The line of one row; of vectors mean and variances are JSON. None where there is nothing to say.
pub(super) fn line(source: &str, moments: &Moments) -> Option<String> {
    if let (Some(mean), Some(variance)) = (moments.mean(), moments.var_pop()) {
        return Some(format!("{source}, {mean:?}, {variance:?}\n"));
    }
    moments.vector.as_ref()?;
    let Statistics { mean, var_pop, .. } = Statistics::of(moments);
    let text = |cell| String::from_utf8(json(cell)).expect("JSON is text");
    Some(format!("{source}, {}, {}\n", text(&mean), text(&var_pop)))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Sources)]
pub(super) struct SourcesBody<'a> {
    sources: Vec<SourceColumns<'a>>,
    next: Option<&'a str>,
    periods: Vec<String>,
    timezone: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Source)]
struct SourceColumns<'a> {
    source: &'a str,
    first: String,
    last: String,
}

impl<'a> SourceColumns<'a> {
    fn of(span: &'a SourceSpan) -> Self {
        let SourceSpan { source, first, last } = span;
        Self { source, first: timestamp::format(*first), last: timestamp::format(*last) }
    }
}

/// The body of a list of sources.
pub(super) fn sources(spans: &[SourceSpan], next: Option<&str>, partial: bool, calendar: &Calendar) -> Vec<u8> {
    json(&SourcesBody {
        sources: spans.iter().map(SourceColumns::of).collect(),
        next,
        periods: calendar.periods().iter().map(ToString::to_string).collect(),
        timezone: calendar.zone().to_string(),
        partial,
    })
}

#[derive(Serialize, ToSchema)]
#[schema(as = OpenState)]
pub(super) struct StateColumns<'a> {
    source: &'a str,
    period: String,
    start: String,
    end: String,
    count: u64,
    #[schema(schema_with = cell::schema)]
    sum: Cell,
    #[schema(schema_with = cell::schema)]
    sum_sq: Cell,
    /// Of vectors only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = cell::matrix_schema, required = false)]
    sum_products: Option<Cell>,
    #[schema(schema_with = cell::schema)]
    min: Cell,
    #[schema(schema_with = cell::schema)]
    max: Cell,
    generation: i64,
    revision: i64,
    written: bool,
}

/// The body of the open state of a source.
pub(super) fn states(source: &str, states: &[OpenState]) -> Vec<u8> {
    let columns = |state: &OpenState| {
        let Statistics { sum, sum_sq, min, max, .. } = Statistics::of(&state.moments);
        StateColumns {
            source,
            period: state.bucket.period.to_string(),
            start: timestamp::format(state.bucket.start),
            end: timestamp::format(state.bucket.end),
            count: state.moments.count as u64,
            sum,
            sum_sq,
            sum_products: state.moments.vector.as_ref().map(|vector| Some(vector.sum_products()).into()),
            min,
            max,
            generation: state.generation,
            revision: state.revision,
            written: state.written,
        }
    };
    json(&states.iter().map(columns).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::calendar::{Bucket, Period};
    use crate::stats::moments::Moments;

    fn row(source: &str, values: &[f64]) -> StatsRow {
        let mut moments = Moments::EMPTY;
        for x in values {
            moments.push(*x);
        }
        let bucket = Bucket { period: Period::Seconds(3_600), start: 0, end: 3_600_000 };
        StatsRow { source: source.into(), bucket, moments, state: State::Settling, generation: 5, revision: 7 }
    }

    fn check(format: Format, rows: &[StatsRow], next: Option<&str>, expected: &str) {
        assert_eq!(String::from_utf8(format.page(rows, next, false, &|_| None)).unwrap(), expected);
    }

    const KITCHEN: &str = concat!(
        r#"{"source":"kitchen","period":"1h","start":"1970-01-01T00:00:00Z","end":"1970-01-01T01:00:00Z","count":2,"#,
        r#""sum":4.0,"mean":2.0,"var_pop":1.0,"var_samp":2.0,"stddev_pop":1.0,"stddev_samp":1.4142135623730951,"#,
        r#""min":1.0,"max":3.0,"sum_sq":10.0,"state":"settling","generation":5,"revision":7}"#
    );
    const CSV_HEADER: &str = "source,period,start,end,count,sum,mean,var_pop,var_samp,stddev_pop,stddev_samp,min,max,\
                              sum_sq,state,generation,revision\n";

    #[test]
    fn a_row_in_every_format() {
        let rows = [row("kitchen", &[1.0, 3.0])];
        check(Format::Json, &rows, None, &format!(r#"{{"rows":[{KITCHEN}],"next":null}}"#));
        check(Format::Ndjson, &rows, None, &format!("{KITCHEN}\n"));
        let cells = "kitchen,1h,1970-01-01T00:00:00Z,1970-01-01T01:00:00Z,2,4.0,2.0,1.0,2.0,1.0,1.4142135623730951,\
                     1.0,3.0,10.0,settling,5,7\n";
        check(Format::Csv, &rows, None, &format!("{CSV_HEADER}{cells}"));
        check(Format::Text, &rows, None, "kitchen, 2.0, 1.0\n");
    }

    #[test]
    fn no_rows_in_every_format() {
        check(Format::Json, &[], Some("ff"), r#"{"rows":[],"next":"ff"}"#);
        check(Format::Ndjson, &[], Some("ff"), "");
        check(Format::Csv, &[], Some("ff"), CSV_HEADER);
        check(Format::Text, &[], Some("ff"), "");
        assert_eq!(Format::Json.page(&[], None, true, &|_| None), br#"{"rows":[],"next":null,"partial":true}"#);
    }

    #[test]
    fn what_is_not_there_and_what_looks_like_a_formula() {
        let rows = [row("=1+2", &[-1.5]), row("a \"b\", c", &[1e139, 1e-139])];
        let json: serde_json::Value =
            serde_json::from_slice(&Format::Json.page(&rows[..1], None, false, &|_| None)).unwrap();
        assert_eq!(json["rows"][0]["var_samp"], serde_json::Value::Null);
        assert_eq!(json["rows"][0]["source"], "=1+2");
        let csv = String::from_utf8(Format::Csv.page(&rows, None, false, &|_| None)).unwrap();
        let mut lines = csv.lines().skip(1);
        assert!(lines.next().unwrap().starts_with("'=1+2,1h,"), "{csv}");
        assert!(lines.next().unwrap().starts_with("\"a \"\"b\"\", c\",1h,"), "{csv}");
        assert!(csv.contains(",1,-1.5,-1.5,0.0,,0.0,,-1.5,-1.5,2.25,"), "{csv}");
    }

    #[test]
    fn a_row_of_vectors() {
        let mut moments = Moments::of_vector(&[1.0, 2.0]);
        moments.push_vector(&[3.0, 6.0]);
        let row = StatsRow { moments, ..row("pair", &[]) };
        let json: serde_json::Value =
            serde_json::from_slice(&Format::Ndjson.page(std::slice::from_ref(&row), None, false, &|_| None)).unwrap();
        let check = |name: &str, expected: &str| assert_eq!(json[name].to_string(), expected, "{name}");
        check("sum", "[4.0,8.0]");
        check("mean", "[2.0,4.0]");
        check("var_pop", "[1.0,4.0]");
        check("stddev_pop", "[1.0,2.0]");
        check("var_samp", "[2.0,8.0]");
        check("min", "[1.0,2.0]");
        check("sum_sq", "[10.0,40.0]");
        check("sum_products", "[[10.0,20.0],[20.0,40.0]]");
        check("covar_pop", "[[1.0,2.0],[2.0,4.0]]");
        check("covar_samp", "[[2.0,4.0],[4.0,8.0]]");
        check("corr", "[[1.0,1.0],[1.0,1.0]]");
        assert_eq!(
            (&json["regr_slope"], &json["regr_intercept"], &json["regr_r2"]),
            (&2.0.into(), &0.0.into(), &1.0.into())
        );
        let cells = "pair,1h,1970-01-01T00:00:00Z,1970-01-01T01:00:00Z,2,\"[4.0,8.0]\",\"[2.0,4.0]\",\
                     \"[[1.0,2.0],[2.0,4.0]]\",\"[[2.0,4.0],[4.0,8.0]]\",\"[1.0,2.0]\",\
                     \"[1.4142135623730951,2.8284271247461903]\",\"[1.0,2.0]\",\"[3.0,6.0]\",\
                     \"[[10.0,20.0],[20.0,40.0]]\",settling,5,7\n";
        check_text(Format::Csv, &row, &format!("{CSV_HEADER}{cells}"));
        check_text(Format::Text, &row, "pair, [2.0,4.0], [1.0,4.0]\n");
        let one = StatsRow { moments: Moments::of_vector(&[1.0, 2.0, 3.0]), ..row };
        let json: serde_json::Value =
            serde_json::from_slice(&Format::Ndjson.page(&[one], None, false, &|_| None)).unwrap();
        assert_eq!(json["corr"].to_string(), "[[null,null,null],[null,null,null],[null,null,null]]");
        assert!(json["covar_samp"].is_null() && json.get("regr_slope").is_none(), "{json}");
    }

    fn check_text(format: Format, row: &StatsRow, expected: &str) {
        check(format, std::slice::from_ref(row), None, expected);
    }

    #[test]
    fn numbers_read_back_to_the_same_double() {
        for x in [0.1 + 0.2, 1e139, -2.5e-310, 1.0 / 3.0, 123_456_789.123_456_79, 5e15 + 0.5] {
            let rows = [row("a", &[x])];
            let json: serde_json::Value =
                serde_json::from_slice(&Format::Ndjson.page(&rows, None, false, &|_| None)).unwrap();
            assert_eq!(json["min"].as_f64(), Some(x));
            let csv = Format::Csv.page(&rows, None, false, &|_| None);
            let record = csv::Reader::from_reader(&csv[..]).records().next().unwrap().unwrap();
            assert_eq!(record[11].parse(), Ok(x));
            let text = text(&rows);
            assert_eq!(text.split(", ").nth(1).unwrap().parse(), Ok(x));
        }
    }

    #[test]
    fn the_format_a_client_accepts() {
        let check = |accept: &str, expected: Format| assert_eq!(Format::accepted(accept), expected, "{accept}");
        check("", Format::Json);
        check("*/*", Format::Json);
        check("text/html,application/xhtml+xml,*/*;q=0.8", Format::Json);
        check("text/csv", Format::Csv);
        check("Text/CSV; charset=utf-8", Format::Csv);
        check("application/x-ndjson, application/json", Format::Ndjson);
        check("text/plain;q=0.5, text/csv;q=0.9", Format::Csv);
        check("text/csv;q=0", Format::Json);
        assert_eq!(Format::named("text"), Some(Format::Text));
        assert_eq!(Format::named("xml"), None);
    }

    #[test]
    fn sources_and_states() {
        let calendar = Calendar::new(vec![Period::Day, Period::Seconds(60)], "Europe/Berlin".parse().unwrap()).unwrap();
        let spans = [SourceSpan { source: "a".into(), first: 0, last: 60_000 }];
        let body = sources(&spans, Some("61"), false, &calendar);
        let expected = concat!(
            r#"{"sources":[{"source":"a","first":"1970-01-01T00:00:00Z","last":"1970-01-01T00:01:00Z"}],"next":"61","#,
            r#""periods":["1m","1d"],"timezone":"Europe/Berlin"}"#
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        let StatsRow { bucket, moments, .. } = row("a", &[1.0, 3.0]);
        let body = states("a", &[OpenState { bucket, moments, generation: 5, revision: 0, written: false }]);
        let expected = concat!(
            r#"[{"source":"a","period":"1h","start":"1970-01-01T00:00:00Z","end":"1970-01-01T01:00:00Z","count":2,"#,
            r#""sum":4.0,"sum_sq":10.0,"min":1.0,"max":3.0,"generation":5,"revision":0,"written":false}]"#
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}
