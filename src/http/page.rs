//! `GET /`: the page for people, from files built into the program.
//!
//! Called by the route table. The page asks only this service, by relative addresses, so it works
//! under any path prefix; its security policy allows nothing else and no inline code.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;

/// Nothing from elsewhere, no inline script or style, never in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Nothing that a page could ask a person for.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

const HTML: &str = include_str!("../../web/index.html");
const STYLE: &str = include_str!("../../web/page.css");
const SCRIPT: &str = include_str!("../../web/page.js");
const CHART: &str = include_str!("../../web/chart.js");
const LIVE_STATE: &str = include_str!("../../web/service.js");
const ERRORS: &str = include_str!("../../web/errors.js");

#[utoipa::path(get, path = "/", tag = "page", responses(
    (status = 200, description = "The page for people", body = String, content_type = "text/html"),
))]
pub(super) async fn html() -> impl IntoResponse {
    file("text/html; charset=utf-8", HTML)
}

#[utoipa::path(get, path = "/page.css", tag = "page", responses(
    (status = 200, description = "Its style", body = String, content_type = "text/css"),
))]
pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", STYLE)
}

#[utoipa::path(get, path = "/page.js", tag = "page", responses(
    (status = 200, description = "Its script", body = String, content_type = "text/javascript"),
))]
pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", SCRIPT)
}

#[utoipa::path(get, path = "/chart.js", tag = "page", responses(
    (status = 200, description = "The part of it that draws", body = String, content_type = "text/javascript"),
))]
pub(super) async fn chart() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", CHART)
}

#[utoipa::path(get, path = "/service.js", tag = "page", responses(
    (status = 200, description = "The part of it that shows the live state", body = String, content_type = "text/javascript"),
))]
pub(super) async fn live_state() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", LIVE_STATE)
}

#[utoipa::path(get, path = "/errors.js", tag = "page", responses(
    (status = 200, description = "The part of it that shows the error log", body = String, content_type = "text/javascript"),
))]
pub(super) async fn errors() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", ERRORS)
}

fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 6] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("permissions-policy"), HeaderValue::from_static(PERMISSIONS)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // The next version of the program brings another page.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content)
}
