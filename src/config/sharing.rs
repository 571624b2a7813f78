//! What an instance is among those that share a store, and what its acknowledgements wait for.
//!
//! Made by `config.rs` of `--role`, `--acks` and `--advertise`; used by `app.rs`, `http/`, `nodes.rs`
//! and the store on Redis.

use std::fmt;
use std::str::FromStr;

/// Which parts of the work an instance does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// Takes readings; has no sink, so it writes no rows and answers for open buckets only.
    Ingest,
    /// Has the sink, writes rows and answers questions; takes no readings.
    Rollover,
}

impl Role {
    #[must_use]
    pub fn has_sink(self) -> bool {
        self != Self::Ingest
    }

    #[must_use]
    pub fn takes_readings(self) -> bool {
        self != Self::Rollover
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "ingest" => Ok(Self::Ingest),
            "rollover" => Ok(Self::Rollover),
            _ => Err(format!("\"{text}\" is neither all nor ingest nor rollover")),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Ingest => "ingest",
            Self::Rollover => "rollover",
        })
    }
}

/// Who must have a reading before it is acknowledged, and a row's readings before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// The store.
    #[default]
    Store,
    /// The store and at least one replica of it.
    Replica,
}

impl FromStr for Acks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "store" => Ok(Self::Store),
            "replica" => Ok(Self::Replica),
            _ => Err(format!("\"{text}\" is neither store nor replica")),
        }
    }
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Replica => "replica",
        })
    }
}

/// Reads the address of an instance, without a slash at its end.
pub(super) fn advertised(url: &str) -> Result<String, String> {
    let address = url.trim_end_matches('/');
    let host = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['@', '?', '#', '"', ' ']) => Ok(address.to_owned()),
        _ => Err("write http://HOST:PORT, by which clients reach this instance".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for role in [Role::All, Role::Ingest, Role::Rollover] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for acks in [Acks::Store, Acks::Replica] {
            assert_eq!(acks.to_string().parse(), Ok(acks));
        }
        assert!("both".parse::<Role>().is_err() && "two".parse::<Acks>().is_err());
    }

    #[test]
    fn addresses_of_instances() {
        let check = |url: &str, expected: Option<&str>| assert_eq!(advertised(url).ok().as_deref(), expected, "{url}");
        check("http://10.0.0.5:8080/", Some("http://10.0.0.5:8080"));
        check("https://means.example/a/b", Some("https://means.example/a/b"));
        check("10.0.0.5:8080", None);
        check("http://", None);
        check("http://me:hush@host", None);
    }
}
