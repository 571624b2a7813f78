//! `GET /v1/state`: what the store holds of one source, in decimal.
//!
//! Called by the route table; calls `Query::state`. What a life looks like is in `format.rs`.

use super::Service;
use super::auth::Caller;
use super::format;
use super::parameters::Parameters;
use super::problem::Problem;
use super::stats::failed_for;
use crate::failpoint;
use crate::query::Query;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

#[utoipa::path(get, path = "/v1/state", tag = "statistics",
    params(("source" = String, Query, min_length = 1, example = "kitchen", description = "The source")),
    responses((status = 200, description = "Its open lives as the store holds them", body = [format::StateColumns<'static>])),
)]
pub(super) async fn state(State(service): State<Service>, caller: Caller, raw: RawQuery) -> Result<Response, Problem> {
    failpoint::trip("state-asked");
    answer(&service.query, &caller, &raw).await
}

async fn answer(query: &Query, caller: &Caller, raw: &RawQuery) -> Result<Response, Problem> {
    let parameters = Parameters::read(raw, &["source"], "")?;
    let source = parameters.source()?;
    caller.needs_sources(&[source])?;
    let states = query.state(&source.into()).await.map_err(|error| failed_for(caller, error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], format::states(source, &states)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tests::query;
    use crate::query::tests::world::World;

    async fn check(raw: &str, status: u16, expected: &str) {
        let world = World::new("1m,1h", "UTC");
        world.lock().read("kitchen", 0, 1.5);
        let answer = answer(&query(&world), &Caller::Everybody, &RawQuery(Some(raw.to_owned()))).await;
        let response = answer.unwrap_or_else(IntoResponse::into_response);
        assert_eq!(response.status().as_u16(), status, "{raw}");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(expected), "{raw}: {body} lacks {expected}");
    }

    #[tokio::test]
    async fn the_state_of_a_source() {
        check("source=kitchen", 200, r#""count":1,"sum":1.5,"sum_sq":2.25,"min":1.5,"max":1.5,"#).await;
        check("source=kichen", 404, "did you mean kitchen?").await;
        check("", 400, "missing").await;
        check("source=a&source=b", 400, "more than once").await;
        check("source=a&period=1m", 400, "use source").await;
    }
}
