//! `GET /v1/errors`: the error log.
//!
//! Called by the route table; the rows are `errorlog.rs`' to find. Those of all instances that share the store are
//! listed, with those that still wait in this one.

use super::Service;
use super::parameters::{Parameters, refuse};
use super::problem::Problem;
use crate::errorlog::{Filter, Place};
use crate::incidents::Incident;
use crate::stats::timestamp;
use crate::store::errors::MAX_ERRORS;
use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use utoipa::ToSchema;

pub(super) const PARAMETERS: [&str; 6] = ["view", "from", "to", "q", "limit", "cursor"];

/// Unexpected errors, those seen last first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorsBody {
    errors: Vec<ErrorBody>,
    /// For the next page.
    next: Option<String>,
    /// Whether the store could not be read: then these are only the errors that wait in this instance.
    partial: bool,
}

/// An unexpected error, however often it was seen.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorBody {
    /// As in `error_id` of problem documents and of the log.
    #[schema(example = "4f1d0a7c9be25386")]
    id: String,
    /// Route of the request, or name of the task.
    #[schema(example = "/v1/state")]
    view: String,
    #[schema(example = "panic")]
    class: String,
    message: String,
    /// File and line.
    #[schema(example = "src/http/state.rs:31")]
    place: String,
    /// Of the last time, if it was in a request.
    request_id: Option<String>,
    /// Of the last time.
    instance: String,
    count: u64,
    #[schema(example = "2026-11-20T05:00:00Z")]
    first_seen: String,
    #[schema(example = "2026-11-20T05:07:12.250Z")]
    last_seen: String,
}

impl From<Incident> for ErrorBody {
    fn from(row: Incident) -> Self {
        let (first_seen, last_seen) = (timestamp::format(row.first_seen), timestamp::format(row.last_seen));
        let Incident { id, view, class, message, place, request_id, instance, count, .. } = row;
        Self { id, view, class, message, place, request_id, instance, count, first_seen, last_seen }
    }
}

#[utoipa::path(get, path = "/v1/errors", tag = "operations",
    params(
        ("view" = Option<String>, Query, description = "Only those of this route or task"),
        ("from" = Option<String>, Query, description = "Only those seen at this time or later"),
        ("to" = Option<String>, Query, description = "Only those seen before this time"),
        ("q" = Option<String>, Query, description = "Only those with this text in view, class or message"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1_000, description = "Errors of a page, default 1000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, description = "The error log, those seen last first", body = ErrorsBody)),
)]
pub(super) async fn errors(State(service): State<Service>, raw: RawQuery) -> Result<Json<ErrorsBody>, Problem> {
    let parameters = Parameters::read(&raw, &PARAMETERS, "")?;
    let limit = parameters.limit(MAX_ERRORS)?;
    let zone = service.calendar.zone();
    let filter = Filter {
        view: parameters.one("view").map(str::to_owned),
        from: parameters.time("from", zone)?,
        to: parameters.time("to", zone)?,
        text: parameters.one("q").map(str::to_owned),
    };
    let behind = parameters.one("cursor").map(place).transpose()?;
    let page = service.errors.page(&filter, behind.as_ref(), limit).await;
    Ok(Json(ErrorsBody {
        errors: page.rows.into_iter().map(ErrorBody::from).collect(),
        next: page.next.map(|(last_seen, id)| format!("{last_seen}-{id}")),
        partial: page.partial,
    }))
}

fn place(cursor: &str) -> Result<Place, Problem> {
    let place = cursor.rsplit_once('-').and_then(|(last, id)| Some((last.parse().ok()?, id.to_owned())));
    place.ok_or_else(|| refuse("cursor", &format!("\"{cursor}\" is none: take next of the page before")))
}
