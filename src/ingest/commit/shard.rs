//! The task that owns one shard's sequence of frames: sends one at a time and stays with it until
//! its outcome is certain.
//!
//! Started by `commit.rs`. A frame whose answer did not come is sent again, the same bytes with the
//! same sequence. When its requests have run out of time it is given up, and the next frame takes
//! its sequence: only one of the two can ever be counted.

use super::losses::Confirmed;
use super::pending::{Pending, Unlike, Work};
use super::refused;
use super::{CommitError, PartOutcome, REQUEST_DEADLINE, Shared};
use crate::clock::{self, Clock};
use crate::failpoint;
use crate::ingest::fold::RootDeltas;
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Calendar};
use crate::stats::source::RESERVED_PREFIX;
use crate::store::closing::drive_close;
use crate::store::kin::{Clash, Kin};
use crate::store::rules::Book;
use crate::store::{Acks, Answer, BucketDeltas, Durability, Frame, Life, Shard, Store, StoreError, When, WriterId};
use crate::telemetry::metrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a frame waits for more requests that are about to come, below saturation and at it.
const LINGER: Duration = Duration::from_millis(2);
const LINGER_SATURATED: Duration = Duration::from_millis(5);
/// A frame that took longer than this says that the store is the bottleneck.
const SATURATED: Duration = Duration::from_millis(2);
/// How long a store may be away before requests are turned away: a restart is not noticed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between attempts, growing.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How often an idle task asks the store for its clock, so that a request is not taken for an old one.
const REFRESH: Duration = Duration::from_secs(2);

/// How often a frame is made anew for the rules; a change of them asks for it once.
const MAX_RULES_ASKED: usize = 5;

/// How often a store that is away is tried.
const PROBE: Duration = Duration::from_millis(200);

pub(super) struct Task {
    store: Arc<dyn Store>,
    calendar: Arc<Calendar>,
    shard: Shard,
    shared: Arc<Shared>,
    writer: WriterId,
    /// Last sequence known to be taken.
    sequence: u64,
    /// Identity of the store's contents.
    epoch: i64,
    /// The store has had vectors: it wants to know which buckets meet.
    mixed: bool,
    /// The next sequence may be taken by a frame that was given up.
    doubtful: bool,
    refreshed: Instant,
    /// Requests in the last two frames, the newest first.
    recent: [usize; 2],
    last_flight: Duration,
    last_buckets: Vec<Bucket>,
    wake: Arc<Notify>,
    clock: Clock,
    confirmed: Confirmed,
    rules: Arc<Book>,
    /// The store has lost something: its rules may be others under the same number.
    rules_in_doubt: bool,
}

impl Task {
    pub(super) async fn new(
        store: Arc<dyn Store>,
        calendar: Arc<Calendar>,
        shard: Shard,
        shared: Arc<Shared>,
        wake: Arc<Notify>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let epoch = store.found(shard).await?;
        let rules = Arc::new(Book::open(Arc::clone(&store), Arc::clone(&calendar), shard).await?);
        let mut task = Self {
            store,
            calendar,
            shard,
            shared,
            writer: WriterId::random(),
            sequence: 0,
            epoch,
            mixed: false,
            doubtful: false,
            refreshed: clock::instant(),
            recent: [0; 2],
            last_flight: Duration::ZERO,
            last_buckets: Vec::new(),
            wake,
            confirmed: Confirmed::new(clock.now()),
            clock,
            rules,
            rules_in_doubt: false,
        };
        task.refresh().await?;
        Ok(task)
    }

    pub(super) fn rules(&self) -> Arc<Book> {
        Arc::clone(&self.rules)
    }

    /// Commits until all senders of the queue are gone and everything in it is answered.
    pub(super) async fn run(mut self, mut queue: UnboundedReceiver<Work>) {
        let mut pending = Pending::default();
        // A work that did not fit into the last frame.
        let mut over: Option<Work> = None;
        loop {
            let down = self.shared.down.load(Ordering::Relaxed);
            if self.refreshed.elapsed() > if down { PROBE } else { REFRESH } {
                self.look_after().await;
            }
            let waiting = over.take().or_else(|| queue.try_recv().ok());
            let idle = waiting.is_none();
            let first = match waiting {
                Some(work) => work,
                None => match timeout(if down { PROBE } else { REFRESH }, queue.recv()).await {
                    Ok(Some(work)) => work,
                    Ok(None) => return,
                    Err(_) => continue,
                },
            };
            self.follow_rules(&mut pending);
            over = self.fill(&mut pending, first, idle, &mut queue).await;
            if !pending.is_empty() {
                self.commit(&mut pending, &mut queue).await;
            }
        }
    }

    /// Takes what is waiting, and lingers a little for requests that are about to come: as many as
    /// lately came together. Returns a work that no longer fits.
    async fn fill(
        &mut self,
        pending: &mut Pending,
        first: Work,
        idle: bool,
        queue: &mut UnboundedReceiver<Work>,
    ) -> Option<Work> {
        let until = clock::instant() + if self.last_flight > SATURATED { LINGER_SATURATED } else { LINGER };
        let mut expected = None;
        let mut next = Some(first);
        loop {
            match next.take() {
                Some(work) if work.arrival.deadline <= clock::instant() => {
                    work.answer(PartOutcome::Failed(not_in_time()));
                }
                Some(work) if pending.is_full_for(&work) => return Some(work),
                Some(work) => match pending.unlike_within(&work) {
                    None => pending.add(work),
                    Some(unlike) => work.answer(refusal(unlike)),
                },
                None => {}
            }
            if let Ok(work) = queue.try_recv() {
                next = Some(work);
                continue;
            }
            // Those just answered come again beside those that waited meanwhile; if nobody waited,
            // as many as in one of the last frames. A lone client expects nobody and goes at once.
            let waiting = pending.works.len();
            let [last, before] = self.recent;
            let expected = *expected.get_or_insert(if idle { last.max(before) } else { last + waiting });
            if waiting >= expected {
                return None;
            }
            match timeout_at(until, queue.recv()).await {
                Ok(Some(work)) => next = Some(work),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Brings a frame of everything pending to its end and answers its works.
    async fn commit(&mut self, pending: &mut Pending, queue: &mut UnboundedReceiver<Work>) {
        let started = clock::instant();
        self.recent = [pending.works.len(), self.recent[0]];
        let end = self.settle(pending, queue).await;
        self.last_flight = started.elapsed();
        metrics::committed(self.last_flight, end.is_ok());
        for mut work in pending.take_works() {
            let outcome = match &end {
                Ok(()) => PartOutcome::Counted { too_late: std::mem::take(&mut work.too_late) },
                Err(e) => PartOutcome::Failed(e.clone()),
            };
            work.answer(outcome);
        }
    }

    /// Sends the frame, made anew where the store asks for it, until its end is certain. `Ok`: the
    /// works still pending are counted. `Err`: they are not, or nobody can say.
    async fn settle(&mut self, pending: &mut Pending, queue: &mut UnboundedReceiver<Work>) -> Result<(), CommitError> {
        // A frame without answer may still be on its way when another answer asks for a new one.
        let mut unknown = false;
        let mut seen_before = SeenBefore::default();
        let mut asked_for_rules = 0;
        // The checksum of a frame that is refused for its lengths, and may yet be counted when it arrives once more: what
        // it clashed with may have closed by then. An empty frame takes its place before anybody is told.
        let mut refused: Option<u32> = None;
        while !pending.is_empty() {
            let mut frame = pending.frame(self.writer, self.sequence + 1);
            if seen_before.to_be_placed || refused.is_some() {
                frame = Frame::new(self.writer, self.sequence + 1, frame.received, Vec::new(), Vec::new());
            }
            if self.mixed || pending.has_vectors() {
                frame.kin = Some(Kin::of(&self.calendar, &frame.deltas));
            }
            let sent = self.clock.now();
            match self.send(&frame, &mut unknown, queue).await? {
                Answer::Applied if refused.is_some() => {
                    self.taken(sent);
                    (refused, unknown) = (None, false);
                }
                // It had arrived before.
                Answer::Dup { checksum } if refused == Some(checksum) => {
                    self.taken(sent);
                    return Ok(());
                }
                Answer::Dup { checksum } if refused.is_some() && (checksum == frame.checksum || self.doubtful) => {
                    self.taken(sent);
                    (refused, unknown) = (None, false);
                }
                Answer::Applied if seen_before.to_be_placed => self.placed(sent, &mut seen_before),
                Answer::Applied => {
                    failpoint::pass("frame-applied");
                    metrics::frame(frame.deltas.iter().map(|d| d.sources.len()).sum());
                    self.taken(sent);
                    self.wake_for_new(&frame);
                    return Ok(());
                }
                Answer::Dup { checksum } if checksum == frame.checksum => {
                    if !seen_before.to_be_placed {
                        self.taken(sent);
                        return Ok(());
                    }
                    // An empty one that was given up may have come before the keys.
                    let given_up = self.doubtful;
                    self.placed(sent, &mut seen_before);
                    seen_before.to_be_placed = given_up;
                }
                // The frame that was given up had arrived; this one takes the next place.
                Answer::Dup { .. } if self.doubtful => self.taken(sent),
                Answer::Dup { .. } => self.go_on_as_new("another process writes under this node's id"),
                Answer::Gap { last } => {
                    (seen_before, refused) = (SeenBefore::default(), None);
                    self.lost(false, last);
                }
                Answer::Lost => {
                    (seen_before, refused) = (SeenBefore::default(), None);
                    self.found_again().await.map_err(|e| self.given_up(unknown, &e))?;
                }
                Answer::Stale => {
                    self.refresh().await.map_err(|e| CommitError::NotApplied(e.to_string()))?;
                    return Err(CommitError::NotApplied("the request was held up for too long".to_owned()));
                }
                Answer::Seen(seen) if self.store.durability() == Durability::Disk || seen_before.has(&frame, &seen) => {
                    answer_seen(pending, &frame, &seen);
                }
                Answer::Seen(seen) => seen_before = SeenBefore::these(&frame, &seen),
                // It would go on for ever where a store says that it has rules and does not have them.
                Answer::Rules { newest } if asked_for_rules >= MAX_RULES_ASKED => {
                    let reason = format!("version {newest} of its rules cannot be had");
                    return Err(self.given_up(unknown, &StoreError::Unavailable(reason)));
                }
                Answer::Rules { newest } => {
                    asked_for_rules += 1;
                    self.rules.follow(newest).await.map_err(|e| self.given_up(unknown, &e))?;
                    self.follow_rules(pending);
                }
                Answer::Closing(lives) => self.finish_closes(lives).await.map_err(|e| self.given_up(unknown, &e))?,
                Answer::Late(buckets) => answer_late(pending, &frame, &buckets),
                Answer::Mixed => self.mixed = true,
                Answer::Unlike(_) if unknown => refused = Some(frame.checksum),
                Answer::Unlike(clashes) => answer_unlike(pending, &frame, &clashes),
            }
            pending.merge_again();
        }
        Ok(())
    }

    /// A frame is not sent again. If one was without answer before, it may still arrive.
    fn given_up(&mut self, unknown: bool, why: &StoreError) -> CommitError {
        self.doubtful |= unknown;
        if unknown { CommitError::Unknown(why.to_string()) } else { CommitError::NotApplied(why.to_string()) }
    }

    /// The next sequence is in the store: with it, no frame of this sequence can be counted any more.
    fn taken(&mut self, sent: Millis) {
        self.sequence += 1;
        self.confirmed.note(self.sequence, sent, self.clock.now());
        self.doubtful = false;
    }

    /// The keys that were seen are older than a frame of this writer.
    fn placed(&mut self, sent: Millis, seen_before: &mut SeenBefore) {
        self.taken(sent);
        seen_before.to_be_placed = false;
    }

    /// A bucket that was not in the last frame may be due before the rollover thinks of looking.
    fn wake_for_new(&mut self, frame: &Frame) {
        let buckets: Vec<Bucket> = frame.deltas.iter().map(|d| d.bucket).collect();
        if buckets.iter().any(|bucket| !self.last_buckets.contains(bucket)) {
            self.wake.notify_one();
        }
        self.last_buckets = buckets;
    }

    /// Sends a frame until its outcome is known. `NotApplied`: it is not in the store. `Unknown`:
    /// its requests have run out of time.
    async fn send(
        &mut self,
        frame: &Frame,
        unknown: &mut bool,
        queue: &mut UnboundedReceiver<Work>,
    ) -> Result<Answer, CommitError> {
        let started = clock::instant();
        let mut pause = RETRY_MIN;
        loop {
            failpoint::pass("frame-made");
            let reason = match self.store.apply(self.shard, frame).await {
                Ok(answer) => return Ok(answer),
                Err(StoreError::Refused(reason)) if !*unknown => {
                    tracing::error!("the store refuses a frame: {reason}");
                    return Err(CommitError::NotApplied(reason));
                }
                Err(StoreError::Unknown(reason)) => {
                    *unknown = true;
                    reason
                }
                Err(StoreError::Unavailable(reason) | StoreError::Refused(reason)) => reason,
            };
            if started.elapsed() > PATIENCE {
                self.turn_away(&reason, queue);
                if !*unknown {
                    return Err(CommitError::NotApplied(format!("the store is unavailable: {reason}")));
                }
            }
            if started.elapsed() > REQUEST_DEADLINE {
                self.doubtful = true;
                return Err(CommitError::Unknown(format!("the store did not answer in time: {reason}")));
            }
            sleep(pause).await;
            pause = (2 * pause).min(RETRY_MAX);
        }
    }

    /// Turns requests away at once from now on, those in the queue too: memory stays flat.
    fn turn_away(&self, reason: &str, queue: &mut UnboundedReceiver<Work>) {
        if !self.shared.down.swap(true, Ordering::Relaxed) {
            tracing::error!("the store {} does not answer, requests are turned away: {reason}", self.store.name());
        }
        self.shared.set_trouble(Some(reason));
        while let Ok(work) = queue.try_recv() {
            work.answer(PartOutcome::Failed(CommitError::NotApplied("the store does not answer".to_owned())));
        }
    }

    /// Asks for the head; opens the door again after the store was away.
    async fn look_after(&mut self) {
        match self.healthy().await {
            Ok(()) => {
                self.shared.set_trouble(None);
                if self.shared.down.swap(false, Ordering::Relaxed) {
                    tracing::info!("the store {} answers again", self.store.name());
                }
            }
            // Whether to turn requests away is for a frame to find out, which is more patient.
            Err(e) => {
                self.shared.set_trouble(Some(&e.to_string()));
                tracing::debug!("the store's head cannot be read: {e}");
            }
        }
    }

    /// A store whose replicas do not confirm answers what is asked of it, and could take nothing.
    async fn healthy(&mut self) -> Result<(), StoreError> {
        self.refresh().await?;
        match self.store.acks() {
            Acks::Store => Ok(()),
            Acks::Replica => self.store.barrier(self.shard).await,
        }
    }

    /// Reads the store's clock, and whether it still has what it confirmed to this writer.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        self.refreshed = clock::instant();
        let head = self.store.head(self.shard, self.writer).await?;
        self.shared.elapsed.store(head.elapsed, Ordering::Relaxed);
        match head.epoch {
            None => self.found_again().await?,
            Some(epoch) if epoch != self.epoch && head.sequence < self.sequence => {
                self.epoch = epoch;
                self.lost(true, 0);
            }
            Some(_) if head.sequence < self.sequence => self.lost(false, head.sequence),
            // A new one after a drain: what this writer has brought is still there.
            Some(epoch) => self.epoch = epoch,
        }
        self.rules.follow(head.rules).await?;
        if std::mem::take(&mut self.rules_in_doubt) {
            self.rules.load().await?;
        }
        Ok(())
    }

    /// Makes frames by the rules that are known now. Works that these do not let into one frame are answered.
    fn follow_rules(&self, pending: &mut Pending) {
        let history = self.rules.current();
        if Arc::ptr_eq(&history, pending.history()) {
            return;
        }
        for (work, unlike) in pending.follow(history) {
            work.answer(unlike.map_or_else(rules_have_changed, refusal));
        }
    }

    async fn found_again(&mut self) -> Result<(), StoreError> {
        self.epoch = self.store.found(self.shard).await?;
        self.lost(true, 0);
        Ok(())
    }

    /// The store knows this writer's frames up to `last` only, or has nothing at all.
    fn lost(&mut self, everything: bool, last: u64) {
        self.rules_in_doubt = true;
        let loss = self.confirmed.loss(everything, last, self.sequence, self.clock.now());
        metrics::store_lost(loss.frames);
        let [from, to] = loss.window();
        tracing::error!(frames = loss.frames, %from, %to, "{loss}: what it confirmed between the two may be lost");
        self.shared.losses.lock().expect("no panic while it is held").add(loss);
        self.go_on_as_new("the store does not have the frames of this writer");
    }

    /// A writer whose sequence is broken is never used again.
    fn go_on_as_new(&mut self, why: &str) {
        self.confirmed = Confirmed::new(self.clock.now());
        let before = std::mem::replace(&mut self.writer, WriterId::random());
        self.sequence = 0;
        self.doubtful = false;
        tracing::error!(%before, now = %self.writer, epoch = self.epoch, "{why}; going on under a new writer id");
    }

    async fn finish_closes(&self, lives: Vec<Life>) -> Result<(), StoreError> {
        let started = clock::instant();
        for life in lives {
            loop {
                match drive_close(&*self.store, self.shard, &self.calendar, life, When::InTime).await {
                    Ok(_) => break,
                    Err(e) if started.elapsed() > PATIENCE => return Err(e),
                    Err(_) => sleep(RETRY_MIN).await,
                }
            }
        }
        Ok(())
    }
}

/// On a store that may lose its last seconds: keys that had been counted before this writer's last frame.
///
/// The frame that counted them may have been confirmed to nobody, so nobody would miss it. So an empty frame
/// takes its place behind it before the works are told that they are duplicates, if their keys are still there
/// then. Should the store go back behind the keys, it goes back behind that frame, which is noticed.
#[derive(Default)]
struct SeenBefore {
    keys: Vec<[u8; 16]>,
    /// The empty frame is still to be sent.
    to_be_placed: bool,
}

impl SeenBefore {
    fn these(frame: &Frame, seen: &[(usize, [u8; 16])]) -> Self {
        Self { keys: seen.iter().map(|(index, _)| frame.keys[*index].id).collect(), to_be_placed: true }
    }

    fn has(&self, frame: &Frame, seen: &[(usize, [u8; 16])]) -> bool {
        seen.iter().all(|(index, _)| self.keys.contains(&frame.keys[*index].id))
    }
}

fn not_in_time() -> CommitError {
    CommitError::NotApplied("the store was not reached in time".to_owned())
}

fn refusal(Unlike { source_id, held, given }: Unlike) -> PartOutcome {
    PartOutcome::Failed(CommitError::Unlike { source_id, held, given, partly: false })
}

/// For one of two works that were let into one frame and are not any more.
fn rules_have_changed() -> PartOutcome {
    PartOutcome::Failed(CommitError::NotApplied("the rules have changed meanwhile".to_owned()))
}

/// Answers the works whose keys have been counted and takes them out.
fn answer_seen(pending: &mut Pending, frame: &Frame, seen: &[(usize, [u8; 16])]) {
    let recorded = |work: &Work| {
        let key = work.key?;
        let (_, recorded) = seen.iter().find(|(index, _)| frame.keys[*index].id == key.id)?;
        Some((*recorded, key.fingerprint))
    };
    for work in pending.take_if(|work| recorded(work).is_some()) {
        let same = recorded(&work).and_then(|(recorded, asked)| refused::too_late(recorded, asked, &work.part));
        work.answer(match same {
            Some(too_late) => PartOutcome::Duplicate { too_late },
            None => PartOutcome::Failed(CommitError::KeyReused),
        });
    }
}

/// Leaves out the readings of which a bucket is too late; answers the works of which nothing is left. One with
/// a key stays: what it was answered is recorded.
fn answer_late(pending: &mut Pending, frame: &Frame, buckets: &[usize]) {
    let late: Vec<_> = buckets.iter().map(|index| frame.deltas[*index].bucket).collect();
    for Work { part, too_late, .. } in &mut pending.works {
        let is_late = |(_, deltas): &(usize, &RootDeltas)| deltas.buckets.iter().any(|bucket| late.contains(bucket));
        let indices = part.deltas.iter().enumerate().filter(is_late).map(|(index, _)| index);
        // Of several buckets one may have been too late before.
        let new: Vec<usize> = indices.filter(|index| !too_late.contains(index)).collect();
        too_late.extend(new);
    }
    let nothing_left = |work: &Work| work.key.is_none() && work.too_late.len() == work.part.deltas.len();
    for mut work in pending.take_if(nothing_left) {
        let too_late = std::mem::take(&mut work.too_late);
        work.answer(PartOutcome::Counted { too_late });
    }
}

/// What is told of a clash: the source or the group, the length held, and the one given.
type Named = (Arc<str>, usize, usize);

/// Refuses the works that hold readings of another length than the store has of their source, or of a group of it.
fn answer_unlike(pending: &mut Pending, frame: &Frame, clashes: &[Clash]) {
    // By the bucket and what a work has brought to it: that itself, or a member of the group.
    let mut brought: HashMap<(Bucket, Arc<str>), Named> = HashMap::new();
    for &Clash { delta, source, held } in clashes {
        let BucketDeltas { bucket, sources } = &frame.deltas[delta];
        let (id, moments) = &sources[source];
        let clash = (Arc::clone(id), held, moments.length());
        if id.starts_with(RESERVED_PREFIX) {
            let mut members = sources.iter().map(|(member, _)| member).collect::<Vec<_>>();
            members.retain(|member| pending.groups_of(bucket, member).contains(id));
            for member in members {
                brought.entry((*bucket, Arc::clone(member))).or_insert_with(|| clash.clone());
            }
        } else {
            brought.insert((*bucket, Arc::clone(id)), clash);
        }
    }
    let clashes = brought;
    let found = |work: &Work| {
        let brought = work.part.deltas.iter().enumerate().filter(|(index, _)| !work.too_late.contains(index));
        let mut pairs = brought.flat_map(|(_, deltas)| {
            deltas.buckets.iter().flat_map(|bucket| deltas.sources.iter().map(|(id, _)| (*bucket, Arc::clone(id))))
        });
        pairs.find_map(|pair| clashes.get(&pair).cloned())
    };
    for work in pending.take_if(|work| found(work).is_some()) {
        if let Some((source_id, held, given)) = found(&work) {
            work.answer(PartOutcome::Failed(CommitError::Unlike { source_id, held, given, partly: false }));
        }
    }
}
