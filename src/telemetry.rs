//! The log: to standard error, levels by `--log` or `MEANWHILE_LOG`.
//!
//! Installed once by `cli/serve.rs`. What is logged, and that it is logged once, is up to those who
//! handle a failure.

use tracing_subscriber::EnvFilter;

/// Installs the log. `filter` is a level (`info`) or a list (`warn,meanwhile=debug`).
///
/// # Errors
/// If the filter cannot be read; the message says how one looks.
pub fn install(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| anyhow::anyhow!("\"{filter}\" is not a log filter ({e}): write a level such as info or debug"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    Ok(())
}
