//! What the service tells its operators: the log to standard error, the metrics in `metrics.rs`, its
//! state to a service manager in `manager.rs`.
//!
//! Installed once by `cli/serve.rs`: levels by `--log`, lines or JSON records by `--log-format`;
//! `cli/reload.rs` changes the filter of a running service. What is logged, and that it is logged
//! once, is up to those who handle a failure; `attach.rs` adds to a line what is known of it elsewhere.

mod attach;
pub mod manager;
pub mod metrics;

pub use attach::attach;

use attach::Attaching;
use std::io::Write;
use std::str::FromStr;
use std::sync::OnceLock;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    /// One object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("\"{name}\" is neither text nor json")),
        }
    }
}

/// The target of what is said whatever the levels are.
const START: &str = "meanwhile::start";

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Puts another filter in the place of the installed one.
static CHANGE: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Installs the log. `filter` is a level (`info`) or a list (`warn,meanwhile=debug`); `noticing` sees every error,
/// whatever the filter, and before it is written.
///
/// # Errors
/// If the filter cannot be read; the message says how one looks.
pub fn install<L>(filter: &str, format: LogFormat, noticing: L) -> anyhow::Result<()>
where
    L: Layer<Registry> + Send + Sync,
{
    let (filter, handle) = reload::Layer::new(self::filter(filter)?);
    // Otherwise a line that nobody reads any more would be a panic, in the middle of a commit.
    let log = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(noticing.with_filter(LevelFilter::ERROR));
    match FORMAT.get_or_init(|| format) {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let log = log.with_ansi(colours).map_event_format(|format| Attaching::text(format.with_ansi(colours)));
            registry.with(log.with_filter(filter)).init();
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).map_event_format(Attaching::json);
            registry.with(log.with_filter(filter)).init();
        }
    }
    // Reloading fails only once the log is gone, at the end of the process.
    let _ = CHANGE.set(Box::new(move |filter| drop(handle.reload(filter))));
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
    let filter = EnvFilter::try_new(text)
        .map_err(|e| anyhow::anyhow!("\"{text}\" is not a log filter ({e}): write a level such as info or debug"))?;
    Ok(filter.add_directive(format!("{START}=info").parse()?))
}

/// Says something that whoever starts the service waits for, whatever the levels are: a line of its
/// own, or, so that a JSON log has nothing else in it, a record.
pub fn announce(line: &str) {
    match FORMAT.get() {
        Some(LogFormat::Json) => tracing::info!(target: START, "{line}"),
        // Whether anybody reads it makes no difference to the service.
        _ => drop(writeln!(std::io::stderr(), "{line}")),
    }
}
