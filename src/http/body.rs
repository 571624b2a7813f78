//! A request's body on its way in: bounded in size before and after it is decompressed and in time,
//! hashed while it passes; what is left of it when it is refused is let through to the ground.
//!
//! Used by `receive.rs`. Nothing is decoded here; `encoding.rs` decompresses, piece by piece.

use super::encoding::{Decompressor, Encoding, Step, ZSTD_WINDOW_BYTES};
use super::idempotency::Fingerprint;
use super::problem::{Kind, Problem};
use super::server::{Held, Refused};
use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a body as it is sent: some 150,000 readings.
pub(super) const MAX_BODY_BYTES: usize = 16 * MIB;
/// Bytes of a body after decompression: readings shrink to a fifth or less, and 200,000 of them with
/// long ids are not larger. What is more than this is rather meant to do harm.
pub(super) const MAX_DECOMPRESSED_BYTES: usize = 64 * MIB;
/// Bytes of a body that is decoded when it is complete: what one request may hold in memory, compressed or not.
pub(super) const MAX_COLLECTED_BYTES: usize = 16 * MIB;
const MIB: usize = 1024 * 1024;
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
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
        Err(too_large(MAX_BODY_BYTES, ""))
    } else {
        Ok(())
    }
}

fn too_large(limit: usize, which: &str) -> Problem {
    let mib = limit / MIB;
    Problem::new(Kind::BodyTooLarge, format!("the body has more than {mib} MiB{which}: send it in several requests"))
}

/// The problem of a body for which the others leave no memory.
fn no_room() -> Problem {
    Problem::new(Kind::Busy, format!("{}; nothing was counted, try again", Refused::TooMuch))
}

/// The problem of a body that did not come to its end.
fn broken_off(error: &axum::Error) -> Problem {
    // However often it was wrapped on the way.
    let mut causes = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    match causes.find_map(|cause| cause.downcast_ref::<Refused>()) {
        Some(Refused::TooSlow) => Problem::new(Kind::BodyTimeout, format!("{error}; nothing was counted")),
        Some(Refused::TooMuch) => no_room(),
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
    /// What is sent is counted on its way; what becomes of it by decompression is counted here. `None` without the
    /// accept loop, which has the counter.
    held: Option<&'f Arc<Held>>,
    /// Bytes that came, and bytes that they stood for.
    sent: usize,
    bytes: usize,
    encoding: Option<Encoding>,
    decompressor: Option<Decompressor>,
    fingerprint: Option<&'f mut Fingerprint>,
}

impl<'f> Arriving<'f> {
    pub(super) fn new(
        body: &'f mut BodyDataStream,
        held: Option<&'f Arc<Held>>,
        encoding: Option<Encoding>,
        fingerprint: Option<&'f mut Fingerprint>,
    ) -> Self {
        Self { body, held, sent: 0, bytes: 0, encoding, decompressor: encoding.map(Decompressor::new), fingerprint }
    }

    /// The next chunk that is not empty, decompressed.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let chunk = if self.decompressor.is_some() { self.decompress().await? } else { self.receive().await? };
        let Some(chunk) = chunk else { return Ok(None) };
        self.bytes += chunk.len();
        if self.bytes > MAX_DECOMPRESSED_BYTES {
            return Err(too_large(MAX_DECOMPRESSED_BYTES, " after decompression"));
        }
        // The window of zstd fills with what comes out of it; that of gzip is too small to count.
        if self.encoding == Some(Encoding::Zstd) && self.bytes <= ZSTD_WINDOW_BYTES {
            self.hold(chunk.len())?;
        }
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.update(&chunk);
        }
        Ok(Some(chunk))
    }

    fn hold(&self, bytes: usize) -> Result<(), Problem> {
        if self.held.is_none_or(|held| held.take(bytes)) { Ok(()) } else { Err(no_room()) }
    }

    /// The next chunk that is not empty, as it was sent.
    async fn receive(&mut self) -> Result<Option<Bytes>, Problem> {
        while let Some(chunk) = self.body.next().await {
            let chunk = chunk.map_err(|error| broken_off(&error))?;
            self.sent += chunk.len();
            if self.sent > MAX_BODY_BYTES {
                return Err(too_large(MAX_BODY_BYTES, ""));
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    async fn decompress(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let decompressor = self.decompressor.as_mut().expect("the body is compressed");
            match decompressor.step()? {
                Step::Piece(piece) => {
                    // A chunk may be many pieces: other tasks have their turn between them.
                    tokio::task::yield_now().await;
                    return Ok(Some(piece));
                }
                Step::End => return Ok(None),
                Step::Hungry => {}
            }
            let chunk = self.receive().await?;
            let decompressor = self.decompressor.as_mut().expect("the body is compressed");
            match chunk {
                Some(chunk) => decompressor.give(chunk),
                None => decompressor.end(),
            }
        }
    }

    /// The whole body in one piece, copied only if it came in several.
    pub(super) async fn collect(mut self, first: Bytes) -> Result<Bytes, Problem> {
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut body = Vec::from(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if body.len() + chunk.len() > MAX_COLLECTED_BYTES {
                let which = " after decompression, the most for application/json";
                return Err(too_large(MAX_COLLECTED_BYTES, which));
            }
            if self.encoding.is_some() {
                self.hold(chunk.len())?;
            }
            body.extend_from_slice(&chunk);
            next = self.next().await?;
        }
        Ok(body.into())
    }
}

/// A whole body of at most `limit` bytes, as it was sent.
pub(super) async fn collect_small(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut body = body.into_data_stream();
    let collecting = async {
        let mut whole = Vec::new();
        while let Some(chunk) = body.next().await {
            whole.extend_from_slice(&chunk.map_err(|error| broken_off(&error))?);
            if whole.len() > limit {
                let detail = format!("the body has more than {} KiB", limit / 1024);
                return Err(Problem::new(Kind::BodyTooLarge, detail));
            }
        }
        Ok(whole.into())
    };
    let collected = within(BODY_TIMEOUT, collecting).await;
    if collected.is_err() {
        drain(headers, &mut body).await;
    }
    collected
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

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
            let problem = Arriving::new(&mut body, None, None, None).next().await.unwrap_err();
            assert_eq!(problem.kind(), expected, "{problem:?}");
        };
        check(Refused::TooSlow.into(), Kind::BodyTimeout).await;
        check(Refused::TooMuch.into(), Kind::Busy).await;
        check("reset".into(), Kind::UnreadableBody).await;
    }

    /// Bytes of the memory of all bodies that this one takes, its own as sent left out.
    async fn taken(encoding: Option<Encoding>, body: Vec<u8>, collect: bool) -> usize {
        let all = Arc::new(Semaphore::new(MAX_DECOMPRESSED_BYTES));
        let held = Held::new(Arc::clone(&all));
        let mut body = axum::body::Body::from(body).into_data_stream();
        let mut arriving = Arriving::new(&mut body, Some(&held), encoding, None);
        if collect {
            arriving.collect(Bytes::new()).await.unwrap();
        } else {
            while arriving.next().await.unwrap().is_some() {}
        }
        MAX_DECOMPRESSED_BYTES - all.available_permits()
    }

    #[tokio::test]
    async fn what_a_compressed_body_grows_to_counts() {
        let plain = vec![b' '; 12 * MIB];
        let packed = zstd::encode_all(&plain[..], 1).unwrap();
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut zipped, &plain).unwrap();
        let zipped = zipped.finish().unwrap();
        assert_eq!(taken(None, plain.clone(), true).await, 0);
        assert_eq!(taken(Some(Encoding::Gzip), zipped.clone(), false).await, 0);
        assert_eq!(taken(Some(Encoding::Gzip), zipped, true).await, plain.len());
        assert_eq!(taken(Some(Encoding::Zstd), packed.clone(), false).await, ZSTD_WINDOW_BYTES);
        assert_eq!(taken(Some(Encoding::Zstd), packed, true).await, plain.len() + ZSTD_WINDOW_BYTES);
    }

    #[tokio::test]
    async fn a_body_that_finds_no_room_is_told_to_come_again() {
        let packed = zstd::encode_all(&[b' '; 1_000][..], 1).unwrap();
        let held = Held::new(Arc::new(Semaphore::new(999)));
        let mut body = axum::body::Body::from(packed).into_data_stream();
        let refused = Arriving::new(&mut body, Some(&held), Some(Encoding::Zstd), None).next().await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Busy);
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
