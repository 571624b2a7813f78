//! Named places where the process ends itself on purpose, to see what a crash exactly there leaves behind, or where
//! there is a panic, to see that it does not.
//!
//! Armed by `cli/serve.rs` with what `config.rs` finds in the environment; passed at every step between a
//! decoded request and a closed bucket. Only in debug builds: in a release build none of it is left, and
//! the variable means nothing. `tests/it/failpoints.rs` dies at each of them once, `tests/soak/` at
//! random ones.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// All of them, in the order in which a reading passes them.
pub const NAMES: [&str; 18] = [
    // A request has been read, nothing of it is in the store.
    "decoded",
    // A frame is about to be sent; it was applied, and nobody has been told; the request is about to be answered.
    "frame-made",
    "frame-applied",
    "answering",
    // A transaction of the embedded store is about to be committed; it was.
    "embedded-changed",
    "embedded-committed",
    // A life was sealed; a page of it was read; the hold is over; its rows are in the sink; it was acked.
    "sealed",
    "paged",
    "held",
    "written",
    "acked",
    // Half of the rows are in the file; all are; they are synced.
    "rows-torn",
    "rows-appended",
    "rows-synced",
    // A chunk of a life has moved up.
    "moved-up",
    // A file has taken the place of another one, or is gone, and the directory is not synced.
    "renamed",
    "removed",
    // The final form of a directory has its name, and the tail is still there.
    "compacted",
];

/// Where there is a panic in place of the end.
pub const PANICS: [&str; 8] = [
    // A handler; its work on another thread.
    "state-asked",
    "body-decoding",
    // What it streams after it has answered.
    "event-sent",
    // A session of a socket; an event of it: its arguments, what it asks for.
    "session-begun",
    "event-read",
    "event-begun",
    // Tasks of their own.
    "watching",
    "ticking",
];

static ARMED: OnceLock<(String, AtomicU64)> = OnceLock::new();

/// Makes the process end itself on its n-th pass of a place: `name:n`.
///
/// # Errors
/// If there is no such place; it would never be passed.
pub fn arm(spec: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "\"{spec}\" is not a failpoint: write NAME:N, with a name out of {}",
            [&NAMES[..], &PANICS].concat().join(", ")
        )
    };
    let (name, passes) =
        spec.split_once(':').filter(|(name, _)| NAMES.contains(name) || PANICS.contains(name)).ok_or_else(wrong)?;
    let passes: u64 = passes.parse().ok().filter(|&passes| passes > 0).ok_or_else(wrong)?;
    ARMED.get_or_init(|| (name.to_owned(), AtomicU64::new(passes)));
    Ok(())
}

/// Ends the process if this is the pass it was armed for.
#[inline]
pub fn pass(name: &'static str) {
    if reached(name) {
        die();
    }
}

/// Panics if this is the pass it was armed for.
///
/// # Panics
/// That is all it is for.
#[inline]
#[track_caller]
pub fn trip(name: &'static str) {
    assert!(!reached(name), "the failpoint {name}");
}

/// Whether this is the pass; for a place that has something to leave half done before it calls [`die`].
#[inline]
#[must_use]
pub fn reached(name: &'static str) -> bool {
    debug_assert!(NAMES.contains(&name) || PANICS.contains(&name), "{name} is missing in NAMES");
    if !cfg!(debug_assertions) {
        return false;
    }
    ARMED.get().is_some_and(|(armed, left)| armed == name && left.fetch_sub(1, Ordering::SeqCst) == 1)
}

/// Ends the process at once: nothing is flushed, closed or told.
pub fn die() -> ! {
    std::process::abort()
}
