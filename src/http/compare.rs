//! `GET /v1/compare`: two sources, or two times of one, beside each other.
//!
//! Called by the route table; sums up both sides with `Query::summary` and compares them with `stats/compare.rs`.

use super::Service;
use super::auth::Caller;
use super::format::state_name;
use super::nodes::with_the_sink;
use super::parameters::{Parameters, refuse};
use super::problem::Problem;
use super::stats::{failed, failed_for};
use super::summary::RangeBody;
use crate::query::{By, SummaryQuery};
use crate::stats::Millis;
use crate::stats::compare::{Comparison, Ratio, Welch, compare};
use crate::stats::moments::Moments;
use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

pub(super) const PARAMETERS: [&str; 7] =
    ["source", "from", "to", "against", "against_from", "against_to", "confidence"];
const CONFIDENCE: f64 = 0.95;
/// What the numbers suppose, and readings mostly are not.
const INDEPENDENCE: &str = "t, p and the intervals suppose independent readings. Readings that follow one another are mostly alike: \
                            then p is too small and the intervals are too narrow.";
const NORMALITY: &str = "The ratio of variances also supposes normally distributed readings, however many there are.";

#[utoipa::path(get, path = "/v1/compare", tag = "statistics",
    params(
        ("source" = String, Query, example = "kitchen", description = "The first side"),
        ("from" = Option<String>, Query, description = "Of the first side: readings of this time or later; default: all"),
        ("to" = Option<String>, Query, description = "Of the first side: readings before this time"),
        ("against" = Option<String>, Query, example = "cellar", description = "The source of the second side; default: the same"),
        ("against_from" = Option<String>, Query, description = "Of the second side; default for both of its times: those of the first side"),
        ("against_to" = Option<String>, Query, description = "Of the second side"),
        ("confidence" = Option<f64>, Query, minimum = 0.5, maximum = 0.9999, description = "Of the intervals, default 0.95"),
    ),
    responses((status = 200, description = "Both sides, the difference of their means with Welch's t, and the ratio of their variances with F", body = ComparisonBody)),
)]
pub(super) async fn compared(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
) -> Result<Json<ComparisonBody>, Problem> {
    answer(&service, &caller, &raw).await.map(Json).map_err(|problem| with_the_sink(problem, &service.nodes))
}

type Times = (Option<Millis>, Option<Millis>);

async fn answer(service: &Service, caller: &Caller, raw: &RawQuery) -> Result<ComparisonBody, Problem> {
    let parameters = Parameters::read(raw, &PARAMETERS, "")?;
    let source = parameters.source()?;
    let against = parameters.one("against").filter(|against| !against.is_empty()).unwrap_or(source);
    let range = times(&parameters, "from", "to", service)?;
    let own = ["against_from", "against_to"].iter().any(|name| parameters.one(name).is_some());
    let against_range = if own { times(&parameters, "against_from", "against_to", service)? } else { range };
    let confidence = confidence(&parameters)?;
    let a = side(service, caller, source, range).await?;
    let b = side(service, caller, against, against_range).await?;
    if source == against && a.covered.0 < b.covered.1 && b.covered.0 < a.covered.1 {
        let reason = "both sides are of the same source and have readings in common: choose times that do not overlap, \
                      down to a bucket of the finest stored period, or name another source";
        return Err(refuse("against", reason));
    }
    let Comparison { difference, welch, ratio } = compare(&a.moments, &b.moments, confidence);
    let mut notes = vec![INDEPENDENCE];
    notes.extend(ratio.map(|_| NORMALITY));
    Ok(ComparisonBody {
        confidence,
        difference: difference.map(|mean| DifferenceBody::of(mean, welch)),
        ratio: ratio.map(RatioBody::of),
        notes,
        partial: a.partial || b.partial,
        a: a.body(),
        b: b.body(),
    })
}

fn times(parameters: &Parameters, from: &str, to: &str, service: &Service) -> Result<Times, Problem> {
    let zone = service.query.calendar().zone();
    match (parameters.time(from, zone)?, parameters.time(to, zone)?) {
        (Some(start), Some(end)) if start > end => {
            Err(refuse(from, &format!("it is after {to}: the range is [{from}, {to})")))
        }
        times => Ok(times),
    }
}

fn confidence(parameters: &Parameters) -> Result<f64, Problem> {
    let Some(text) = parameters.one("confidence") else { return Ok(CONFIDENCE) };
    text.parse().ok().filter(|c| (0.5..=0.9999).contains(c)).ok_or_else(|| {
        refuse(
            "confidence",
            &format!("\"{text}\" is not a confidence: write a number from 0.5 to 0.9999, such as 0.95"),
        )
    })
}

/// One side, summed up.
struct Side {
    source: String,
    covered: (Millis, Millis),
    moments: Moments,
    state: Option<&'static str>,
    partial: bool,
}

async fn side(service: &Service, caller: &Caller, source: &str, (from, to): Times) -> Result<Side, Problem> {
    let asked = SummaryQuery { sources: vec![Arc::from(source)], prefix: None, from, to, by: By::None };
    caller.needs_sources(&asked.sources)?;
    let summary = service.query.summary(&asked, &|_| true, service.clock.now()).await;
    let mut summary = summary.map_err(|error| failed_for(caller, error))?;
    let row = summary.next().await.map_err(failed)?.unwrap_or_default().pop();
    if let Some(length) = row.as_ref().map(|row| row.moments.length()).filter(|length| *length > 1) {
        let reason = format!("the readings of \"{source}\" are vectors of {length} numbers, which are not compared");
        return Err(refuse("source", &reason));
    }
    Ok(Side {
        source: source.to_owned(),
        covered: summary.covered().expect("there is a source"),
        state: row.as_ref().map(|row| state_name(row.state)),
        moments: row.map_or(Moments::EMPTY, |row| row.moments),
        partial: summary.partial(),
    })
}

impl Side {
    fn body(self) -> SideBody {
        let Self { source, covered, moments, state, .. } = self;
        let known = |x: f64| x.is_finite().then_some(x);
        SideBody {
            source,
            covered: RangeBody::of(covered),
            count: moments.count as u64,
            mean: moments.mean(),
            var_samp: moments.var_samp(),
            stddev_samp: moments.stddev_samp(),
            min: known(moments.min),
            max: known(moments.max),
            state,
        }
    }
}

/// One side of a comparison.
#[derive(Serialize, ToSchema)]
#[schema(as = ComparisonSide)]
struct SideBody {
    source: String,
    covered: RangeBody,
    count: u64,
    mean: Option<f64>,
    var_samp: Option<f64>,
    stddev_samp: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    /// Of all parts the least final; null without readings.
    state: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Comparison)]
pub(super) struct ComparisonBody {
    a: SideBody,
    b: SideBody,
    confidence: f64,
    /// Null if a side has no readings.
    difference: Option<DifferenceBody>,
    /// Null if a side has fewer than two readings, or only equal ones.
    ratio: Option<RatioBody>,
    /// What the numbers suppose, for people.
    notes: Vec<&'static str>,
    /// The store or the sink could not be reached.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// The mean of a less that of b; all but that is null if a side has fewer than two readings, or both only equal ones.
#[derive(Serialize, ToSchema)]
#[schema(as = Difference)]
struct DifferenceBody {
    mean: f64,
    standard_error: Option<f64>,
    /// Welch's.
    t: Option<f64>,
    /// After Welch and Satterthwaite.
    df: Option<f64>,
    /// Two-sided.
    p: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

impl DifferenceBody {
    fn of(mean: f64, welch: Option<Welch>) -> Self {
        let of = |field: fn(&Welch) -> f64| welch.as_ref().map(field);
        Self {
            mean,
            standard_error: of(|w| w.standard_error),
            t: of(|w| w.t),
            df: of(|w| w.df),
            p: of(|w| w.p),
            low: of(|w| w.low),
            high: of(|w| w.high),
        }
    }
}

/// The sample variance of a over that of b.
#[derive(Serialize, ToSchema)]
#[schema(as = VarianceRatio)]
struct RatioBody {
    f: f64,
    df_a: f64,
    df_b: f64,
    /// Two-sided.
    p: f64,
    low: f64,
    high: f64,
}

impl RatioBody {
    fn of(Ratio { f, df_a, df_b, p, low, high }: Ratio) -> Self {
        Self { f, df_a, df_b, p, low, high }
    }
}
