//! `meanwhile config`: the settings in force, in the form of the file they could stand in, each with
//! where it came from.
//!
//! Settings are put together in `config/layers.rs`. User and password of an address are masked.

use super::{Usage, output};
use crate::config::{Config, Effective, Given, LoadError};
use crate::telemetry::{self, LogFormat};

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile config
      The defaults, and what the environment has changed.
  meanwhile config --config meanwhile.toml > now.toml
      What a service with this file would run with, as a file.

Passwords are shown as ***. Exit status 2 if a setting is wrong.";

/// Prints the settings; then fails if one of them cannot be used.
pub fn run(given: &Given) -> anyhow::Result<()> {
    let settings = given.load().map_err(Usage::of)?;
    output::print(listing(&settings).as_bytes())?;
    for warning in &settings.warnings {
        output::note(&format!("warning: {warning}"));
    }
    validated(&settings).map_err(Usage::of)?;
    Ok(())
}

/// The configuration, filter and format of the log included.
pub(super) fn validated(settings: &Effective) -> Result<Config, LoadError> {
    log_format(settings)?;
    telemetry::filter(&settings.args.log).map_err(|error| settings.wrong("log", error.to_string()))?;
    settings.config()
}

pub(super) fn log_format(settings: &Effective) -> Result<LogFormat, LoadError> {
    settings.args.log_format.parse().map_err(|error| settings.wrong("log_format", error))
}

fn listing(settings: &Effective) -> String {
    let lines = settings.settings.iter().map(|setting| {
        let key = &setting.key;
        match (setting.shown(), &setting.read_from) {
            (None, _) => (format!("# {key} ="), "not set".to_owned()),
            // As a line of its own it would contradict the file it was read from.
            (Some(value), Some(path)) => (format!("# {key} = {}", quoted(value)), format!("in {}", path.display())),
            (Some(value), None) => (format!("{key} = {}", quoted(value)), setting.origin.to_string()),
        }
    });
    let lines: Vec<(String, String)> = lines.collect();
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = lines.iter().map(|(text, origin)| format!("{text:width$}  # {origin}\n")).collect();
    lines.concat()
}

fn quoted(value: String) -> String {
    toml::Value::String(value).to_string()
}
