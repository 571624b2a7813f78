//! Senders of single readings to one address, each under a key of its own, at a rate: they repeat a reading until it is
//! counted.
//!
//! Used by `dying.rs`.

use crate::http::{Client, reading};
use crate::service::eventually;
use meanwhile::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// After so long a sender repeats what was not answered.
pub(super) const IMPATIENCE: Duration = Duration::from_secs(2);
const SENDERS: u64 = 32;

/// Senders of single readings to one address, so many a second together if they can.
pub(super) struct Posts {
    stop: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
    repeated: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Posts {
    pub(super) fn start(url: &str, each_second: u64) -> Self {
        let (stop, counted, repeated) = (Arc::default(), Arc::default(), Arc::default());
        let mut posts = Self { stop, counted, repeated, threads: Vec::new() };
        let pause = Duration::from_secs(SENDERS) / each_second as u32;
        for sender in 0..SENDERS {
            let client = Client::impatient(url.to_owned(), IMPATIENCE);
            let (stop, counted, repeated) =
                (Arc::clone(&posts.stop), Arc::clone(&posts.counted), Arc::clone(&posts.repeated));
            posts.threads.push(thread::spawn(move || {
                let mut next = clock::instant();
                for batch in 0.. {
                    next += pause;
                    thread::sleep(next.saturating_duration_since(clock::instant()));
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let key = format!("{sender}-{batch}");
                    repeated.fetch_add(post(&client, &key), Ordering::SeqCst);
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        posts
    }

    /// Until so many more are counted.
    pub(super) fn go_on(&self, more: u64) {
        let enough = self.counted() + more;
        eventually("readings go through", || (self.counted() >= enough).then_some(()));
    }

    fn counted(&self) -> u64 {
        self.counted.load(Ordering::SeqCst)
    }

    /// How many were counted, and how often one had to be repeated.
    pub(super) fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a sender has failed, see above"));
        (self.counted.load(Ordering::SeqCst), self.repeated.load(Ordering::SeqCst))
    }
}

/// Repeats a reading until it is counted; how often it had to.
pub(super) fn post(client: &Client, key: &str) -> u64 {
    let body = reading("a", 1.0);
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    let mut repeated = 0;
    eventually(&format!("{key} is counted"), || {
        match client.try_post("", &headers, body.as_bytes()).map(|answer| answer.status) {
            Ok(200) => Some(()),
            // Of the instance or of the proxy.
            Ok(502..=504) | Err(_) => {
                repeated += 1;
                None
            }
            Ok(status) => panic!("{key}: {status}"),
        }
    });
    repeated
}
