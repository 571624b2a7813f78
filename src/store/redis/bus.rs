//! How messages travel between instances: Redis Pub/Sub.
//!
//! Used by `live/`. One connection hears all channels of the process, a second one publishes; neither is opened before
//! there is something to do. What is wanted is kept as a set, and the connection is brought to it: so a new
//! connection subscribes to everything again, in batches, and that it was lost is told.

use super::link::Link;
use crate::store::StoreError;
use bytes::Bytes;
use futures_util::StreamExt;
use redis::aio::PubSubSink;
use redis::{Client, RedisError};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Channels of one SUBSCRIBE.
const BATCH: usize = 1_000;
/// A channel without listeners is left at the second look: who comes back at once finds it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A connection on which nothing comes is asked whether it is alive as often as this.
const PING_LOOKS: u32 = 5;
/// For each answer; as for every other call.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until a new connection is tried, growing.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What is heard.
pub enum Heard<'a> {
    Message {
        channel: &'a str,
        message: Bytes,
    },
    /// The connection was lost, and is there again: of every channel messages may be missing.
    Missed,
}

/// See the module.
pub struct Bus {
    client: Client,
    publishing: Link,
    wanted: Mutex<Wanted>,
    changed: Notify,
    /// The channels Redis has confirmed.
    subscribed: watch::Sender<BTreeSet<Arc<str>>>,
}

#[derive(Default)]
struct Wanted {
    channels: BTreeSet<Arc<str>>,
    /// Those among them that are not known to be heard: with many channels nobody looks through all for one.
    new: BTreeSet<Arc<str>>,
}

impl Wanted {
    fn hear_all_anew(&mut self) {
        self.new.clone_from(&self.channels);
    }
}

impl Bus {
    /// # Errors
    /// If the address is not right; it is not connected to yet.
    pub fn new(url: &str) -> Result<Arc<Self>, StoreError> {
        let publishing = Link::new(url)?;
        let (wanted, changed) = (Mutex::default(), Notify::new());
        let subscribed = watch::channel(BTreeSet::new()).0;
        Ok(Arc::new(Self { client: publishing.client(), publishing, wanted, changed, subscribed }))
    }

    /// Sends a message to all who listen, on every instance and beyond.
    ///
    /// # Errors
    /// `Unknown` if it may have been sent.
    pub async fn publish(&self, channel: &str, message: &[u8]) -> Result<(), StoreError> {
        let mut publish = redis::cmd("PUBLISH");
        self.publishing.command::<i64>(publish.arg(channel).arg(message)).await?;
        Ok(())
    }

    /// From now on the channel is to be heard.
    pub fn want(&self, channel: &Arc<str>) {
        let mut wanted = self.lock();
        wanted.channels.insert(Arc::clone(channel));
        wanted.new.insert(Arc::clone(channel));
        drop(wanted);
        self.changed.notify_one();
    }

    /// Nobody listens any more.
    pub fn cease(&self, channel: &Arc<str>) {
        let mut wanted = self.lock();
        wanted.channels.remove(channel);
        wanted.new.remove(channel);
    }

    /// Returns as soon as a channel that is wanted is heard.
    ///
    /// # Errors
    /// `Unavailable` if that does not happen in a few seconds.
    pub async fn listen(&self, channel: &Arc<str>) -> Result<(), StoreError> {
        let mut subscribed = self.subscribed.subscribe();
        let heard = subscribed.wait_for(|subscribed| subscribed.contains(channel));
        match timeout(PATIENCE, heard).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::Unavailable("Redis does not take subscriptions at present".to_owned())),
        }
    }

    /// Hears until it is dropped.
    pub async fn run(&self, heard: impl Fn(Heard<'_>)) {
        let (mut pause, mut missed) = (RETRY_MIN, false);
        loop {
            while self.lock().channels.is_empty() {
                missed = false;
                self.changed.notified().await;
            }
            let Err(error) = self.session(&heard, missed).await;
            let heard_none = self.subscribed.send_replace(BTreeSet::new()).is_empty();
            self.lock().hear_all_anew();
            if heard_none {
                pause = (2 * pause).min(RETRY_MAX);
            } else {
                tracing::warn!("the connection that hears channels is lost: {error}");
                (pause, missed) = (RETRY_MIN, true);
            }
            sleep(pause).await;
        }
    }

    /// One connection, from its opening to its end.
    async fn session(&self, heard: &impl Fn(Heard<'_>), mut missed: bool) -> Result<Infallible, Lost> {
        let (mut sink, mut stream) = timeout(PATIENCE, self.client.get_async_pubsub()).await??.split();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut unwanted, mut quiet) = (BTreeSet::new(), 0);
        self.subscribe(&mut sink).await?;
        loop {
            if std::mem::take(&mut missed) {
                heard(Heard::Missed);
            }
            tokio::select! {
                // What came before a change is told before it.
                biased;
                message = stream.next() => {
                    let message = message.ok_or(Lost::Ended)?;
                    quiet = 0;
                    // Names are asked for as text, so others were never subscribed to.
                    if let Ok(channel) = message.get_channel::<String>() {
                        heard(Heard::Message { channel: &channel, message: message.get_payload_bytes().to_vec().into() });
                    }
                }
                () = self.changed.notified() => self.subscribe(&mut sink).await?,
                _ = looks.tick() => {
                    unwanted = self.unsubscribe(&mut sink, &unwanted).await?;
                    quiet += 1;
                    if quiet >= PING_LOOKS {
                        timeout(PATIENCE, sink.ping::<()>()).await??;
                        quiet = 0;
                    }
                }
            }
        }
    }

    /// Subscribes to what is wanted and not yet heard.
    async fn subscribe(&self, sink: &mut PubSubSink) -> Result<(), Lost> {
        let new = std::mem::take(&mut self.lock().new);
        let subscribed = |name: &Arc<str>| self.subscribed.borrow().contains(name);
        let missing: Vec<Arc<str>> = new.into_iter().filter(|name| !subscribed(name)).collect();
        for batch in missing.chunks(BATCH) {
            let names: Vec<&str> = batch.iter().map(|name| &**name).collect();
            timeout(PATIENCE, sink.subscribe(names)).await??;
            self.subscribed.send_modify(|subscribed| subscribed.extend(batch.iter().cloned()));
        }
        Ok(())
    }

    /// Leaves what was unwanted at the last look and still is; returns what is unwanted for the first time.
    async fn unsubscribe(
        &self,
        sink: &mut PubSubSink,
        before: &BTreeSet<Arc<str>>,
    ) -> Result<BTreeSet<Arc<str>>, Lost> {
        let (leaving, new): (Vec<_>, Vec<_>) = {
            let wanted = self.lock();
            let unwanted: BTreeSet<Arc<str>> = self.subscribed.borrow().difference(&wanted.channels).cloned().collect();
            let (leaving, new): (Vec<_>, Vec<_>) = unwanted.into_iter().partition(|name| before.contains(name));
            // All at once, before anybody can want one of them again: who comes then waits for a new confirmation.
            if !leaving.is_empty() {
                self.subscribed
                    .send_modify(|subscribed| subscribed.retain(|name| leaving.binary_search(name).is_err()));
            }
            (leaving, new)
        };
        for batch in leaving.chunks(BATCH) {
            let names: Vec<&str> = batch.iter().map(|name| &**name).collect();
            timeout(PATIENCE, sink.unsubscribe(names)).await??;
        }
        // A wish that came while they were left has been heard of above, and is fulfilled now.
        self.subscribe(sink).await?;
        Ok(new.into_iter().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().expect("no panic while it is held")
    }
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("Redis has closed it")]
    Ended,
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Redis(#[from] RedisError),
}
