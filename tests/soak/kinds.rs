//! The worlds there are, as data: what store each has, and what that store may lose.
//!
//! Chosen on the command line (`main.rs`), built by `world.rs`, broken by `faults.rs`. A new world is a
//! variant here and its line in [`Kind::traits`]; what is particular about it is a field, so that nothing
//! else asks which world it is in.

/// A world by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The embedded store
    Embedded,
    /// Redis that syncs each write
    RedisAlways,
    /// Redis that syncs every second; in a power cut it loses what it wrote last
    RedisEverysec,
}

/// What a store may lose of what it has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayLose {
    Nothing,
    /// What it confirmed last, less of it than a page waits before it is written.
    LastSeconds,
}

/// What makes a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// In the table.
    pub(crate) name: &'static str,
    /// When its Redis brings its file to the disk; none is the embedded store.
    pub(crate) fsync: Option<&'static str>,
    pub(crate) may_lose: MayLose,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Embedded, Self::RedisAlways, Self::RedisEverysec];

    pub(crate) fn traits(self) -> Traits {
        let durable = Traits { name: "embedded", fsync: None, may_lose: MayLose::Nothing };
        match self {
            Self::Embedded => durable,
            Self::RedisAlways => Traits { name: "redis, always", fsync: Some("always"), ..durable },
            Self::RedisEverysec => {
                Traits { name: "redis, everysec", fsync: Some("everysec"), may_lose: MayLose::LastSeconds }
            }
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
