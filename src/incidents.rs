//! Unexpected errors and panics, noticed wherever they happen: what becomes a row of the error log.
//!
//! A layer of the log and a hook for panics (`incidents/notice.rs`) see everything, so that nobody has to remember;
//! `incidents/context.rs` knows on behalf of which request or task it happened. Rows wait here until `errorlog.rs`
//! takes them to the store. Guarantees: noticing never waits and never fails; the same error is one row, counted; at
//! most [`MAX_WAITING`] rows wait, what is beyond is counted and dropped. What a client does wrong is none.

mod context;
mod notice;

pub use context::{
    Caught, Context, blocking, carried, caught, caught_now, spawn, spawn_kept_alive, within, within_now,
};
pub use notice::{Noticing, catch_panics, last_panic};

use crate::clock::Clock;
use crate::stats::Millis;
use crate::telemetry::metrics;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use xxhash_rust::xxh3::Xxh3;

/// Rows that wait to be stored: as many as the log in the store has.
pub const MAX_WAITING: usize = 1_000;
/// Characters of a message that are kept: a sentence with an address and a path in it.
const MAX_MESSAGE_CHARS: usize = 500;

/// What kind of error it is; the order is that of [`metrics::ERROR_CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Panic,
    /// The store is away, or has refused or lost something.
    Store,
    Sink,
    Rollover,
    Live,
    Http,
    Other,
}

impl Class {
    #[must_use]
    pub fn name(self) -> &'static str {
        metrics::ERROR_CLASSES[self as usize]
    }
}

/// One row: an error, however often it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Of view, class, place and message, so that it is the same on every instance.
    pub id: String,
    /// The route of a request, or the name of a task.
    pub view: String,
    pub class: String,
    /// Bounded, without control characters.
    pub message: String,
    /// File and line.
    pub place: String,
    /// Of the last time, if it was in a request.
    pub request_id: Option<String>,
    /// Of the last time.
    pub instance: String,
    pub count: u64,
    pub first_seen: Millis,
    pub last_seen: Millis,
}

impl Incident {
    /// Adds what was seen of the same error elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.first_seen = self.first_seen.min(other.first_seen);
        if other.last_seen >= self.last_seen {
            self.last_seen = other.last_seen;
            self.instance.clone_from(&other.instance);
            self.request_id.clone_from(&other.request_id);
        }
    }
}

/// By their ids.
static WAITING: LazyLock<Mutex<HashMap<String, Incident>>> = LazyLock::new(Mutex::default);
static ARRIVED: Notify = Notify::const_new();

fn waiting() -> MutexGuard<'static, HashMap<String, Incident>> {
    // A panic is what is noted here: it must not be the end of noting.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes an error of a request or task; returns the id of its row. Costs less than a line of the log.
pub fn note_in(context: Context, class: Class, message: &str, place: &str) -> String {
    let message = printable(message);
    let id = id(&context.view, class, place, &message);
    let now = Clock::System.now();
    let seen = Incident {
        id: id.clone(),
        view: context.view.to_string(),
        class: class.name().to_owned(),
        message,
        place: place.to_owned(),
        request_id: context.request_id.map(|id| id.to_string()),
        instance: String::new(),
        count: 1,
        first_seen: now,
        last_seen: now,
    };
    metrics::error(class as usize);
    add(seen);
    ARRIVED.notify_one();
    id
}

/// Adds a row to those that wait.
fn add(seen: Incident) {
    let mut waiting = waiting();
    if let Some(known) = waiting.get_mut(&seen.id) {
        known.merge(&seen);
    } else if waiting.len() < MAX_WAITING {
        waiting.insert(seen.id.clone(), seen);
    } else {
        metrics::error_dropped();
    }
}

/// Returns when something waits that was noted since the last call returned.
pub async fn arrived() {
    ARRIVED.notified().await;
}

/// What waits.
#[must_use]
pub fn look() -> Vec<Incident> {
    waiting().values().cloned().collect()
}

/// What waits, to be stored.
#[must_use]
pub fn take() -> Vec<Incident> {
    std::mem::take(&mut *waiting()).into_values().collect()
}

/// Puts back what could not be stored.
pub fn put_back(rows: Vec<Incident>) {
    rows.into_iter().for_each(add);
}

fn id(view: &str, class: Class, place: &str, message: &str) -> String {
    let mut hash = Xxh3::new();
    for part in [view, class.name(), place, message] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    format!("{:016x}", hash.digest())
}

/// One line, of a bounded length.
fn printable(message: &str) -> String {
    let mut text = String::with_capacity(message.len().min(MAX_MESSAGE_CHARS));
    for (i, c) in message.chars().enumerate() {
        if i == MAX_MESSAGE_CHARS {
            text.push('\u{2026}');
            break;
        }
        // The marks that turn the direction of a line would let it be read as another one.
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            write!(text, "{}", c.escape_default()).expect("a text takes everything");
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, last_seen: Millis) -> Incident {
        Incident {
            id: id.to_owned(),
            view: "/v1/state".to_owned(),
            class: "panic".to_owned(),
            message: "a defect".to_owned(),
            place: "src/a.rs:1".to_owned(),
            request_id: Some(format!("r{last_seen}")),
            instance: format!("i{last_seen}"),
            count: 2,
            first_seen: last_seen - 1,
            last_seen,
        }
    }

    #[test]
    fn the_same_error_is_counted_and_its_newest_sight_kept() {
        for [a, b] in [[5, 9], [9, 5]] {
            let mut row = seen("x", a);
            row.merge(&seen("x", b));
            assert_eq!((row.count, row.first_seen, row.last_seen), (4, 4, 9));
            assert_eq!((&*row.instance, row.request_id.as_deref()), ("i9", Some("r9")));
        }
    }

    #[test]
    fn messages_are_one_bounded_line() {
        assert_eq!(printable("two\nlines\u{1b}[31m, \u{202e}z\u{f6}"), "two\\nlines\\u{1b}[31m, \\u{202e}z\u{f6}");
        let long = printable(&"\u{f6}".repeat(MAX_MESSAGE_CHARS + 1));
        assert_eq!(long.chars().count(), MAX_MESSAGE_CHARS + 1);
        assert!(long.ends_with('\u{2026}'));
    }

    #[test]
    fn an_id_is_of_all_that_tells_errors_apart() {
        let first = id("/v1/state", Class::Panic, "a:1", "x");
        assert_eq!(first, id("/v1/state", Class::Panic, "a:1", "x"));
        let others = [
            id("/v1/stats", Class::Panic, "a:1", "x"),
            id("/v1/state", Class::Store, "a:1", "x"),
            id("/v1/state", Class::Panic, "a:2", "x"),
            id("/v1/state", Class::Panic, "a:1", "y"),
            id("/v1/statea:1", Class::Panic, "", "x"),
        ];
        assert!(others.iter().all(|other| *other != first), "{others:?}");
    }

    #[test]
    fn what_waits_is_bounded() {
        for i in 0..2 * MAX_WAITING {
            add(seen(&format!("bounded-{i}"), 1));
        }
        // Counted though there is no room for another row.
        add(seen("bounded-0", 7));
        let rows = take();
        assert_eq!(rows.len(), MAX_WAITING);
        let first = rows.iter().find(|row| row.id == "bounded-0").unwrap();
        assert_eq!((first.count, first.last_seen), (4, 7));
    }
}
