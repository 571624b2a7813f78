//! Tells of rows that were written to the sink, from the log of acks, and lets clients go on where they stopped.
//!
//! Run by the hub. The log says which buckets were written (`store/mod.rs`); their rows are read for the sources
//! somebody listens to, and for no others. A row is told of by the entry that has its version: one that was
//! corrected before it could be read is told of once, with the correction. Every instance reads the log for
//! itself, so that it does not matter which one wrote.

use super::channel::Channel;
use super::outbox::{Body, Frame};
use super::{Hub, Joiner, Position};
use crate::query::{MAX_SOURCES, QueryError, StatsRow};
use crate::store::{AckLog, Life};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How soon after the ack.
const EVERY: Duration = Duration::from_millis(250);
/// While the store or the sink is away.
const EVERY_AWAY: Duration = Duration::from_secs(2);
/// Entries read at once.
const ENTRIES: usize = 200;
/// There is one shard; see `Store::shards`.
const SHARD: u16 = 0;

/// Where one is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    epoch: Option<i64>,
    mark: i64,
}

/// Until dropped.
pub(super) async fn run(hub: &Hub) {
    let mut place: Option<Place> = None;
    loop {
        if !hub.is_anyone_told() {
            place = None;
            hub.told.notified().await;
            continue;
        }
        let pause = match round(hub, &mut place).await {
            Ok(()) | Err(QueryError::Moving) => EVERY,
            // Said where it happened; nothing is lost, it comes later.
            Err(_) => EVERY_AWAY,
        };
        sleep(pause).await;
    }
}

/// Tells everybody what is new, then lets in who has come.
async fn round(hub: &Hub, place: &mut Option<Place>) -> Result<(), QueryError> {
    // Taken before the log is read, which then has all that they were told of, also by another instance.
    let joiners = hub.joiners();
    let missed = match tell_on(hub, place).await {
        Ok(at) => missed(hub, &joiners, at).await,
        Err(broken) => Err(broken),
    };
    match missed {
        Ok(missed) => {
            joiners.into_iter().zip(missed).for_each(|(joiner, missed)| hub.let_in(joiner, &missed));
            Ok(())
        }
        Err(broken) => {
            hub.come_again(joiners);
            Err(broken)
        }
    }
}

/// Tells everybody what is new; up to where.
async fn tell_on(hub: &Hub, place: &mut Option<Place>) -> Result<Place, QueryError> {
    let mut at = if let Some(at) = *place {
        at
    } else {
        let log = acked(hub, None).await?;
        *place.insert(Place { epoch: log.epoch, mark: log.last })
    };
    loop {
        let log = acked(hub, Some(at.mark)).await?;
        if log.epoch != at.epoch || !log.whole {
            hub.tell_of_gap();
            return Ok(*place.insert(Place { epoch: log.epoch, mark: log.last }));
        }
        let sources = hub.told_sources();
        for (mark, life) in &log.lives {
            for row in rows(hub, life, &sources).await? {
                hub.tell(&row, at.epoch, *mark);
            }
            at.mark = *mark;
            *place = Some(at);
        }
        if log.lives.len() < ENTRIES {
            return Ok(at);
        }
    }
}

/// What a client that comes has missed.
#[derive(Default)]
struct Missed {
    events: Vec<Arc<Frame>>,
    /// Whether that is all; nothing for one that did not ask.
    all: Option<bool>,
}

/// For each joiner, what stands in the log between its last event and here.
async fn missed(hub: &Hub, joiners: &[Joiner], at: Place) -> Result<Vec<Missed>, QueryError> {
    let known = |since: &&Position| Some(since.epoch) == at.epoch;
    let asking: Vec<(&Joiner, &Position)> = joiners.iter().filter_map(|j| Some((j, j.since.as_ref()?))).collect();
    let first = asking.iter().map(|(_, since)| *since).filter(known).map(|since| since.mark).min();
    let (lives, whole_from) = match first {
        // The entry itself may have been told of in part.
        Some(first) => behind(hub, first - 1, at.mark).await?,
        None => (Vec::new(), at.mark),
    };
    let sources: BTreeSet<Arc<str>> = asking.iter().flat_map(|(joiner, _)| joiner.sources.iter().cloned()).collect();
    let sources: Vec<Arc<str>> = sources.into_iter().collect();
    // One frame for all who get it, however many come at once.
    let mut told: HashMap<Arc<str>, Vec<(i64, Arc<Frame>)>> = HashMap::new();
    for (mark, life) in lives {
        for row in rows(hub, &life, &sources).await? {
            let name = Channel::Closed(Arc::clone(&row.source)).to_string().into();
            let event = hub.closing(&name, &row, at.epoch, mark);
            told.entry(row.source).or_default().push((mark, event));
        }
    }
    let missed = joiners.iter().map(|joiner| {
        let Some(since) = &joiner.since else { return Missed::default() };
        let mut own: BTreeMap<(i64, &str), &Arc<Frame>> = BTreeMap::new();
        for source in &joiner.sources {
            own.extend(told.get(source).into_iter().flatten().map(|(mark, event)| ((*mark, &**source), event)));
        }
        let events = own.range((Bound::Excluded((since.mark, &*since.source)), Bound::Unbounded));
        let all = known(&since) && since.mark >= whole_from;
        Missed { events: events.map(|(_, event)| Arc::clone(event)).collect(), all: Some(all) }
    });
    Ok(missed.collect())
}

/// The entries behind a mark, up to another one, and from which mark on nothing is missing there.
async fn behind(hub: &Hub, mut after: i64, until: i64) -> Result<(Vec<(i64, Life)>, i64), QueryError> {
    let (mut lives, mut whole_from) = (Vec::new(), after);
    loop {
        let log = acked(hub, Some(after)).await?;
        if !log.whole {
            whole_from = log.lives.first().map_or(log.last, |(mark, _)| *mark);
        }
        lives.extend(log.lives.iter().filter(|(mark, _)| *mark <= until));
        match log.lives.last() {
            Some((mark, _)) if log.lives.len() == ENTRIES && *mark < until => after = *mark,
            _ => return Ok((lives, whole_from)),
        }
    }
}

async fn acked(hub: &Hub, after: Option<i64>) -> Result<AckLog, QueryError> {
    hub.store.acked(SHARD, after, ENTRIES).await.map_err(|error| QueryError::Unavailable(error.to_string()))
}

/// The rows of these sources in the version of a life, in the order of the ids.
async fn rows(hub: &Hub, life: &Life, sources: &[Arc<str>]) -> Result<Vec<StatsRow>, QueryError> {
    let mut found = Vec::new();
    for sources in sources.chunks(MAX_SOURCES) {
        found.extend(hub.query.written(sources, life).await?);
    }
    found.sort_unstable_by(|a, b| a.source.cmp(&b.source));
    Ok(found)
}

impl Hub {
    /// Forgets who has gone before it could be let in.
    fn is_anyone_told(&self) -> bool {
        let mut registry = self.lock();
        registry.joiners.retain(|joiner| !joiner.done.is_closed());
        !registry.joiners.is_empty() || registry.channels.keys().any(|channel| matches!(channel, Channel::Closed(_)))
    }

    fn told_sources(&self) -> Vec<Arc<str>> {
        let registry = self.lock();
        let told = registry.channels.keys().filter_map(|channel| match channel {
            Channel::Closed(source) => Some(Arc::clone(source)),
            _ => None,
        });
        told.collect()
    }

    fn joiners(&self) -> Vec<Joiner> {
        std::mem::take(&mut self.lock().joiners)
    }

    fn come_again(&self, joiners: Vec<Joiner>) {
        self.lock().joiners.extend(joiners);
    }

    /// Subscribes a client that has come, after what it has missed.
    fn let_in(&self, joiner: Joiner, missed: &Missed) {
        let mut kept = true;
        for event in &missed.events {
            kept &= joiner.outbox.put(event);
        }
        let channels: Vec<Channel> = joiner.sources.into_iter().map(Channel::Closed).collect();
        for channel in &channels {
            if let Some(all) = missed.all {
                joiner.outbox.put(&Frame::new(&channel.to_string().into(), Body::Recovered(all && kept)));
            }
            self.join(channel, joiner.client, &joiner.outbox);
        }
        // It has gone meanwhile.
        if joiner.done.send(()).is_err() {
            for channel in &channels {
                self.leave(channel, joiner.client);
            }
        }
    }

    fn closing(&self, name: &Arc<str>, row: &StatsRow, epoch: Option<i64>, mark: i64) -> Arc<Frame> {
        let position = Position { epoch: epoch.unwrap_or_default(), mark, source: Arc::clone(&row.source) };
        let row = (self.encode)(std::slice::from_ref(row)).into();
        Frame::new(name, Body::Closed { row, position: position.to_string().into() })
    }

    fn tell(&self, row: &StatsRow, epoch: Option<i64>, mark: i64) {
        let registry = self.lock();
        if let Some(subscribers) = registry.channels.get(&Channel::Closed(Arc::clone(&row.source))) {
            subscribers.send(&self.closing(&subscribers.name, row, epoch, mark));
        }
    }

    pub(super) fn tell_of_gap(&self) {
        let registry = self.lock();
        let told = registry.channels.iter().filter(|(channel, _)| matches!(channel, Channel::Closed(_)));
        for (_, subscribers) in told {
            subscribers.send(&Frame::new(&subscribers.name, Body::Gap(0)));
        }
    }
}
