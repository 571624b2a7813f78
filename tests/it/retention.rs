//! Rows that are no longer kept (`--retain`): they go by the store's clock, whole dates at a time, not
//! beside a life that is as old, and the sources that are listed stay true.
//!
//! What becomes of files when a removal is cut off is tested beside the CSV sink.

use crate::http::{array, reading, reading_at};
use crate::servers::temporary;
use crate::service::{On, Service, eventually};
use crate::sink_files;
use crate::world::{DAY, HOUR, Kind, MINUTE, T0, World, delta};
use meanwhile::rollover::Rollover;
use meanwhile::sink::csv::CsvSink;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Period, Zone};
use meanwhile::stats::policy::Retention;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// More than between two looks of the rollover at what is to go.
const LOOK: Duration = Duration::from_mins(2);
/// More ticks than any of these tests has work for.
const TICKS: usize = 100;

/// A rollover that keeps minutes for three days.
struct Kept {
    world: World,
    rollover: Rollover,
    home: TempDir,
}

impl Kept {
    async fn new() -> Self {
        let (world, home) = (World::new(Kind::Oracle).await, temporary());
        let sink = Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap());
        let rule = Retention { period: Period::Seconds(60), keep: 3 * DAY };
        let rollover = Rollover::new(Arc::clone(&world.store), sink, Arc::new(world.calendar.clone()), Some(0));
        Self { rollover: rollover.retaining(vec![rule]), world, home }
    }

    /// Ticks until nothing is left to do at this time.
    async fn look(&mut self) {
        tokio::time::advance(LOOK).await;
        for _ in 0..TICKS {
            if self.rollover.tick().await.unwrap() > Duration::ZERO {
                return;
            }
        }
        panic!("there is always something to do");
    }

    /// Lets everything be written and closed.
    async fn close_all(&mut self) {
        for _ in 0..TICKS {
            self.look().await;
            if self.world.open(&[]).await.lives.is_empty() {
                return;
            }
            self.world.pass(MINUTE);
        }
        panic!("lives stay open");
    }

    async fn put(&self, t: Millis) {
        self.world.put(vec![delta(self.world.bucket("1m", t), "a", &[1.0])]).await;
    }

    fn has(&self, dir: &str) -> bool {
        self.home.path().join(dir).exists()
    }
}

const MINUTES: &str = "period=1m/date=2026-11-18";
const HOURS: &str = "period=1h/date=2026-11-18";

#[tokio::test(start_paused = true)]
async fn rows_go_by_the_clock_of_the_store() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    // The date ends at midnight, and three days later its rows are no longer kept.
    let over = T0 - 5 * HOUR - DAY + 3 * DAY;
    kept.world.set(over - 1);
    kept.look().await;
    assert!(kept.has(MINUTES) && kept.has(HOURS));
    kept.world.set(over);
    kept.look().await;
    assert!(!kept.has(MINUTES) && kept.has(HOURS), "hours have no rule");
}

#[tokio::test(start_paused = true)]
async fn rows_stay_beside_a_life_that_is_as_old() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    kept.world.set(T0 + 10 * DAY);
    kept.put(T0 - 3 * DAY).await;
    kept.look().await;
    assert!(kept.has(MINUTES), "a life of the date before is open");
    kept.close_all().await;
    kept.look().await;
    assert!(!kept.has(MINUTES) && !kept.has("period=1m/date=2026-11-17"));
    assert!(kept.has("period=1h/date=2026-11-17"), "what came late is in its hour");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_always_sends_into_the_past_keeps_nothing_for_ever() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    kept.world.set(T0 + 10 * DAY);
    kept.put(T0 - 300 * DAY).await;
    kept.look().await;
    tokio::time::advance(Duration::from_mins(50)).await;
    kept.put(T0 - 300 * DAY).await;
    kept.look().await;
    assert!(kept.has(MINUTES));
    tokio::time::advance(Duration::from_mins(10)).await;
    kept.put(T0 - 300 * DAY).await;
    kept.look().await;
    assert!(!kept.has(MINUTES));
}

fn a_service_keeps_what_it_is_told(on: On) {
    let times = ["--grace", "100ms", "--lateness", "500ms"];
    let mut service = Service::start(on, &times);
    let past = ["2025-03-01T10:15:00Z", "2025-03-01T10:45:00Z", "2025-03-02T00:00:00Z"];
    let readings = past.map(|time| reading_at("past", 1.0, time)).into_iter().chain([reading("present", 1.0)]);
    service.client().post(&array(readings)).ok();
    let state = |service: &Service| service.client().get("/v1/state?source=past").ok().json();
    eventually("all of the past has closed", || (state(&service) == serde_json::json!([])).then_some(()));
    assert_eq!(sink_files::newest(&service.sink(), "1m").keys().filter(|(id, _)| id == "past").count(), 3);
    service.stop();
    service.set_flags(&[&times[..], &["--retain", "1m=30d,1h=1y"]].concat());
    service.start_again();
    let page = || service.client().get("/metrics").ok().body;
    let removed = |page: &str| page.contains("\nmeanwhile_rollover_rows_removed_total 5\n");
    eventually("three minutes and two hours are removed", || removed(&page()).then_some(()));
    for (period, rows) in [("1m", 0), ("1h", 0), ("1d", 2)] {
        assert_eq!(service.client().rows("past", period).len(), rows, "{period}");
    }
    assert_eq!(service.client().total("past", "1d"), (3, 3.0));
    assert_eq!(service.client().total("present", "1m"), (1, 1.0));
    let sources = service.client().get("/v1/sources?prefix=past").ok().json();
    let span = &sources["sources"][0];
    let days = ("2025-03-01T00:00:00Z", "2025-03-02T00:00:00Z");
    assert_eq!((span["first"].as_str(), span["last"].as_str()), (Some(days.0), Some(days.1)), "{sources}");
}

#[test]
fn a_service_keeps_what_it_is_told_embedded() {
    a_service_keeps_what_it_is_told(On::Embedded);
}

#[test]
fn a_service_keeps_what_it_is_told_redis() {
    a_service_keeps_what_it_is_told(On::Redis);
}
