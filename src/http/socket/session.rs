//! One client of Socket.IO, from its coming to its going.
//!
//! Called by `socket.rs` for each of them. Guarantees: what a client asks for is carried out in its order; what waits
//! for it is bounded in `queue.rs`, in the library and in its outbox, whatever it asks for and however slowly it
//! reads; when the connection ends, by whatever, nothing of it is left. There are tens of thousands that hear nothing for
//! hours: what only some of them wait for, or now and then, is boxed, so that the others have no room for it.

use super::admitted::{Admitted, Change};
use super::asking::{Argument, Arrived, Reply, Verb, Wish};
use super::queue::{Asked, Asking};
use super::telling::{emit, send_back, tell};
use crate::failpoint;
use crate::http::Instance;
use crate::http::auth::{Caller, Guard, not_heard};
use crate::http::nodes::with_the_sink;
use crate::http::stream::failed;
use crate::incidents::{self, Caught};
use crate::live::channel::Channel;
use crate::live::{Client, Hub, LiveError, Terms, Transport};
use crate::nodes::Nodes;
use serde_json::json;
use socketioxide::extract::{Event, SocketRef};
use socketioxide::socket::Socket;
use socketioxide::{SendError, SocketError, TransportType};
use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::sleep;

const TOO_MUCH: &str = "too much at once: wait for the answers to what you have asked for";
/// Until it is tried again whether there is room for a packet, growing: a client that reads has room at once, one that
/// does not costs ten looks a second.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The name of a session in the error log.
const SESSION: &str = "socket session";
/// How soon a change from requests to a WebSocket is counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What stands behind all sessions. Not the whole service: the library may hold this for longer than the stop of the
/// service waits for what takes readings.
#[derive(Clone)]
pub(super) struct Behind {
    pub(super) hub: Arc<Hub>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) instance: Instance,
    pub(super) guard: Arc<Guard>,
    /// Whether clients are greeted, and get back what they send.
    pub(super) demo: bool,
}

/// What the session of a client needs, from when it is met until it is connected: if it never is, this goes with its
/// socket.
#[derive(Clone)]
struct Met(Box<(Behind, Caller, Arc<Asking>)>);

/// Listens to a client; before it hears that it is connected, so that nothing it says is lost.
pub(super) fn meet(socket: &SocketRef, service: Behind, caller: Caller) {
    let asking = Arc::<Asking>::default();
    let heard = Arc::clone(&asking);
    let demo = service.demo;
    // Runs before the next event is read, so they keep their order.
    socket.on_fallback(move |Event(name), arrived: Arrived| {
        if let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.name() == name && (demo || *verb != Verb::Message)) {
            take(verb, arrived, &heard);
        }
        ready(())
    });
    let going = Arc::clone(&asking);
    socket.on_disconnect(move || {
        going.end();
        ready(())
    });
    socket.extensions.insert(Met(Box::new((service, caller, asking))));
}

/// The client is connected: attends to it until it is gone. The library makes a task of this.
pub(super) async fn begin(socket: SocketRef) {
    let Some(Met(met)) = socket.extensions.remove() else { return };
    let (service, caller, asking) = *met;
    let session = async {
        tokio::select! {
            () = asking.ended() => {}
            () = service.hub.ended() => {}
            // That the connection is gone was found out here.
            Err(Gone) = attend(&socket, &service, caller, &asking) => {}
        }
    };
    let failed = incidents::caught(SESSION, session).await.is_err();
    asking.end();
    if failed {
        // Nobody attends to it any more: it comes back by itself and gets another session.
        let _ = SocketRef::clone(&socket).disconnect();
    }
}

fn take(verb: Verb, arrived: Arrived, asking: &Asking) {
    let Arrived { arguments, bytes, reply } = arrived;
    let wish = arguments.ok_or_else(|| "the arguments cannot be read".to_owned());
    let wish = wish.and_then(|arguments| {
        let read = incidents::caught_now(verb.view(), || {
            failpoint::trip("event-read");
            Wish::read(verb, arguments)
        });
        read.unwrap_or_else(|panic| Err(defect(panic)))
    });
    if let Err(reply) = asking.put(Asked { verb, wish, reply, bytes }) {
        // There may be no room for this either: who asks that much and does not listen is not told.
        let _ = refuse(&reply, verb, TOO_MUCH);
    }
}

/// Says that something is not done, as an answer if one is wanted, and else as an event.
fn refuse(reply: &Reply, verb: Verb, reason: &str) -> Result<(), SendError> {
    if reply.is_wanted() {
        return reply.send(reason);
    }
    emit(&reply.socket, "refused", &json!({"event": verb.name(), "reason": reason}))
}

/// The connection has ended.
struct Gone;

async fn attend(socket: &SocketRef, service: &Behind, caller: Caller, asking: &Asking) -> Result<(), Gone> {
    failpoint::trip("session-begun");
    let mut client = service.hub.connect(transport(socket));
    let mut admitted = Admitted::new(&service.guard, caller);
    if let Some(own) = admitted.own_channel() {
        Box::pin(hear_own_channel(socket, service, &mut client, own)).await?;
    }
    Box::pin(greet(socket, service)).await?;
    loop {
        client.moved_to(transport(socket));
        tokio::select! {
            asked = asking.next() => {
                let Asked { verb, wish, reply, bytes } = asked;
                let done = match wish {
                    Ok(Wish::SendBack(argument)) => {
                        Box::pin(send(|| send_back(socket, &argument))).await?;
                        Ok(())
                    }
                    Ok(wish) => {
                        let doing = Box::pin(carry_out(service, &mut client, &mut admitted, wish));
                        let done = incidents::caught(verb.view(), doing).await;
                        done.unwrap_or_else(|panic| Err(defect(panic)))
                    }
                    Err(reason) => Err(reason),
                };
                match done {
                    Ok(()) => send(|| reply.send("ok")).await?,
                    Err(reason) => send(|| refuse(&reply, verb, &reason)).await?,
                }
                asking.done(bytes);
            }
            frame = client.next() => match frame {
                Some(frame) => send(|| tell(socket, &frame)).await?,
                // The service stops.
                None => return Err(Gone),
            },
            change = admitted.changed() => Box::pin(change_of(socket, &mut client, change)).await?,
            () = may_have_moved(socket) => {}
        }
    }
}

async fn greet(socket: &Socket, service: &Behind) -> Result<(), Gone> {
    let welcome = json!({"instance": service.instance.to_string()});
    send(|| emit(socket, "welcome", &welcome)).await?;
    if service.demo {
        let greeting = Argument::Text(format!("hello from {}", service.instance));
        send(|| send_back(socket, &greeting)).await?;
    }
    Ok(())
}

/// Returns now and then, as long as it is not a WebSocket.
async fn may_have_moved(socket: &Socket) {
    match socket.transport_type() {
        TransportType::Polling => Box::pin(sleep(LOOK_EVERY)).await,
        TransportType::Websocket => pending().await,
    }
}

/// Who has a name is reached by it, without asking for it.
async fn hear_own_channel(socket: &Socket, service: &Behind, client: &mut Client, own: Channel) -> Result<(), Gone> {
    let Err(error) = client.subscribe(vec![own], &Terms::default()).await else { return Ok(()) };
    // It may ask for it again.
    let refused = json!({"event": Verb::Subscribe.name(), "reason": reason(service, &error)});
    send(|| emit(socket, "refused", &refused)).await
}

/// Rights have gone, or nobody wants anything.
async fn change_of(socket: &SocketRef, client: &mut Client, change: Change) -> Result<(), Gone> {
    let (event, reason) = match change {
        Change::Refused(channels) => {
            for channel in channels {
                client.unsubscribe(&channel);
                let refused = json!({"event": Verb::Subscribe.name(), "reason": not_heard(&channel)});
                send(|| emit(socket, "refused", &refused)).await?;
            }
            return Ok(());
        }
        Change::Ended(denied) => ("connect", denied.to_string()),
        Change::Idle(idle) => ("idle", format!("subscribed to nothing for {} s", idle.as_secs_f64())),
    };
    send(|| emit(socket, "refused", &json!({"event": event, "reason": reason}))).await?;
    // One that is told so by the service does not come back by itself.
    send(|| match SocketRef::clone(socket).disconnect() {
        Err(SocketError::InternalChannelFull) => Err(SocketError::InternalChannelFull.into()),
        _ => Ok(()),
    })
    .await?;
    Err(Gone)
}

fn transport(socket: &Socket) -> Transport {
    match socket.transport_type() {
        TransportType::Polling => Transport::Polling,
        TransportType::Websocket => Transport::Websocket,
    }
}

/// Waits for room and sends.
async fn send(send: impl Fn() -> Result<(), SendError>) -> Result<(), Gone> {
    let mut pause = None;
    loop {
        match send() {
            Ok(()) => return Ok(()),
            Err(SendError::Socket(SocketError::Closed)) => return Err(Gone),
            // Nothing of ours cannot be written as JSON, so that one, too, says that there is no room.
            Err(SendError::Socket(SocketError::InternalChannelFull) | SendError::Serialize(_)) => {}
        }
        match pause {
            // Whoever empties it may only wait for its turn.
            None => yield_now().await,
            Some(pause) => Box::pin(sleep(pause)).await,
        }
        pause = Some(pause.map_or(PAUSE_MIN, |pause| (2 * pause).min(PAUSE_MAX)));
    }
}

/// # Errors
/// Why not, for the client.
async fn carry_out(service: &Behind, client: &mut Client, admitted: &mut Admitted, wish: Wish) -> Result<(), String> {
    failpoint::trip("event-begun");
    match wish {
        Wish::Subscribe(channels, terms) => {
            admitted.may_hear(&channels)?;
            let subscribed = client.subscribe(channels.clone(), &terms).await;
            subscribed.map_err(|error| reason(service, &error))?;
            admitted.joined(channels);
        }
        Wish::Unsubscribe(channels) => {
            admitted.may_hear(&channels)?;
            for channel in &channels {
                client.unsubscribe(channel);
            }
            admitted.left(&channels);
        }
        Wish::Publish(channel, message) => {
            admitted.may_publish(&channel)?;
            service.hub.publish(&channel, message).await.map_err(|error| reason(service, &error))?;
        }
        // Is the connection's own affair.
        Wish::SendBack(_) => {}
    }
    Ok(())
}

/// Told to the client whose event has failed by a panic.
fn defect(Caught(id): Caught) -> String {
    let id = id.unwrap_or_default();
    format!("the service has a defect; it is logged as error {id}. Whether this was done is not known")
}

/// In the words of the answers to requests.
fn reason(service: &Behind, error: &LiveError) -> String {
    with_the_sink(failed(error), &service.nodes).detail().to_owned()
}
