//! What the rollover is asked to do besides its daily work: drain the store, forget a source.
//!
//! Handed out by `rollover.rs`, which carries the orders out between two ticks, so that no page is on
//! its way to the sink meanwhile; given by `http/`. An order outlives the client that gave it. There is
//! one drain at a time: who asks for another joins it.

use crate::stats::calendar::Bucket;
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Orders to forget that wait for their turn; each is a matter of seconds.
const MAX_WAITING: usize = 64;

const STOPPING: &str = "the service is stopping";

/// How far a drain is, or came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Buckets it still has to look at; closing one may add those it moves up into.
    pub buckets_left: usize,
    /// Lives whose rows the sink has got.
    pub buckets_written: usize,
    pub buckets_closed: usize,
    /// Lines in the sink, corrections included.
    pub rows_written: usize,
    /// What is open at the end: its readings came while it was drained.
    pub still_open: usize,
    /// The first of them.
    pub first_open: Vec<Bucket>,
}

/// The last drain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// There was none since the process started.
    #[default]
    Never,
    Running(DrainReport),
    Done(DrainReport),
    /// It broke off. What it did is done, the rest is where it was; it may be repeated.
    Failed(DrainReport, String),
}

impl Drain {
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

/// What was held of a forgotten source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// States in open buckets.
    pub states: usize,
    /// Rows of the sink.
    pub rows: usize,
}

/// Why an order was not carried out, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; it may be repeated")]
pub struct OrderError(pub(super) String);

type Answer = oneshot::Sender<Result<Forgotten, OrderError>>;

/// Gives orders; clones give them to the same rollover.
#[derive(Clone, Debug)]
pub struct Orders {
    arrived: Arc<Notify>,
    drain: watch::Sender<Drain>,
    forget: mpsc::Sender<(Arc<str>, Answer)>,
}

impl Orders {
    /// Starts a drain, or joins the one that runs. What it comes to can be waited for.
    #[must_use]
    pub fn drain(&self) -> watch::Receiver<Drain> {
        self.drain.send_if_modified(|drain| {
            let starts = !drain.is_running();
            if starts && self.forget.is_closed() {
                *drain = Drain::Failed(DrainReport::default(), STOPPING.to_owned());
            } else if starts {
                *drain = Drain::Running(DrainReport::default());
            }
            starts
        });
        self.arrived.notify_one();
        self.drain.subscribe()
    }

    /// How the last drain stands.
    #[must_use]
    pub fn last_drain(&self) -> Drain {
        self.drain.borrow().clone()
    }

    /// Forgets a source: its states in the store, then its rows in the sink.
    ///
    /// # Errors
    /// A part may have gone. To repeat it does no harm and goes on with the rest.
    pub async fn forget(&self, source: Arc<str>) -> Result<Forgotten, OrderError> {
        let (answer, answered) = oneshot::channel();
        self.forget.try_send((source, answer)).map_err(|error| match error {
            TrySendError::Full(_) => OrderError("too many sources are being forgotten".to_owned()),
            TrySendError::Closed(_) => OrderError(STOPPING.to_owned()),
        })?;
        self.arrived.notify_one();
        answered.await.unwrap_or_else(|_| Err(OrderError(STOPPING.to_owned())))
    }
}

/// The rollover's end of the orders.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) orders: Orders,
    forget: mpsc::Receiver<(Arc<str>, Answer)>,
}

impl Desk {
    pub(super) fn new() -> Self {
        let (forget, received) = mpsc::channel(MAX_WAITING);
        let orders = Orders { arrived: Arc::default(), drain: watch::Sender::default(), forget };
        Self { orders, forget: received }
    }

    /// Rings when an order arrives.
    pub(super) fn arrived(&self) -> Arc<Notify> {
        Arc::clone(&self.orders.arrived)
    }

    pub(super) fn next_to_forget(&mut self) -> Option<(Arc<str>, Answer)> {
        self.forget.try_recv().ok()
    }

    pub(super) fn is_drain_wanted(&self) -> bool {
        self.orders.drain.borrow().is_running()
    }

    /// Says how the drain stands.
    pub(super) fn drain_stands(&self, drain: Drain) {
        self.orders.drain.send_replace(drain);
    }
}

impl Drop for Desk {
    /// Nobody waits for a rollover that has ended.
    fn drop(&mut self) {
        // First, so that no drain begins after this one look.
        self.forget.close();
        self.orders.drain.send_if_modified(|drain| {
            let Drain::Running(report) = drain else { return false };
            *drain = Drain::Failed(std::mem::take(report), STOPPING.to_owned());
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_a_rollover_that_has_ended() {
        let desk = Desk::new();
        let orders = desk.orders.clone();
        let failed = Drain::Failed(DrainReport::default(), STOPPING.to_owned());
        let waiting = orders.drain();
        let forgetting = tokio::spawn({
            let orders = orders.clone();
            async move { orders.forget("a".into()).await }
        });
        tokio::task::yield_now().await;
        drop(desk);
        assert_eq!(*waiting.borrow(), failed);
        let stopping = Err(OrderError(STOPPING.to_owned()));
        assert_eq!(forgetting.await.unwrap(), stopping);
        assert_eq!(*orders.drain().borrow(), failed);
        assert_eq!(orders.forget("a".into()).await, stopping);
    }

    #[tokio::test]
    async fn orders_that_wait_are_bounded() {
        let desk = Desk::new();
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let orders = desk.orders.clone();
                tokio::spawn(async move { orders.forget("a".into()).await })
            })
            .collect();
        while desk.forget.len() < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let refused = desk.orders.forget("a".into()).await.unwrap_err();
        assert!(refused.to_string().contains("too many"), "{refused}");
        drop(desk);
        for waiting in waiting {
            assert!(waiting.await.unwrap().is_err());
        }
    }
}
