//! A client of `GET /v1/stream` that judges nothing: events as they came.
//!
//! Used by `live.rs`. It reads only when it is asked to, so that a test can be a slow client.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any event takes; heartbeats come more often.
const PATIENCE: Duration = Duration::from_mins(1);

/// Signs of life, 15 s apart, before an event that is to come.
const HEARTBEATS: usize = 5;

pub(crate) struct Events {
    stream: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Events {
    /// Listens to channels, encoded already, and returns when the service hears them.
    #[track_caller]
    pub(crate) fn of(url: &str, channels: &[&str]) -> Self {
        Self::asked(url, channels, "")
    }

    /// The same, behind the event with this id.
    #[track_caller]
    pub(crate) fn after(url: &str, channels: &[&str], id: &str) -> Self {
        Self::asked(url, channels, &format!("Last-Event-ID: {id}\r\n"))
    }

    #[track_caller]
    fn asked(url: &str, channels: &[&str], header: &str) -> Self {
        let address = url.strip_prefix("http://").expect("an address");
        let (host, below) = address.split_at(address.find('/').unwrap_or(address.len()));
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let query = channels.iter().map(|channel| format!("channel={channel}")).collect::<Vec<_>>().join("&");
        // To HTTP/1.0 a stream is answered as it is, without chunks.
        write!(stream, "GET {below}/v1/stream?{query} HTTP/1.0\r\n{header}\r\n").unwrap();
        let mut events = Self { stream: BufReader::new(stream) };
        let head = events.block();
        assert!(head[0].contains(" 200 "), "{head:?}");
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")), "{head:?}");
        let welcome = events.next().expect("an event");
        assert_eq!(welcome.name, "welcome");
        events
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        for _ in 0..HEARTBEATS {
            let lines = self.block();
            let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            match (field("event"), field("data")) {
                (Some(name), Some(data)) => {
                    let id = field("id").map(str::to_owned);
                    return Some(Event { name: name.to_owned(), id, data: serde_json::from_str(data).unwrap() });
                }
                _ if lines.is_empty() => return None,
                // A sign of life.
                _ => assert!(lines.iter().all(|line| line.starts_with(':')), "{lines:?}"),
            }
        }
        panic!("waited in vain for an event");
    }

    /// The text of the next message of a channel; nothing else may come.
    #[track_caller]
    pub(crate) fn message(&mut self, channel: &str) -> String {
        let event = self.next().expect("an event");
        assert_eq!((event.name.as_str(), event.data["channel"].as_str()), ("message", Some(channel)), "{event:?}");
        event.data["message"].as_str().unwrap().to_owned()
    }

    /// Lines up to the next empty one, which is left out; none at the end.
    fn block(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line).expect("something within a minute");
            let line = line.trim_end();
            if line.is_empty() {
                if read == 0 || !lines.is_empty() {
                    return lines;
                }
                continue;
            }
            lines.push(line.to_owned());
        }
    }
}
