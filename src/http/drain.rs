//! `POST /v1/drain`: write and close everything now; `GET /v1/drain`: how far that is.
//!
//! Called by the route table; the work is the rollover's (`rollover/drain.rs`). The POST starts the
//! drain or joins the one that runs, and answers when it has ended, or after a while with 202. It
//! goes on without its client.

use super::Service;
use super::nodes::orders;
use super::parameters::{Parameters, refuse};
use super::problem::{Kind, Problem};
use crate::rollover::{Drain, DrainReport};
use crate::stats::calendar::Bucket;
use crate::stats::timestamp;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;
use utoipa::ToSchema;

/// How long the POST waits for the end, unless it says otherwise; at most so long too: proxies and
/// clients give up after 30 s.
const MAX_WAIT: u64 = 20;

/// How a drain stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drain)]
pub(super) struct DrainBody {
    state: DrainState,
    /// Buckets it still has to look at; closing one may add those it moves up into.
    buckets_left: usize,
    /// Buckets whose rows were written.
    buckets_written: usize,
    /// Buckets that have left the store.
    buckets_closed: usize,
    /// Rows written, corrections included.
    rows_written: usize,
    /// Buckets that are open at the end: readings came for them while they were drained.
    still_open: usize,
    /// The first 20 of them.
    first_open: Vec<OpenBucket>,
    /// Why it failed.
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DrainState {
    /// There was none since the service started.
    Never,
    Running,
    Done,
    /// It broke off; nothing is lost by it.
    Failed,
}

#[derive(Debug, Serialize, ToSchema)]
struct OpenBucket {
    period: String,
    start: String,
    end: String,
}

impl DrainBody {
    fn of(drain: Drain) -> Self {
        let (state, report, reason) = match drain {
            Drain::Never => (DrainState::Never, DrainReport::default(), None),
            Drain::Running(report) => (DrainState::Running, report, None),
            Drain::Done(report) => (DrainState::Done, report, None),
            Drain::Failed(report, reason) => (DrainState::Failed, report, Some(reason)),
        };
        let shown = |bucket: &Bucket| OpenBucket {
            period: bucket.period.to_string(),
            start: timestamp::format(bucket.start),
            end: timestamp::format(bucket.end),
        };
        Self {
            state,
            buckets_left: report.buckets_left,
            buckets_written: report.buckets_written,
            buckets_closed: report.buckets_closed,
            rows_written: report.rows_written,
            still_open: report.still_open,
            first_open: report.first_open.iter().map(shown).collect(),
            reason,
        }
    }
}

#[utoipa::path(post, path = "/v1/drain", tag = "operations",
    params(("wait" = Option<u64>, Query, minimum = 0, maximum = 20, description = "Seconds to wait for the end, default 20")),
    responses(
        (status = 200, description = "Everything that was open when it began is written and closed, but for what `still_open` says", body = DrainBody),
        (status = 202, description = "It goes on, with or without this client: GET /v1/drain says how far it is", body = DrainBody),
    ),
)]
pub(super) async fn post(State(service): State<Service>, raw: RawQuery) -> Result<Response, Problem> {
    let parameters = Parameters::read(&raw, &["wait"], "")?;
    let wait = match parameters.one("wait") {
        None => MAX_WAIT,
        Some(text) => text.parse().ok().filter(|wait| *wait <= MAX_WAIT).ok_or_else(|| {
            refuse("wait", &format!("\"{text}\" is not a number of seconds: write a number from 0 to {MAX_WAIT}"))
        })?,
    };
    let mut drain = orders(&service)?.drain();
    // Whether it ended or the time is over is seen from how it stands.
    let _ = timeout(Duration::from_secs(wait), drain.wait_for(|drain| !drain.is_running())).await;
    let drain = drain.borrow().clone();
    match drain {
        Drain::Failed(report, reason) => {
            let (written, closed) = (report.buckets_written, report.buckets_closed);
            let detail = format!(
                "the drain broke off: {reason}; {written} buckets were written and {closed} closed, the others stay \
                 in the store and nothing is lost: repeat it"
            );
            Err(Problem::new(Kind::Unavailable, detail))
        }
        Drain::Running(_) => Ok((StatusCode::ACCEPTED, Json(DrainBody::of(drain))).into_response()),
        Drain::Done(_) | Drain::Never => Ok(Json(DrainBody::of(drain)).into_response()),
    }
}

#[utoipa::path(get, path = "/v1/drain", tag = "operations", responses(
    (status = 200, description = "How the last drain stands", body = DrainBody),
))]
pub(super) async fn get(State(service): State<Service>) -> Result<Json<DrainBody>, Problem> {
    Ok(Json(DrainBody::of(orders(&service)?.last_drain())))
}
