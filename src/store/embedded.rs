//! The store without a server: redb in one file, one durable transaction per frame.
//!
//! Implements `Store` for `mod.rs`, verb for verb as the scripts under `lua/`; the comments there
//! give the reasons. Here are the file and its transactions; the verbs stand in a file each under
//! `embedded/`, tables and their keys in `embedded/tables.rs`. Every call runs on a
//! blocking thread; writes follow one another, reads see a snapshot.

mod acks;
mod apply;
mod clocks;
mod close;
mod due;
mod errors;
mod file;
mod lengths;
mod look;
mod nodes;
mod probe;
mod rules;
mod seal;
mod states;
mod tables;
#[cfg(test)]
mod tests;

pub use probe::probe;

use super::nodes::{Node, Registered};
use super::rules::{Changed, Version};
use super::{
    AckLog, Acked, Answer, Closed, Due, Durability, Frame, Head, Life, Open, OpenBuckets, Page, Policy, Sealed, Shard,
    Store, StoreError, When, WriterId,
};
use crate::clock::Clock;
use crate::failpoint;
use crate::incidents;
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Family, Period};
use crate::stats::complete::Complete;
use clocks::Clocks;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, WriteTransaction};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Layout of tables and states; another one in the file refuses to start.
const LAYOUT: u64 = 1;
/// The file in the store's directory.
const FILE: &str = "meanwhile.redb";

/// In the table of the layout, if the store was drained and not founded since.
const DRAINED: &str = "drained";

/// See the module.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    file: PathBuf,
    policy: Policy,
    clock: Clock,
    /// `None` after an I/O error: the file is opened, and so repaired, again by the next call.
    database: Mutex<Option<Arc<Database>>>,
    /// Counts openings.
    opened: AtomicU64,
    nodes: nodes::List,
}

/// Any error of redb, before it is known what it means for the call.
type DatabaseResult<T> = Result<T, redb::Error>;

impl EmbeddedStore {
    /// Opens the store in this directory, which is made if missing.
    ///
    /// # Errors
    /// `Refused` if another process has it open or its layout is another; `Unavailable` if the
    /// file cannot be read or written.
    pub fn open(directory: &Path, policy: Policy, clock: Clock) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory)
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", directory.display())))?;
        let inner = Inner {
            file: directory.join(FILE),
            policy,
            clock,
            database: Mutex::new(None),
            opened: AtomicU64::new(0),
            nodes: nodes::List::default(),
        };
        let database = inner.database()?;
        inner.check_layout(&database)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `work` in a transaction on a blocking thread and commits what it did if it says so.
    async fn write<T, F>(&self, durability: redb::Durability, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner, &WriteTransaction) -> DatabaseResult<Result<T, StoreError>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        on_blocking_thread(move || {
            let database = inner.database()?;
            let unavailable = |e: redb::Error| {
                inner.forget();
                StoreError::Unavailable(format!("{}: {e}", inner.file.display()))
            };
            let mut transaction = database.begin_write().map_err(|e| unavailable(e.into()))?;
            transaction.set_durability(durability).map_err(|e| unavailable(e.into()))?;
            let answer = work(&inner, &transaction).map_err(unavailable)??;
            failpoint::pass("embedded-changed");
            transaction.commit().map_err(|e| {
                inner.forget();
                StoreError::Unknown(format!("{}: {e}", inner.file.display()))
            })?;
            failpoint::pass("embedded-committed");
            Ok(answer)
        })
        .await
    }

    /// Runs `work` on a snapshot, on a blocking thread.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner, &redb::ReadTransaction) -> DatabaseResult<T> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        on_blocking_thread(move || {
            let database = inner.database()?;
            let answer = database.begin_read().map_err(redb::Error::from).and_then(|t| work(&inner, &t));
            answer.map_err(|e| StoreError::Unavailable(format!("{}: {e}", inner.file.display())))
        })
        .await
    }
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match incidents::blocking(work).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Unavailable("the program is stopping".to_owned())),
    }
}

impl Inner {
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut slot = self.database.lock().expect("no panic while it is held");
        if let Some(database) = &*slot {
            return Ok(Arc::clone(database));
        }
        let database = file::open(&self.file).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Refused(format!(
                "{} is in use by another process: stop it, or give this one another --store embedded:DIR",
                self.file.display()
            )),
            e => StoreError::Unavailable(format!("{}: {e}", self.file.display())),
        })?;
        self.opened.fetch_add(1, Ordering::SeqCst);
        let database = Arc::new(database);
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    fn forget(&self) {
        *self.database.lock().expect("no panic while it is held") = None;
    }

    /// Creates the tables of a new file, pins layout and shards, refuses others.
    fn check_layout(&self, database: &Database) -> Result<(), StoreError> {
        let prepare = || -> DatabaseResult<Option<(String, u64)>> {
            let transaction = database.begin_write()?;
            {
                let mut meta = transaction.open_table(tables::META)?;
                for (name, expected) in [("layout", LAYOUT), ("shards", 1)] {
                    let found = meta.get(name)?.map(|v| v.value());
                    match found {
                        None => drop(meta.insert(name, expected)?),
                        Some(found) if found != expected => return Ok(Some((name.to_owned(), found))),
                        Some(_) => {}
                    }
                }
                // Reading a table that was never opened for writing is an error.
                transaction.open_table(tables::HEADS)?;
                transaction.open_table(tables::WRITERS)?;
                transaction.open_table(tables::KEYS)?;
                transaction.open_table(tables::SLICES)?;
                transaction.open_table(tables::LIVES)?;
                transaction.open_table(tables::STATES)?;
                transaction.open_table(tables::DUE)?;
                transaction.open_table(tables::TOMBSTONES)?;
                transaction.open_table(tables::TOMBSTONES_BY_TIME)?;
                transaction.open_table(tables::FORGOTTEN)?;
                transaction.open_table(tables::LOG)?;
                transaction.open_table(tables::LOGGED)?;
                transaction.open_table(tables::ASIDE)?;
                transaction.open_table(tables::ERRORS)?;
                transaction.open_table(tables::COMPLETE)?;
                transaction.open_table(tables::RULES)?;
            }
            transaction.commit()?;
            Ok(None)
        };
        match prepare() {
            Ok(None) => Ok(()),
            Ok(Some((name, found))) => Err(StoreError::Refused(format!(
                "{} has {name} {found}, which this program does not know",
                self.file.display()
            ))),
            Err(e) => Err(StoreError::Unavailable(format!("{}: {e}", self.file.display()))),
        }
    }
}

#[async_trait::async_trait]
impl Store for EmbeddedStore {
    fn name(&self) -> String {
        format!("embedded:{}", self.inner.file.display())
    }

    fn durability(&self) -> Durability {
        Durability::Disk
    }

    fn policy(&self) -> Policy {
        self.inner.policy
    }

    fn connection(&self) -> u64 {
        self.inner.opened.load(Ordering::SeqCst)
    }

    async fn head(&self, shard: Shard, writer: WriterId) -> Result<Head, StoreError> {
        self.read(move |inner, t| {
            let clocks = Clocks::read(inner, &t.open_table(tables::HEADS)?, shard)?;
            let record = t.open_table(tables::WRITERS)?.get((shard, u64::from_be_bytes(writer.0)))?;
            Ok(Head {
                epoch: (clocks.epoch != 0).then_some(clocks.epoch),
                elapsed: clocks.elapsed,
                now: clocks.now,
                sequence: record.map_or(0, |record| record.value().0),
                rules: rules::newest(&t.open_table(tables::RULES)?, shard)?.0,
            })
        })
        .await
    }

    async fn found(&self, shard: Shard) -> Result<i64, StoreError> {
        self.write(redb::Durability::Immediate, move |inner, t| {
            let mut clocks = Clocks::open(inner, t, shard)?;
            let drained = t.open_table(tables::META)?.remove(DRAINED)?.is_some();
            if clocks.epoch == 0 || drained {
                clocks.epoch = clocks.next_generation();
                clocks.save(t, shard)?;
            }
            Ok(Ok(clocks.epoch))
        })
        .await
    }

    async fn apply(&self, shard: Shard, frame: &Frame) -> Result<Answer, StoreError> {
        let frame = frame.clone();
        self.write(redb::Durability::Immediate, move |inner, t| apply::apply(inner, t, shard, &frame)).await
    }

    async fn due(&self, shard: Shard, limit: usize) -> Result<Due, StoreError> {
        self.write(redb::Durability::None, move |inner, t| due::due(inner, t, shard, limit).map(Ok)).await
    }

    async fn seal(&self, shard: Shard, bucket: Bucket, family: &Family, when: When) -> Result<Sealed, StoreError> {
        let family = family.clone();
        self.write(redb::Durability::None, move |inner, t| seal::seal(inner, t, shard, bucket, &family, when).map(Ok))
            .await
    }

    async fn page(
        &self,
        shard: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        let cursor = cursor.map(str::to_owned);
        self.read(move |_, t| look::page(t, shard, &bucket, generation, cursor.as_deref())).await
    }

    async fn ack(&self, shard: Shard, life: Life) -> Result<Acked, StoreError> {
        self.write(redb::Durability::None, move |inner, t| seal::ack(inner, t, shard, life).map(Ok)).await
    }

    /// Acks are durable with the next frame only, and nobody is to hear of one that a crash undoes.
    async fn acked(&self, shard: Shard, after: Option<i64>, limit: usize) -> Result<AckLog, StoreError> {
        let log = self.read(move |_, t| acks::since(t, shard, after, limit)).await?;
        if !log.lives.is_empty() {
            self.barrier(shard).await?;
        }
        Ok(log)
    }

    async fn close(
        &self,
        shard: Shard,
        life: Life,
        family: &Family,
        _cursor: u64,
        when: When,
    ) -> Result<Closed, StoreError> {
        let family = family.clone();
        self.write(redb::Durability::None, move |inner, t| close::close(inner, t, shard, life, &family, when)).await
    }

    /// A durable commit, even an empty one, takes all before it to the disk.
    async fn barrier(&self, _shard: Shard) -> Result<(), StoreError> {
        self.write(redb::Durability::Immediate, |_, _| Ok(Ok(()))).await
    }

    async fn open(
        &self,
        shard: Shard,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<Open, StoreError> {
        let (sources, periods) = (sources.to_vec(), periods.to_vec());
        self.read(move |_, t| look::open(t, shard, &sources, &periods, (from, to))).await
    }

    async fn buckets(&self, shard: Shard, cursor: Option<&str>) -> Result<OpenBuckets, StoreError> {
        let cursor = cursor.map(str::to_owned);
        self.read(move |_, t| look::buckets(t, shard, cursor.as_deref())).await
    }

    async fn forget(&self, shard: Shard, source: &str, buckets: &[Bucket]) -> Result<usize, StoreError> {
        let (source, buckets) = (source.to_owned(), buckets.to_vec());
        self.write(redb::Durability::Immediate, move |_, t| states::forget(t, shard, &source, &buckets).map(Ok)).await
    }

    async fn drained(&self, shard: Shard) -> Result<(), StoreError> {
        self.write(redb::Durability::Immediate, move |inner, t| {
            Clocks::open(inner, t, shard)?.save(t, shard)?;
            t.open_table(tables::META)?.insert(DRAINED, 1)?;
            Ok(Ok(()))
        })
        .await
    }

    async fn rules(&self, shard: Shard) -> Result<Vec<Version>, StoreError> {
        self.read(move |_, t| rules::all(t, shard)).await
    }

    async fn change_rules(&self, shard: Shard, periods: &[Period], version: &Version) -> Result<Changed, StoreError> {
        let (periods, version) = (periods.to_vec(), version.clone());
        self.write(redb::Durability::Immediate, move |inner, t| {
            rules::change(inner, t, shard, &periods, &version).map(Ok)
        })
        .await
    }

    async fn restore_rules(&self, shard: Shard, versions: &[Version]) -> Result<(), StoreError> {
        let versions = versions.to_vec();
        self.write(redb::Durability::Immediate, move |_, t| rules::take(t, shard, &versions).map(|_| Ok(()))).await
    }

    async fn register(&self, node: &Node) -> Result<Vec<Registered>, StoreError> {
        let node = node.clone();
        self.read(move |inner, t| nodes::change(inner, t, |list| list.enter(node))).await
    }

    async fn leave(&self, id: &str) -> Result<Vec<Registered>, StoreError> {
        let id = id.to_owned();
        self.read(move |inner, t| nodes::change(inner, t, |list| list.leave(&id))).await
    }

    async fn complete(&self) -> Result<Complete, StoreError> {
        let said = self.read(|_, t| Ok(t.open_table(tables::COMPLETE)?.get(())?.map(|said| said.value().to_owned())));
        let read = |said: String| {
            let unreadable = |e| StoreError::Refused(format!("since when rows are complete cannot be read: {e}"));
            serde_json::from_str(&said).map_err(unreadable)
        };
        said.await?.map_or(Ok(Complete::default()), read)
    }

    async fn keep_complete(&self, complete: &Complete) -> Result<(), StoreError> {
        let said = serde_json::to_string(complete).expect("numbers by name are JSON");
        self.write(redb::Durability::Immediate, move |_, t| {
            t.open_table(tables::COMPLETE)?.insert((), said.as_str())?;
            Ok(Ok(()))
        })
        .await
    }
}
