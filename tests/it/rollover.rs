//! The rollover over a sink of which a part is broken, and over a Redis that is full or was meddled with.

use crate::oracle::Oracle;
use crate::servers::{RedisServer, temporary};
use crate::world::{DAY, MINUTE, POLICY, T0, WRITER, calendar, delta};
use meanwhile::clock::Clock;
use meanwhile::rollover::Rollover;
use meanwhile::sink::csv::CsvSink;
use meanwhile::sink::{RowQuery, Sink};
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::Zone;
use meanwhile::store::redis::RedisStore;
use meanwhile::store::{Answer, Frame, Store, StoreError};
use std::fs;
use std::sync::Arc;

#[tokio::test]
async fn a_broken_file_holds_up_no_compaction_of_others() {
    let clock = Clock::manual(T0);
    let store: Arc<dyn Store> = Arc::new(Oracle::new(POLICY, clock.clone()));
    store.found(0).await.unwrap();
    let home = temporary();
    let sink: Arc<dyn Sink> = Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap());
    let calendar = Arc::new(calendar("1m"));
    let deltas = [2, 1].map(|days| delta(calendar.bucket("1m".parse().unwrap(), T0 - days * DAY), "a", &[1.0]));
    store.apply(0, &Frame::new(WRITER, 1, 0, vec![], deltas.to_vec())).await.unwrap();
    clock.set(T0 + POLICY.grace);
    let mut rollover = Rollover::new(store, sink, calendar, Some(0));
    rollover.tick().await.unwrap();
    let day = |date: &str| home.path().join(format!("period=1m/date={date}"));
    fs::write(day("2026-11-18").join("tail.csv"), "edited;by;hand\n").unwrap();
    for _ in 0..3 {
        rollover.tick().await.unwrap();
    }
    assert!(day("2026-11-19").join("rows.csv").exists(), "the other day is compacted");
    assert!(!day("2026-11-18").join("rows.csv").exists());
}

#[tokio::test]
async fn a_broken_file_holds_up_no_other_bucket() {
    let clock = Clock::manual(T0);
    let store: Arc<dyn Store> = Arc::new(Oracle::new(POLICY, clock.clone()));
    store.found(0).await.unwrap();
    let home = temporary();
    let sink = Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap());
    let calendar = Arc::new(calendar("1m"));
    let mut rollover =
        Rollover::new(Arc::clone(&store), Arc::clone(&sink) as Arc<dyn Sink>, Arc::clone(&calendar), Some(0));
    let minute = |t: Millis| calendar.bucket("1m".parse().unwrap(), t);
    let put = async |sequence: u64, starts: &[Millis]| {
        let deltas = starts.iter().map(|&t| delta(minute(t), "a", &[1.0])).collect();
        store.apply(0, &Frame::new(WRITER, sequence, 0, vec![], deltas)).await.unwrap();
        clock.set(clock.now() + POLICY.grace);
    };
    put(1, &[T0 - 2 * DAY]).await;
    rollover.tick().await.unwrap();
    fs::write(home.path().join("period=1m/date=2026-11-18/tail.csv"), "edited;by;hand\n").unwrap();
    put(2, &[T0 - 2 * DAY, T0 - DAY]).await;
    let error = rollover.tick().await.unwrap_err();
    assert!(error.to_string().contains("date=2026-11-18/tail.csv is damaged"), "{error}");
    let query = RowQuery {
        sources: vec!["a".into()],
        period: calendar.periods()[0],
        from: T0 - DAY,
        to: T0,
        limit: 0,
        doubles: 0,
    };
    assert_eq!(sink.rows(&query).await.unwrap().len(), 1, "the other day is written");
    assert!(store.open(0, &[], calendar.periods(), T0 - DAY, T0).await.unwrap().lives.is_empty(), "and closed");
    assert_eq!(store.open(0, &[], calendar.periods(), T0 - 3 * DAY, T0).await.unwrap().lives.len(), 1);
}

#[tokio::test]
async fn a_full_redis_is_emptied() {
    let clock = Clock::manual(T0);
    let server = RedisServer::start();
    let store: Arc<dyn Store> =
        Arc::new(RedisStore::connect(&server.url(), POLICY, Some(clock.clone())).await.unwrap());
    store.found(0).await.unwrap();
    let calendar = Arc::new(calendar("1m,1h"));
    let delta = delta(calendar.bucket("1m".parse().unwrap(), T0 - DAY), "a", &[1.0]);
    let frame = |sequence| Frame::new(WRITER, sequence, 0, vec![], vec![delta.clone()]);
    store.apply(0, &frame(1)).await.unwrap();
    server.cli(&["config", "set", "maxmemory", "1"]);
    assert!(matches!(store.apply(0, &frame(2)).await, Err(StoreError::Unavailable(_))), "it is full");
    let repeated = store.apply(0, &frame(1)).await.unwrap();
    assert!(matches!(repeated, Answer::Dup { .. }), "what it has is known: {repeated:?}");
    let home = temporary();
    let sink: Arc<dyn Sink> = Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap());
    let mut rollover = Rollover::new(Arc::clone(&store), sink, Arc::clone(&calendar), Some(0));
    for _ in 0..4 {
        clock.set(clock.now() + POLICY.grace);
        rollover.tick().await.unwrap();
    }
    assert_eq!(store.open(0, &[], calendar.periods(), Millis::MIN, Millis::MAX).await.unwrap().lives, []);
}

#[tokio::test]
async fn a_bucket_deleted_by_hand_holds_up_no_other() {
    let clock = Clock::manual(T0);
    let server = RedisServer::start();
    let store: Arc<dyn Store> =
        Arc::new(RedisStore::connect(&server.url(), POLICY, Some(clock.clone())).await.unwrap());
    store.found(0).await.unwrap();
    let calendar = Arc::new(calendar("1m,1h"));
    let minutes = [T0 - DAY, T0 - DAY + MINUTE].map(|t| calendar.bucket("1m".parse().unwrap(), t));
    let deltas = minutes.map(|minute| delta(minute, "a", &[1.0])).to_vec();
    store.apply(0, &Frame::new(WRITER, 1, 0, vec![], deltas)).await.unwrap();
    server.cli(&["del", &format!("mw:{{0}}:b:1m:{}:{}", minutes[0].start, minutes[0].end)]);
    let open = async || store.open(0, &[], calendar.periods(), Millis::MIN, Millis::MAX).await.unwrap().lives;
    let lives: Vec<_> = open().await.iter().map(|open| open.life.bucket).collect();
    assert_eq!(lives, minutes[1..], "a question about the range is answered");
    let home = temporary();
    let sink: Arc<dyn Sink> = Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap());
    let mut rollover = Rollover::new(Arc::clone(&store), sink, Arc::clone(&calendar), Some(0));
    for _ in 0..4 {
        clock.set(clock.now() + POLICY.grace);
        rollover.tick().await.unwrap();
    }
    assert_eq!(open().await, [], "the hour does not wait for the minute that is gone");
}
