//! Headers that every answer has: what browsers must not make of it.
//!
//! Laid around the routes by `mod.rs`. A header that an answer brings itself stays: the page has its own (`page.rs`).

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use std::future::ready;

/// No guessing at what is in a body.
const NOSNIFF: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
/// Answers are of a moment, and not for others who use the same browser or proxy.
const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
/// From now on https alone, for a year.
const STRICT: (HeaderName, HeaderValue) =
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

/// Lays it around all routes and fallbacks; `encrypted` where https is spoken here.
pub(super) fn layer(routes: Router, encrypted: bool) -> Router {
    routes.layer(map_response(move |mut response: Response| {
        let headers = response.headers_mut();
        add(headers, NOSNIFF);
        add(headers, NO_STORE);
        if encrypted {
            add(headers, STRICT);
        }
        ready(response)
    }))
}

fn add(headers: &mut HeaderMap, (name, value): (HeaderName, HeaderValue)) {
    headers.entry(name).or_insert(value);
}
