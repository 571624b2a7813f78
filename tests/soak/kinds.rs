//! The worlds there are, as data: what store each has, and what that store may lose.
//!
//! Chosen on the command line (`main.rs`), built by `world.rs`, broken by `faults.rs`. A new world is a
//! variant here and its line in [`Kind::traits`]; what is particular about it is a field, so that nothing
//! else asks which world it is in.

use crate::faults::Fault;

/// A world by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The embedded store
    Embedded,
    /// The same with a clock that steps
    EmbeddedClock,
    /// Redis that syncs each write
    RedisAlways,
    /// The same with a clock that steps
    RedisClock,
    /// Redis that syncs every second; in a power cut it loses what it wrote last
    RedisEverysec,
    /// The same on a disk that stalls
    RedisSlowDisk,
    /// Redis with a replica, which has what is acknowledged
    RedisReplica,
    /// Redis with a replica that nobody waits for
    RedisFailover,
    /// Redis that keeps nothing on the disk
    RedisNone,
    /// Redis that syncs each write, and two instances that write to one PostgreSQL
    Postgres,
}

/// What a store may lose of what it has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayLose {
    Nothing,
    /// What it confirmed last, less of it than a page waits before it is written.
    LastSeconds,
    /// All that is open, and which batches it has counted.
    Everything,
}

pub(crate) const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
const NOTHING: &[&str] = &["--appendonly", "no"];
const EVERYSEC: &[&str] = &["--appendonly", "yes", "--appendfsync", "everysec"];

/// What makes a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// In the table.
    pub(crate) name: &'static str,
    /// What its Redis keeps; none is the embedded store.
    pub(crate) redis: Option<&'static [&'static str]>,
    /// Whether that has a replica.
    pub(crate) replica: bool,
    /// What the service is told besides.
    pub(crate) flags: &'static [&'static str],
    /// Whether rows go to a table, from all instances, or to files, from the first.
    pub(crate) table: bool,
    pub(crate) may_lose: MayLose,
    /// What makes it lose that, and how often of all these.
    pub(crate) forgetful: &'static [(Fault, usize)],
    /// Milliseconds at most from one of these to where the next is prepared.
    pub(crate) remembers: u64,
    /// Whether the clock of the store steps: that of Redis, else of the service.
    pub(crate) clock_steps: bool,
}

impl Traits {
    /// Whether there is something between its store and the system.
    pub(crate) fn needs_shim(&self) -> bool {
        self.clock_steps || self.forgetful.iter().any(|(fault, _)| *fault == Fault::SlowDisk)
    }
}

impl Kind {
    pub(crate) fn traits(self) -> Traits {
        let embedded = Traits {
            name: "embedded",
            redis: None,
            replica: false,
            flags: &[],
            table: false,
            may_lose: MayLose::Nothing,
            forgetful: &[],
            remembers: 4_000,
            clock_steps: false,
        };
        match self {
            Self::Embedded => embedded,
            Self::EmbeddedClock => Traits { name: "embedded, clock steps", clock_steps: true, ..embedded },
            Self::RedisAlways => Traits { name: "redis, always", redis: Some(ALWAYS), ..embedded },
            Self::RedisClock => {
                Traits { name: "redis, always, clock steps", redis: Some(ALWAYS), clock_steps: true, ..embedded }
            }
            Self::Postgres => Traits { name: "redis, postgres", redis: Some(ALWAYS), table: true, ..embedded },
            Self::RedisEverysec => Traits {
                name: "redis, everysec",
                redis: Some(EVERYSEC),
                may_lose: MayLose::LastSeconds,
                forgetful: &[(Fault::PowerCut, 1), (Fault::KillRedis, 1)],
                ..embedded
            },
            Self::RedisSlowDisk => Traits {
                name: "redis, everysec, slow disk",
                redis: Some(EVERYSEC),
                may_lose: MayLose::LastSeconds,
                forgetful: &[(Fault::SlowDisk, 1), (Fault::KillRedis, 1)],
                ..embedded
            },
            Self::RedisReplica => Traits {
                name: "redis, replica",
                redis: Some(ALWAYS),
                replica: true,
                flags: &["--acks", "replica"],
                ..embedded
            },
            Self::RedisFailover => Traits {
                name: "redis, failover without acks",
                redis: Some(EVERYSEC),
                replica: true,
                may_lose: MayLose::LastSeconds,
                forgetful: &[(Fault::Failover, 1), (Fault::KillRedis, 1)],
                ..embedded
            },
            Self::RedisNone => Traits {
                name: "redis, none",
                redis: Some(NOTHING),
                may_lose: MayLose::Everything,
                forgetful: &[(Fault::KillRedis, 1)],
                remembers: 12_000,
                ..embedded
            },
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.traits().name
    }

    /// Whether the store keeps what it has confirmed.
    pub(crate) fn is_durable(self) -> bool {
        self.traits().may_lose == MayLose::Nothing
    }
}
