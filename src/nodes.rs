//! The instances that share a store: joins them, stays among them, knows who they are.
//!
//! Started by `app.rs`, asked by `http/`; uses the store's list (`store/nodes.rs`). Guarantees: an
//! instance that does not fit to one that came before it does not start, and one that was away for so
//! long that another has taken its place ends. Nothing else depends on the list: what is counted is
//! safe without it.

use crate::stats::Millis;
use crate::store::nodes::{NODE_TTL, Node, Registered};
use crate::store::{Store, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Several times in [`NODE_TTL`]: a lost call takes nobody off the list.
const RENEW_EVERY: Duration = Duration::from_secs(3);
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// How often one that waits for its place looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why an instance cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who is there, what does not fit, and what to do about it.
    #[error("{0}")]
    Refused(String),
}

/// See the module.
pub struct Nodes {
    store: Arc<dyn Store>,
    me: Node,
    /// As of the last look.
    list: Mutex<Vec<Registered>>,
}

impl Nodes {
    /// Puts this instance on the list. Where it does not fit to one that is there it waits until that one
    /// is off the list, [`NODE_TTL`] after its end at the latest.
    ///
    /// # Errors
    /// `Refused` if the one that is there is alive.
    pub async fn join(store: Arc<dyn Store>, me: Node) -> Result<Arc<Self>, NodeError> {
        let mut heard: HashMap<String, Millis> = HashMap::new();
        loop {
            let list = store.register(&me).await?;
            let Some((other, reason)) = obstacle(&me, &list) else {
                let nodes = Self { store, me, list: Mutex::default() };
                nodes.keep(&list);
                return Ok(Arc::new(nodes));
            };
            // While it waits nobody else must find it in the way.
            store.leave(&me.id).await?;
            match heard.insert(other.node.id.clone(), other.heard) {
                Some(before) if other.heard < before => return Err(NodeError::Refused(reason)),
                Some(_) => {}
                None => tracing::warn!(
                    "{reason}; it was last heard of {} s ago and is off the list after {} s: waiting",
                    other.heard / 1_000,
                    NODE_TTL / 1_000,
                ),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Says again and again that this instance is there; returns only if it must not go on.
    pub async fn stay(self: Arc<Self>) -> NodeError {
        loop {
            sleep(RENEW_EVERY).await;
            match self.store.register(&self.me).await {
                Ok(list) => {
                    if let Some((_, reason)) = obstacle(&self.me, &list) {
                        return NodeError::Refused(reason);
                    }
                    self.keep(&list);
                }
                // The committer says when the store is away. Nobody goes off the list by that: `elapsed`
                // stands still meanwhile.
                Err(e) => tracing::debug!("the list of instances cannot be reached: {e}"),
            }
        }
    }

    /// Takes this instance off the list, so that another need not wait for its place.
    pub async fn leave(&self) {
        // A store that does not answer must not hold up the stop: the place is free soon anyway.
        let _ = timeout(LEAVE_WITHIN, self.store.leave(&self.me.id)).await;
    }

    /// Who was there at the last look, this instance included, those that came first first.
    #[must_use]
    pub fn list(&self) -> Vec<Registered> {
        self.locked().clone()
    }

    /// This instance.
    #[must_use]
    pub fn me(&self) -> &Node {
        &self.me
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Registered>> {
        self.list.lock().expect("no panic while it is held")
    }

    fn keep(&self, list: &[Registered]) {
        let before = std::mem::replace(&mut *self.locked(), list.to_vec());
        let others = list.iter().map(|entry| &entry.node).filter(|node| node.id != self.me.id);
        for node in others.filter(|node| !before.iter().any(|entry| entry.node.id == node.id)) {
            tracing::info!("instance {} at {} shares the store, role {}", node.id, node.address, node.role);
        }
        for gone in before.iter().filter(|entry| !list.iter().any(|other| other.node.id == entry.node.id)) {
            tracing::info!("instance {} at {} is gone", gone.node.id, gone.node.address);
        }
        let has_sink = |list: &[Registered]| list.iter().any(|entry| entry.node.sink.is_some());
        if !has_sink(list) && (before.is_empty() || has_sink(&before)) {
            tracing::warn!("no instance with a sink shares the store: finished buckets stay there until one does");
        }
    }
}

/// The first of those that came before that this instance does not fit to, and how to say so.
fn obstacle(me: &Node, list: &[Registered]) -> Option<(Registered, String)> {
    let number = list.iter().find(|entry| entry.node.id == me.id).map_or(u64::MAX, |entry| entry.number);
    list.iter().filter(|entry| entry.number < number).find_map(|entry| {
        let reason = misfit(me, &entry.node)?;
        Some((entry.clone(), format!("instance {} at {} {reason}", entry.node.id, entry.node.address)))
    })
}

/// Why these two cannot share a store.
fn misfit(me: &Node, other: &Node) -> Option<String> {
    if let (Some(mine), Some(theirs)) = (&me.sink, &other.sink) {
        if mine.identity == theirs.identity && mine.exclusive {
            // Only one process can have it, and it is this one: the other has ended.
            return None;
        }
        if mine.identity != theirs.identity {
            return Some(format!(
                "has the sink {} on this store, so this one cannot have {}: give it --role ingest, or stop the other",
                theirs.name, mine.name
            ));
        }
    }
    // Another version may know settings that this one does not.
    let differs = |(name, mine): (&String, &String)| {
        let theirs = other.settings.get(name).filter(|theirs| *theirs != mine)?;
        Some(format!("{name} {theirs}, this one has {mine}"))
    };
    let differences: Vec<String> = me.settings.iter().filter_map(differs).collect();
    if differences.is_empty() {
        return None;
    }
    let remedy = "give all on one store the same; to change it, stop all of them first";
    Some(format!("runs on this store with {}: {remedy}", differences.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::nodes::NodeSink;

    fn node(id: &str, sink: Option<(&str, bool)>, periods: &str) -> Node {
        Node {
            id: id.to_owned(),
            role: "all".to_owned(),
            address: format!("http://{id}"),
            version: String::new(),
            sink: sink.map(|(name, exclusive)| NodeSink {
                name: name.to_owned(),
                exclusive,
                identity: name.to_owned(),
            }),
            settings: [("periods".to_owned(), periods.to_owned())].into(),
        }
    }

    fn check(other: &Node, me: &Node, expected: Option<&str>) {
        let entry = |node: &Node, number| Registered { node: node.clone(), number, heard: 0 };
        let said = obstacle(me, &[entry(other, 1), entry(me, 2)]).map(|(_, reason)| reason);
        match (&said, expected) {
            (Some(said), Some(part)) => assert!(said.contains(part), "{said}"),
            _ => assert_eq!(said.as_deref(), expected),
        }
        // Who came first stays.
        assert!(obstacle(me, &[entry(me, 1), entry(other, 2)]).is_none());
    }

    #[test]
    fn who_fits_to_whom() {
        let (a, b) = (Some(("csv:/a", true)), Some(("csv:/b", true)));
        let (shared, other) = (Some(("postgres://h/x", false)), Some(("postgres://h/y", false)));
        check(&node("x", a, "1m"), &node("y", None, "1m"), None);
        check(&node("x", None, "1m"), &node("y", None, "1m"), None);
        check(&node("x", shared, "1m"), &node("y", shared, "1m"), None);
        check(&node("x", a, "1m"), &node("y", b, "1m"), Some("has the sink csv:/a on this store"));
        check(&node("x", a, "1m"), &node("y", shared, "1m"), Some("cannot have postgres://h/x"));
        check(&node("x", shared, "1m"), &node("y", other, "1m"), Some("--role ingest"));
        check(
            &node("x", a, "1m"),
            &node("y", None, "1m,1h"),
            Some("instance x at http://x runs on this store with periods 1m, this one has 1m,1h"),
        );
        check(&node("x", shared, "1m"), &node("y", shared, "1h"), Some("periods 1m, this one has 1h"));
        // The directory of one that has ended, whatever it ran with.
        check(&node("x", a, "1m"), &node("y", a, "1h"), None);
        // A setting that only one of two versions knows.
        check(&node("x", None, "1m"), &Node { settings: [].into(), ..node("y", None, "") }, None);
    }
}
