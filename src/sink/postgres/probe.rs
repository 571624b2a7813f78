//! A look at a database beside services that may be writing to it, and the making of its schema.
//!
//! Called by `meanwhile check` and `meanwhile migrate`. A look changes nothing: the statements of a write are
//! run without rows and rolled back.

use super::connections::{Connections, within};
use super::failure::Failure;
use super::schema::{self, State};
use super::{MIGRATE, PREPARE, WRITING, options};
use crate::sink::SinkError;
use sqlx::Row;
use sqlx::postgres::PgConnection;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// In a few words.
    pub found: String,
    /// What should be known though it works.
    pub warning: Option<String>,
}

/// Looks at the database at this address.
///
/// # Errors
/// If it cannot be reached, or a service could not write to it; with the remedy.
pub async fn probe(url: &str) -> Result<Probe, SinkError> {
    let look = async {
        let connections = Connections::new(options(url)?, WRITING);
        let mut lease = connections.lease().await?;
        within(PREPARE, look(&mut lease.connection)).await
    };
    look.await.map_err(Failure::into_error)
}

/// Makes or completes the schema; returns how many migrations were applied and the version there is now.
///
/// # Errors
/// If the database cannot be reached, the role may not, or the schema is of a newer program.
pub async fn migrate(url: &str) -> Result<(usize, i64), SinkError> {
    let work = async {
        let connections = Connections::new(options(url)?, WRITING);
        let mut lease = connections.lease().await?;
        within(PREPARE, schema::examine(&mut lease.connection)).await?;
        within(MIGRATE, schema::migrate(&mut lease.connection)).await
    };
    let applied = work.await.map_err(Failure::into_error)?;
    Ok((applied, schema::version()))
}

async fn look(connection: &mut PgConnection) -> Result<Probe, Failure> {
    let state = schema::state(connection).await?;
    schema::examine(connection).await?;
    let found = sqlx::query(
        "SELECT current_setting('server_version'), (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'), \
         coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
         coalesce(to_regclass('bucket_stats'), to_regclass('sources'), to_regclass('dead_letters'), to_regclass('stats'))::text",
    )
    .fetch_one(&mut *connection)
    .await?;
    let (version, commit): (String, String) = (found.try_get(0)?, found.try_get(1)?);
    let (may_create, taken): (bool, Option<String>) = (found.try_get(2)?, found.try_get(3)?);
    let schema = match (state, taken) {
        (State::Behind { .. }, _) if !may_create => {
            let reason = "its schema is not ready and this role may not make it: run meanwhile migrate with the role \
                          that owns the database, see docs/postgres.md";
            return Err(Failure::Wrong(reason.to_owned()));
        }
        (State::Behind { applied: 0 }, Some(taken)) => {
            return Err(Failure::Wrong(format!(
                "it has a table or view {taken} that meanwhile did not make: use another database"
            )));
        }
        (State::Behind { applied: 0 }, None) => "empty, the schema is made at the first start".to_owned(),
        (State::Behind { applied }, _) => {
            format!("schema {applied}, brought to {} at the next start", schema::version())
        }
        (State::Current, _) => {
            schema::rehearse(connection).await?;
            format!("schema {}, writable", schema::version())
        }
    };
    let warning = (commit == "off").then(|| {
        "synchronous_commit is off for this role or database; the service switches it on for its own sessions"
            .to_owned()
    });
    Ok(Probe { found: format!("PostgreSQL {version}, {schema}"), warning })
}
