//! The file of the embedded store: opened, made if need be, and begun anew where a crash or a power cut has stopped
//! its making.
//!
//! Called by `embedded.rs`, and by `probe.rs` for what it would find. redb writes its mark into a new file last,
//! and refuses a file without it; so a first start that was broken off would keep the service from starting until
//! somebody removes the file. One that never got its mark and holds nothing behind its first page was never
//! committed to, and is emptied.

use redb::{Builder, Database, DatabaseError, StorageError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::Path;

/// What every finished file begins with.
const MARK: &[u8] = b"redb";
/// The first page has the head of the file; everything that was ever committed stands behind it.
const FIRST_PAGE: u64 = 4_096;
const READ_BUFFER: usize = 64 * 1024;

/// Opens the database in this file, which is made if missing.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    match Database::create(path) {
        Err(DatabaseError::Storage(StorageError::Io(_))) if is_unfinished(path).unwrap_or(false) => begin_anew(path),
        other => other,
    }
}

/// Whether the making of the file was broken off, before anything was committed to it.
pub(super) fn is_unfinished(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut first = Vec::new();
    Read::by_ref(&mut file).take(FIRST_PAGE).read_to_end(&mut first)?;
    if first.is_empty() || first.iter().take(MARK.len()).any(|&byte| byte != 0) {
        return Ok(false);
    }
    let mut bytes = vec![0; READ_BUFFER];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(true),
            n if bytes[..n].iter().any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

/// The lock keeps out who has come here too; it goes with the database.
fn begin_anew(path: &Path) -> Result<Database, DatabaseError> {
    let failed = |error: io::Error| DatabaseError::Storage(StorageError::from(error));
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(DatabaseError::DatabaseAlreadyOpen),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Ok(()) => {}
    }
    if is_unfinished(path).map_err(failed)? {
        file.set_len(0).map_err(failed)?;
        tracing::warn!(path = %path.display(), "begun anew: its making was broken off before anything was in it");
    }
    Builder::new().create_file(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::{ReadableDatabase, TableDefinition};
    use std::fs;

    const TABLE: TableDefinition<&str, u64> = TableDefinition::new("table");

    /// A new file as redb makes it, without its mark.
    fn unfinished(path: &Path) -> Vec<u8> {
        drop(Database::create(path).unwrap());
        let mut bytes = fs::read(path).unwrap();
        bytes[..FIRST_PAGE as usize][..9].fill(0);
        bytes[FIRST_PAGE as usize..].fill(0);
        bytes
    }

    #[test]
    fn a_file_whose_making_was_broken_off_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let head = unfinished(&path);
        for content in [head.clone(), vec![0; head.len()], vec![0; 3], Vec::new()] {
            fs::write(&path, &content).unwrap();
            let database = open(&path).unwrap();
            assert!(matches!(open(&path), Err(DatabaseError::DatabaseAlreadyOpen)), "{}", content.len());
            let transaction = database.begin_write().unwrap();
            transaction.open_table(TABLE).unwrap().insert("a", 1).unwrap();
            transaction.commit().unwrap();
            drop(database);
            let read = open(&path).unwrap().begin_read().unwrap();
            assert_eq!(read.open_table(TABLE).unwrap().get("a").unwrap().unwrap().value(), 1);
        }
    }

    #[test]
    fn a_file_with_anything_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut damaged = unfinished(&path);
        *damaged.last_mut().unwrap() = 1;
        for content in [damaged, b"something else".to_vec()] {
            fs::write(&path, &content).unwrap();
            let error = open(&path).unwrap_err().to_string();
            assert!(error.contains("magic number mismatch"), "{error}");
            assert!(fs::read(&path).unwrap() == content, "it is as it was");
        }
    }
}
