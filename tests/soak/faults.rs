//! What goes wrong: the kinds of fault, what each breaks, and how often it is drawn.
//!
//! Drawn by `breaking.rs`, which breaks several things at once: whatever has a [`Victim`] of its own breaks
//! and is mended independently of the others.

use crate::kinds::Traits;
use crate::seeded::Seeded;

/// Milliseconds for which something is stopped or away: mostly short, sometimes longer than a bucket
/// waits for late readings and than the service waits for an answer.
pub(crate) const SHORT: u64 = 1_000;
pub(crate) const LONG: u64 = 8_000;
/// One in so many is long.
pub(crate) const LONG_ONE_IN: u64 = 10;
/// One in so many lives of the instance with the sink is long, where others die in its place.
const SINK_LIVES_ONE_IN: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillNode,
    /// It ends itself at a failpoint.
    Failpoint,
    KillRedis,
    /// And what it wrote in its last second is gone.
    PowerCut,
    /// Its disk finishes no sync, and it is killed meanwhile.
    SlowDisk,
    /// It dies or is cut off, and its replica takes its place.
    Failover,
    /// SIGTERM, and a start.
    Restart,
    StopNode,
    StopRedis,
    FlushScripts,
    KillClients,
    Cut,
    Delay,
    Dark,
    DiskFull,
    ClockAhead,
    ClockBack,
    /// The postmaster alone.
    KillPostgres,
    StopPostgres,
    EndSessions,
    LockTable,
    LockRows,
}

/// What is broken by one fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// One instance, by its number.
    Node(usize),
    Redis,
    /// Between the service and its Redis.
    Wire,
    /// That of the sink.
    Disk,
    /// That the store goes by.
    Clock,
    Postgres,
    /// What the store has confirmed: no instance that knows of it may die meanwhile, see `losses.rs`.
    Memory,
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill -9 of the service",
            Self::Failpoint => "end of the service at a failpoint",
            Self::KillRedis => "kill -9 of Redis",
            Self::PowerCut => "Redis loses its last second",
            Self::SlowDisk => "kill -9 of Redis while its disk stalls",
            Self::Failover => "failover to the replica",
            Self::Restart => "restart of the service",
            Self::StopNode => "service stopped",
            Self::StopRedis => "Redis stopped",
            Self::FlushScripts => "SCRIPT FLUSH",
            Self::KillClients => "CLIENT KILL",
            Self::Cut => "connections cut",
            Self::Delay => "connections slow",
            Self::Dark => "connections dark",
            Self::DiskFull => "disk of the sink full",
            Self::ClockAhead => "clock of the store ahead",
            Self::ClockBack => "clock of the store back",
            Self::KillPostgres => "kill -9 of PostgreSQL",
            Self::StopPostgres => "PostgreSQL stopped",
            Self::EndSessions => "sessions in PostgreSQL ended",
            Self::LockTable => "bucket_stats locked",
            Self::LockRows => "rows locked",
        }
    }

    /// Whether no instance is ended or kept from its store by it for long.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Self::FlushScripts | Self::KillClients | Self::Cut | Self::DiskFull)
    }

    /// Whether the instance with the sink keeps running and keeps its connection to the store; with
    /// `failpoints` it may end itself where the rollover has got to.
    pub(crate) fn spares_rollover(self, victim: Victim, failpoints: bool) -> bool {
        match victim {
            Victim::Node(number) => number > 0 || (failpoints && self == Self::Failpoint),
            _ => matches!(self, Self::FlushScripts | Self::Delay | Self::DiskFull),
        }
    }
}

/// How often each stands in the deck of its victim.
const NODE: [(Fault, usize); 4] =
    [(Fault::KillNode, 8), (Fault::Failpoint, 7), (Fault::Restart, 3), (Fault::StopNode, 4)];
const REDIS: [(Fault, usize); 4] =
    [(Fault::KillRedis, 5), (Fault::StopRedis, 3), (Fault::FlushScripts, 3), (Fault::KillClients, 3)];
const POSTGRES: [(Fault, usize); 5] = [
    (Fault::KillPostgres, 4),
    (Fault::StopPostgres, 3),
    (Fault::EndSessions, 4),
    (Fault::LockTable, 2),
    (Fault::LockRows, 2),
];
const WIRE: [(Fault, usize); 3] = [(Fault::Cut, 4), (Fault::Delay, 4), (Fault::Dark, 4)];

const FAILOVER: (Fault, usize) = (Fault::Failover, 4);

/// All faults of a victim in such a world, as often as they stand in its deck. What makes its store lose something is
/// not in the deck of Redis.
pub(crate) fn deck(victim: Victim, traits: &Traits) -> Vec<Fault> {
    let kinds = match victim {
        Victim::Node(_) => &NODE[..],
        Victim::Redis => &REDIS,
        Victim::Wire => &WIRE,
        Victim::Disk => &[(Fault::DiskFull, 1)],
        Victim::Postgres => &POSTGRES,
        Victim::Clock => &[(Fault::ClockAhead, 1), (Fault::ClockBack, 1)],
        Victim::Memory => traits.forgetful,
    };
    let failover = Some(&FAILOVER).filter(|_| victim == Victim::Redis && traits.replica);
    let elsewhere = |fault: Fault| victim == Victim::Redis && traits.forgetful.iter().any(|(f, _)| *f == fault);
    let here = kinds.iter().chain(failover).filter(|(fault, _)| !elsewhere(*fault));
    here.flat_map(|(fault, times)| vec![*fault; *times]).collect()
}

/// Milliseconds of quiet before a victim is broken again. `nodes`: how many instances there are.
pub(crate) fn quiet(victim: Victim, nodes: usize, traits: &Traits, random: &mut Seeded) -> u64 {
    let most = match victim {
        Victim::Node(_) if nodes == 1 => 150,
        Victim::Node(0) if random.below(SINK_LIVES_ONE_IN) == 0 => 6_000,
        Victim::Node(_) | Victim::Redis => 2_200,
        Victim::Wire | Victim::Postgres => 3_000,
        Victim::Clock => 4_000,
        Victim::Disk => 9_000,
        Victim::Memory => traits.remembers,
    };
    random.below(most)
}
