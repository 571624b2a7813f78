//! A client that is behind: up to where it was told of each of its channels of closed buckets.
//!
//! Kept by the hub, from `closings.rs`, where it falls behind and is let in again, to `replay.rs`, which brings it
//! there. It has all channels of closed buckets of its client, or none.

use super::channel::Channel;
use super::closings::Place;
use super::log::Log;
use super::outbox::{Body, Frame, Outbox};
use super::written::At;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// Of the whole process: a client that has left all channels and comes back at once is not taken for itself before.
static TICKETS: AtomicU64 = AtomicU64::new(1);

/// One client that is behind.
pub(super) struct Behind {
    pub(super) outbox: Arc<Outbox>,
    pub(super) channels: BTreeMap<Channel, Told>,
    /// Told that it is in, as soon as it is known that what it missed can be read.
    waiting: Vec<oneshot::Sender<()>>,
    accepted: bool,
    /// It does not take what it gets.
    pub(super) lagging: bool,
    /// Readings of the log that were begun when it came back: what was written by then is only seen by later ones.
    pub(super) came: u64,
}

/// Up to where a client was told of what there is of a channel.
pub(super) struct Told {
    pub(super) at: At,
    /// In the log of this one.
    pub(super) epoch: Option<i64>,
    /// It asked to go on, so it is told whether it could.
    asked: bool,
    /// Whether nothing was left out so far.
    all: bool,
    /// Tells it from the same channel, left and taken up again.
    pub(super) ticket: u64,
}

impl Behind {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        let (channels, waiting) = (BTreeMap::new(), Vec::new());
        Self { outbox, channels, waiting, accepted: false, lagging: false, came: 0 }
    }

    /// Another channel, of which everything behind `at` is to be told.
    pub(super) fn add(&mut self, channel: Channel, at: At, epoch: Option<i64>, asked: bool) {
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        self.channels.insert(channel, Told { at, epoch, asked, all: true, ticket });
    }

    /// Says when it is in.
    pub(super) fn wait(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push(done);
        if self.accepted {
            self.accept();
        }
    }

    pub(super) fn accept(&mut self) {
        self.accepted = true;
        // Who does not listen any more has left its channels, or is about to.
        for done in self.waiting.drain(..) {
            let _ = done.send(());
        }
    }

    /// Leaves a channel; whether that was the last one.
    pub(super) fn leave(&mut self, channel: &Channel) -> bool {
        self.channels.remove(channel);
        self.channels.is_empty()
    }

    pub(super) fn is_at(&self, place: Place) -> bool {
        self.channels.values().all(|told| told.epoch == place.epoch && told.at == At::end(place.mark))
    }

    /// Its channels, each with what is to be said at the end of the replay.
    pub(super) fn end(&mut self) -> Vec<(Channel, Option<Arc<Frame>>)> {
        let end = |(channel, told): (Channel, Told)| {
            let body = match told {
                Told { asked: true, all, .. } => Some(Body::Recovered(all)),
                Told { all: false, .. } => Some(Body::Gap(0)),
                Told { .. } => None,
            };
            let frame = body.map(|body| Frame::new(&channel.to_string().into(), body));
            (channel, frame)
        };
        std::mem::take(&mut self.channels).into_iter().map(end).collect()
    }

    /// Behind which place it was not told everything.
    pub(super) fn at(&self) -> At {
        self.channels.values().map(|told| &told.at).min().cloned().unwrap_or(At::end(0))
    }

    /// Puts places right that mean nothing at this one, or behind which nothing is. Of who has come after the log was
    /// read nothing is known yet.
    pub(super) fn settle(&mut self, log: &Log, place: Place) {
        for told in self.channels.values_mut() {
            if told.epoch != place.epoch {
                (told.epoch, told.at, told.all) = (place.epoch, At::end(place.mark), false);
            }
            if told.at >= At::end(place.mark) || !log.covers(told.at.behind(), place) {
                continue;
            }
            told.all &= log.is_whole_behind(told.at.mark);
            if log.behind(told.at.behind(), 1).0.is_empty() {
                told.at = At::end(place.mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_again_is_another() {
        let channel = Channel::subscribed("closed:a").unwrap();
        let ticket = || {
            let mut behind = Behind::new(Arc::default());
            behind.add(channel.clone(), At::end(5), Some(1), true);
            behind.channels[&channel].ticket
        };
        assert_ne!(ticket(), ticket(), "a piece that is still being given to the one before is not for this one");
    }

    #[test]
    fn nothing_is_concluded_from_a_log_that_does_not_reach_back() {
        let place = Place { epoch: Some(1), mark: 9 };
        let channel = Channel::subscribed("closed:a").unwrap();
        let mut behind = Behind::new(Arc::default());
        behind.add(channel.clone(), At::end(5), Some(1), true);
        behind.settle(&Log::default(), place);
        assert_eq!((behind.at(), behind.is_at(place)), (At::end(5), false));
        // Of another store nothing is to be found.
        behind.add(channel, At::end(5), Some(2), true);
        behind.settle(&Log::default(), place);
        assert!(behind.is_at(place));
        let (_, told) = behind.end().pop().unwrap();
        assert_eq!(told.unwrap().body, Body::Recovered(false));
    }
}
