//! The store without a server: redb in one file, one durable transaction per frame.
//!
//! Implements `Store` for `mod.rs`, verb for verb as the scripts under `lua/`; the comments there
//! give the reasons. Tables and their keys are in `embedded/tables.rs`. Every call runs on a
//! blocking thread; writes follow one another, reads see a snapshot.

mod probe;
mod tables;
#[cfg(test)]
mod tests;

pub use probe::probe;

use super::{
    Acked, Answer, Closed, Due, Durability, Frame, Head, Late, Life, MAX_ADVANCE, MAX_DIRTY, Open, OpenLife,
    PAGE_SOURCES, Page, Policy, Sealed, Shard, Store, StoreError, TOMBSTONE_TTL, VISIBILITY, WAITING_RECHECK,
    WRITER_TTL, WriterId, keys, open_buckets,
};
use crate::clock::Clock;
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Family, Period};
use crate::stats::layout;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, WriteTransaction};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tables::{LifeRecord, Lives};

/// Layout of tables and states; another one in the file refuses to start.
const LAYOUT: u64 = 1;
/// The file in the store's directory.
const FILE: &str = "meanwhile.redb";
/// Expired slices' keys and tombstones forgotten in one call of `due`.
const SWEEP: usize = 1_000;
/// Expired keys forgotten for each one recorded: `due` alone comes too seldom to keep up with a busy day.
const FORGOTTEN_PER_KEY: usize = 2;
/// States kept aside; beyond this they are only reported.
const MAX_ASIDE: u64 = 1_000;
const DAY: Millis = 86_400_000;

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
}

/// A source and its packed moments.
type State = (Arc<str>, Vec<u8>);

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
        let inner =
            Inner { file: directory.join(FILE), policy, clock, database: Mutex::new(None), opened: AtomicU64::new(0) };
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
            transaction.commit().map_err(|e| {
                inner.forget();
                StoreError::Unknown(format!("{}: {e}", inner.file.display()))
            })?;
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
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

impl Inner {
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut slot = self.database.lock().expect("no panic while it is held");
        if let Some(database) = &*slot {
            return Ok(Arc::clone(database));
        }
        let database = Database::create(&self.file).map_err(|e| match e {
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
                transaction.open_table(tables::ASIDE)?;
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

/// The shard's head and its clocks in one call; the counterpart of lua/clock.lua.
struct Clocks {
    epoch: i64,
    elapsed: Millis,
    clock: Millis,
    now: Millis,
    highest: i64,
    policy: Policy,
}

impl Clocks {
    fn read(
        inner: &Inner,
        heads: &impl ReadableTable<Shard, (i64, i64, i64, i64, i64)>,
        shard: Shard,
    ) -> DatabaseResult<Self> {
        let clock = inner.clock.now();
        let (epoch, elapsed, last, now, highest) = heads.get(shard)?.map_or((0, 0, clock, 0, 0), |h| h.value());
        let advance = (clock - last).clamp(0, MAX_ADVANCE);
        let (elapsed, now) = (elapsed + advance, clock.max(now + advance));
        Ok(Self { epoch, elapsed, clock, now, highest, policy: inner.policy })
    }

    fn open(inner: &Inner, transaction: &WriteTransaction, shard: Shard) -> DatabaseResult<Self> {
        Self::read(inner, &transaction.open_table(tables::HEADS)?, shard)
    }

    fn save(&self, transaction: &WriteTransaction, shard: Shard) -> DatabaseResult<()> {
        let head = (self.epoch, self.elapsed, self.clock, self.now, self.highest);
        transaction.open_table(tables::HEADS)?.insert(shard, head)?;
        Ok(())
    }

    fn next_generation(&mut self) -> i64 {
        self.highest = self.now.max(self.highest + 1);
        self.highest
    }

    fn due_at(&self, bucket: &Bucket, dirty: Millis) -> Millis {
        (bucket.end + self.policy.grace).max((self.now + self.policy.grace).min(dirty + MAX_DIRTY))
    }

    /// The life after readings came: dirty, due, and born if there was none.
    fn touched(&mut self, bucket: &Bucket, life: Option<LifeRecord>, first: bool) -> LifeRecord {
        let mut life = life.unwrap_or_else(|| LifeRecord {
            generation: if first { self.epoch } else { self.next_generation() },
            revision: 0,
            acked: 0,
            dirty: 0,
            closing: false,
            due: 0,
        });
        if life.dirty == 0 {
            life.dirty = self.now;
        }
        life.due = self.due_at(bucket, life.dirty);
        life
    }
}

/// Merges states into a bucket. A stored state that cannot be read is set aside and its source
/// starts anew. The error names a source whose sums would no longer be finite.
fn merge_into(
    transaction: &WriteTransaction,
    shard: Shard,
    bucket: &Bucket,
    states: impl Iterator<Item = State>,
) -> DatabaseResult<Result<(), StoreError>> {
    let mut table = transaction.open_table(tables::STATES)?;
    let bucket_key = tables::bucket_key(shard, bucket);
    for (source, state) in states {
        let key = tables::state_key(&bucket_key, &source);
        let old = table.get(&key[..])?.map(|v| v.value().to_vec());
        let merged = match old {
            None => state,
            Some(old) => match layout::merge(&old, &state) {
                Ok(merged) => merged,
                Err(e) => {
                    set_aside(transaction, bucket, &source, &old, &e)?;
                    state
                }
            },
        };
        if layout::decode(&merged).is_ok_and(|m| !m.is_finite()) {
            return Ok(Err(StoreError::Refused(format!("the sums of source {source} would no longer be finite"))));
        }
        table.insert(&key[..], &merged[..])?;
    }
    Ok(Ok(()))
}

fn set_aside(
    transaction: &WriteTransaction,
    bucket: &Bucket,
    source: &str,
    state: &[u8],
    reason: &layout::LayoutError,
) -> DatabaseResult<()> {
    use redb::ReadableTableMetadata;
    let name = keys::bucket_name(bucket);
    tracing::error!(source, bucket = name, "a state cannot be read and is set aside: {reason}");
    let mut aside = transaction.open_table(tables::ASIDE)?;
    if aside.len()? < MAX_ASIDE {
        aside.insert(format!("{name}|{source}").as_str(), state)?;
    }
    Ok(())
}

/// Keys of the frame that stand in a slice which has not expired.
fn seen_keys(
    transaction: &WriteTransaction,
    shard: Shard,
    frame: &Frame,
    elapsed: Millis,
) -> DatabaseResult<Vec<(usize, [u8; 16])>> {
    let mut seen = Vec::new();
    let keys = transaction.open_table(tables::KEYS)?;
    for slice in transaction.open_table(tables::SLICES)?.range((shard, elapsed + 1)..(shard, i64::MAX))? {
        let slice = slice?.0.value().1;
        for (index, key) in frame.keys.iter().enumerate() {
            if let Some(fingerprint) = keys.get((shard, slice, key.id))? {
                seen.push((index, fingerprint.value()));
            }
        }
    }
    Ok(seen)
}

fn record_keys(
    transaction: &WriteTransaction,
    shard: Shard,
    frame: &Frame,
    elapsed: Millis,
    ttl: Millis,
) -> DatabaseResult<()> {
    if frame.keys.is_empty() {
        return Ok(());
    }
    let mut keys = transaction.open_table(tables::KEYS)?;
    let mut slices = transaction.open_table(tables::SLICES)?;
    for key in &frame.keys {
        // Four slices per policy's TTL, a day for longer ones; a slice expires as a whole.
        let length = if key.ttl <= ttl { (ttl / 4).max(1) } else { DAY };
        let slice = (elapsed + key.ttl + length - 1) / length * length;
        keys.insert((shard, slice, key.id), key.fingerprint)?;
        slices.insert((shard, slice), ())?;
    }
    Ok(())
}

/// Forgets writers whose records have outlived any key; a new writer pays for it.
fn forget_writers(transaction: &WriteTransaction, shard: Shard, elapsed: Millis) -> DatabaseResult<()> {
    let mut writers = transaction.open_table(tables::WRITERS)?;
    writers.retain_in((shard, 0)..=(shard, u64::MAX), |_, (_, _, used)| elapsed - used <= WRITER_TTL)?;
    Ok(())
}

fn apply(
    inner: &Inner,
    t: &WriteTransaction,
    shard: Shard,
    frame: &Frame,
) -> DatabaseResult<Result<Answer, StoreError>> {
    let mut clocks = Clocks::open(inner, t, shard)?;
    if clocks.epoch == 0 {
        return Ok(Ok(Answer::Lost));
    }
    let writer = (shard, u64::from_be_bytes(frame.writer.0));
    let record = t.open_table(tables::WRITERS)?.get(writer)?.map(|r| r.value());
    let (last, checksum, _) = record.unwrap_or_default();
    if frame.sequence <= last {
        clocks.save(t, shard)?;
        return Ok(Ok(Answer::Dup { checksum }));
    }
    if frame.sequence > last + 1 {
        return Ok(Ok(Answer::Gap { last }));
    }
    // As in Lua, where the half is not rounded.
    if 2 * (clocks.elapsed - frame.received) > inner.policy.idempotency_ttl {
        return Ok(Ok(Answer::Stale));
    }
    let seen = seen_keys(t, shard, frame, clocks.elapsed)?;
    if !seen.is_empty() {
        return Ok(Ok(Answer::Seen(seen)));
    }
    let mut lives = Lives::open(t)?;
    let mut records = Vec::with_capacity(frame.deltas.len());
    let (mut closing, mut late) = (Vec::new(), Vec::new());
    for (index, BucketAndEnd { bucket, over }) in frame.deltas.iter().map(|d| past(&d.bucket, &clocks)).enumerate() {
        let life = lives.get(shard, &bucket)?;
        if let Some(life) = life.filter(|life| life.closing) {
            closing.push(Life { bucket, generation: life.generation, revision: life.revision });
        }
        if inner.policy.late == Late::Refuse && over {
            late.push(index);
        }
        records.push((bucket, over, life));
    }
    if !closing.is_empty() {
        return Ok(Ok(Answer::Closing(closing)));
    }
    if !late.is_empty() {
        return Ok(Ok(Answer::Late(late)));
    }
    // What may have closed and been forgotten is late by any rule but one that came later.
    let forgotten = t.open_table(tables::FORGOTTEN)?.get(shard)?.map_or(Millis::MIN, |end| end.value());
    for ((bucket, over, life), deltas) in records.into_iter().zip(&frame.deltas) {
        // In the order of the keys, so that neighbours share a page of the file.
        let mut sources: Vec<_> = deltas.sources.iter().collect();
        sources.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let states = sources.into_iter().map(|(source, m)| (Arc::clone(source), layout::encode(m).to_vec()));
        if let Err(refused) = merge_into(t, shard, &bucket, states)? {
            return Ok(Err(refused));
        }
        let buried = life.is_none()
            && t.open_table(tables::TOMBSTONES)?.get((shard, keys::bucket_name(&bucket).as_str()))?.is_some();
        let life = clocks.touched(&bucket, life, !over && !buried && bucket.end > forgotten);
        lives.put(shard, &bucket, life)?;
    }
    t.open_table(tables::WRITERS)?.insert(writer, (frame.sequence, frame.checksum, clocks.elapsed))?;
    forget_keys(t, shard, clocks.elapsed, FORGOTTEN_PER_KEY * frame.keys.len())?;
    record_keys(t, shard, frame, clocks.elapsed, inner.policy.idempotency_ttl)?;
    if frame.sequence == 1 {
        forget_writers(t, shard, clocks.elapsed)?;
    }
    clocks.save(t, shard)?;
    Ok(Ok(Answer::Applied))
}

struct BucketAndEnd {
    bucket: Bucket,
    /// Past `end + lateness`.
    over: bool,
}

fn past(bucket: &Bucket, clocks: &Clocks) -> BucketAndEnd {
    BucketAndEnd { bucket: *bucket, over: clocks.now >= bucket.end + clocks.policy.lateness }
}

fn due(inner: &Inner, t: &WriteTransaction, shard: Shard, limit: usize) -> DatabaseResult<Due> {
    let clocks = Clocks::open(inner, t, shard)?;
    forget_keys(t, shard, clocks.elapsed, SWEEP)?;
    forget_tombstones(t, shard, &clocks)?;
    if clocks.epoch != 0 {
        clocks.save(t, shard)?;
    }
    Ok(Lives::open(t)?.due_by(shard, clocks.now, clocks.elapsed, limit)?)
}

/// Forgets up to `most` keys of the first slice that has expired.
fn forget_keys(t: &WriteTransaction, shard: Shard, elapsed: Millis, most: usize) -> DatabaseResult<()> {
    let mut slices = t.open_table(tables::SLICES)?;
    let expired = match slices.range((shard, i64::MIN)..=(shard, elapsed))?.next() {
        Some(slice) => slice?.0.value(),
        None => return Ok(()),
    };
    let mut keys = t.open_table(tables::KEYS)?;
    let (first, last) = ((shard, expired.1, [0; 16]), (shard, expired.1, [0xff; 16]));
    let mut removed = 0;
    for key in keys.extract_from_if(first..=last, |_, _| true)?.take(most) {
        key?;
        removed += 1;
    }
    if removed < most {
        slices.remove(expired)?;
    }
    Ok(())
}

fn forget_tombstones(t: &WriteTransaction, shard: Shard, clocks: &Clocks) -> DatabaseResult<()> {
    let mut by_time = t.open_table(tables::TOMBSTONES_BY_TIME)?;
    let mut expired = Vec::new();
    for entry in by_time.range((shard, i64::MIN, "")..(shard, clocks.elapsed + 1, ""))?.take(SWEEP) {
        let key = entry?.0;
        let (_, at, name) = key.value();
        expired.push((at, name.to_owned()));
    }
    if expired.is_empty() {
        return Ok(());
    }
    let mut tombstones = t.open_table(tables::TOMBSTONES)?;
    let mut forgotten = Millis::MIN;
    for (at, name) in expired {
        by_time.remove((shard, at, name.as_str()))?;
        let bucket = keys::parse_bucket_name(&name);
        if bucket.is_some_and(|bucket| !past(&bucket, clocks).over) {
            let at = clocks.elapsed + TOMBSTONE_TTL;
            by_time.insert((shard, at, name.as_str()), ())?;
            tombstones.insert((shard, name.as_str()), at)?;
        } else {
            tombstones.remove((shard, name.as_str()))?;
            forgotten = forgotten.max(bucket.map_or(Millis::MIN, |bucket| bucket.end));
        }
    }
    let mut highest = t.open_table(tables::FORGOTTEN)?;
    let before = highest.get(shard)?.map(|end| end.value());
    if before.is_none_or(|before| before < forgotten) {
        highest.insert(shard, forgotten)?;
    }
    Ok(())
}

fn seal(inner: &Inner, t: &WriteTransaction, shard: Shard, bucket: Bucket, family: &Family) -> DatabaseResult<Sealed> {
    let clocks = Clocks::open(inner, t, shard)?;
    let mut lives = Lives::open(t)?;
    let Some(mut life) = lives.get(shard, &bucket)? else { return Ok(Sealed::Gone) };
    let named = |life: &LifeRecord| Life { bucket, generation: life.generation, revision: life.revision };
    if life.closing {
        return Ok(Sealed::Closing(named(&life)));
    }
    clocks.save(t, shard)?;
    if lives.any_open(shard, &family.descendants, bucket.start, bucket.end)? {
        life.due = clocks.now + WAITING_RECHECK;
        lives.put(shard, &bucket, life)?;
        return Ok(Sealed::Waiting);
    }
    let acked = life.dirty == 0 && life.acked == life.revision;
    if life.dirty > 0 {
        life.revision = clocks.now.max(life.revision + 1);
        life.dirty = 0;
    }
    life.due = clocks.now + VISIBILITY;
    lives.put(shard, &bucket, life)?;
    Ok(Sealed::Sealed { life: named(&life), acked })
}

fn ack(inner: &Inner, t: &WriteTransaction, shard: Shard, acked: Life) -> DatabaseResult<Acked> {
    let clocks = Clocks::open(inner, t, shard)?;
    let mut lives = Lives::open(t)?;
    let Some(mut life) = lives.get(shard, &acked.bucket)? else { return Ok(Acked::Ignored) };
    if life.closing || life.generation != acked.generation || life.revision != acked.revision {
        return Ok(Acked::Ignored);
    }
    clocks.save(t, shard)?;
    life.acked = life.revision;
    let answer = if life.dirty > 0 {
        life.due = clocks.due_at(&acked.bucket, life.dirty);
        Acked::Dirty
    } else {
        life.due = clocks.now.max(acked.bucket.end + clocks.policy.lateness);
        Acked::Clean
    };
    lives.put(shard, &acked.bucket, life)?;
    Ok(answer)
}

fn close(
    inner: &Inner,
    t: &WriteTransaction,
    shard: Shard,
    closing: Life,
    family: &Family,
) -> DatabaseResult<Result<Closed, StoreError>> {
    let mut clocks = Clocks::open(inner, t, shard)?;
    let mut lives = Lives::open(t)?;
    let bucket = closing.bucket;
    let Some(mut life) = lives.get(shard, &bucket)? else { return Ok(Ok(Closed::Gone)) };
    if life.generation != closing.generation || life.revision != closing.revision {
        return Ok(Ok(Closed::Refused));
    }
    if !life.closing {
        if life.dirty > 0 || life.acked != life.revision || !past(&bucket, &clocks).over {
            return Ok(Ok(Closed::Refused));
        }
        if lives.any_open(shard, &family.descendants, bucket.start, bucket.end)? {
            return Ok(Ok(Closed::Waiting));
        }
    }
    let mut parents = Vec::with_capacity(family.parents.len());
    for parent in &family.parents {
        let record = lives.get(shard, parent)?;
        if let Some(record) = record.filter(|record| record.closing) {
            let life = Life { bucket: *parent, generation: record.generation, revision: record.revision };
            return Ok(Ok(Closed::ParentClosing(life)));
        }
        parents.push((parent, record));
    }
    let (chunk, last) = take_chunk(t, shard, &bucket)?;
    for (parent, record) in parents {
        if let Err(refused) = merge_into(t, shard, parent, chunk.iter().cloned())? {
            return Ok(Err(refused));
        }
        let record = clocks.touched(parent, record, false);
        lives.put(shard, parent, record)?;
    }
    if last {
        lives.remove(shard, &bucket)?;
        bury(t, shard, &bucket, clocks.elapsed)?;
    } else {
        life.closing = true;
        life.due = clocks.now;
        lives.put(shard, &bucket, life)?;
    }
    clocks.save(t, shard)?;
    Ok(Ok(if last { Closed::Done } else { Closed::More(0) }))
}

/// Removes the first states of a bucket. Returns those that can be read, and whether no more are left.
fn take_chunk(t: &WriteTransaction, shard: Shard, bucket: &Bucket) -> DatabaseResult<(Vec<State>, bool)> {
    let mut table = t.open_table(tables::STATES)?;
    let range = tables::states_range(&tables::bucket_key(shard, bucket));
    let mut chunk = Vec::new();
    let mut taken = 0;
    for entry in table.extract_from_if(&range.start[..]..&range.end[..], |_, _| true)?.take(PAGE_SOURCES) {
        let (key, state) = entry?;
        taken += 1;
        let (source, state) = (Arc::<str>::from(tables::source_of(key.value())), state.value().to_vec());
        match layout::merge(&state, &state) {
            Ok(_) => chunk.push((source, state)),
            Err(e) => set_aside(t, bucket, &source, &state, &e)?,
        }
    }
    Ok((chunk, taken < PAGE_SOURCES))
}

fn bury(t: &WriteTransaction, shard: Shard, bucket: &Bucket, elapsed: Millis) -> DatabaseResult<()> {
    let (name, at) = (keys::bucket_name(bucket), elapsed + TOMBSTONE_TTL);
    let before = t.open_table(tables::TOMBSTONES)?.insert((shard, name.as_str()), at)?.map(|v| v.value());
    let mut by_time = t.open_table(tables::TOMBSTONES_BY_TIME)?;
    if let Some(before) = before {
        by_time.remove((shard, before, name.as_str()))?;
    }
    by_time.insert((shard, at, name.as_str()), ())?;
    Ok(())
}

fn page(
    t: &redb::ReadTransaction,
    shard: Shard,
    bucket: &Bucket,
    generation: i64,
    cursor: Option<&str>,
) -> DatabaseResult<Option<Page>> {
    let key = tables::bucket_key(shard, bucket);
    let life = t.open_table(tables::LIVES)?.get(&key[..])?.map(|life| LifeRecord::from_tuple(life.value()));
    if life.is_none_or(|life| life.generation != generation) {
        return Ok(None);
    }
    // The cursor is the last source read.
    let mut range = tables::states_range(&key);
    if let Some(source) = cursor {
        range.start = tables::state_key(&key, source);
    }
    let table = t.open_table(tables::STATES)?;
    let mut page = Page::default();
    let mut read = 0;
    let bounds = (Bound::Excluded(&range.start[..]), Bound::Excluded(&range.end[..]));
    for entry in table.range::<&[u8]>(bounds)?.take(PAGE_SOURCES) {
        let (key, state) = entry?;
        read += 1;
        let source = tables::source_of(key.value());
        if read == PAGE_SOURCES {
            page.next = Some(source.to_owned());
        }
        match layout::decode(state.value()) {
            Ok(moments) => page.sources.push((Arc::from(source), moments)),
            // The close sets it aside; until then it is no reason to hold back the others.
            Err(e) => tracing::error!(source, bucket = %keys::bucket_name(bucket), "a state cannot be read: {e}"),
        }
    }
    Ok(Some(page))
}

fn open(
    t: &redb::ReadTransaction,
    shard: Shard,
    sources: &[Arc<str>],
    periods: &[Period],
    (from, to): (Millis, Millis),
) -> DatabaseResult<Open> {
    let (lives, states) = (t.open_table(tables::LIVES)?, t.open_table(tables::STATES)?);
    let limit = open_buckets(sources.len());
    let mut found = Vec::new();
    for &period in periods {
        let range = tables::lives_range(shard, period, from, to);
        let range = (Bound::Included(&range.start[..]), Bound::Excluded(&range.end[..]));
        for entry in lives.range::<&[u8]>(range)?.take(limit + 1) {
            let (key, life) = entry?;
            found.push((tables::bucket_of(key.value(), period), LifeRecord::from_tuple(life.value())));
        }
    }
    // The limit is for all periods together, so the first start beyond it is the same for each.
    let mut starts: Vec<Millis> = found.iter().map(|(bucket, _)| bucket.start).collect();
    starts.sort_unstable();
    let until = starts.get(limit).copied();
    found.retain(|(bucket, _)| until.is_none_or(|until| bucket.start < until));
    let mut open = Open { lives: Vec::with_capacity(found.len()), until };
    for (bucket, life) in found {
        let key = tables::bucket_key(shard, &bucket);
        let mut moments = Vec::with_capacity(sources.len());
        for source in sources {
            let state = states.get(&tables::state_key(&key, source)[..])?;
            moments.push(state.and_then(|state| layout::decode(state.value()).ok()));
        }
        let life_id = Life { bucket, generation: life.generation, revision: life.revision };
        open.lives.push(OpenLife { life: life_id, written: life.acked > 0, moments });
    }
    Ok(open)
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
            })
        })
        .await
    }

    async fn found(&self, shard: Shard) -> Result<i64, StoreError> {
        self.write(redb::Durability::Immediate, move |inner, t| {
            let mut clocks = Clocks::open(inner, t, shard)?;
            if clocks.epoch == 0 {
                clocks.epoch = clocks.next_generation();
                clocks.save(t, shard)?;
            }
            Ok(Ok(clocks.epoch))
        })
        .await
    }

    async fn apply(&self, shard: Shard, frame: &Frame) -> Result<Answer, StoreError> {
        let frame = frame.clone();
        self.write(redb::Durability::Immediate, move |inner, t| apply(inner, t, shard, &frame)).await
    }

    async fn due(&self, shard: Shard, limit: usize) -> Result<Due, StoreError> {
        self.write(redb::Durability::None, move |inner, t| due(inner, t, shard, limit).map(Ok)).await
    }

    async fn seal(&self, shard: Shard, bucket: Bucket, family: &Family) -> Result<Sealed, StoreError> {
        let family = family.clone();
        self.write(redb::Durability::None, move |inner, t| seal(inner, t, shard, bucket, &family).map(Ok)).await
    }

    async fn page(
        &self,
        shard: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        let cursor = cursor.map(str::to_owned);
        self.read(move |_, t| page(t, shard, &bucket, generation, cursor.as_deref())).await
    }

    async fn ack(&self, shard: Shard, life: Life) -> Result<Acked, StoreError> {
        self.write(redb::Durability::None, move |inner, t| ack(inner, t, shard, life).map(Ok)).await
    }

    async fn close(&self, shard: Shard, life: Life, family: &Family, _cursor: u64) -> Result<Closed, StoreError> {
        let family = family.clone();
        self.write(redb::Durability::None, move |inner, t| close(inner, t, shard, life, &family)).await
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
        self.read(move |_, t| open(t, shard, &sources, &periods, (from, to))).await
    }
}
