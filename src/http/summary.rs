//! `GET /v1/summary`: any set of sources over any range, merged.
//!
//! Called by the route table; calls `Query::summary`. Reads the parameters and sends the rows as they are made: a
//! summary of 100,000 sources is never held as a whole. What fails before the first row has a status code; after that
//! the connection is closed before the end of the answer, which no client takes for a whole one.

use super::Service;
use super::auth::Caller;
use super::cell::{self, Cell, Statistics, Together};
use super::format::state_name;
use super::nodes::with_the_sink;
use super::parameters::{Parameters, refuse};
use super::problem::Problem;
use super::stats::{PARTIAL, failed, failed_for};
use crate::query::{By, MAX_SOURCES, QueryError, Summary, SummaryQuery, SummaryRow};
use crate::stats::calendar::{Calendar, Period};
use crate::stats::rules::group_id;
use crate::stats::source::RESERVED_PREFIX;
use crate::stats::{Millis, source, timestamp};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use utoipa::ToSchema;

pub(super) const PARAMETERS: [&str; 8] = ["source", "group", "prefix", "from", "to", "by", "period", "format"];

#[utoipa::path(get, path = "/v1/summary", tag = "statistics",
    params(
        ("source" = Option<Vec<String>>, Query, example = json!(["kitchen"]), description = "Up to 100, repeated"),
        ("group" = Option<String>, Query, example = "region:west", description = "And this group of the rules: the same as source=group:..."),
        ("prefix" = Option<String>, Query, description = "And all sources whose id begins with it, up to 100000; empty: all, without groups"),
        ("from" = Option<String>, Query, example = "2026-11-20T05:00:00Z", description = "Readings of this time or later; default: of the first bucket there is"),
        ("to" = Option<String>, Query, example = "2026-11-21", description = "Readings before this time; default: to the end of the coarsest bucket that holds the present"),
        ("by" = Option<String>, Query, pattern = "^(source|period|none)$", description = "One row for each source (default), for each bucket of `period`, or for everything"),
        ("period" = Option<String>, Query, pattern = "^[1-9][0-9]{0,5}(s|m|h|d|w|mo|y)$", description = "With by=period: 1h, 1d, ...; default: the coarsest stored one"),
        ("format" = Option<String>, Query, pattern = "^(json|csv)$", description = "json (default) or csv; else by Accept"),
    ),
    responses((status = 200, description = "Rows by source or by start, merged from stored moments, open buckets included. \
               `covered` is the range they are of, exactly: it is the one asked for, or at each end that lies inside of one up to a \
               bucket more, of the finest period that has all readings of that time", content(
        (SummaryBody<'static> = "application/json"),
        (String = "text/csv"),
    ))),
)]
pub(super) async fn summary(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    answer(&service, &caller, &raw, &headers).await.map_err(|problem| with_the_sink(problem, &service.nodes))
}

async fn answer(service: &Service, caller: &Caller, raw: &RawQuery, headers: &HeaderMap) -> Result<Response, Problem> {
    let parameters = Parameters::read(raw, &PARAMETERS, "source")?;
    let csv = is_csv(&parameters, headers)?;
    let asked = asked(&parameters, service.query.calendar())?;
    caller.needs_sources(&asked.sources)?;
    // A group holds what its members hold: with them it would count twice.
    let with_groups = asked.prefix.as_ref().is_some_and(|prefix| prefix.starts_with(RESERVED_PREFIX));
    let visible = |source: &str| caller.has_source(source) && (with_groups || !source.starts_with(RESERVED_PREFIX));
    let summary = service.query.summary(&asked, &visible, service.clock.now()).await;
    let mut summary = summary.map_err(|error| failed_for(caller, error))?;
    // The first rows before the status: most of what can fail has failed by then.
    let rows = summary.next().await.map_err(failed)?;
    let mut writer = Writer { csv, any: false, told: summary.partial() };
    let mut first = writer.head(&asked, &summary);
    let (ended, told) = (rows.is_none(), writer.told);
    writer.rows(&mut first, &rows.unwrap_or_default());
    if ended {
        writer.end(&mut first, &summary);
    }
    let chunks =
        stream::unfold((summary, writer, Some(first), ended), |(mut summary, mut writer, first, ended)| async move {
            let (chunk, ended) = match first {
                Some(first) => (Ok(first), ended),
                None if ended => return None,
                None => match next(&mut summary, &mut writer).await {
                    Ok((chunk, ended)) => (Ok(chunk), ended),
                    Err(error) => {
                        tracing::warn!(%error, "a summary is cut off");
                        (Err(io::Error::other(error)), true)
                    }
                },
            };
            Some((chunk, (summary, writer, None, ended)))
        });
    let content_type = if csv { "text/csv; charset=utf-8" } else { "application/json" };
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "accept")];
    let partial = (csv && told).then_some([(PARTIAL, "true")]);
    Ok((headers, partial.map(axum::response::AppendHeaders), Body::from_stream(chunks)).into_response())
}

/// The next piece of the answer, and whether it is the last.
async fn next(summary: &mut Summary, writer: &mut Writer) -> Result<(Vec<u8>, bool), QueryError> {
    let mut chunk = Vec::new();
    let rows = summary.next().await?;
    if writer.csv && summary.partial() && !writer.told {
        return Err(QueryError::Unavailable("a side was lost, and a table has no place to say so".to_owned()));
    }
    let ended = rows.is_none();
    writer.rows(&mut chunk, &rows.unwrap_or_default());
    if ended {
        writer.end(&mut chunk, summary);
    }
    Ok((chunk, ended))
}

fn is_csv(parameters: &Parameters, headers: &HeaderMap) -> Result<bool, Problem> {
    match parameters.one("format") {
        Some("csv") => Ok(true),
        Some("json") => Ok(false),
        Some(name) => Err(refuse("format", &format!("\"{name}\" is not a format of a summary: write json or csv"))),
        None => {
            let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
            Ok(super::format::Format::accepted(&accept.collect::<Vec<_>>().join(",")) == super::format::Format::Csv)
        }
    }
}

fn asked(parameters: &Parameters, calendar: &Calendar) -> Result<SummaryQuery, Problem> {
    let (sources, prefix) = selection(parameters)?;
    let period = parameters.one("period").map(str::parse::<Period>).transpose();
    let period = period.map_err(|error| refuse("period", &error.to_string()))?;
    let by = match (parameters.one("by").unwrap_or("source"), period) {
        ("period", period) => {
            By::Period(period.unwrap_or(*calendar.periods().last().expect("a calendar has a period")))
        }
        ("source" | "none", Some(_)) => return Err(refuse("period", "it is for by=period: add that, or leave it out")),
        ("source", None) => By::Source,
        ("none", None) => By::None,
        (other, _) => return Err(refuse("by", &format!("\"{other}\" is not one of source, period, none"))),
    };
    let (from, to) = range(parameters, calendar)?;
    Ok(SummaryQuery { sources, prefix, from, to, by })
}

/// The sources that are meant: those named, and those with a prefix.
fn selection(parameters: &Parameters) -> Result<(Vec<Arc<str>>, Option<String>), Problem> {
    let mut sources: Vec<Arc<str>> = parameters.all("source").into_iter().map(Arc::from).collect();
    if let Some(group) = parameters.one("group") {
        sources.push(group_id(group).map_err(|error| refuse("group", &error.to_string()))?);
    }
    let prefix = parameters.one("prefix").map(str::to_owned);
    if sources.is_empty() && prefix.is_none() {
        return Err(refuse("source", "it is missing: write ?source=ID or ?prefix=P; ?prefix= is all sources"));
    }
    if sources.iter().any(|source| source.is_empty()) {
        return Err(refuse("source", "it is empty: write ?source=ID"));
    }
    if sources.len() > MAX_SOURCES {
        let reason =
            format!("{} are given, at most {MAX_SOURCES} are allowed: name more of them by ?prefix=", sources.len());
        return Err(refuse("source", &reason));
    }
    Ok((sources, prefix))
}

fn range(parameters: &Parameters, calendar: &Calendar) -> Result<(Option<Millis>, Option<Millis>), Problem> {
    let (from, to) = (parameters.time("from", calendar.zone())?, parameters.time("to", calendar.zone())?);
    match (from, to) {
        (Some(from), Some(to)) if from > to => Err(refuse("from", "it is after to: the range is [from, to)")),
        range => Ok(range),
    }
}

/// A range of time, `[from, to)`.
#[derive(Serialize, ToSchema)]
#[schema(as = Range)]
pub(super) struct RangeBody {
    from: String,
    to: String,
}

impl RangeBody {
    pub(super) fn of((from, to): (Millis, Millis)) -> Self {
        Self { from: timestamp::format(from), to: timestamp::format(to) }
    }
}

/// Buckets of a stored period that the rows are put together from.
#[derive(Serialize, ToSchema)]
#[schema(as = Tile)]
struct TileBody {
    period: String,
    from: String,
    to: String,
}

/// The answer, without what comes piece by piece.
#[derive(Serialize, ToSchema)]
#[schema(as = Summary)]
struct SummaryBody<'a> {
    by: &'static str,
    /// How many sources are summed up, with readings in the range or without.
    sources: usize,
    /// What the rows are of; null if there are no such sources.
    covered: Option<RangeBody>,
    tiles: Vec<TileBody>,
    /// Only with readings.
    rows: Vec<Columns<'a>>,
    /// The store or the sink could not be reached.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// The columns of a row; their order is that of JSON and CSV.
#[derive(Serialize, ToSchema)]
#[schema(as = SummaryRow)]
struct Columns<'a> {
    /// Null over several sources.
    source: Option<&'a str>,
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
    /// Of all parts the least final.
    state: &'static str,
}

const HEADER: &str = "source,start,end,count,sum,mean,var_pop,var_samp,stddev_pop,stddev_samp,min,max,sum_sq,state\n";

impl<'a> Columns<'a> {
    fn of(row: &'a SummaryRow) -> Self {
        Self::with(row, Statistics::of(&row.moments), Together::of(&row.moments))
    }

    /// As the row of a CSV.
    fn flat(row: &'a SummaryRow) -> Self {
        Self::with(row, Statistics::flat(&row.moments), Together::default())
    }

    fn with(row: &'a SummaryRow, shown: Statistics, together: Together) -> Self {
        let SummaryRow { source, start, end, moments, state } = row;
        let Statistics { sum, mean, var_pop, var_samp, stddev_pop, stddev_samp, min, max, sum_sq } = shown;
        let Together { sum_products, covar_pop, covar_samp, corr, regr_slope, regr_intercept, regr_r2 } = together;
        Self {
            source: source.as_deref(),
            start: timestamp::format(*start),
            end: timestamp::format(*end),
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
        }
    }
}

/// Writes an answer piece by piece.
struct Writer {
    csv: bool,
    /// Whether there was a row.
    any: bool,
    /// Whether the head of the answer can say that it is partial.
    told: bool,
}

impl Writer {
    fn head(&self, asked: &SummaryQuery, summary: &Summary) -> Vec<u8> {
        if self.csv {
            return HEADER.into();
        }
        let tile = |tile: crate::query::Tile| {
            let RangeBody { from, to } = RangeBody::of((tile.from, tile.to));
            TileBody { period: tile.period.to_string(), from, to }
        };
        let by = match asked.by {
            By::Source => "source",
            By::Period(_) => "period",
            By::None => "none",
        };
        let covered = summary.covered().map(RangeBody::of);
        let tiles = summary.tiles().map(tile).collect();
        let body = SummaryBody { by, sources: summary.sources(), covered, tiles, rows: Vec::new(), partial: false };
        let mut head = serde_json::to_vec(&body).expect("columns have text keys and write into memory");
        // The rows come later, and then what closes both.
        head.truncate(head.len() - "]}".len());
        head
    }

    fn rows(&mut self, out: &mut Vec<u8>, rows: &[SummaryRow]) {
        let written = "a row of columns, into memory";
        let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        for row in rows {
            if self.csv {
                let source = row.source.as_deref().map(source::to_cell);
                csv.serialize(Columns { source: source.as_deref(), ..Columns::flat(row) }).expect(written);
                continue;
            }
            out.extend_from_slice(if self.any { b"," } else { b"" });
            serde_json::to_writer(&mut *out, &Columns::of(row)).expect(written);
            self.any = true;
        }
        out.extend(csv.into_inner().expect("memory does not fail"));
    }

    fn end(&self, out: &mut Vec<u8>, summary: &Summary) {
        match (self.csv, summary.partial()) {
            (true, _) => {}
            (false, false) => out.extend_from_slice(b"]}"),
            (false, true) => out.extend_from_slice(br#"],"partial":true}"#),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tests::query;
    use crate::query::tests::world::World;

    /// The second piece of a summary during which the store went away, of more sources than a piece has.
    async fn cut_off(csv: bool) -> Result<String, QueryError> {
        let world = World::new("1m", "UTC");
        for source in 0..10_001 {
            world.lock().read(&format!("s{source:05}"), 0, 1.0);
        }
        let (sources, prefix) = (Vec::new(), Some("s".to_owned()));
        let asked = SummaryQuery { sources, prefix, from: Some(0), to: Some(60_000), by: By::Source };
        let mut summary = Arc::new(query(&world)).summary(&asked, &|_| true, 0).await?;
        let mut writer = Writer { csv, any: false, told: summary.partial() };
        let (first, ended) = next(&mut summary, &mut writer).await?;
        assert!(!ended && !summary.partial() && first.len() > 10_000);
        world.lock().store_down = true;
        next(&mut summary, &mut writer).await?;
        next(&mut summary, &mut writer).await.map(|(end, _)| String::from_utf8(end).unwrap())
    }

    #[tokio::test]
    async fn a_side_that_goes_away_in_the_middle() {
        let table = cut_off(true).await;
        assert!(matches!(table, Err(QueryError::Unavailable(_))), "a table cannot say it any more: {table:?}");
        assert_eq!(cut_off(false).await, Ok(r#"],"partial":true}"#.to_owned()));
    }
}
