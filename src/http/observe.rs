//! What surrounds every answer: a request id, the name of the instance, a count, a line in the log if
//! it failed.
//!
//! Laid around the routes by `mod.rs`. Guarantees: every answer to a request has `X-Request-Id` (the
//! client's if it is sane, else a new one) and `X-Instance`; labels of metrics are names of the route table, never
//! what was sent; failures by the thousand do not fill the log; what a request fails by without its client's doing is
//! in the error log, whatever the route, and so is a panic.

mod streamed;

use super::problem::Failure;
use super::server::{ClientAddress, failed};
use crate::clock;
use crate::incidents::{self, Class, Context};
use crate::telemetry::metrics;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use futures_util::FutureExt;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamed::streamed;
use tokio::time::Instant;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const INSTANCE: HeaderName = HeaderName::from_static("x-instance");
/// Longest request id taken from a client: room for two UUIDs and a trace.
const MAX_ID_BYTES: usize = 128;
/// Failed requests logged in a span of [`LOG_SPAN`]; of the others only the number is.
const LOG_LINES: u64 = 20;
const LOG_SPAN: Duration = Duration::from_secs(1);

/// The name of this process among those behind a balancer: random, new at every start, in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(Arc<str>);

impl Instance {
    /// # Panics
    /// If the operating system has no random numbers.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
        Self(format!("{:08x}", u32::from_be_bytes(bytes)).into())
    }

    fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("hexadecimal digits")
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Request ids of this process, and what it has logged lately.
struct Observer {
    instance: Instance,
    header: HeaderValue,
    requests: AtomicU64,
    logged: Mutex<Logged>,
}

#[derive(Debug, Default)]
struct Logged {
    /// Begin of the present span.
    since: Option<Instant>,
    lines: u64,
}

/// Lays it around all routes and fallbacks.
pub(super) fn layer(routes: Router, instance: Instance) -> Router {
    for problem in super::problem::Kind::ALL {
        let (status, name, _) = problem.row();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            metrics::may_turn_away(name);
        }
    }
    let header = instance.header();
    let observer = Arc::new(Observer { instance, header, requests: AtomicU64::new(1), logged: Mutex::default() });
    routes.layer(from_fn(move |request, next| {
        let observer = Arc::clone(&observer);
        async move { observer.observe(request, next).await }
    }))
}

impl Observer {
    async fn observe(&self, request: Request, next: Next) -> Response {
        let started = clock::instant();
        let id = self.request_id(request.headers().get(REQUEST_ID));
        let method = request.method().clone();
        let client = request.extensions().get().copied();
        // `other` is what no route takes: a label must not be chosen by clients.
        let route = request.extensions().get::<MatchedPath>().cloned();
        let route = route.as_ref().map_or("other", MatchedPath::as_str);

        // Caught here already, so that this answer too is counted and has its headers.
        let context = Context::request(route, id.to_str().unwrap_or_default());
        let answered = incidents::within(context.clone(), AssertUnwindSafe(next.run(request)).catch_unwind()).await;
        let mut response = answered.unwrap_or_else(|_| failed(incidents::last_panic()));

        let status = response.status();
        metrics::answered(method_label(&method), route, status.as_u16(), started.elapsed());
        if let Some(failure) = response.extensions().get::<Failure>() {
            if status == StatusCode::SERVICE_UNAVAILABLE {
                metrics::turned_away(failure.name);
            }
            if failure.is_unexpected {
                let place = format!("problem {}", failure.name);
                incidents::note_in(context.clone(), Class::Store, &failure.detail, &place);
            }
            self.log(&id, client, &method, route, status, failure);
        } else if status == StatusCode::INTERNAL_SERVER_ERROR {
            incidents::note_in(context.clone(), Class::Http, &format!("answered {status} without a reason"), "");
        }
        response.headers_mut().insert(REQUEST_ID, id);
        response.headers_mut().insert(INSTANCE, self.header.clone());
        response.map(|body| streamed(body, context))
    }

    /// The client's id if it can stand in a log and in a header, else a new one.
    fn request_id(&self, given: Option<&HeaderValue>) -> HeaderValue {
        let sane = |id: &&HeaderValue| {
            (1..=MAX_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        given.filter(sane).cloned().unwrap_or_else(|| {
            let number = self.requests.fetch_add(1, Ordering::Relaxed);
            HeaderValue::from_str(&format!("{}-{number}", self.instance)).expect("hexadecimal digits and a number")
        })
    }

    /// What failed at the service's side is a warning, what a client did wrong is for who looks closely.
    fn log(
        &self,
        id: &HeaderValue,
        client: Option<ClientAddress>,
        method: &Method,
        route: &str,
        status: StatusCode,
        failure: &Failure,
    ) {
        let (id, status) = (id.to_str().unwrap_or_default(), status.as_u16());
        let client = client.map(|ClientAddress(address)| tracing::field::display(address));
        let Failure { name, detail, .. } = failure;
        if status < 500 {
            tracing::debug!(request_id = id, client, %method, route, status, problem = name, "{detail}");
        } else if self.may_log() {
            tracing::warn!(request_id = id, client, %method, route, status, problem = name, "a request failed: {detail}");
        }
    }

    /// Whether there is room for a line; says how many there were when a full span is over.
    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().expect("no panic while it is held");
        if logged.since.is_none_or(|since| since.elapsed() >= LOG_SPAN) {
            let left_out = logged.lines.saturating_sub(LOG_LINES);
            if left_out > 0 {
                tracing::warn!(left_out, "more requests failed than were logged");
            }
            *logged = Logged { since: Some(clock::instant()), lines: 0 };
        }
        logged.lines += 1;
        logged.lines <= LOG_LINES
    }
}

/// Methods are the client's words too.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt;

    fn observer() -> Observer {
        let instance = Instance("0000cafe".into());
        let header = instance.header();
        Observer { instance, header, requests: AtomicU64::new(1), logged: Mutex::default() }
    }

    #[test]
    fn sane_ids_are_kept() {
        let observer = observer();
        let check = |given: &[u8], expected: &str| {
            let given = HeaderValue::from_bytes(given).unwrap();
            assert_eq!(observer.request_id(Some(&given)), expected, "{given:?}");
        };
        check(b"0b5c1c0a-7e0e-4f57", "0b5c1c0a-7e0e-4f57");
        check(&[b'x'; MAX_ID_BYTES], &"x".repeat(MAX_ID_BYTES));
        check(&[b'x'; MAX_ID_BYTES + 1], "0000cafe-1");
        check(b"", "0000cafe-2");
        check(b"two words", "0000cafe-3");
        check("k\u{fc}che".as_bytes(), "0000cafe-4");
        assert_eq!(observer.request_id(None), "0000cafe-5");
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_like_others() {
        let routes = Router::new().route("/", axum::routing::get(async || -> () { panic!("a defect") }));
        let routes = layer(routes, Instance("0000cafe".into()));
        let response = routes.oneshot(Request::new(axum::body::Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[REQUEST_ID], "0000cafe-1");
        assert_eq!(response.headers()[INSTANCE], "0000cafe");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_by_the_thousand_do_not_fill_the_log() {
        let observer = observer();
        let lines = || (0..1_000).filter(|_| observer.may_log()).count() as u64;
        assert_eq!(lines(), LOG_LINES);
        tokio::time::advance(LOG_SPAN).await;
        assert_eq!(lines(), LOG_LINES);
    }
}
