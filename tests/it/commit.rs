//! The committer against a store that fails in every way a network and a server can: what is
//! answered must be true, and nothing may be counted twice.
//!
//! The store is the oracle behind scripted faults (`unreliable.rs`); time passes without waiting.

use crate::oracle::{Oracle, State};
use crate::unreliable::{Fault, Unreliable};
use crate::world::{calendar, wide_delta};
use meanwhile::clock::Clock;
use meanwhile::ingest::commit::{
    CommitError, Committed, Committer, Loss, Losses, MAX_WAITING_DOUBLES, REQUEST_DEADLINE, Request, RequestKey,
};
use meanwhile::ingest::fold::{Part, RootDeltas};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Bucket, Calendar};
use meanwhile::stats::layout::SCALAR_DOUBLES;
use meanwhile::stats::moments::Moments;
use meanwhile::store::{Late, PAGE_SOURCES, Policy, Sealed, Store, When};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{advance, sleep};

/// On a minute.
const T0: Millis = 1_700_000_040_000;
const POLICY: Policy = Policy { grace: 5_000, lateness: 60_000, late: Late::Reopen, idempotency_ttl: 3_600_000 };

struct Bench {
    store: Arc<Unreliable>,
    committer: Committer,
    calendar: Arc<Calendar>,
    clock: Clock,
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(POLICY).await
    }

    async fn start_with(policy: Policy) -> Self {
        let clock = Clock::manual(T0);
        let store = Unreliable::new(Oracle::new(policy, clock.clone()));
        let calendar = Arc::new(calendar("1m,1h"));
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let start = Committer::start(shared, Arc::clone(&calendar), Arc::default(), clock.clone());
        let (committer, _) = start.await.unwrap();
        Self { store, committer, calendar, clock }
    }

    fn bucket(&self, t: Millis) -> Bucket {
        self.calendar.roots(t).buckets[0]
    }

    /// One reading of 1 of this source, now.
    fn part(&self, source: &str) -> Part {
        let sources = vec![(source.into(), Moments::of(1.0))];
        Part { deltas: vec![RootDeltas { buckets: vec![self.bucket(T0)], sources }], readings: 1 }
    }

    async fn post(&self, source: &str, key: impl Into<Option<RequestKey>>) -> Result<Committed, CommitError> {
        self.committer.commit(Request { parts: vec![self.part(source)], key: key.into() }).await
    }

    /// Readings of a source, wherever they are in the store.
    async fn count(&self, source: &str) -> f64 {
        let periods = self.calendar.periods();
        let open = self.store.inner.open(0, &[source.into()], periods, Millis::MIN, Millis::MAX).await.unwrap();
        open.lives.iter().filter_map(|life| life.moments[0].clone()).map(|moments| moments.count).sum()
    }

    async fn check_count(&self, source: &str, expected: f64) {
        assert_eq!(self.count(source).await, expected, "readings of {source}");
    }
}

/// Fingerprints of two bodies differ in more than their last bits.
fn key(id: u128, body: u128) -> RequestKey {
    RequestKey { id, fingerprint: body << 64, ttl: POLICY.idempotency_ttl }
}

const COUNTED: Result<Committed, CommitError> = Ok(Committed { duplicate: false, too_late: Vec::new() });
const DUPLICATE: Result<Committed, CommitError> = Ok(Committed { duplicate: true, too_late: Vec::new() });

#[tokio::test(start_paused = true)]
async fn a_fault_on_the_way_is_not_noticed() {
    for faults in [
        vec![Fault::LostAnswer],
        vec![Fault::LostCall],
        vec![Fault::Unavailable],
        vec![Fault::LostCall, Fault::Unavailable, Fault::LostAnswer, Fault::LostCall],
        vec![Fault::LostAnswer, Fault::LostAnswer],
    ] {
        let bench = Bench::start().await;
        bench.store.fail(faults.clone());
        assert_eq!(bench.post("a", None).await, COUNTED, "{faults:?}");
        assert_eq!(bench.post("a", None).await, COUNTED, "{faults:?}, the next");
        bench.check_count("a", 2.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_turns_requests_away_and_takes_them_again() {
    let bench = Bench::start().await;
    bench.store.set_down(true);
    let first = bench.post("a", None).await;
    assert!(matches!(first, Err(CommitError::NotApplied(_))), "{first:?}");
    // Known to be away: the next ones do not even reach it.
    let calls = bench.store.calls();
    for _ in 0..1_000 {
        assert!(matches!(bench.post("a", None).await, Err(CommitError::NotApplied(_))));
    }
    assert_eq!(bench.store.calls(), calls);
    bench.store.set_down(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.post("a", None).await, COUNTED);
    bench.check_count("a", 1.0).await;
}

/// The held-back frame reaches the store before or after the next one. Whenever it does, the client
/// that repeats with its key is counted once.
async fn check_given_up(deliver_before_the_store_is_back: bool) {
    let bench = Bench::start().await;
    bench.store.fail([Fault::Delayed]);
    let asked = async { bench.post("a", key(1, 1)).await };
    let away = async {
        sleep(Duration::from_millis(1)).await;
        bench.store.set_down(true);
    };
    let (answer, ()) = tokio::join!(asked, away);
    assert!(matches!(answer, Err(CommitError::Unknown(_))), "{answer:?}");
    if deliver_before_the_store_is_back {
        bench.store.deliver().await;
    }
    bench.store.set_down(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.post("b", None).await, COUNTED, "the committer goes on");
    bench.store.deliver().await;
    bench.check_count("a", if deliver_before_the_store_is_back { 1.0 } else { 0.0 }).await;
    let repeated = bench.post("a", key(1, 1)).await;
    assert_eq!(repeated, if deliver_before_the_store_is_back { DUPLICATE } else { COUNTED });
    bench.check_count("a", 1.0).await;
    bench.check_count("b", 1.0).await;
    assert_eq!(bench.store.inner.writers(), 1, "nothing was amiss with the sequence");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_was_given_up_counts_before_the_next_or_never() {
    check_given_up(false).await;
    check_given_up(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_counts_once_however_often_it_comes() {
    let bench = Bench::start().await;
    let all = (0..20).map(|_| bench.post("a", key(1, 1)));
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|a| **a == COUNTED).count(), 1);
    assert_eq!(answers.iter().filter(|a| **a == DUPLICATE).count(), 19);
    assert_eq!(bench.post("a", key(1, 1)).await, DUPLICATE, "later");
    assert_eq!(bench.post("a", key(2, 1)).await, COUNTED, "another key");
    bench.check_count("a", 2.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_body_counts_nothing() {
    let bench = Bench::start().await;
    let both = tokio::join!(bench.post("a", key(1, 1)), bench.post("b", key(1, 2)));
    assert_eq!(both, (COUNTED, Err(CommitError::KeyReused)), "while the first is on its way");
    // The other body is longer: its second part must not be counted either.
    let parts = vec![bench.part("b"), bench.part("c")];
    let longer = bench.committer.commit(Request { parts, key: Some(key(1, 3)) }).await;
    assert_eq!(longer, Err(CommitError::KeyReused));
    bench.check_count("a", 1.0).await;
    bench.check_count("b", 0.0).await;
    bench.check_count("c", 0.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_of_several_parts_is_completed_by_its_repetition() {
    let bench = Bench::start().await;
    let request = || Request { parts: ["a", "b", "c"].map(|s| bench.part(s)).to_vec(), key: Some(key(1, 1)) };
    // The first part is counted, then the store goes away.
    bench.store.gate.forget_permits(usize::MAX);
    bench.store.gate.add_permits(1);
    let away = async {
        sleep(Duration::from_millis(100)).await;
        bench.store.set_down(true);
        bench.store.gate.add_permits(1_000);
    };
    let (answer, ()) = tokio::join!(bench.committer.commit(request()), away);
    assert!(matches!(answer, Err(CommitError::Unknown(_))), "a part is counted: {answer:?}");
    bench.store.set_down(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.committer.commit(request()).await, COUNTED);
    assert_eq!(bench.committer.commit(request()).await, DUPLICATE);
    for source in ["a", "b", "c"] {
        bench.check_count(source, 1.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_a_frame_is_on_its_way_travels_together() {
    let bench = Bench::start().await;
    bench.store.gate.forget_permits(usize::MAX);
    let posts = futures_util::future::join_all((0..50).map(|_| bench.post("a", None)));
    let open = async {
        sleep(Duration::from_millis(10)).await;
        bench.store.gate.add_permits(1_000);
    };
    let (answers, ()) = tokio::join!(posts, open);
    assert!(answers.iter().all(|a| *a == COUNTED));
    assert!(bench.store.calls() <= 2, "{} frames", bench.store.calls());
    bench.check_count("a", 50.0).await;
}

#[tokio::test(start_paused = true)]
async fn more_than_memory_may_hold_is_refused() {
    let bench = Bench::start().await;
    bench.store.gate.forget_permits(usize::MAX);
    let source: Arc<str> = "a".into();
    let states = MAX_WAITING_DOUBLES / SCALAR_DOUBLES;
    let deltas = RootDeltas { buckets: vec![bench.bucket(T0)], sources: vec![(source, Moments::of(1.0)); states] };
    let large = Part { deltas: vec![deltas], readings: states };
    let first = bench.committer.commit(Request { parts: vec![large], key: None });
    let second = async {
        sleep(Duration::from_millis(10)).await;
        bench.post("b", None).await
    };
    tokio::select! {
        answer = second => assert_eq!(answer, Err(CommitError::Busy)),
        answer = first => panic!("the store is not open: {answer:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_or_lost_everything_is_gone_on_with() {
    let bench = Bench::start().await;
    assert_eq!(bench.post("a", None).await, COUNTED);
    let saved = bench.store.inner.save();
    assert_eq!(bench.post("b", None).await, COUNTED);
    assert_eq!(bench.post("b", None).await, COUNTED);
    bench.store.inner.restore(saved);
    // Confirmed and lost with the store; what comes now counts, and keys that were kept still hold.
    assert_eq!(bench.post("c", key(1, 1)).await, COUNTED);
    assert_eq!(bench.post("c", key(1, 1)).await, DUPLICATE);
    bench.check_count("a", 1.0).await;
    bench.check_count("b", 0.0).await;
    bench.check_count("c", 1.0).await;
    bench.store.inner.restore(State::default());
    assert_eq!(bench.post("d", None).await, COUNTED);
    bench.check_count("d", 1.0).await;
    bench.check_count("a", 0.0).await;
}

/// What is said of a loss: how many frames, and a window that holds the time of each of them.
#[tokio::test(start_paused = true)]
async fn a_loss_is_said_with_its_time_and_size() {
    let bench = Bench::start().await;
    let post_at = async |t: Millis| {
        bench.clock.set(t);
        assert_eq!(bench.post("a", None).await, COUNTED);
    };
    post_at(T0 + 1_000).await;
    let saved = bench.store.inner.save();
    post_at(T0 + 5_500).await;
    post_at(T0 + 7_000).await;
    assert_eq!(bench.committer.losses(), Losses::default());
    bench.store.inner.restore(saved);
    post_at(T0 + 9_000).await;
    let back = Loss { everything: false, frames: 2, from: T0 + 5_000, to: T0 + 9_000 };
    assert_eq!(bench.committer.losses(), Losses { times: 1, frames: 2, last: Some(back) });
    // Found out by looking, without a frame; the new writer has brought one.
    bench.store.inner.restore(State::default());
    bench.clock.set(T0 + 12_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let all = Loss { everything: true, frames: 1, from: T0 + 9_000, to: T0 + 12_000 };
    assert_eq!(bench.committer.losses(), Losses { times: 2, frames: 3, last: Some(all) });
    // It is said once.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.committer.losses().times, 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_held_up_too_long_is_not_counted() {
    let bench = Bench::start().await;
    // The store's time goes on at other nodes' calls while this one sleeps.
    for _ in 0..2_000 {
        bench.clock.set(bench.clock.now() + 5_000);
        bench.store.inner.due(0, 0).await.unwrap();
    }
    let stale = bench.post("a", key(1, 1)).await;
    assert!(matches!(stale, Err(CommitError::NotApplied(_))), "{stale:?}");
    bench.check_count("a", 0.0).await;
    // It has learned the time from that.
    assert_eq!(bench.post("a", key(1, 1)).await, COUNTED);
}

/// The node is stopped for long between two parts of a request; meanwhile its client repeats it elsewhere, and the
/// keys expire. The second part is as old as the first.
#[tokio::test(start_paused = true)]
async fn the_later_parts_of_a_request_are_as_old_as_the_first() {
    let bench = Bench::start().await;
    let parts = ["a", "b"].map(|source| bench.part(source)).to_vec();
    bench.store.fail([Fault::LostAnswer]);
    bench.store.gate.forget_permits(usize::MAX);
    bench.store.gate.add_permits(1);
    let asked = bench.committer.commit(Request { parts, key: Some(key(1, 1)) });
    let stopped = async {
        sleep(Duration::from_secs(5)).await;
        for _ in 0..2_000 {
            bench.clock.set(bench.clock.now() + 5_000);
            bench.store.inner.due(0, 0).await.unwrap();
        }
        bench.store.gate.add_permits(1_000);
    };
    let (answer, ()) = tokio::join!(asked, stopped);
    assert!(matches!(answer, Err(CommitError::Unknown(_))), "a part is counted: {answer:?}");
    bench.check_count("a", 1.0).await;
    bench.check_count("b", 0.0).await;
}

/// The first part of a request is confirmed and lost; the answer would come after the time of the loss.
#[tokio::test(start_paused = true)]
async fn a_request_of_which_a_part_may_be_lost_is_not_said_to_be_counted() {
    let bench = Bench::start().await;
    let empty = bench.store.inner.save();
    bench.store.gate.forget_permits(usize::MAX);
    bench.store.gate.add_permits(1);
    let request = || Request { parts: ["a", "b"].map(|source| bench.part(source)).to_vec(), key: Some(key(1, 1)) };
    let lost = async {
        sleep(Duration::from_secs(1)).await;
        bench.store.inner.restore(empty);
        bench.store.gate.add_permits(1_000);
    };
    let (answer, ()) = tokio::join!(bench.committer.commit(request()), lost);
    assert!(matches!(answer, Err(CommitError::Unknown(_))), "{answer:?}");
    assert_eq!(bench.committer.losses().frames, 1);
    assert_eq!(bench.committer.commit(request()).await, COUNTED, "the part that was lost");
    bench.check_count("a", 1.0).await;
    bench.check_count("b", 1.0).await;
}

/// Counted by another node, which does not live to notice, and told to a client of this one as a duplicate.
#[tokio::test(start_paused = true)]
async fn a_duplicate_that_is_lost_is_a_loss_too() {
    let bench = Bench::start().await;
    let empty = bench.store.inner.save();
    let other: Arc<dyn Store> = Arc::clone(&bench.store) as _;
    let (other, _) =
        Committer::start(other, Arc::clone(&bench.calendar), Arc::default(), bench.clock.clone()).await.unwrap();
    let request = || Request { parts: vec![bench.part("a")], key: Some(key(1, 1)) };
    assert_eq!(other.commit(request()).await, COUNTED);
    drop(other);
    assert_eq!(bench.committer.commit(request()).await, DUPLICATE);
    assert_eq!(bench.committer.losses(), Losses::default());
    bench.store.inner.restore(empty);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.committer.losses().frames, 1, "the frame that had taken the place of the duplicate");
}

#[tokio::test(start_paused = true)]
async fn a_closing_bucket_is_closed_before_its_next_life() {
    let bench = Bench::start().await;
    let bucket = bench.bucket(T0);
    let sources = wide_delta(bucket, 0..2 * PAGE_SOURCES).sources;
    let wide = Part { deltas: vec![RootDeltas { buckets: vec![bucket], sources }], readings: 2 * PAGE_SOURCES };
    assert_eq!(bench.committer.commit(Request { parts: vec![wide], key: None }).await, COUNTED);
    bench.clock.set(T0 + 200_000);
    let (store, family) = (&bench.store.inner, bench.calendar.family(&bucket));
    let Sealed::Sealed { life, .. } = store.seal(0, bucket, &family, When::InTime).await.unwrap() else {
        panic!("not sealed")
    };
    store.ack(0, life).await.unwrap();
    store.close(0, life, &family, 0, When::InTime).await.unwrap();
    assert_eq!(store.closing(), [bucket], "half moved");
    assert_eq!(bench.post("wide-0001", None).await, COUNTED);
    assert_eq!(store.closing(), [], "finished by the commit");
    bench.check_count("wide-0001", 2.0).await;
}

/// A frame got no answer, its repetition met a closing bucket, and that close could not be finished: the first one may
/// still arrive.
#[tokio::test(start_paused = true)]
async fn a_frame_without_answer_is_not_said_to_be_lost_because_of_a_closing_bucket() {
    let bench = Bench::start().await;
    let bucket = bench.bucket(T0);
    let sources = wide_delta(bucket, 0..2 * PAGE_SOURCES).sources;
    let wide = Part { deltas: vec![RootDeltas { buckets: vec![bucket], sources }], readings: 2 * PAGE_SOURCES };
    assert_eq!(bench.committer.commit(Request { parts: vec![wide], key: None }).await, COUNTED);
    bench.clock.set(T0 + 200_000);
    let (store, family) = (&bench.store.inner, bench.calendar.family(&bucket));
    let Sealed::Sealed { life, .. } = store.seal(0, bucket, &family, When::InTime).await.unwrap() else {
        panic!("not sealed")
    };
    store.ack(0, life).await.unwrap();
    store.close(0, life, &family, 0, When::InTime).await.unwrap();
    bench.store.set_closes_fail(true);
    bench.store.fail([Fault::Delayed]);
    let answer = bench.post("a", None).await;
    assert!(matches!(answer, Err(CommitError::Unknown(_))), "{answer:?}");
    // Somebody finishes the close, and the frame arrives.
    store.close(0, life, &family, 0, When::InTime).await.unwrap();
    bench.store.set_closes_fail(false);
    bench.store.deliver().await;
    bench.check_count("a", 1.0).await;
    assert_eq!(bench.post("b", None).await, COUNTED);
    assert_eq!(store.writers(), 1, "nothing was amiss with the sequence");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_late_is_named_and_the_rest_counted() {
    let bench = Bench::start_with(Policy { late: Late::Refuse, ..POLICY }).await;
    let hour_ago = RootDeltas { buckets: vec![bench.bucket(T0 - 3_600_000)], ..bench.part("old").deltas[0].clone() };
    let mut mixed = bench.part("new");
    mixed.deltas.insert(0, hour_ago.clone());
    let answer = bench.committer.commit(Request { parts: vec![bench.part("a"), mixed], key: None }).await;
    assert_eq!(answer, Ok(Committed { duplicate: false, too_late: vec![(1, 0)] }));
    let old = Part { deltas: vec![hour_ago], readings: 1 };
    let answer = bench.committer.commit(Request { parts: vec![old], key: None }).await;
    assert_eq!(answer, Ok(Committed { duplicate: false, too_late: vec![(0, 0)] }));
    for (source, count) in [("a", 1.0), ("new", 1.0), ("old", 0.0)] {
        bench.check_count(source, count).await;
    }
}

/// A repetition is told what the request was told, also after what it brought in time has become too late.
#[tokio::test(start_paused = true)]
async fn a_repetition_is_told_what_was_too_late() {
    let bench = Bench::start_with(Policy { late: Late::Refuse, ..POLICY }).await;
    let at = |minutes: i64, source: &str| {
        let bucket = bench.bucket(T0 + minutes * 60_000);
        RootDeltas { buckets: vec![bucket], sources: vec![(source.into(), Moments::of(1.0))] }
    };
    let part = |deltas: &[RootDeltas]| Part { deltas: deltas.to_vec(), readings: deltas.len() };
    let parts =
        vec![part(&[at(0, "a"), at(-9, "b"), at(-1, "c"), at(-8, "d")]), part(&[at(-7, "e")]), part(&[at(0, "f")])];
    let post = |fingerprint| bench.committer.commit(Request { parts: parts.clone(), key: Some(key(1, fingerprint)) });
    let too_late = vec![(0, 1), (0, 3), (1, 0)];
    assert_eq!(post(1).await, Ok(Committed { duplicate: false, too_late: too_late.clone() }));
    for later in [0, 600_000] {
        bench.clock.set(T0 + later);
        assert_eq!(post(1).await, Ok(Committed { duplicate: true, too_late: too_late.clone() }));
        assert_eq!(post(2).await, Err(CommitError::KeyReused), "another body");
    }
    for (source, count) in [("a", 1.0), ("b", 0.0), ("c", 1.0), ("d", 0.0), ("e", 0.0), ("f", 1.0)] {
        bench.check_count(source, count).await;
    }
}

/// The day of a reading is open while its hour is too late: it is counted in neither, and others of the day are.
#[tokio::test(start_paused = true)]
async fn a_reading_is_counted_in_all_its_buckets_or_in_none() {
    let bench = Bench::start_with(Policy { late: Late::Refuse, ..POLICY }).await;
    let day = Bucket { period: "1d".parse().unwrap(), start: T0 - 50_000_000, end: T0 + 36_400_000 };
    let both = |t: Millis| RootDeltas {
        buckets: vec![bench.bucket(t), day],
        sources: bench.part("a").deltas[0].sources.clone(),
    };
    let request = |key| {
        let deltas = vec![both(T0), both(T0 - 7_200_000), both(T0 - 60_000)];
        Request { parts: vec![Part { deltas, readings: 3 }], key }
    };
    for key in [None, Some(key(1, 1))] {
        let answer = bench.committer.commit(request(key)).await;
        assert_eq!(answer, Ok(Committed { duplicate: false, too_late: vec![(0, 1)] }));
    }
    let open = bench.store.inner.open(0, &["a".into()], &[day.period], Millis::MIN, Millis::MAX).await.unwrap();
    assert_eq!(open.lives.iter().map(|life| life.moments[0].as_ref().unwrap().count).collect::<Vec<_>>(), [4.0]);
    // Two minutes with two readings each, and the day with the same four.
    assert_eq!(
        bench
            .store
            .inner
            .open(0, &["a".into()], &[day.period, bench.bucket(T0).period], Millis::MIN, Millis::MAX)
            .await
            .unwrap()
            .lives
            .len(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_bucket_wakes_the_rollover() {
    let bench = Bench::start().await;
    let wake = Arc::new(Notify::new());
    let shared: Arc<dyn Store> = Arc::clone(&bench.store) as _;
    let start = Committer::start(shared, Arc::clone(&bench.calendar), Arc::clone(&wake), bench.clock.clone());
    let (committer, _) = start.await.unwrap();
    let request = || Request { parts: vec![bench.part("a")], key: None };
    assert_eq!(committer.commit(request()).await, COUNTED);
    wake.notified().await;
    assert_eq!(committer.commit(request()).await, COUNTED);
    let again = tokio::time::timeout(Duration::from_mins(1), wake.notified()).await;
    assert!(again.is_err(), "the bucket was known");
}

/// Many clients, each repeating its keyed request until it is answered, against random faults.
async fn check_random(seed: u64) {
    let bench = Bench::start().await;
    let mut random = seed;
    let mut draw = move |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let faults = (0..200).map(|_| match draw(8) {
        0 => Fault::Unavailable,
        1 => Fault::LostCall,
        2 => Fault::LostAnswer,
        3 => Fault::Delayed,
        _ => Fault::None,
    });
    bench.store.fail(faults.collect::<Vec<_>>());
    let starts: Vec<u64> = (0..40).map(|_| draw(3_000)).collect();
    let clients = starts.iter().enumerate().map(|(i, start)| {
        let bench = &bench;
        async move {
            sleep(Duration::from_millis(*start)).await;
            let request = || {
                let parts = (0..=i % 3).map(|part| bench.part(["x", "y", "z"][part])).collect();
                Request { parts, key: Some(key(i as u128, i as u128)) }
            };
            while bench.committer.commit(request()).await.is_err() {
                sleep(Duration::from_millis(500)).await;
            }
        }
    });
    let disturb = async {
        for step in 0..20_u64 {
            sleep(Duration::from_millis(400)).await;
            bench.store.deliver().await;
            bench.store.set_down(step % 7 == 6);
        }
        bench.store.set_down(false);
    };
    tokio::join!(futures_util::future::join_all(clients), disturb);
    bench.store.deliver().await;
    advance(2 * REQUEST_DEADLINE).await;
    for (source, expected) in [("x", 40.0), ("y", 26.0), ("z", 13.0)] {
        assert_eq!(bench.count(source).await, expected, "readings of {source}, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn keyed_requests_count_once_whatever_happens() {
    for seed in 1..=60 {
        check_random(seed).await;
    }
}

impl Bench {
    /// One reading of so many numbers.
    fn part_of(&self, source: &str, length: usize) -> Part {
        let moments = if length == 1 { Moments::of(1.0) } else { Moments::of_vector(&vec![1.0; length]) };
        let deltas = RootDeltas { buckets: vec![self.bucket(T0)], sources: vec![(source.into(), moments)] };
        Part { deltas: vec![deltas], readings: 1 }
    }
}

fn is_unlike(answer: &Result<Committed, CommitError>, partly_counted: bool) -> bool {
    matches!(answer, Err(CommitError::Unlike { partly, .. }) if *partly == partly_counted)
}

/// Requests that wait together are of three lengths: the first of them decides, and nobody else is concerned.
#[tokio::test(start_paused = true)]
async fn readings_of_several_lengths_do_not_meet_in_a_frame() {
    for first in 1..=3 {
        let bench = Bench::start().await;
        bench.store.gate.forget_permits(usize::MAX);
        let lengths: Vec<usize> = (0..30).map(|i| (first + i) % 3 + 1).collect();
        let post = |parts| bench.committer.commit(Request { parts, key: None });
        let posts =
            futures_util::future::join_all(lengths.iter().map(|length| post(vec![bench.part_of("a", *length)])));
        let others = futures_util::future::join_all((0..30).map(|_| post(vec![bench.part_of("b", 5)])));
        let open = async {
            sleep(Duration::from_millis(10)).await;
            bench.store.gate.add_permits(1_000);
        };
        let (answers, others, ()) = tokio::join!(posts, others, open);
        let held = lengths[answers.iter().position(|answer| *answer == COUNTED).expect("one is counted")];
        for (answer, length) in answers.iter().zip(&lengths) {
            assert!(
                if *length == held { *answer == COUNTED } else { is_unlike(answer, false) },
                "{length}: {answer:?}"
            );
        }
        assert!(others.iter().all(|answer| *answer == COUNTED));
        bench.check_count("a", 10.0).await;
        bench.check_count("b", 30.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_another_length_is_told_beside_parts_that_are_counted() {
    let bench = Bench::start().await;
    let post = |parts, key| bench.committer.commit(Request { parts, key });
    assert_eq!(post(vec![bench.part_of("a", 2)], None).await, COUNTED);
    let parts = || vec![bench.part_of("b", 1), bench.part_of("a", 3), bench.part_of("c", 64)];
    for _ in 0..2 {
        let answer = post(parts(), Some(key(1, 1))).await;
        assert!(is_unlike(&answer, true), "{answer:?}");
    }
    for source in ["a", "b", "c"] {
        bench.check_count(source, 1.0).await;
    }
}
