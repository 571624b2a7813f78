//! `meanwhile migrate`: makes the schema of the Postgres sink, or brings it up to date.
//!
//! For databases in which the service itself may not change tables: this runs once with a role that may.
//! Takes the settings of `serve`, of which only the sink matters. May be repeated, also beside running
//! services. The migrations are in `migrations/`, what runs them in `sink/postgres/schema.rs`.

use super::{Usage, config::validated, output};
use crate::config::{Given, SinkUrl};
use crate::sink::{SinkError, postgres};
use anyhow::Context;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile migrate --sink postgres://owner:PASSWORD@db/statistics
      Makes the tables, so that a role without that right can serve.
  meanwhile migrate --config meanwhile.toml
      With the sink the service has.

A service whose role may change the schema does the same at its start. Tables that
are up to date are left alone. docs/postgres.md has the rights a serving role needs.";

/// Prints how far the schema is now.
pub fn run(given: &Given) -> anyhow::Result<()> {
    let settings = given.load().map_err(Usage::of)?;
    let config = validated(&settings).map_err(Usage::of)?;
    let SinkUrl::Postgres(url) = &config.sink else {
        let reason =
            format!("the sink {} has no schema: write --sink postgres://USER:PASSWORD@HOST:PORT/DATABASE", config.sink);
        return Err(Usage(reason).into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let migrated = runtime.context("cannot start the runtime")?.block_on(postgres::migrate(url.reveal()));
    let (applied, version) = migrated.map_err(|error| match error {
        SinkError::Unavailable(reason) | SinkError::Refused(reason) => {
            anyhow::anyhow!("sink {}: {reason}", config.sink)
        }
    })?;
    let line = format!("sink {}: schema {version}, migrations applied: {applied}\n", config.sink);
    Ok(output::print(line.as_bytes())?)
}
