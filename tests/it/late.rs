//! Buckets find their way into the files by themselves: after a stop over their end, and again when
//! a reading comes long after they have closed.

use crate::http::{array, reading, reading_at};
use crate::service::{On, Service, eventually};
use crate::sink_files;

const SHORT: [&str; 6] = ["--periods", "1s,1m,1h,1d", "--grace", "200ms", "--lateness", "1s"];

fn a_stop_over_the_end(on: On) {
    let mut service = Service::start(on, &SHORT);
    service.client().post(&array([reading("a", 1.0), reading("a", 2.0)])).ok();
    service.stop();
    let second = meanwhile::clock::Clock::System.now() / 1_000;
    assert_eq!(sink_files::lines(&service.sink(), "1s").len(), 0, "the stop itself writes no bucket");
    eventually("the bucket is over", || (meanwhile::clock::Clock::System.now() / 1_000 > second + 1).then_some(()));
    service.start_again();
    eventually("the row is in the file", || (sink_files::total(&service.sink(), "1s", "a") == (2, 3.0)).then_some(()));
    assert_eq!(service.client().total("a", "1d"), (2, 3.0));
}

#[test]
fn a_stop_over_the_end_embedded() {
    a_stop_over_the_end(On::Embedded);
}

#[test]
fn a_stop_over_the_end_redis() {
    a_stop_over_the_end(On::Redis);
}

fn a_late_reading(on: On) {
    let service = Service::start(on, &["--periods", "1m,1h,1d", "--grace", "200ms", "--lateness", "1s"]);
    let client = service.client();
    let minute = "2026-03-02T10:17:00Z";
    let rows = [("1m", minute), ("1h", "2026-03-02T10:00:00Z"), ("1d", "2026-03-02T00:00:00Z")];
    let written = |count: u64, sum: f64, min: &str| {
        for (period, start) in rows {
            eventually(&format!("{count} readings in the row of {period}"), || {
                let newest = sink_files::newest(&service.sink(), period);
                let row = newest.get(&("a".to_owned(), start.to_owned()))?;
                (row.count == count && row.sum.parse() == Ok(sum) && row.min == min).then_some(())
            });
            assert_eq!(client.total("a", period), (count, sum), "{period}");
        }
    };
    client.post(&array([reading_at("a", 2.5, minute), reading_at("a", 4.5, minute)])).ok();
    written(2, 7.0, "2.5");
    let closed = || client.rows("a", "1d")[0]["state"] == "closed";
    eventually("the day has closed", || closed().then_some(()));
    client.post(&reading_at("a", 0.25, minute)).ok();
    assert_eq!(client.total("a", "1d"), (3, 7.25), "at once in every period");
    written(3, 7.25, "0.25");
    // Once more, under a key and twice, into another minute of the hour.
    for _ in 0..2 {
        client.post_keyed("late", &reading_at("a", 8.0, "2026-03-02T10:59:59.999Z")).ok();
    }
    eventually("the day has the second late reading", || {
        (sink_files::total(&service.sink(), "1d", "a") == (4, 15.25)).then_some(())
    });
    eventually("everything has closed", || {
        (closed() && client.get("/v1/state?source=a").ok().json() == serde_json::json!([])).then_some(())
    });
    for (period, rows) in [("1m", 2), ("1h", 1), ("1d", 1)] {
        assert_eq!((client.rows("a", period).len(), client.total("a", period)), (rows, (4, 15.25)), "{period}");
        assert_eq!(sink_files::total(&service.sink(), period, "a"), (4, 15.25), "{period}");
    }
}

#[test]
fn a_late_reading_embedded() {
    a_late_reading(On::Embedded);
}

#[test]
fn a_late_reading_redis() {
    a_late_reading(On::Redis);
}
