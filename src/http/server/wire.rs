//! One connection's bytes, and whose turn it is: ends what takes too long.
//!
//! Driven by hyper, under the task of `server.rs`; `request.rs` tells it when a request begins and when its
//! answer is complete. A head has its time from its first byte, a pause from the last byte of the
//! answer before it, an answer from the moment nothing of it is taken. It sees to it that what hyper
//! answers on its own, to a head it cannot read, is a problem document too, and that the answer
//! arrives although the connection is closed behind it.

use super::places::Place;
use super::stream::Stream;
use super::{Limits, MAX_HEAD_BYTES};
use crate::clock;
use crate::http::problem::{Kind, Problem};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// How long a client that is sent away may take to hear why, and how much it may still send meanwhile.
pub(super) const PARTING_TIME: Duration = Duration::from_secs(1);
const PARTING_BYTES: usize = 256 * 1024;
/// What hyper's own answers begin with; the status follows.
const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

/// Nothing of the next request has come.
const PAUSE: u8 = 0;
/// A head is coming, or has to.
const HEAD: u8 = 1;
/// A request is under way.
const REQUEST: u8 = 2;
/// Its answer is complete, but not yet with the system.
const ANSWERED: u8 = 3;
/// The connection is no longer one of requests and answers.
const UPGRADED: u8 = 4;

/// What a connection is at.
pub(super) struct Turn {
    phase: AtomicU8,
    place: Place,
}

impl Turn {
    pub(super) fn new(place: Place) -> Self {
        Self { phase: AtomicU8::new(HEAD), place }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A request has come; false if the connection is about to be closed.
    pub(super) fn begin(&self) -> bool {
        self.phase.store(REQUEST, Ordering::Relaxed);
        self.place.resume()
    }

    /// All of its answer is with hyper.
    pub(super) fn answered(&self) {
        self.phase.store(ANSWERED, Ordering::Relaxed);
    }

    /// It was not one to be answered.
    pub(super) fn upgraded(&self) {
        self.phase.store(UPGRADED, Ordering::Relaxed);
    }

    /// Everything happens on the connection's own task: the atomic only makes that task movable.
    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    fn set(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }
}

pub(super) struct Wire {
    stream: Stream,
    turn: Arc<Turn>,
    limits: Limits,
    /// When the head or the pause began.
    since: Instant,
    /// Since when nothing of an answer is taken.
    stalled: Option<Instant>,
    /// Nothing was taken for too long: whoever reads from an upgraded connection, apart from who writes, hears of it.
    given_up: bool,
    reader: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Hyper's own answer in our words, and how much of it is written.
    instead: Option<(Vec<u8>, usize)>,
    /// Whether anything has come at all.
    heard: bool,
    head_timed_out: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream, turn: Arc<Turn>, limits: Limits) -> Self {
        let since = clock::instant();
        let (stalled, reader, timer, instead) = (None, None, None, None);
        let (given_up, heard, head_timed_out) = (false, false, false);
        Self { stream, turn, limits, since, stalled, given_up, reader, timer, instead, heard, head_timed_out }
    }

    /// The end of a connection that failed: whoever was sent away hears why.
    pub(super) async fn take_leave(self) {
        if self.head_timed_out {
            let seconds = self.limits.head.as_secs();
            let detail = format!("the request line and headers did not arrive within {seconds} s");
            part(self.stream, Problem::new(Kind::HeadTimeout, detail)).await;
        } else if self.instead.is_some() {
            linger(self.stream).await;
        }
    }

    /// Whether `deadline` is over; if not, the task is woken then.
    fn is_over(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Until when something has to be read.
    fn read_deadline(&self) -> Option<Instant> {
        match self.turn.phase() {
            PAUSE => Some(self.since + self.limits.idle),
            HEAD => Some(self.since + self.limits.head),
            _ => None,
        }
    }

    /// What became of an attempt to write, unless nothing was taken for too long.
    fn or_stalled<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let since = *self.stalled.get_or_insert_with(clock::instant);
        if self.is_over(cx, since + self.limits.stall) {
            self.given_up = true;
            self.reader.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Whether hyper speaks for itself: no request has reached us.
    fn is_automatic(&self) -> bool {
        matches!(self.turn.phase(), PAUSE | HEAD)
    }

    /// Writes a problem document in the place of hyper's answer, which has no body.
    fn poll_write_instead(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<usize>> {
        let (bytes, written) = self.instead.get_or_insert_with(|| (unreadable(answer).into_closing_answer(), 0));
        while *written < bytes.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &bytes[*written..]) {
                Poll::Ready(Ok(n)) => *written += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(answer.len()))
    }
}

/// The problem that hyper answers with a bare status.
fn unreadable(answer: &[u8]) -> Problem {
    if answer.strip_prefix(STATUS_LINE).is_some_and(|rest| rest.starts_with(b"431")) {
        let kib = MAX_HEAD_BYTES / 1024;
        let detail = format!("the request line and headers have more than {kib} KiB or 100 headers");
        return Problem::new(Kind::HeadTooLarge, detail);
    }
    Problem::new(Kind::UnreadableHead, "the request line or a header is not HTTP/1.1")
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given_up {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_pending()
            && let Some(deadline) = self.read_deadline()
            && self.is_over(cx, deadline)
        {
            // Who connects ahead of need and says nothing does not expect an answer.
            self.head_timed_out = self.heard && self.turn.phase() == HEAD;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if polled.is_pending() {
            self.reader = Some(cx.waker().clone());
            // A timer would wake the task that served requests, and keep what that took up until it goes off.
            if self.turn.phase() == UPGRADED && self.stalled.is_none() {
                self.timer = None;
            }
        }
        if buf.filled().len() > before {
            self.heard = true;
            if self.turn.phase() == PAUSE {
                self.turn.set(HEAD);
                self.since = clock::instant();
            }
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = if self.is_automatic() {
            self.poll_write_instead(cx, buf)
        } else {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        };
        self.or_stalled(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = if self.is_automatic() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            self.poll_write_instead(cx, first)
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        };
        self.or_stalled(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) && self.turn.phase() == ANSWERED {
            self.turn.set(PAUSE);
            self.turn.place.pause();
            self.since = clock::instant();
            let deadline = self.since + self.limits.idle;
            // Hyper may have looked for the next request already and is not woken by anything else. If the
            // time is over at once, the next read says so.
            let _ = self.is_over(cx, deadline);
        }
        self.or_stalled(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Says why and closes the connection.
pub(super) async fn part(mut stream: Stream, problem: Problem) {
    let written = timeout(PARTING_TIME, stream.write_all(&problem.into_closing_answer())).await;
    if matches!(written, Ok(Ok(()))) {
        linger(stream).await;
    }
}

/// Closes a connection behind an answer: reads on for a moment, because closing it on what the client still
/// sends would take the answer along.
async fn linger(mut stream: Stream) {
    let rest = async {
        stream.shutdown().await?;
        let (mut bytes, mut buffer) = (0, [0; 4096]);
        while bytes < PARTING_BYTES {
            match stream.read(&mut buffer).await? {
                0 => break,
                n => bytes += n,
            }
        }
        io::Result::Ok(())
    };
    // Whether the client was still there makes no difference.
    let _ = timeout(PARTING_TIME, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::places::Places;
    use futures_util::FutureExt;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn nothing_wakes_the_task_of_requests_when_there_are_none_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let place = Places::new(1, 0, false).take(None).map(|taken| taken.place);
        let turn = Arc::new(Turn::new(place.unwrap_or_else(|full| panic!("{full:?}"))));
        let mut wire = Wire::new(Stream::Plain(stream), Arc::clone(&turn), Limits::default());
        assert!(wire.read_u8().now_or_never().is_none());
        assert!(wire.timer.is_some(), "a head has to come");
        turn.begin();
        turn.upgraded();
        assert!(wire.read_u8().now_or_never().is_none());
        assert!(wire.timer.is_none());
    }
}
