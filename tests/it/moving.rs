//! A bucket on its way from the store to the sink, and from minutes up into hours, is never missing
//! in an answer and never in it twice.
//!
//! One writer posts ones all the time, into the present second and into seconds long over: those close
//! after a moment without readings, and take new ones in another life. Readers ask for the total in
//! every period. What they see lies between what was acknowledged before the question and what was
//! sent until the answer.

use crate::http::{Client, array, reading, reading_at};
use crate::seeded::Seeded;
use crate::service::{On, Service, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

const PERIODS: [&str; 4] = ["1s", "1m", "1h", "1d"];
/// Over all readers, at least; ...
const QUESTIONS: u64 = 2_400;
/// ... and so many answers with open, settling and closed rows each ...
const OF_EACH: u64 = 50;
/// ... which are there long before so many questions.
const TOO_MANY: u64 = 100 * QUESTIONS;
const READERS: usize = 3;
/// Readings in a batch.
const BATCH: u64 = 2;
/// Seconds of the past that are written to.
const PAST: u64 = 20;
/// Between two batches: the readers are to have the machine.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    questions: AtomicU64,
    /// Answers with a bucket that was still open, that was on its way, and that had left the store.
    seen: [AtomicU64; 3],
}

/// The count in all rows, over all pages; `None` if the service asks to try again.
fn ask(client: &Client, period: &str, counters: &Counters) -> Option<u64> {
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let answer = client.get(&format!("/v1/stats?source=a&period={period}{cursor}"));
        if answer.status == 503 {
            return None;
        }
        let page = answer.ok().json();
        assert!(page["partial"] != true, "{page}");
        let rows = page["rows"].as_array().unwrap();
        for (state, seen) in ["open", "settling", "closed"].iter().zip(&counters.seen) {
            seen.fetch_add(u64::from(rows.iter().any(|row| row["state"] == *state)), Ordering::Relaxed);
        }
        count += rows.iter().map(|row| row["count"].as_u64().unwrap()).sum::<u64>();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(count),
        }
    }
}

impl Counters {
    fn enough(&self) -> bool {
        let questions = self.questions.load(Ordering::SeqCst);
        let of_each = self.seen.iter().all(|seen| seen.load(Ordering::Relaxed) >= OF_EACH);
        assert!(questions < TOO_MANY, "the buckets do not move: {:?}", self.seen);
        questions >= QUESTIONS && of_each
    }
}

fn write(client: &Client, counters: &Counters, stop: &AtomicBool) {
    let mut seeded = Seeded::new(7);
    let mut past = || {
        let second = seeded.below(PAST);
        reading_at("a", 1.0, &format!("2026-03-02T10:00:{second:02}Z"))
    };
    for batch in 0.. {
        counters.sent.fetch_add(BATCH, Ordering::SeqCst);
        client
            .post_keyed(&format!("batch-{batch}"), &array((1..BATCH).map(|_| past()).chain([reading("a", 1.0)])))
            .ok();
        counters.acknowledged.fetch_add(BATCH, Ordering::SeqCst);
        if stop.load(Ordering::SeqCst) {
            return;
        }
        sleep(PAUSE);
    }
}

fn read(client: &Client, counters: &Counters) {
    for period in PERIODS.iter().cycle() {
        if counters.enough() {
            return;
        }
        let before = counters.acknowledged.load(Ordering::SeqCst);
        let Some(seen) = ask(client, period, counters) else { continue };
        let until = counters.sent.load(Ordering::SeqCst);
        assert!((before..=until).contains(&seen), "{period}: {seen} is not between {before} and {until}");
        counters.questions.fetch_add(1, Ordering::SeqCst);
    }
}

fn a_moving_bucket(on: On) {
    let service = Service::start(on, &["--periods", "1s,1m,1h,1d", "--grace", "50ms", "--lateness", "100ms"]);
    let client = service.client();
    let counters = Arc::new(Counters::default());
    let stop = Arc::new(AtomicBool::new(false));
    let run = |body: fn(&Client, &Counters, &AtomicBool)| {
        let (client, counters, stop) = (service.client(), Arc::clone(&counters), Arc::clone(&stop));
        thread::spawn(move || body(&client, &counters, &stop))
    };
    let writer = run(write);
    eventually("the first batch", || (counters.acknowledged.load(Ordering::SeqCst) > 0).then_some(()));
    let readers: Vec<_> = (0..READERS).map(|_| run(|client, counters, _| read(client, counters))).collect();
    let read: Vec<_> = readers.into_iter().map(thread::JoinHandle::join).collect();
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert!(read.iter().all(Result::is_ok), "a reader has failed, see above");

    let all = counters.acknowledged.load(Ordering::SeqCst);
    for period in PERIODS {
        assert_eq!(client.total("a", period), (all, all as f64), "{period}");
    }
}

#[test]
fn a_moving_bucket_embedded() {
    a_moving_bucket(On::Embedded);
}

#[test]
fn a_moving_bucket_redis() {
    a_moving_bucket(On::Redis);
}
