//! What a look at a store finds without changing anything in it.
//!
//! `embedded/probe.rs` and `redis/probe.rs` look, for `meanwhile check`; a running service may have
//! the store meanwhile. Errors are those of the contract: `Refused` needs a hand, `Unavailable` may
//! pass.

use super::Durability;

/// A store that a service could use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is there, in a few words.
    pub found: String,
    pub durability: Durability,
    /// Why it is not better and what to do about it.
    pub warnings: Vec<String>,
}
