//! Late readings that never pause are written all the same: a bucket that is idle for `grace` is due, and
//! one that never is after a minute.
//!
//! The rollover runs on the store's time, which passes without waiting, from both stores into both sinks.

use crate::postgres_server::Database;
use crate::postgres_world::Runtime;
use crate::servers::temporary;
use crate::world::{DAY, Kind, MINUTE, POLICY, SECOND, T0, World, calendar, delta};
use meanwhile::rollover::Rollover;
use meanwhile::sink::csv::CsvSink;
use meanwhile::sink::{RowQuery, Sink};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Zone;
use meanwhile::store::MAX_DIRTY;
use std::sync::Arc;

/// Between two readings, less than the grace.
const STEP: Millis = 2 * SECOND;
const READINGS: i64 = 200;

/// A reading of yesterday every two seconds.
async fn trickle(kind: Kind, sink: Arc<dyn Sink>) {
    const { assert!(STEP < POLICY.grace) };
    let world = World::new(kind).await;
    let calendar = Arc::new(calendar("1m,1h,1d"));
    let mut rollover = Rollover::new(Arc::clone(&world.store), Arc::clone(&sink), Arc::clone(&calendar), Some(0));
    let minute = world.bucket("1m", T0 - DAY);
    let written = async |period: usize| {
        let period = calendar.periods()[period];
        let query = RowQuery { sources: vec!["a".into()], period, from: T0 - 2 * DAY, to: T0, limit: 0, doubles: 0 };
        sink.rows(&query).await.unwrap().iter().map(|row| row.state.count).sum::<f64>() as i64
    };
    let mut writes = Vec::new();
    for reading in 1..=READINGS {
        world.put(vec![delta(minute, "a", &[reading as f64])]).await;
        world.pass(STEP);
        rollover.tick().await.unwrap();
        let rows = written(0).await;
        assert!(rows >= reading - MAX_DIRTY / STEP, "{rows} of {reading} are written");
        if writes.last() != Some(&rows) {
            writes.push(rows);
        }
    }
    // Nothing, and then each time what had come in a minute.
    let a_minute = MINUTE / STEP;
    assert_eq!(writes, (0..=READINGS / a_minute).map(|time| time * a_minute).collect::<Vec<_>>());
    for _ in 0..READINGS {
        world.pass(POLICY.grace);
        rollover.tick().await.unwrap();
    }
    assert_eq!([written(0).await, written(1).await, written(2).await], [READINGS; 3]);
    assert_eq!(world.open(&["a"]).await.lives, []);
}

#[tokio::test]
async fn a_trickle_embedded_into_files() {
    let home = temporary();
    trickle(Kind::Embedded, Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap())).await;
}

#[tokio::test]
async fn a_trickle_redis_into_files() {
    let home = temporary();
    trickle(Kind::Redis, Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap())).await;
}

#[test]
fn a_trickle_embedded_into_a_table() {
    let runtime = Runtime::new();
    let sink = Arc::new(runtime.open(&Database::new()));
    runtime.0.block_on(trickle(Kind::Embedded, sink));
}

#[test]
fn a_trickle_redis_into_a_table() {
    let runtime = Runtime::new();
    let sink = Arc::new(runtime.open(&Database::new()));
    runtime.0.block_on(trickle(Kind::Redis, sink));
}
