//! Who may do what: tokens and users, read from one file and again when it changes.
//!
//! Made by `app.rs` where `--auth-file` is given; asked by `http/auth.rs` for each request, and by those who stay
//! connected, who learn of every change. The file is `auth/file.rs`, what one may do `auth/identity.rs`, how much
//! `auth/allowance.rs`. Guarantees: what is presented is found by its hash, never compared piece by piece; a file that is
//! wrong changes nothing; who is taken off the file is out within [`LOOK_EVERY`], wherever he is connected.

pub mod allowance;
pub mod file;
mod identity;
pub mod password;
pub mod token;

pub use identity::{Identity, Scope};

use crate::incidents;
use crate::stats::Millis;
use allowance::Allowance;
use file::{Entries, FileError};
use foldhash::fast::RandomState;
use identity::Proof;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Duration;
use token::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

/// How often the file is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a password that was right is remembered, by a hash that is fast and is kept in memory alone.
const REMEMBERED: Duration = Duration::from_mins(1);
/// So many of them: people at their pages.
const MOST_REMEMBERED: usize = 1_024;
/// Passwords that are compared at once: each takes a core and some memory.
const COMPARED_AT_ONCE: usize = 2;

/// What a client presents.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Token(String),
    Password { user: String, password: String },
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the token, or the user and password, are not known")]
    Unknown,
    /// Only said to who had the right ones.
    #[error("it has expired")]
    Expired,
}

/// See the module.
pub struct Auth {
    path: PathBuf,
    known: RwLock<Arc<Known>>,
    /// Counts the changes of the file.
    changes: watch::Sender<u64>,
    /// By identity, as long as it is in the file.
    allowances: Mutex<HashMap<Arc<str>, Arc<Allowance>>>,
    remembered: Mutex<HashMap<Digest, (Arc<Identity>, Instant)>>,
    comparing: Arc<Semaphore>,
}

/// The file as it was read last.
#[derive(Default)]
struct Known {
    tokens: HashMap<Digest, Arc<Identity>, RandomState>,
    users: HashMap<Arc<str>, Arc<Identity>>,
    by_id: HashMap<Arc<str>, Arc<Identity>>,
}

/// By what a change of the file is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let about = fs::metadata(path).ok()?;
        Some(Self { inode: about.ino(), length: about.len(), modified: (about.mtime(), about.mtime_nsec()) })
    }
}

impl Auth {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(path: &Path) -> Result<Arc<Self>, FileError> {
        let auth = Self {
            path: path.to_owned(),
            known: RwLock::default(),
            changes: watch::channel(0).0,
            allowances: Mutex::default(),
            remembered: Mutex::default(),
            comparing: Arc::new(Semaphore::new(COMPARED_AT_ONCE)),
        };
        auth.read()?;
        Ok(Arc::new(auth))
    }

    /// Reads the file again whenever it changes, without an end.
    pub async fn run(self: Arc<Self>) {
        let mut last = Look::at(&self.path);
        loop {
            sleep(LOOK_EVERY).await;
            let look = Look::at(&self.path);
            if look == last {
                continue;
            }
            // Before it is read, so that a change meanwhile is seen the next time.
            last = look;
            match self.read() {
                Ok(count) => tracing::info!("{} was read again: {count} tokens and users", self.path.display()),
                Err(error) => tracing::error!("those who were known before stay: {error}"),
            }
        }
    }

    /// How many there are.
    fn read(&self) -> Result<usize, FileError> {
        let (entries, warning) = Entries::read(&self.path)?;
        let wrong = |reason| FileError::Wrong { place: self.path.display().to_string(), reason };
        let identities = entries.identities().map_err(wrong)?;
        let mut known = Known::default();
        let mut allowances = lock(&self.allowances);
        allowances.retain(|id, _| identities.iter().any(|(identity, _)| identity.id == *id));
        for (mut identity, limits) in identities {
            let allowance = allowances.entry(Arc::clone(&identity.id)).or_default();
            allowance.set(limits);
            identity.allowance = Arc::clone(allowance);
            let identity = Arc::new(identity);
            known.by_id.insert(Arc::clone(&identity.id), Arc::clone(&identity));
            match &identity.proof {
                Proof::Token(digest) => drop(known.tokens.insert(*digest, identity)),
                Proof::Password(_) => drop(known.users.insert(Arc::clone(&identity.name), identity)),
            }
        }
        drop(allowances);
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        let count = known.by_id.len();
        *self.known.write().expect("no panic while it is held") = Arc::new(known);
        lock(&self.remembered).clear();
        self.changes.send_modify(|changes| *changes += 1);
        Ok(count)
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.read_known())
    }

    fn read_known(&self) -> RwLockReadGuard<'_, Arc<Known>> {
        self.known.read().expect("no panic while it is held")
    }

    /// Who presents a token. A hash and a look: less than 1 us.
    ///
    /// # Errors
    /// If nobody does, or not any more.
    pub fn by_token(&self, token: &str, now: Millis) -> Result<Arc<Identity>, Denied> {
        let digest = Digest::of(token.as_bytes());
        let known = self.read_known();
        in_time(known.tokens.get(&digest).ok_or(Denied::Unknown)?, now)
    }

    /// Who was found to have this password lately.
    #[must_use]
    pub fn remembered(&self, user: &str, password: &str, now: Millis, at: Instant) -> Option<Arc<Identity>> {
        let remembered = lock(&self.remembered);
        let (identity, until) = remembered.get(&pair(user, password))?;
        (at < *until).then(|| in_time(identity, now).ok())?
    }

    /// Waits until a password may be compared.
    pub async fn turn(&self) -> Turn {
        // It is never closed.
        Turn(Arc::clone(&self.comparing).acquire_owned().await.ok())
    }

    /// Who has this password. Takes some 15 ms of a core, whether there is such a user or not, and the turn for as long.
    ///
    /// # Errors
    /// If nobody has, or not any more.
    pub async fn by_password(
        &self,
        turn: Turn,
        user: &str,
        password: &str,
        now: Millis,
        at: Instant,
    ) -> Result<Arc<Identity>, Denied> {
        if password.len() > password::MAX_BYTES {
            return Err(Denied::Unknown);
        }
        let found = self.known().users.get(user).cloned();
        let hash = match found.as_ref().map(|identity| &identity.proof) {
            Some(Proof::Password(hash)) => Arc::clone(hash),
            _ => nobodys_hash(),
        };
        let (changes, presented) = (*self.changes.borrow(), password.to_owned());
        let compare = move || {
            let right = password::matches(&presented, &hash);
            // Not before, though nobody may wait for it any more.
            drop(turn);
            right
        };
        let right = incidents::blocking(compare).await.unwrap_or(false);
        let Some(identity) = found.filter(|_| right) else { return Err(Denied::Unknown) };
        let mut remembered = lock(&self.remembered);
        // Not if it was read again meanwhile: this may be gone.
        if changes == *self.changes.borrow() {
            if remembered.len() >= MOST_REMEMBERED {
                remembered.retain(|_, (_, until)| at < *until);
            }
            if remembered.len() < MOST_REMEMBERED {
                remembered.insert(pair(user, password), (Arc::clone(&identity), at + REMEMBERED));
            }
        }
        drop(remembered);
        in_time(&identity, now)
    }

    /// The same one as the file has him now: with other rights, it may be.
    ///
    /// # Errors
    /// If he is not in it any more, has another token or password, or has expired.
    pub fn still(&self, identity: &Identity, now: Millis) -> Result<Arc<Identity>, Denied> {
        let known = self.known();
        let found = known.by_id.get(&identity.id).filter(|found| found.proof == identity.proof);
        in_time(found.ok_or(Denied::Unknown)?, now)
    }

    /// Sees every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Leave to compare a password.
pub struct Turn(#[expect(dead_code, reason = "is given back when dropped")] Option<OwnedSemaphorePermit>);

fn in_time(identity: &Arc<Identity>, now: Millis) -> Result<Arc<Identity>, Denied> {
    if identity.is_expired(now) { Err(Denied::Expired) } else { Ok(Arc::clone(identity)) }
}

/// A user and a password in one; no two pairs give the same text.
fn pair(user: &str, password: &str) -> Digest {
    Digest::of(format!("{}:{user}:{password}", user.len()).as_bytes())
}

/// For users that there are not, so that they take as long as others.
fn nobodys_hash() -> Arc<str> {
    static HASH: std::sync::LazyLock<Arc<str>> =
        std::sync::LazyLock::new(|| password::hash("nobody has this").expect("long enough").into());
    Arc::clone(&HASH)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is held")
}

#[cfg(test)]
mod tests;
