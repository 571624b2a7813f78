//! The sink on CSV files: a directory per period and local date that people and their tools read as it
//! is (docs/csv.md).
//!
//! Implements the contract of `sink/mod.rs` for `rollover.rs`, `query/` and `cli/copy.rs`. All file work runs on
//! blocking threads: one writer behind a mutex (`csv/writer.rs`); readers hold it only while they
//! open files, which appending and compacting then cannot change for them. One process per
//! directory. `csv/line.rs` has the form of a line, `csv/partition.rs` the names, `csv/index.rs` where
//! lines stand, `csv/disk.rs` and `csv/holes.rs` what happens when a disk or its power fails, `csv/compact.rs` the final form, `csv/forget.rs` how a source goes.

mod aside;
mod catalogue;
mod compact;
mod disk;
mod forget;
mod holes;
mod index;
mod line;
mod offer;
mod partition;
mod probe;
mod recent;
mod retain;
mod scan;
#[cfg(test)]
mod tests;
mod unsynced;
mod writer;

pub use probe::probe;

use super::{Partition, RowPage, RowQuery, Sink, SinkError, WriteReport};
use crate::incidents;
use crate::stats::Millis;
use crate::stats::calendar::{Period, Zone};
use crate::stats::row::{LifeRow, Row};
use crate::stats::source::SourceSpan;
use catalogue::Catalogue;
use disk::Disk;
use index::Newest;
use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use writer::Writer;

/// Held by the process that has the directory.
const LOCK_FILE: &str = ".lock";
/// The zone by whose dates the directories are named; kept when the service's zone changes, because
/// the rows of a bucket must be found where they were written.
const ZONE_FILE: &str = ".zone";
const SOURCES_FILE: &str = "sources.csv";

/// The CSV sink in one directory. Clones of the handle do not exist: dropping it frees the directory.
#[derive(Debug)]
pub struct CsvSink {
    root: PathBuf,
    identity: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    /// Held during a compaction or a removal, which hold the writer only now and then.
    compaction: Mutex<()>,
    /// The lock goes when this is dropped, after the last blocking work.
    _lock: File,
}

impl CsvSink {
    /// Opens a directory, creating it if need be, and repairs what a crash left.
    ///
    /// `zone` names the directories by date, unless the directory was begun in another one.
    ///
    /// # Errors
    /// `Refused` if another process has the directory, if it cannot be created, or if a file in it is damaged
    /// of which nothing else tells the sources.
    pub fn open(dir: &Path, zone: Zone) -> Result<Self, SinkError> {
        create_directory(dir)?;
        let lock = lock_directory(dir)?;
        let zone = directory_zone(dir, zone)?;
        let mut writer = Writer::new(dir.to_owned(), zone);
        recover(&mut writer)?;
        let shared = Shared { writer: Mutex::new(writer), compaction: Mutex::new(()), _lock: lock };
        Ok(Self { root: dir.to_owned(), identity: identity(dir), shared: Arc::new(shared) })
    }

    /// Runs file work on a thread that may block. It goes on to its end should the caller not wait.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let shared = Arc::clone(&self.shared);
        match incidents::blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(_) => Err(SinkError::Unavailable("the program is stopping".to_owned())),
        }
    }
}

/// The directory as the running kernel knows it: what the lock in it protects from others. Where that
/// cannot be found out, an identity that nothing else has.
fn identity(dir: &Path) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    if let Ok((boot, directory)) = boot.and_then(|boot| Ok((boot, fs::metadata(dir)?))) {
        return format!("{}:{}:{}", boot.trim(), directory.dev(), directory.ino());
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

#[async_trait::async_trait]
impl Sink for CsvSink {
    fn name(&self) -> String {
        format!("csv:{}", self.root.display())
    }

    fn exclusive(&self) -> Option<String> {
        Some(self.identity.clone())
    }

    async fn write(&self, lives: Vec<LifeRow>) -> Result<WriteReport, SinkError> {
        self.blocking(move |shared| lock(&shared.writer).write(lives)).await
    }

    async fn put(&self, rows: Vec<Row>) -> Result<WriteReport, SinkError> {
        self.blocking(move |shared| lock(&shared.writer).write(rows)).await
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, SinkError> {
        let query = query.clone();
        self.blocking(move |shared| rows(&shared.writer, &query)).await
    }

    async fn scan(&self, after: Option<&str>, limit: usize) -> Result<RowPage, SinkError> {
        let after = after.map(str::to_owned);
        self.blocking(move |shared| scan::scan(&shared.writer, after.as_deref(), limit)).await
    }

    async fn sources(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<SourceSpan>, SinkError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |shared| Ok(lock(&shared.writer).catalogue.spans(&prefix, after.as_deref(), limit))).await
    }

    async fn compactable(&self, now: Millis) -> Result<Vec<Partition>, SinkError> {
        self.blocking(move |shared| {
            let writer = lock(&shared.writer);
            let over = writer.tails.iter().filter(|dir| dir.end(&writer.zone) <= now);
            Ok(over.map(|dir| dir.partition(&writer.zone)).collect())
        })
        .await
    }

    async fn compact(&self, partition: &Partition) -> Result<(), SinkError> {
        let partition = partition.clone();
        self.blocking(move |shared| {
            let _one_at_a_time = lock(&shared.compaction);
            compact::compact(&shared.writer, &partition)
        })
        .await
    }

    async fn forget(&self, source: &str) -> Result<usize, SinkError> {
        let source = source.to_owned();
        self.blocking(move |shared| {
            let _one_at_a_time = lock(&shared.compaction);
            forget::forget(&shared.writer, &source)
        })
        .await
    }

    async fn retain(&self, period: Period, before: Millis) -> Result<usize, SinkError> {
        self.blocking(move |shared| {
            let _one_at_a_time = lock(&shared.compaction);
            retain::retain(&shared.writer, period, before)
        })
        .await
    }
}

/// A panic while a lock is held is a bug that ends the process; nobody goes on with half a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panicked in the sink")
}

fn rows(writer: &Mutex<Writer>, query: &RowQuery) -> Result<Vec<Row>, SinkError> {
    let sources: HashSet<&str> = query.sources.iter().map(|source| &**source).collect();
    let in_range = |start: Millis| query.from <= start && start < query.to;
    let (root, zone) = {
        let writer = lock(writer);
        (writer.root.clone(), writer.zone.clone())
    };
    let mut newest = Newest::first(query.limit, query.doubles);
    let mut covered = Millis::MIN;
    for dir in if sources.is_empty() { Vec::new() } else { partition::list(&root, query.period)? } {
        let partition = dir.partition(&zone);
        if partition.to <= query.from || query.to <= partition.from {
            continue;
        }
        if newest.is_full() && covered <= partition.from {
            break;
        }
        covered = partition.to;
        let (files, lines) = lock(writer).view(dir, query.from, query.to)?;
        files.read(
            &lines,
            |source| sources.contains(source),
            |row| {
                if in_range(row.bucket.start) {
                    newest.put(row);
                }
            },
        )?;
    }
    Ok(newest.into_rows().collect())
}

/// Creates a directory and what is missing above it, durable when it returns.
fn create_directory(dir: &Path) -> Result<(), SinkError> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    fs::create_dir_all(dir).map_err(|error| refused("create", dir, &error))?;
    for parent in missing.iter().filter_map(|path| path.parent()) {
        disk::sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(())
}

/// Takes the directory for this process, until the file is dropped.
fn lock_directory(dir: &Path) -> Result<File, SinkError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => SinkError::Refused(format!(
            "{} cannot be written: {error}; even to be read it is locked first, and repaired if a crash left something \
             half done: make it writable, or name another directory, such as a copy of it (cp -a)",
            path.display()
        )),
        _ => refused("open", &path, &error),
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SinkError::Refused(format!(
            "another meanwhile uses {}: stop it, or choose another directory",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(refused("lock", &path, &error)),
    }
}

/// The zone by whose dates the directories of a sink are named; `None` if no sink was ever there.
///
/// # Errors
/// `Refused` if that cannot be read.
pub fn begun_in(dir: &Path) -> Result<Option<Zone>, SinkError> {
    let path = dir.join(ZONE_FILE);
    match fs::read_to_string(&path) {
        Ok(name) => match name.trim().parse() {
            Ok(zone) => Ok(Some(zone)),
            Err(error) => Err(SinkError::Refused(format!("{}: {error}", path.display()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused("read", &path, &error)),
    }
}

/// The zone the directory was begun in; `zone` for a new one.
fn directory_zone(dir: &Path, zone: Zone) -> Result<Zone, SinkError> {
    let Some(begun_in) = begun_in(dir)? else {
        disk::replace(&Disk::REAL, &dir.join(ZONE_FILE), |file| writeln!(file, "{zone}"))?;
        return Ok(zone);
    };
    if begun_in != zone {
        tracing::warn!(
            dir = %dir.display(), %begun_in, %zone,
            "the date directories keep the time zone they were begun in; only their names depend on it"
        );
    }
    Ok(begun_in)
}

/// Removes what was half made, repairs tails, and learns the sources.
fn recover(writer: &mut Writer) -> Result<(), SinkError> {
    let root = writer.root.clone();
    let dirs = partition::list_all(&root)?;
    for path in dirs.iter().map(|dir| dir.path(&root)).chain([root.clone()]) {
        for name in partition::names(&path)?.iter().filter(|name| disk::is_temporary(name)) {
            disk::remove(&path.join(name))?;
        }
    }
    let path = root.join(SOURCES_FILE);
    let known = disk::open(path.clone())?.map(|opened| Catalogue::read(&opened));
    let removing = !partition::list_set_aside(&root)?.is_empty();
    let complete = matches!(known, Some(Ok(_))) && !removing;
    let mut told = None;
    match known {
        Some(Ok(catalogue)) if removing => {
            tracing::warn!(path = %path.display(), "made anew: a removal was interrupted");
            told = Some(catalogue);
        }
        Some(Ok(catalogue)) => writer.catalogue = catalogue,
        Some(Err(reason)) => tracing::warn!(path = %path.display(), reason, "made anew from all rows"),
        None => {}
    }
    for dir in dirs {
        let has_tail = disk::id(&dir.path(&root).join(index::Part::Tail.file_name()))?.is_some();
        if complete && !has_tail {
            continue;
        }
        match (writer.load(dir).map(drop), &told) {
            // What is in its final form was told of: no source is lost by going on.
            (Err(error), Some(told)) if !has_tail => {
                writer.log_unread(dir, &error);
                let times = dir.partition(&writer.zone);
                writer.catalogue.add_unread(told, &times);
            }
            (loaded, _) => loaded?,
        }
        // In its final form: it was read for its sources, and is hardly written to.
        if !writer.tails.contains(&dir) {
            writer.forget(dir);
        }
    }
    // As long as it is not written, or a directory is left, the next start makes it anew as well.
    if !complete && let Err(error) = retain::finish(&writer.disk, &root, &writer.catalogue.to_bytes()) {
        tracing::error!("what is left of an earlier removal stays for now: {error}");
    }
    Ok(())
}

fn refused(action: &str, path: &Path, error: &io::Error) -> SinkError {
    SinkError::Refused(format!("cannot {action} {}: {error}; choose another directory", path.display()))
}
