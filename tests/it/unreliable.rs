//! A store that fails on demand: the oracle behind faults that a network and a server can have.
//!
//! Used by `commit.rs` and `undone.rs`. Faults hit `apply`, in the order given, one per call; while it is
//! down, every call.

use crate::oracle::Oracle;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Family, Period};
use meanwhile::stats::complete::Complete;
use meanwhile::store::nodes::{Node, Registered};
use meanwhile::store::rules::{Changed, Version};
use meanwhile::store::{
    AckLog, Acked, Answer, Closed, Due, Durability, Frame, Head, Life, Open, OpenBuckets, Page, Policy, Sealed, Shard,
    Store, StoreError, When, WriterId,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The call works.
    None,
    /// Not carried out, and said so.
    Unavailable,
    /// Not carried out, no answer.
    LostCall,
    /// Carried out, no answer.
    LostAnswer,
    /// No answer, and not carried out before [`Unreliable::deliver`].
    Delayed,
}

pub(crate) struct Unreliable {
    pub(crate) inner: Oracle,
    faults: Mutex<VecDeque<Fault>>,
    down: AtomicBool,
    /// Every page comes from a server that has started again: the cursor leads nowhere.
    restarting: AtomicBool,
    /// Only closes do not work.
    closes_fail: AtomicBool,
    /// Connections beyond the first.
    renewed: AtomicU64,
    delayed: Mutex<Vec<Frame>>,
    /// Frames that came, repetitions included.
    pub(crate) calls: AtomicUsize,
    /// Each call takes one of these permits.
    pub(crate) gate: Semaphore,
}

impl Unreliable {
    pub(crate) fn new(inner: Oracle) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            down: AtomicBool::new(false),
            restarting: AtomicBool::new(false),
            closes_fail: AtomicBool::new(false),
            renewed: AtomicU64::new(0),
            delayed: Mutex::default(),
            calls: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn set_restarting(&self, restarting: bool) {
        self.restarting.store(restarting, Ordering::SeqCst);
    }

    pub(crate) fn set_closes_fail(&self, fail: bool) {
        self.closes_fail.store(fail, Ordering::SeqCst);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Carries out the delayed calls now, as a network would that had held them back.
    pub(crate) async fn deliver(&self) {
        let delayed = std::mem::take(&mut *self.delayed.lock().unwrap());
        for frame in delayed {
            self.inner.apply(0, &frame).await.unwrap();
        }
    }

    fn reach(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("down".to_owned()));
        }
        Ok(())
    }
}

fn no_answer() -> StoreError {
    StoreError::Unknown("no answer".to_owned())
}

#[async_trait::async_trait]
impl Store for Unreliable {
    fn name(&self) -> String {
        "unreliable".to_owned()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn policy(&self) -> Policy {
        self.inner.policy()
    }

    fn connection(&self) -> u64 {
        self.inner.connection() + self.renewed.load(Ordering::SeqCst)
    }

    async fn head(&self, shard: Shard, writer: WriterId) -> Result<Head, StoreError> {
        self.reach()?;
        self.inner.head(shard, writer).await
    }

    async fn found(&self, shard: Shard) -> Result<i64, StoreError> {
        self.reach()?;
        self.inner.found(shard).await
    }

    async fn apply(&self, shard: Shard, frame: &Frame) -> Result<Answer, StoreError> {
        self.gate.acquire().await.unwrap().forget();
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.reach()?;
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::None => self.inner.apply(shard, frame).await,
            Fault::Unavailable => Err(StoreError::Unavailable("loading".to_owned())),
            Fault::LostCall => Err(no_answer()),
            Fault::LostAnswer => {
                self.inner.apply(shard, frame).await?;
                Err(no_answer())
            }
            Fault::Delayed => {
                self.delayed.lock().unwrap().push(frame.clone());
                Err(no_answer())
            }
        }
    }

    async fn rules(&self, shard: Shard) -> Result<Vec<Version>, StoreError> {
        self.reach()?;
        self.inner.rules(shard).await
    }

    async fn change_rules(&self, shard: Shard, periods: &[Period], version: &Version) -> Result<Changed, StoreError> {
        self.reach()?;
        self.inner.change_rules(shard, periods, version).await
    }

    async fn restore_rules(&self, shard: Shard, versions: &[Version]) -> Result<(), StoreError> {
        self.reach()?;
        self.inner.restore_rules(shard, versions).await
    }

    async fn due(&self, shard: Shard, limit: usize) -> Result<Due, StoreError> {
        self.reach()?;
        self.inner.due(shard, limit).await
    }

    async fn seal(&self, shard: Shard, bucket: Bucket, family: &Family, when: When) -> Result<Sealed, StoreError> {
        self.reach()?;
        self.inner.seal(shard, bucket, family, when).await
    }

    async fn page(
        &self,
        shard: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        self.reach()?;
        if self.restarting.load(Ordering::SeqCst) {
            self.renewed.fetch_add(1, Ordering::SeqCst);
            return Ok(Some(Page::default()));
        }
        self.inner.page(shard, bucket, generation, cursor).await
    }

    async fn ack(&self, shard: Shard, life: Life) -> Result<Acked, StoreError> {
        self.reach()?;
        self.inner.ack(shard, life).await
    }

    async fn acked(&self, shard: Shard, after: Option<i64>, limit: usize) -> Result<AckLog, StoreError> {
        self.reach()?;
        self.inner.acked(shard, after, limit).await
    }

    async fn close(
        &self,
        shard: Shard,
        life: Life,
        family: &Family,
        cursor: u64,
        when: When,
    ) -> Result<Closed, StoreError> {
        self.reach()?;
        if self.closes_fail.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("loading".to_owned()));
        }
        self.inner.close(shard, life, family, cursor, when).await
    }

    async fn barrier(&self, shard: Shard) -> Result<(), StoreError> {
        self.reach()?;
        self.inner.barrier(shard).await
    }

    async fn open(
        &self,
        shard: Shard,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<Open, StoreError> {
        self.reach()?;
        self.inner.open(shard, sources, periods, from, to).await
    }

    async fn buckets(&self, shard: Shard, cursor: Option<&str>) -> Result<OpenBuckets, StoreError> {
        self.reach()?;
        self.inner.buckets(shard, cursor).await
    }

    async fn forget(&self, shard: Shard, source: &str, buckets: &[Bucket]) -> Result<usize, StoreError> {
        self.reach()?;
        self.inner.forget(shard, source, buckets).await
    }

    async fn drained(&self, shard: Shard) -> Result<(), StoreError> {
        self.reach()?;
        self.inner.drained(shard).await
    }

    async fn register(&self, node: &Node) -> Result<Vec<Registered>, StoreError> {
        self.reach()?;
        self.inner.register(node).await
    }

    async fn leave(&self, id: &str) -> Result<Vec<Registered>, StoreError> {
        self.reach()?;
        self.inner.leave(id).await
    }

    async fn complete(&self) -> Result<Complete, StoreError> {
        self.reach()?;
        self.inner.complete().await
    }

    async fn keep_complete(&self, complete: &Complete) -> Result<(), StoreError> {
        self.reach()?;
        self.inner.keep_complete(complete).await
    }
}
