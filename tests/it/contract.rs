//! The promises of the store contract, one test each, for the oracle, the embedded store and Redis.
//!
//! A test stands in one of the groups below and is listed once more at the end; the list makes it
//! three tests, one per store. What random schedules find is in `model.rs`, the bytes of merged
//! states in `golden.rs`.

mod answers;
mod closing;
mod early;
mod forgetting;
mod lives;
mod log;
mod loss;
mod reading;
mod rules;
mod schedule;
mod sharing;
mod times;
mod vectors;

use crate::world::{Kind, World};
use meanwhile::stats::calendar::Bucket;
use meanwhile::store::{Acked, Closed, Due, Life, Sealed, When};

/// Longer than any list of due buckets here.
const ALL: usize = 1_000;

async fn due(world: &World) -> Due {
    world.store.due(0, ALL).await.unwrap()
}

async fn seal(world: &World, bucket: Bucket) -> Sealed {
    world.store.seal(0, bucket, &world.family(bucket), When::InTime).await.unwrap()
}

/// Seals a bucket that must be there and free.
async fn sealed(world: &World, bucket: Bucket) -> Life {
    match seal(world, bucket).await {
        Sealed::Sealed { life, .. } => life,
        other => panic!("{bucket:?} is not sealed: {other:?}"),
    }
}

async fn ack(world: &World, life: Life) -> Acked {
    world.store.ack(0, life).await.unwrap()
}

/// Seals and acks, as if the sink had written the rows.
async fn written(world: &World, bucket: Bucket) -> Life {
    let life = sealed(world, bucket).await;
    assert_eq!(ack(world, life).await, Acked::Clean);
    life
}

async fn close(world: &World, life: Life, cursor: u64) -> Closed {
    world.store.close(0, life, &world.family(life.bucket), cursor, When::InTime).await.unwrap()
}

/// Drives a close that nothing hinders to its end.
async fn close_to_end(world: &World, life: Life) {
    let mut cursor = 0;
    loop {
        match close(world, life, cursor).await {
            Closed::More(next) => cursor = next,
            Closed::Done => return,
            other => panic!("{life:?} does not close: {other:?}"),
        }
    }
}

/// Makes one store's module of the list of all tests.
macro_rules! suite {
    ($module:ident, $kind:expr, $($group:ident::$name:ident,)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$group::$name(super::World::new($kind).await).await;
                }
            )*
        }
    };
}

macro_rules! for_each_store {
    ($($tests:tt)*) => {
        suite!(oracle, super::Kind::Oracle, $($tests)*);
        suite!(embedded, super::Kind::Embedded, $($tests)*);
        suite!(redis, super::Kind::Redis, $($tests)*);
    };
}

for_each_store! {
    answers::a_frame_is_applied_whole,
    answers::a_frame_that_was_applied_is_a_duplicate,
    answers::a_hole_in_the_sequence_is_a_gap,
    answers::an_empty_frame_takes_its_place,
    answers::a_frame_older_than_half_the_ttl_is_stale,
    answers::counted_keys_are_named_with_their_fingerprint,
    answers::keys_hold_for_every_writer_and_bucket,
    answers::a_closing_bucket_takes_no_readings,
    answers::late_buckets_are_refused_by_index,
    answers::a_result_that_is_not_finite_is_refused,
    answers::the_order_of_checking,
    times::now_never_goes_back_and_elapsed_takes_small_steps,
    times::reading_calls_do_not_move_the_clocks,
    times::a_key_expires_by_elapsed,
    times::a_step_of_the_clock_expires_no_key,
    times::a_key_may_ask_for_a_longer_time,
    lives::a_first_life_carries_the_epoch,
    lives::a_late_life_gets_a_new_generation,
    lives::lives_that_begin_together_share_a_generation,
    lives::lateness_is_judged_by_now_and_not_by_the_clock,
    lives::a_coarse_life_gets_a_new_generation,
    lives::a_closed_bucket_begins_a_new_generation,
    lives::a_tombstone_outlives_a_longer_lateness,
    lives::a_longer_lateness_makes_no_second_first_life,
    schedule::a_bucket_is_due_after_its_grace,
    schedule::stragglers_delay_for_a_minute_at_most,
    schedule::a_late_life_is_due_when_idle,
    schedule::a_sealed_bucket_is_due_again_after_the_visibility,
    schedule::an_acked_bucket_is_due_at_its_close,
    schedule::a_dirty_ack_is_due_again,
    schedule::the_longest_due_come_first_and_no_more_than_asked,
    schedule::a_coarse_bucket_waits_for_its_descendants,
    schedule::a_bucket_that_waits_is_not_due_before_its_time,
    schedule::the_close_of_the_last_child_makes_the_parent_due,
    schedule::a_seal_raises_the_revision_only_if_dirty,
    schedule::revisions_rise_while_the_clock_stands_back,
    schedule::an_ack_counts_only_for_the_present_revision,
    log::every_first_ack_of_a_revision_is_logged,
    log::a_closed_life_stays_in_the_log,
    log::a_full_log_says_what_it_has_dropped,
    reading::pages_hold_every_source_once,
    reading::a_page_of_another_generation_is_refused,
    reading::a_page_may_be_newer_than_the_seal,
    reading::lives_are_told_by_period_and_start,
    reading::an_open_life_says_whether_it_was_written,
    reading::a_long_range_is_read_in_several_looks,
    reading::a_look_for_many_sources_takes_fewer_lives,
    closing::a_close_is_refused_until_all_is_written,
    closing::a_close_waits_for_descendants,
    closing::a_close_moves_up_and_ends,
    closing::every_chunk_keeps_the_total,
    closing::a_close_of_full_chunks_ends_with_the_last,
    closing::a_crash_between_chunks_changes_nothing,
    closing::a_closing_life_stays_due_and_is_not_sealed,
    closing::a_late_reading_in_the_middle_comes_after,
    closing::a_closing_parent_is_finished_first,
    closing::two_parents_get_each_reading_once,
    closing::a_close_repeated_moves_nothing,
    early::an_early_close_is_refused_until_all_is_written,
    early::a_reading_after_an_early_close_adds_to_the_row,
    early::an_early_close_is_remembered_until_the_bucket_is_late,
    early::a_coarse_bucket_need_not_wait_when_asked_now,
    early::a_half_moved_bucket_waits_for_a_parent_that_is_drained,
    early::everything_is_drained_from_fine_to_coarse,
    early::a_drained_bucket_takes_readings_until_it_is_late,
    early::a_crash_in_an_early_close_changes_nothing,
    early::a_drained_store_gets_a_new_epoch_at_its_next_founding,
    forgetting::every_open_bucket_is_named,
    forgetting::what_lives_hold_of_a_source_is_removed,
    forgetting::a_forgotten_source_leaves_a_closing_life,
    forgetting::a_forgotten_source_starts_anew,
    forgetting::keys_outlive_the_source,
    loss::nothing_is_taken_before_the_founding,
    loss::founding_again_keeps_the_epoch,
    loss::a_restart_keeps_everything,
    loss::a_store_that_went_back_shows_a_gap,
    loss::a_store_that_lost_everything_says_so,
    sharing::who_came_first_is_named_first,
    sharing::who_is_not_heard_of_is_gone,
    sharing::a_step_of_the_clock_takes_nobody_off_the_list,
    sharing::a_store_without_epoch_has_a_list_too,
    sharing::since_when_rows_are_complete_is_kept,
    rules::a_store_without_readings_takes_rules_for_all_time,
    rules::rules_begin_after_all_that_is_open,
    rules::a_frame_made_by_other_rules_is_made_anew,
    rules::counted_before_outdated_before_closing,
    rules::lost_versions_come_back,
    rules::the_oldest_versions_go,
    vectors::vectors_and_numbers_merge_side_by_side,
    vectors::vectors_move_up_into_hour_and_day,
    vectors::a_frame_with_vectors_says_which_buckets_meet,
    vectors::another_length_in_the_same_bucket_is_refused,
    vectors::another_length_is_refused_wherever_the_two_would_meet,
    vectors::every_source_of_another_length_is_named,
    vectors::large_states_come_in_parts,
    vectors::a_forgotten_source_may_come_with_another_length,
}
