//! Rules broken on purpose, one at a time, to see that the tests notice.
//!
//! Armed by `cli/serve.rs` with what `config.rs` finds in the environment; asked at the place of each rule. What
//! is broken in a script on Redis stands in `store/redis/mutants.rs`. Only in debug builds: in a release build none
//! of it is left, and the variable means nothing. `tests/it/mutants.rs` has for each of them the scenario that
//! sees it, docs/reliability.md the table.

use std::sync::OnceLock;

/// The names by which places ask.
pub const NO_SEQUENCE_CHECK: &str = "no-sequence-check";
pub const NO_KEY_CHECK: &str = "no-key-check";
pub const SAME_KEY_TWICE_IN_A_FRAME: &str = "same-key-twice-in-a-frame";
pub const ACK_BEFORE_STORE: &str = "ack-before-store";
pub const CLOSE_WITHOUT_ACK: &str = "close-without-ack";
pub const REVISION_NOT_RAISED: &str = "revision-not-raised";
pub const BASE_NOT_STORED: &str = "base-not-stored";
pub const CLOSING_LIFE_TAKES_READINGS: &str = "closing-life-takes-readings";
pub const KEYS_EXPIRE_BY_WALL_CLOCK: &str = "keys-expire-by-wall-clock";
pub const TOMBSTONE_DROPPED_EARLY: &str = "tombstone-dropped-early";
pub const NO_STALE_CHECK: &str = "no-stale-check";
pub const PAGE_NOT_HELD: &str = "page-not-held";
pub const QUERY_LOOKS_ONCE: &str = "query-looks-once";
pub const TORN_TAIL_NOT_CUT: &str = "torn-tail-not-cut";
pub const MOVE_UP_REPEATED: &str = "move-up-repeated";
pub const LENGTHS_NOT_COMPARED: &str = "lengths-not-compared";

/// All of them, and what is broken.
pub const ALL: [(&str, &str); 16] = [
    (NO_SEQUENCE_CHECK, "a frame is applied whatever its place in the sequence of its writer"),
    (NO_KEY_CHECK, "a frame is applied though its keys have been counted"),
    (SAME_KEY_TWICE_IN_A_FRAME, "requests under one key do not wait for each other"),
    (ACK_BEFORE_STORE, "a request is answered when it is queued"),
    (CLOSE_WITHOUT_ACK, "a life closes though the sink does not have it"),
    (REVISION_NOT_RAISED, "a seal leaves the revision as it is"),
    (BASE_NOT_STORED, "a row forgets the lives before its newest one"),
    (CLOSING_LIFE_TAKES_READINGS, "a life takes readings after its close has begun"),
    (KEYS_EXPIRE_BY_WALL_CLOCK, "a step of the clock counts in full for what expires"),
    (TOMBSTONE_DROPPED_EARLY, "a closed bucket is forgotten at once"),
    (NO_STALE_CHECK, "a frame is applied however long it was on its way"),
    (PAGE_NOT_HELD, "a page goes to the sink at once, from a store that can forget"),
    (QUERY_LOOKS_ONCE, "a query does not compare its two looks at the store"),
    (TORN_TAIL_NOT_CUT, "half a line stays at the end of a file"),
    (MOVE_UP_REPEATED, "the first chunk of a close moves up and stays"),
    (LENGTHS_NOT_COMPARED, "a frame is applied though a source has readings of another length"),
];

static ARMED: OnceLock<&str> = OnceLock::new();

/// Breaks this rule from now on.
///
/// # Errors
/// If there is no such mutant; nothing would be broken.
pub fn arm(name: &str) -> Result<(), String> {
    let Some((known, broken)) = ALL.into_iter().find(|(known, _)| *known == name) else {
        let names = ALL.map(|(name, _)| name).join(", ");
        return Err(format!("\"{name}\" is not a mutant: write one of {names}"));
    };
    ARMED.get_or_init(|| known);
    tracing::warn!("a rule is broken on purpose: {broken}");
    Ok(())
}

/// Whether this rule is broken.
#[inline]
#[must_use]
pub fn is(name: &'static str) -> bool {
    cfg!(debug_assertions) && ARMED.get().is_some_and(|armed| *armed == name)
}
