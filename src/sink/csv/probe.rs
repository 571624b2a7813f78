//! A look at a directory of CSV files, beside a service that may be writing to it.
//!
//! Called by `meanwhile check`. Makes nothing and holds the lock for a moment only, shared, so that
//! several looks do not meet.

use super::LOCK_FILE;
use crate::sink::SinkError;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

/// Who has the directory, in a few words. That it can be written is the caller's to see.
///
/// # Errors
/// If the lock cannot be asked for.
pub fn probe(dir: &Path) -> Result<String, SinkError> {
    let path = dir.join(LOCK_FILE);
    let failed = |error| SinkError::Unavailable(format!("cannot lock {}: {error}", path.display()));
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok("not used yet".to_owned()),
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok("free".to_owned()),
        Err(TryLockError::WouldBlock) => Ok("in use by a running meanwhile".to_owned()),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
