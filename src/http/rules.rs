//! `GET /v1/rules`, `POST /v1/rules`, `GET /v1/rules/explain`: the rules, a change of them, and what they are for a
//! source.
//!
//! Called by the route table; the versions are kept by `store/rules.rs`. What is answered is what the store has, not
//! what this instance last heard of.

use super::Service;
use super::auth::Caller;
use super::body::collect_small;
use super::parameters::{Parameters, refuse};
use super::problem::{Kind, Problem};
use crate::auth::Scope;
use crate::config::WrittenRules;
use crate::stats::rules::{MAX_RULES_BYTES, MAX_TABLE_BYTES, Rules};
use crate::stats::{source, timestamp};
use crate::store::StoreError;
use crate::store::rules::{ALL_TIME, ApplyError, History, Version};
use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Both texts as JSON, where a character may take up to six bytes; seldom does any take more than two.
const MAX_BODY_BYTES: usize = 2 * (MAX_RULES_BYTES + MAX_TABLE_BYTES);

/// The rules there are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RulesBody {
    /// The newest version, 0 if there never was one.
    version: u64,
    /// Its file of rules, for those with the scope admin.
    rules: Option<String>,
    /// Its table of groups, likewise.
    groups: Option<String>,
    /// All that are kept, the oldest first.
    versions: Vec<VersionBody>,
}

#[derive(Debug, Serialize, ToSchema)]
struct VersionBody {
    version: u64,
    /// The start of the first bucket it is for; null: of all that ever come.
    #[schema(example = "2026-11-20T05:01:00Z")]
    from: Option<String>,
}

/// The rules after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangedBody {
    version: u64,
    /// The start of the first bucket it is for; null: of all that ever come.
    #[schema(example = "2026-11-20T05:01:00Z")]
    from: Option<String>,
    /// False if these were the rules already.
    changed: bool,
}

/// Rules to be applied.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read as config/rules.rs")]
pub(super) struct RulesText {
    /// The file of rules, TOML.
    #[schema(example = "[[rule]]\nmatch = \"weather.*.temperature\"\ngroups = [\"region:{1}\"]\n")]
    rules: String,
    /// The table that it names in `groups_file`, CSV with the columns source and group.
    groups: Option<String>,
}

/// What the rules are for a source.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedBody {
    #[schema(example = "weather.west.temperature")]
    source: String,
    /// For the bucket that holds the present; null if no version is.
    now: Option<ForSource>,
    /// Versions that are to come, the next first.
    later: Vec<ForSource>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ForSource {
    version: u64,
    from: Option<String>,
    /// The place of its rule among the rules, from 1; null if none is for it.
    rule: Option<usize>,
    #[serde(rename = "match")]
    pattern: Option<String>,
    /// How long after a reading the next one is expected.
    expect_seconds: Option<f64>,
    #[schema(example = json!(["group:region:west"]))]
    groups: Vec<String>,
    /// Groups it is not in because no id could be made for them, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<String>,
}

#[utoipa::path(get, path = "/v1/rules", tag = "operations", responses(
    (status = 200, description = "The rules", body = RulesBody),
))]
pub(super) async fn get(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
) -> Result<Json<RulesBody>, Problem> {
    Parameters::read(&raw, &[], "")?;
    let history = history(&service).await?;
    let newest = history.versions().last().map(|(version, _)| &version.text);
    let written = newest.filter(|_| caller.may(Scope::Admin)).and_then(|text| serde_json::from_str(text).ok());
    let WrittenRules { rules, groups } = written.unwrap_or_default();
    let version = |(version, _): (&Version, &Rules)| VersionBody { version: version.number, from: from(version) };
    Ok(Json(RulesBody {
        version: history.number(),
        rules: Some(rules).filter(|_| caller.may(Scope::Admin)),
        groups,
        versions: history.versions().map(version).collect(),
    }))
}

#[utoipa::path(post, path = "/v1/rules", tag = "operations",
    request_body(content = RulesText, content_type = "application/json"),
    responses((status = 200, description = "They are the newest version, on all instances", body = ChangedBody)),
)]
pub(super) async fn post(
    State(service): State<Service>,
    raw: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ChangedBody>, Problem> {
    Parameters::read(&raw, &[], "")?;
    let body = collect_small(&headers, body, MAX_BODY_BYTES).await?;
    let written: WrittenRules = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(Kind::UnreadableBody, format!("this is not {{\"rules\": \"...\", \"groups\": \"...\"}}: {error}"))
    })?;
    let (version, changed) = service.committer.rules().change(&written).await.map_err(|error| match error {
        ApplyError::Wrong(wrong) => Problem::new(Kind::InvalidRules, format!("{wrong}; the old rules stay"))
            .with("file", wrong.file.clone().into())
            .with("line", wrong.line.into()),
        ApplyError::Store(error) => unavailable(&error),
        ApplyError::Contended => Problem::new(Kind::Unavailable, error.to_string()),
    })?;
    Ok(Json(ChangedBody { version: version.number, from: from(&version), changed }))
}

#[utoipa::path(get, path = "/v1/rules/explain", tag = "operations",
    params(("source" = String, Query, min_length = 1, example = "weather.west.temperature", description = "Any id, known or not")),
    responses((status = 200, description = "Its rule and its groups, now and from when on others", body = ExplainedBody)),
)]
pub(super) async fn explain(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
) -> Result<Json<ExplainedBody>, Problem> {
    let parameters = Parameters::read(&raw, &["source"], "")?;
    let source = parameters.source()?;
    source::check(source).map_err(|error| refuse("source", &error.to_string()))?;
    caller.needs_sources(&[source])?;
    let history = history(&service).await?;
    let present = service.calendar.bucket(service.calendar.periods()[0], service.clock.now()).start;
    let explained = |(version, rules): (&Version, &Rules)| {
        let explained = rules.explain(source);
        let rule = explained.rule.map(|index| &rules.rules[index]);
        ForSource {
            version: version.number,
            from: from(version),
            rule: explained.rule.map(|index| index + 1),
            pattern: rule.map(|rule| rule.pattern.to_string()),
            expect_seconds: rule.and_then(|rule| rule.expect).map(|span| span as f64 / 1_000.0),
            groups: explained.groups.iter().map(ToString::to_string).collect(),
            dropped: explained.dropped.iter().map(|(name, error)| format!("{name}: {error}")).collect(),
        }
    };
    Ok(Json(ExplainedBody {
        source: source.to_owned(),
        now: history.at(present).map(explained),
        later: history.versions().filter(|(version, _)| version.from > present).map(explained).collect(),
    }))
}

async fn history(service: &Service) -> Result<Arc<History>, Problem> {
    service.committer.rules().present().await.map_err(|error| unavailable(&error))
}

fn unavailable(error: &StoreError) -> Problem {
    Problem::new(Kind::Unavailable, format!("{error}; try again"))
}

fn from(version: &Version) -> Option<String> {
    (version.from != ALL_TIME).then(|| timestamp::format(version.from))
}
