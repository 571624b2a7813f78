//! A request's body on its way from the connection to the handler: has to come fast enough, and counts
//! towards what all bodies hold together.
//!
//! Made by `request.rs` around what hyper receives. Handlers see it as the error of the body;
//! `http/body.rs` turns that into a problem document. How much one body may have is decided there.

use super::BODY_RATE;
use crate::clock;
use axum::BoxError;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

/// Why a body was not received to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum Refused {
    #[error("the body came too slowly: after the first seconds at least {BODY_RATE} bytes a second are needed")]
    TooSlow,
    #[error("too many bodies are being received at once")]
    TooMuch,
}

/// Memory of one request, given back when dropped: when the answer is known. A handler finds it among the
/// extensions of the request, for what a body grows to.
pub(in crate::http) struct Held {
    all: Arc<Semaphore>,
    bytes: AtomicUsize,
}

impl Held {
    pub(in crate::http) fn new(all: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { all, bytes: AtomicUsize::new(0) })
    }

    /// Whether there is room for so many bytes more.
    pub(in crate::http) fn take(&self, bytes: usize) -> bool {
        let permits =
            u32::try_from(bytes).map_err(drop).and_then(|bytes| self.all.try_acquire_many(bytes).map_err(drop));
        let Ok(permits) = permits else { return false };
        permits.forget();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.add_permits(*self.bytes.get_mut());
    }
}

/// A body that is watched.
pub(super) struct Watched<B> {
    inner: B,
    held: Arc<Held>,
    bytes: usize,
    /// How long it may take before its rate counts.
    start: Duration,
    began: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    refused: Option<Refused>,
}

impl<B> Watched<B> {
    pub(super) fn new(inner: B, held: Arc<Held>, start: Duration) -> Self {
        Self { inner, held, bytes: 0, start, began: None, timer: None, refused: None }
    }

    fn refuse(&mut self, refused: Refused) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.refused = Some(refused);
        Poll::Ready(Some(Err(refused.into())))
    }

    /// Whether the next bytes are overdue; if not, the task is woken when they are.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let began = *self.began.get_or_insert_with(clock::instant);
        let deadline = began + self.start + Duration::from_secs(self.bytes as u64 / BODY_RATE);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl<B> HttpBody for Watched<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Nobody waits any longer for one that came too slowly.
        if self.refused == Some(Refused::TooSlow) {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.bytes += bytes;
                // What comes after a refusal is only let through to the ground.
                if self.refused.is_none() && !self.held.take(bytes) {
                    return self.refuse(Refused::TooMuch);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.is_overdue(cx) => self.refuse(Refused::TooSlow),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;
    use tokio::time::sleep;

    const START: Duration = Duration::from_secs(20);

    /// A body of chunks of so many bytes, each after so many seconds.
    fn chunks(chunks: &[(u64, usize)]) -> Body {
        let chunks = chunks.to_vec();
        Body::from_stream(stream::iter(chunks).then(async |(seconds, bytes)| {
            sleep(Duration::from_secs(seconds)).await;
            Ok::<_, Infallible>(Bytes::from(vec![0; bytes]))
        }))
    }

    /// Bytes until the end, or until it was refused, and the refusal.
    async fn read(body: Body, held: &Arc<Held>) -> (usize, Option<Refused>) {
        let watched = Watched::new(body, Arc::clone(held), START);
        let mut stream = Body::new(watched).into_data_stream();
        let (mut bytes, mut refused) = (0, None);
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes += chunk.len(),
                Err(error) => refused = error.into_inner().downcast_ref().copied(),
            }
        }
        (bytes, refused)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_come_fast_enough() {
        let check = async |body: &[(u64, usize)], expected: (usize, Option<Refused>)| {
            let held = Held::new(Arc::new(Semaphore::new(1_000_000)));
            assert_eq!(read(chunks(body), &held).await, expected, "{body:?}");
        };
        let rate = BODY_RATE as usize;
        check(&[(0, 1), (19, 1)], (2, None)).await;
        check(&[(0, 1), (21, 1)], (1, Some(Refused::TooSlow))).await;
        check(&[(6, 1); 5], (3, Some(Refused::TooSlow))).await;
        check(&[(1, rate + 1); 40], (40 * (rate + 1), None)).await;
        check(&[(0, 10 * rate), (29, 1)], (10 * rate + 1, None)).await;
        check(&[(0, 10 * rate), (31, 1)], (10 * rate, Some(Refused::TooSlow))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn all_bodies_together_are_bounded() {
        let all = Arc::new(Semaphore::new(10));
        let (first, second) = (Held::new(Arc::clone(&all)), Held::new(Arc::clone(&all)));
        assert_eq!(read(chunks(&[(0, 4), (0, 2)]), &first).await, (6, None));
        // The chunk that has no room is lost, the rest is let through.
        assert_eq!(read(chunks(&[(0, 4), (0, 1), (0, 9)]), &second).await, (13, Some(Refused::TooMuch)));
        assert_eq!(all.available_permits(), 0);
        drop(second);
        drop(first);
        assert_eq!(all.available_permits(), 10);
    }
}
