//! What the service counts and measures, for `GET /metrics`: one small function per event.
//!
//! Called by everything above, wherever something happens that is worth a number; what the numbers
//! mean to an operator is in docs/metrics.md, which a test keeps equal to [`METRICS`]. Guarantees: a
//! series whose labels are known stands at 0 from the start, so that its first event is an increase;
//! no label is taken from what clients send.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use std::time::Duration;

/// Samples of histograms wait in memory until they are sorted in; this is how often that is done.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Upper bounds in seconds: from a frame on an idle machine to the deadline of a request.
const SECONDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Upper bounds in deltas: from one source to a full frame.
const DELTAS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 2_048.0, 4_096.0];

const BUILD: &str = "meanwhile_build_info";
const REQUESTS: &str = "meanwhile_requests_total";
const REQUEST_SECONDS: &str = "meanwhile_request_seconds";
const TURNED_AWAY: &str = "meanwhile_requests_turned_away_total";
const READINGS: &str = "meanwhile_readings_total";
const FRAMES: &str = "meanwhile_frames_total";
const FRAME_DELTAS: &str = "meanwhile_frame_deltas";
const COMMIT_SECONDS: &str = "meanwhile_commit_seconds";
const COMMITS_FAILED: &str = "meanwhile_commits_failed_total";
const STORE_REACHABLE: &str = "meanwhile_store_reachable";
const STORE_RECONNECTS: &str = "meanwhile_store_reconnects_total";
const STORE_LOSSES: &str = "meanwhile_store_losses_total";
const STORE_LOST_FRAMES: &str = "meanwhile_store_lost_frames_total";
const TICKS: &str = "meanwhile_rollover_ticks_total";
const ROLLOVER_ERRORS: &str = "meanwhile_rollover_errors_total";
const ROWS: &str = "meanwhile_rollover_rows_total";
const ROWS_OLDER: &str = "meanwhile_rollover_rows_older_total";
const ROWS_REMOVED: &str = "meanwhile_rollover_rows_removed_total";
const ROWS_REFUSED: &str = "meanwhile_rollover_rows_refused_total";
const SINK_SECONDS: &str = "meanwhile_sink_write_seconds";
const SINK_USABLE: &str = "meanwhile_sink_usable";
const OPEN_BUCKETS: &str = "meanwhile_open_buckets";
const OLDEST_DUE: &str = "meanwhile_oldest_due_seconds";
const LIVE_CLIENTS: &str = "meanwhile_live_clients";
const LIVE_FRAMES: &str = "meanwhile_live_frames_total";
const ERRORS: &str = "meanwhile_errors_total";
const ERRORS_DROPPED: &str = "meanwhile_errors_dropped_total";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With these upper bounds.
    Histogram(&'static [f64]),
}

/// Name, kind and meaning of every metric.
pub const METRICS: [(&str, Kind, &str); 27] = [
    (BUILD, Kind::Gauge, "1; the version is a label"),
    (REQUESTS, Kind::Counter, "Requests answered, by method, route of the table and status"),
    (REQUEST_SECONDS, Kind::Histogram(SECONDS), "From the head of a request to the head of its answer, by route"),
    (TURNED_AWAY, Kind::Counter, "Requests answered 503, by the problem's type"),
    (READINGS, Kind::Counter, "Readings by outcome: accepted, duplicate, refused, too_late"),
    (FRAMES, Kind::Counter, "Frames the store has merged"),
    (FRAME_DELTAS, Kind::Histogram(DELTAS), "(source, bucket) pairs in a frame"),
    (COMMIT_SECONDS, Kind::Histogram(SECONDS), "From the first sending of a frame until its outcome is certain"),
    (COMMITS_FAILED, Kind::Counter, "Commits whose requests were answered 503 or 504"),
    (STORE_REACHABLE, Kind::Gauge, "1 if the store answered last, else 0"),
    (STORE_RECONNECTS, Kind::Counter, "Connections to the store opened again"),
    (STORE_LOSSES, Kind::Counter, "Times the store came back without something it had confirmed"),
    (STORE_LOST_FRAMES, Kind::Counter, "Frames confirmed to this process that the store has lost"),
    (TICKS, Kind::Counter, "Times the rollover looked for due buckets"),
    (ROLLOVER_ERRORS, Kind::Counter, "Ticks that could not finish, by the side that failed: store, sink"),
    (ROWS, Kind::Counter, "Rows written to the sink, corrections included"),
    (ROWS_OLDER, Kind::Counter, "Rows skipped because the sink has newer ones: a clock or a store went back"),
    (ROWS_REMOVED, Kind::Counter, "Rows removed from the sink because they are no longer kept"),
    (ROWS_REFUSED, Kind::Counter, "Rows the sink would not take and set aside with the reason"),
    (SINK_SECONDS, Kind::Histogram(SECONDS), "One write of rows to the sink, until they are durable"),
    (
        SINK_USABLE,
        Kind::Gauge,
        "1 if the last write to the sink succeeded or none was needed since it was reached, else 0",
    ),
    (OPEN_BUCKETS, Kind::Gauge, "Buckets in the store"),
    (OLDEST_DUE, Kind::Gauge, "For how long the longest due bucket waits to be written or closed; 0 if none is due"),
    (LIVE_CLIENTS, Kind::Gauge, "Clients connected at present to hear channels, by the way they are connected"),
    (LIVE_FRAMES, Kind::Counter, "Messages and present rows handed to live clients, each as often as it had listeners"),
    (ERRORS, Kind::Counter, "Unexpected errors and panics, by class: those of the error log"),
    (ERRORS_DROPPED, Kind::Counter, "Unexpected errors that are not in the error log: too many different ones at once"),
];

/// How the outcomes of readings are named in the label.
const OUTCOMES: [&str; 4] = ["accepted", "duplicate", "refused", "too_late"];
const SIDES: [&str; 2] = ["store", "sink"];
/// The classes of unexpected errors, as `incidents::Class` has them.
pub const ERROR_CLASSES: [&str; 7] = ["panic", "store", "sink", "rollover", "live", "http", "other"];
const TRANSPORTS: [&str; 3] = ["events", "polling", "websocket"];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to count; what happens before is not counted. A second call changes nothing.
///
/// # Panics
/// If another recorder of the `metrics` crate stands in this process.
pub fn install() {
    HANDLE.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for (name, kind, _) in METRICS {
            if let Kind::Histogram(bounds) = kind {
                let named = Matcher::Full(name.to_owned());
                builder = builder.set_buckets_for_metric(named, bounds).expect("every histogram has bounds");
            }
        }
        let handle = builder.install_recorder().expect("nobody else in the process counts");
        describe();
        begin_at_zero();
        handle
    });
}

fn describe() {
    for (name, kind, meaning) in METRICS {
        match kind {
            Kind::Counter => describe_counter!(name, meaning),
            Kind::Gauge => describe_gauge!(name, meaning),
            Kind::Histogram(_) => describe_histogram!(name, meaning),
        }
    }
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

fn begin_at_zero() {
    let labelled = [BUILD, REQUESTS, REQUEST_SECONDS, TURNED_AWAY, READINGS, ROLLOVER_ERRORS, LIVE_CLIENTS, ERRORS];
    for (name, kind, _) in METRICS.iter().filter(|(name, ..)| !labelled.contains(name)) {
        match kind {
            Kind::Counter => counter!(*name).absolute(0),
            Kind::Gauge => gauge!(*name).set(0.0),
            // Registered, and so shown, by its first sample only.
            Kind::Histogram(_) => {}
        }
    }
    for outcome in OUTCOMES {
        counter!(READINGS, "outcome" => outcome).absolute(0);
    }
    for side in SIDES {
        counter!(ROLLOVER_ERRORS, "side" => side).absolute(0);
    }
    for class in ERROR_CLASSES {
        counter!(ERRORS, "class" => class).absolute(0);
    }
    for transport in TRANSPORTS {
        gauge!(LIVE_CLIENTS, "transport" => transport).set(0.0);
    }
}

/// Sorts in what was measured, until the end of the process; without it memory grows between scrapes.
pub async fn upkeep() {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        if let Some(handle) = HANDLE.get() {
            handle.run_upkeep();
        }
    }
}

/// What stands right now, as it is asked for when somebody looks.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub store_reachable: bool,
    pub sink_usable: bool,
    pub open_buckets: u64,
    pub oldest_due: Duration,
}

/// Everything in Prometheus' text format; empty before [`install`].
#[must_use]
pub fn render(standing: Standing) -> String {
    gauge!(STORE_REACHABLE).set(f64::from(u8::from(standing.store_reachable)));
    gauge!(SINK_USABLE).set(f64::from(u8::from(standing.sink_usable)));
    gauge!(OPEN_BUCKETS).set(standing.open_buckets as f64);
    gauge!(OLDEST_DUE).set(standing.oldest_due.as_secs_f64());
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// A request was answered. `method` and `route` are names of the route table, never what was sent.
pub fn answered(method: &'static str, route: &str, status: u16, took: Duration) {
    let route = route.to_owned();
    counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => status.to_string()).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route).record(took);
}

/// A request was answered 503, with a problem of this type.
pub fn turned_away(problem: &'static str) {
    counter!(TURNED_AWAY, "type" => problem).increment(1);
}

/// Names what requests may be turned away with.
pub fn may_turn_away(problem: &'static str) {
    counter!(TURNED_AWAY, "type" => problem).absolute(0);
}

/// Readings of an answered request are in the store, now or, as a duplicate, before; some were too late.
pub fn readings_counted(counted: usize, duplicate: bool, too_late: usize) {
    let [accepted, before, _, late] = OUTCOMES;
    counter!(READINGS, "outcome" => if duplicate { before } else { accepted }).increment(counted as u64);
    counter!(READINGS, "outcome" => late).increment(too_late as u64);
}

/// So many lines of a request broke a rule, whether the others were counted or not.
pub fn readings_refused(lines: usize) {
    counter!(READINGS, "outcome" => OUTCOMES[2]).increment(lines as u64);
}

/// The store has merged a frame.
pub fn frame(deltas: usize) {
    counter!(FRAMES).increment(1);
    histogram!(FRAME_DELTAS).record(deltas as f64);
}

/// The outcome of a commit is certain.
pub fn committed(took: Duration, counted: bool) {
    histogram!(COMMIT_SECONDS).record(took);
    if !counted {
        counter!(COMMITS_FAILED).increment(1);
    }
}

/// A connection to the store was opened in the place of one that was dropped.
pub fn store_reconnected() {
    counter!(STORE_RECONNECTS).increment(1);
}

/// The store came back without something it had confirmed: so many frames of this process.
pub fn store_lost(frames: u64) {
    counter!(STORE_LOSSES).increment(1);
    counter!(STORE_LOST_FRAMES).increment(frames);
}

/// The rollover looked for due buckets; `failed` is the side that kept it from finishing.
pub fn ticked(failed: Option<Side>) {
    counter!(TICKS).increment(1);
    if let Some(side) = failed {
        counter!(ROLLOVER_ERRORS, "side" => SIDES[side as usize]).increment(1);
    }
}

/// On which side of the rollover something failed; the order is that of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Store,
    Sink,
}

/// Rows went to the sink.
pub fn sink_wrote(took: Duration, written: usize, refused: usize) {
    histogram!(SINK_SECONDS).record(took);
    counter!(ROWS).increment(written as u64);
    counter!(ROWS_REFUSED).increment(refused as u64);
}

/// Rows were skipped for which only a clock or a store that went back can be the reason.
pub fn rows_older(rows: usize) {
    counter!(ROWS_OLDER).increment(rows as u64);
}

/// How a live client is connected; the order is that of the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Server-Sent Events.
    Events,
    /// Socket.IO by one request after the other.
    Polling,
    /// Socket.IO over a WebSocket.
    Websocket,
}

/// So many clients more are connected in this way, or fewer.
pub fn live_client(transport: Transport, more: i8) {
    gauge!(LIVE_CLIENTS, "transport" => TRANSPORTS[transport as usize]).increment(f64::from(more));
}

/// Something was handed to so many live clients.
pub fn live_frames(clients: u64) {
    counter!(LIVE_FRAMES).increment(clients);
}

/// Rows that are no longer kept left the sink.
pub fn rows_removed(rows: usize) {
    counter!(ROWS_REMOVED).increment(rows as u64);
}

/// An unexpected error was seen; `class` is the place in [`ERROR_CLASSES`].
pub fn error(class: usize) {
    counter!(ERRORS, "class" => ERROR_CLASSES[class]).increment(1);
}

/// An unexpected error found no room among those that wait to be stored.
pub fn error_dropped() {
    counter!(ERRORS_DROPPED).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Names in the first column of the tables of the page.
    fn documented() -> BTreeSet<&'static str> {
        let page = include_str!("../../docs/metrics.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        rows.map(|(name, _)| name.split('{').next().unwrap_or(name)).filter(|n| n.starts_with("meanwhile_")).collect()
    }

    #[test]
    fn the_page_names_what_there_is() {
        let names: BTreeSet<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, documented(), "docs/metrics.md and METRICS");
        assert_eq!(names.len(), METRICS.len(), "a name stands once");
    }

    #[test]
    fn names_say_what_they_are() {
        for (name, kind, meaning) in METRICS {
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_bytes"), meaning.contains("bytes"), "{name}");
            if let Kind::Histogram(bounds) = kind {
                assert!(bounds.is_sorted(), "{name}");
            }
        }
    }
}
