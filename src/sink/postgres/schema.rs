//! The schema: which migrations there are, which the database has, and whether a service can work on it.
//!
//! Called at each new connection for writing, by `meanwhile migrate` and by `meanwhile check`. Guarantees:
//! nothing is written to a database whose schema is not the one of this program, or that would
//! forget rows it has confirmed. Two programs that migrate at once wait for each other.

use super::failure::Failure;
use super::upsert;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row, SqlSafeStr};

/// Where the database says which migrations it has.
const TABLE: &str = "meanwhile_migrations";
/// Number, what it does, and its statements.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "bucket statistics", include_str!("../../../migrations/0001_bucket_stats.sql")),
    (2, "vectors", include_str!("../../../migrations/0002_vectors.sql")),
];
/// PostgreSQL 13; older ones have had no fixes for years.
const OLDEST_SERVER: i32 = 130_000;

/// How far the schema of a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Current,
    /// Some migrations are missing, maybe all.
    Behind {
        applied: usize,
    },
}

/// The number of the last migration.
pub(super) fn version() -> i64 {
    MIGRATIONS[MIGRATIONS.len() - 1].0
}

fn migrator() -> Migrator {
    let migration = |(number, what, sql): (i64, &'static str, &'static str)| {
        Migration::new(number, what.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(MIGRATIONS.into_iter().map(migration).collect());
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

/// Compares what the database has with what this program needs.
///
/// # Errors
/// `Wrong` if it is of a newer program, or was changed.
pub(super) async fn state(connection: &mut PgConnection) -> Result<State, Failure> {
    let found = sqlx::query("SELECT to_regclass($1) IS NOT NULL").bind(TABLE).fetch_one(&mut *connection).await?;
    if !found.try_get::<bool, _>(0)? {
        return Ok(State::Behind { applied: 0 });
    }
    let applied = connection.list_applied_migrations(TABLE).await?;
    let migrator = migrator();
    for migration in &applied {
        match migrator.iter().find(|known| known.version == migration.version) {
            None => {
                return Err(Failure::Wrong(format!(
                    "its schema has version {}, this meanwhile knows {}: run the newer one",
                    migration.version,
                    version()
                )));
            }
            Some(known) if known.checksum != migration.checksum => {
                return Err(Failure::Wrong(format!(
                    "its schema was made by another migration {} than this meanwhile has: use the release that made it, \
                     or another database",
                    migration.version
                )));
            }
            Some(_) => {}
        }
    }
    Ok(if applied.len() == MIGRATIONS.len() { State::Current } else { State::Behind { applied: applied.len() } })
}

/// Applies what is missing, and returns how many migrations that were.
///
/// # Errors
/// As [`state`]; and if the role may not change the schema.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<usize, Failure> {
    let State::Behind { applied } = state(connection).await? else { return Ok(0) };
    // Others that migrate are waited for, and a large table takes its time.
    sqlx::query("SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '60s', false)")
        .execute(&mut *connection)
        .await?;
    migrator().run_direct(None, connection, false).await.map_err(|error| match Failure::from(error) {
        Failure::Wrong(reason) => Failure::Wrong(format!(
            "its schema is not ready and this role may not make it: run meanwhile migrate with the role that owns the \
             database, then give this one its rights, see docs/postgres.md ({reason})"
        )),
        other => other,
    })?;
    Ok(MIGRATIONS.len() - applied)
}

/// What has to be true of server and tables before rows are entrusted to them; changes nothing.
pub(super) async fn examine(connection: &mut PgConnection) -> Result<(), Failure> {
    let found = sqlx::query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), \
         current_setting('fsync'), pg_is_in_recovery(), \
         (SELECT string_agg(relname, ', ') FROM pg_class WHERE relpersistence <> 'p' \
          AND oid IN (to_regclass('bucket_stats'), to_regclass('sources'), to_regclass('dead_letters')))",
    )
    .fetch_one(&mut *connection)
    .await?;
    let wrong = |reason: String| Err(Failure::Wrong(reason));
    let (number, encoding): (i32, String) = (found.try_get(0)?, found.try_get(1)?);
    let (fsync, standby): (String, bool) = (found.try_get(2)?, found.try_get(3)?);
    let unlogged: Option<String> = found.try_get(4)?;
    if number < OLDEST_SERVER {
        return wrong(format!("it is PostgreSQL {}, at least 13 is needed", number / 10_000));
    }
    if encoding != "UTF8" {
        return wrong(format!(
            "the database has the encoding {encoding}: create one WITH ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    if fsync != "on" {
        return wrong(
            "the server runs with fsync = off and may lose or damage what it has confirmed: switch it on".to_owned(),
        );
    }
    if standby {
        return Err(Failure::Lost(
            "this server is a standby and takes no writes: give the address of its primary".to_owned(),
        ));
    }
    if let Some(tables) = unlogged {
        return wrong(format!("a crash of the server would empty {tables}: ALTER TABLE ... SET LOGGED"));
    }
    Ok(())
}

/// Whether the tables take what will be written: columns, key and rights. Writes nothing.
pub(super) async fn rehearse(connection: &mut PgConnection) -> Result<(), Failure> {
    let mut transaction = connection.begin().await?;
    upsert::rehearse(&mut transaction).await?;
    transaction.rollback().await?;
    Ok(())
}
