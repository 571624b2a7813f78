//! Lines that a power cut has left with holes: a file system may bring the length of a file to the disk, and
//! later blocks of it, before the earlier ones. What was not there in time reads as zeros, which no line has.
//!
//! Called by `writer.rs` before it reads a tail that it has not written itself. Only what was not synced can have
//! a hole, so rows of such lines were never confirmed and are written again. Whole lines behind a hole are kept:
//! in files that earlier versions went on with they may have been confirmed. A half line at the end is
//! `disk.rs`'s.

use super::disk::{self, Disk};
use crate::sink::SinkError;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

const READ_BUFFER: usize = 64 * 1024;

/// Takes lines with holes out of a file that ends with a whole line, and keeps them in `*.torn` beside it. A file
/// whose header has one goes: nothing of it was ever synced.
pub(super) fn mend(disk: &Disk, path: &Path) -> Result<(), SinkError> {
    let Some(opened) = disk::open(path.to_owned())? else { return Ok(()) };
    let failed = |error: io::Error| disk::unavailable("repair", path, &error);
    if !has_hole(&opened.file).map_err(failed)? {
        return Ok(());
    }
    let torn_path = path.with_added_extension("torn");
    let (mut kept, mut torn) = (0, 0);
    disk::replace(disk, path, |out| {
        let mut torn_file = OpenOptions::new().append(true).create(true).open(&torn_path)?;
        let mut out = io::BufWriter::new(out);
        let mut lines = BufReader::with_capacity(READ_BUFFER, File::open(path)?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let without_header = kept == 0 && torn > 0;
            if without_header || memchr::memchr(0, &line).is_some() {
                torn += 1;
                torn_file.write_all(&line)?;
            } else {
                kept += 1;
                out.write_all(&line)?;
            }
            line.clear();
        }
        out.flush()
    })?;
    if kept == 0 {
        disk::remove(path)?;
    }
    tracing::warn!(
        path = %path.display(), lines = torn, kept = %torn_path.display(),
        "lines that were only half on the disk after a power cut were taken out; their rows were never confirmed \
         and are written again"
    );
    Ok(())
}

fn has_hole(mut file: &File) -> io::Result<bool> {
    let mut bytes = vec![0; READ_BUFFER];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(false),
            n if memchr::memchr(0, &bytes[..n]).is_some() => return Ok(true),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn check(content: &str, expected: Option<&str>, torn: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tail.csv");
        fs::write(&path, content).unwrap();
        mend(&Disk::REAL, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), expected);
        assert_eq!(fs::read_to_string(dir.path().join("tail.csv.torn")).ok().as_deref(), torn);
        let temporary = fs::read_dir(&dir)
            .unwrap()
            .filter(|entry| disk::is_temporary(entry.as_ref().unwrap().file_name().to_str().unwrap()));
        assert_eq!(temporary.count(), 0);
    }

    #[test]
    fn lines_with_holes_are_taken_out_and_kept() {
        check("head\na\nb\n", Some("head\na\nb\n"), None);
        check("head\na\n\0\0\0b\nc\n", Some("head\na\nc\n"), Some("\0\0\0b\n"));
        check("head\na\0b\nc\n\0\n", Some("head\nc\n"), Some("a\0b\n\0\n"));
        let long = "x".repeat(3 * READ_BUFFER);
        check(&format!("head\n{long}\n{long}\0\n"), Some(&format!("head\n{long}\n")), Some(&format!("{long}\0\n")));
    }

    #[test]
    fn a_file_without_a_header_was_never_synced() {
        check("\0\0ad\na\nb\n", None, Some("\0\0ad\na\nb\n"));
    }
}
