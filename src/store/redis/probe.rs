//! A look at a Redis, beside services that may be running on it.
//!
//! Called by `meanwhile check`. Reads, and runs the one script that changes nothing, so that a user who
//! may not run scripts is noticed; pins no layout.

use super::link::{self, Link, Script};
use super::{CLOCK_LUA, LAYOUT};
use crate::store::probe::Probe;
use crate::store::{Acks, Durability, StoreError, WriterId, keys};
use redis::Value;

/// Looks at the server at this address, for a service that would wait for these.
///
/// # Errors
/// If it cannot be reached, does not let us in, is a replica, may evict keys, or holds another layout.
pub async fn probe(url: &str, acks: Acks) -> Result<Probe, StoreError> {
    look(url, acks).await.map_err(explained)
}

async fn look(url: &str, acks: Acks) -> Result<Probe, StoreError> {
    let link = Link::new(url)?;
    let durability = link::durability(&link).await?;
    let mut found = Vec::new();
    for (field, expected) in [("layout", LAYOUT), ("shards", 1)] {
        let mut read = redis::cmd("HGET");
        let pinned: Option<String> = link.command(read.arg(keys::META).arg(field)).await?;
        match pinned {
            None => found = vec!["empty, pinned at the first start".to_owned()],
            Some(pinned) if pinned == expected.to_string() => found.push(format!("{field} {pinned}")),
            Some(pinned) => {
                return Err(StoreError::Refused(format!(
                    "it has {field} {pinned}, this program needs {expected}: give it another database, redis://HOST:PORT/DB"
                )));
            }
        }
    }
    if is_replica(&link).await? {
        let reason = "it is a replica and takes no writes: give the address of its primary";
        return Err(StoreError::Refused(reason.to_owned()));
    }
    let head = Script::new("head", &[CLOCK_LUA, include_str!("../lua/head.lua")]);
    let mut call = head.call(&[keys::head(0)]);
    // Its own clock; grace and lateness, which this script does not use; a writer nobody is.
    call.arg("").arg(0).arg(0).arg(keys::writer_field(WriterId([0; 8])));
    link.run(&call).await?;
    let mut warnings: Vec<String> = remedy(durability).map(str::to_owned).into_iter().collect();
    if acks == Acks::Replica && !link.has_replica().await? {
        let said = "no replica is attached, and with --acks replica nothing is acknowledged without one: \
                    write \"replicaof HOST PORT\" into the redis.conf of another server";
        warnings.push(said.to_owned());
    }
    Ok(Probe { found: found.join(", "), durability, warnings })
}

/// Adds the remedy to what the network and the server say.
fn explained(error: StoreError) -> StoreError {
    const REMEDIES: [(&str, &str); 5] = [
        ("refused (os error", "start redis-server there, or give another HOST:PORT"),
        ("no connection within", "is this its address, and does a firewall let us through?"),
        ("NOAUTH", "write redis://USER:PASSWORD@HOST:PORT"),
        ("authentication failed", "user or password of the address are not right"),
        (
            "NoPerm",
            "give this user the rights in deploy/redis-users.acl: EVALSHA, SCRIPT LOAD, WAIT, the keys mw:* and others",
        ),
    ];
    let StoreError::Unavailable(said) = error else { return error };
    let remedy = REMEDIES.iter().find(|(sign, _)| said.contains(sign));
    StoreError::Unavailable(remedy.map_or(said.clone(), |(_, remedy)| format!("{said}: {remedy}")))
}

/// A server that does not let us ask is taken for a primary.
async fn is_replica(link: &Link) -> Result<bool, StoreError> {
    match link.command::<Vec<Value>>(&redis::cmd("ROLE")).await {
        Ok(role) => Ok(matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave")),
        Err(StoreError::Unknown(error)) => Err(StoreError::Unavailable(error)),
        Err(_) => Ok(false),
    }
}

fn remedy(durability: Durability) -> Option<&'static str> {
    match durability {
        Durability::Disk => None,
        Durability::Seconds => Some(
            "readings answered in the last second or two can go with the machine; \
             \"appendfsync always\" and \"no-appendfsync-on-rewrite no\" in redis.conf keep them",
        ),
        Durability::Memory => Some(
            "what is open is lost whenever Redis ends; \
             \"appendonly yes\" and \"appendfsync always\" in redis.conf keep it",
        ),
        Durability::Unknown => Some(
            "it does not show its settings (CONFIG GET is refused); \
             see that it has \"maxmemory-policy noeviction\" and \"appendonly yes\"",
        ),
    }
}
