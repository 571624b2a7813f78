//! The store on Redis: every verb of the contract is one Lua script, run atomically.
//!
//! Implements `Store` for `mod.rs`. The scripts under `lua/` do the work; here their arguments are
//! packed and their replies read. Keys are spelled in `keys.rs`, the connection is in
//! `redis/link.rs`. Three connections, so that a long page never delays a commit.

pub mod bus;
mod errors;
mod link;
mod mutants;
mod probe;

pub use probe::probe;

use super::{
    AckLog, Acked, Acks, Answer, Closed, Due, Durability, Frame, Head, LOG_LIVES, Late, Life, MAX_ADVANCE,
    MAX_FRAME_DOUBLES, OPEN_DOUBLES, Open, OpenBuckets, OpenLife, PAGE_DOUBLES, PAGE_SOURCES, Page, Policy, Sealed,
    Shard, Store, StoreError, TOMBSTONE_TTL, VISIBILITY, WAITING_RECHECK, When, WriterId, keys, open_buckets,
};
use crate::clock::Clock;
use crate::stats::Millis;
use crate::stats::calendar::{Bucket, Family, Period};
use crate::stats::complete::Complete;
use crate::stats::layout;
use crate::store::kin::{Clash, Kin};
use crate::store::nodes::{NODE_TTL, Node, Registered};
use crate::store::rules::{ALL_TIME, Changed, MAX_VERSIONS, MAX_VERSIONS_BYTES, Version};
use link::{Call, Link, Script};
use redis::Value;
use std::sync::Arc;

/// Layout of keys and states; another one in the store refuses to start.
const LAYOUT: u32 = 1;

/// Lua that defines `merge(a, b)`: the merge of two states as the scripts do it.
pub const MERGE_LUA: &str = include_str!("lua/merge.lua");
const CLOCK_LUA: &str = include_str!("lua/clock.lua");
const LIFE_LUA: &str = include_str!("lua/life.lua");
const COMBINE_LUA: &str = include_str!("lua/combine.lua");
const CHUNK_LUA: &str = include_str!("lua/chunk.lua");
const LENGTHS_LUA: &str = include_str!("lua/lengths.lua");

struct Scripts {
    head: Script,
    found: Script,
    apply: Script,
    due: Script,
    seal: Script,
    page: Script,
    ack: Script,
    acked: Script,
    close: Script,
    open: Script,
    forget: Script,
    drained: Script,
    change: Script,
    register: Script,
    confirm: Script,
    note: Script,
}

impl Scripts {
    fn new() -> Self {
        let states = [CLOCK_LUA, LIFE_LUA, MERGE_LUA, COMBINE_LUA];
        Self {
            head: Script::new("head", &[CLOCK_LUA, include_str!("lua/head.lua")]),
            found: Script::new("found", &[CLOCK_LUA, LIFE_LUA, include_str!("lua/found.lua")]),
            apply: Script::new("apply", &[&states[..], &[LENGTHS_LUA, include_str!("lua/apply.lua")]].concat()),
            due: Script::new("due", &[CLOCK_LUA, include_str!("lua/due.lua")]),
            seal: Script::new("seal", &[CLOCK_LUA, LIFE_LUA, include_str!("lua/seal.lua")]),
            page: Script::new("page", &[CHUNK_LUA, include_str!("lua/page.lua")]),
            ack: Script::new("ack", &[CLOCK_LUA, LIFE_LUA, include_str!("lua/ack.lua")]),
            acked: Script::new("acked", &[include_str!("lua/acked.lua")]),
            close: Script::new("close", &[&states[..], &[CHUNK_LUA, include_str!("lua/close.lua")]].concat()),
            open: Script::new("open", &[include_str!("lua/open.lua")]),
            forget: Script::new("forget", &[include_str!("lua/forget.lua")]),
            drained: Script::new("drained", &[CLOCK_LUA, include_str!("lua/drained.lua")]),
            change: Script::new("change", &[CLOCK_LUA, include_str!("lua/change.lua")]),
            register: Script::new("register", &[CLOCK_LUA, include_str!("lua/register.lua")]),
            confirm: Script::new("confirm", &[CLOCK_LUA, include_str!("lua/confirm.lua")]),
            note: Script::new("note", &[include_str!("lua/note.lua")]),
        }
    }
}

/// See the module.
pub struct RedisStore {
    name: String,
    policy: Policy,
    durability: Durability,
    acks: Acks,
    /// Time for tests instead of the server's.
    clock: Option<Clock>,
    scripts: Scripts,
    commits: Link,
    rollover: Link,
    queries: Link,
}

impl RedisStore {
    /// Connects, checks that the server holds our layout and does not evict, and finds out what its
    /// confirmations are worth. With a `clock` the store's time is taken from there (tests).
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached; `Refused` if it must not be used.
    pub async fn connect(url: &str, policy: Policy, clock: Option<Clock>) -> Result<Self, StoreError> {
        let commits = Link::new(url)?;
        let durability = link::durability(&commits).await?;
        let shards = 1;
        for (field, expected) in [("layout", LAYOUT), ("shards", shards)] {
            let mut pin = redis::cmd("HSETNX");
            commits.command::<Value>(pin.arg(keys::META).arg(field).arg(expected)).await?;
            let mut read = redis::cmd("HGET");
            let found: String = commits.command(read.arg(keys::META).arg(field)).await?;
            if found != expected.to_string() {
                return Err(StoreError::Refused(format!(
                    "the store at {} has {field} {found}, this program needs {expected}",
                    without_password(url)
                )));
            }
        }
        Ok(Self {
            name: without_password(url),
            policy,
            durability,
            acks: Acks::Store,
            clock,
            scripts: Scripts::new(),
            commits,
            rollover: Link::new(url)?,
            queries: Link::new(url)?,
        })
    }

    /// Waits for replicas from now on, if that is asked for.
    #[must_use]
    pub fn acknowledging(self, acks: Acks) -> Self {
        Self { acks, ..self }
    }

    /// The arguments every script with a clock begins with.
    fn clocked<'s>(&self, script: &'s Script, keys: &[String]) -> Call<'s> {
        let mut call = script.call(keys);
        match &self.clock {
            Some(clock) => call.arg(clock.now()),
            None => call.arg(""),
        };
        call.arg(self.policy.grace).arg(self.policy.lateness);
        call
    }

    /// The list is kept with the first shard.
    async fn list_of_nodes(&self, id: &str, said: &str) -> Result<Vec<Registered>, StoreError> {
        let mut call = self.clocked(&self.scripts.register, &[keys::head(0), keys::nodes(0)]);
        call.arg(id).arg(said).arg(NODE_TTL);
        let mut reply = Reply::of(self.queries.run(&call).await?)?;
        let mut list = Vec::new();
        while !reply.is_empty() {
            let (id, number, heard, said) = (reply.text()?, reply.number()?, reply.number()?, reply.text()?);
            // Another version may say something else of itself; what it says must not keep us from working.
            match serde_json::from_str(&said) {
                Ok(node) => list.push(Registered { node, number, heard }),
                Err(e) => tracing::warn!(instance = id, "cannot read what an instance says of itself: {e}"),
            }
        }
        list.sort_by_key(|registered| registered.number);
        Ok(list)
    }

    async fn take_rules(
        &self,
        shard: Shard,
        verb: &str,
        periods: &[Period],
        versions: &[Version],
    ) -> Result<Changed, StoreError> {
        let mut keys = vec![keys::head(shard), keys::rules(shard), keys::due(shard), keys::tombstones(shard)];
        keys.extend(periods.iter().map(|period| keys::open(shard, *period)));
        let mut call = self.clocked(&self.scripts.change, &keys);
        call.arg(verb).arg(ALL_TIME).arg(MAX_VERSIONS).arg(MAX_VERSIONS_BYTES);
        for Version { number, from, text } in versions {
            call.arg(number).arg(from).arg(text);
        }
        let mut reply = Reply::of(match self.acks {
            Acks::Store => self.queries.run(&call).await?,
            Acks::Replica => self.queries.run_on_replica(&call).await?,
        })?;
        Ok(match reply.text()?.as_str() {
            "DONE" => Changed::Done,
            "OTHER" => Changed::Other { newest: reply.number()? },
            "EARLY" => Changed::Early { after: reply.number()? },
            _ => return Err(unexpected("an answer to a change of the rules")),
        })
    }

    fn apply_call(&self, shard: Shard, frame: &Frame) -> Call<'_> {
        let mut keys =
            vec![keys::head(shard), keys::due(shard), keys::tombstones(shard), keys::slices(shard), keys::aside(shard)];
        for deltas in &frame.deltas {
            keys.push(keys::bucket(shard, &deltas.bucket));
            keys.push(keys::open(shard, deltas.bucket.period));
        }
        keys.extend(frame.kin.iter().flat_map(|kin| &kin.periods).map(|period| keys::open(shard, *period)));
        let mut call = self.clocked(&self.scripts.apply, &keys);
        call.arg(match self.policy.late {
            Late::Reopen => "reopen",
            Late::Refuse => "refuse",
        });
        call.arg(self.policy.idempotency_ttl).arg(keys::slice_prefix(shard));
        call.arg(keys::writer_field(frame.writer)).arg(frame.sequence).arg(frame.checksum).arg(frame.received);
        call.arg(frame.rules);
        call.arg(frame.keys.len());
        for key in &frame.keys {
            call.arg(&key.id[..]).arg(&key.fingerprint[..]).arg(key.ttl);
        }
        call.arg(frame.deltas.len());
        let mut field = String::new();
        for deltas in &frame.deltas {
            call.arg(keys::bucket_name(&deltas.bucket)).arg(deltas.bucket.start).arg(deltas.bucket.end);
            call.arg(deltas.sources.len());
            let mut states = Vec::with_capacity(deltas.sources.len() * layout::SCALAR_BYTES);
            for (source, moments) in &deltas.sources {
                field.clear();
                field.push_str("s:");
                field.push_str(source);
                call.arg(&field);
                states.extend_from_slice(&layout::encode(moments));
            }
            call.arg(&states[..]);
        }
        match &frame.kin {
            None => _ = call.arg(""),
            Some(Kin { periods, tops }) => {
                call.arg(periods.len()).arg(keys::bucket_prefix(shard));
                for tops in tops {
                    call.arg(tops.len());
                    for top in tops {
                        call.arg(top.start).arg(top.end);
                    }
                }
            }
        }
        call
    }
}

/// A URL as it may be shown: the password, if any, is replaced.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            format!("{scheme}://{}:***@{host}", user.split(':').next().unwrap_or_default())
        }
        _ => url.to_owned(),
    }
}

#[async_trait::async_trait]
impl Store for RedisStore {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn policy(&self) -> Policy {
        self.policy
    }

    fn acks(&self) -> Acks {
        self.acks
    }

    fn connection(&self) -> u64 {
        self.rollover.renewed()
    }

    async fn head(&self, shard: Shard, writer: WriterId) -> Result<Head, StoreError> {
        let mut call = self.clocked(&self.scripts.head, &[keys::head(shard)]);
        call.arg(keys::writer_field(writer));
        let mut reply = Reply::of(self.commits.run(&call).await?)?;
        let epoch = reply.text()?;
        Ok(Head {
            epoch: if epoch.is_empty() { None } else { Some(number(&epoch)?) },
            elapsed: reply.number()?,
            now: reply.number()?,
            sequence: reply.number()?,
            rules: reply.number()?,
        })
    }

    async fn found(&self, shard: Shard) -> Result<i64, StoreError> {
        let call = self.clocked(&self.scripts.found, &[keys::head(shard)]);
        number(&text(self.commits.run(&call).await?)?)
    }

    async fn apply(&self, shard: Shard, frame: &Frame) -> Result<Answer, StoreError> {
        let call = self.apply_call(shard, frame);
        let reply = match self.acks {
            Acks::Store => self.commits.run(&call).await?,
            // Also where nothing was applied: that it was before is what a replica has to know.
            Acks::Replica => self.commits.run_on_replica(&call).await?,
        };
        let mut reply = Reply::of(reply)?;
        Ok(match reply.text()?.as_str() {
            "LOST" => Answer::Lost,
            "DUP" => Answer::Dup { checksum: reply.number()? },
            "GAP" => Answer::Gap { last: reply.number()? },
            "STALE" => Answer::Stale,
            "SEEN" => {
                let mut seen = Vec::new();
                while !reply.is_empty() {
                    let index = reply.number()?;
                    let fingerprint = reply.bytes()?.try_into().map_err(|_| unexpected("a fingerprint"))?;
                    seen.push((index, fingerprint));
                }
                Answer::Seen(seen)
            }
            "RULES" => Answer::Rules { newest: reply.number()? },
            "CLOSING" => {
                let mut lives = Vec::new();
                while !reply.is_empty() {
                    lives.push(Life {
                        bucket: parse_bucket(&reply.text()?)?,
                        generation: reply.number()?,
                        revision: reply.number()?,
                    });
                }
                Answer::Closing(lives)
            }
            "LATE" => {
                let mut late = Vec::new();
                while !reply.is_empty() {
                    late.push(reply.number()?);
                }
                Answer::Late(late)
            }
            "MIXED" => Answer::Mixed,
            "UNLIKE" => {
                let mut clashes = Vec::new();
                while !reply.is_empty() {
                    clashes.push(Clash { delta: reply.number()?, source: reply.number()?, held: reply.number()? });
                }
                Answer::Unlike(clashes)
            }
            "OVERFLOW" => return Err(overflow(&reply.text()?)),
            "APPLIED" => {
                report_aside(reply.number()?);
                Answer::Applied
            }
            _ => return Err(unexpected("an answer to apply")),
        })
    }

    async fn due(&self, shard: Shard, limit: usize) -> Result<Due, StoreError> {
        let keys = [keys::head(shard), keys::due(shard), keys::tombstones(shard), keys::slices(shard)];
        let mut call = self.clocked(&self.scripts.due, &keys);
        call.arg(limit).arg(keys::slice_prefix(shard)).arg(TOMBSTONE_TTL);
        let mut reply = Reply::of(self.rollover.run(&call).await?)?;
        let (now, elapsed, next) = (reply.number()?, reply.number()?, reply.text()?);
        let (oldest, open) = (reply.text()?, reply.number()?);
        let mut buckets = Vec::new();
        while !reply.is_empty() {
            buckets.push(parse_bucket(&reply.text()?)?);
        }
        let time = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
        Ok(Due { now, elapsed, buckets, next: time(&next)?, oldest: time(&oldest)?, open })
    }

    async fn seal(&self, shard: Shard, bucket: Bucket, family: &Family, when: When) -> Result<Sealed, StoreError> {
        let mut keys =
            vec![keys::head(shard), keys::due(shard), keys::bucket(shard, &bucket), keys::open(shard, bucket.period)];
        keys.extend(family.descendants.iter().map(|period| keys::open(shard, *period)));
        let mut call = self.clocked(&self.scripts.seal, &keys);
        call.arg(keys::bucket_name(&bucket)).arg(bucket.start).arg(bucket.end).arg(VISIBILITY).arg(WAITING_RECHECK);
        call.arg(u8::from(when == When::Now));
        let mut reply = Reply::of(self.rollover.run(&call).await?)?;
        Ok(match reply.text()?.as_str() {
            "GONE" => Sealed::Gone,
            "WAITING" => Sealed::Waiting,
            "CLOSING" => Sealed::Closing(Life { bucket, generation: reply.number()?, revision: reply.number()? }),
            "SEALED" => Sealed::Sealed {
                life: Life { bucket, generation: reply.number()?, revision: reply.number()? },
                acked: reply.number::<u8>()? == 1,
            },
            _ => return Err(unexpected("an answer to seal")),
        })
    }

    async fn page(
        &self,
        shard: Shard,
        bucket: Bucket,
        generation: i64,
        cursor: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        let mut call = self.scripts.page.call(&[keys::bucket(shard, &bucket), keys::head(shard)]);
        call.arg(generation).arg(cursor.unwrap_or("0")).arg(PAGE_SOURCES).arg(size_of::<f64>() * PAGE_DOUBLES);
        let mut reply = Reply::of(self.rollover.run(&call).await?)?;
        if reply.is_empty() {
            return Ok(None);
        }
        let next = reply.text()?;
        let mut sources = Vec::new();
        while !reply.is_empty() {
            let (field, state) = (reply.text()?, reply.bytes()?);
            let source = keys::parse_source_field(&field).ok_or_else(|| unexpected("a source"))?;
            match layout::decode(&state) {
                Ok(moments) => sources.push((Arc::from(source), moments)),
                // The close sets it aside; until then it is no reason to hold back the others.
                Err(e) => tracing::error!(source, bucket = %keys::bucket_name(&bucket), "a state cannot be read: {e}"),
            }
        }
        Ok(Some(Page { sources, next: (next != "0").then_some(next) }))
    }

    async fn ack(&self, shard: Shard, life: Life) -> Result<Acked, StoreError> {
        let keys = [keys::head(shard), keys::due(shard), keys::bucket(shard, &life.bucket), keys::log(shard)];
        let mut call = self.clocked(&self.scripts.ack, &keys);
        call.arg(keys::bucket_name(&life.bucket)).arg(life.bucket.end).arg(life.generation).arg(life.revision);
        call.arg(LOG_LIVES);
        Ok(match text(self.rollover.run(&call).await?)?.as_str() {
            "IGNORED" => Acked::Ignored,
            "DIRTY" => Acked::Dirty,
            "CLEAN" => Acked::Clean,
            _ => return Err(unexpected("an answer to ack")),
        })
    }

    async fn acked(&self, shard: Shard, after: Option<i64>, limit: usize) -> Result<AckLog, StoreError> {
        let mut call = self.scripts.acked.call(&[keys::head(shard), keys::log(shard)]);
        match after {
            // No mark is negative.
            Some(mark) => call.arg(mark.max(0)),
            None => call.arg(""),
        };
        call.arg(limit);
        let mut reply = Reply::of(self.queries.run(&call).await?)?;
        let epoch = reply.text()?;
        let epoch = if epoch.is_empty() { None } else { Some(number(&epoch)?) };
        let mut log = AckLog { epoch, whole: reply.text()? == "1", last: reply.number()?, lives: Vec::new() };
        while !reply.is_empty() {
            let (mark, life) = (reply.number()?, reply.text()?);
            log.lives.push((mark, parse_life(&life)?));
        }
        Ok(log)
    }

    async fn close(
        &self,
        shard: Shard,
        life: Life,
        family: &Family,
        cursor: u64,
        when: When,
    ) -> Result<Closed, StoreError> {
        let Life { bucket, generation, revision } = life;
        let mut keys = vec![
            keys::head(shard),
            keys::due(shard),
            keys::tombstones(shard),
            keys::aside(shard),
            keys::bucket(shard, &bucket),
            keys::open(shard, bucket.period),
        ];
        for parent in &family.parents {
            keys.push(keys::bucket(shard, parent));
            keys.push(keys::open(shard, parent.period));
        }
        keys.extend(family.descendants.iter().map(|period| keys::open(shard, *period)));
        let mut call = self.clocked(&self.scripts.close, &keys);
        call.arg(keys::bucket_name(&bucket)).arg(bucket.start).arg(bucket.end).arg(generation).arg(revision);
        call.arg(cursor)
            .arg(PAGE_SOURCES)
            .arg(TOMBSTONE_TTL)
            .arg(u8::from(when == When::Now))
            // Merging them is what takes the time, as in a frame.
            .arg(size_of::<f64>() * MAX_FRAME_DOUBLES)
            .arg(family.parents.len());
        for parent in &family.parents {
            call.arg(keys::bucket_name(parent)).arg(parent.start).arg(parent.end);
        }
        let mut reply = Reply::of(self.rollover.run(&call).await?)?;
        Ok(match reply.text()?.as_str() {
            "GONE" => Closed::Gone,
            "REFUSED" => Closed::Refused,
            "WAITING" => Closed::Waiting,
            "PARENT" => {
                let index: usize = reply.number()?;
                let bucket = *family.parents.get(index).ok_or_else(|| unexpected("a parent"))?;
                Closed::ParentClosing(Life { bucket, generation: reply.number()?, revision: reply.number()? })
            }
            "OVERFLOW" => return Err(overflow(&reply.text()?)),
            answer @ ("MORE" | "DONE") => {
                let cursor = reply.number()?;
                report_aside(reply.number()?);
                if answer == "MORE" { Closed::More(cursor) } else { Closed::Done }
            }
            _ => return Err(unexpected("an answer to close")),
        })
    }

    /// What a script did is as durable as any other's; what it does not know is whether the server is
    /// still the one that did it. A connection that was lost unnoticed is found out by using it.
    async fn barrier(&self, shard: Shard) -> Result<(), StoreError> {
        match self.acks {
            Acks::Store => self.rollover.command::<Value>(&redis::cmd("PING")).await.map(drop),
            Acks::Replica => {
                let call = self.clocked(&self.scripts.confirm, &[keys::head(shard)]);
                self.rollover.run_on_replica(&call).await.map(drop)
            }
        }
    }

    async fn open(
        &self,
        shard: Shard,
        sources: &[Arc<str>],
        periods: &[Period],
        from: Millis,
        to: Millis,
    ) -> Result<Open, StoreError> {
        let indexes: Vec<String> = periods.iter().map(|period| keys::open(shard, *period)).collect();
        let mut call = self.scripts.open.call(&indexes);
        call.arg(keys::bucket_prefix(shard)).arg(from).arg(format!("({to}")).arg(open_buckets(sources.len()));
        call.arg(size_of::<f64>() * OPEN_DOUBLES);
        for source in sources {
            call.arg(keys::source_field(source));
        }
        let mut reply = Reply::of(self.queries.run(&call).await?)?;
        let until = reply.text()?;
        let mut lives = Vec::new();
        while !reply.is_empty() {
            let bucket = parse_bucket(&reply.text()?)?;
            let life = Life { bucket, generation: reply.number()?, revision: reply.number()? };
            let written = reply.number::<i64>()? > 0;
            let mut moments = Vec::with_capacity(sources.len());
            for source in sources {
                moments.push(match reply.optional_bytes()? {
                    None => None,
                    Some(state) => layout::decode(&state)
                        .inspect_err(|e| tracing::error!(%source, "a state cannot be read: {e}"))
                        .ok(),
                });
            }
            lives.push(OpenLife { life, written, moments });
        }
        Ok(Open { lives, until: if until.is_empty() { None } else { Some(number(&until)?) } })
    }

    /// Every open bucket has its time in the sorted set of due buckets.
    async fn buckets(&self, shard: Shard, cursor: Option<&str>) -> Result<OpenBuckets, StoreError> {
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(keys::due(shard)).arg(cursor.unwrap_or("0")).arg("COUNT").arg(PAGE_SOURCES);
        let (next, entries): (String, Vec<(String, String)>) = self.rollover.command(&scan).await?;
        let buckets = entries.iter().map(|(name, _)| parse_bucket(name)).collect::<Result<_, _>>()?;
        Ok(OpenBuckets { buckets, next: (next != "0").then_some(next) })
    }

    async fn forget(&self, shard: Shard, source: &str, buckets: &[Bucket]) -> Result<usize, StoreError> {
        let keys: Vec<String> = buckets.iter().map(|bucket| keys::bucket(shard, bucket)).collect();
        let mut call = self.scripts.forget.call(&keys);
        call.arg(keys::source_field(source));
        number(&text(self.rollover.run(&call).await?)?)
    }

    async fn drained(&self, shard: Shard) -> Result<(), StoreError> {
        let call = self.clocked(&self.scripts.drained, &[keys::head(shard)]);
        self.rollover.run(&call).await.map(drop)
    }

    async fn rules(&self, shard: Shard) -> Result<Vec<Version>, StoreError> {
        let mut read = redis::cmd("HGETALL");
        let fields: Vec<(u64, String)> = self.queries.command(read.arg(keys::rules(shard))).await?;
        let version = |(number, said): (u64, String)| {
            let (from, text) = said.split_once(' ').ok_or_else(|| unexpected("a version of the rules"))?;
            Ok(Version { number, from: self::number(from)?, text: text.to_owned() })
        };
        let mut versions = fields.into_iter().map(version).collect::<Result<Vec<_>, StoreError>>()?;
        versions.sort_by_key(|version| version.number);
        Ok(versions)
    }

    async fn change_rules(&self, shard: Shard, periods: &[Period], version: &Version) -> Result<Changed, StoreError> {
        self.take_rules(shard, "change", periods, std::slice::from_ref(version)).await
    }

    async fn restore_rules(&self, shard: Shard, versions: &[Version]) -> Result<(), StoreError> {
        self.take_rules(shard, "restore", &[], versions).await.map(drop)
    }

    async fn register(&self, node: &Node) -> Result<Vec<Registered>, StoreError> {
        let said = serde_json::to_string(node).expect("a node is JSON");
        self.list_of_nodes(&node.id, &said).await
    }

    async fn leave(&self, id: &str) -> Result<Vec<Registered>, StoreError> {
        self.list_of_nodes(id, "").await
    }

    async fn complete(&self) -> Result<Complete, StoreError> {
        let mut read = redis::cmd("HGET");
        let said: Option<String> = self.queries.command(read.arg(keys::META).arg(keys::COMPLETE)).await?;
        let read = |said: String| {
            let unreadable = |e| StoreError::Refused(format!("since when rows are complete cannot be read: {e}"));
            serde_json::from_str(&said).map_err(unreadable)
        };
        said.map_or(Ok(Complete::default()), read)
    }

    async fn keep_complete(&self, complete: &Complete) -> Result<(), StoreError> {
        let said = serde_json::to_string(complete).expect("numbers by name are JSON");
        let mut keep = redis::cmd("HSET");
        self.queries.command::<Value>(keep.arg(keys::META).arg(keys::COMPLETE).arg(said)).await.map(drop)
    }
}

/// The elements of a script's reply, taken one after another.
struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(unexpected("an array")),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    fn optional_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::Nil) => Ok(None),
            _ => Err(unexpected("bytes")),
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.optional_bytes()?.ok_or_else(|| unexpected("bytes"))
    }

    fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| unexpected("text"))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        number(&self.text()?)
    }
}

fn text(value: Value) -> Result<String, StoreError> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| unexpected("text")),
        _ => Err(unexpected("text")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| unexpected("a number"))
}

fn parse_bucket(name: &str) -> Result<Bucket, StoreError> {
    keys::parse_bucket_name(name).ok_or_else(|| unexpected("a bucket's name"))
}

/// `name generation revision`
fn parse_life(text: &str) -> Result<Life, StoreError> {
    let mut parts = text.split(' ');
    let mut part = || parts.next().ok_or_else(|| unexpected("a life"));
    Ok(Life { bucket: parse_bucket(part()?)?, generation: number(part()?)?, revision: number(part()?)? })
}

fn unexpected(what: &str) -> StoreError {
    StoreError::Refused(format!("unexpected reply from Redis: {what} was to come; is another program using our keys?"))
}

fn overflow(field: &str) -> StoreError {
    let source = keys::parse_source_field(field).unwrap_or(field);
    StoreError::Refused(format!("the sums of source {source} would no longer be finite"))
}

fn report_aside(states: usize) {
    if states > 0 {
        tracing::error!(states, "states that could not be read were set aside, their sources started anew");
    }
}

/// The scripts repeat these, see lua/clock.lua.
const _: () = assert!(MAX_ADVANCE == 5_000 && super::MAX_DIRTY == 60_000 && super::WRITER_TTL == 8 * 86_400_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let check = |url: &str, expected: &str| assert_eq!(without_password(url), expected);
        check("redis://127.0.0.1:6379", "redis://127.0.0.1:6379");
        check("redis://:secret@host/0", "redis://:***@host/0");
        check("redis://user:se@cret@host:1/0", "redis://user:***@host:1/0");
        check("redis://user@host", "redis://user@host");
    }
}
