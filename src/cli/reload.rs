//! SIGHUP: the settings of a running service are read again, and what can change does.
//!
//! Called by `serve.rs`. Only the log filter can; any other change is reported as needing a restart.
//! A file that is wrong changes nothing. Without `--config` there is nothing to read again, and
//! SIGHUP does what it does to any program: it ends it when its terminal goes, unless under nohup.

use super::config::validated;
use crate::config::{Effective, Given, LoadError};
use crate::telemetry;
use anyhow::Context;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Reads the settings again at each SIGHUP; never ready.
///
/// # Errors
/// If the system does not let us listen for the signal.
pub(super) fn at_hangup(given: Given, mut running: Effective) -> anyhow::Result<impl Future<Output = ()>> {
    let hangup = given.file().is_some().then(|| signal(SignalKind::hangup()));
    let hangup = hangup.transpose().context("cannot listen for SIGHUP")?;
    Ok(async move {
        let Some(mut hangup) = hangup else { return std::future::pending().await };
        while hangup.recv().await.is_some() {
            telemetry::manager::reloading();
            match reload(&given, &mut running) {
                Ok(said) => tracing::info!("configuration read again: {said}"),
                Err(error) => tracing::error!("the old configuration stays: {error}"),
            }
            telemetry::manager::reloaded();
        }
        std::future::pending::<()>().await;
    })
}

/// Takes over what can change, and says what did. `running` is what the service runs with.
fn reload(given: &Given, running: &mut Effective) -> Result<String, LoadError> {
    let read = given.load()?;
    validated(&read)?;
    let mut said = Vec::new();
    let mut waiting = Vec::new();
    for setting in read.changed(running) {
        if setting.key == "log" {
            said.push(format!("log is now {}", read.args.log));
        } else {
            waiting.push(setting.key.as_str());
        }
    }
    if !waiting.is_empty() {
        said.push(format!("restart the service for: {}", waiting.join(", ")));
    }
    if said.is_empty() {
        said.push("nothing has changed".to_owned());
    }
    telemetry::change(&read.args.log).map_err(|error| read.wrong("log", error.to_string()))?;
    running.take(&read, "log");
    Ok(said.join("; "))
}
