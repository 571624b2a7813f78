//! Secrets that stand in files of their own, as service managers and orchestrators hand them over.
//!
//! Called by `layers.rs` for every key that has a `_file` beside it. What a file holds is never in an
//! error or a warning.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// No address is longer; more means that the path leads to something else.
const MAX_BYTES: u64 = 4_096;
/// What anybody but the owner may do with a file.
const OTHERS: u32 = 0o077;

/// Reads the one line of a file; the newline at its end is not part of the secret.
///
/// # Errors
/// A reason that names the path.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() || secret.contains(['\n', '\r']) || text.len() as u64 > MAX_BYTES {
        return Err(format!("{} must hold one line of at most {MAX_BYTES} bytes", path.display()));
    }
    Ok(secret.to_owned())
}

/// A warning if others than its owner can read a file that holds a secret.
#[must_use]
pub fn warn_if_open(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & OTHERS != 0).then(|| {
        format!(
            "{path} holds a secret and has mode {mode:04o}: chmod 600 {path} keeps others out",
            path = path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_without_its_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let check = |content: &str, expected: Option<&str>| {
            fs::write(&path, content).unwrap();
            let read = read(&path);
            assert_eq!(read.as_deref().ok(), expected, "{content:?}");
            assert!(!read.is_err_and(|error| error.contains("hush")), "{content:?}");
        };
        check("hush", Some("hush"));
        check("hush\n", Some("hush"));
        check("hush\r\n", Some("hush"));
        check("hush \n", Some("hush "));
        check("", None);
        check("\n", None);
        check("hush\n\n", None);
        check("hush\nhush\n", None);
        check(&"x".repeat(4_096), Some(&"x".repeat(4_096)));
        check(&"x".repeat(4_097), None);
        fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap_err().contains("secret: No such file"));
    }

    #[test]
    fn files_others_can_read_are_warned_about() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "hush").unwrap();
        let check = |mode: u32, warned: bool| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(warn_if_open(&path).is_some(), warned, "{mode:o}");
        };
        check(0o600, false);
        check(0o400, false);
        check(0o640, true);
        check(0o604, true);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let warning = warn_if_open(&path).unwrap();
        assert!(warning.contains("mode 0644: chmod 600 /") && !warning.contains("hush"), "{warning}");
    }
}
