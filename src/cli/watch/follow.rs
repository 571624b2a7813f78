//! Listens to the channels of the watched sources, and comes back when the connection breaks.
//!
//! Run by `watch.rs` in a thread of its own; what it hears goes into a channel as [`Update`]s. Guarantees: the last
//! buckets are asked for once all channels are heard, so that none is missed in between; after a break it goes on
//! behind the last event it has heard, and where the service cannot tell all that was missed, it asks for the last
//! buckets again. `events.rs` takes the stream apart.

use super::events::{Event, Parser};
use super::state::{KEPT, Row, Update};
use crate::cli::client::{Client, ClientError};
use crate::cli::{query, sources};
use crate::stats::calendar::{Calendar, Period};
use crate::stats::glob::escape;
use crate::stats::timestamp;
use serde::Deserialize;
use std::io::{ErrorKind, Read};
use std::sync::mpsc::{SendError, SyncSender};
use std::time::Duration;

/// The service says something every 15 s; who is silent for longer than two of these and a little is gone.
const SILENCE: Duration = Duration::from_secs(40);
/// Between two attempts, until the service has named another.
const PAUSE: Duration = Duration::from_secs(2);
/// What it may name, in milliseconds: not a loop, and not for ever.
const PAUSES: std::ops::RangeInclusive<u64> = 100..=30_000;
const BUFFER: usize = 16 << 10;

/// Nobody wants to know any more.
type Gone = SendError<Update>;

/// The buckets that are asked for beside the stream.
pub(super) struct History {
    pub calendar: Calendar,
    pub period: Period,
}

pub(super) struct Follower {
    client: Client,
    sources: Vec<String>,
    history: Option<History>,
    /// Of the last event that has one.
    last_id: Option<String>,
    /// Whether all sources have their history; without it breaks do not count.
    has_history: bool,
    was_connected: bool,
    pause: Duration,
}

/// What the events of the service hold; each has some of it.
#[derive(Deserialize)]
struct Data {
    channel: Option<String>,
    instance: Option<String>,
    rows: Option<Vec<Row>>,
    row: Option<Row>,
    recovered: Option<bool>,
    missed: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Page {
    rows: Vec<Row>,
    /// Either the store or the sink could not be asked.
    #[serde(default)]
    partial: bool,
    #[serde(default)]
    next: Option<String>,
}

/// Why a connection is over.
enum End {
    Gone,
    Broken(String),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Follower {
    /// `history`: which of the last buckets are wanted, if any.
    pub(super) fn new(client: Client, sources: Vec<String>, history: Option<History>) -> Self {
        let has_history = history.is_none();
        Self { client, sources, history, last_id: None, has_history, was_connected: false, pause: PAUSE }
    }

    /// Begins to listen, behind what was heard before.
    pub(super) fn connect(&self) -> Result<impl Read + Send + use<>, ClientError> {
        let channels =
            self.sources.iter().map(|id| escape(id)).flat_map(|id| [format!("live:{id}"), format!("closed:{id}")]);
        let channels: Vec<String> = channels.collect();
        let query: Vec<(&str, &str)> = channels.iter().map(|channel| ("channel", channel.as_str())).collect();
        let mut headers: Vec<(&str, &[u8])> = vec![("Accept", b"text/event-stream")];
        headers.extend(self.last_id.as_ref().map(|id| ("Last-Event-ID", id.as_bytes())));
        self.client.stream("/v1/stream", &query, &headers, SILENCE)
    }

    /// Tells of everything, beginning with a stream that was just connected, until nobody wants to know.
    pub(super) fn run(mut self, first: impl Read, updates: &SyncSender<Update>) {
        let mut end = self.listen(first, updates);
        while let End::Broken(reason) = end {
            if updates.send(Update::Lost { reason }).is_err() {
                return;
            }
            std::thread::sleep(self.pause);
            end = match self.connect() {
                Ok(stream) => self.listen(stream, updates),
                Err(error) => End::Broken(error.to_string()),
            };
        }
    }

    fn listen(&mut self, mut stream: impl Read, updates: &SyncSender<Update>) -> End {
        let mut parser = Parser::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => return End::Broken("the service has ended the stream".to_owned()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return End::Broken(format!("nothing came for {} s", SILENCE.as_secs()));
                }
                Err(error) => return End::Broken(error.to_string()),
            };
            let events = match parser.feed(&buffer[..read]) {
                Ok(events) => events,
                Err(error) => return End::Broken(error.to_string()),
            };
            if let Some(pause) = parser.retry {
                self.pause = Duration::from_millis(pause.clamp(*PAUSES.start(), *PAUSES.end()));
            }
            for event in events {
                if let Err(end) = self.tell(event, updates) {
                    return end;
                }
            }
        }
    }

    fn tell(&mut self, event: Event, updates: &SyncSender<Update>) -> Result<(), End> {
        let strange =
            |error: serde_json::Error| End::Broken(format!("an event \"{}\" is not one: {error}", event.name));
        let data: Data = serde_json::from_str(&event.data).map_err(strange)?;
        if event.name == "welcome" {
            updates.send(Update::Connected { instance: data.instance.unwrap_or_default() })?;
            if self.last_id.is_none() && self.was_connected {
                // The service does not know what was heard before, so it cannot say it.
                for source in self.sources.clone() {
                    updates.send(Update::Recovered { source, all: false })?;
                }
            }
            self.was_connected = true;
            if self.last_id.is_none() || !self.has_history {
                for source in self.sources.clone() {
                    self.tell_history(&source, updates)?;
                }
                self.has_history = true;
            }
            return Ok(());
        }
        let channel = data.channel.unwrap_or_default();
        let (kind, source) = channel.split_once(':').unwrap_or_default();
        let is_named = |id: &&String| *escape(id) == *source;
        let source = self.sources.iter().find(is_named).cloned().unwrap_or_else(|| source.to_owned());
        let update = match (event.name.as_str(), data.rows, data.row) {
            ("live", Some(rows), _) => Update::Present { source, rows },
            ("closed", _, Some(row)) => Update::Closed { source, row },
            ("recovered", ..) => Update::Recovered { source, all: data.recovered == Some(true) },
            ("gap", ..) if kind == "closed" => Update::Gap { source, missed: data.missed },
            // Of the present rows only the newest matter; what else there is belongs to a newer service.
            _ => return Ok(()),
        };
        let missing = match &update {
            Update::Recovered { source, all: false } | Update::Gap { source, .. } => Some(source.clone()),
            _ => None,
        };
        updates.send(update)?;
        if let Some(source) = missing {
            // Until it is there, what comes behind it must not count as heard.
            self.has_history = self.history.is_none();
            self.tell_history(&source, updates)?;
            self.has_history = true;
        }
        self.last_id = event.id.or(self.last_id.take());
        Ok(())
    }

    /// Asks for the last buckets of a source; one that nobody has heard of has none.
    fn tell_history(&self, source: &str, updates: &SyncSender<Update>) -> Result<(), End> {
        let Some(History { calendar, period }) = &self.history else { return Ok(()) };
        let broken = |error: ClientError| End::Broken(error.to_string());
        // An id is its own first completion in the order of ids.
        let listed = sources::page(&self.client, source, Some("1"), None).map_err(broken)?.sources;
        let listed = listed.iter().find(|listed| listed.source == source);
        let Some(last) = listed.and_then(|listed| timestamp::parse(&listed.last, calendar.zone())) else {
            return Ok(());
        };
        let from = timestamp::format(query::newest(calendar, *period, last, KEPT));
        let period = period.to_string();
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut asked = vec![("source", source), ("period", period.as_str()), ("from", from.as_str())];
            if !cursor.is_empty() {
                asked.push(("cursor", &cursor));
            }
            let page: Page = match self.client.get("/v1/stats", &asked) {
                Err(ClientError::Problem(problem)) if problem.status == 404 => Page::default(),
                answer => answer.map_err(broken)?,
            };
            if page.partial {
                return Err(End::Broken("the service cannot reach both its store and its sink".to_owned()));
            }
            rows.extend(page.rows);
            let Some(next) = page.next else { break };
            cursor = next;
        }
        updates.send(Update::History { source: source.to_owned(), rows })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
