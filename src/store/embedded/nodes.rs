//! The list of instances, in memory: the file's lock lets nobody in but this process. Changing it changes
//! nothing in the file, whose clocks are only read.
//!
//! Called by `embedded.rs`; the counterpart of lua/register.lua.

use super::clocks::Clocks;
use super::{DatabaseResult, Inner, tables};
use crate::stats::Millis;
use crate::store::nodes::{NODE_TTL, Node, Registered};
use redb::ReadTransaction;
use std::sync::Mutex;

pub(super) type List = Mutex<Vec<Entry>>;

/// An instance, by number.
pub(super) struct Entry {
    node: Node,
    number: u64,
    /// In `elapsed`.
    heard: Millis,
}

/// The list while it is changed.
pub(super) struct Changing<'l> {
    list: &'l mut Vec<Entry>,
    elapsed: Millis,
}

impl Changing<'_> {
    pub(super) fn enter(&mut self, node: Node) {
        let heard = self.elapsed;
        if let Some(entry) = self.list.iter_mut().find(|entry| entry.node.id == node.id) {
            (entry.node, entry.heard) = (node, heard);
        } else {
            let number = self.list.last().map_or(1, |last| last.number + 1);
            self.list.push(Entry { node, number, heard });
        }
    }

    pub(super) fn leave(&mut self, id: &str) {
        self.list.retain(|entry| entry.node.id != id);
    }
}

/// Forgets who is gone, changes the list and returns it.
pub(super) fn change(
    inner: &Inner,
    transaction: &ReadTransaction,
    change: impl FnOnce(&mut Changing<'_>),
) -> DatabaseResult<Vec<Registered>> {
    let elapsed = Clocks::read(inner, &transaction.open_table(tables::HEADS)?, 0)?.elapsed;
    let mut list = inner.nodes.lock().expect("no panic while it is held");
    list.retain(|entry| elapsed - entry.heard < NODE_TTL);
    change(&mut Changing { list: &mut list, elapsed });
    let registered = |entry: &Entry| Registered {
        node: entry.node.clone(),
        number: entry.number,
        heard: (elapsed - entry.heard).max(0),
    };
    Ok(list.iter().map(registered).collect())
}
