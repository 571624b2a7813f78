//! A few connections to one PostgreSQL server, each used by one caller at a time.
//!
//! Used by `postgres.rs`: one set for writing, one for questions. A [`Lease`] is given back after
//! success and dropped after any failure, which closes its connection: so nobody gets one in an
//! unknown state, and after a failover the next one leads to the new server. Every wait has a limit.
//! The pool of the library is not used: it repeats failing connects without telling why they failed.

use super::failure::Failure;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// More is a server that is down, or too far away to write rows to.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection that was idle may take to show that it is alive.
const PING: Duration = Duration::from_secs(2);
/// How long to wait for one that is in use.
const TURN: Duration = Duration::from_secs(10);

/// What a session may do, in the units of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) connections: usize,
    /// Of one statement.
    pub(super) statement_timeout: &'static str,
    pub(super) lock_timeout: &'static str,
}

/// `synchronous_commit` is raised where it is off, because a row that was acknowledged leaves the
/// store; stricter levels stay. A session that is left alone in a transaction must not hold locks.
const BEGIN_SESSION: &str = "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false), \
     set_config('idle_in_transaction_session_timeout', '30s', false), set_config('TimeZone', 'UTC', false), \
     CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END";

/// See the module. It cannot be printed: the options hold the password.
pub(super) struct Connections {
    options: PgConnectOptions,
    session: Session,
    idle: Mutex<Vec<PgConnection>>,
    /// As many as connections.
    turns: Arc<Semaphore>,
}

/// A connection of one's own, until it is given back or dropped.
pub(super) struct Lease {
    pub(super) connection: PgConnection,
    /// Whether it was opened for this lease.
    pub(super) is_new: bool,
    _turn: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, session: Session) -> Self {
        Self { options, session, idle: Mutex::default(), turns: Arc::new(Semaphore::new(session.connections)) }
    }

    /// An idle connection that answers, or a new one.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let busy = || format!("all {} connections have been in use for {} s", self.session.connections, TURN.as_secs());
        let turn = turn.map_err(|_| Failure::Away(busy()))?.expect("never closed");
        while let Some(mut connection) = self.take_idle() {
            if let Ok(Ok(())) = timeout(PING, connection.ping()).await {
                return Ok(Lease { connection, is_new: false, _turn: turn });
            }
        }
        let mut connection = within(CONNECT, async { Ok(PgConnection::connect_with(&self.options).await?) }).await?;
        within(CONNECT, begin_session(&mut connection, self.session)).await?;
        Ok(Lease { connection, is_new: true, _turn: turn })
    }

    /// Keeps the connection of a lease for the next.
    pub(super) fn give_back(&self, lease: Lease) {
        self.idle.lock().expect("no panic while it is held").push(lease.connection);
    }

    fn take_idle(&self) -> Option<PgConnection> {
        self.idle.lock().expect("no panic while it is held").pop()
    }
}

/// Settings of a session: at its beginning, and again after something has changed them.
pub(super) async fn begin_session(connection: &mut PgConnection, session: Session) -> Result<(), Failure> {
    sqlx::query(BEGIN_SESSION).bind(session.statement_timeout).bind(session.lock_timeout).execute(connection).await?;
    Ok(())
}

/// Gives up waiting after `limit`. The connection is then in an unknown state and must be dropped.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(Failure::silent(limit)))
}
