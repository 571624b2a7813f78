//! What a client of Socket.IO says: the arguments of its events, and its wish for an answer.
//!
//! Used by `session.rs`. Names and sizes are checked here, before anything waits for its turn; a refusal is a
//! sentence for the person who writes the client.

use super::telling::{escaped, is_escaped};
use crate::http::publish::MAX_MESSAGE_BYTES;
use crate::live::channel::Channel;
use crate::live::{MAX_CHANNELS, Pace, PaceError, Terms};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use socketioxide::SendError;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, Data};
use socketioxide::handler::{FromMessage, FromMessageParts, Value};
use socketioxide::socket::Socket;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

/// The events of clients that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Subscribe,
    Unsubscribe,
    Publish,
    /// To be sent back; only in demo mode.
    Message,
}

impl Verb {
    pub(super) const ALL: [Self; 4] = [Self::Subscribe, Self::Unsubscribe, Self::Publish, Self::Message];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Message => "message",
        }
    }

    /// The name of its handling in the error log.
    pub(super) fn view(self) -> &'static str {
        match self {
            Self::Subscribe => "socket event subscribe",
            Self::Unsubscribe => "socket event unsubscribe",
            Self::Publish => "socket event publish",
            Self::Message => "socket event message",
        }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Subscribe(Vec<Channel>, Terms),
    Unsubscribe(Vec<Channel>),
    Publish(Channel, Bytes),
    SendBack(Argument),
}

impl Wish {
    /// What an event with these arguments asks for.
    ///
    /// # Errors
    /// If it cannot be understood, or would be refused in any case: why.
    pub(super) fn read(verb: Verb, arguments: Arguments) -> Result<Self, String> {
        let mut arguments = arguments.0.into_iter();
        let first = arguments.next();
        let name = |first: Option<Argument>| first.ok_or("the name of a channel is missing");
        match verb {
            Verb::Subscribe => {
                let (channels, terms) = channels(name(first)?)?;
                Ok(Self::Subscribe(channels, terms))
            }
            Verb::Unsubscribe => Ok(Self::Unsubscribe(channels(name(first)?)?.0)),
            Verb::Message => Ok(Self::SendBack(first.ok_or("the message is missing")?)),
            Verb::Publish => {
                let Argument::Text(name) = name(first)? else { return Err(NOT_A_NAME.to_owned()) };
                let channel = Channel::published(&name).map_err(|error| format!("\"{name}\": {error}"))?;
                let message = arguments.next().ok_or("the message is missing")?.into_bytes();
                if message.len() > MAX_MESSAGE_BYTES {
                    return Err(format!("a message has at most {} KiB", MAX_MESSAGE_BYTES / 1024));
                }
                Ok(Self::Publish(channel, message))
            }
        }
    }
}

const NOT_A_NAME: &str = "the first argument is the name of a channel";

/// A name, several, or an object that says more.
fn channels(argument: Argument) -> Result<(Vec<Channel>, Terms), String> {
    let (names, terms) = match argument {
        Argument::Text(name) => (vec![name], Terms::default()),
        Argument::Json(Json::Object(mut object)) => {
            let names = names(object.remove("channel").unwrap_or_default())?;
            let terms = terms(&mut object)?;
            if let Some(other) = object.keys().next() {
                return Err(format!("\"{other}\" is not known here: there are channel, since and rate_ms"));
            }
            (names, terms)
        }
        Argument::Json(json) => (names(json)?, Terms::default()),
        Argument::Binary(_) => return Err(NOT_A_NAME.to_owned()),
    };
    if names.len() > MAX_CHANNELS {
        return Err(format!("a client may subscribe to {MAX_CHANNELS} channels"));
    }
    let channel = |name: &String| Channel::subscribed(name).map_err(|error| format!("\"{name}\": {error}"));
    Ok((names.iter().map(channel).collect::<Result<_, _>>()?, terms))
}

/// How channels are wanted; takes what says it out of the object.
fn terms(object: &mut Map<String, Json>) -> Result<Terms, String> {
    let since = match object.remove("since") {
        None | Some(Json::Null) => None,
        Some(Json::String(id)) => Some(id.parse().map_err(|error| format!("since: \"{id}\": {error}"))?),
        Some(_) => return Err("since is the id of a closed event, as a text".to_owned()),
    };
    let pace = match object.remove("rate_ms") {
        None | Some(Json::Null) => None,
        Some(rate) => {
            let pace = rate.as_u64().ok_or(PaceError).and_then(Pace::of_millis);
            Some(pace.map_err(|error| format!("rate_ms: {rate}: {error}"))?)
        }
    };
    Ok(Terms { since, pace })
}

fn names(json: Json) -> Result<Vec<String>, String> {
    match json {
        Json::String(name) => Ok(vec![name]),
        Json::Array(names) => {
            names.into_iter().map(|name| serde_json::from_value(name).map_err(|_| NOT_A_NAME.to_owned())).collect()
        }
        _ => Err(NOT_A_NAME.to_owned()),
    }
}

/// One argument of an event.
#[derive(Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
pub(super) enum Argument {
    Text(String),
    Json(Json),
    Binary(Bytes),
}

impl Argument {
    /// As a message; what is neither text nor binary goes as JSON.
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into(),
            Self::Json(json) => json.to_string().into(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// All arguments of an event.
#[derive(Debug)]
pub(super) struct Arguments(Vec<Argument>);

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Arguments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the arguments of an event")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Arguments, A::Error> {
                let mut arguments = Vec::new();
                while let Some(argument) = sequence.next_element()? {
                    arguments.push(argument);
                }
                Ok(Arguments(arguments))
            }
        }
        // A tuple is what the library gives all of them to, however many they are; others get the first.
        deserializer.deserialize_tuple(1, All)
    }
}

/// An event as it came.
pub(super) struct Arrived {
    /// `None` if it is not what the protocol allows.
    pub(super) arguments: Option<Arguments>,
    /// Bytes it takes up.
    pub(super) bytes: usize,
    pub(super) reply: Reply,
}

impl FromMessage<LocalAdapter> for Arrived {
    type Error = Infallible;

    fn from_message(socket: Arc<Socket>, mut value: Value, ack: Option<i64>) -> Result<Self, Infallible> {
        let bytes = match &value {
            Value::Str(text, binaries) => text.len() + binaries.iter().flatten().map(Bytes::len).sum::<usize>(),
            Value::Bytes(bytes) => bytes.len(),
        };
        let arguments = Data::from_message_parts(&socket, &mut value, &ack).ok().map(|Data(arguments)| arguments);
        Ok(Self { arguments, bytes, reply: Reply { socket, ack } })
    }
}

/// Where the answer to an event goes, if one is wanted.
pub(super) struct Reply {
    pub(super) socket: Arc<Socket>,
    ack: Option<i64>,
}

impl Reply {
    pub(super) fn is_wanted(&self) -> bool {
        self.ack.is_some()
    }

    /// Answers, if there is room; so it may be tried again.
    pub(super) fn send(&self, text: &str) -> Result<(), SendError> {
        let mut nothing = Value::Bytes(Bytes::new());
        let Ok(ack) = AckSender::from_message_parts(&self.socket, &mut nothing, &self.ack);
        if is_escaped(&self.socket) { ack.send(&escaped(text)) } else { ack.send(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(verb: Verb, arguments: Json) -> Result<Wish, String> {
        Wish::read(verb, serde_json::from_value(arguments).unwrap())
    }

    #[test]
    fn channels_are_named_in_several_ways() {
        let named = |names: &[&str]| names.iter().map(|name| Channel::subscribed(name).unwrap()).collect::<Vec<_>>();
        let check = |argument: Json, names: &[&str], since: Option<&str>, rate: Option<u64>| {
            let since = since.map(|id| id.parse().unwrap());
            let terms = Terms { since, pace: rate.map(|millis| Pace::of_millis(millis).unwrap()) };
            assert_eq!(read(Verb::Subscribe, json!([argument])), Ok(Wish::Subscribe(named(names), terms)));
            assert_eq!(read(Verb::Unsubscribe, json!([argument])), Ok(Wish::Unsubscribe(named(names))));
        };
        check(json!("my channel"), &["my channel"], None, None);
        check(json!(["a", "live:b"]), &["a", "live:b"], None, None);
        check(json!({"channel": "closed:a", "since": "1.2.a"}), &["closed:a"], Some("1.2.a"), None);
        check(json!({"channel": ["a", "closed:*"], "since": null}), &["a", "closed:*"], None, None);
        check(json!({"channel": "live:a", "rate_ms": 1_000}), &["live:a"], None, Some(1_000));
        check(json!({"channel": "live:a", "rate_ms": 0}), &["live:a"], None, Some(250));
    }

    #[test]
    fn messages_are_text_or_bytes_or_json() {
        let check = |message: Json, bytes: &str| {
            let wish = Wish::Publish(Channel::published("a").unwrap(), bytes.to_owned().into());
            assert_eq!(read(Verb::Publish, json!(["a", message])), Ok(wish));
        };
        check(json!("zw\u{f6}lf"), "zw\u{f6}lf");
        check(json!(["a", 1]), r#"["a",1]"#);
        check(json!({"a": 1.5}), r#"{"a":1.5}"#);
        check(json!(null), "null");
    }

    #[test]
    fn what_is_refused_says_why() {
        let check = |verb: Verb, arguments: Json, part: &str| {
            let refused = read(verb, arguments.clone()).unwrap_err();
            assert!(refused.contains(part), "{arguments}: {refused}");
        };
        check(Verb::Subscribe, json!([]), "missing");
        check(Verb::Subscribe, json!([""]), "a channel has a name");
        check(Verb::Subscribe, json!([["a", 1]]), NOT_A_NAME);
        check(Verb::Subscribe, json!([5]), NOT_A_NAME);
        check(Verb::Subscribe, json!([{"since": "1.2.a"}]), NOT_A_NAME);
        check(Verb::Subscribe, json!([{"channel": "a", "since": "now"}]), "not the id of an event");
        check(Verb::Subscribe, json!([{"channel": "a", "rate": 1}]), "\"rate\" is not known");
        for rate in [json!(-1), json!(1.5), json!("1000"), json!(3_600_001)] {
            let argument = json!([{"channel": "live:a", "rate_ms": rate}]);
            check(Verb::Subscribe, argument, "a number of milliseconds, at most 3600000");
        }
        check(Verb::Subscribe, json!([vec!["a"; MAX_CHANNELS + 1]]), "100 channels");
        check(Verb::Publish, json!([["a"], "x"]), NOT_A_NAME);
        check(Verb::Publish, json!(["live:a", "x"]), "the service's own");
        check(Verb::Publish, json!(["a"]), "the message is missing");
        check(Verb::Publish, json!(["a", "x".repeat(MAX_MESSAGE_BYTES + 1)]), "at most 64 KiB");
        assert!(read(Verb::Publish, json!(["a", "x".repeat(MAX_MESSAGE_BYTES)])).is_ok());
    }
}
