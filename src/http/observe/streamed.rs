//! The body of an answer that goes on after its handler: what fails in it is of its request too.
//!
//! Laid by `observe.rs` around bodies whose length is not known. A panic still ends the connection, as nothing else can
//! tell the client that an answer is not whole; in the error log it is the route's.

use crate::incidents::{self, Context};
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context as Waker, Poll};

struct Streamed {
    body: Body,
    context: Context,
}

/// The same body, polled on behalf of its request.
pub(super) fn streamed(body: Body, context: Context) -> Body {
    if body.size_hint().exact().is_some() {
        return body;
    }
    Body::new(Streamed { body, context })
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, context } = self.get_mut();
        incidents::within_now(context, || Pin::new(body).poll_frame(waker))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
