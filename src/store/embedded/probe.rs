//! A look at the file of the embedded store, beside a service that may be running on it.
//!
//! Called by `meanwhile check`. Opens an existing file for reading only and makes none.

use super::{FILE, LAYOUT, tables};
use crate::store::probe::Probe;
use crate::store::{Durability, StoreError};
use redb::{DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTableMetadata, TableError};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

/// Its first start did not come far.
const UNFINISHED: &str = "empty, made ready at the next start";

/// Looks at the store in this directory. That the directory can be written is the caller's to see.
///
/// # Errors
/// If the file cannot be opened, is damaged or has another layout.
pub fn probe(directory: &Path) -> Result<Probe, StoreError> {
    let file = directory.join(FILE);
    let ok = |found: &str| Ok(Probe { found: found.to_owned(), durability: Durability::Disk, warnings: Vec::new() });
    match OpenOptions::new().read(true).write(true).open(&file) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return ok("new, made at the first start"),
        Err(error) => return Err(StoreError::Unavailable(format!("cannot open {}: {error}", file.display()))),
    }
    let database = match ReadOnlyDatabase::open(&file) {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => return ok("in use by a running meanwhile"),
        Err(DatabaseError::RepairAborted) => return ok("was not closed properly; the next start repairs it"),
        Err(_) if super::file::is_unfinished(&file).unwrap_or(false) => return ok(UNFINISHED),
        Err(error) => return Err(StoreError::Unavailable(format!("{}: {error}", file.display()))),
    };
    match look(&database) {
        Ok((Some(layout), _)) if layout != LAYOUT => Err(StoreError::Refused(format!(
            "{} has layout {layout}, this program needs {LAYOUT}: give it another directory, or use the program that made it",
            file.display(),
        ))),
        Ok((None, _)) => ok(UNFINISHED),
        Ok((_, open)) => ok(&format!("layout {LAYOUT}, {open} open buckets")),
        Err(error) => Err(StoreError::Unavailable(format!("{}: {error}", file.display()))),
    }
}

/// Layout and number of open buckets.
fn look(database: &ReadOnlyDatabase) -> Result<(Option<u64>, u64), redb::Error> {
    let transaction = database.begin_read()?;
    let layout = match transaction.open_table(tables::META) {
        Ok(meta) => meta.get("layout")?.map(|layout| layout.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let open = match transaction.open_table(tables::LIVES) {
        Ok(lives) => lives.len()?,
        Err(TableError::TableDoesNotExist(_)) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok((layout, open))
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::Database;

    #[test]
    fn another_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let check = |layout: Option<u64>, expected: Result<&str, &str>| {
            let database = Database::create(dir.path().join(FILE)).unwrap();
            if let Some(layout) = layout {
                let transaction = database.begin_write().unwrap();
                transaction.open_table(tables::META).unwrap().insert("layout", layout).unwrap();
                transaction.commit().unwrap();
            }
            drop(database);
            let said = probe(dir.path()).map(|probe| probe.found).map_err(|error| error.to_string());
            match expected {
                Ok(found) => assert_eq!(said.as_deref(), Ok(found)),
                Err(part) => assert!(said.as_ref().is_err_and(|error| error.contains(part)), "{said:?}"),
            }
        };
        std::fs::write(dir.path().join(FILE), [0; 5_000]).unwrap();
        assert_eq!(probe(dir.path()).unwrap().found, UNFINISHED, "without its mark");
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        check(None, Ok(UNFINISHED));
        check(Some(LAYOUT + 1), Err("has layout 2, this program needs 1"));
        check(Some(LAYOUT), Ok("layout 1, 0 open buckets"));
    }
}
