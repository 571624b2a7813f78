//! What a client of Socket.IO is told: frames of its channels as events.
//!
//! Used by `session.rs`. `message` has what was published as its first argument, a text where it is UTF-8 and else
//! binary, and its channel as the second; all others have one object. Clients of Engine.IO 3 that ask by one
//! request after the other do not agree among themselves on how other characters than ASCII are sent, so these go
//! escaped to them; and the library does not get bytes through to them.

use super::asking::Argument;
use crate::live::outbox::{Body, Frame};
use crate::stats::{Millis, timestamp};
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::socket::Socket;
use socketioxide::{ProtocolVersion, SendError, TransportType};
use std::fmt::Write;

/// Sends a frame, if there is room; so it may be tried again.
pub(super) fn tell(socket: &Socket, frame: &Frame) -> Result<(), SendError> {
    let channel = &*frame.channel;
    let json = || frame.json.get_or_init(|| json(&frame.body)).as_deref();
    match &frame.body {
        Body::Message(message) if is_escaped(socket) => {
            let text = String::from_utf8_lossy(message);
            put(socket, "message", &(escaped(&*text), escaped(channel)))
        }
        Body::Message(message) => match json() {
            Some(text) => put(socket, "message", &(text, channel)),
            None => put(socket, "message", &(message, channel)),
        },
        Body::Live(_) => emit(socket, "live", &Live { channel, rows: json() }),
        Body::Closed { position, .. } => emit(socket, "closed", &Closed { channel, row: json(), id: position }),
        Body::Silence { source, since, so_long, back } => {
            let said = Silence { channel, source, since: timestamp::format(*since), for_ms: *so_long };
            emit(socket, if *back { "back" } else { "silent" }, &said)
        }
        Body::Recovered(recovered) => emit(socket, "recovered", &Recovered { channel, recovered: *recovered }),
        Body::Gap(missed) => emit(socket, "gap", &Gap { channel, missed: (*missed > 0).then_some(*missed) }),
    }
}

/// Sends a client a message of its own again, as it came.
pub(super) fn send_back(socket: &Socket, argument: &Argument) -> Result<(), SendError> {
    match argument {
        Argument::Binary(bytes) if is_escaped(socket) => emit(socket, "message", &String::from_utf8_lossy(bytes)),
        argument => emit(socket, "message", argument),
    }
}

/// The part of a frame that takes time to write: once for all who are told.
fn json(body: &Body) -> Option<Box<RawValue>> {
    match body {
        Body::Message(message) => {
            let text = std::str::from_utf8(message).ok()?;
            Some(to_raw_value(text).expect("a text has a form in JSON"))
        }
        Body::Live(rows) => Some(serde_json::from_slice(rows).expect("rows are JSON")),
        Body::Closed { row, .. } => {
            let row = row.strip_prefix(b"[").and_then(|row| row.strip_suffix(b"]")).expect("an array of one");
            Some(serde_json::from_slice(row).expect("rows are JSON"))
        }
        Body::Silence { .. } | Body::Recovered(_) | Body::Gap(_) => None,
    }
}

/// Sends an event with one argument, if there is room.
pub(super) fn emit<T: Serialize>(socket: &Socket, event: &str, argument: &T) -> Result<(), SendError> {
    if is_escaped(socket) { put(socket, event, &escaped(argument)) } else { put(socket, event, argument) }
}

/// Sends an event if there is room for two, so that one place is left for answers and for the library's own packets:
/// it closes a connection for whose sign of life there is none.
fn put<T: Serialize>(socket: &Socket, event: &str, arguments: &T) -> Result<(), SendError> {
    socket.emit(event, &Sparing { socket, arguments })
}

/// Arguments that cannot be written if there is no place but theirs, which the library takes before it writes them.
struct Sparing<'a, T> {
    socket: &'a Socket,
    arguments: &'a T,
}

impl<T: Serialize> Serialize for Sparing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.socket.emit("", &Unwritable) {
            Err(SendError::Socket(error)) => Err(S::Error::custom(error)),
            _ => self.arguments.serialize(serializer),
        }
    }
}

/// Takes a place and gives it back.
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        // Nobody reads why, and words would have to be made for every message.
        Err(S::Error::custom(""))
    }
}

/// Whether this client gets ASCII alone.
pub(super) fn is_escaped(socket: &Socket) -> bool {
    socket.protocol() == ProtocolVersion::V4 && socket.transport_type() == TransportType::Polling
}

/// As JSON of ASCII characters.
pub(super) fn escaped<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    let json = to_raw_value(value).expect("it has a form in JSON");
    if json.get().is_ascii() {
        return json;
    }
    let mut ascii = String::with_capacity(2 * json.get().len());
    for c in json.get().chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            // Others stand in texts only.
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(ascii, "\\u{unit:04x}").expect("a text takes everything");
            }
        }
    }
    RawValue::from_string(ascii).expect("still JSON")
}

#[derive(Serialize)]
struct Live<'a> {
    channel: &'a str,
    rows: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Closed<'a> {
    channel: &'a str,
    row: Option<&'a RawValue>,
    id: &'a str,
}

#[derive(Serialize)]
struct Silence<'a> {
    channel: &'a str,
    source: &'a str,
    since: String,
    for_ms: Millis,
}

#[derive(Serialize)]
struct Recovered<'a> {
    channel: &'a str,
    recovered: bool,
}

#[derive(Serialize)]
struct Gap<'a> {
    channel: &'a str,
    missed: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_read_back() {
        for text in ["", "plain \"quotes\"\n", "zw\u{f6}lf", "\u{20ac}\u{1f600}\u{ffff}"] {
            let json = escaped(text);
            assert!(json.get().is_ascii(), "{json}");
            assert_eq!(serde_json::from_str::<String>(json.get()).unwrap(), text);
        }
    }
}
