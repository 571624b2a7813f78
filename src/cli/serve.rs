//! `meanwhile serve`: validates the configuration, binds the listener, hands both to `app.rs`.
//!
//! SIGTERM and SIGINT are the stop signal; what start and stop mean is decided in `app.rs`.

use super::Usage;
use crate::config::{Config, ServeArgs};
use crate::telemetry;
use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile serve
      Needs nothing else: embedded store and CSV files under ./meanwhile-data, loopback only.
  meanwhile serve --store redis://127.0.0.1:6379 --periods 10s,1m,1h,1d
      Keeps the open buckets in Redis, where several instances can share them.
  meanwhile serve --listen 0.0.0.0:8080 --timezone Europe/Berlin --sink csv:/srv/statistics
      Listens on every interface; days begin at midnight in Berlin.
  MEANWHILE_STORE=redis://:PASSWORD@redis:6379 meanwhile serve
      Every flag is also an environment variable: the place for passwords.

Durations are written 250ms, 5s, 1m, 1h or 7d. SIGTERM or Ctrl-C stops the
service; what it has acknowledged stays in the store.";

/// Runs the service until it is told to stop.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let config = Config::try_from(args).map_err(|error| Usage(error.to_string()))?;
    telemetry::install(&args.log).map_err(|error| Usage(format!("--log: {error}")))?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        // Before anything is opened, so that an early signal is not lost.
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}; --listen chooses another address", config.listen))?;
        crate::app::run(config, listener, shutdown).await
    })
}
