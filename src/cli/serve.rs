//! `meanwhile serve`: validates the configuration, binds the listener, hands both to `app.rs`.
//!
//! SIGTERM and SIGINT are the stop signal; what start and stop mean is decided in `app.rs`. With
//! `--config`, SIGHUP reads the file again (`reload.rs`). A service manager that wants to hear of
//! all this is told (`telemetry/manager.rs`).

use super::{Usage, config, reload};
use crate::config::Given;
use crate::failpoint;
use crate::http::server::listen;
use crate::incidents::{self, Noticing};
use crate::mutant;
use crate::telemetry;
use anyhow::Context;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile serve
      Needs nothing else: embedded store and CSV files under ./meanwhile-data, loopback only.
  meanwhile serve --store redis://127.0.0.1:6379 --periods 10s,1m,1h,1d
      Keeps the open buckets in Redis, where several instances can share them.
  meanwhile serve --listen 0.0.0.0:8080 --auth-file auth.toml
      Listens on every interface, for those to whom `meanwhile token` has given a token.
  meanwhile serve --timezone Europe/Berlin --sink csv:/srv/statistics
      Days begin at midnight in Berlin.
  meanwhile serve --sink postgres://me:PASSWORD@db/statistics
      Writes finished buckets to a table that it makes at its first start.
  meanwhile serve --store redis://127.0.0.1:6379 --role ingest --listen 127.0.0.1:8081
      Takes readings beside another instance on the same Redis, which has the sink.
  MEANWHILE_STORE=redis://:PASSWORD@redis:6379 meanwhile serve
      Every flag is also an environment variable: a place for passwords. Another is
      a file of its own: --store-file PATH, --sink-file PATH.
  meanwhile serve --tls-cert cert.pem --tls-key key.pem --listen 0.0.0.0:8443
      Speaks https; meanwhile dev-cert makes such a pair for development.
  meanwhile serve --config meanwhile.toml
      Takes settings from a file; meanwhile.example.toml has all of them. The environment
      wins over the file, a flag over both. SIGHUP reads it again.

Durations are written 250ms, 5s, 1m, 1h or 7d. SIGTERM or Ctrl-C stops the
service; what it has acknowledged stays in the store.";

/// How long a stop waits for work on files that is under way, after everything else.
const FILES_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the service until it is told to stop.
pub fn run(given: &Given) -> anyhow::Result<()> {
    let settings = given.load().map_err(Usage::of)?;
    let config = config::validated(&settings).map_err(Usage::of)?;
    let format = config::log_format(&settings).map_err(Usage::of)?;
    telemetry::install(&settings.args.log, format, Noticing)?;
    incidents::catch_panics();
    telemetry::metrics::install();
    telemetry::manager::install(crate::config::manager_socket());
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(spec) = crate::config::failpoint() {
        failpoint::arm(&spec).map_err(|wrong| anyhow::anyhow!("MEANWHILE_FAILPOINT: {wrong}"))?;
    }
    if let Some(name) = crate::config::mutant() {
        mutant::arm(&name).map_err(|wrong| anyhow::anyhow!("MEANWHILE_MUTANT: {wrong}"))?;
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let served = runtime.block_on(async {
        // Before anything is opened, so that an early signal is not lost.
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let reloading = reload::at_hangup(given.clone(), settings)?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = reloading => {}
            }
        };
        let listener = listen(config.listen)
            .with_context(|| format!("cannot listen on {}; --listen chooses another address", config.listen))?;
        crate::app::run(config, listener, shutdown).await
    });
    // Work on files may be cut off like by a crash: the next start goes on from there.
    runtime.shutdown_timeout(FILES_DEADLINE);
    served
}
