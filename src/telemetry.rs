//! The log: to standard error, levels by `--log` or `MEANWHILE_LOG`.
//!
//! Installed once by `cli/serve.rs`; `cli/reload.rs` changes the filter of a running service. What is logged, and that it is logged once, is up to those who
//! handle a failure.

use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// Puts another filter in the place of the installed one.
static CHANGE: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Installs the log. `filter` is a level (`info`) or a list (`warn,meanwhile=debug`).
///
/// # Errors
/// If the filter cannot be read; the message says how one looks.
pub fn install(filter: &str) -> anyhow::Result<()> {
    let filter = self::filter(filter)?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // Otherwise a line that nobody reads any more would be a panic, in the middle of a commit.
        .log_internal_errors(false)
        .with_filter_reloading();
    let handle = log.reload_handle();
    // Fails only once the log is gone, at the end of the process.
    let _ = CHANGE.set(Box::new(move |filter| drop(handle.reload(filter))));
    log.init();
    Ok(())
}

/// Changes the filter of the installed log.
///
/// # Errors
/// As [`install`]; then the old filter stays.
pub fn change(filter: &str) -> anyhow::Result<()> {
    let filter = self::filter(filter)?;
    if let Some(change) = CHANGE.get() {
        change(filter);
    }
    Ok(())
}

/// Reads a filter.
///
/// # Errors
/// See [`install`].
pub fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(text)
        .map_err(|e| anyhow::anyhow!("\"{text}\" is not a log filter ({e}): write a level such as info or debug"))
}
