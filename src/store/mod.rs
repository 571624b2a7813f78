//! The contract of the store: where open buckets live until the sink has their rows.
//!
//! Two implementations, `redis.rs` and `embedded.rs`, promise the same; `tests/it/contract.rs`
//! checks both, `tests/it/model.rs` compares both with a plain oracle. Called by `ingest/commit.rs`
//! (apply), `rollover.rs` (due, seal, page, ack, close, forget) and `query/` (open). Every call may be
//! repeated: nothing is counted twice. Key names are in `keys.rs`.

pub mod closing;
pub mod embedded;
pub mod errors;
pub mod keys;
pub mod kin;
pub mod nodes;
pub mod probe;
pub mod redis;
pub mod rules;

pub use crate::config::Acks;
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Family, Period};
use crate::stats::complete::Complete;
use crate::stats::moments::Moments;
pub use crate::stats::policy::{Late, MAX_IDEMPOTENCY_TTL, Policy};
use kin::{Clash, Kin};
use nodes::{Node, Registered};
use rules::{Changed, Version};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A fixed partition of the sources; there is one, 0, on a single Redis and in the embedded store.
pub type Shard = u16;

/// The states one `apply` carries, in doubles: about 3 ms of Redis' time.
pub const MAX_FRAME_DOUBLES: usize = 16_000;
/// A dirty bucket past its time is written when it was idle for `grace`, at the latest after this.
pub const MAX_DIRTY: Millis = 60_000;
/// A sealed bucket is due again after this, should its flusher have died. Two flushers of one
/// bucket are only wasted work.
pub const VISIBILITY: Millis = 30_000;
/// How often a coarse bucket whose descendants are open is looked at, should no close wake it.
pub const WAITING_RECHECK: Millis = 60_000;
/// The most `elapsed` advances in one call, so that a step of the clock expires nothing.
pub const MAX_ADVANCE: Millis = 5_000;
/// Writer records outlive any idempotency key (at most 7 days).
pub const WRITER_TTL: Millis = 8 * 86_400_000;
/// How long, in `elapsed`, a closed bucket is remembered.
pub const TOMBSTONE_TTL: Millis = 600_000;
/// Sources per page and per chunk of a close: what one call takes of the time of everyone else, less than 1 ms of Redis.
pub const PAGE_SOURCES: usize = 200;
/// And about how many doubles of states a page has, of large ones: a megabyte. Two hundred of numbers have a hundredth.
pub const PAGE_DOUBLES: usize = 140_000;
/// Between two such calls for one life: a large one would else keep a processor of Redis' host busy from its first
/// page to its last chunk, and whoever posts meanwhile waits for a turn.
pub const PAGE_PAUSE: Duration = Duration::from_millis(1);
/// Buckets one `open` reads at most; a longer range is read in several calls.
pub const OPEN_BUCKETS: usize = 2_000;
/// States one `open` looks up at most, some 8 ms of Redis' time: a look for many sources takes fewer
/// buckets.
pub const OPEN_STATES: usize = 10_000;
/// An `open` that has read so many doubles of states ends with their start: twice those of as many numbers, a megabyte.
pub const OPEN_DOUBLES: usize = 140_000;
/// But always more than can share one start, or a look would not get on: the periods, in a few zones.
const OPEN_BUCKETS_MIN: usize = 100;
/// Entries of the log of acks that are kept: days of it with the usual periods, some 100 bytes each.
pub const LOG_LIVES: usize = 4_000;
/// Buckets of one `forget`, about 1 ms of Redis' time.
pub const FORGET_BUCKETS: usize = 1_000;

/// Buckets one `open` of so many sources reads at most.
#[must_use]
pub fn open_buckets(sources: usize) -> usize {
    (OPEN_STATES / sources.max(1)).clamp(OPEN_BUCKETS_MIN, OPEN_BUCKETS)
}

/// One node process as the store knows it: random, new at every start.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriterId(pub [u8; 8]);

impl WriterId {
    /// # Panics
    /// If the operating system has no random numbers.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
        Self(bytes)
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An idempotency key of one part of a request. Both are hashes, so a record has a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Identifies (token, key, part).
    pub id: [u8; 16],
    /// Identifies the body and the query of the request.
    pub fingerprint: [u8; 16],
    /// For how long repetitions may come; at least the policy's, at most [`MAX_IDEMPOTENCY_TTL`]. It is found for half
    /// of the policy's longer, because a frame may be on its way for as long.
    pub ttl: Millis,
}

/// The deltas of one bucket in a frame; no source twice.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketDeltas {
    pub bucket: Bucket,
    pub sources: Vec<(Arc<str>, Moments)>,
}

/// Everything one commit brings to one shard: applied whole or not at all.
///
/// A frame whose outcome is unknown is sent again as it is, with the same sequence, until the
/// store answers. No bucket stands in it twice and no key id twice, and a source has readings of one length. A frame without keys and
/// deltas is valid: it only takes its place in the writer's sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub writer: WriterId,
    /// 1, 2, 3, ... per (writer, shard), never reused for other content once applied.
    pub sequence: u64,
    /// Tells frames of one sequence number apart; see [`Frame::checksum`].
    pub checksum: u32,
    /// The store's `elapsed` when the oldest request in it was received.
    pub received: Millis,
    pub keys: Vec<KeyRecord>,
    pub deltas: Vec<BucketDeltas>,
    /// Wanted where it brings vectors, and by shards that have had some; not part of what is brought.
    pub kin: Option<Kin>,
    /// The version of the rules by which it has groups, 0 if there was none; not part of what is brought.
    pub rules: u64,
}

impl Frame {
    /// CRC-32 of the keys and deltas.
    #[must_use]
    pub fn checksum(keys: &[KeyRecord], deltas: &[BucketDeltas]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        for key in keys {
            crc.update(&key.id);
            crc.update(&key.fingerprint);
        }
        for bucket in deltas {
            crc.update(&bucket.bucket.start.to_le_bytes());
            crc.update(&bucket.bucket.end.to_le_bytes());
            for (source, moments) in &bucket.sources {
                crc.update(source.as_bytes());
                crc.update(&crate::stats::layout::encode(moments));
            }
        }
        crc.finalize()
    }

    #[must_use]
    pub fn new(
        writer: WriterId,
        sequence: u64,
        received: Millis,
        keys: Vec<KeyRecord>,
        deltas: Vec<BucketDeltas>,
    ) -> Self {
        let checksum = Self::checksum(&keys, &deltas);
        Self { writer, sequence, checksum, received, keys, deltas, kin: None, rules: 0 }
    }
}

/// The answer to a frame. All but `Applied` change nothing; they are checked in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The store has no epoch: it has lost its contents.
    Lost,
    /// A frame with this sequence (or a later one) of this writer was applied; the checksum is that
    /// of the writer's last applied frame.
    Dup { checksum: u32 },
    /// The writer's sequence has a hole: the store lost frames. `last` is the last one it knows.
    Gap { last: u64 },
    /// The frame's oldest request is older than half the key TTL: what it would count may have been
    /// counted for another node, and forgotten since.
    Stale,
    /// These keys (index in the frame, recorded fingerprint) have been counted.
    Seen(Vec<(usize, [u8; 16])>),
    /// The frame was made under other rules than are in force for one of its buckets (the rule is
    /// [`rules::is_outdated`]); the newest version is this one, 0 if there is none: make it anew, under the same sequence.
    Rules { newest: u64 },
    /// These buckets are being closed: drive the close to its end, then send again.
    Closing(Vec<Life>),
    /// These buckets (index in the frame's deltas) are past their lateness; only with [`Late::Refuse`].
    Late(Vec<usize>),
    /// The frame brings vectors or the shard has had some, and it does not say which buckets meet ([`Frame::kin`]).
    Mixed,
    /// Sources that have readings of another length in a life that meets these buckets, by delta, then by source.
    Unlike(Vec<Clash>),
    /// All of it is in the store.
    Applied,
}

/// The identity of one life of a bucket, at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub bucket: Bucket,
    pub generation: i64,
    pub revision: i64,
}

/// What a store knows of a shard and a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Identity of the contents; `None` if they are lost or were never founded.
    pub epoch: Option<i64>,
    /// The store's clock for everything that expires.
    pub elapsed: Millis,
    /// The store's clock for lateness and due times: never goes back.
    pub now: Millis,
    /// Last applied sequence of the writer asked about, 0 if none.
    pub sequence: u64,
    /// The newest version of the rules, 0 if there is none.
    pub rules: u64,
}

/// What the rollover has to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub now: Millis,
    pub elapsed: Millis,
    /// The buckets that are due, those longest due first, at most as many as asked for.
    pub buckets: Vec<Bucket>,
    /// When the next one will be, in the store's clock; `None` if no bucket is open.
    pub next: Option<Millis>,
    /// Since when the first of them is due, in the store's clock; `None` if none is.
    pub oldest: Option<Millis>,
    /// How many buckets are open, due or not.
    pub open: u64,
}

/// Whether a seal or a close waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As readings come and go: after all descendants, and a close not before `end + lateness`.
    InTime,
    /// At once, for a drain. What comes later into the bucket, or up into it, is another life.
    Now,
}

/// The answer to a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// No such life: closed meanwhile.
    Gone,
    /// Descendants are open; the close of the last one makes it due. Not said to [`When::Now`].
    Waiting,
    /// The life is being closed: go on with the close.
    Closing(Life),
    /// To be paged, written and acked; if `acked`, the sink has this revision already.
    Sealed { life: Life, acked: bool },
}

/// Some sources of a life. A source may come in several pages of one reading; the one with the
/// greater count is right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub sources: Vec<(Arc<str>, Moments)>,
    /// Where the next page begins, in the store's own words; `None` after the last.
    pub next: Option<String>,
}

/// The answer to an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// Not the present generation and revision, or closing already: changes nothing.
    Ignored,
    /// Counted, but readings came meanwhile: the bucket is due again, as after an apply.
    Dirty,
    /// Counted: the bucket is due at its close time.
    Clean,
}

/// Some of the log of acks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AckLog {
    /// Marks of another one mean nothing here; `None` if the contents are lost or were never founded.
    pub epoch: Option<i64>,
    /// Whether nothing behind the mark that was asked for has been dropped.
    pub whole: bool,
    /// Lives and their marks, which rise.
    pub lives: Vec<(i64, Life)>,
    /// The mark of the newest entry there is, 0 if there never was one.
    pub last: i64,
}

/// The answer to one chunk of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// No such life: the close has ended before.
    Gone,
    /// Not the present generation and revision, not clean, not acked or not past its time.
    Refused,
    /// Descendants are open. Not said to [`When::Now`].
    Waiting,
    /// This parent is being closed itself and has to be finished first.
    ParentClosing(Life),
    /// A chunk has moved up; call again with this cursor (or with 0: it is only faster).
    More(u64),
    /// The last chunk has moved up, the life has ended.
    Done,
}

/// A life as a query sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenLife {
    pub life: Life,
    /// Whether the sink has some revision of it.
    pub written: bool,
    /// Moments of the sources asked for, by their index; `None` where the life has none (any more).
    pub moments: Vec<Option<Moments>>,
}

/// One consistent look at the open lives of a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Open {
    /// By period as asked, then by start.
    pub lives: Vec<OpenLife>,
    /// Lives that start at or after this were not read; `None` if all were.
    pub until: Option<Millis>,
}

/// Some of the buckets that are open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenBuckets {
    pub buckets: Vec<Bucket>,
    /// Where the next page begins, in the store's own words; `None` after the last.
    pub next: Option<String>,
}

/// What a store's confirmation is worth, as the answers to clients name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before the answer.
    Disk,
    /// The last second or two may be lost with the store's host, or with a stalled disk.
    Seconds,
    /// Everything is lost with the store's process.
    Memory,
    /// A managed store that hides its settings.
    Unknown,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Seconds => "seconds",
            Self::Memory => "memory",
            Self::Unknown => "unknown",
        })
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The call certainly changed nothing; it may be repeated.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The call may or may not have been carried out: repeat exactly this call to find out.
    #[error("the store did not answer: {0}")]
    Unknown(String),
    /// Repeating does not help: another layout, an evicting policy, a result that is not finite.
    #[error("{0}")]
    Refused(String),
}

/// See the module; each method says what it promises. `now` is the store's clock, which never goes
/// back; `elapsed` advances with every call by at most [`MAX_ADVANCE`].
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// How the store is called in messages, without secrets.
    fn name(&self) -> String;

    /// What a confirmation is worth; found out when the store was opened.
    fn durability(&self) -> Durability;

    fn policy(&self) -> Policy;

    /// Who has what is confirmed: with [`Acks::Replica`] `Applied`, `Dup` and `Seen` are not answered, and a
    /// barrier does not return, before a replica has all that they speak of.
    fn acks(&self) -> Acks {
        Acks::Store
    }

    /// Number of shards, pinned with the store.
    fn shards(&self) -> Shard {
        1
    }

    /// Changes whenever the connection was renewed, so that what was read before may be gone.
    fn connection(&self) -> u64;

    /// What the store knows of a shard and of a writer; changes nothing.
    async fn head(&self, shard: Shard, writer: WriterId) -> Result<Head, StoreError>;

    /// Gives a shard without epoch, or one that was [`Self::drained`], a new one
    /// (`max(highest generation + 1, store clock)`); leaves another alone. Returns the epoch in force.
    async fn found(&self, shard: Shard) -> Result<i64, StoreError>;

    /// Merges all deltas of a frame and records its keys and its sequence, or changes nothing.
    ///
    /// A bucket without a life gets one: generation = epoch if it has no tombstone,
    /// `now < end + lateness` and it ends after every bucket whose tombstone is gone (it may have
    /// closed under a shorter lateness); else `max(highest generation + 1, now)`, one number for all such lives of
    /// a frame. A touched bucket is dirty
    /// and due at `max(end + grace, min(now + grace, dirty since + MAX_DIRTY))`. States of a life and of all that lie
    /// within the same coarsest bucket are of one length per source.
    ///
    /// # Errors
    /// `Unavailable`: not applied. `Unknown`: send the same frame again.
    async fn apply(&self, shard: Shard, frame: &Frame) -> Result<Answer, StoreError>;

    /// The buckets due by now and the time of the next. Also forgets what has expired, a bounded
    /// amount at a time: key slices and tombstones by `elapsed`.
    async fn due(&self, shard: Shard, limit: usize) -> Result<Due, StoreError>;

    /// Raises the revision if dirty (`max(revision + 1, now)`) and makes the life clean, keeps it
    /// if not; moves the due time to `now + VISIBILITY`. May come before the bucket's end. A coarse
    /// bucket with open descendants is not sealed, but [`When::Now`]: it is due at
    /// `max(now + WAITING_RECHECK, end + grace)`.
    async fn seal(&self, shard: Shard, bucket: Bucket, family: &Family, when: When) -> Result<Sealed, StoreError>;

    /// Reads a page of a life, from `cursor` (`None` for the first). `None` if the generation is no
    /// longer the present one. Content may be newer than the sealed revision, never older. A cursor
    /// is worth nothing after [`Self::connection`] changed: a server that started again has another
    /// order, and pages read across that miss sources.
    async fn page(
        &self,
        shard: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError>;

    /// Says that the sink has this life. Counts only for the present generation and revision. The first time it
    /// does, the log has a new entry, with the mark `max(last + 1, now)`.
    async fn ack(&self, shard: Shard, life: Life) -> Result<Acked, StoreError>;

    /// The entries of the log of acks behind a mark, oldest first, at most `limit`; with `None` none, only where the
    /// log stands. The newest [`LOG_LIVES`] are kept. What is answered is as durable as an applied frame.
    async fn acked(&self, shard: Shard, after: Option<i64>, limit: usize) -> Result<AckLog, StoreError>;

    /// Moves one chunk of a life up into its parents, atomically; the last ends it in a tombstone.
    ///
    /// Begins only if clean and acked; and, unless it is to be [`When::Now`], if `now >= end + lateness`
    /// and no descendant is open. A tombstone stays until `end + lateness` at least: a reading after an
    /// early close begins a new life, and the row becomes the sum of both. From the
    /// first chunk on the life is closing: it takes no readings, stays due, is not sealed, still
    /// counts as open. A parent without a life gets one with generation
    /// `max(highest generation + 1, now)`; it becomes dirty, and due as after an apply.
    async fn close(
        &self,
        shard: Shard,
        life: Life,
        family: &Family,
        cursor: u64,
        when: When,
    ) -> Result<Closed, StoreError>;

    /// Returns once everything answered before is as durable as an applied frame; to be called before
    /// rows go to the sink. What `due`, `seal`, `ack` and `close` did since the last barrier or frame
    /// a crash may undo, in order and as a whole: they are only done again. Were a row in the sink
    /// whose close was undone, its readings would move up twice.
    ///
    /// # Errors
    /// Also if the connection was lost since the last call; or [`Self::connection`] has changed then.
    async fn barrier(&self, shard: Shard) -> Result<(), StoreError>;

    /// The lives of `periods` with a start in `[from, to)`, with the moments of `sources`: one
    /// consistent look, of at most [`open_buckets`] lives, and of those that share a start beyond [`OPEN_DOUBLES`].
    async fn open(
        &self,
        shard: Shard,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<Open, StoreError>;

    /// The open buckets of every period, also of one that is no longer configured, from `cursor`
    /// (`None` for the first). One that is open from the first page to the last is named at least once.
    async fn buckets(&self, shard: Shard, cursor: Option<&str>) -> Result<OpenBuckets, StoreError>;

    /// Removes what these lives, closing ones too, hold of a source; at most [`FORGET_BUCKETS`] of them.
    /// Returns how many held something. They stay open, clean or dirty as they were; a reading that comes
    /// later counts as the source's first. Keys of requests stay: what was counted is not counted again.
    async fn forget(&self, shard: Shard, source: &str, buckets: &[Bucket]) -> Result<usize, StoreError>;

    /// Notes that a drain has brought everything to the sink, which another store may serve from now on:
    /// the next [`Self::found`] gives a new epoch, so that a first life here is newer than its rows.
    async fn drained(&self, shard: Shard) -> Result<(), StoreError>;

    /// The versions of the rules, the oldest first; at most [`rules::MAX_VERSIONS`], of
    /// [`rules::MAX_VERSIONS_BYTES`] together.
    async fn rules(&self, shard: Shard) -> Result<Vec<Version>, StoreError>;

    /// Makes a version the newest, if it follows the newest there is and no bucket can have been begun under another
    /// one: its `from` is later than `now`, than that of the version before and than the start of every open bucket of
    /// these periods. In a store that never had a reading it may be [`rules::ALL_TIME`]. Beyond the limits the oldest
    /// versions go.
    async fn change_rules(&self, shard: Shard, periods: &[Period], version: &Version) -> Result<Changed, StoreError>;

    /// Gives back versions that a store has lost: it takes those newer than its own newest, whatever their `from`.
    async fn restore_rules(&self, shard: Shard, versions: &[Version]) -> Result<(), StoreError>;

    /// Puts an instance on the list of those that share the store, or says what it says of itself anew, and
    /// returns the list, those that came first first. It stays for [`nodes::NODE_TTL`] of `elapsed`; the
    /// embedded store, which is of one process, forgets the list with it.
    async fn register(&self, node: &Node) -> Result<Vec<Registered>, StoreError>;

    /// Takes an instance off the list, if it is on it, and returns the others.
    async fn leave(&self, id: &str) -> Result<Vec<Registered>, StoreError>;

    /// Since when rows are complete, as [`Self::keep_complete`] was last told; all of them if it never was.
    async fn complete(&self) -> Result<Complete, StoreError>;

    /// Keeps this in place of what was kept before; durable before the next frame or barrier is.
    async fn keep_complete(&self, complete: &Complete) -> Result<(), StoreError>;
}
