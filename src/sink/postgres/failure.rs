//! What went wrong with PostgreSQL, sorted by what helps: repeating, waiting, a new connection, a person.
//!
//! Used by all of `sink/postgres`; what leaves the folder is a [`SinkError`]. Guarantees: a message says
//! what the server or the network said and, where there is one, the remedy; it never holds an
//! address, so no password either.

use crate::sink::SinkError;
use sqlx::postgres::PgDatabaseError;
use std::fmt;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Somebody else was faster, or came in the opposite order; the same again may succeed at once.
    Again(String),
    /// The connection is of no use any more; what was under way may have happened or not.
    Lost(String),
    /// It will be different later by itself, or once somebody has acted; the server is the right one.
    Away(String),
    /// Another session holds a lock; of a row, unless `write.rs` has found that it is one of a whole table.
    Locked(String),
    /// Nothing changes until somebody acts.
    Wrong(String),
    /// About a row, not about the table or the server.
    Row(String),
}

/// SQLSTATEs, or their first two characters, and what to do about them.
const REMEDIES: [(&str, &str); 20] = [
    ("28", "are user and password of the address right, and does pg_hba.conf let this host in?"),
    ("3D000", "create the database, or name another one: postgres://USER:PASSWORD@HOST/DATABASE"),
    ("3F000", "the search_path of the role names a schema that does not exist"),
    ("42501", "give the role the rights that docs/postgres.md lists"),
    ("42P01", "run meanwhile migrate"),
    ("42703", "the table is not as meanwhile migrate made it: put back what was changed"),
    ("42P10", "the table has lost its primary key (source, period, bucket_start): put it back"),
    ("42804", "the table is not as meanwhile migrate made it: put back what was changed"),
    ("23502", "a column that was added must have a default or allow nulls"),
    ("25006", "this server takes no writes: it is a standby, or default_transaction_read_only is on"),
    ("53100", "its disk is full: make room"),
    ("53200", "it is out of memory"),
    ("53300", "raise max_connections or the limit of the role; the service needs five"),
    ("55P03", "another session holds a lock: pg_locks and pg_stat_activity show which"),
    ("57014", "it took too long: another session is in the way, or the server is overloaded"),
    ("57P01", "it is shutting down"),
    ("57P02", "it is recovering from a crash"),
    ("57P03", "it is starting up, or takes no connections now"),
    ("58", "its file system fails: look into its log"),
    ("XX", "an internal error: look into its log"),
];

impl Failure {
    /// Nothing came back in time.
    pub(super) fn silent(limit: Duration) -> Self {
        Self::Lost(format!("no answer within {} s: does the server hang, or a firewall keep us out?", limit.as_secs()))
    }

    /// For callers outside: as it is.
    pub(super) fn into_error(self) -> SinkError {
        match self {
            Self::Wrong(reason) | Self::Row(reason) => SinkError::Refused(reason),
            Self::Again(reason) | Self::Lost(reason) | Self::Away(reason) | Self::Locked(reason) => {
                SinkError::Unavailable(reason)
            }
        }
    }

    /// For a write: what is wrong with the whole table holds up all buckets alike, so there is no
    /// use in trying one by one, which is what `Refused` asks for. A locked row holds up only its own.
    pub(super) fn into_write_error(self) -> SinkError {
        match self {
            Self::Locked(reason) => SinkError::Refused(reason),
            other => SinkError::Unavailable(other.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Again(reason)
        | Self::Lost(reason)
        | Self::Away(reason)
        | Self::Locked(reason)
        | Self::Wrong(reason)
        | Self::Row(reason)) = self;
        f.write_str(reason)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
                Some(said) => of_server(said),
                None => Self::Away(error.to_string()),
            },
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Self::Lost(format!("{error}: is PostgreSQL running there, and is this its HOST:PORT?"))
            }
            sqlx::Error::Io(error) if error.to_string().contains("certificate") => Self::Wrong(format!(
                "{error}: sslrootcert=FILE names whom to trust, and with sslmode=verify-full the address has to name the \
                 server as its certificate does"
            )),
            sqlx::Error::Io(error) => Self::Lost(error.to_string()),
            sqlx::Error::Tls(error) => Self::Wrong(format!("no TLS (sslmode, sslrootcert): {error}")),
            // Never with what it is about, which is the address.
            sqlx::Error::Configuration(_) => {
                Self::Wrong("the address cannot be read: write postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned())
            }
            sqlx::Error::Migrate(error) => match *error {
                sqlx::migrate::MigrateError::Execute(error)
                | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => Self::from(error),
                other => Self::Wrong(other.to_string()),
            },
            error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::TypeNotFound { .. }) => Self::Wrong(format!(
                "{error}: the table is not as meanwhile migrate made it: put back what was changed"
            )),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for Failure {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::from(sqlx::Error::Migrate(Box::new(error)))
    }
}

fn of_server(said: &PgDatabaseError) -> Failure {
    let code = said.code();
    let detail = said.detail().filter(|_| !code.starts_with("28")).map(|d| format!(" ({d})")).unwrap_or_default();
    let foreign_column = code == "23502" && said.column().is_some_and(|column| !super::columns::is_ours(column));
    let about_a_row = !foreign_column && matches!(&code[..2], "22" | "23" | "44" | "54" | "P0");
    if about_a_row {
        return Failure::Row(format!("{}{detail} [{code}]", said.message()));
    }
    let remedy = REMEDIES.iter().find(|(state, _)| code.starts_with(state));
    let remedy = remedy.map(|(_, remedy)| format!(": {remedy}")).unwrap_or_default();
    let reason = format!("{} [{code}]{remedy}", said.message());
    match code {
        "40001" | "40P01" => Failure::Again(reason),
        "55P03" => Failure::Locked(reason),
        // The session ends with these; the next connection may reach the server that takes writes now.
        "57P01" | "57P02" | "25006" => Failure::Lost(reason),
        _ => match &code[..2] {
            "08" => Failure::Lost(reason),
            "28" | "3D" | "3F" | "42" | "0A" | "23" => Failure::Wrong(reason),
            _ => Failure::Away(reason),
        },
    }
}
