//! The file of tokens and users: what it says, how it is read, how it is changed.
//!
//! Read by `auth.rs` while the service runs, changed by `meanwhile token` (`cli/token.rs`). It holds no secret in clear:
//! of a token its SHA-256, of a password a slow hash. A change is a new file in the place of the old one, complete or
//! not at all, with the owner and the mode of the old one; those who change it at the same time wait for each other.

use super::allowance::Limits;
use super::identity::{Allowed, Identity, Proof, Scope};
use super::password;
use super::token::Digest;
use crate::stats::Millis;
use crate::stats::calendar::Zone;
use crate::stats::timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// 100,000 tokens; more means that the path leads to something else.
const MAX_BYTES: u64 = 64 << 20;
/// Longest name, in characters.
pub const MAX_NAME: usize = 64;
const MODE: u32 = 0o600;
const HEADER: &str = "# Who may do what. Written by `meanwhile token`, which keeps no comments; a running service reads it again when it changes.\n\n";

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot write {path}: {error}")]
    Write { path: PathBuf, error: io::Error },
    /// Somebody else could add a token for himself.
    #[error("others than its owner can write {path} (mode {mode:04o}): chmod 600 {path} keeps them out", path = .path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{place}: {reason}")]
    Wrong { place: String, reason: String },
}

/// All that stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    #[serde(default, rename = "token", skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Entry>,
    #[serde(default, rename = "user", skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Entry>,
}

/// One token or user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub id: String,
    pub name: String,
    /// Of a token: SHA-256, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Of a user: Argon2, as PHC string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    pub scopes: Vec<Scope>,
    /// Not there: all of them; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Readings per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_new_sources: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

impl Entries {
    /// Reads the file, and warns if others can read it.
    ///
    /// # Errors
    /// If it cannot be read, could be written by others, or says something that has no meaning.
    pub fn read(path: &Path) -> Result<(Self, Option<String>), FileError> {
        let failed = |error| FileError::Read { path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(FileError::Open { path: path.to_owned(), mode });
        }
        if about.len() > MAX_BYTES || !about.is_file() {
            return Err(failed(io::Error::other("it is not a file of tokens")));
        }
        let text = io::read_to_string(file).map_err(failed)?;
        let entries = Self::parse(&text).map_err(|(line, reason)| {
            let place = line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()));
            FileError::Wrong { place, reason }
        })?;
        let shown = path.display();
        let warning = (mode & 0o044 != 0).then(|| {
            format!("others than its owner can read {shown} (mode {mode:04o}): chmod 600 {shown} keeps them out")
        });
        Ok((entries, warning))
    }

    /// An error is the line, if it is known, and the reason; it quotes nothing of what is meant to be a hash.
    fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
        let entries: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            (line, error.message().to_owned())
        })?;
        entries.identities().map_err(|reason| (None, reason))?;
        Ok(entries)
    }

    /// What all entries stand for.
    ///
    /// # Errors
    /// Names the entry that has no meaning.
    pub(super) fn identities(&self) -> Result<Vec<(Identity, Limits)>, String> {
        let mut taken = HashSet::new();
        let tokens = self.tokens.iter().map(|entry| (entry, "token", false));
        let users = self.users.iter().map(|entry| (entry, "user", true));
        tokens
            .chain(users)
            .map(|(entry, kind, is_user)| {
                let named = |reason: String| format!("{kind} {:?}: {reason}", entry.name);
                // A name stands for an id too, where one of them is wanted.
                if !taken.insert(&entry.name) || !taken.insert(&entry.id) {
                    return Err(named("there is another with this name or id".to_owned()));
                }
                entry.identity(is_user).map_err(named)
            })
            .collect()
    }

    /// Tokens and users.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.tokens.iter().chain(&self.users)
    }

    /// Changes the file: reads it, lets `change` do it, and puts a new one into its place. A file that is not there is
    /// made.
    ///
    /// # Errors
    /// If it cannot be read or written, or has no meaning before or after; then it is as it was.
    pub fn change<T>(path: &Path, change: impl FnOnce(&mut Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let failed = |error| FileError::Write { path: path.to_owned(), error };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The file itself is another one after each change.
        let guarded = File::open(directory).and_then(|directory| directory.lock().map(|()| directory));
        let guarded = guarded.map_err(failed)?;
        let old = match fs::metadata(path) {
            Ok(about) => Some(about),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error).into()),
        };
        let mut entries = if old.is_some() { Self::read(path)?.0 } else { Self::default() };
        let done = change(&mut entries)?;
        entries.identities().map_err(anyhow::Error::msg)?;
        let text = toml::to_string(&entries)?;
        let text = format!("{HEADER}{text}");
        replace(path, old.as_ref(), &text).map_err(failed)?;
        // So that it is this file that is there after a loss of power.
        guarded.sync_all().map_err(failed)?;
        Ok(done)
    }
}

/// Puts a new file into the place of the old one, which is complete at any time.
fn replace(path: &Path, old: Option<&fs::Metadata>, text: &str) -> io::Result<()> {
    // What a link leads to is replaced, not the link.
    let path = if old.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
    let mut name = path.file_name().ok_or_else(|| io::Error::other("it has no name"))?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // Of a change that was broken off; nobody else is here.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(MODE).open(&new)?;
    let written = (|| {
        if let Some(old) = old {
            // The service may run as another user than the one who changes this.
            let about = file.metadata()?;
            if (about.uid(), about.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & 0o777))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    if written.is_err() {
        // What is left of it would only be in the way.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Why something cannot be a name: it stands in channels, in the log and on command lines.
///
/// # Errors
/// What a name is made of.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('-') {
        return Ok(());
    }
    Err(format!("a name is 1 to {MAX_NAME} of the characters a-z, A-Z, 0-9, - _ . @ and does not begin with -"))
}

impl Entry {
    fn identity(&self, is_user: bool) -> Result<(Identity, Limits), String> {
        check_name(&self.name)?;
        if self.id.is_empty() || self.id.len() > MAX_NAME || !self.id.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err("an id is made of letters and digits".to_owned());
        }
        let proof = match (&self.hash, &self.password, is_user) {
            (Some(hash), None, false) => {
                Proof::Token(Digest::parse(hash).ok_or("hash: a SHA-256 has 64 hexadecimal digits")?)
            }
            (None, Some(hash), true) => {
                password::check(hash).map_err(|reason| format!("password: {reason}"))?;
                Proof::Password(hash.as_str().into())
            }
            _ => return Err("a token has a hash, a user has a password, and none has both".to_owned()),
        };
        if self.rate == Some(0) {
            return Err("rate: at least 1; leave out the scope ingest to take nothing".to_owned());
        }
        let limits =
            Limits { rate: self.rate.map(f64::from), new_sources: self.max_new_sources.map(|most| most as usize) };
        let identity = Identity {
            id: self.id.as_str().into(),
            name: self.name.as_str().into(),
            proof,
            scopes: self.scopes.clone(),
            sources: globs("sources", self.sources.as_deref())?,
            channels: globs("channels", self.channels.as_deref())?,
            expires: self.expires()?,
            allowance: Arc::default(),
        };
        Ok((identity, limits))
    }

    /// When it ends.
    ///
    /// # Errors
    /// If that is no time.
    pub fn expires(&self) -> Result<Option<Millis>, String> {
        let Some(text) = &self.expires else { return Ok(None) };
        let time = timestamp::parse(text, &Zone::utc());
        time.map(Some).ok_or_else(|| "expires: write 2026-12-31T00:00:00Z or 2026-12-31".to_owned())
    }
}

fn globs(key: &str, texts: Option<&[String]>) -> Result<Option<Vec<Allowed>>, String> {
    let globs = texts.map(|texts| texts.iter().map(|text| Allowed::parse(text)).collect::<Result<_, _>>());
    globs.transpose().map_err(|error| format!("{key}: {error}"))
}

#[cfg(test)]
mod tests;
