//! Rows that are no longer kept (`--retain`): they go whole dates at a time, by clocks that run evenly, not
//! beside a life that is as old, and the sources that are listed stay true.
//!
//! What becomes of files when a removal is cut off is tested beside the CSV sink.

use crate::http::{array, reading, reading_at};
use crate::servers::temporary;
use crate::service::{On, Service, eventually};
use crate::sink_files;
use crate::world::{DAY, HOUR, Kind, MINUTE, POLICY, SECOND, T0, World, calendar, delta};
use meanwhile::clock::Clock;
use meanwhile::rollover::Rollover;
use meanwhile::sink::csv::CsvSink;
use meanwhile::stats::Millis;
use meanwhile::stats::calendar::{Period, Zone};
use meanwhile::stats::complete::Complete;
use meanwhile::stats::policy::Retention;
use meanwhile::store::Store;
use meanwhile::store::embedded::EmbeddedStore;
use meanwhile::store::redis::RedisStore;
use meanwhile::telemetry::metrics;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// More than between two looks of the rollover at what is to go, and than clocks must run evenly.
const LONG_ENOUGH: Millis = 7 * MINUTE;
/// Between two ticks of a rollover that has nothing to do.
const IDLE: Millis = 5 * SECOND;
/// More ticks than any of these tests has work for.
const TICKS: usize = 100;

const MINUTES_OF: Period = Period::Seconds(60);
const HOURS_OF: Period = Period::Seconds(3_600);

/// Ticks until nothing is left to do at this time.
async fn tick_all(rollover: &mut Rollover) {
    for _ in 0..TICKS {
        if rollover.tick().await.unwrap() > Duration::ZERO {
            return;
        }
    }
    panic!("there is always something to do");
}

/// Lets time pass for what measures spans; the rest is asked of a clock.
async fn advance(span: Millis) {
    tokio::time::advance(Duration::from_millis(span.try_into().unwrap())).await;
}

/// A rollover that keeps minutes for three days.
struct Kept {
    world: World,
    rollover: Rollover,
    home: TempDir,
}

impl Kept {
    async fn new() -> Self {
        let (world, home) = (World::new(Kind::Oracle).await, temporary());
        let mut complete = Complete::default();
        complete.store(&world.calendar, T0);
        world.store.keep_complete(&complete).await.unwrap();
        let sink = Arc::new(CsvSink::open(home.path(), Zone::utc()).unwrap());
        let rule = Retention { period: MINUTES_OF, keep: 3 * DAY };
        let rollover = Rollover::new(Arc::clone(&world.store), sink, Arc::new(world.calendar.clone()), Some(0));
        Self { rollover: rollover.retaining(vec![rule], world.clock.clone()), world, home }
    }

    /// Lets time pass for the clocks and for what measures spans, and does what is to be done then.
    async fn step(&mut self, span: Millis) {
        advance(span).await;
        self.world.pass(span);
        tick_all(&mut self.rollover).await;
    }

    /// Lets so much time pass, with a look at its end.
    async fn go_on(&mut self, span: Millis) {
        for _ in 0..(span - MINUTE) / IDLE {
            self.step(IDLE).await;
        }
        self.step(MINUTE).await;
    }

    /// Lets the rollover look when the clocks have run evenly to `t`.
    async fn go_on_to(&mut self, t: Millis) {
        self.world.set(t - LONG_ENOUGH);
        self.go_on(LONG_ENOUGH).await;
        assert_eq!(self.world.now(), t);
    }

    /// Goes on for so many minutes, each of which a source sends of another minute from `t` on.
    async fn go_on_beside_lives(&mut self, minutes: Millis, t: Millis) {
        for minute in 0..minutes {
            advance(MINUTE).await;
            self.world.pass(MINUTE);
            self.put(t + minute * MINUTE).await;
            tick_all(&mut self.rollover).await;
        }
    }

    /// Lets everything be written and closed.
    async fn close_all(&mut self) {
        for _ in 0..TICKS {
            self.step(MINUTE).await;
            if self.world.open(&[]).await.lives.is_empty() {
                return;
            }
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
async fn rows_go_when_they_are_old_enough() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    // The date ends at midnight, and three days later its rows are no longer kept.
    let over = T0 - 5 * HOUR - DAY + 3 * DAY;
    kept.go_on_to(over - 1).await;
    assert!(kept.has(MINUTES) && kept.has(HOURS));
    let complete = kept.world.store.complete().await.unwrap();
    let since = [MINUTES_OF, HOURS_OF].map(|period| complete.since(&kept.world.calendar, period));
    assert_eq!(since, [over - 1 - 3 * DAY, Millis::MIN], "said before anything goes");
    kept.go_on_to(over).await;
    assert!(!kept.has(MINUTES) && kept.has(HOURS), "hours have no rule");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_for_seconds_removes_nothing() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    kept.go_on(LONG_ENOUGH).await;
    // As long as a look is away at most, so that there is one while the clock is wrong.
    kept.world.pass(60 * DAY);
    kept.step(IDLE).await;
    kept.step(MINUTE).await;
    kept.world.pass(-60 * DAY);
    let due = kept.world.store.due(0, 1).await.unwrap();
    assert!(due.now > kept.world.now() + 59 * DAY, "the store's clock stays ahead");
    kept.go_on(3 * LONG_ENOUGH).await;
    assert!(kept.has(MINUTES));
    // Once the time has come they go all the same.
    kept.go_on_to(T0 + 10 * DAY).await;
    assert!(!kept.has(MINUTES));
}

#[tokio::test(start_paused = true)]
async fn rows_stay_where_only_the_clock_of_the_node_is_ahead() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    let rule = Retention { period: MINUTES_OF, keep: 3 * DAY };
    let ahead = Clock::manual(kept.world.now() + 60 * DAY);
    kept.rollover = kept.rollover.retaining(vec![rule], ahead.clone());
    for _ in 0..LONG_ENOUGH / MINUTE {
        ahead.set(ahead.now() + MINUTE);
        kept.step(MINUTE).await;
    }
    assert!(kept.has(MINUTES));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_holds_up_nothing_else() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    let rules = [MINUTES_OF, HOURS_OF].map(|period| Retention { period, keep: 3 * DAY });
    kept.rollover = kept.rollover.retaining(rules.to_vec(), kept.world.clock.clone());
    // A file where the directory would go.
    let in_the_way = kept.home.path().join(MINUTES.to_owned() + ".tmp");
    fs::write(&in_the_way, "").unwrap();
    kept.go_on_to(T0 + 10 * DAY).await;
    assert!(kept.has(MINUTES) && !kept.has(HOURS));
    kept.put(T0 + 10 * DAY).await;
    kept.go_on(LONG_ENOUGH).await;
    assert!(kept.has("period=1m/date=2026-11-30"), "buckets are written");
    fs::remove_file(in_the_way).unwrap();
    kept.step(MINUTE).await;
    assert!(!kept.has(MINUTES), "by the next look");
}

#[tokio::test(start_paused = true)]
async fn rows_stay_beside_a_life_that_is_as_old() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    kept.world.set(T0 + 10 * DAY);
    kept.go_on_beside_lives(2 * LONG_ENOUGH / MINUTE, T0 - 3 * DAY).await;
    assert!(kept.has(MINUTES), "a life of the date before is open");
    kept.close_all().await;
    kept.step(MINUTE).await;
    assert!(!kept.has(MINUTES) && !kept.has("period=1m/date=2026-11-17"));
    assert!(kept.has("period=1h/date=2026-11-17"), "what came late is in its hour");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_always_sends_into_the_past_keeps_nothing_for_ever() {
    let mut kept = Kept::new().await;
    kept.put(T0 - 2 * DAY).await;
    kept.close_all().await;
    kept.world.set(T0 + 10 * DAY);
    kept.go_on_beside_lives(60, T0 - 300 * DAY).await;
    assert!(kept.has(MINUTES));
    kept.go_on_beside_lives(10, T0 - 299 * DAY).await;
    assert!(!kept.has(MINUTES));
}

/// Removes rows of a stopped service as it would once its clocks had run evenly for long enough.
async fn remove_rows(store: &str, sink: &Path, rules: Vec<Retention>) {
    let clock = Clock::manual(Clock::System.now());
    let store: Arc<dyn Store> = match store.strip_prefix("embedded:") {
        Some(dir) => Arc::new(EmbeddedStore::open(Path::new(dir), POLICY, clock.clone()).unwrap()),
        None => Arc::new(RedisStore::connect(store, POLICY, Some(clock.clone())).await.unwrap()),
    };
    let sink = Arc::new(CsvSink::open(sink, Zone::utc()).unwrap());
    let rollover = Rollover::new(store, sink, Arc::new(calendar("1m,1h,1d")), Some(0));
    let mut rollover = rollover.retaining(rules, clock.clone());
    tick_all(&mut rollover).await;
    // Not paused for longer: what waits for a server would be out of time at once.
    tokio::time::pause();
    advance(LONG_ENOUGH).await;
    tokio::time::resume();
    clock.set(clock.now() + LONG_ENOUGH);
    tick_all(&mut rollover).await;
}

fn rows_removed() -> usize {
    let standing =
        metrics::Standing { store_reachable: true, sink_usable: true, open_buckets: 0, oldest_due: Duration::ZERO };
    let page = metrics::render(standing);
    let line = page.lines().find_map(|line| line.strip_prefix("meanwhile_rollover_rows_removed_total "));
    line.map_or(0, |count| count.parse().unwrap())
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
    service.start_with(&[&times[..], &["--retain", "1m=30d,1h=1y"]].concat());
    eventually("it says when rows go", || {
        service.log().contains("rows that --retain no longer keeps go").then_some(())
    });
    service.stop();
    metrics::install();
    let before = rows_removed();
    let rules = [(MINUTES_OF, 30 * DAY), (HOURS_OF, 366 * DAY)].map(|(period, keep)| Retention { period, keep });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(remove_rows(&service.store(), &service.sink(), rules.to_vec()));
    assert!(rows_removed() >= before + 5, "three minutes and two hours are removed");
    service.start_again();
    for (period, rows) in [("1m", 0), ("1h", 0), ("1d", 2)] {
        assert_eq!(service.client().rows("past", period).len(), rows, "{period}");
    }
    assert_eq!(service.client().total("past", "1d"), (3, 3.0));
    assert_eq!(service.client().total("present", "1m"), (1, 1.0));
    // There are neither minutes nor hours of then.
    let summary = service.client().get("/v1/summary?source=past&from=2025-03-01T10:30&to=2025-03-02T00:00").ok().json();
    assert_eq!(
        (&summary["covered"]["from"], &summary["rows"][0]["count"]),
        (&"2025-03-01T00:00:00Z".into(), &2.into())
    );
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
