//! Scenario 9: The service is stopped over midnight and started later: the rows of the day before appear by themselves.

use super::stage::tell;
use crate::http::{array, reading};
use crate::nodes::clock_library;
use crate::servers::temporary;
use crate::service::{Service, eventually};
use crate::sink_files;
use meanwhile::clock::Clock;

/// In seconds.
const HOUR: i64 = 3_600;

#[test]
fn stopped_over_midnight() {
    println!("9. Stopped over midnight");
    let dir = temporary();
    let flags = ["store", "csv"].map(|name| format!("{}", dir.path().join(name).display()));
    let (store, sink) = (format!("embedded:{}", flags[0]), format!("csv:{}", flags[1]));
    let flags = ["--store", &store, "--sink", &sink];
    // What the clock of the process is to be ahead of this machine's, so that it is ten in the evening for it.
    let library = clock_library(dir.path());
    let ahead = 22 * HOUR - (Clock::System.now() / 1_000).rem_euclid(24 * HOUR);
    let at =
        |ahead: i64| Service::start_beside(&flags, &[("LD_PRELOAD", &library), ("CLOCK_OFFSET", &ahead.to_string())]);
    let mut evening = at(ahead);
    evening.client().post(&array([reading("kitchen", 21.5), reading("kitchen", 22.5)])).ok();
    evening.stop();
    assert_eq!(sink_files::lines(&evening.sink(), "1d").len(), 0);
    tell(
        "At ten in the evening two readings are taken, and the service is stopped. Their day is not over: it has no row.",
    );

    let morning = at(ahead + 9 * HOUR);
    eventually("the row of the day is written", || {
        (sink_files::total(&morning.sink(), "1d", "kitchen") == (2, 44.0)).then_some(())
    });
    tell(
        "At seven in the morning it is started. Nobody asks and nobody sends; the row of the day is written by itself:",
    );
    for line in morning.run(&["query", "kitchen", "--period", "1d"]).lines() {
        tell(line);
    }
}
