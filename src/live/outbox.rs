//! What waits to be sent to one client: bounded, whatever is published and however slowly it reads.
//!
//! Filled by the hub, emptied by the transport of the client. Of statistics only the newest state of each
//! channel waits; messages wait in the order in which they came, and where too many would, one marker takes
//! the place of all that were left out.

use super::pace::{Pace, Paced};
use crate::clock;
use crate::stats::Millis;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// Messages that wait at most.
pub const MAX_MESSAGES: usize = 256;
/// Bytes of messages that wait at most: with what the system buffers for a connection a client that does not read
/// costs less than 256 KiB.
pub const MAX_BYTES: usize = 64 * 1024;

/// What was missed leaves as much for what comes meanwhile.
const REPLAY_MESSAGES: usize = MAX_MESSAGES / 2;
const REPLAY_BYTES: usize = MAX_BYTES / 2;

/// Something to send, shared by all clients that get it.
#[derive(Debug)]
pub struct Frame {
    pub channel: Arc<str>,
    pub body: Body,
    /// The frame as a transport sends it, made by the first client of it.
    pub event: OnceLock<Bytes>,
    /// What it says as JSON, made by the first client of it that needs it so; `None` if it is not a text.
    pub json: OnceLock<Option<Box<RawValue>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// What somebody has published, byte by byte.
    Message(Bytes),
    /// The present rows of a source, as JSON; takes the place of earlier ones.
    Live(Bytes),
    /// A row that was written to the sink, as JSON, and where it stands in the log, for those who come back.
    Closed { row: Bytes, position: Arc<str> },
    /// A source has not been heard of since then, and for so long; or it is `back`.
    Silence { source: Arc<str>, since: Millis, so_long: Millis, back: bool },
    /// Whether all that a client has missed came before this.
    Recovered(bool),
    /// So many messages were left out here, because the client is slow; 0: nobody knows how many, because
    /// the service was not connected to Redis for a while.
    Gap(u64),
}

impl Frame {
    #[must_use]
    pub fn new(channel: &Arc<str>, body: Body) -> Arc<Self> {
        Arc::new(Self { channel: Arc::clone(channel), body, event: OnceLock::new(), json: OnceLock::new() })
    }

    /// Its bytes towards [`MAX_BYTES`], if it is one of the messages that are counted.
    fn counted(&self) -> Option<usize> {
        match &self.body {
            Body::Message(bytes) | Body::Closed { row: bytes, .. } => Some(bytes.len()),
            Body::Silence { source, .. } => Some(source.len()),
            Body::Live(_) | Body::Recovered(_) | Body::Gap(_) => None,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// There is room again, and somebody waits for it.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Arc<Frame>>,
    /// Of the messages among them.
    messages: usize,
    bytes: usize,
    /// Channels whose present rows the client does not want as often as they come.
    paced: Vec<Paced>,
    /// Somebody waits for room.
    awaited: bool,
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
            Body::Message(_) | Body::Closed { .. } | Body::Silence { .. } => {
                let kept = waiting.append(frame, MAX_MESSAGES, MAX_BYTES);
                if !kept {
                    waiting.gap(&frame.channel, Body::Gap(1));
                }
                kept
            }
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

    /// From now on the present rows of a channel come no more often than this.
    pub fn pace(&self, channel: &Arc<str>, pace: Pace) {
        self.lock().paced.push(Paced::new(channel, pace));
    }

    /// Adds a message if there is room, and else leaves everything as it is; whether it was added.
    pub fn offer(&self, frame: &Arc<Frame>) -> bool {
        self.append(frame, MAX_MESSAGES, MAX_BYTES)
    }

    /// The same for what was missed, which takes a half of the room. Where it is not added, [`Self::room`] says when to
    /// try again.
    pub fn feed(&self, frame: &Arc<Frame>) -> bool {
        self.append(frame, REPLAY_MESSAGES, REPLAY_BYTES)
    }

    fn append(&self, frame: &Arc<Frame>, messages: usize, bytes: usize) -> bool {
        let mut waiting = self.lock();
        let added = !waiting.ended && waiting.append(frame, messages, bytes);
        waiting.awaited |= !added;
        drop(waiting);
        if added {
            self.arrived.notify_one();
        }
        added
    }

    /// Returns when there is room again for a good part of what was missed. For one caller at a time, which has just
    /// been refused.
    pub async fn room(&self) {
        self.emptied.notified().await;
    }

    /// Whether there is.
    pub fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    /// Whether the client has taken all messages it was given.
    pub fn is_taken(&self) -> bool {
        self.lock().messages == 0
    }

    /// The next frame, as soon as there is one; `None` after the end. For one caller at a time.
    pub async fn next(&self) -> Option<Arc<Frame>> {
        loop {
            let due = {
                let mut waiting = self.lock();
                if waiting.ended {
                    return None;
                }
                waiting.release();
                if let Some(frame) = waiting.take() {
                    if waiting.awaited && waiting.has_room() {
                        waiting.awaited = false;
                        self.emptied.notify_one();
                    }
                    return Some(frame);
                }
                waiting.paced.iter().filter_map(Paced::due).min()
            };
            let due = async {
                match due {
                    // Boxed: most clients do not wait for it, and would have room for it all the same.
                    Some(due) => Box::pin(sleep_until(due)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.arrived.notified() => {}
                () = due => {}
            }
        }
    }

    /// What waits of a channel is not sent.
    pub fn forget(&self, channel: &str) {
        let mut waiting = self.lock();
        waiting.paced.retain(|paced| !paced.is_of(channel));
        let frames = std::mem::take(&mut waiting.frames);
        (waiting.messages, waiting.bytes) = (0, 0);
        for frame in frames.into_iter().filter(|frame| *frame.channel != *channel) {
            if let Some(bytes) = frame.counted() {
                waiting.messages += 1;
                waiting.bytes += bytes;
            }
            waiting.frames.push_back(frame);
        }
        self.emptied.notify_one();
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
        if let Some(old) = self.frames.iter_mut().find(same) {
            *old = Arc::clone(frame);
            return true;
        }
        let paced = self.paced.iter_mut().find(|paced| paced.is_of(&frame.channel));
        if !paced.is_some_and(|paced| paced.holds(frame, clock::instant())) {
            self.frames.push_back(Arc::clone(frame));
        }
        true
    }

    /// What was held back, and is due.
    fn release(&mut self) {
        if !self.paced.is_empty() {
            let now = clock::instant();
            self.frames.extend(self.paced.iter_mut().filter_map(|paced| paced.release(now)));
        }
    }

    fn has_room(&self) -> bool {
        self.messages <= REPLAY_MESSAGES / 2 && self.bytes <= REPLAY_BYTES / 2
    }

    fn append(&mut self, frame: &Arc<Frame>, most_messages: usize, most_bytes: usize) -> bool {
        let bytes = frame.counted().unwrap_or_default();
        // One message always has room, or a long one would never come.
        if self.messages >= most_messages || (self.messages > 0 && self.bytes + bytes > most_bytes) {
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
        if let Body::Live(_) = frame.body
            && let Some(paced) = self.paced.iter_mut().find(|paced| paced.is_of(&frame.channel))
        {
            paced.sent(clock::instant());
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

    #[tokio::test(start_paused = true)]
    async fn present_rows_come_no_more_often_than_wanted() {
        let [slow, fast]: [Arc<str>; 2] = ["live:slow".into(), "live:fast".into()];
        let outbox = Outbox::default();
        outbox.pace(&slow, Pace::of_millis(1_000).unwrap());
        let started = clock::instant();
        let mut heard = Vec::new();
        for n in 0..20 {
            let rows = Body::Live(n.to_string().into());
            outbox.put(&Frame::new(&slow, rows.clone()));
            outbox.put(&Frame::new(&fast, rows));
            let next = async {
                loop {
                    heard.push((outbox.next().await.unwrap(), started.elapsed().as_millis()));
                }
            };
            let _: Result<(), _> = tokio::time::timeout(std::time::Duration::from_millis(250), next).await;
        }
        let of = |channel: &Arc<str>| -> Vec<(&Body, u128)> {
            heard.iter().filter(|(f, _)| f.channel == *channel).map(|(f, at)| (&f.body, *at)).collect()
        };
        assert_eq!(of(&fast).len(), 20);
        let expected = [0, 3, 7, 11, 15, 19].map(|n| Body::Live(n.to_string().into()));
        let expected: Vec<_> = expected.iter().zip([0, 1_000, 2_000, 3_000, 4_000, 5_000]).collect();
        assert_eq!(of(&slow), expected, "the newest of each second");
        outbox.forget(&slow);
        outbox.put(&Frame::new(&slow, Body::Live(Bytes::from_static(b"at once"))));
        assert_eq!(outbox.next().await.unwrap().body, Body::Live(Bytes::from_static(b"at once")));
    }

    #[tokio::test]
    async fn what_was_missed_waits_for_room_and_leaves_some() {
        let (outbox, name) = (Outbox::default(), "closed:a".into());
        let closed = |n: usize| Body::Closed { row: Bytes::from_static(b"[]"), position: n.to_string().into() };
        let missed = (0..MAX_MESSAGES).take_while(|n| outbox.feed(&Frame::new(&name, closed(*n)))).count();
        assert_eq!(missed, MAX_MESSAGES / 2);
        for n in missed..MAX_MESSAGES {
            assert!(outbox.offer(&Frame::new(&name, closed(n))), "{n}");
        }
        assert!(!outbox.offer(&Frame::new(&name, closed(MAX_MESSAGES))));
        for n in 0..MAX_MESSAGES {
            assert_eq!(outbox.next().await.unwrap().body, closed(n));
            assert_eq!(outbox.has_room(), MAX_MESSAGES - 1 - n <= REPLAY_MESSAGES / 2);
        }
        outbox.room().await;
        outbox.put(&Frame::new(&name, Body::Recovered(true)));
        assert_eq!(outbox.next().await.unwrap().body, Body::Recovered(true), "nothing is said of what was refused");
        let long = Body::Closed { row: vec![b'x'; 2 * MAX_BYTES].into(), position: "long".into() };
        assert!(outbox.feed(&Frame::new(&name, long)), "one always has room");
        assert!(!outbox.feed(&Frame::new(&name, closed(0))));
        outbox.end();
        assert!(!outbox.feed(&Frame::new(&name, closed(0))));
    }
}
