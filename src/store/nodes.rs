//! Who shares a store: what an instance says of itself, and for how long it is believed.
//!
//! A part of the contract in `mod.rs`; both stores keep it, `nodes.rs` in the crate's root decides who
//! may join. Time is the store's `elapsed`, so that a step of a clock takes nobody off the list.

use crate::stats::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An instance that was not heard of for so long, in `elapsed`, is gone.
pub const NODE_TTL: Millis = 15_000;

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Random, new at every start.
    pub id: String,
    pub role: String,
    /// Where clients reach it.
    pub address: String,
    pub version: String,
    /// `None` if it has none.
    pub sink: Option<NodeSink>,
    /// What must be the same on all instances, as text by the name of the setting.
    pub settings: BTreeMap<String, String>,
}

/// The sink of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSink {
    /// As in messages, without secrets.
    pub name: String,
    /// Whether only one process may have it.
    pub exclusive: bool,
    /// Tells it from every other sink, also from one of the same name on another machine.
    pub identity: String,
}

/// An instance on the list of its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub node: Node,
    /// Greater than that of all that were on the list when it came.
    pub number: u64,
    /// How long ago it was last heard of, in `elapsed`.
    pub heard: Millis,
}
