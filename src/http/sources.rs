//! `GET /v1/sources`: the known sources with their first and last bucket, and how the service
//! divides time. `DELETE /v1/sources/{id}`: forgets one, for good.
//!
//! Called by the route table; calls `Query::sources`, and the rollover to forget. What the list looks
//! like is in `format.rs`.

use super::Service;
use super::auth::Caller;
use super::format;
use super::nodes::{orders, with_the_sink};
use super::parameters::{Parameters, refuse};
use super::problem::{Kind, Problem};
use super::stats::{failed, failed_for};
use crate::config::duration;
use crate::query::{PAGE_ROWS, Query};
use crate::rollover::Forgotten;
use crate::stats::Millis;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use utoipa::ToSchema;

pub(super) const PARAMETERS: [&str; 4] = ["prefix", "limit", "cursor", "silent_for"];
/// Clients and proxies give up after 30 s; the work goes on.
const FORGET_WAIT: Duration = Duration::from_secs(25);

#[utoipa::path(get, path = "/v1/sources", tag = "statistics",
    params(
        ("prefix" = Option<String>, Query, description = "Only sources whose id begins with it"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 10_000, description = "Sources of a page, default 10000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("silent_for" = Option<String>, Query, pattern = "^[0-9]+(ms|s|m|h|d)$", example = "10m", description = "Only sources whose last bucket ended longer ago than that; a page may then have fewer than `limit`, even none, and a `next`"),
    ),
    responses((status = 200, description = "Sources by id, and how time is divided", body = format::SourcesBody<'static>)),
)]
pub(super) async fn sources(
    State(service): State<Service>,
    caller: Caller,
    raw: RawQuery,
) -> Result<Response, Problem> {
    let answer = answer(&service.query, &caller, &raw, service.clock.now()).await;
    answer.map_err(|problem| with_the_sink(problem, &service.nodes))
}

async fn answer(query: &Query, caller: &Caller, raw: &RawQuery, now: Millis) -> Result<Response, Problem> {
    let parameters = Parameters::read(raw, &PARAMETERS, "")?;
    let limit = parameters.limit(PAGE_ROWS)?;
    let prefix = parameters.one("prefix").unwrap_or_default();
    let silent_for = parameters.one("silent_for").map(duration).transpose();
    let silent_for = silent_for.map_err(|reason| refuse("silent_for", &reason))?;
    let shown = |source: &str| caller.has_source(source);
    let mut page = query.sources_shown(prefix, limit, parameters.one("cursor"), shown).await.map_err(failed)?;
    // A page may hold fewer than were asked for: its cursor says whether there are more.
    if let Some(silent_for) = silent_for {
        page.sources.retain(|span| query.calendar().last_end(span) < now - silent_for);
    }
    let body = format::sources(&page.sources, page.next.as_deref(), page.partial, query.calendar());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// What was held of a source that is forgotten.
#[derive(Serialize, ToSchema)]
#[schema(as = Forgotten)]
pub(super) struct ForgottenBody {
    #[schema(example = "kitchen")]
    source: String,
    /// States in open buckets.
    states: usize,
    /// Rows of written buckets.
    rows: usize,
}

#[utoipa::path(delete, path = "/v1/sources/{id}", tag = "statistics",
    params(("id" = String, Path, min_length = 1, example = "kitchen", description = "The source, percent-encoded; a slash may stand as it is")),
    responses((status = 200, body = ForgottenBody,
        description = "Forgotten for good: its open states, its rows, its place in the list. Idempotency keys stay: a \
                       request that is repeated does not bring it back. If it sends again, it starts anew")),
)]
pub(super) async fn forget(
    State(service): State<Service>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ForgottenBody>, Problem> {
    let Path(id) = id.map_err(|_| refuse("id", "it is not UTF-8 where it is percent-decoded"))?;
    let source: Arc<str> = id.into();
    caller.needs_sources(std::slice::from_ref(&source))?;
    let forgotten = timeout(FORGET_WAIT, orders(&service)?.forget(Arc::clone(&source))).await;
    let forgotten = match forgotten {
        Ok(forgotten) => forgotten.map_err(|error| error.to_string()),
        Err(_) => Err("it takes longer than a request may, and goes on; repeat it to learn of its end".to_owned()),
    };
    let Forgotten { states, rows } = forgotten.map_err(|reason| Problem::new(Kind::Unavailable, reason))?;
    service.query.list_anew().await;
    if states + rows == 0 {
        service.query.refuse_unknown(std::slice::from_ref(&source)).await.map_err(|e| failed_for(&caller, e))?;
    }
    Ok(Json(ForgottenBody { source: source.to_string(), states, rows }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tests::query;
    use crate::query::tests::world::World;

    async fn check(raw: &str, status: u16, expected: &str) {
        let world = World::new("1m,1h", "UTC");
        world.lock().read("attic", 0, 1.0);
        world.lock().read("kitchen", 0, 1.0);
        let answer = answer(&query(&world), &Caller::Everybody, &RawQuery(Some(raw.to_owned())), 600_000).await;
        let response = answer.unwrap_or_else(IntoResponse::into_response);
        assert_eq!(response.status().as_u16(), status, "{raw}");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(expected), "{raw}: {body} lacks {expected}");
    }

    #[tokio::test]
    async fn a_list_of_sources() {
        let attic = r#""source":"attic","first":"1970-01-01T00:00:00Z","last":"1970-01-01T00:00:00Z"}"#;
        check("limit=1", 200, &format!(r#"{{"sources":[{{{attic}],"next":"6174746963","periods""#)).await;
        check("limit=1&cursor=6174746963", 200, r#"[{"source":"kitchen""#).await;
        check("prefix=ki", 200, r#"[{"source":"kitchen""#).await;
        check("prefix=x", 200, r#"{"sources":[],"next":null,"periods":["1m","1h"],"timezone":"UTC"}"#).await;
        check("source=attic", 400, "prefix, limit, cursor, silent_for").await;
        // The minute ended at 00:01, nine minutes ago.
        check("silent_for=9m", 200, r#"{"sources":[],"next":null"#).await;
        check("silent_for=539s&prefix=ki", 200, r#"[{"source":"kitchen""#).await;
        check("silent_for=10", 400, "a whole number and a unit").await;
        check("cursor=x", 400, "cursor").await;
        check("limit=0", 400, "1 to 10000").await;
    }
}
