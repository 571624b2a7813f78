//! The sink on PostgreSQL: one table of rows that a person can query (docs/postgres.md).
//!
//! Implements the contract of `sink/mod.rs` for `rollover.rs` and `query/`; the only place with SQL. Rows
//! are written by `postgres/write.rs` and read by `read.rs`; `schema.rs` says what must be true of a
//! database before it is written to, which is looked at again on every new connection; `failure.rs`
//! sorts errors by what helps. Several services may write to one database: a row's version decides.
//! The time is the server's only in `written_at`, which nothing here reads.

mod arrays;
mod aside;
mod columns;
mod connections;
mod failure;
mod history;
mod probe;
mod read;
mod schema;
mod upsert;
mod write;

pub use probe::{Probe, migrate, probe};

use super::{Partition, RowPage, RowQuery, Sink, SinkError, WriteReport};
use crate::stats::Millis;
use crate::stats::calendar::Period;
use crate::stats::row::{LifeRow, Row};
use crate::stats::source::SourceSpan;
use connections::{Connections, Lease, Session, begin_session, within};
use failure::Failure;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use std::str::FromStr;
use std::time::Duration;

/// One connection writes: the rollover writes one batch after the other. The lock timeout is short, because
/// what waits holds locks itself; the rollover comes again.
const WRITING: Session = Session { connections: 1, statement_timeout: "30s", lock_timeout: "5s" };
/// Four questions at once read from the table; more wait for their turn, and a server has some hundred
/// connections for everybody.
const ASKING: Session = Session { connections: 4, statement_timeout: "10s", lock_timeout: "5s" };
/// For a look at the server before the first write, all statements together.
const PREPARE: Duration = Duration::from_secs(30);
/// For migrations: a large table takes its time, and another program may be at it.
const MIGRATE: Duration = Duration::from_hours(1);

/// See the module.
pub struct PostgresSink {
    name: String,
    writing: Connections,
    asking: Connections,
}

impl PostgresSink {
    /// A sink at an address, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, without connecting. `name` is
    /// the address as it may be shown.
    ///
    /// # Errors
    /// `Refused` if the address cannot be read or asks for TLS.
    pub fn new(url: &str, name: String) -> Result<Self, SinkError> {
        let options = options(url).map_err(Failure::into_error)?;
        let (writing, asking) = (Connections::new(options.clone(), WRITING), Connections::new(options, ASKING));
        Ok(Self { name, writing, asking })
    }

    /// The connection for writing, to a server that was looked at.
    async fn writer(&self) -> Result<Lease, Failure> {
        let mut lease = self.writing.lease().await?;
        if lease.is_new {
            let connection = &mut lease.connection;
            if within(PREPARE, schema::state(connection)).await? != schema::State::Current {
                let applied = within(MIGRATE, schema::migrate(connection)).await?;
                tracing::info!(applied, "the schema of the sink is up to date");
                within(PREPARE, begin_session(connection, WRITING)).await?;
            }
            within(PREPARE, schema::examine(connection)).await?;
            within(PREPARE, schema::rehearse(connection)).await?;
        }
        Ok(lease)
    }
}

/// What an address says; what it leaves out comes from libpq's variables and the password file.
fn options(url: &str) -> Result<PgConnectOptions, Failure> {
    let options = PgConnectOptions::from_str(url)?;
    Ok(options.application_name("meanwhile").disable_statement_logging())
}

#[async_trait::async_trait]
impl Sink for PostgresSink {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// Reaches the server, makes or completes the schema, and sees that rows can be entrusted to it. Every new
    /// connection for writing does the same, so this is for a start that should fail at once.
    async fn prepare(&self) -> Result<(), SinkError> {
        let lease = self.writer().await.map_err(Failure::into_error)?;
        self.writing.give_back(lease);
        Ok(())
    }

    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        let rows = lives.into_iter().map(Row::alone).collect();
        write::write(self, rows, write::Offer::Lives).await.map_err(Failure::into_write_error)
    }

    async fn put(&self, rows: Vec<Row>) -> Result<WriteReport, SinkError> {
        write::write(self, rows, write::Offer::Whole).await.map_err(Failure::into_error)
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, SinkError> {
        read::rows(self, query).await.map_err(Failure::into_error)
    }

    async fn scan(&self, after: Option<&str>, limit: usize) -> Result<RowPage, SinkError> {
        history::scan(self, after, limit).await
    }

    async fn sources(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<SourceSpan>, SinkError> {
        read::sources(self, prefix, after, limit).await.map_err(Failure::into_error)
    }

    /// The table always holds one line per row.
    async fn compactable(&self, _now: Millis) -> Result<Vec<Partition>, SinkError> {
        Ok(Vec::new())
    }

    async fn compact(&self, _partition: &Partition) -> Result<(), SinkError> {
        Ok(())
    }

    async fn forget(&self, source: &str) -> Result<usize, SinkError> {
        history::forget(self, source).await.map_err(Failure::into_error)
    }

    async fn retain(&self, period: Period, before: Millis) -> Result<usize, SinkError> {
        history::retain(self, period, before).await.map_err(Failure::into_error)
    }
}
