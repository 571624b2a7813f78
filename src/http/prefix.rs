//! Where a request leads: below which path the service lies, and Socket.IO at the root of it.
//!
//! Laid around the route table by `mod.rs`, before a route is chosen. With `--base-path /server1` the routes lie below that path,
//! for proxies that pass it on; probes are answered outside of it too. A client of Socket.IO that was only told
//! `{path: '/server1'}` asks for the root with `EIO` in the query, and is led to where Socket.IO is.

use super::problem;
use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, Uri, header};
use axum::middleware::map_request;
use axum::response::{IntoResponse, Response};

/// Answered also outside of the base path: who asks may not know of it.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
/// What no route has.
const NOWHERE: &str = "/outside";
const SOCKETS: &str = "/socket.io/";
/// Every request of an Engine.IO client has its version in the query.
const ENGINE: &str = "EIO=";

/// Leads requests to the routes.
pub(super) fn lead(routes: Router, base: Option<String>) -> Router {
    let base = base.unwrap_or_default();
    let lead = move |mut request: Request| {
        if let Some(uri) = led(request.uri(), &base) {
            *request.uri_mut() = uri;
        }
        std::future::ready(request)
    };
    Router::new().fallback_service(routes).layer(map_request(lead))
}

/// The answer where no route is. The base path without its slash leads to the page, whose links are relative.
pub(super) fn nowhere(base: Option<&str>, uri: &Uri) -> Response {
    match base.filter(|base| *base == uri.path()).and_then(|base| base.rsplit('/').next()) {
        Some(last) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("{last}/"))]).into_response(),
        None => problem::no_route(uri).into_response(),
    }
}

/// Where a request leads, unless that is where it says.
fn led(uri: &Uri, base: &str) -> Option<Uri> {
    let asked = uri.path();
    let is_engine = uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with(ENGINE)));
    let path = match asked.strip_prefix(base) {
        Some("") if is_engine => "/",
        Some(path) if path.starts_with('/') => path,
        _ if PROBES.contains(&asked) => asked,
        _ => NOWHERE,
    };
    let path = if path == "/" && is_engine { SOCKETS } else { path };
    if path == asked {
        return None;
    }
    let target = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_lead() {
        let check = |base: &str, asked: &str, expected: &str| {
            let uri: Uri = asked.parse().unwrap();
            assert_eq!(led(&uri, base).unwrap_or(uri).to_string(), expected, "{asked} below {base:?}");
        };
        check("", "/", "/");
        check("", "/v1/stats?source=a", "/v1/stats?source=a");
        check("", "/?EIO=4&transport=polling", "/socket.io/?EIO=4&transport=polling");
        check("", "/?t=1&EIO=3", "/socket.io/?t=1&EIO=3");
        check("", "/?XEIO=4", "/?XEIO=4");
        check("", "/socket.io/?EIO=4", "/socket.io/?EIO=4");
        check("/a", "/a/v1/stats?source=a", "/v1/stats?source=a");
        check("/a", "/a/", "/");
        check("/a", "/a", "/outside");
        check("/a", "/a?EIO=4", "/socket.io/?EIO=4");
        check("/a", "/a/?EIO=4", "/socket.io/?EIO=4");
        check("/a", "/ab/healthz", "/outside");
        check("/a", "/v1/stats", "/outside");
        check("/a", "/healthz", "/healthz");
        check("/a", "/a/healthz", "/healthz");
        check("/a", "/socket.io/?EIO=4", "/outside?EIO=4");
        check("/a/b", "/a/b/a/b/", "/a/b/");
        check("", "http://here/?EIO=4", "http://here/socket.io/?EIO=4");
    }
}
