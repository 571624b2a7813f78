//! Random schedules: a store and the oracle side by side, clients that retry, nodes that forget, two
//! rollovers that die between any two calls, and clocks that step.
//!
//! After every step the answers and what is open must agree, and every reading that was counted is
//! in the store or in the sink, once, unless its source was forgotten. At the end all buckets are
//! closed and the sink must hold exactly what was counted, in minutes, hours, days and above. Values
//! are integers, so sums are exact. A failing schedule is printed in its shortest form.
//! `MEANWHILE_MODEL_CASES` sets the number of schedules. The parties are in `model/`; single promises
//! are in `contract.rs`.

mod beside;
mod clients;
mod rollover;

use crate::world::{Kind, MINUTE, POLICY, SECOND, T0, calendar};
use beside::Beside;
use clients::{Clients, Fault, Reading};
use meanwhile::stats::Millis;
use meanwhile::store::{Late, Policy, When};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use rollover::Rollover;

/// Schedules are short enough to be read and long enough for a bucket to be written, closed,
/// reopened and closed again.
const MAX_STEPS: usize = 70;
/// Nodes with writers of their own; the third is often the one that comes late.
const NODES: usize = 3;
const ROLLOVERS: usize = 2;
/// Two minutes before a day ends: a few steps cross the ends of minutes, an hour and a day.
const START: Millis = T0 + (18 * 60 + 58) * MINUTE;

#[derive(Clone, Debug)]
enum Step {
    /// Requests arrive at a node and travel in one frame.
    Send { node: usize, keyed: bool, requests: Vec<Vec<Reading>>, fault: Fault },
    /// A request of before, the n-th last, comes again, perhaps with the key but another body.
    Retry { node: usize, back: usize, changed: bool, fault: Fault },
    /// A reading for a bucket that is open, one that is being closed before all others.
    Aim { node: usize, choice: usize },
    /// A node asks again for the outcome it does not know.
    Resolve { node: usize },
    /// A node dies; the next one takes another writer id.
    Forget { node: usize },
    /// A frame that misses its predecessor.
    Skip { node: usize },
    /// A copy of a frame, delayed in the network, arrives.
    Delayed { back: usize },
    /// Some calls of a rollover, each followed by all checks. It may halt at once when a life is half
    /// moved up, so that others meet it. Some do not wait for the time of a close, nor for descendants.
    Roll { who: usize, choice: usize, calls: usize, forced: bool, when: When, halt: bool },
    /// A rollover dies where it stands.
    Die { who: usize },
    /// A source is forgotten, in the store and in the sink.
    Erase { source: usize },
    /// The clock goes, steps ahead or steps back.
    Clock(Millis),
    /// Time that counts as elapsed, for what expires.
    Elapse(Millis),
    /// The store ends without warning and starts again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let who = || 0..ROLLOVERS;
    let fault =
        || prop_oneof![6 => Just(Fault::None), 1 => Just(Fault::RequestLost), 2 => Just(Fault::AnswerLost)].boxed();
    // Mostly now; else some minutes back (late) or a little ahead.
    let ago = prop_oneof![3 => Just(None), 2 => (-2..90i64).prop_map(|m| Some(m * 20 * SECOND))];
    let reading = (0..4usize, -1_000..1_000i32, ago, prop::bool::weighted(0.04))
        .prop_map(|(source, value, ago, wide)| Reading { source, value, ago, wide });
    let requests = vec(vec(reading, 1..4), 1..4);
    let when = prop_oneof![3 => Just(When::InTime), 2 => Just(When::Now)];
    let step = select(vec![1, SECOND, 6 * SECOND, 20 * SECOND, 30 * SECOND, 65 * SECOND, 10 * MINUTE, 70 * MINUTE]);
    let jump = select(vec![-1, -30 * SECOND, -10 * MINUTE, -200 * MINUTE, 200 * MINUTE, 2_000 * MINUTE]);
    prop_oneof![
        8 => (node(), any::<bool>(), requests, fault())
            .prop_map(|(node, keyed, requests, fault)| Step::Send { node, keyed, requests, fault }),
        4 => (node(), 0..4usize, prop::bool::weighted(0.1), fault())
            .prop_map(|(node, back, changed, fault)| Step::Retry { node, back, changed, fault }),
        5 => (node(), 0..4usize).prop_map(|(node, choice)| Step::Aim { node, choice }),
        1 => node().prop_map(|node| Step::Resolve { node }),
        1 => node().prop_map(|node| Step::Forget { node }),
        1 => node().prop_map(|node| Step::Skip { node }),
        2 => (0..6usize).prop_map(|back| Step::Delayed { back }),
        12 => (who(), 0..4usize, 1..10usize, prop::bool::weighted(0.4), when, prop::bool::weighted(0.7))
            .prop_map(|(who, choice, calls, forced, when, halt)| Step::Roll { who, choice, calls, forced, when, halt }),
        1 => who().prop_map(|who| Step::Die { who }),
        1 => (0..4usize).prop_map(|source| Step::Erase { source }),
        6 => step.prop_map(Step::Clock),
        1 => jump.prop_map(Step::Clock),
        1 => select(vec![20 * SECOND, 35 * SECOND, 80 * SECOND, 700 * SECOND]).prop_map(Step::Elapse),
        1 => Just(Step::Restart),
    ]
}

/// Leads to what chance alone seldom reaches: an hour that is half moved up into its day, with a late
/// minute that must wait for it.
fn half_closed_hour() -> Vec<Step> {
    let wide = Reading { source: 0, value: 1, ago: None, wide: true };
    let roll = |halt| Step::Roll { who: 0, choice: 0, calls: 20, forced: false, when: When::InTime, halt };
    vec![
        Step::Send { node: 0, keyed: true, requests: vec![vec![wide]], fault: Fault::None },
        Step::Clock(200 * MINUTE),
        roll(false),
        Step::Clock(6 * SECOND),
        roll(true),
        Step::Aim { node: 1, choice: 0 },
        Step::Clock(6 * SECOND),
        // Seals, reads, writes and acks the minute, and would close it.
        Step::Roll { who: 1, choice: 0, calls: 5, forced: true, when: When::InTime, halt: false },
    ]
}

/// One schedule against a fresh store.
async fn play(kind: Kind, periods: &str, late: Late, steps: &[Step]) {
    let policy = Policy { late, ..POLICY };
    let mut beside = Beside::new(kind, calendar(periods), policy, START).await;
    let mut clients = Clients::new(NODES);
    let mut rollovers = [Rollover::Idle, Rollover::Idle];
    for step in steps {
        match step {
            Step::Send { node, keyed, requests, fault } => {
                clients.send(&mut beside, *node, *keyed, requests, *fault).await;
            }
            Step::Retry { node, back, changed, fault } => {
                clients.retry(&mut beside, *node, *back, *changed, *fault).await;
            }
            Step::Aim { node, choice } => clients.aim(&mut beside, *node, *choice).await,
            Step::Resolve { node } => clients.resolve(&mut beside, *node).await,
            Step::Forget { node } => clients.forget(*node),
            Step::Skip { node } => clients.skip(&mut beside, *node).await,
            Step::Delayed { back } => clients.delayed(&mut beside, *back).await,
            Step::Roll { who, choice, calls, forced, when, halt } => {
                for _ in 0..*calls {
                    rollovers[*who].call(&mut beside, *choice, *forced, *when).await;
                    beside.check().await;
                    if *halt && !beside.closing().is_empty() {
                        break;
                    }
                }
            }
            Step::Die { who } => rollovers[*who] = Rollover::Idle,
            Step::Erase { source } => {
                // It is a rollover that forgets, so that no page is on its way.
                rollovers.iter_mut().for_each(Rollover::drop_pages);
                beside.forget(*source).await;
            }
            Step::Clock(span) => {
                beside.due().await;
                beside.world.pass(*span);
            }
            Step::Elapse(span) => beside.elapse(*span).await,
            Step::Restart => {
                beside.world.crash().await;
                rollovers.iter_mut().for_each(Rollover::reconnect);
            }
        }
        beside.check().await;
    }
    for node in 0..NODES {
        clients.resolve(&mut beside, node).await;
    }
    beside.finish().await;
}

/// As many schedules as asked for, else `default`.
#[expect(clippy::disallowed_methods, reason = "a switch of the tests, not of the program")]
fn cases(default: u32) -> u32 {
    let asked = std::env::var("MEANWHILE_MODEL_CASES").ok();
    asked.map_or(default, |n| n.parse().expect("MEANWHILE_MODEL_CASES is a number"))
}

fn check(kind: Kind, default_cases: u32) {
    let config = Config { cases: cases(default_cases), failure_persistence: None, ..Config::default() };
    let periods = select(vec!["1m,1h,1d", "1m,1h,1d", "1m,1h,1d,1w,1mo", "1m"]);
    let late = prop_oneof![4 => Just(Late::Reopen), 1 => Just(Late::Refuse)];
    let prelude = prop_oneof![3 => Just(vec![]), 1 => Just(half_closed_hour())];
    let schedules = (periods, late, prelude, vec(step(), 1..MAX_STEPS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let result = TestRunner::new(config).run(&schedules, |(periods, late, prelude, steps)| {
        runtime.block_on(play(kind, periods, late, &[prelude, steps].concat()));
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

/// The oracle beside itself: sees that the schedules and checks hold together.
#[test]
fn the_oracle_keeps_every_reading_once() {
    check(Kind::Oracle, 40);
}

#[test]
fn the_embedded_store_keeps_every_reading_once() {
    check(Kind::Embedded, 120);
}

#[test]
fn redis_keeps_every_reading_once() {
    check(Kind::Redis, 40);
}
