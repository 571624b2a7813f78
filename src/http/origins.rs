//! What pages of other origins may do: those that `--cors-origins` lists may ask, by HTTP, Server-Sent Events and Socket.IO.
//!
//! Laid around the routes by `mod.rs`, and only where there is a list: without one no answer has a header for other
//! origins, and browsers keep answers from their pages. A WebSocket is not subject to that rule in browsers, so the service
//! itself refuses those that come from a page of elsewhere. Who is no browser sends no `Origin` and is not concerned.

use super::problem::{Kind, Problem};
use crate::config::Origins;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// What the service takes beside what every page may send.
const HEADERS: [HeaderName; 7] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("x-request-id"),
];
/// What a page may read of an answer beside its body.
const EXPOSED: [HeaderName; 4] =
    [header::LINK, header::RETRY_AFTER, HeaderName::from_static("x-instance"), HeaderName::from_static("x-request-id")];
/// How long a browser need not ask again whether it may.
const MAX_AGE: Duration = Duration::from_hours(1);
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Lays it around all routes and fallbacks.
pub(super) fn layer(routes: Router, origins: &Origins) -> Router {
    let (allowed, listed) = match origins {
        Origins::None => return routes,
        Origins::Any => (AllowOrigin::any(), None),
        Origins::Listed(listed) => {
            let values = listed.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            (AllowOrigin::list(values), Some(Arc::new(listed.clone())))
        }
    };
    let cors = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        .allow_headers(HEADERS)
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE);
    let routes = routes.layer(cors);
    let Some(listed) = listed else { return routes };
    routes.layer(from_fn(move |request: Request, next: Next| {
        let listed = Arc::clone(&listed);
        async move { if may_talk(request.headers(), &listed) { next.run(request).await } else { refusal() } }
    }))
}

/// Whether a request is no WebSocket of a page from elsewhere.
fn may_talk(headers: &HeaderMap, listed: &[String]) -> bool {
    if !headers.contains_key(header::UPGRADE) {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str().map(str::to_ascii_lowercase) else { return false };
    let is_own = |host: &HeaderValue| {
        let own = origin.split_once("://").map(|(_, host)| host);
        own.is_some_and(|own| host.to_str().is_ok_and(|host| host.eq_ignore_ascii_case(own)))
    };
    listed.contains(&origin) || [header::HOST, X_FORWARDED_HOST].iter().filter_map(|name| headers.get(name)).any(is_own)
}

fn refusal() -> Response {
    let detail = "this WebSocket was opened by a page of another origin than those of --cors-origins";
    Problem::new(Kind::Forbidden, detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_sockets_may_talk() {
        let listed = ["https://app.example".to_owned()];
        let check = |headers: &[(&'static str, &str)], expected: bool| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            assert_eq!(may_talk(&map, &listed), expected, "{headers:?}");
        };
        let upgrade = ("upgrade", "websocket");
        check(&[("origin", "https://evil.example")], true);
        check(&[upgrade], true);
        check(&[upgrade, ("origin", "https://App.example")], true);
        check(&[upgrade, ("origin", "http://app.example")], false);
        check(&[upgrade, ("origin", "null")], false);
        check(&[upgrade, ("origin", "https://evil.example"), ("host", "here:8080")], false);
        check(&[upgrade, ("origin", "http://here:8080"), ("host", "here:8080")], true);
        check(&[upgrade, ("origin", "http://here"), ("host", "here:8080")], false);
        check(
            &[upgrade, ("origin", "https://means.example"), ("host", "up"), ("x-forwarded-host", "means.example")],
            true,
        );
    }
}
