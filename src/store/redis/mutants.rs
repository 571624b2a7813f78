//! What a mutant (`mutant.rs`) breaks in the scripts: a piece of their text, replaced as they are loaded.
//!
//! Called by `link.rs` for every script; does nothing unless a mutant is armed. A text that is not in its script
//! exactly once ends the process: nothing would be broken, and the test that is to see it would test nothing.

use crate::mutant;

struct Change {
    mutant: &'static str,
    scripts: &'static [&'static str],
    text: &'static str,
    instead: &'static str,
}

/// Scripts that begin with clock.lua.
const CLOCKED: [&str; 11] =
    ["head", "found", "apply", "due", "seal", "ack", "close", "drained", "register", "confirm", "change"];

const fn change(mutant: &'static str, script: &'static [&'static str], text: &'static str, to: &'static str) -> Change {
    Change { mutant, scripts: script, text, instead: to }
}

const CHANGES: [Change; 12] = [
    change(mutant::NO_SEQUENCE_CHECK, &["apply"], "if sequence <= last then", "if false then"),
    change(mutant::NO_SEQUENCE_CHECK, &["apply"], "if sequence > last + 1 then", "if false then"),
    change(mutant::NO_KEY_CHECK, &["apply"], "if key_count > 0 then", "if false then"),
    change(mutant::NO_STALE_CHECK, &["apply"], "if elapsed - received > ttl / 2 then", "if false then"),
    change(
        mutant::CLOSING_LIFE_TAKES_READINGS,
        &["apply"],
        "if bucket.life and bucket.life.closing then",
        "if false then",
    ),
    change(mutant::KEYS_EXPIRE_BY_WALL_CLOCK, &CLOCKED, "MAX_ADVANCE = 5000", "MAX_ADVANCE = math.huge"),
    change(
        mutant::REVISION_NOT_RAISED,
        &["seal"],
        "life.revision = math.max(life.revision + 1, now)",
        "life.revision = life.revision",
    ),
    change(
        mutant::CLOSE_WITHOUT_ACK,
        &["seal"],
        "acked = life.dirty == 0 and life.acked == life.revision",
        "acked = true",
    ),
    change(mutant::CLOSE_WITHOUT_ACK, &["close"], "life.acked ~= life.revision", "false"),
    change(
        mutant::TOMBSTONE_DROPPED_EARLY,
        &["close"],
        "redis.call('ZADD', KEYS[3], text(elapsed + tonumber(ARGV[11])), name)",
        "",
    ),
    change(
        mutant::MOVE_UP_REPEATED,
        &["close"],
        "for first = 1, #remove, CHUNK do",
        "for first = 1, life.closing and #remove or 0, CHUNK do",
    ),
    change(mutant::LENGTHS_NOT_COMPARED, &["apply"], "if #clashes > 1 then", "if false then"),
];

/// The text of a script, broken if a mutant is armed that breaks it.
///
/// # Panics
/// If what is to be replaced is not there.
pub(super) fn mutated(script: &str, mut source: String) -> String {
    for Change { text, instead, .. } in
        CHANGES.iter().filter(|change| mutant::is(change.mutant) && change.scripts.contains(&script))
    {
        assert_eq!(source.matches(text).count(), 1, "{script}.lua does not have once: {text}");
        source = source.replace(text, instead);
    }
    source
}
