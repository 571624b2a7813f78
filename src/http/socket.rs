//! `/socket.io/`: channels over Socket.IO, for clients of its protocols 4 and 5 (Engine.IO 3 and 4).
//!
//! Mounted by the route table. The library speaks the protocol, with WebSocket or with one request after the other,
//! and closes who gives no sign of life; each client has a task of its own (`session.rs`) that carries out what it
//! asks for (`asking.rs`) and hands it what its channels bring (`telling.rs`). Who hears what is the hub's (`live/`).
//! What cannot be read is answered by the library, in the words its clients know.

mod admitted;
mod asking;
mod queue;
mod session;
mod telling;

use super::Service;
use super::auth::Caller;
use super::problem::{Kind, Problem};
use super::publish::MAX_MESSAGE_BYTES;
use super::server::ClientAddress;
use crate::config::MAX_CONNECTIONS;
use crate::incidents;
use admitted::{Payload, admit};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn, map_request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any_service};
use hyper::Uri;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY};
use hyper::upgrade::OnUpgrade;
use session::{Behind, begin, meet};
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::{ParserConfig, SocketIo};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What clients ask for, with or without the slash at the end; what the oldest of them ask for behind it is
/// answered 400.
pub(super) const PATHS: [&str; 3] = ["/socket.io", "/socket.io/", "/socket.io/{*rest}"];

/// Packets that wait in the library for one connection; more of them wait in the outbox of the client, where they are
/// counted.
const MAX_PACKETS: usize = 16;
/// Bytes of one packet from a client: a message of which every character has to be escaped.
const MAX_PACKET_BYTES: usize = 8 * MAX_MESSAGE_BYTES;
/// Bytes of one request with packets: what clients expect who know no other limit.
const MAX_BODY_BYTES: u64 = 1024 * 1024;
/// Binary parts of one packet; a message has one.
const MAX_BINARIES: usize = 4;
/// Taken off a WebSocket at once; there is so much memory for each, and what clients ask for is mostly shorter.
const READ_BYTES: usize = 256;
/// Sessions that began with polling: as many as connections, unless told otherwise, though these need none.
const MAX_POLLING: usize = MAX_CONNECTIONS;
/// For a client to say that it wants to talk, behind its first request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What takes the requests of [`PATHS`], until the service stops.
pub(super) fn sockets(service: &Service) -> MethodRouter<Service> {
    let parser = ParserConfig::common()
        .max_incoming_binaries(MAX_BINARIES)
        .max_incoming_binary_buf_size(MAX_PACKET_BYTES)
        .packet_completion_timeout(CONNECT_TIMEOUT);
    let (sockets, io) = SocketIo::builder()
        .max_buffer_size(MAX_PACKETS)
        .max_payload(MAX_BODY_BYTES)
        .ws_read_buffer_size(READ_BYTES)
        .ws_max_message_size(MAX_PACKET_BYTES)
        .ws_max_frame_size(MAX_PACKET_BYTES)
        .connect_timeout(CONNECT_TIMEOUT)
        .with_parser(parser)
        .build_svc();
    let hub = Arc::clone(&service.hub);
    let behind = Behind {
        hub: Arc::clone(&hub),
        nodes: Arc::clone(&service.nodes),
        instance: service.instance.clone(),
        guard: Arc::clone(&service.guard),
        demo: service.demo,
    };
    let meet = move |socket: SocketRef, TryData(payload): TryData<Payload>| {
        let behind = behind.clone();
        async move {
            let caller = admit(&behind.guard, socket.req_parts(), payload.ok()).await?;
            meet(&socket, behind, caller);
            Ok::<_, String>(())
        }
    };
    io.ns("/", begin.with(meet));
    incidents::spawn("sockets", async move {
        hub.ended().await;
        // Clients take it for a lost connection, and come back by themselves.
        SocketIo::close(&io).await;
    });
    bounded(any_service(sockets), MAX_POLLING)
}

/// With so many sessions at once that began with polling, and with what the library needs of a request.
fn bounded<S: Clone + Send + Sync + 'static>(sockets: MethodRouter<S>, polling: usize) -> MethodRouter<S> {
    let places = Arc::new(Semaphore::new(polling));
    sockets.layer(map_request(lightened)).layer(from_fn(move |request, next| {
        let places = Arc::clone(&places);
        async move { take_place(&places, request, next).await }
    }))
}

/// A place among the sessions that began with polling; they keep it with their request.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "is given back when dropped")] Arc<OwnedSemaphorePermit>);

/// A session without a connection costs nobody but this service anything, and begins before it is asked who it is.
async fn take_place(places: &Arc<Semaphore>, mut request: Request, next: Next) -> Response {
    if begins_polling(request.uri()) {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            let detail = format!("{MAX_POLLING} clients are there by polling; try again");
            return Problem::new(Kind::TooManyConnections, detail).into_response();
        };
        request.extensions_mut().insert(Place(Arc::new(place)));
    }
    next.run(request).await
}

fn begins_polling(uri: &Uri) -> bool {
    let has = |name: &str| uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with(name));
    has("transport=polling") && !has("sid=")
}

/// A request with what the library reads of it. It keeps the head that a session begins with for as long as that lasts,
/// and with any part of it the whole buffer of 8 KiB that it came in: so this one has parts of its own.
async fn lightened(request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let mut light = Request::new(body);
    *light.method_mut() = parts.method.clone();
    *light.version_mut() = parts.version;
    *light.uri_mut() = parts.uri.to_string().parse().expect("it was one before");
    // A session begins with one of them at most.
    *light.headers_mut() = HeaderMap::with_capacity(1);
    for name in [CONTENT_TYPE, SEC_WEBSOCKET_KEY] {
        if let Some(value) = parts.headers.get(&name) {
            light.headers_mut().insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("it was one before"));
        }
    }
    // What the session asks for who and where the client is; the last is how it becomes a WebSocket.
    hand_over::<Caller>(&mut parts, &mut light);
    hand_over::<ClientAddress>(&mut parts, &mut light);
    hand_over::<OnUpgrade>(&mut parts, &mut light);
    hand_over::<Place>(&mut parts, &mut light);
    light
}

fn hand_over<T: Clone + Send + Sync + 'static>(from: &mut Parts, to: &mut Request) {
    if let Some(value) = from.extensions.remove::<T>() {
        to.extensions_mut().insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use bytes::Bytes;
    use hyper::StatusCode;
    use tokio::time::sleep;
    use tower::ServiceExt;

    #[tokio::test(start_paused = true)]
    async fn sessions_that_began_with_polling_are_bounded() {
        let (sockets, _io) = SocketIo::builder().connect_timeout(CONNECT_TIMEOUT).build_svc();
        let routes: Router = Router::new().route(PATHS[1], bounded(any_service(sockets), 2));
        let ask = async |query: &str| {
            let request = Request::get(format!("/socket.io/?EIO=4&{query}")).body(Body::empty()).unwrap();
            routes.clone().oneshot(request).await.unwrap().status()
        };
        for expected in [StatusCode::OK, StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE] {
            assert_eq!(ask("transport=polling").await, expected);
        }
        // Neither a session that goes on nor a WebSocket needs a place; the library says what is wrong with these two.
        assert_eq!(ask("transport=polling&sid=AAAAAAAAAAAAAAAA").await, StatusCode::BAD_REQUEST);
        assert_eq!(ask("transport=websocket").await, StatusCode::BAD_REQUEST);
        // They never say that they want to talk.
        sleep(2 * CONNECT_TIMEOUT).await;
        assert_eq!(ask("transport=polling").await, StatusCode::OK);
    }

    #[tokio::test]
    async fn nothing_holds_the_buffer_a_request_came_in() {
        let buffer = Bytes::from(b"/socket.io/?EIO=4&transport=websocket dGhlIHNhbXBsZSBub25jZQ== agent".to_vec());
        let of = |text: &str| {
            let at = buffer.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
            buffer.slice(at..at + text.len())
        };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_maybe_shared(of("/socket.io/?EIO=4&transport=websocket")).unwrap();
        let key = HeaderValue::from_maybe_shared(of("dGhlIHNhbXBsZSBub25jZQ==")).unwrap();
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, key.clone());
        request.headers_mut().insert("user-agent", HeaderValue::from_maybe_shared(of("agent")).unwrap());
        let before = request.uri().to_string();
        assert!(!buffer.is_unique());

        let light = lightened(request).await;
        assert_eq!((light.uri().to_string(), &light.headers()[SEC_WEBSOCKET_KEY]), (before, &key));
        drop(key);
        assert!(buffer.is_unique());
    }
}
