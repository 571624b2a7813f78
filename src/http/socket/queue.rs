//! What one client has asked for and is not done: between who hears it and its session.
//!
//! Used by `session.rs`. Bounded in events and bytes. There is one for each client, and most clients say one thing in
//! their life: so it is small, where a channel would make room for 32 events at once.

use super::asking::{Reply, Verb, Wish};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// Events of one client that wait for their turn: a client that sends a thousand without waiting for answers is
/// well.
const MAX_ASKED: usize = 1_024;
/// Bytes of them: 16 of the largest messages.
const MAX_ASKED_BYTES: usize = 1024 * 1024;

/// An event whose turn comes.
pub(super) struct Asked {
    pub(super) verb: Verb,
    pub(super) wish: Result<Wish, String>,
    pub(super) reply: Reply,
    /// That it takes up until it is done.
    pub(super) bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Asking {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    ended: Notify,
}

#[derive(Default)]
struct Waiting {
    asked: VecDeque<Box<Asked>>,
    /// Of these, and of the one that is being done.
    bytes: usize,
    ended: bool,
}

impl Asking {
    /// Adds an event.
    ///
    /// # Errors
    /// If there is no room for it: with whom to tell.
    pub(super) fn put(&self, asked: Asked) -> Result<(), Reply> {
        let mut waiting = self.lock();
        if waiting.ended {
            return Ok(());
        }
        if waiting.asked.len() == MAX_ASKED || waiting.bytes + asked.bytes > MAX_ASKED_BYTES {
            return Err(asked.reply);
        }
        waiting.bytes += asked.bytes;
        waiting.asked.push_back(Box::new(asked));
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next event, as soon as there is one. For one caller at a time.
    pub(super) async fn next(&self) -> Asked {
        loop {
            if let Some(asked) = self.lock().asked.pop_front() {
                return *asked;
            }
            self.arrived.notified().await;
        }
    }

    /// An event of so many bytes is done.
    pub(super) fn done(&self, bytes: usize) {
        self.lock().bytes -= bytes;
    }

    /// The client is gone: what waits is dropped, and with it the socket that each answer would go to.
    pub(super) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        let asked = std::mem::take(&mut waiting.asked);
        drop(waiting);
        drop(asked);
        self.ended.notify_one();
    }

    /// Returns when the client is gone. For one caller.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while it is held")
    }
}
