//! A run of a scenario: the service as it is or with a broken rule, and whether each reading is counted once at the
//! end, in answers and in files.
//!
//! Used by `requests.rs` and `buckets.rs`, whose scenarios return what they have seen that is wrong.

use crate::http::{array, reading_at};
use crate::service::{On, Service, eventually};
use crate::{sink_files, world};
use meanwhile::clock::Clock;
use meanwhile::stats::calendar::Zone;
use meanwhile::stats::{Millis, timestamp};
use serde_json::Value;
use std::fmt::Debug;

const PERIODS: [&str; 2] = ["1s", "1m"];
/// A bucket of the past closes as soon as nothing comes any more.
pub(super) const SHORT: [&str; 6] = ["--periods", "1s,1m", "--grace", "50ms", "--lateness", "100ms"];
/// The same, but not between two requests that belong together.
pub(super) const SLOWER: [&str; 6] = ["--periods", "1s,1m", "--grace", "500ms", "--lateness", "1s"];
/// A bucket of the present is written at once and does not close by itself.
pub(super) const OPEN: [&str; 6] = ["--periods", "1s,1m", "--grace", "50ms", "--lateness", "1h"];
pub(super) const OLD: &str = "2026-03-02T10:00:00Z";
/// Sources of one second: several frames, several chunks of a close, a file that takes its time to be read.
pub(super) const WIDTH: usize = 8_000;
const MORE_ROUNDS: u64 = 20;

/// Which service a scenario is about.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) on: On,
    pub(super) mutant: Option<&'static str>,
}

/// What is wrong, if anything.
pub(super) type Seen = Result<(), String>;

impl Run {
    pub(super) fn variables(self) -> Vec<(&'static str, &'static str)> {
        self.mutant.map(|name| ("MEANWHILE_MUTANT", name)).into_iter().collect()
    }

    pub(super) fn service(self, flags: &[&str]) -> Service {
        Service::start_where(&self.variables(), self.on, flags)
    }

    /// On a Redis that it does not own.
    pub(super) fn service_beside(self, store: &str, flags: &[&str]) -> Service {
        Service::start_beside(&[&["--store", store][..], flags].concat(), &self.variables())
    }

    /// How often to try, where the moment is of chance: a rule that holds is seen to hold in a few rounds, of a
    /// broken one nobody is to miss the effect by bad luck.
    pub(super) fn rounds(self, usual: u64) -> u64 {
        if self.mutant.is_some() { usual * MORE_ROUNDS } else { usual }
    }
}

pub(super) fn compare<T: PartialEq + Debug>(what: &str, seen: &T, expected: &T) -> Seen {
    if seen == expected { Ok(()) } else { Err(format!("{what}: {seen:?} instead of {expected:?}")) }
}

/// Closes everything and sees what answers and files hold of a source.
pub(super) fn counted(service: &Service, source: &str, expected: (u64, f64)) -> Seen {
    let drained = service.command(&["drain"]).output().unwrap();
    for period in PERIODS {
        compare(&format!("{source} in the files of {period}"), &written(service, period, source), &expected)?;
        compare(&format!("{source} in the answers of {period}"), &answered(service, period, source), &Some(expected))?;
    }
    compare("what the drain complains of", &String::from_utf8_lossy(&drained.stderr), &"".into())
}

/// Count and sum in the newest lines; what is no number counts as none.
pub(super) fn written(service: &Service, period: &str, source: &str) -> (u64, f64) {
    let rows = sink_files::newest(&service.sink(), period).into_iter().filter(|((id, _), _)| id == source);
    rows.fold((0, 0.0), |(count, sum), (_, line)| (count + line.count, sum + line.sum.parse().unwrap_or(f64::NAN)))
}

/// Count and sum in an answer; nothing if it is no success.
pub(super) fn answered(service: &Service, period: &str, source: &str) -> Option<(u64, f64)> {
    let answer = service.client().get(&format!("/v1/stats?source={source}&period={period}"));
    if answer.status != 200 {
        return None;
    }
    let rows = answer.json()["rows"].as_array()?.clone();
    let cell = |row: &Value, name: &str| row[name].as_f64().expect("a number");
    Some((
        rows.iter().map(|row| cell(row, "count") as u64).sum(),
        rows.iter().map(|row| cell(row, "sum")).fold(0.0, std::ops::Add::add),
    ))
}

pub(super) fn wide(time: &str) -> String {
    array((0..WIDTH).map(|i| reading_at(&format!("w{i:05}"), 1.0, time)))
}

/// So many seconds after [`OLD`].
pub(super) fn old_second(second: u64) -> String {
    timestamp::format(old() + second.cast_signed() * world::SECOND)
}

pub(super) fn old() -> Millis {
    timestamp::parse(OLD, &Zone::utc()).expect("a time")
}

/// A second that is just over.
pub(super) fn last_second() -> String {
    timestamp::format(Clock::System.now() / 1_000 * 1_000 - 1_000)
}

/// Posts to a service that then ends itself at a failpoint; whether it was answered before.
pub(super) fn post_until(failpoint: &str, service: &mut Service, key: &str, body: &str) -> bool {
    service.kill();
    service.start_again_until(failpoint);
    let client = service.client();
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    eventually("the service listens", || client.try_post("", &headers[..1], b"[]").ok());
    let answer = client.try_post("", &headers, body.as_bytes());
    service.wait_for_failpoint();
    answer.is_ok_and(|answer| answer.status == 200)
}

/// The same over a restart: what was not answered is sent again.
pub(super) fn post_over(failpoint: &str, service: &mut Service, key: &str, body: &str) {
    let answered = post_until(failpoint, service, key, body);
    service.start_again();
    if !answered {
        service.client().post_until_counted(key, body);
    }
}
