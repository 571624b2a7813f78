//! Brings parts of requests into the store, in frames: one in flight per shard, and what arrives
//! meanwhile joins the next (group commit). A request is answered only after the store confirmed
//! every frame it travelled in.
//!
//! Called by `http/readings.rs`. Here: requests, their idempotency keys and their outcome. The task
//! that owns a shard's sequence of frames is in `commit/shard.rs`, the merging of parts in
//! `commit/pending.rs`, what a store has lost in `commit/losses.rs`.

mod groups;
mod losses;
mod pending;
mod refused;
mod shard;

use super::fold::{Part, RootDeltas};
use crate::clock::{self, Clock};
use crate::incidents;
use crate::mutant;
use crate::stats::Millis;
use crate::stats::calendar::Calendar;
use crate::stats::layout::SCALAR_DOUBLES;
use crate::stats::moments::numbers;
use crate::stats::source::RESERVED_PREFIX;
use crate::store::rules::Book;
use crate::store::{KeyRecord, Shard, Store, StoreError};
pub use losses::{Loss, Losses};
use pending::{Arrival, Work};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_128;

/// A request not brought to the store by then is given up; the longest a client waits.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Doubles of states that may wait for the store, of all requests together: 1,500,000 of numbers, about 150 MB.
pub const MAX_WAITING_DOUBLES: usize = 1_500_000 * SCALAR_DOUBLES;

/// One request for the committer.
#[derive(Debug)]
pub struct Request {
    pub parts: Vec<Part>,
    /// Without a key a client's own retry counts twice.
    pub key: Option<RequestKey>,
}

/// The idempotency key of a request, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Hash of (token, key).
    pub id: u128,
    /// Hash of the decompressed body and the query; what is recorded differs in its last 32 bits if a part was
    /// too late.
    pub fingerprint: u128,
    pub ttl: Millis,
}

impl RequestKey {
    /// The record of one part: parts are cut alike whenever the request is repeated.
    fn part(&self, index: usize) -> KeyRecord {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..].copy_from_slice(&(index as u64).to_le_bytes());
        KeyRecord { id: xxh3_128(&bytes).to_le_bytes(), fingerprint: self.fingerprint.to_le_bytes(), ttl: self.ttl }
    }
}

/// A request whose readings are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Every part had been counted before, under the same key with the same body.
    pub duplicate: bool,
    /// Under `late = refuse`: the (part, deltas of the part) that were too late and are not counted; a
    /// repetition under the same key is told the same.
    pub too_late: Vec<(usize, usize)>,
}

/// A request that was not, or maybe not, counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// More is waiting than the node holds in memory. Nothing was counted.
    #[error("too many readings are waiting for the store")]
    Busy,
    /// Nothing was counted.
    #[error("{0}")]
    NotApplied(String),
    /// Some or all of it may have been counted: repeat with the same key.
    #[error("{0}")]
    Unknown(String),
    /// The key was used with another body. Nothing of this request was counted.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// Readings of a source that are of another length than those it has in the same time. They are not counted;
    /// if `partly`, other parts of the request are.
    #[error(
        "{} has readings of {} in the same time, and these are of {}: they could not be put together",
        named(source_id),
        numbers(*held),
        numbers(*given)
    )]
    Unlike { source_id: Arc<str>, held: usize, given: usize, partly: bool },
}

/// A source, or a group of a source of the request.
fn named(id: &str) -> String {
    if id.starts_with(RESERVED_PREFIX) {
        format!("\"{id}\", a group that the rules put a source of the request into,")
    } else {
        format!("source \"{id}\"")
    }
}

/// What became of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PartOutcome {
    /// In the store, but for these deltas of the part, which were too late.
    Counted {
        too_late: Vec<usize>,
    },
    /// Counted before, but for these.
    Duplicate {
        too_late: Vec<usize>,
    },
    Failed(CommitError),
}

type Outcome = Result<Committed, CommitError>;

/// What the committer and its shard's task know together.
#[derive(Debug, Default)]
struct Shared {
    /// The store's `elapsed` as last heard. Never ahead of the store's, so a request looks older
    /// than it is, not younger.
    elapsed: AtomicI64,
    /// The store does not answer: new requests are turned away at once.
    down: AtomicBool,
    /// What the store said last instead of an answer; it is asked every 2 s at least.
    trouble: Mutex<Option<String>>,
    losses: Mutex<Losses>,
}

impl Shared {
    fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("no panic while it is held").clone()
    }

    fn losses(&self) -> Losses {
        self.losses.lock().expect("no panic while it is held").clone()
    }

    fn set_trouble(&self, reason: Option<&str>) {
        *self.trouble.lock().expect("no panic while it is held") = reason.map(str::to_owned);
    }
}

/// See the module. Cheap to clone; all clones are one committer.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::UnboundedSender<Work>,
    waiting: Arc<Semaphore>,
    shared: Arc<Shared>,
    rules: Arc<Book>,
    /// One live request per key; others with the same key wait for its outcome.
    live: Arc<Mutex<HashMap<u128, LiveRequest>>>,
}

struct LiveRequest {
    fingerprint: u128,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Committer {
    /// Learns where the store stands (founding it if it is new) and starts the task that commits.
    /// The task ends when all clones of the committer are gone and all requests are answered. It
    /// notifies `wake` when a bucket appears that the rollover may not know of. `clock` only dates losses.
    pub async fn start(
        store: Arc<dyn Store>,
        calendar: Arc<Calendar>,
        wake: Arc<Notify>,
        clock: Clock,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let shard: Shard = 0;
        let shared = Arc::new(Shared::default());
        let (queue, works) = mpsc::unbounded_channel();
        let task = shard::Task::new(store, calendar, shard, Arc::clone(&shared), wake, clock).await?;
        let rules = task.rules();
        let task = incidents::spawn("committer", task.run(works));
        let waiting = Arc::new(Semaphore::new(MAX_WAITING_DOUBLES));
        Ok((Self { queue, waiting, shared, rules, live: Arc::default() }, task))
    }

    /// Counts a request, or says that it was not or maybe not counted.
    ///
    /// Goes on to the end even if the caller is dropped: a client that hangs up must not leave a
    /// key half used.
    pub async fn commit(&self, request: Request) -> Outcome {
        if request.parts.is_empty() {
            return Ok(Committed { duplicate: false, too_late: Vec::new() });
        }
        let committer = self.clone();
        let run = incidents::carried(async move {
            match request.key {
                None => committer.commit_parts(request.parts, None).await,
                Some(key) => committer.commit_keyed(request.parts, key).await,
            }
        });
        run.await.unwrap_or_else(|_| Err(CommitError::Unknown("the program is stopping".to_owned())))
    }

    /// The rules by which frames are made.
    #[must_use]
    pub fn rules(&self) -> &Arc<Book> {
        &self.rules
    }

    /// What the store has lost of what it had confirmed to this process since its start.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.shared.losses()
    }

    /// Why the store cannot be reached, as of the last attempt, which is some seconds old at most.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    async fn commit_keyed(&self, parts: Vec<Part>, key: RequestKey) -> Outcome {
        if mutant::is(mutant::SAME_KEY_TWICE_IN_A_FRAME) {
            return self.commit_parts(parts, Some(key)).await;
        }
        let (tell, outcome) = watch::channel(None);
        let other = match self.live.lock().expect("no panic while it is held").entry(key.id) {
            Entry::Occupied(live) if live.get().fingerprint != key.fingerprint => return Err(CommitError::KeyReused),
            Entry::Occupied(live) => Some(live.get().outcome.clone()),
            Entry::Vacant(free) => {
                free.insert(LiveRequest { fingerprint: key.fingerprint, outcome });
                None
            }
        };
        if let Some(mut other) = other {
            return match other.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
                Ok(Some(Ok(committed))) => Ok(Committed { duplicate: true, ..committed }),
                Ok(Some(Err(e))) => Err(e),
                Ok(None) | Err(_) => {
                    Err(CommitError::Unknown("the request with this key ended without outcome".into()))
                }
            };
        }
        let outcome = self.commit_parts(parts, Some(key)).await;
        self.live.lock().expect("no panic while it is held").remove(&key.id);
        tell.send_replace(Some(outcome.clone()));
        outcome
    }

    async fn commit_parts(&self, parts: Vec<Part>, key: Option<RequestKey>) -> Outcome {
        // Of all parts: one that has waited for the first is as old as the request.
        let arrival = Arrival {
            received: self.shared.elapsed.load(Ordering::Relaxed),
            deadline: clock::instant() + REQUEST_DEADLINE,
        };
        let mut total = Total::default();
        let (several, losses) = (parts.len() > 1, self.losses().times);
        let mut parts = parts.into_iter().enumerate();
        if let Some(key) = key {
            // Alone: if the key was used with another body, it says so before anything is counted.
            let (index, first) = parts.next().expect("requests have parts");
            let outcome = self.send(first, Some(key.part(index)), arrival)?.await;
            total.add(index, outcome.unwrap_or_else(|_| task_is_gone()));
            total.check_first()?;
        }
        let mut sent = Vec::new();
        for (index, part) in parts {
            match self.send(part, key.map(|key| key.part(index)), arrival) {
                Ok(answer) => sent.push((index, answer)),
                // What was sent before may be counted, so the whole is known only after it.
                Err(e) => total.add(index, PartOutcome::Failed(e)),
            }
        }
        for (index, answer) in sent {
            total.add(index, answer.await.unwrap_or_else(|_| task_is_gone()));
        }
        let committed = total.outcome()?;
        if several && self.losses().times != losses {
            // The answer would come after the time of which the loss is said to be.
            return Err(CommitError::Unknown("the store has lost commits, maybe a part of the request".to_owned()));
        }
        Ok(committed)
    }

    /// Queues a part, if there is room and the store answers.
    fn send(
        &self,
        part: Part,
        key: Option<KeyRecord>,
        arrival: Arrival,
    ) -> Result<oneshot::Receiver<PartOutcome>, CommitError> {
        if self.shared.down.load(Ordering::Relaxed) {
            return Err(CommitError::NotApplied("the store does not answer".to_owned()));
        }
        let doubles: usize = part.deltas.iter().map(RootDeltas::doubles).sum();
        let scalar = part.deltas.iter().all(RootDeltas::is_scalar);
        let share = u32::try_from(doubles).ok().and_then(|n| Arc::clone(&self.waiting).try_acquire_many_owned(n).ok());
        let share = share.ok_or(CommitError::Busy)?;
        let (answer, outcome) = oneshot::channel();
        let work = Work { part, key, arrival, too_late: Vec::new(), doubles, scalar, answer, _share: share };
        self.queue.send(work).map_err(|_| CommitError::NotApplied("the service is stopping".to_owned()))?;
        if mutant::is(mutant::ACK_BEFORE_STORE) {
            let (answer, outcome) = oneshot::channel();
            let _ = answer.send(PartOutcome::Counted { too_late: Vec::new() });
            return Ok(outcome);
        }
        Ok(outcome)
    }
}

/// The task answers every work it was given; only its panic can end it before.
fn task_is_gone() -> PartOutcome {
    PartOutcome::Failed(CommitError::Unknown("the committer has ended".to_owned()))
}

/// Outcomes of a request's parts, put together.
#[derive(Default)]
struct Total {
    counted: usize,
    duplicates: usize,
    too_late: Vec<(usize, usize)>,
    errors: Vec<CommitError>,
}

impl Total {
    fn add(&mut self, index: usize, outcome: PartOutcome) {
        let too_late = match outcome {
            PartOutcome::Counted { too_late } => {
                self.counted += 1;
                too_late
            }
            PartOutcome::Duplicate { too_late } => {
                self.duplicates += 1;
                too_late
            }
            PartOutcome::Failed(e) => return self.errors.push(e),
        };
        self.too_late.extend(too_late.into_iter().map(|deltas| (index, deltas)));
    }

    /// The first part of a keyed request failed: nothing else of it was sent.
    fn check_first(&self) -> Result<(), CommitError> {
        self.errors.first().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Some parts may be counted and others not: then the whole is unknown, to be repeated.
    fn outcome(mut self) -> Outcome {
        // One that is final first, if there is any.
        self.errors.sort_by_key(|error| matches!(error, CommitError::Unlike { .. }));
        let Some(mut error) = self.errors.pop() else {
            return Ok(Committed { duplicate: self.counted == 0, too_late: self.too_late });
        };
        let some_counted = self.counted + self.duplicates > 0;
        if let CommitError::Unlike { partly, .. } = &mut error {
            // Repeating does not help, so the answer says it, unless nobody knows of the others.
            *partly = some_counted;
            if !self.errors.iter().any(|e| matches!(e, CommitError::Unknown(_))) {
                return Err(error);
            }
        }
        let unknown = |e: &CommitError| matches!(e, CommitError::Unknown(_));
        if some_counted && !unknown(&error) {
            return Err(CommitError::Unknown(format!("a part of the request was counted, another was not: {error}")));
        }
        Err(self.errors.into_iter().find(unknown).unwrap_or(error))
    }
}
