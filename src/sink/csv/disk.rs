//! What the CSV sink does to files so that a full disk, a failed fsync or a crash costs no row.
//!
//! Called by `writer.rs` (append, repair), `unsynced.rs` (sync), `compact.rs` and `catalogue.rs` (replace). Every file is
//! opened for one step and closed again. A write that came short is taken back; a file whose fsync
//! failed is never synced again, since a second fsync may succeed with the data gone: what was
//! durable before is copied into a new file. What the bytes mean is in `line.rs`.

use crate::failpoint;
use crate::mutant;
use crate::sink::SinkError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How far back a look for the end of the last whole line goes in one step; lines are below 2 kB.
const LOOK_BACK: u64 = 64 * 1024;

const TEMPORARY: &str = "tmp";

/// Calls that fail when a disk is full or broken; tests put failing ones here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    pub(super) append: fn(&mut File, &[u8]) -> io::Result<()>,
    pub(super) sync: fn(&File) -> io::Result<()>,
    /// Of what is no longer kept.
    pub(super) remove: fn(&Path) -> io::Result<()>,
}

impl Disk {
    pub(super) const REAL: Self = Self {
        append: |file, bytes| file.write_all(bytes),
        sync: File::sync_data,
        remove: |path| if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) },
    };
}

/// Which file a path led to, and how long it was: another file or length means another hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
    pub(super) len: u64,
}

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|meta| Self { dev: meta.dev(), ino: meta.ino(), len: meta.len() })
    }
}

/// A file opened for reading.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) id: FileId,
}

/// Opens a file for reading; `None` if there is none.
pub(super) fn open(path: PathBuf) -> Result<Option<Opened>, SinkError> {
    match File::open(&path).and_then(|file| Ok((FileId::of(&file)?, file))) {
        Ok((id, file)) => Ok(Some(Opened { path, file, id })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable("open", &path, &error)),
    }
}

/// The identity of the file at a path; `None` if there is none.
pub(super) fn id(path: &Path) -> Result<Option<FileId>, SinkError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(FileId { dev: meta.dev(), ino: meta.ino(), len: meta.len() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable("look at", path, &error)),
    }
}

/// Appends bytes to the file last seen as `known`, or to a new one; they are durable after [`sync`]. After an
/// error the file is as it was, as far as that could be done; a reload repairs the rest.
pub(super) fn append(disk: &Disk, path: &Path, known: Option<FileId>, bytes: &[u8]) -> Result<FileId, SinkError> {
    let failed = |error: &io::Error| unavailable("write", path, error);
    let mut file = OpenOptions::new().append(true).create_new(known.is_none()).open(path).map_err(|e| failed(&e))?;
    if known.is_some() && known != Some(FileId::of(&file).map_err(|e| failed(&e))?) {
        return Err(failed(&io::Error::other("it was replaced or changed by another program")));
    }
    let good = known.map_or(0, |id| id.len);
    if failpoint::reached("rows-torn") {
        let _ = file.write_all(&bytes[..bytes.len() / 2]);
        failpoint::die();
    }
    if let Err(error) = (disk.append)(&mut file, bytes) {
        // A full disk writes a part first and says so second.
        let taken_back = if good == 0 { fs::remove_file(path) } else { file.set_len(good) };
        if let Err(second) = taken_back {
            tracing::warn!(path = %path.display(), error = %second, "a part of a failed write stays until it is repaired");
        }
        return Err(failed(&error));
    }
    failpoint::pass("rows-appended");
    FileId::of(&file).map_err(|e| failed(&e))
}

/// Makes what was appended to a file durable. After an error it may or may not be on the disk: the file is not to
/// be synced again.
pub(super) fn sync(disk: &Disk, path: &Path) -> Result<(), SinkError> {
    File::open(path).and_then(|file| (disk.sync)(&file)).map_err(|error| unavailable("sync", path, &error))
}

/// Puts the first `good` bytes of a file into a new one in its place, since its own fsync failed.
pub(super) fn renew(disk: &Disk, path: &Path, good: u64) -> Result<(), SinkError> {
    if good == 0 {
        return remove(path);
    }
    let copy = |out: &mut File| io::copy(&mut File::open(path)?.take(good), out).map(drop);
    replace(disk, path, copy)
}

/// Writes a file beside `path` and puts it in its place in one step, durable when it returns.
pub(super) fn replace(
    disk: &Disk,
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), SinkError> {
    let temporary = temporary(path);
    create(disk, &temporary, write)?;
    rename(&temporary, path)
}

/// Writes a new file and syncs it; a failure leaves none.
pub(super) fn create(
    disk: &Disk,
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), SinkError> {
    let written = File::create(path).and_then(|mut file| {
        write(&mut file)?;
        (disk.sync)(&file)
    });
    written.map_err(|error| {
        // What cannot be removed now is removed at the next start.
        let _ = fs::remove_file(path);
        unavailable("write", path, &error)
    })
}

/// The name under which the successor of a file is written; no `*.csv`, so that no tool reads it.
pub(super) fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension(TEMPORARY)
}

pub(super) fn is_temporary(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == TEMPORARY)
}

/// Renames, and makes it durable.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), SinkError> {
    fs::rename(from, to).map_err(|error| unavailable("rename", from, &error))?;
    failpoint::pass("renamed");
    sync_dir(to.parent().expect("a file stands in a directory"))
}

/// Removes a file, and makes it durable.
pub(super) fn remove(path: &Path) -> Result<(), SinkError> {
    fs::remove_file(path).map_err(|error| unavailable("remove", path, &error))?;
    failpoint::pass("removed");
    sync_dir(path.parent().expect("a file stands in a directory"))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), SinkError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| unavailable("sync", path, &error))
}

/// How long the whole lines of a file are.
pub(super) fn whole_lines(opened: &Opened) -> Result<u64, SinkError> {
    let find = || -> io::Result<u64> {
        let mut file = &opened.file;
        let mut to = opened.id.len;
        let mut bytes = Vec::new();
        while to > 0 {
            let from = to.saturating_sub(LOOK_BACK);
            bytes.clear();
            file.seek(SeekFrom::Start(from))?;
            file.take(to - from).read_to_end(&mut bytes)?;
            if let Some(at) = memchr::memrchr(b'\n', &bytes) {
                return Ok(from + at as u64 + 1);
            }
            to = from;
        }
        Ok(0)
    };
    find().map_err(|error| unavailable("read", &opened.path, &error))
}

/// Cuts off what a crash left of a last line; the bytes are kept in `*.torn` beside the file. A file
/// without a whole line goes.
pub(super) fn repair(path: &Path) -> Result<(), SinkError> {
    let Some(opened) = open(path.to_owned())? else { return Ok(()) };
    let (good, len) = (whole_lines(&opened)?, opened.id.len);
    if good == len && len > 0 || mutant::is(mutant::TORN_TAIL_NOT_CUT) {
        return Ok(());
    }
    let torn_path = path.with_added_extension("torn");
    let cut = || -> io::Result<()> {
        let mut torn = Vec::new();
        (&opened.file).seek(SeekFrom::Start(good))?;
        (&opened.file).read_to_end(&mut torn)?;
        torn.push(b'\n');
        OpenOptions::new().append(true).create(true).open(&torn_path)?.write_all(&torn)?;
        if good == 0 { fs::remove_file(path) } else { OpenOptions::new().write(true).open(path)?.set_len(good) }
    };
    cut().map_err(|error| unavailable("repair", path, &error))?;
    tracing::warn!(
        path = %path.display(), bytes = len - good, kept = %torn_path.display(),
        "a torn last line was cut off; its row was never confirmed and is written again"
    );
    Ok(())
}

/// The error for what a file did not let us do.
pub(super) fn unavailable(action: &str, path: &Path, error: &io::Error) -> SinkError {
    SinkError::Unavailable(format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_repair(content: &[u8], expected: Option<&[u8]>, torn: Option<&[u8]>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tail.csv");
        fs::write(&path, content).unwrap();
        repair(&path).unwrap();
        assert_eq!(fs::read(&path).ok().as_deref(), expected);
        assert_eq!(fs::read(dir.path().join("tail.csv.torn")).ok().as_deref(), torn);
    }

    #[test]
    fn torn_lines_are_cut_off_and_kept() {
        check_repair(b"a\nb\n", Some(b"a\nb\n"), None);
        check_repair(b"a\nb\nc", Some(b"a\nb\n"), Some(b"c\n"));
        check_repair(b"sour", None, Some(b"sour\n"));
        check_repair(b"", None, Some(b"\n"));
        let long = vec![b'x'; 3 * LOOK_BACK as usize];
        check_repair(&[b"a\n", &long[..]].concat(), Some(b"a\n"), Some(&[&long[..], b"\n"].concat()));
    }

    #[test]
    fn a_file_another_program_changed_is_not_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tail.csv");
        let known = append(&Disk::REAL, &path, None, b"a\n").unwrap();
        assert!(matches!(append(&Disk::REAL, &path, None, b"b\n"), Err(SinkError::Unavailable(_))), "it exists");
        fs::write(dir.path().join("other"), b"a\n").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert!(matches!(append(&Disk::REAL, &path, Some(known), b"b\n"), Err(SinkError::Unavailable(_))), "replaced");
        fs::remove_file(&path).unwrap();
        assert!(matches!(append(&Disk::REAL, &path, Some(known), b"b\n"), Err(SinkError::Unavailable(_))), "removed");
    }
}
