//! For those who operate the service: is it alive, is it ready, what does it count.
//!
//! Called by the route table; reads what the committer and the rollover last found out and asks
//! nobody, so that a probe is answered at once and costs nothing, whatever hangs.

use super::Service;
use super::auth::Caller;
use super::parameters::{Parameters, refuse};
use super::problem::Problem;
use super::readings::acks;
use crate::auth::Scope;
use crate::ingest::commit::Losses;
use crate::rollover::Report;
use crate::telemetry::metrics::{self, Standing};
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// `GET /healthz`: the process answers.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses(
    (status = 200, description = "The process answers", body = String, content_type = "text/plain"),
))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether readings are taken and rows are written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    instance: String,
    store: StoreReadiness,
    /// Null where another instance has it.
    sink: Option<SinkReadiness>,
    /// Null without a sink.
    rollover: Option<Backlog>,
}

#[derive(Debug, Serialize, ToSchema)]
struct StoreReadiness {
    reachable: bool,
    /// What an acknowledgement is worth.
    #[schema(example = "disk")]
    durability: String,
    /// `replica` if at least one replica has what is acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    acks: Option<String>,
    /// Why it cannot be reached.
    trouble: Option<String>,
    /// What it has lost of what it had confirmed to this instance, since its start.
    lost: StoreLosses,
}

#[derive(Debug, Serialize, ToSchema)]
struct StoreLosses {
    /// How often it came back without something.
    times: u64,
    /// Commits that are gone, of all times.
    frames: u64,
    last: Option<StoreLoss>,
}

/// What was confirmed between the two times is gone, or some of it.
#[derive(Debug, Serialize, ToSchema)]
struct StoreLoss {
    /// All the store held, also from other instances and of earlier; else the last of it.
    everything: bool,
    frames: u64,
    #[schema(example = "2026-11-20T05:00:00Z")]
    from: String,
    #[schema(example = "2026-11-20T05:00:01.250Z")]
    to: String,
}

impl StoreLosses {
    fn of(losses: Losses) -> Self {
        let last = losses.last.map(|loss| {
            let [from, to] = loss.window();
            StoreLoss { everything: loss.everything, frames: loss.frames, from, to }
        });
        Self { times: losses.times, frames: losses.frames, last }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct SinkReadiness {
    /// Whether the last write succeeded, or none was needed since the sink was reached.
    usable: bool,
    /// Why the last write failed, or the sink was not reached at the start.
    trouble: Option<String>,
}

/// What waits to be written.
#[derive(Debug, Serialize, ToSchema)]
struct Backlog {
    /// In the store, of every period.
    open_buckets: u64,
    /// Due and taken up by this instance, but not written yet.
    waiting_buckets: usize,
    /// For how long the longest due bucket waits; 0 if none is due.
    oldest_due_seconds: f64,
}

impl Readiness {
    fn of(service: &Service) -> Self {
        let Report { open_buckets, waiting_buckets, oldest_due, sink_trouble } = service.progress.report();
        let trouble = service.committer.trouble();
        let has_sink = service.role.has_sink();
        Self {
            ready: trouble.is_none() && sink_trouble.is_none(),
            instance: service.instance.to_string(),
            store: StoreReadiness {
                reachable: trouble.is_none(),
                durability: service.store.durability().to_string(),
                acks: acks(&*service.store),
                trouble,
                lost: StoreLosses::of(service.committer.losses()),
            },
            sink: has_sink.then(|| SinkReadiness { usable: sink_trouble.is_none(), trouble: sink_trouble }),
            rollover: has_sink.then_some(Backlog {
                open_buckets,
                waiting_buckets,
                oldest_due_seconds: oldest_due.as_secs_f64(),
            }),
        }
    }
}

/// `GET /readyz`: the store answers and the sink takes rows.
///
/// What is said is as of the last attempt, at most some seconds ago. While only the sink is away,
/// readings are still taken: `exclude=sink` is for whatever decides where senders go.
#[utoipa::path(get, path = "/readyz", tag = "operations",
    params(("exclude" = Option<String>, Query, description = "`sink`: ready even while the sink is not usable")),
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready; the body says why", body = Readiness),
    ),
)]
pub(super) async fn readyz(State(service): State<Service>, caller: Caller, raw: RawQuery) -> Result<Response, Problem> {
    let parameters = Parameters::read(&raw, &["exclude"], "")?;
    let mut readiness = Readiness::of(&service);
    match parameters.one("exclude") {
        None => {}
        Some("sink") => readiness.ready = readiness.store.reachable,
        Some(other) => return Err(refuse("exclude", &format!("\"{other}\" cannot be excluded: write sink"))),
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !caller.may(Scope::Query) && !caller.may(Scope::Admin) {
        let Readiness { ready, instance, .. } = readiness;
        return Ok((status, Json(json!({"ready": ready, "instance": instance}))).into_response());
    }
    Ok((status, Json(readiness)).into_response())
}

/// `GET /metrics`: everything that is counted, in Prometheus' text format; docs/metrics.md says what it means.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(service): State<Service>) -> Response {
    // Without a sink nothing is found out about it: no trouble, no backlog.
    let Report { open_buckets, oldest_due, sink_trouble, .. } = service.progress.report();
    let standing = Standing {
        store_reachable: service.committer.trouble().is_none(),
        sink_usable: sink_trouble.is_none(),
        open_buckets,
        oldest_due,
    };
    let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([content_type], metrics::render(standing)).into_response()
}
