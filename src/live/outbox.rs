//! What waits to be sent to one client: bounded, whatever is published and however slowly it reads.
//!
//! Filled by the hub, emptied by the transport of the client. Of statistics only the newest state of each
//! channel waits; messages wait in the order in which they came, and where too many would, one marker takes
//! the place of all that were left out.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::Notify;

/// Messages that wait at most.
pub const MAX_MESSAGES: usize = 256;
/// Bytes of messages that wait at most: with what the system buffers for a connection a client that does not read
/// costs less than 256 KiB.
pub const MAX_BYTES: usize = 64 * 1024;

/// Something to send, shared by all clients that get it.
#[derive(Debug)]
pub struct Frame {
    pub channel: Arc<str>,
    pub body: Body,
    /// The frame as a transport sends it, made by the first client of it.
    pub event: OnceLock<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// What somebody has published, byte by byte.
    Message(Bytes),
    /// The present rows of a source, as JSON; takes the place of earlier ones.
    Live(Bytes),
    /// A row that was written to the sink, as JSON, and where it stands in the log, for those who come back.
    Closed { row: Bytes, position: Arc<str> },
    /// Whether all that a client has missed came before this.
    Recovered(bool),
    /// So many messages were left out here, because the client is slow; 0: nobody knows how many, because
    /// the service was not connected to Redis for a while.
    Gap(u64),
}

impl Frame {
    #[must_use]
    pub fn new(channel: &Arc<str>, body: Body) -> Arc<Self> {
        Arc::new(Self { channel: Arc::clone(channel), body, event: OnceLock::new() })
    }

    /// Its bytes towards [`MAX_BYTES`], if it is one of the messages that are counted.
    fn counted(&self) -> Option<usize> {
        match &self.body {
            Body::Message(bytes) | Body::Closed { row: bytes, .. } => Some(bytes.len()),
            Body::Live(_) | Body::Recovered(_) | Body::Gap(_) => None,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Arc<Frame>>,
    /// Of the messages among them.
    messages: usize,
    bytes: usize,
    ended: bool,
}

impl Outbox {
    /// Adds a frame, or makes of it a part of a gap if there is no room; whether it was added.
    pub fn put(&self, frame: &Arc<Frame>) -> bool {
        let mut waiting = self.lock();
        if waiting.ended {
            return false;
        }
        let kept = match &frame.body {
            Body::Live(_) => waiting.replace(frame),
            Body::Message(_) | Body::Closed { .. } => waiting.append(frame, frame.counted().unwrap_or_default()),
            // One for each channel, so it always has room.
            Body::Recovered(_) => {
                waiting.frames.push_back(Arc::clone(frame));
                true
            }
            Body::Gap(_) => waiting.gap(&frame.channel, frame.body.clone()),
        };
        drop(waiting);
        self.arrived.notify_one();
        kept
    }

    /// The next frame, as soon as there is one; `None` after the end. For one caller at a time.
    pub async fn next(&self) -> Option<Arc<Frame>> {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.ended {
                    return None;
                }
                if let Some(frame) = waiting.take() {
                    return Some(frame);
                }
            }
            self.arrived.notified().await;
        }
    }

    /// What waits of a channel is not sent.
    pub fn forget(&self, channel: &str) {
        let mut waiting = self.lock();
        let frames = std::mem::take(&mut waiting.frames);
        (waiting.messages, waiting.bytes) = (0, 0);
        for frame in frames.into_iter().filter(|frame| *frame.channel != *channel) {
            if let Some(bytes) = frame.counted() {
                waiting.messages += 1;
                waiting.bytes += bytes;
            }
            waiting.frames.push_back(frame);
        }
    }

    /// Nothing comes any more, and what waits is not sent.
    pub fn end(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { ended: true, ..Waiting::default() };
        drop(waiting);
        self.arrived.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while it is held")
    }
}

impl Waiting {
    fn replace(&mut self, frame: &Arc<Frame>) -> bool {
        let same = |old: &&mut Arc<Frame>| matches!(old.body, Body::Live(_)) && old.channel == frame.channel;
        match self.frames.iter_mut().find(same) {
            Some(old) => *old = Arc::clone(frame),
            None => self.frames.push_back(Arc::clone(frame)),
        }
        true
    }

    fn append(&mut self, frame: &Arc<Frame>, bytes: usize) -> bool {
        // One message always has room, or a long one would never come.
        if self.messages == MAX_MESSAGES || (self.messages > 0 && self.bytes + bytes > MAX_BYTES) {
            self.gap(&frame.channel, Body::Gap(1));
            return false;
        }
        self.messages += 1;
        self.bytes += bytes;
        self.frames.push_back(Arc::clone(frame));
        true
    }

    /// One marker for each channel, behind everything that waits of it.
    fn gap(&mut self, channel: &Arc<str>, more: Body) -> bool {
        let mut of_channel = self.frames.iter_mut().rev().filter(|frame| frame.channel == *channel);
        match (of_channel.next(), &more) {
            (Some(last), Body::Gap(more)) if matches!(last.body, Body::Gap(_)) => {
                let Body::Gap(before) = last.body else { unreachable!("just seen") };
                let all = if *more == 0 || before == 0 { 0 } else { before + more };
                *last = Frame::new(channel, Body::Gap(all));
            }
            _ => self.frames.push_back(Frame::new(channel, more)),
        }
        true
    }

    fn take(&mut self) -> Option<Arc<Frame>> {
        let frame = self.frames.pop_front()?;
        if let Some(bytes) = frame.counted() {
            self.messages -= 1;
            self.bytes -= bytes;
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_forgotten_is_neither_sent_nor_counted() {
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let message =
            |channel, text: &'static str| Frame::new(channel, Body::Message(Bytes::from_static(text.as_bytes())));
        let outbox = Outbox::default();
        for _ in 0..MAX_MESSAGES - 1 {
            assert!(outbox.put(&message(&a, "left")));
        }
        assert!(outbox.put(&message(&b, "stays")));
        assert!(!outbox.put(&message(&a, "too much")));
        outbox.put(&Frame::new(&b, Body::Live(Bytes::from_static(b"[]"))));
        outbox.forget("a");
        for _ in 0..MAX_MESSAGES - 1 {
            assert!(outbox.put(&message(&b, "fits")));
        }
        assert!(!outbox.put(&message(&b, "too much")));
        assert_eq!(outbox.next().await.unwrap().body, Body::Message(Bytes::from_static(b"stays")));
        assert_eq!(outbox.next().await.unwrap().body, Body::Live(Bytes::from_static(b"[]")));
        assert_eq!(outbox.next().await.unwrap().body, Body::Message(Bytes::from_static(b"fits")));
    }

    #[tokio::test]
    async fn who_has_missed_more_than_has_room_is_told_so() {
        let (outbox, name) = (Outbox::default(), "closed:a".into());
        let closed = |n: usize| Body::Closed { row: Bytes::from_static(b"[]"), position: n.to_string().into() };
        for n in 0..MAX_MESSAGES {
            assert!(outbox.put(&Frame::new(&name, closed(n))));
        }
        assert!(!outbox.put(&Frame::new(&name, closed(MAX_MESSAGES))));
        outbox.put(&Frame::new(&name, Body::Recovered(false)));
        for n in 0..MAX_MESSAGES {
            assert_eq!(outbox.next().await.unwrap().body, closed(n));
        }
        assert_eq!(outbox.next().await.unwrap().body, Body::Gap(1));
        assert_eq!(outbox.next().await.unwrap().body, Body::Recovered(false));
        assert!(outbox.put(&Frame::new(&name, closed(0))));
    }
}
