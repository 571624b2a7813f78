//! Groups in the committer: two nodes share a store, and one of them may be behind with the rules.
//!
//! The store is the oracle behind scripted faults (`unreliable.rs`). What a service does with rules is in `ruling.rs`.

use crate::oracle::Oracle;
use crate::seeded::Seeded;
use crate::unreliable::{Fault, Unreliable};
use crate::world::calendar;
use meanwhile::clock::Clock;
use meanwhile::config::WrittenRules;
use meanwhile::ingest::commit::{CommitError, Committed, Committer, Request, RequestKey};
use meanwhile::ingest::fold::{Part, RootDeltas};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Calendar};
use meanwhile::stats::moments::Moments;
use meanwhile::store::rules::ALL_TIME;
use meanwhile::store::{Late, Policy, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// On a minute.
const T0: Millis = 1_700_000_040_000;
const MINUTE: Millis = 60_000;
const POLICY: Policy = Policy { grace: 5_000, lateness: 60_000, late: Late::Refuse, idempotency_ttl: 3_600_000 };
const COUNTED: Result<Committed, CommitError> = Ok(Committed { duplicate: false, too_late: Vec::new() });
const DUPLICATE: Result<Committed, CommitError> = Ok(Committed { duplicate: true, too_late: Vec::new() });

/// Random schedules.
const CASES: u64 = 200;

struct Nodes {
    store: Arc<Unreliable>,
    committers: [Committer; 2],
    calendar: Arc<Calendar>,
    clock: Clock,
}

fn rules(groups: &str) -> WrittenRules {
    let text = format!("[[rule]]\nmatch = \"*.*\"\ngroups = [{groups}]\n");
    WrittenRules { rules: text, groups: None }
}

impl Nodes {
    async fn start() -> Self {
        let clock = Clock::manual(T0);
        let store = Unreliable::new(Oracle::new(POLICY, clock.clone()));
        let calendar = Arc::new(calendar("1m,1h"));
        let node = async || {
            let shared: Arc<dyn Store> = Arc::clone(&store) as _;
            Committer::start(shared, Arc::clone(&calendar), Arc::default(), clock.clone()).await.unwrap().0
        };
        let committers = [node().await, node().await];
        Self { store, committers, calendar, clock }
    }

    fn minute(&self, t: Millis) -> Bucket {
        self.calendar.roots(t).buckets[0]
    }

    /// One reading of each of these sources and lengths in the minute of `t`.
    fn part(&self, t: Millis, sources: &[(&str, usize)]) -> Part {
        let one = |length: usize| if length == 1 { Moments::of(1.0) } else { Moments::of_vector(&vec![1.0; length]) };
        let sources: Vec<_> = sources.iter().map(|(source, length)| (Arc::from(*source), one(*length))).collect();
        let readings = sources.len();
        Part { deltas: vec![RootDeltas { buckets: vec![self.minute(t)], sources }], readings }
    }

    async fn post(
        &self,
        node: usize,
        t: Millis,
        sources: &[&str],
        key: Option<RequestKey>,
    ) -> Result<Committed, CommitError> {
        let sources: Vec<_> = sources.iter().map(|source| (*source, 1)).collect();
        self.committers[node].commit(Request { parts: vec![self.part(t, &sources)], key }).await
    }

    async fn apply(&self, node: usize, groups: &str) -> Millis {
        self.committers[node].rules().change(&rules(groups)).await.unwrap().0.from
    }

    /// Readings of a source in the minute of `t`.
    async fn check(&self, t: Millis, source: &str, expected: f64) {
        let (from, to) = (self.minute(t).start, self.minute(t).end);
        let open = self.store.inner.open(0, &[source.into()], self.calendar.periods(), from, to).await.unwrap();
        let minute = open.lives.iter().filter(|life| life.life.bucket == self.minute(t));
        let count: f64 = minute.filter_map(|life| life.moments[0].as_ref()).map(|moments| moments.count).sum();
        assert_eq!(count, expected, "readings of {source}");
    }
}

fn key(id: u128) -> RequestKey {
    RequestKey { id, fingerprint: 1 << 64, ttl: POLICY.idempotency_ttl }
}

#[tokio::test(start_paused = true)]
async fn a_group_has_what_its_members_have() {
    let nodes = Nodes::start().await;
    assert_eq!(nodes.apply(0, "\"{1}\", \"of {2}\"").await, ALL_TIME);
    assert_eq!(nodes.post(0, T0, &["west.a", "west.b", "east.a", "cellar"], Some(key(1))).await, COUNTED);
    // The other node has not heard of the rules, and counts by them.
    assert_eq!(nodes.post(1, T0, &["west.a", "west.b", "east.a", "cellar"], Some(key(1))).await, DUPLICATE);
    assert_eq!(nodes.post(1, T0, &["west.a"], Some(key(2))).await, COUNTED);
    for (group, count) in [("west", 3.0), ("east", 1.0), ("of a", 3.0), ("of b", 1.0), ("cellar", 0.0)] {
        nodes.check(T0, &format!("group:{group}"), count).await;
    }
    nodes.check(T0, "west.a", 2.0).await;
}

#[tokio::test(start_paused = true)]
async fn old_buckets_keep_the_old_groups_on_every_node() {
    let nodes = Nodes::start().await;
    assert_eq!(nodes.post(0, T0, &["a.b"], None).await, COUNTED);
    assert_eq!(nodes.apply(0, "\"one\"").await, T0 + MINUTE);
    nodes.clock.set(T0 + MINUTE + 1_000);
    assert_eq!(nodes.apply(1, "\"two\"").await, T0 + 2 * MINUTE);
    nodes.clock.set(T0 + 2 * MINUTE + 1_000);
    // Node 0 is one behind.
    for (node, t) in [(0, T0 + MINUTE), (0, T0 + 2 * MINUTE), (1, T0 + MINUTE), (1, T0 + 2 * MINUTE)] {
        assert_eq!(nodes.post(node, t, &["a.b"], None).await, COUNTED);
    }
    for (t, one, two) in [(T0, 0.0, 0.0), (T0 + MINUTE, 2.0, 0.0), (T0 + 2 * MINUTE, 0.0, 2.0)] {
        nodes.check(t, "group:one", one).await;
        nodes.check(t, "group:two", two).await;
    }
}

/// A frame by old rules is held up on its way and arrives when another was made in its place.
#[tokio::test(start_paused = true)]
async fn a_late_copy_of_an_outdated_frame_counts_nothing() {
    for fault in [Fault::Delayed, Fault::LostCall, Fault::LostAnswer] {
        let nodes = Nodes::start().await;
        nodes.apply(0, "\"one\"").await;
        assert_eq!(nodes.post(1, T0, &["a.b"], None).await, COUNTED);
        let from = nodes.apply(0, "\"two\"").await;
        nodes.clock.set(from + 1_000);
        nodes.store.fail([fault]);
        assert_eq!(nodes.post(1, from, &["a.b"], None).await, COUNTED);
        nodes.store.deliver().await;
        nodes.check(from, "group:one", 0.0).await;
        nodes.check(from, "group:two", 1.0).await;
        nodes.check(from, "a.b", 1.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_the_rules_gets_them_back() {
    let nodes = Nodes::start().await;
    let empty = nodes.store.inner.save();
    nodes.apply(0, "\"one\"").await;
    assert_eq!(nodes.post(1, T0, &["a.b"], None).await, COUNTED);
    nodes.store.inner.restore(empty);
    // Whoever looks at them meanwhile makes nobody forget them.
    assert_eq!(nodes.committers[1].rules().present().await.unwrap().number(), 0);
    assert_eq!(nodes.post(1, T0, &["a.b"], None).await, COUNTED);
    nodes.check(T0, "group:one", 1.0).await;
    nodes.store.inner.restore(crate::oracle::State::default());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(nodes.post(0, T0, &["a.b"], None).await, COUNTED);
    nodes.check(T0, "group:one", 1.0).await;
}

#[tokio::test(start_paused = true)]
async fn members_of_two_lengths_are_refused_by_the_name_of_the_group() {
    let nodes = Nodes::start().await;
    nodes.apply(0, "\"{1}\"").await;
    let post = async |sources: &[(&str, usize)]| {
        nodes.committers[0].commit(Request { parts: vec![nodes.part(T0, sources)], key: None }).await
    };
    let unlike = |answer: &Result<Committed, CommitError>| match answer {
        Err(error @ CommitError::Unlike { source_id, .. }) => {
            assert!(error.to_string().contains("a group that the rules put"), "{error}");
            source_id.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(unlike(&post(&[("west.a", 1), ("west.b", 2)]).await), "group:west", "in one request");
    assert_eq!(post(&[("west.a", 1), ("east.b", 2)]).await, COUNTED);
    assert_eq!(unlike(&post(&[("west.b", 2)]).await), "group:west", "in the store");
    // Of requests that wait together only those are refused.
    let (parts, key) = (vec![nodes.part(T0, &[("east.c", 3)])], None);
    let (good, bad, other) = tokio::join!(
        nodes.post(0, T0, &["west.c"], None),
        nodes.committers[0].commit(Request { parts, key }),
        post(&[("east.c", 2)])
    );
    assert_eq!((good, other), (COUNTED, COUNTED));
    assert_eq!(unlike(&bad), "group:east");
    for (source, count) in [("group:west", 2.0), ("group:east", 2.0), ("west.b", 0.0), ("east.c", 1.0)] {
        nodes.check(T0, source, count).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_late_is_in_no_group() {
    let nodes = Nodes::start().await;
    nodes.apply(0, "\"one\"").await;
    nodes.clock.set(T0 + 3 * MINUTE);
    let parts = vec![Part {
        deltas: [T0, T0 + 3 * MINUTE].iter().flat_map(|t| nodes.part(*t, &[("a.b", 1)]).deltas).collect(),
        readings: 2,
    }];
    for duplicate in [false, true] {
        let answer = nodes.committers[0].commit(Request { parts: parts.clone(), key: Some(key(1)) }).await;
        assert_eq!(answer, Ok(Committed { duplicate, too_late: vec![(0, 0)] }));
    }
    nodes.check(T0, "group:one", 0.0).await;
    nodes.check(T0 + 3 * MINUTE, "group:one", 1.0).await;
}

/// Random posts on both nodes between random changes of the rules: in each minute a group has what the members have
/// that it has by the version of that minute.
async fn check_random(seed: u64) {
    const GROUPS: [&str; 4] = ["\"one\"", "\"{1}\"", "\"{2}\", \"one\"", ""];
    const SOURCES: [&str; 4] = ["a.x", "a.y", "b.x", "c"];
    let mut random = Seeded::new(seed);
    let nodes = Nodes::start().await;
    // Of each minute: what was counted.
    let mut counted = std::collections::BTreeMap::<(Millis, &str), f64>::new();
    let mut now = T0;
    for _ in 0..60 {
        let node = random.below(2) as usize;
        match random.below(10) {
            0 => drop(nodes.apply(node, GROUPS[random.below(4) as usize]).await),
            1..3 => {
                now += random.below(90_000).cast_signed();
                nodes.clock.set(now);
            }
            _ => {
                let t = now - random.below(2).cast_signed() * MINUTE;
                let source = SOURCES[random.below(4) as usize];
                if random.below(4) == 0 {
                    nodes.store.fail([Fault::LostAnswer]);
                }
                if nodes.post(node, t, &[source], None).await == COUNTED {
                    *counted.entry((nodes.minute(t).start, source)).or_default() += 1.0;
                }
            }
        }
    }
    let history = nodes.committers[0].rules().load().await.unwrap();
    let mut expected = std::collections::BTreeMap::<(Millis, String), f64>::new();
    for ((start, source), count) in &counted {
        let groups = history.at(*start).map(|(_, rules)| rules.explain(source).groups).unwrap_or_default();
        for group in groups {
            *expected.entry((*start, group.to_string())).or_default() += count;
        }
        nodes.check(*start, source, *count).await;
        for group in ["group:one", "group:a", "group:b", "group:x", "group:y"] {
            expected.entry((*start, group.to_owned())).or_default();
        }
    }
    for ((start, group), count) in expected {
        nodes.check(start, &group, count).await;
    }
}

#[tokio::test(start_paused = true)]
async fn groups_are_the_sums_of_their_members_whatever_happens() {
    for seed in 1..=CASES {
        check_random(seed).await;
    }
}
