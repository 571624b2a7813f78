//! Clients that do as clients should: each batch has its key and is repeated, at any instance, until it is
//! counted.
//!
//! Used where instances or stores come and go: `nodes.rs`, `replicas.rs`.

use crate::http::{Client, reading};
use crate::service::{Service, eventually};
use crate::sink_files;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const WRITERS: u64 = 4;
/// After this a client asks another instance, or again.
const IMPATIENCE: Duration = Duration::from_millis(700);

/// Clients that post keyed batches of one reading, each to any instance, again and again until one of them
/// has counted it.
pub(crate) struct Senders {
    stop: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    pub(crate) fn start(nodes: &[&Service]) -> Self {
        let clients: Vec<Client> = nodes.iter().map(|node| Client::impatient(node.url(), IMPATIENCE)).collect();
        let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..WRITERS).map(|writer| {
            let (clients, stop, counted) = (clients.clone(), Arc::clone(&stop), Arc::clone(&counted));
            thread::spawn(move || {
                for batch in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut next = (writer + batch) as usize;
                    let (key, body) = (format!("{writer}-{batch}"), reading("a", 1.0));
                    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key.as_str())];
                    eventually(&format!("{key} is counted"), || {
                        next += 1;
                        let answer = clients[next % clients.len()].try_post("", &headers, body.as_bytes());
                        match answer.map(|answer| answer.status) {
                            Ok(200) => Some(()),
                            Ok(503 | 504) | Err(_) => None,
                            Ok(status) => panic!("{key}: {status}"),
                        }
                    });
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let threads = threads.collect();
        let senders = Self { stop, counted, threads };
        senders.go_on();
        senders
    }

    /// Until some more batches are through.
    pub(crate) fn go_on(&self) {
        let enough = self.counted.load(Ordering::SeqCst) + 40;
        eventually("batches go through", || (self.counted.load(Ordering::SeqCst) >= enough).then_some(()));
    }

    /// How many batches were counted.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a sender has failed, see above"));
        self.counted.load(Ordering::SeqCst)
    }
}

/// Sees that answers and, once the seconds have closed, files hold each reading once.
#[track_caller]
pub(crate) fn check_total(sink: &Service, batches: u64) {
    let expected = (batches, batches as f64);
    assert_eq!(sink.client().total("a", "1s"), expected, "{}", sink.log());
    let open = || sink.client().get("/v1/state?source=a").ok().json();
    let seconds = |open: &Value| open.as_array().unwrap().iter().any(|life| life["period"] == "1s");
    eventually("the seconds have closed", || (!seconds(&open())).then_some(()));
    assert_eq!(sink_files::total(&sink.sink(), "1s", "a"), expected);
    for period in ["1s", "1m", "1h"] {
        assert_eq!(sink.client().total("a", period), expected, "{period}");
    }
}
