//! What plain HTTP is answered where there is https: 307, so that a POST comes again as a POST with its body.
//!
//! Served by `app.rs` on the address of `--redirect-listen`. It leads to `--public-url` or, without it, to the name that was
//! asked for, but only if the certificate is for that name: `Host` is the client's word, and nobody is sent to
//! where this service is not.

use super::body::drain;
use super::observe::{self, Instance};
use super::problem::{Kind, Problem};
use super::server::Tls;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// What https is without a port.
const HTTPS_PORT: u16 = 443;

/// Where https is.
#[derive(Clone)]
pub struct Redirect {
    /// Without a slash at the end.
    pub public_url: Option<String>,
    pub tls: Arc<Tls>,
    /// Of the listener.
    pub port: u16,
}

/// Answers everything.
pub fn redirects(to: Redirect, instance: Instance) -> Router {
    observe::layer(Router::new().fallback(redirect).with_state(to), instance)
}

async fn redirect(State(to): State<Redirect>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // What is asked of a proxy or of no path at all is asked for the root.
    let path = head.uri.path_and_query().map(PathAndQuery::as_str).filter(|path| path.starts_with('/')).unwrap_or("/");
    let location = to.origin(&head.headers).and_then(|origin| HeaderValue::try_from(format!("{origin}{path}")).ok());
    drain(&head.headers, &mut body.into_data_stream()).await;
    let Some(location) = location else {
        let detail = "plain HTTP is not served here, and the certificate is not for the name in Host: use the https:// \
                      address of this service";
        return Problem::new(Kind::InvalidHeader, detail).into_response();
    };
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)], "https only\n").into_response()
}

impl Redirect {
    fn origin(&self, headers: &HeaderMap) -> Option<String> {
        if let Some(url) = &self.public_url {
            return Some(url.clone());
        }
        let asked: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
        let name = asked.host();
        if !self.tls.is_for(name) {
            return None;
        }
        Some(match self.port {
            HTTPS_PORT => format!("https://{name}"),
            port => format!("https://{name}:{port}"),
        })
    }
}
