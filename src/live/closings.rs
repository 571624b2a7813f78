//! Tells of rows that were written to the sink, from the log of acks.
//!
//! Run by the hub. The log says which buckets were written (`store/mod.rs`), `written.rs` reads their rows. Every
//! instance reads the log for itself, so that it does not matter which one wrote. Who comes is let in between two
//! rounds; who comes back, or has no room for what is told, is behind, and catches up in `replay.rs` until it is
//! where everybody is.

use super::behind::Behind;
use super::channel::Channel;
use super::outbox::{Body, Frame, Outbox};
use super::written::{At, ENTRIES, Written, acked, entries_at_once, rows, sources};
use super::{Hub, Position, Registry};
use crate::query::QueryError;
use crate::telemetry::metrics;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How soon after the ack.
const EVERY: Duration = Duration::from_millis(250);
/// While the store or the sink is away.
const EVERY_AWAY: Duration = Duration::from_secs(2);

/// Where one is in the log: behind the whole entry with this mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: Option<i64>,
    pub(super) mark: i64,
}

/// Who wants to be told from now on.
pub(super) struct Joiner {
    pub(super) client: u64,
    pub(super) outbox: Arc<Outbox>,
    pub(super) channels: Vec<Channel>,
    /// Told that it is in; nobody listens if it has gone.
    pub(super) done: oneshot::Sender<()>,
}

/// Until dropped.
pub(super) async fn run(hub: &Hub) {
    loop {
        if !hub.is_anyone_told() {
            hub.told.notified().await;
            continue;
        }
        let pause = match round(hub).await {
            Ok(()) => EVERY,
            // Said where it happened; nothing is lost, it comes later.
            Err(_) => EVERY_AWAY,
        };
        sleep(pause).await;
    }
}

/// Lets in who has caught up, tells everybody what is new, then lets in who has come.
async fn round(hub: &Hub) -> Result<(), QueryError> {
    // Taken before the log is read: they are told nothing that was written before they came.
    let joiners = hub.joiners();
    let told = tell_on(hub).await;
    if told.is_ok() {
        for joiner in joiners {
            hub.let_in(joiner);
        }
    } else {
        hub.lock().joiners.extend(joiners);
    }
    told
}

async fn tell_on(hub: &Hub) -> Result<(), QueryError> {
    let mut at = if let Some(at) = hub.place() {
        at
    } else {
        let log = acked(hub, None).await?;
        let at = Place { epoch: log.epoch, mark: log.last };
        hub.tell(&[], at);
        at
    };
    loop {
        let reading = hub.begin_reading();
        let log = acked(hub, Some(at.mark)).await?;
        // A mark before the last one is of a store that has lost its last moments.
        if log.epoch != at.epoch || !log.whole || log.last < at.mark {
            hub.tell_of_gap(Some(Place { epoch: log.epoch, mark: log.last }));
            return Ok(());
        }
        // From here on nobody is let in whose sources are not asked for.
        let channels = hub.let_in_who_caught_up(at);
        let sources = if log.lives.is_empty() { Vec::new() } else { sources(hub, channels.iter()).await? };
        for lives in log.lives.chunks(entries_at_once(sources.len())) {
            let rows = rows(hub, lives, &sources).await?;
            at.mark = lives.last().map_or(at.mark, |(mark, _)| *mark);
            hub.tell(&rows, at);
        }
        if log.lives.len() < ENTRIES {
            hub.lock().finished = reading;
            return Ok(());
        }
    }
}

impl Registry {
    /// Subscribes a client to a channel of closed buckets: it hears what is told next.
    fn be_told(&mut self, channel: &Channel, client: u64, outbox: &Arc<Outbox>, ending: bool) {
        let subscribers = self.channels.entry(channel.clone()).or_insert_with(|| super::Subscribers::of(channel));
        subscribers.by_client.insert(client, Arc::clone(outbox));
        self.told.entry(client).or_default().insert(channel.clone());
        // It came too late to be ended with the others.
        if ending {
            outbox.end();
        }
    }

    /// Takes a client out of what is told, with everything it hears there; `at` is behind what it has heard.
    pub(super) fn fall_behind(&mut self, client: u64, at: &At, epoch: Option<i64>) {
        for channel in self.told.remove(&client).unwrap_or_default() {
            let Some(subscribers) = self.channels.get_mut(&channel) else { continue };
            let Some(outbox) = subscribers.by_client.remove(&client) else { continue };
            if subscribers.by_client.is_empty() {
                self.channels.remove(&channel);
            }
            let behind = self.behind.entry(client).or_insert_with(|| Behind::new(outbox));
            behind.add(channel, at.clone(), epoch, false);
        }
    }
}

impl Hub {
    /// Forgets who has gone before it could be let in.
    fn is_anyone_told(&self) -> bool {
        let mut registry = self.lock();
        registry.joiners.retain(|joiner| !joiner.done.is_closed());
        let anyone = !(registry.joiners.is_empty() && registry.told.is_empty() && registry.behind.is_empty());
        if !anyone {
            registry.place = None;
        }
        anyone
    }

    /// Up to where everybody was told who is not behind.
    pub(super) fn place(&self) -> Option<Place> {
        self.lock().place
    }

    fn begin_reading(&self) -> u64 {
        let mut registry = self.lock();
        registry.begun += 1;
        registry.begun
    }

    fn joiners(&self) -> Vec<Joiner> {
        std::mem::take(&mut self.lock().joiners)
    }

    /// Subscribes a client that has come.
    fn let_in(&self, joiner: Joiner) {
        let Joiner { client, outbox, channels, done } = joiner;
        let mut registry = self.lock();
        let Some(place) = registry.place else { return };
        // It has given up, and may have come in by another way since.
        if done.is_closed() {
            return;
        }
        for channel in &channels {
            match registry.behind.get_mut(&client) {
                Some(behind) => behind.add(channel.clone(), At::end(place.mark), place.epoch, false),
                None => registry.be_told(channel, client, &outbox, self.is_ending()),
            }
        }
        drop(registry);
        // It has gone meanwhile.
        if done.send(()).is_err() {
            for channel in &channels {
                self.leave(channel, client);
            }
        }
    }

    /// Subscribes those who have been told all up to here by the replay, if here is behind all that was written before
    /// they came; returns all channels that are told of now.
    fn let_in_who_caught_up(&self, place: Place) -> Vec<Channel> {
        let mut registry = self.lock();
        let finished = registry.finished;
        let mut caught_up = Vec::new();
        for (client, behind) in registry.behind.iter_mut().filter(|(_, behind)| behind.is_at(place)) {
            behind.accept();
            if behind.came < finished {
                caught_up.push(*client);
            }
        }
        for client in caught_up {
            let Some(mut behind) = registry.behind.remove(&client) else { continue };
            for (channel, frame) in behind.end() {
                if let Some(frame) = frame {
                    behind.outbox.put(&frame);
                }
                registry.be_told(&channel, client, &behind.outbox, self.is_ending());
            }
        }
        registry.channels.keys().filter(|channel| channel.is_closed()).cloned().collect()
    }

    /// Tells everybody of these rows, behind which all are told up to `place`. Who has no room for one falls behind there.
    fn tell(&self, rows: &[Written], place: Place) {
        let mut registry = self.lock();
        let patterns: Vec<Channel> =
            registry.channels.keys().filter(|channel| matches!(channel, Channel::ClosedLike(_))).cloned().collect();
        let mut before = At::end(registry.place.map_or(place.mark, |place| place.mark));
        let mut full: BTreeMap<u64, (At, Vec<(Channel, At)>)> = BTreeMap::new();
        let mut sent = 0;
        for written in rows {
            let (row, position) = self.closing(written, place.epoch);
            let exact = Channel::Closed(Arc::clone(&written.row.source));
            let matching = patterns.iter().filter(|pattern| pattern.tells_of(&written.row.source));
            let channels: Vec<&Channel> = matching.chain([&exact]).collect();
            // Who hears of it by several names, and has room for some of them.
            let mut had: Vec<(u64, &Channel)> = Vec::new();
            for &channel in &channels {
                let Some(subscribers) = registry.channels.get(channel) else { continue };
                let frame =
                    Frame::new(&subscribers.name, Body::Closed { row: row.clone(), position: Arc::clone(&position) });
                for (client, outbox) in &subscribers.by_client {
                    if full.contains_key(client) {
                        continue;
                    }
                    if !outbox.offer(&frame) {
                        let of_client = had.iter().filter(|(other, _)| other == client);
                        let heard = of_client.map(|(_, channel)| ((*channel).clone(), written.at())).collect();
                        full.insert(*client, (before.clone(), heard));
                    } else if channels.len() > 1 {
                        had.push((*client, channel));
                    }
                }
                sent += subscribers.by_client.len() as u64;
            }
            before = written.at();
        }
        for (client, (at, heard)) in full {
            registry.fall_behind(client, &at, place.epoch);
            for (channel, at) in heard {
                if let Some(told) =
                    registry.behind.get_mut(&client).and_then(|behind| behind.channels.get_mut(&channel))
                {
                    told.at = at;
                }
            }
        }
        registry.place = Some(place);
        metrics::live_frames(sent);
        if !registry.behind.is_empty() {
            self.returned.notify_one();
        }
    }

    /// The row as JSON, and its place for who comes back.
    pub(super) fn closing(&self, written: &Written, epoch: Option<i64>) -> (Bytes, Arc<str>) {
        let Written { mark, row } = written;
        let position = Position { epoch: epoch.unwrap_or_default(), mark: *mark, source: Arc::clone(&row.source) };
        ((self.encode)(std::slice::from_ref(row)).into(), position.to_string().into())
    }

    /// Tells everybody that something may be missing here; they go on from `place`, or from where the log stands then.
    pub(super) fn tell_of_gap(&self, place: Option<Place>) {
        let mut registry = self.lock();
        let clients: BTreeSet<&Channel> = registry.told.values().flatten().collect();
        for subscribers in clients.into_iter().filter_map(|channel| registry.channels.get(channel)) {
            subscribers.send(&Frame::new(&subscribers.name, Body::Gap(0)));
        }
        registry.place = place;
    }
}
