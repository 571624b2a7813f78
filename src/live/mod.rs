//! Who hears what: channels, their subscribers, and what is sent to them.
//!
//! Called by `http/{stream,socket,publish}.rs`, which know how clients are connected; calls the query for statistics
//! (`live/poll.rs`) and Redis Pub/Sub for messages. Guarantees: one connection to Redis for all channels of the
//! process, and channels nobody listens to cost nothing; the messages of a channel come in their order; a client
//! that is slow costs a bounded amount (`live/outbox.rs`) and is told what it missed; of a client that is
//! gone nothing is left. Without Redis messages stay in the process.

mod behind;
pub mod channel;
mod closings;
mod log;
pub mod outbox;
mod pace;
mod poll;
mod position;
mod replay;
mod silence;
mod written;

use crate::clock;
use crate::query::{Query, StatsRow};
use crate::stats::Millis;
use crate::store::redis::bus::{Bus, Heard};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics;
pub use crate::telemetry::metrics::Transport;
use behind::Behind;
use bytes::Bytes;
use channel::Channel;
use closings::{Joiner, Place};
use outbox::{Body, Frame, Outbox};
pub use pace::{Pace, PaceError};
pub use position::{Position, PositionError};
pub use silence::Expected;
use silence::Silent;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout_at;
use written::At;

/// Channels one client may be subscribed to.
pub const MAX_CHANNELS: usize = 100;
/// Patterns among them, and channels of silent sources: each is held against every source when a bucket was written, or
/// every few seconds.
pub const MAX_PATTERNS: usize = 10;

/// For a client to be let in among those who are told of closed buckets, while the store or the sink may be away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes JSON of the present rows of a source; what it looks like is the transports' to say.
pub type Encode = fn(&[StatsRow]) -> Vec<u8>;

/// How a client wants to hear its channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Of closed buckets also what came behind this place; no other channel goes back.
    pub since: Option<Position>,
    /// The present rows no more often than this, and the newest then; everything else comes as it comes.
    pub pace: Option<Pace>,
}

/// Why a client cannot subscribe or publish.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error("a client may subscribe to {MAX_CHANNELS} channels")]
    TooMany,
    #[error("a client may subscribe to {MAX_PATTERNS} patterns, silent: channels among them")]
    TooManyPatterns,
    #[error("this instance has no sink (--role ingest), so it does not know the present rows")]
    NoSink,
    #[error("this instance does not tell of silent sources: it is started without --silent-after")]
    NoSilence,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the module.
pub struct Hub {
    registry: Mutex<Registry>,
    bus: Option<Arc<Bus>>,
    store: Arc<dyn Store>,
    query: Arc<Query>,
    encode: Encode,
    expected: Expected,
    clients: AtomicU64,
    /// The first source is watched, or another one.
    watched: Notify,
    /// Somebody wants to be told of silent sources.
    silence: Notify,
    /// Somebody wants to be told of closed buckets.
    told: Notify,
    /// Somebody is behind.
    returned: Notify,
    ending: watch::Sender<bool>,
    /// Whether it has been run before: then that has broken off.
    has_run: AtomicBool,
}

#[derive(Default)]
struct Registry {
    /// A channel is here as long as somebody listens.
    channels: HashMap<Channel, Subscribers>,
    /// Who wants to be told of closed buckets, and is not yet.
    joiners: Vec<Joiner>,
    /// The channels of closed buckets of each client that is told of them as they come.
    told: HashMap<u64, BTreeSet<Channel>>,
    /// When silent sources were last looked for.
    looked: Millis,
    /// Up to where they were told; nothing as long as nobody is there.
    place: Option<Place>,
    /// Readings of the log that were begun, and which of them was the last that came to its end.
    begun: u64,
    finished: u64,
    /// Clients that are not there yet, with all their channels of closed buckets.
    behind: BTreeMap<u64, Behind>,
}

struct Subscribers {
    name: Arc<str>,
    by_client: BTreeMap<u64, Arc<Outbox>>,
    /// Of a source: its rows as they were sent last.
    last: Option<(Vec<StatsRow>, Arc<Frame>)>,
    /// Of silent sources: which are.
    silent: Silent,
}

/// One connected client; what it is subscribed to ends with it.
pub struct Client {
    hub: Arc<Hub>,
    id: u64,
    outbox: Arc<Outbox>,
    channels: BTreeSet<Channel>,
    transport: Transport,
}

impl Hub {
    /// `bus`: how messages travel between instances; `None` if there are no others. `expected`: which sources are silent.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        query: Arc<Query>,
        bus: Option<Arc<Bus>>,
        encode: Encode,
        expected: Expected,
    ) -> Arc<Self> {
        let (registry, clients) = (Mutex::default(), AtomicU64::new(1));
        let (watched, silence, told, returned) = (Notify::new(), Notify::new(), Notify::new(), Notify::new());
        Arc::new(Self {
            registry,
            bus,
            store,
            query,
            encode,
            expected,
            clients,
            watched,
            silence,
            told,
            returned,
            ending: watch::channel(false).0,
            has_run: AtomicBool::new(false),
        })
    }

    /// Hears what is published, and watches sources, until it is dropped. If it has failed it may be run again:
    /// clients are told that something may be missing.
    pub async fn run(self: Arc<Self>, now: impl Fn() -> Millis) {
        if self.has_run.swap(true, Ordering::SeqCst) {
            self.hear(Heard::Missed);
            self.tell_of_gap(None);
        }
        let hearing = async {
            match &self.bus {
                Some(bus) => bus.run(|heard| self.hear(heard)).await,
                None => std::future::pending().await,
            }
        };
        let silence = silence::run(&self, &now);
        tokio::join!(hearing, poll::run(&self, &now), silence, closings::run(&self), replay::run(&self));
    }

    /// A new client, subscribed to nothing.
    pub fn connect(self: &Arc<Self>, transport: Transport) -> Client {
        let id = self.clients.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::<Outbox>::default();
        metrics::live_client(transport, 1);
        Client { hub: Arc::clone(self), id, outbox, channels: BTreeSet::new(), transport }
    }

    /// Sends a message to everybody who listens to a channel, on every instance.
    pub async fn publish(&self, channel: &Channel, message: Bytes) -> Result<(), LiveError> {
        if let Some(bus) = &self.bus {
            bus.publish(&channel.to_string(), &message).await?;
        } else {
            self.deliver(channel, Body::Message(message));
        }
        Ok(())
    }

    /// Ends every client: the service stops.
    pub fn end(&self) {
        self.ending.send_replace(true);
        let registry = self.lock();
        for subscribers in registry.channels.values() {
            subscribers.by_client.values().for_each(|outbox| outbox.end());
        }
        registry.behind.values().for_each(|behind| behind.outbox.end());
    }

    fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Returns when the service stops.
    pub async fn ended(&self) {
        // The sender is here, so there is nothing else that it could return for.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
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

    fn join(&self, channel: &Channel, client: u64, outbox: &Arc<Outbox>) {
        let mut registry = self.lock();
        let looked = registry.looked;
        let subscribers = registry.channels.entry(channel.clone()).or_insert_with(|| {
            if let (Some(bus), Channel::Messages(name)) = (&self.bus, channel) {
                bus.want(name);
            }
            Subscribers::of(channel)
        });
        subscribers.by_client.insert(client, Arc::clone(outbox));
        // It came too late to be ended with the others.
        if self.is_ending() {
            outbox.end();
        }
        if let Some((_, last)) = &subscribers.last {
            outbox.put(last);
        }
        subscribers.tell_silent(outbox, looked);
    }

    fn leave(&self, channel: &Channel, client: u64) {
        let mut registry = self.lock();
        if channel.is_closed() {
            registry.tell_no_more(channel, client);
        }
        let Some(subscribers) = registry.channels.get_mut(channel) else { return };
        subscribers.by_client.remove(&client);
        if subscribers.by_client.is_empty() {
            registry.channels.remove(channel);
            if let (Some(bus), Channel::Messages(name)) = (&self.bus, channel) {
                bus.cease(name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A panic while it was held concerns one channel; the others go on.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// A client is to hear what came behind a place. What it hears already, it hears behind that from now on, so that
    /// the place of every event has before it all that it was not told.
    fn go_on(
        &mut self,
        client: u64,
        outbox: &Arc<Outbox>,
        channels: Vec<Channel>,
        since: &Position,
        done: oneshot::Sender<()>,
    ) {
        if let Some(place) = self.place {
            self.fall_behind(client, &At::end(place.mark), place.epoch);
        }
        let behind = self.behind.entry(client).or_insert_with(|| Behind::new(Arc::clone(outbox)));
        for channel in channels {
            behind.add(channel, At::source(since.mark, &since.source), Some(since.epoch), true);
        }
        behind.came = self.begun;
        behind.wait(done);
    }

    fn tell_no_more(&mut self, channel: &Channel, client: u64) {
        if self.behind.get_mut(&client).is_some_and(|behind| behind.leave(channel)) {
            self.behind.remove(&client);
        }
        if let Some(channels) = self.told.get_mut(&client) {
            channels.remove(channel);
            if channels.is_empty() {
                self.told.remove(&client);
            }
        }
    }
}

impl Subscribers {
    fn of(channel: &Channel) -> Self {
        Self { name: channel.to_string().into(), by_client: BTreeMap::new(), last: None, silent: Silent::default() }
    }

    fn send(&self, frame: &Arc<Frame>) {
        for outbox in self.by_client.values() {
            outbox.put(frame);
        }
        metrics::live_frames(self.by_client.len() as u64);
    }
}

impl Client {
    /// Subscribes to channels; to one a second time changes nothing. When it returns, what is published from then on
    /// comes, behind what came since the place in `terms`: that in the order of the log over all channels, so that
    /// behind the place of one event is all that was not told before it. It comes while the client takes it.
    pub async fn subscribe(&mut self, channels: Vec<Channel>, terms: &Terms) -> Result<(), LiveError> {
        let channels = self.not_yet(channels)?;
        let asked = channels.clone();
        let (mut closed, mut named) = (Vec::new(), Vec::new());
        for channel in channels {
            // From here on its end cleans up, wherever this one stops.
            self.channels.insert(channel.clone());
            match &channel {
                Channel::Messages(_) => {
                    self.hub.join(&channel, self.id, &self.outbox);
                    named.push(channel);
                }
                Channel::Live(_) => {
                    if let Some(pace) = terms.pace {
                        self.outbox.pace(&channel.to_string().into(), pace);
                    }
                    self.hub.join(&channel, self.id, &self.outbox);
                    self.hub.watched.notify_one();
                }
                Channel::Silent(_) => {
                    self.hub.join(&channel, self.id, &self.outbox);
                    self.hub.silence.notify_one();
                }
                Channel::Closed(_) | Channel::ClosedLike(_) => closed.push(channel),
            }
        }
        let told = match self.listen(named).await {
            Ok(()) if closed.is_empty() => Ok(()),
            Ok(()) => self.be_told(closed.clone(), terms.since.as_ref()).await,
            Err(error) => Err(error),
        };
        if told.is_err() {
            // So that it can be asked for again, and nothing comes that was not granted.
            for channel in &asked {
                self.unsubscribe(channel);
            }
        }
        told
    }

    /// Those it is not subscribed to, each once.
    ///
    /// # Errors
    /// If it cannot be subscribed to all of them.
    fn not_yet(&self, mut channels: Vec<Channel>) -> Result<Vec<Channel>, LiveError> {
        let mut all = self.channels.clone();
        channels.retain(|channel| all.insert(channel.clone()));
        if all.len() > MAX_CHANNELS {
            return Err(LiveError::TooMany);
        }
        let searches = |channel: &&Channel| matches!(channel, Channel::ClosedLike(_) | Channel::Silent(_));
        if all.iter().filter(searches).count() > MAX_PATTERNS {
            return Err(LiveError::TooManyPatterns);
        }
        let needs_sink = |channel: &Channel| !matches!(channel, Channel::Messages(_));
        if channels.iter().any(needs_sink) && !self.hub.query.has_sink() {
            return Err(LiveError::NoSink);
        }
        if channels.iter().any(|channel| matches!(channel, Channel::Silent(_))) && !self.hub.expected.any() {
            return Err(LiveError::NoSilence);
        }
        Ok(channels)
    }

    /// Waits until what is published there is heard; all of them are wanted by now.
    async fn listen(&mut self, named: Vec<Channel>) -> Result<(), LiveError> {
        let Some(bus) = self.hub.bus.clone() else { return Ok(()) };
        for (n, channel) in named.iter().enumerate() {
            let Channel::Messages(name) = channel else { continue };
            if let Err(error) = bus.listen(name).await {
                named[n..].iter().for_each(|channel| self.unsubscribe(channel));
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn be_told(&self, channels: Vec<Channel>, since: Option<&Position>) -> Result<(), LiveError> {
        let deadline = clock::instant() + PATIENCE;
        let (done, is_in) = oneshot::channel();
        let outbox = Arc::clone(&self.outbox);
        if let Some(since) = since {
            self.hub.lock().go_on(self.id, &outbox, channels, since, done);
            self.hub.returned.notify_one();
        } else {
            self.hub.lock().joiners.push(Joiner { client: self.id, outbox, channels, done });
        }
        self.hub.told.notify_one();
        match timeout_at(deadline, is_in).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError::Unavailable("the store or the sink cannot be read at present".to_owned()).into()),
        }
    }

    /// Of a channel it is not subscribed to, does nothing. When it returns, nothing of the channel comes any more.
    pub fn unsubscribe(&mut self, channel: &Channel) {
        if self.channels.remove(channel) {
            self.hub.leave(channel, self.id);
            self.outbox.forget(&channel.to_string());
        }
    }

    /// It is connected in another way than before.
    pub fn moved_to(&mut self, transport: Transport) {
        if self.transport != transport {
            metrics::live_client(self.transport, -1);
            metrics::live_client(transport, 1);
            self.transport = transport;
        }
    }

    /// What comes next; `None` after the end of the service.
    pub async fn next(&self) -> Option<Arc<Frame>> {
        self.outbox.next().await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.channels.iter().for_each(|channel| self.hub.leave(channel, self.id));
        metrics::live_client(self.transport, -1);
    }
}
