//! The accept loop: connections come in, each is served by a task of its own, all are bounded.
//!
//! Called by `app.rs` with a bound listener, the routes and any future as the stop signal. It guarantees that
//! no client holds a connection without using it: a head, a body, an answer or a pause that takes too
//! long ends it (`server/wire.rs`, `server/body.rs`), and where there are too many, one that is not in use gives
//! way (`server/places.rs`). A panic in a handler is answered 500 and is that request's alone
//! (`server/request.rs`). What a request means is not known here.

mod body;
mod client;
mod descriptors;
mod entrance;
mod places;
mod request;
mod stream;
mod tls;
mod wire;

pub(super) use body::{Held, Refused};
pub(super) use client::ClientAddress;
pub use entrance::Entrance;
pub(super) use request::failed;
pub use tls::Tls;

use super::problem::{Kind, Problem};
use crate::clock;
use crate::config::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS};
use crate::incidents;
use crate::telemetry::metrics;
use axum::Router;
use descriptors::within_descriptors;
use entrance::Closed;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use places::{Full, Places};
use request::Requests;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use stream::Stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio::time::timeout;
use wire::{PARTING_TIME, Turn, Wire, part};

/// Bytes of request line and headers: what proxies allow as well, and room for any token or trace.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// From the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From an answer to the next request; longer than the pause between two batches of most clients.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long nothing of an answer needs to be taken.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a body may take before its rate counts ...
const BODY_START: Duration = Duration::from_secs(20);
/// ... and the bytes a second from then on: the slowest modem is faster.
const BODY_RATE: u64 = 500;
/// Bytes of all bodies that are received or wait for the store, and of what they are decompressed to: 16 of the
/// largest.
const MAX_BODIES_BYTES: usize = 256 * 1024 * 1024;

/// Connections that the system completes while none is accepted. With the 128 that it would be otherwise, a
/// burst of clients drives others into the second that TCP waits before it knocks again.
const BACKLOG: u32 = 4096;
/// Bytes that wait in the system for a client; it takes this twice, for its own needs.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
/// Refusals that are spoken at once; beyond them a connection is closed without a word.
const MAX_REFUSALS: usize = 128;
/// The pause after a failed accept: descriptors do not come back faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// At most one line in the log about full places or failed accepts in this time.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// What a client may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address, or one /64 of IPv6; 0: as many as come.
    pub per_address: usize,
    /// Whether loopback addresses count as others do. They do not by default: a proxy on the same machine
    /// speaks for many.
    pub loopback_counts: bool,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// From an answer to the next request.
    pub idle: Duration,
    /// How long nothing of an answer needs to be taken.
    pub stall: Duration,
    /// How long a body may take before its rate counts.
    pub body_start: Duration,
    /// Bytes of all bodies that are received or wait for the store.
    pub bodies: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            per_address: MAX_CONNECTIONS_PER_ADDRESS,
            loopback_counts: false,
            head: HEAD_TIMEOUT,
            idle: IDLE_TIMEOUT,
            stall: STALL_TIMEOUT,
            body_start: BODY_START,
            bodies: MAX_BODIES_BYTES,
        }
    }
}

/// A listener that [`serve`] can take; the system may cut its backlog (`net.core.somaxconn`).
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port is free again at once when the service is started anew.
    socket.set_reuseaddr(true)?;
    // Accepted connections have it from here: what a client does not read waits where it is counted.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`; then no new connections come in, those without a request are closed, and what is in
/// flight is answered. Returns when the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    mut limits: Limits,
    entrance: Entrance,
    stop: impl Future<Output = ()>,
) {
    limits.connections = within_descriptors(limits.connections);
    let (stopping, stopped) = watch::channel(false);
    let server = Arc::new(Server {
        limits,
        places: Places::new(limits.connections, limits.per_address, limits.loopback_counts),
        requests: Requests::new(TowerToHyperService::new(router), limits, entrance.proxies().clone()),
        entrance,
        refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        complaints: Mutex::default(),
        stopped,
    });
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => server.welcome(stream, address.ip()),
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                // Most likely there are no more descriptors: one comes back this way.
                let shed =
                    if server.places.shed_oldest() { "the oldest unused one is closed" } else { "none is unused" };
                server.complain(&format!("cannot accept connections ({error}); {shed}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(server);
    drop(listener);
    stopping.send_replace(true);
    // Every connection holds a receiver.
    stopping.closed().await;
}

/// Errors of `accept` that are about one connection, which is gone.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

struct Server {
    limits: Limits,
    places: Arc<Places>,
    requests: Requests,
    entrance: Entrance,
    refusals: Arc<Semaphore>,
    complaints: Mutex<Complaints>,
    stopped: watch::Receiver<bool>,
}

impl Server {
    fn welcome(self: &Arc<Self>, stream: TcpStream, peer: IpAddr) {
        // Answers are written whole: waiting for more would only delay them. Fails if the client is gone.
        let _ = stream.set_nodelay(true);
        // A proxy speaks for many; if it says who they are, it is these who are counted.
        match self.places.take((!self.entrance.is_proxy(peer)).then_some(peer)) {
            Ok(taken) => {
                self.gave_way(taken.instead_of_another);
                let connection = connection(Arc::clone(self), stream, peer, Arc::new(Turn::new(taken.place)));
                incidents::spawn("connection", connection);
            }
            Err(full) => {
                let problem = self.refusal(full);
                if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                    let server = Arc::clone(self);
                    incidents::spawn("connection", async move {
                        let open = timeout(PARTING_TIME, server.entrance.let_in(stream, peer, PARTING_TIME));
                        if let Ok(Ok((stream, _))) = open.await {
                            part(stream, problem).await;
                        }
                        drop(permit);
                    });
                }
            }
        }
    }

    /// Waits for what a connection has to begin with. Returns who is at its other end, and says why to who may not come
    /// in.
    async fn admit(&self, stream: TcpStream, peer: IpAddr, turn: &Turn) -> Option<(Stream, IpAddr)> {
        let (stream, client) = match self.entrance.let_in(stream, peer, self.limits.head).await {
            Ok(opened) => opened,
            Err(Closed::Silently) => return None,
            Err(Closed::With(stream, problem)) => {
                part(Stream::Plain(stream), problem).await;
                return None;
            }
        };
        // Of a proxy that speaks for itself, nobody is known.
        if !self.entrance.announces(peer) || self.entrance.is_proxy(client) {
            return Some((stream, client));
        }
        match turn.place().belongs_to(client) {
            Ok(instead_of_another) => {
                self.gave_way(instead_of_another);
                Some((stream, client))
            }
            Err(full) => {
                part(stream, self.refusal(full)).await;
                None
            }
        }
    }

    fn gave_way(&self, instead_of_another: Option<Full>) {
        if let Some(full) = instead_of_another {
            self.complain(&format!("{}; the oldest unused one gives way", full.describe(&self.limits)));
        }
    }

    fn refusal(&self, full: Full) -> Problem {
        let detail = full.describe(&self.limits);
        metrics::turned_away(Kind::TooManyConnections.row().1);
        self.complain(&format!("{detail}, all in use; new ones are refused"));
        Problem::new(Kind::TooManyConnections, format!("{detail}; try again"))
    }

    fn complain(&self, what: &str) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).say(what);
    }
}

impl Full {
    fn describe(self, limits: &Limits) -> String {
        match self {
            Self::Service => format!("the service has its {} connections (--max-connections)", limits.connections),
            Self::Address(address) => {
                format!("{address} has its {} connections (--max-connections-per-address)", limits.per_address)
            }
        }
    }
}

/// Serves one connection to its end.
async fn connection(server: Arc<Server>, stream: TcpStream, peer: IpAddr, turn: Arc<Turn>) {
    let mut stopped = server.stopped.clone();
    let (stream, client) = if server.entrance.is_plain(peer) {
        (Stream::Plain(stream), peer)
    } else {
        // On the heap: most connections do without, and keep what they are made with.
        let admitted = Box::pin(server.admit(stream, peer, &turn));
        let admitted = tokio::select! {
            () = turn.place().shed() => None,
            _ = stopped.wait_for(|stop| *stop) => None,
            admitted = admitted => admitted,
        };
        let Some(admitted) = admitted else { return };
        admitted
    };
    let requests = server.requests.clone().on(Arc::clone(&turn), client);
    let wire = Wire::new(stream, Arc::clone(&turn), server.limits);
    let mut builder = http1::Builder::new();
    // The timeout of a head is the wire's, which tells a head from a pause.
    builder.max_header_size(MAX_HEAD_BYTES).header_read_timeout(None);
    let mut connection = builder.serve_connection(TokioIo::new(wire), requests).with_upgrades();
    let ended = tokio::select! {
        // A stop is seen before the answer that comes with it, which then says that it is the last.
        biased;
        () = turn.place().shed() => return,
        _ = stopped.wait_for(|stop| *stop) => None,
        ended = &mut connection => Some(ended),
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        Pin::new(&mut connection).graceful_shutdown();
        (&mut connection).await
    };
    // How a connection ends is the client's affair and told to nobody but the client.
    if ended.is_err()
        && let Some(parts) = connection.into_parts()
    {
        // On the heap, like the entrance: it has buffers, and every connection would have room for them.
        Box::pin(parts.io.into_inner().take_leave()).await;
    }
}

/// Speaks once of what may happen ten thousand times.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: usize,
}

impl Complaints {
    fn say(&mut self, what: &str) {
        let now = clock::instant();
        if self.last.is_some_and(|last| now < last + COMPLAINT_PAUSE) {
            self.unsaid += 1;
            return;
        }
        self.last = Some(now);
        match std::mem::take(&mut self.unsaid) {
            0 => tracing::warn!("{what}"),
            unsaid => tracing::warn!("{what}; {unsaid} more of this kind were not logged"),
        }
    }
}
