//! Watches sources: reads their present rows a few times a second, once for all clients, and sends what changed.
//!
//! Run by the hub. Cost follows what is watched, not what is taken in: nothing is read for a source nobody
//! watches, and the more is watched the longer the pauses are. What a client has missed is in the next rows.

use super::Hub;
use super::channel::Channel;
use super::outbox::{Body, Frame};
use crate::query::{MAX_SOURCES, QueryError, StatsRow};
use crate::stats::Millis;
use crate::{clock, failpoint};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Four times a second: what an eye can follow.
const EVERY: Duration = Duration::from_millis(250);
/// While the store or the sink is away.
const EVERY_AWAY: Duration = Duration::from_secs(5);
/// A look that took longer is followed by a pause of so many times its length: whatever is watched, looking takes a
/// quarter of the time at most, and of a processor.
const PAUSES: u32 = 3;

/// Until dropped.
pub(super) async fn run(hub: &Hub, now: impl Fn() -> Millis) {
    loop {
        let watched = hub.watched_sources();
        if watched.is_empty() {
            hub.watched.notified().await;
            continue;
        }
        failpoint::trip("watching");
        let (mut pause, started) = (EVERY, clock::instant());
        for sources in watched.chunks(MAX_SOURCES) {
            match hub.query.current(sources, now()).await {
                Ok(rows) => send(hub, sources, rows),
                Err(QueryError::Moving) => {}
                // Said where it happened; clients see the last rows until it is over.
                Err(_) => {
                    pause = EVERY_AWAY;
                    break;
                }
            }
        }
        sleep(pause.max(PAUSES * started.elapsed())).await;
    }
}

fn send(hub: &Hub, sources: &[Arc<str>], rows: Vec<StatsRow>) {
    let mut by_source: HashMap<Arc<str>, Vec<StatsRow>> =
        sources.iter().map(|source| (Arc::clone(source), Vec::new())).collect();
    for row in rows {
        by_source.entry(Arc::clone(&row.source)).or_default().push(row);
    }
    for (source, rows) in by_source {
        hub.show(&source, rows);
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

    /// Sends the present rows of a source if they have changed, also to those that come later.
    fn show(&self, source: &Arc<str>, rows: Vec<StatsRow>) {
        let mut registry = self.lock();
        let Some(subscribers) = registry.channels.get_mut(&Channel::Live(Arc::clone(source))) else { return };
        if subscribers.last.as_ref().is_some_and(|(known, _)| *known == rows) {
            return;
        }
        let frame = Frame::new(&subscribers.name, Body::Live((self.encode)(&rows).into()));
        subscribers.send(&frame);
        subscribers.last = Some((rows, frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Expected, Terms, Transport};
    use crate::query::tests::query;
    use crate::query::tests::world::World;

    /// Looks at the store in 200 s if each takes as long.
    async fn looks(each: Duration) -> usize {
        let world = World::new("1h", "UTC");
        world.lock().look_takes = each;
        let hub =
            Hub::new(Arc::clone(&world) as _, Arc::new(query(&world)), None, |_| b"[]".to_vec(), Expected::default());
        let running = tokio::spawn(Arc::clone(&hub).run(|| 0));
        let mut client = hub.connect(Transport::Events);
        client.subscribe(vec![Channel::subscribed("live:a").unwrap()], &Terms::default()).await.unwrap();
        sleep(Duration::from_secs(200)).await;
        running.abort();
        world.lock().looks
    }

    #[tokio::test(start_paused = true)]
    async fn slow_looks_take_a_quarter_of_the_time() {
        // Two of the store for each of ours.
        assert_eq!(looks(Duration::ZERO).await, 2 * 800);
        assert_eq!(looks(Duration::from_millis(25)).await, 2 * 666 + 2, "50 ms, and 250 of them");
        assert_eq!(looks(Duration::from_secs(1)).await, 2 * 25, "2 s, and 6 of pause");
    }
}
