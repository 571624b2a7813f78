//! One request between connection and routes: whose turn it is, what its body holds, and a panic's end.
//!
//! Called by hyper for every request of a connection. A panic in a handler is answered 500 without a word
//! of what happened but the id of its row in the error log, and concerns nobody else. What a request asks for is the routes'.

use super::Limits;
use super::body::{Held, Watched};
use super::client::client;
use super::wire::Turn;
use crate::config::Networks;
use crate::http::problem::{Kind, Problem};
use crate::incidents;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, StatusCode, header};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::Semaphore;

/// What the requests of all connections share.
#[derive(Clone)]
pub(super) struct Requests {
    routes: TowerToHyperService<Router>,
    bodies: Arc<Semaphore>,
    limits: Limits,
    /// Who is believed what it says of its clients.
    proxies: Arc<Networks>,
}

impl Requests {
    pub(super) fn new(routes: TowerToHyperService<Router>, limits: Limits, proxies: Networks) -> Self {
        Self { routes, bodies: Arc::new(Semaphore::new(limits.bodies)), limits, proxies: Arc::new(proxies) }
    }

    /// The service of one connection.
    pub(super) fn on(self, turn: Arc<Turn>, connected: IpAddr) -> RequestsOn {
        RequestsOn { requests: self, turn, connected }
    }
}

pub(super) struct RequestsOn {
    requests: Requests,
    turn: Arc<Turn>,
    /// The other end of the connection.
    connected: IpAddr,
}

impl Service<Request<Incoming>> for RequestsOn {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let turn = Arc::clone(&self.turn);
        // From here on the connection is in use until the answer is dropped, on whatever way.
        let stays = turn.begin();
        let answered = Answered(Some(turn));
        let held = Held::new(Arc::clone(&self.requests.bodies));
        let start = self.requests.limits.body_start;
        let client = client(self.connected, request.headers(), &self.requests.proxies);
        let routes = self.requests.routes.clone();
        Box::pin(async move {
            if !stays {
                return Ok(answered.with(given_up()));
            }
            let mut request = request.map(|body| Watched::new(body, Arc::clone(&held), start));
            request.extensions_mut().insert(Arc::clone(&held));
            request.extensions_mut().insert(client);
            let called = AssertUnwindSafe(async { routes.call(request).await }).catch_unwind().await;
            drop(held);
            let response = match called {
                Ok(Ok(response)) => response,
                Err(_) => failed(incidents::last_panic()),
            };
            Ok(answered.with(response))
        })
    }
}

/// The answer to a request that came while its connection was being closed for another; hardly ever seen.
fn given_up() -> Response {
    let detail = "the connection was closed for another; nothing was done, try again";
    let mut response = Problem::new(Kind::TooManyConnections, detail).into_response();
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// The answer where a handler has panicked; what it said is for the logs alone, in which this id finds it.
pub(in crate::http) fn failed(error: Option<String>) -> Response {
    let detail = "the service has a defect; it is logged. Whether the request was done is not known: \
                  repeat it only with an Idempotency-Key";
    let problem = Problem::new(Kind::Internal, detail);
    match error {
        Some(id) => problem.with("error_id", id.into()).into_response(),
        None => problem.into_response(),
    }
}

/// Tells the connection, when it is dropped, that its request is answered.
struct Answered(Option<Arc<Turn>>);

impl Answered {
    fn with(mut self, response: Response) -> Response<Answer> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(turn) = self.0.take()
        {
            turn.upgraded();
        }
        response.map(|inner| Answer { inner, _answered: self })
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if let Some(turn) = self.0.take() {
            turn.answered();
        }
    }
}

/// The body of an answer; hyper drops it when it has all of it.
pub(super) struct Answer {
    inner: Body,
    _answered: Answered,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
