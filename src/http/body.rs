//! A request's body on its way in: bounded in size and in time, hashed while it passes; what is left
//! of it when it is refused is let through to the ground.
//!
//! Used by `receive.rs`. Nothing is decoded here; content encodings are refused by header.

use super::idempotency::Fingerprint;
use super::problem::{Kind, Problem};
use super::server::Refused;
use axum::body::{BodyDataStream, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use std::time::Duration;

/// Bytes of a body: some 150,000 readings, and what one request may hold in memory.
pub(super) const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// How long a body may take to arrive: the largest at 2 Mbit/s; it bounds what slow clients hold.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes and time that are spent on the rest of a refused body: enough for a batch twice too large.
const DRAIN_BYTES: usize = 2 * MAX_BODY_BYTES;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for a body and what is made of it, for so long.
pub(super) async fn within<T>(
    limit: Duration,
    arriving: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let late = |_| {
        let seconds = limit.as_secs();
        Problem::new(Kind::BodyTimeout, format!("the body did not arrive within {seconds} s; nothing was counted"))
    };
    tokio::time::timeout(limit, arriving).await.map_err(late)?
}

/// What can be refused before the body is read.
pub(super) fn refuse_by_headers(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let detail = format!("{encoding:?} is not supported: send the body without Content-Encoding");
        return Err(Problem::new(Kind::UnsupportedContentEncoding, detail));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Problem {
    let mib = MAX_BODY_BYTES / (1024 * 1024);
    Problem::new(Kind::BodyTooLarge, format!("the body has more than {mib} MiB: send it in several requests"))
}

/// The problem of a body that did not come to its end.
fn broken_off(error: axum::Error) -> Problem {
    let error = error.into_inner();
    match error.downcast_ref::<Refused>() {
        Some(Refused::TooSlow) => Problem::new(Kind::BodyTimeout, format!("{error}; nothing was counted")),
        Some(Refused::TooMuch) => Problem::new(Kind::Busy, format!("{error}; nothing was counted, try again")),
        None => Problem::new(Kind::UnreadableBody, format!("the body broke off: {error}")),
    }
}

/// Reads the rest of a refused body and drops it. Many a client sends to the end before it looks for
/// an answer, and a connection that is closed on it takes the answer along.
pub(super) async fn drain(headers: &HeaderMap, body: &mut BodyDataStream) {
    // This client waits to be asked for the body, and reading would ask.
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = body.next().await {
            bytes += chunk.len();
            if bytes > DRAIN_BYTES {
                return;
            }
        }
    };
    // Whether all of it came makes no difference to the answer.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
}

/// A body on its way in.
pub(super) struct Arriving<'f> {
    body: &'f mut BodyDataStream,
    bytes: usize,
    fingerprint: Option<&'f mut Fingerprint>,
}

impl<'f> Arriving<'f> {
    pub(super) fn new(body: &'f mut BodyDataStream, fingerprint: Option<&'f mut Fingerprint>) -> Self {
        Self { body, bytes: 0, fingerprint }
    }

    /// The next chunk that is not empty.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while let Some(chunk) = self.body.next().await {
            let chunk = chunk.map_err(broken_off)?;
            self.bytes += chunk.len();
            if self.bytes > MAX_BODY_BYTES {
                return Err(too_large());
            }
            if let Some(fingerprint) = &mut self.fingerprint {
                fingerprint.update(&chunk);
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// The whole body in one piece, copied only if it came in several.
    pub(super) async fn collect(mut self, first: Bytes) -> Result<Bytes, Problem> {
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut body = Vec::from(first);
        body.extend_from_slice(&second);
        while let Some(chunk) = self.next().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_stalls_is_given_up() {
        let stalled = within(Duration::ZERO, std::future::pending::<Result<(), Problem>>()).await;
        assert_eq!(stalled.unwrap_err().kind(), Kind::BodyTimeout);
    }

    #[tokio::test]
    async fn why_a_body_did_not_come_to_its_end() {
        let check = async |error: axum::BoxError, expected: Kind| {
            let chunks = futures_util::stream::iter([Err::<Bytes, _>(error)]);
            let mut body = axum::body::Body::from_stream(chunks).into_data_stream();
            let problem = Arriving::new(&mut body, None).next().await.unwrap_err();
            assert_eq!(problem.kind(), expected, "{problem:?}");
        };
        check(Refused::TooSlow.into(), Kind::BodyTimeout).await;
        check(Refused::TooMuch.into(), Kind::Busy).await;
        check("reset".into(), Kind::UnreadableBody).await;
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_body_is_read_unless_it_has_to_be_asked_for() {
        let left = async |headers: &[(header::HeaderName, header::HeaderValue)]| {
            let chunks = (0..3).map(|_| Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x")));
            let body = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
            let mut body = body.into_data_stream();
            drain(&headers.iter().cloned().collect(), &mut body).await;
            body.count().await
        };
        assert_eq!(left(&[]).await, 0);
        assert_eq!(left(&[(header::EXPECT, header::HeaderValue::from_static("100-continue"))]).await, 3);
    }
}
