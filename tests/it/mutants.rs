//! The tests notice broken rules: each scenario holds as the service is, and sees a wrong result when the one
//! rule that it is for is broken (`src/mutant.rs`).
//!
//! The list below says which scenario sees which mutant on which store, and makes a test of each line; the
//! same stands in docs/reliability.md. The scenarios are in `mutants/requests.rs` and `mutants/buckets.rs`, what gets lost and
//! held up between the service and Redis in `mutants/wire.rs`. Where nothing can be seen from the outside, a test of the store
//! contract is run by itself.

mod buckets;
mod requests;
mod run;
mod wire;

use crate::service::{On, Service};
use meanwhile::{config, mutant};
use run::{Run, Seen};
use std::path::Path;

/// Breaks the rule that the environment names, if any; for what uses a store in this process.
pub(crate) fn obey() {
    if let Some(name) = config::mutant() {
        mutant::arm(&name).expect("a mutant");
    }
}

#[track_caller]
fn see(mutant: &'static str, on: On, scenario: fn(Run) -> Seen) {
    if let Err(seen) = scenario(Run { on, mutant: None }) {
        panic!("no rule is broken, and yet: {seen}");
    }
    match scenario(Run { on, mutant: Some(mutant) }) {
        Err(seen) => println!("{mutant}: {seen}"),
        Ok(()) => panic!("nothing was seen of {mutant}"),
    }
}

/// Makes one store's tests, and its part of the list.
macro_rules! suite {
    ($module:ident, $on:expr, $($mutant:ident: $group:ident::$scenario:ident,)*) => {
        mod $module {
            use super::{mutant, see};

            pub(super) const LIST: &[(&str, &str)] = &[$((mutant::$mutant, stringify!($scenario)),)*];

            $(
                #[test]
                fn $scenario() {
                    see(mutant::$mutant, $on, super::$group::$scenario);
                }
            )*
        }
    };
}

suite! {
    embedded, super::On::Embedded,
    NO_SEQUENCE_CHECK: requests::the_contract_of_duplicate_frames,
    NO_KEY_CHECK: requests::a_request_is_repeated,
    SAME_KEY_TWICE_IN_A_FRAME: requests::requests_come_at_once,
    ACK_BEFORE_STORE: requests::the_service_dies_before_a_commit,
    CLOSE_WITHOUT_ACK: buckets::a_bucket_is_drained,
    REVISION_NOT_RAISED: buckets::the_service_dies_before_it_writes,
    BASE_NOT_STORED: buckets::a_second_life_is_corrected,
    CLOSING_LIFE_TAKES_READINGS: buckets::a_reading_comes_during_a_close,
    KEYS_EXPIRE_BY_WALL_CLOCK: requests::a_clock_comes_right,
    TOMBSTONE_DROPPED_EARLY: buckets::a_reading_comes_after_a_drain,
    NO_STALE_CHECK: requests::the_contract_of_old_frames,
    QUERY_LOOKS_ONCE: buckets::buckets_move_during_queries,
    TORN_TAIL_NOT_CUT: buckets::the_service_dies_in_a_line,
    MOVE_UP_REPEATED: buckets::a_bucket_closes,
    LENGTHS_NOT_COMPARED: buckets::a_source_changes_its_length,
}

suite! {
    redis, super::On::Redis,
    NO_SEQUENCE_CHECK: requests::an_answer_of_redis_is_lost,
    NO_KEY_CHECK: requests::a_request_is_repeated,
    SAME_KEY_TWICE_IN_A_FRAME: requests::requests_come_at_once,
    ACK_BEFORE_STORE: requests::the_service_dies_before_a_commit,
    CLOSE_WITHOUT_ACK: buckets::a_bucket_is_drained,
    REVISION_NOT_RAISED: buckets::the_service_dies_before_it_writes,
    BASE_NOT_STORED: buckets::a_second_life_is_corrected,
    CLOSING_LIFE_TAKES_READINGS: buckets::a_reading_comes_after_half_a_close,
    KEYS_EXPIRE_BY_WALL_CLOCK: requests::a_clock_comes_right,
    TOMBSTONE_DROPPED_EARLY: buckets::a_reading_comes_after_a_drain,
    NO_STALE_CHECK: requests::a_frame_is_held_up,
    PAGE_NOT_HELD: buckets::redis_forgets_what_is_sealed,
    QUERY_LOOKS_ONCE: buckets::buckets_move_during_queries,
    TORN_TAIL_NOT_CUT: buckets::the_service_dies_in_a_line,
    MOVE_UP_REPEATED: buckets::a_bucket_closes,
    LENGTHS_NOT_COMPARED: buckets::a_source_changes_its_length,
}

/// Who sees a mutant, as the table says it.
fn seen_by(mutant: &str) -> String {
    let on = |list: &[(&str, &'static str)]| list.iter().find(|(name, _)| *name == mutant).map(|(_, by)| *by);
    match (on(embedded::LIST), on(redis::LIST)) {
        (Some(embedded), Some(redis)) if embedded == redis => format!("`{redis}`"),
        (Some(embedded), Some(redis)) => format!("`{redis}` on Redis, `{embedded}` embedded"),
        (None, Some(redis)) => format!("`{redis}` on Redis"),
        (_, None) => panic!("no scenario on Redis sees {mutant}"),
    }
}

#[test]
fn the_table_in_the_documentation_is_this_list() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| mutant |")).skip(2);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<String> =
        mutant::ALL.iter().map(|(name, broken)| format!("| `{name}` | {broken} | {} | ", seen_by(name))).collect();
    let differ = rows.iter().zip(&expected).find(|(row, expected)| !row.starts_with(&***expected));
    assert_eq!((differ, rows.len()), (None, expected.len()), "the rows are to begin with\n{}", expected.join("\n"));
    let listed = embedded::LIST.iter().chain(redis::LIST);
    for (name, _) in listed {
        assert!(mutant::ALL.iter().any(|(known, _)| known == name), "{name} is missing in ALL");
    }
}

#[test]
fn a_mutant_that_does_not_exist_is_refused() {
    let started = crate::service::command(&["serve"]).env("MEANWHILE_MUTANT", "no-check").output().unwrap();
    assert_eq!(started.status.code(), Some(1), "{started:?}");
    assert!(String::from_utf8_lossy(&started.stderr).contains("is not a mutant"), "{started:?}");
}

#[test]
fn a_mutant_says_so() {
    let mutated = Service::start_where(&[("MEANWHILE_MUTANT", mutant::NO_KEY_CHECK)], On::Embedded, &[]);
    assert!(mutated.log().contains("a rule is broken on purpose"), "{}", mutated.log());
}
