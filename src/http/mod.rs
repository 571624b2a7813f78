//! The only code that knows axum, status codes and JSON shapes; this file is THE route table.
//!
//! Built by `app.rs` and by tests; one file per resource, each translating between HTTP and the
//! module that does the work. No handler decides anything about readings or buckets. Every answer
//! that is not a success is a problem document from `problem.rs`.

mod allowed;
mod auth;
mod body;
mod cell;
mod compare;
mod drain;
mod encoding;
mod errors;
mod filled;
mod format;
mod headers;
mod idempotency;
mod nodes;
mod observe;
mod openapi;
mod operations;
mod origins;
mod pace;
mod page;
mod parameters;
mod prefix;
pub mod problem;
mod publish;
mod readings;
mod receive;
mod redirect;
mod rules;
pub mod server;
mod socket;
mod sources;
mod standing;
mod state;
mod stats;
mod stream;
mod summary;

use crate::auth::Scope::{self, Admin, Ingest, Publish};
use crate::clock::Clock;
use crate::config::{Role, Web};
use crate::errorlog::ErrorLog;
use crate::ingest::commit::Committer;
use crate::live::Hub;
use crate::nodes::Nodes;
use crate::query::{Query, StatsRow};
use crate::rollover::{Orders, Progress};
use crate::stats::calendar::Calendar;
use crate::store::Store;
use auth::Access::{Anyone, Asks, Listens, Needs};
pub use auth::Guard;
use auth::Routes;
use axum::Router;
use axum::extract::OriginalUri;
use axum::routing::{delete, get, post};
pub use observe::Instance;
pub use redirect::{Redirect, redirects};
use std::sync::Arc;

/// What the handlers work with; clones share it.
#[derive(Clone)]
pub struct Service {
    pub calendar: Arc<Calendar>,
    pub committer: Arc<Committer>,
    pub query: Arc<Query>,
    /// For its policy and its durability; readings reach it through the committer alone.
    pub store: Arc<dyn Store>,
    /// How the rollover stands, for readiness and metrics.
    pub progress: Arc<Progress>,
    /// What only the rollover may do: it is asked to. `None` where another instance has the sink.
    pub orders: Option<Orders>,
    /// Who listens to what.
    pub hub: Arc<Hub>,
    /// Who shares the store.
    pub nodes: Arc<Nodes>,
    /// What went wrong unexpectedly.
    pub errors: Arc<ErrorLog>,
    pub role: Role,
    /// How it appears to browsers and proxies.
    pub web: Web,
    pub instance: Instance,
    /// Who may do what.
    pub guard: Arc<Guard>,
    /// Clients of Socket.IO are greeted, and get back what they send.
    pub demo: bool,
    pub clock: Clock,
}

/// Everything the service answers.
///
/// # Panics
/// Outside of a runtime: sockets have a task that waits for the end of the service.
pub fn router(service: Service) -> Router {
    let guard = Arc::clone(&service.guard);
    let routes = Routes::new(&guard)
        // taking readings
        .route("/v1/readings", post(readings::post), Needs(&[Ingest]))
        // answering
        .route("/v1/stats", get(stats::stats), Needs(&[Scope::Query]))
        .route("/v1/summary", get(summary::summary), Needs(&[Scope::Query]))
        .route("/v1/compare", get(compare::compared), Needs(&[Scope::Query]))
        .route("/v1/sources", get(sources::sources), Needs(&[Scope::Query]))
        .route("/v1/state", get(state::state), Needs(&[Scope::Query]))
        // watching and speaking
        .route("/v1/stream", get(stream::stream), Listens)
        .route("/v1/publish", post(publish::publish), Needs(&[Publish]))
        // clearing away
        .route("/v1/drain", post(drain::post), Needs(&[Admin]))
        .route("/v1/drain", get(drain::get), Needs(&[Admin]))
        .route("/v1/sources/{*id}", delete(sources::forget), Needs(&[Admin]))
        // for people
        .route("/", get(page::html), Anyone)
        .route("/page.css", get(page::style), Anyone)
        .route("/page.js", get(page::script), Anyone)
        .route("/chart.js", get(page::chart), Anyone)
        .route("/service.js", get(page::live_state), Anyone)
        .route("/errors.js", get(page::errors), Anyone)
        // operating
        .route("/healthz", get(operations::healthz), Anyone)
        .route("/readyz", get(operations::readyz), Anyone)
        .route("/metrics", get(operations::metrics), Needs(&[Scope::Query, Admin]))
        .route("/v1/nodes", get(nodes::nodes), Needs(&[Admin]))
        .route("/v1/rules", get(rules::get), Needs(&[Scope::Query]))
        .route("/v1/rules", post(rules::post), Needs(&[Admin]))
        .route("/v1/rules/explain", get(rules::explain), Needs(&[Scope::Query]))
        .route("/v1/errors", get(errors::errors), Needs(&[Admin]))
        .route("/openapi.json", get(openapi::serve), Anyone);
    let sockets = socket::sockets(&service);
    // A protocol of its own, which OpenAPI has no words for.
    let routes = socket::PATHS.iter().fold(routes, |routes, path| routes.route(path, sockets.clone(), Asks));
    let (instance, web) = (service.instance.clone(), service.web.clone());
    let routes = with_fallbacks(routes.done(), web.base_path.clone()).with_state(service);
    let routes = headers::layer(origins::layer(routes, &web.origins), web.encrypted);
    prefix::lead(observe::layer(routes, instance), web.base_path)
}

/// Rows as live clients get them: like those of `GET /v1/stats`.
#[must_use]
pub fn live_rows(rows: &[StatsRow]) -> Vec<u8> {
    format::rows(rows)
}

/// Answers what no route takes; comes after the routes, because it covers only those added before.
fn with_fallbacks<S: Clone + Send + Sync + 'static>(routes: Router<S>, base: Option<String>) -> Router<S> {
    routes
        .fallback(async move |OriginalUri(uri): OriginalUri| prefix::nowhere(base.as_deref(), &uri))
        .method_not_allowed_fallback(problem::no_method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{HeaderMap, Request, header};
    use axum::response::Response;
    use tower::ServiceExt;

    async fn ask(method: &str, path: &str) -> (u16, HeaderMap, serde_json::Value) {
        let routes = Router::new().route("/taken", post(async || "taken"));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response: Response = with_fallbacks(routes, None).with_state(()).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), head.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn what_no_route_takes_is_a_problem_document() {
        let check = async |method, path, status: u16, name: &str, allow: Option<&str>| {
            let (got, headers, document) = ask(method, path).await;
            assert_eq!(got, status, "{method} {path}");
            assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(headers.get(header::ALLOW).map(|a| a.to_str().unwrap()), allow);
            assert_eq!((&document["type"], &document["status"]), (&name.into(), &status.into()));
        };
        assert_eq!(ask("POST", "/taken").await.0, 200);
        check("POST", "/other", 404, "/problems/not-found", None).await;
        check("GET", "/taken", 405, "/problems/method-not-allowed", Some("POST")).await;
    }
}
