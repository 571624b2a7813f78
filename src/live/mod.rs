//! Who hears what: channels, their subscribers, and what is sent to them.
//!
//! Called by `http/{stream,publish}.rs`, which know how clients are connected; calls the query for statistics
//! (`live/poll.rs`) and Redis Pub/Sub for messages. Guarantees: one connection to Redis for all channels of the
//! process, and channels nobody listens to cost nothing; the messages of a channel come in their order; a client
//! that is slow costs a bounded amount (`live/outbox.rs`) and is told what it missed; of a client that is
//! gone nothing is left. Without Redis messages stay in the process.

pub mod channel;
pub mod outbox;
mod poll;

use crate::query::{Query, StatsRow};
use crate::stats::Millis;
use crate::store::StoreError;
use crate::store::redis::bus::{Bus, Heard};
use crate::telemetry::metrics;
use bytes::Bytes;
use channel::Channel;
use outbox::{Body, Frame, Outbox};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// Channels one client may be subscribed to.
pub const MAX_CHANNELS: usize = 100;

/// Makes JSON of the present rows of a source; what it looks like is the transports' to say.
pub type Encode = fn(&[StatsRow]) -> Vec<u8>;

/// Why a client cannot subscribe or publish.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error("a client may subscribe to {MAX_CHANNELS} channels")]
    TooMany,
    #[error("this instance has no sink (--role ingest), so it does not know the present rows")]
    NoSink,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the module.
pub struct Hub {
    registry: Mutex<Registry>,
    bus: Option<Arc<Bus>>,
    query: Arc<Query>,
    encode: Encode,
    clients: AtomicU64,
    /// The first source is watched, or another one.
    watched: Notify,
}

#[derive(Default)]
struct Registry {
    /// A channel is here as long as somebody listens.
    channels: HashMap<Channel, Subscribers>,
    ended: bool,
}

struct Subscribers {
    name: Arc<str>,
    by_client: BTreeMap<u64, Arc<Outbox>>,
    /// Of a source: its rows as they were sent last.
    last: Option<Arc<Frame>>,
}

/// One connected client; what it is subscribed to ends with it.
pub struct Client {
    hub: Arc<Hub>,
    id: u64,
    outbox: Arc<Outbox>,
    channels: BTreeSet<Channel>,
}

impl Hub {
    /// `bus`: how messages travel between instances; `None` if there are no others.
    #[must_use]
    pub fn new(query: Arc<Query>, bus: Option<Arc<Bus>>, encode: Encode) -> Arc<Self> {
        let (registry, clients, watched) = (Mutex::default(), AtomicU64::new(1), Notify::new());
        Arc::new(Self { registry, bus, query, encode, clients, watched })
    }

    /// Hears what is published, and watches sources, until it is dropped.
    pub async fn run(self: Arc<Self>, now: impl Fn() -> Millis) {
        let hearing = async {
            match &self.bus {
                Some(bus) => bus.run(|heard| self.hear(heard)).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(hearing, poll::run(&self, now));
    }

    /// A new client, subscribed to nothing.
    pub fn connect(self: &Arc<Self>) -> Client {
        let id = self.clients.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::<Outbox>::default();
        if self.lock().ended {
            outbox.end();
        }
        metrics::live_client(1);
        Client { hub: Arc::clone(self), id, outbox, channels: BTreeSet::new() }
    }

    /// Sends a message to everybody who listens to a channel, on every instance.
    pub async fn publish(&self, channel: &Channel, message: Bytes) -> Result<(), LiveError> {
        match &self.bus {
            Some(bus) => Ok(bus.publish(&channel.to_string(), &message).await?),
            None => {
                self.deliver(channel, Body::Message(message));
                Ok(())
            }
        }
    }

    /// Ends every client: the service stops.
    pub fn end(&self) {
        let mut registry = self.lock();
        registry.ended = true;
        for subscribers in registry.channels.values() {
            subscribers.by_client.values().for_each(|outbox| outbox.end());
        }
    }

    fn hear(&self, heard: Heard<'_>) {
        match heard {
            Heard::Message { channel, message } => {
                self.deliver(&Channel::Messages(channel.into()), Body::Message(message));
            }
            // What was published meanwhile is gone; that it is, is said.
            Heard::Missed => {
                let registry = self.lock();
                let channels = registry.channels.iter().filter(|(channel, _)| matches!(channel, Channel::Messages(_)));
                for (_, subscribers) in channels {
                    subscribers.send(&Frame::new(&subscribers.name, Body::Gap(0)));
                }
            }
        }
    }

    fn deliver(&self, channel: &Channel, body: Body) {
        if let Some(subscribers) = self.lock().channels.get(channel) {
            subscribers.send(&Frame::new(&subscribers.name, body));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("no panic while it is held")
    }
}

impl Subscribers {
    fn send(&self, frame: &Arc<Frame>) {
        self.by_client.values().for_each(|outbox| outbox.put(frame));
        metrics::live_frames(self.by_client.len() as u64);
    }
}

impl Client {
    /// Subscribes to a channel; a second time changes nothing. When it returns, what is published from then on
    /// comes.
    pub async fn subscribe(&mut self, channel: Channel) -> Result<(), LiveError> {
        if self.channels.contains(&channel) {
            return Ok(());
        }
        if self.channels.len() == MAX_CHANNELS {
            return Err(LiveError::TooMany);
        }
        if matches!(channel, Channel::Live(_)) && !self.hub.query.has_sink() {
            return Err(LiveError::NoSink);
        }
        self.join(&channel);
        self.channels.insert(channel.clone());
        match (&self.hub.bus, &channel) {
            (Some(bus), Channel::Messages(name)) => {
                if let Err(error) = bus.listen(name).await {
                    self.unsubscribe(&channel);
                    return Err(error.into());
                }
            }
            (_, Channel::Live(_)) => self.hub.watched.notify_one(),
            _ => {}
        }
        Ok(())
    }

    /// Of a channel it is not subscribed to, does nothing.
    pub fn unsubscribe(&mut self, channel: &Channel) {
        if !self.channels.remove(channel) {
            return;
        }
        let mut registry = self.hub.lock();
        let Some(subscribers) = registry.channels.get_mut(channel) else { return };
        subscribers.by_client.remove(&self.id);
        if subscribers.by_client.is_empty() {
            registry.channels.remove(channel);
            if let (Some(bus), Channel::Messages(name)) = (&self.hub.bus, channel) {
                bus.cease(name);
            }
        }
    }

    /// What comes next; `None` after the end of the service.
    pub async fn next(&self) -> Option<Arc<Frame>> {
        self.outbox.next().await
    }

    fn join(&self, channel: &Channel) {
        let mut registry = self.hub.lock();
        let subscribers = registry.channels.entry(channel.clone()).or_insert_with(|| {
            if let (Some(bus), Channel::Messages(name)) = (&self.hub.bus, channel) {
                bus.want(name);
            }
            Subscribers { name: channel.to_string().into(), by_client: BTreeMap::new(), last: None }
        });
        subscribers.by_client.insert(self.id, Arc::clone(&self.outbox));
        if let Some(last) = &subscribers.last {
            self.outbox.put(last);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for channel in std::mem::take(&mut self.channels) {
            self.channels.insert(channel.clone());
            self.unsubscribe(&channel);
        }
        metrics::live_client(-1);
    }
}
