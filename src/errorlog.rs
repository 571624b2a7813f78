//! The error log: brings what was noticed to the store, and answers who asks for it.
//!
//! Started by `app.rs`, asked by `http/errors.rs`; what is noticed, and how, is in `incidents.rs`. Guarantees: a row is
//! in the store at most a second after it was noticed, unless the store is away: then it waits in the process, is
//! listed all the same, and goes to the store when that is back. Nothing waits for this: not an answer, not a reading.

use crate::incidents::{self, Incident};
use crate::stats::Millis;
use crate::store::StoreError;
use crate::store::errors::ErrorLog as Kept;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

/// Between two writes: an error that comes by the thousand costs the store one call a second.
const EVERY: Duration = Duration::from_secs(1);
/// While the store is away.
const EVERY_AWAY: Duration = Duration::from_secs(5);
/// For the last errors of a process, which may be those it ends for.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// Rows of one call: less than 1 ms of Redis.
const ROWS: usize = 100;

/// See the module.
pub struct ErrorLog {
    store: Arc<dyn Kept>,
    instance: String,
    /// One at a time takes what waits, so that what could not be written is back before the next looks.
    writing: Mutex<()>,
}

/// Which rows are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub view: Option<String>,
    /// Seen at this time or later.
    pub from: Option<Millis>,
    /// Seen before this time.
    pub to: Option<Millis>,
    /// Stands in the view, the class or the message, in letters of either case.
    pub text: Option<String>,
}

impl Filter {
    fn takes(&self, row: &Incident) -> bool {
        let has = |text: &String| {
            let text = text.to_lowercase();
            [&row.view, &row.class, &row.message].iter().any(|part| part.to_lowercase().contains(&text))
        };
        self.view.as_ref().is_none_or(|view| row.view == *view)
            && self.from.is_none_or(|from| row.last_seen >= from)
            && self.to.is_none_or(|to| row.first_seen < to)
            && self.text.as_ref().is_none_or(has)
    }
}

/// A place in the list: when a row was last seen, and its id.
pub type Place = (Millis, String);

/// Some rows, those seen last first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub rows: Vec<Incident>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Place>,
    /// The store could not be read: these are only the rows that wait in this process.
    pub partial: bool,
}

impl ErrorLog {
    #[must_use]
    pub fn new(store: Arc<dyn Kept>, instance: String) -> Arc<Self> {
        Arc::new(Self { store, instance, writing: Mutex::default() })
    }

    /// Brings to the store what is noticed, until dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            incidents::arrived().await;
            // What comes together is written together.
            sleep(EVERY).await;
            while let Err(error) = self.write().await {
                tracing::debug!("the error log waits in the process: {error}");
                sleep(EVERY_AWAY).await;
            }
        }
    }

    /// Brings the last rows to the store, if it takes them at once: what the process ends for is among them.
    pub async fn finish(&self) {
        // Otherwise they are in the log alone.
        let _ = timeout(LAST_WITHIN, self.write()).await;
    }

    async fn write(&self) -> Result<(), StoreError> {
        let _alone = self.writing.lock().await;
        let mut waiting = Waiting(incidents::take());
        waiting
            .0
            .iter_mut()
            .filter(|row| row.instance.is_empty())
            .for_each(|row| row.instance.clone_from(&self.instance));
        while !waiting.0.is_empty() {
            let first = waiting.0.len().saturating_sub(ROWS);
            self.store.note_errors(&waiting.0[first..]).await?;
            waiting.0.truncate(first);
        }
        Ok(())
    }

    /// The rows a filter takes, at most `limit`, behind a place.
    pub async fn page(&self, filter: &Filter, behind: Option<&Place>, limit: usize) -> Page {
        // Locked, so that no row is on its way from here to there.
        let (waiting, stored) = {
            let _alone = self.writing.lock().await;
            (incidents::look(), self.store.errors().await)
        };
        let partial = stored.is_err();
        let mut rows: HashMap<String, Incident> = HashMap::new();
        for mut row in stored.unwrap_or_default().into_iter().chain(waiting) {
            if row.instance.is_empty() {
                row.instance.clone_from(&self.instance);
            }
            rows.entry(row.id.clone()).and_modify(|known| known.merge(&row)).or_insert(row);
        }
        let place = |row: &Incident| (row.last_seen, row.id.clone());
        let mut rows: Vec<Incident> = rows.into_values().filter(|row| filter.takes(row)).collect();
        rows.retain(|row| behind.is_none_or(|behind| place(row) < *behind));
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(place(row)));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(place);
        Page { rows, next, partial }
    }
}

/// Rows on their way; those that are not there when this ends go back.
struct Waiting(Vec<Incident>);

impl Drop for Waiting {
    fn drop(&mut self) {
        incidents::put_back(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, first_seen: Millis, last_seen: Millis) -> Incident {
        let (view, class) = ("/v1/state".to_owned(), "panic".to_owned());
        let (message, place) = ("The Sky falls".to_owned(), "src/a.rs:1".to_owned());
        let (instance, request_id) = ("i".to_owned(), None);
        Incident { id: id.into(), view, class, message, place, request_id, instance, count: 1, first_seen, last_seen }
    }

    #[test]
    fn filters() {
        let check =
            |filter: Filter, expected: bool| assert_eq!(filter.takes(&row("a", 10, 20)), expected, "{filter:?}");
        let (of_view, of_text) = (
            |view: &str| Filter { view: Some(view.to_owned()), ..Filter::default() },
            |text: &str| Filter { text: Some(text.to_owned()), ..Filter::default() },
        );
        let of_time = |from, to| Filter { from, to, ..Filter::default() };
        check(Filter::default(), true);
        check(of_view("/v1/state"), true);
        check(of_view("/v1/stat"), false);
        check(of_text("sky F"), true);
        check(of_text("PANIC"), true);
        check(of_text("v1/st"), true);
        check(of_text("a.rs"), false);
        // Seen from 10 to 20.
        check(of_time(Some(20), None), true);
        check(of_time(Some(21), None), false);
        check(of_time(None, Some(11)), true);
        check(of_time(None, Some(10)), false);
        check(of_time(Some(12), Some(15)), true);
    }
}
