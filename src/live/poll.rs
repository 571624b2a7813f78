//! Watches sources: reads their present rows a few times a second, once for all clients, and sends what changed.
//!
//! Run by the hub. Cost follows what is watched, not what is taken in: nothing is read for a source nobody
//! watches. What a client has missed is in the next rows.

use super::Hub;
use super::channel::Channel;
use super::outbox::{Body, Frame};
use crate::query::{MAX_SOURCES, QueryError, StatsRow};
use crate::stats::Millis;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Four times a second: what an eye can follow.
const EVERY: Duration = Duration::from_millis(250);
/// While the store or the sink is away.
const EVERY_AWAY: Duration = Duration::from_secs(5);

/// Until dropped.
pub(super) async fn run(hub: &Hub, now: impl Fn() -> Millis) {
    // The rows of each source as they were sent last; what has gone out of view is forgotten.
    let mut known: HashMap<Arc<str>, Vec<StatsRow>> = HashMap::new();
    loop {
        let mut watched = hub.watched_sources();
        if watched.is_empty() {
            known.clear();
            hub.watched.notified().await;
            continue;
        }
        watched.sort_unstable();
        known.retain(|source, _| watched.binary_search(source).is_ok());
        let mut pause = EVERY;
        for sources in watched.chunks(MAX_SOURCES) {
            match hub.query.current(sources, now()).await {
                Ok(rows) => send(hub, sources, rows, &mut known),
                Err(QueryError::Moving) => {}
                // Said where it happened; clients see the last rows until it is over.
                Err(_) => {
                    pause = EVERY_AWAY;
                    break;
                }
            }
        }
        sleep(pause).await;
    }
}

fn send(hub: &Hub, sources: &[Arc<str>], rows: Vec<StatsRow>, known: &mut HashMap<Arc<str>, Vec<StatsRow>>) {
    let mut by_source: HashMap<Arc<str>, Vec<StatsRow>> =
        sources.iter().map(|source| (Arc::clone(source), Vec::new())).collect();
    for row in rows {
        by_source.entry(Arc::clone(&row.source)).or_default().push(row);
    }
    for (source, rows) in by_source {
        // Between two looks all may have gone and others come, to whom nothing was sent.
        if known.get(&source) != Some(&rows) || hub.is_new(&source) {
            hub.show(&source, &rows);
            known.insert(source, rows);
        }
    }
}

impl Hub {
    fn watched_sources(&self) -> Vec<Arc<str>> {
        let registry = self.lock();
        let watched = registry.channels.keys().filter_map(|channel| match channel {
            Channel::Live(source) => Some(Arc::clone(source)),
            _ => None,
        });
        watched.collect()
    }

    /// Whether nothing was sent since somebody watches this source.
    fn is_new(&self, source: &Arc<str>) -> bool {
        let registry = self.lock();
        registry.channels.get(&Channel::Live(Arc::clone(source))).is_some_and(|subscribers| subscribers.last.is_none())
    }

    /// Sends the present rows of a source, also to those that come later.
    fn show(&self, source: &Arc<str>, rows: &[StatsRow]) {
        let mut registry = self.lock();
        let Some(subscribers) = registry.channels.get_mut(&Channel::Live(Arc::clone(source))) else { return };
        let frame = Frame::new(&subscribers.name, Body::Live((self.encode)(rows).into()));
        subscribers.send(&frame);
        subscribers.last = Some(frame);
    }
}
