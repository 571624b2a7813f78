//! A Postgres sink under test: its runtime, and the short forms in which tests write lives and look at rows.
//!
//! Used by `postgres_faults.rs`, `postgres_refused.rs` and `postgres_rows.rs`.

use crate::postgres_server::{Database, PASSWORD};
use crate::sink_contract::block_on;
use crate::world::{HOUR, T0};
use meanwhile::sink::postgres::PostgresSink;
use meanwhile::sink::{RowQuery, Sink, SinkError, WriteReport};
use meanwhile::stats::calendar::Period;
use meanwhile::stats::row::{LifeRow, Row};

pub(crate) const MINUTES: Period = Period::Seconds(60);

/// Makes the tables.
pub(crate) fn prepare(database: &Database) {
    let sink = PostgresSink::new(&database.url(), "postgres".to_owned()).unwrap();
    block_on(sink.prepare()).unwrap();
}

/// One runtime for all calls on a sink: its connections belong to it.
pub(crate) struct Runtime(pub(crate) tokio::runtime::Runtime);

impl Runtime {
    pub(crate) fn new() -> Self {
        Self(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
    }

    pub(crate) fn open(&self, database: &Database) -> PostgresSink {
        self.open_at(&database.url())
    }

    pub(crate) fn open_at(&self, url: &str) -> PostgresSink {
        let sink = PostgresSink::new(url, "postgres".to_owned()).unwrap();
        self.0.block_on(sink.prepare()).unwrap();
        sink
    }

    pub(crate) fn write(&self, sink: &PostgresSink, lives: &[LifeRow]) -> Result<WriteReport, SinkError> {
        self.0.block_on(sink.write(lives.to_vec()))
    }

    /// Sees that a write does not succeed, and why.
    #[track_caller]
    pub(crate) fn check_away(&self, sink: &PostgresSink, lives: &[LifeRow], parts: &[&str]) {
        let error = self.write(sink, lives).unwrap_err();
        assert!(matches!(error, SinkError::Unavailable(_)), "{error:?}");
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)) && !error.contains(PASSWORD), "{error}");
    }

    pub(crate) fn rows(&self, sink: &PostgresSink, source: &str) -> Result<Vec<Row>, SinkError> {
        let query = RowQuery {
            sources: vec![source.into()],
            period: MINUTES,
            from: 0,
            to: T0 + 1_000 * HOUR,
            limit: 0,
            doubles: 0,
        };
        self.0.block_on(sink.rows(&query))
    }
}

pub(crate) fn written(written: usize) -> WriteReport {
    WriteReport { written, ..WriteReport::default() }
}
