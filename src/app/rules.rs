//! The file of rules that a service is given: applied where there are none, and read again at SIGHUP.
//!
//! A part of `app.rs`. A file that is wrong keeps a service from starting, and changes nothing of one that runs.

use crate::config::{RulesError, WrittenRules};
use crate::incidents;
use crate::store::rules::Book;
use anyhow::Context;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Applies the file if the store has no rules.
pub(super) async fn begin(path: &Path, book: &Book) -> anyhow::Result<()> {
    let written = read(path.to_owned()).await.context("--rules")?;
    let version = book.current().number();
    if version == 0 {
        let (version, _) = book.change(&written).await.context("--rules: cannot apply it")?;
        tracing::info!("{} is version {} of the rules", path.display(), version.number);
    } else {
        let file = path.display();
        tracing::info!("the store has version {version} of the rules; {file} is applied at SIGHUP, if it differs");
    }
    Ok(())
}

/// Reads the file again at each SIGHUP and applies what has changed; never ready.
///
/// # Errors
/// If the system does not let us listen for the signal.
pub(super) fn keep_up(path: PathBuf, book: Arc<Book>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            match again(path.clone(), &book).await {
                Ok(said) => tracing::info!("rules read again: {said}"),
                // Whoever has written the file caused it, but nobody else tells him.
                Err(error) => tracing::error!("the old rules stay: {error:#}"),
            }
        }
    })
}

async fn again(path: PathBuf, book: &Book) -> anyhow::Result<String> {
    let (version, changed) = book.change(&read(path).await?).await?;
    Ok(if changed { format!("they are version {}", version.number) } else { "nothing has changed".to_owned() })
}

async fn read(path: PathBuf) -> anyhow::Result<WrittenRules> {
    let read = incidents::blocking(move || WrittenRules::read(&path)).await.context("the file was not read")?;
    Ok(read.map(|(written, _)| written).map_err(|error: RulesError| error)?)
}
