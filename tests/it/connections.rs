//! The accept loop with limits so small that a test need not wait: who is closed, who is refused, and who is
//! not disturbed by it.
//!
//! The loop runs in this process over routes made for it; the same limits in their usual size are met in
//! `limits.rs`. Times are only ever waited for, never asserted.

use crate::raw::Raw;
use crate::service::eventually;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use meanwhile::http::server::{Entrance, Limits, listen, serve};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, oneshot};

/// More than the buffers of any system take.
pub(crate) const LARGE: usize = 64 << 20;
pub(crate) const SHORT: Duration = Duration::from_millis(200);
const QUICK: &str = "GET /quick HTTP/1.1\r\nHost: here\r\n\r\n";
const HELD: &str = "GET /held HTTP/1.1\r\nHost: here\r\n\r\n";

/// A loop in this process.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    held: Arc<Held>,
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
}

/// Requests that wait until the test lets them go.
struct Held {
    waiting: AtomicUsize,
    go: Semaphore,
}

impl Serving {
    fn start(limits: Limits) -> Self {
        Self::start_behind(Entrance::default(), limits)
    }

    pub(crate) fn start_behind(entrance: Entrance, limits: Limits) -> Self {
        let held = Arc::new(Held { waiting: AtomicUsize::new(0), go: Semaphore::new(0) });
        let routes = Router::new()
            .route("/quick", get(async || "quick"))
            .route("/large", get(async || Body::from(vec![b'x'; LARGE])))
            .route("/panic", get(async || -> &str { panic!("the secret of the house") }))
            .route("/upgraded", get(upgrade))
            .route("/held", get(wait))
            .route("/body", post(read))
            .with_state(Arc::clone(&held));
        let (stop, stopped) = oneshot::channel();
        let (say, said) = std::sync::mpsc::channel();
        let thread = spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
                say.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, routes, limits, entrance, async { drop(stopped.await) }).await;
            });
        });
        Self { address: said.recv().unwrap(), held, stop: Some(stop), thread }
    }

    fn connect(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// A connection with a request under way.
    fn hold(&self) -> Raw {
        let before = self.held.waiting.load(Ordering::SeqCst);
        let mut raw = self.connect();
        raw.send(HELD);
        eventually("the request is under way", || (self.held.waiting.load(Ordering::SeqCst) > before).then_some(()));
        raw
    }

    /// A connection that had an answer and is kept.
    fn keep(&self) -> Raw {
        let mut raw = self.connect();
        is_served(&mut raw);
        raw
    }
}

async fn wait(State(held): State<Arc<Held>>) -> &'static str {
    held.waiting.fetch_add(1, Ordering::SeqCst);
    held.go.acquire().await.unwrap().forget();
    "held"
}

/// Writes on one side, and ends when the other has nothing more to read.
async fn upgrade(request: Request) -> (StatusCode, [(&'static str, &'static str); 2]) {
    tokio::spawn(async {
        let upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let (mut reader, mut writer) = tokio::io::split(upgraded);
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(&vec![b'x'; LARGE]).await;
            std::future::pending::<()>().await;
        });
        while reader.read(&mut [0]).await.is_ok_and(|read| read > 0) {}
        writing.abort();
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("Connection", "Upgrade"), ("Upgrade", "anything")])
}

async fn read(body: Body) -> (StatusCode, String) {
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => bytes += Bytes::len(&chunk),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
    (StatusCode::OK, bytes.to_string())
}

#[track_caller]
fn is_served(raw: &mut Raw) {
    raw.send(QUICK);
    let answer = raw.answer().expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, "quick"), "{answer:?}");
}

/// Nobody is turned away by the system because the loop has not come round yet.
#[tokio::test]
async fn a_burst_of_connections_waits_its_turn() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let at_most: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(5));
    let burst: Result<Vec<_>, _> = (0..at_most.min(1_000)).map(connect).collect();
    assert!(burst.is_ok(), "{burst:?}");
}

#[test]
fn a_head_that_drips_is_given_up() {
    let serving = Serving::start(Limits { head: SHORT, ..Limits::default() });
    let mut raw = serving.connect();
    while raw.send("GET") {
        sleep(SHORT / 10);
        if raw.answer_is_there() {
            break;
        }
    }
    let answer = raw.answer().expect("an answer");
    assert_eq!((answer.status, answer.problem().as_str()), (408, "headers-timeout"));
    assert!(answer.has("connection: close"));
    assert!(raw.is_closed());
    // One that says nothing is closed without a word; a second head has its time as the first had.
    assert!(serving.connect().is_closed());
    let mut kept = serving.keep();
    kept.send("GET /quick HT");
    assert_eq!(kept.answer().expect("an answer").status, 408);
}

#[test]
fn a_proxy_that_names_nobody_is_given_up() {
    let entrance = Entrance::new("loopback".parse().unwrap(), true);
    let serving = Serving::start_behind(entrance, Limits { head: SHORT, ..Limits::default() });
    for begun in ["", "PROXY TCP4 198.51.100.7 ", "PROXY UNKNOWN no end of the line"] {
        let mut raw = serving.connect();
        raw.send(begun);
        let answer = raw.answer().expect("an answer");
        assert_eq!((answer.status, answer.problem().as_str()), (400, "unreadable-request"), "{begun:?}");
        assert!(raw.is_closed(), "{begun:?}");
    }
    let mut raw = serving.connect();
    raw.send("PROXY UNKNOWN\r\n");
    is_served(&mut raw);
}

#[test]
fn a_pause_may_take_longer_than_a_head() {
    let serving = Serving::start(Limits { head: SHORT / 4, ..Limits::default() });
    let mut raw = serving.keep();
    sleep(SHORT);
    is_served(&mut raw);
    // So may the request itself.
    let mut held = serving.hold();
    sleep(SHORT);
    serving.held.go.add_permits(1);
    assert_eq!(held.answer().unwrap().body, "held");
}

#[test]
fn a_pause_without_end_is_ended() {
    let serving = Serving::start(Limits { idle: SHORT, ..Limits::default() });
    let mut idle = serving.keep();
    assert!(idle.is_closed());
    let mut posted = serving.connect();
    posted.send("POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(posted.answer().unwrap().body, "2");
    assert!(posted.is_closed());
    let mut held = serving.hold();
    sleep(2 * SHORT);
    serving.held.go.add_permits(1);
    assert_eq!(held.answer().unwrap().body, "held");
}

#[test]
fn a_body_that_drips_is_given_up() {
    let serving = Serving::start(Limits { body_start: SHORT, ..Limits::default() });
    let mut raw = serving.connect();
    raw.send("POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n");
    while raw.send("x") {
        sleep(SHORT / 10);
        if raw.answer_is_there() {
            break;
        }
    }
    let answer = raw.answer().expect("an answer");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("too slowly"), "{}", answer.body);
    assert!(raw.is_closed());
}

#[test]
fn an_answer_that_is_not_taken_is_given_up() {
    let serving = Serving::start(Limits { stall: SHORT, connections: 1, ..Limits::default() });
    let mut slow = serving.connect();
    slow.send("GET /large HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(slow.take(1), 1);
    // Its place is free again when it is closed, and not before.
    eventually("the slow reader is closed", || {
        let mut next = serving.connect();
        next.send(QUICK);
        next.answer().filter(|answer| answer.status == 200)
    });
    assert!(slow.rest().len() < LARGE);
}

#[test]
fn an_answer_that_is_taken_slowly_arrives() {
    let serving = Serving::start(Limits { stall: 5 * SHORT, ..Limits::default() });
    let mut slow = serving.connect();
    slow.send("GET /large HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    let mut bytes = 0;
    for _ in 0..10 {
        sleep(SHORT);
        bytes += slow.take(LARGE / 20);
    }
    assert!(bytes + slow.rest().len() > LARGE);
}

/// Who reads and who writes are two there: that nothing is taken ends both.
#[test]
fn an_upgraded_connection_that_is_not_read_is_given_up() {
    let serving = Serving::start(Limits { stall: SHORT, connections: 1, ..Limits::default() });
    let mut slow = serving.connect();
    slow.send("GET /upgraded HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: anything\r\n\r\n");
    assert_eq!(slow.answer().map(|answer| answer.status), Some(101));
    eventually("the slow reader is closed", || {
        let mut next = serving.connect();
        next.send(QUICK);
        next.answer().filter(|answer| answer.status == 200)
    });
    assert!(slow.rest().len() < LARGE);
}

/// Connections are accepted in the order in which they are made, so all that came before one whose request
/// is under way have their places.
#[test]
fn the_connection_unused_for_longest_gives_way() {
    let serving = Serving::start(Limits { connections: 4, ..Limits::default() });
    let mut held = vec![serving.hold()];
    let [mut silent, mut half] = [(); 2].map(|()| serving.connect());
    // A head that is not complete is no use of a connection.
    half.send("GET /quick");
    held.push(serving.hold());
    held.push(serving.hold());
    assert!(silent.is_closed());
    held.push(serving.hold());
    assert!(half.is_closed());
    serving.held.go.add_permits(held.len());
    assert!(held.iter_mut().all(|held| held.answer().is_some()));
}

#[test]
fn where_all_are_in_use_the_new_one_is_refused() {
    let serving = Serving::start(Limits { connections: 2, ..Limits::default() });
    let mut held = [(); 2].map(|()| serving.hold());
    let mut refused = serving.connect();
    refused.send(QUICK);
    let answer = refused.answer().expect("an answer");
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too-many-connections"));
    assert!(answer.has("retry-after: 1") && answer.has("connection: close"), "{answer:?}");
    assert!(answer.body.contains("--max-connections"), "{answer:?}");
    assert!(refused.is_closed());
    serving.held.go.add_permits(2);
    for held in &mut held {
        assert_eq!(held.answer().unwrap().body, "held");
    }
    eventually("the places are free again", || {
        let mut next = serving.connect();
        next.send(QUICK);
        next.answer().filter(|answer| answer.status == 200)
    });
}

#[test]
fn one_address_has_its_share() {
    let serving = Serving::start(Limits { per_address: 2, loopback_counts: true, ..Limits::default() });
    let [mut silent, mut held] = [serving.connect(), serving.hold()];
    let mut second = serving.hold();
    assert!(silent.is_closed());
    let answer = serving.connect().answer().expect("an answer");
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too-many-connections"));
    assert!(answer.body.contains("127.0.0.1") && answer.body.contains("--max-connections-per-address"), "{answer:?}");
    serving.held.go.add_permits(2);
    assert!(held.answer().is_some() && second.answer().is_some());
    // Without the rule loopback addresses have no share.
    let serving = Serving::start(Limits { per_address: 1, ..Limits::default() });
    let mut held = [(); 3].map(|()| serving.hold());
    serving.held.go.add_permits(3);
    assert!(held.iter_mut().all(|held| held.answer().is_some()));
}

#[test]
fn bodies_are_bounded_together() {
    let serving = Serving::start(Limits { bodies: 1_000, ..Limits::default() });
    let head = "POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: 600\r\n\r\n";
    let mut first = serving.connect();
    first.send(format!("{head}{}", "x".repeat(599)));
    let mut second = serving.connect();
    let answer = eventually("the first body has its room", || {
        second.send(format!("{head}{}", "x".repeat(600)));
        second.answer().filter(|answer| answer.status != 200)
    });
    assert_eq!((answer.status, answer.body.as_str()), (400, "too many bodies are being received at once"));
    first.send("x");
    assert_eq!(first.answer().unwrap().body, "600");
    // The room is there again, however often it is used.
    for _ in 0..5 {
        first.send(format!("{head}{}", "x".repeat(600)));
        assert_eq!(first.answer().unwrap().body, "600");
    }
}

#[test]
fn a_panic_is_one_request_s() {
    let serving = Serving::start(Limits::default());
    let mut raw = serving.keep();
    raw.send("GET /panic HTTP/1.1\r\nHost: here\r\n\r\n");
    let answer = raw.answer().expect("an answer");
    assert_eq!((answer.status, answer.problem().as_str()), (500, "internal"));
    assert!(!answer.body.contains("secret"), "{answer:?}");
    is_served(&mut raw);
    is_served(&mut serving.connect());
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_for_nothing_else() {
    // The connections hear of a stop one after the other: an answer may be just ahead of it.
    assert!((0..10).any(|_| last_answer_says_so()));
}

/// Whether the answer to what was under way at a stop says that it is the last of its connection, which it is.
fn last_answer_says_so() -> bool {
    let mut serving = Serving::start(Limits::default());
    let [mut held, mut idle, mut silent] = [serving.hold(), serving.keep(), serving.connect()];
    serving.stop.take().unwrap().send(()).unwrap();
    assert!(idle.is_closed() && silent.is_closed());
    assert!(!serving.thread.is_finished());
    serving.held.go.add_permits(1);
    let answer = held.answer().expect("an answer");
    assert!(held.is_closed());
    serving.thread.join().unwrap();
    answer.has("connection: close")
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let serving = Serving::start(Limits::default());
    let mut raw = serving.connect();
    let body = |n: usize| format!("POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: {n}\r\n\r\n{}", "x".repeat(n));
    raw.send((0..100).map(body).collect::<String>() + QUICK);
    for n in 0..100 {
        assert_eq!(raw.answer().unwrap().body, n.to_string());
    }
    assert_eq!(raw.answer().unwrap().body, "quick");
    is_served(&mut raw);
}

#[test]
fn older_clients_and_heads_alone() {
    let serving = Serving::start(Limits::default());
    let mut old = serving.connect();
    old.send("GET /quick HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().unwrap().body, "quick");
    assert!(old.is_closed());
    let mut kept = serving.connect();
    for _ in 0..2 {
        kept.send("GET /quick HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(kept.answer().unwrap().body, "quick");
    }
    let mut head = serving.connect();
    head.send("HEAD /quick HTTP/1.1\r\nHost: here\r\n\r\n");
    let answer = head.answer_to("HEAD").unwrap();
    assert!(answer.status == 200 && answer.has("content-length: 5"), "{answer:?}");
    is_served(&mut head);
}
