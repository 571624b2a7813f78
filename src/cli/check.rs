//! `meanwhile check`: whether a service with these settings could run, part by part.
//!
//! Looks at the configuration, the store and the sink without changing them, also while a service is
//! running on them: the looks are in `store/*/probe.rs` and `sink/*/probe.rs`. All parts are looked
//! at before it fails.

use super::{Usage, config::validated, output};
use crate::auth::file::Entries;
use crate::config::{Config, Given, SinkUrl, StoreUrl, WrittenRules};
use crate::http::server::Tls;
use crate::sink::{SinkError, csv, postgres};
use crate::store::probe::Probe;
use crate::store::{StoreError, embedded, redis};
use anyhow::{Context, bail};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

pub const EXAMPLES: &str = "EXAMPLES:
  meanwhile check --config meanwhile.toml
      Before a start or a restart; it takes the flags and variables of serve.
  meanwhile check --store redis://127.0.0.1:6379
      What this Redis promises, and how to make it promise more.
  meanwhile check --sink-file /run/secrets/meanwhile-sink
      Whether this PostgreSQL has the schema, and the user the rights to write to it.

Changes nothing, and may be run beside a running service. Exit status: 0 it can run,
also with warnings; 1 the store or the sink cannot be used; 2 a setting is wrong.";

/// Prints a line for each part and for each warning.
pub fn run(given: &Given) -> anyhow::Result<()> {
    let settings = given.load().map_err(Usage::of)?;
    let config = validated(&settings).map_err(Usage::of)?;
    let given_count =
        settings.settings.iter().filter(|setting| setting.is_written() && setting.read_from.is_none()).count();
    let from = given.file().map_or_else(String::new, |path| format!("{}, ", path.display()));
    print("ok", &format!("configuration: {from}settings given: {given_count}"))?;
    for warning in &settings.warnings {
        print("warning", warning)?;
    }
    let mut unusable = Vec::new();
    if let Some(files) = config.encryption.as_ref().map(|encryption| &encryption.files) {
        match Tls::open(files) {
            Ok(_) => print("ok", &format!("certificate {}: its key is {}", files.cert.display(), files.key.display()))?,
            Err(reason) => {
                print("failed", &format!("certificate: {reason}"))?;
                unusable.push("the certificate");
            }
        }
    }
    match look_at_store(&config) {
        Ok(probe) => {
            print("ok", &format!("store {}: {}; durability {}", config.store, probe.found, probe.durability))?;
            for warning in probe.warnings {
                print("warning", &format!("store {}: {warning}", config.store))?;
            }
        }
        Err(error) => {
            print("failed", &format!("store {}: {error:#}", config.store))?;
            unusable.push("the store");
        }
    }
    match look_at_sink(&config) {
        Ok((found, warning)) => {
            print("ok", &format!("sink {}: {found}", config.sink))?;
            if let Some(warning) = warning {
                print("warning", &format!("sink {}: {warning}", config.sink))?;
            }
        }
        Err(error) => {
            print("failed", &format!("sink {}: {error:#}", config.sink))?;
            unusable.push("the sink");
        }
    }
    if let Some(path) = &config.auth_file {
        match Entries::read(path) {
            Ok((entries, warning)) => {
                print("ok", &format!("tokens {}: {} tokens and users", path.display(), entries.iter().count()))?;
                if let Some(warning) = warning {
                    print("warning", &format!("tokens: {warning}"))?;
                }
            }
            Err(error) => {
                print("failed", &format!("tokens: {error}"))?;
                unusable.push("the file of tokens");
            }
        }
    }
    if let Some(path) = &config.rules {
        match WrittenRules::read(path) {
            Ok((_, rules)) => print("ok", &format!("rules {}: {} of them", path.display(), rules.rules.len()))?,
            Err(error) => {
                print("failed", &format!("rules: {error}"))?;
                unusable.push("the rules");
            }
        }
    }
    if !unusable.is_empty() {
        bail!("{} cannot be used", unusable.join(" and "));
    }
    Ok(())
}

fn print(state: &str, what: &str) -> Result<(), output::OutputError> {
    output::print(format!("{state:8} {what}\n").as_bytes())
}

fn look_at_store(config: &Config) -> anyhow::Result<Probe> {
    match &config.store {
        StoreUrl::Embedded(directory) => {
            writable(directory)?;
            Ok(embedded::probe(directory)?)
        }
        StoreUrl::Redis(url) => {
            let probe = runtime()?.block_on(redis::probe(url.reveal(), config.acks));
            // The contract's words for what may be repeated say nothing here.
            probe.map_err(|error| match error {
                StoreError::Unavailable(reason) | StoreError::Unknown(reason) | StoreError::Refused(reason) => {
                    anyhow::anyhow!(reason)
                }
            })
        }
    }
}

/// What was found, and what should be known though it works.
fn look_at_sink(config: &Config) -> anyhow::Result<(String, Option<String>)> {
    if !config.role.has_sink() {
        return Ok(("not used, another instance has the sink (--role ingest)".to_owned(), None));
    }
    match &config.sink {
        SinkUrl::Csv(directory) => {
            let writable = writable(directory)?;
            Ok((format!("{writable}, {}", csv::probe(directory)?), None))
        }
        SinkUrl::Postgres(url) => {
            let probe = runtime()?.block_on(postgres::probe(url.reveal()));
            probe.map(|probe| (probe.found, probe.warning)).map_err(|error| match error {
                SinkError::Unavailable(reason) | SinkError::Refused(reason) => anyhow::anyhow!(reason),
            })
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

/// Whether files can be made in a directory, or the directory itself; tried, since only the attempt
/// knows about read-only mounts and access lists. What was made is removed again.
fn writable(directory: &Path) -> anyhow::Result<&'static str> {
    let (place, answer) = match existing(directory) {
        Some(place) if place == directory => (place, "writable"),
        Some(place) => (place, "made at the first start"),
        None => (Path::new("."), "made at the first start"),
    };
    let trial = place.join(format!(".check-{}.tmp", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&trial);
    // A service that starts just now may remove it first.
    made.map(|_| drop(fs::remove_file(&trial))).map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => anyhow::anyhow!("{} is not a directory", place.display()),
        _ => anyhow::anyhow!("cannot write to {}: {error}", place.display()),
    })?;
    Ok(answer)
}

/// The directory, or what of the way to it exists.
fn existing(directory: &Path) -> Option<&Path> {
    directory.ancestors().find(|place| !place.as_os_str().is_empty() && place.exists())
}
