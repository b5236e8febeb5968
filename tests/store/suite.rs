//! The list of all cases. Each is given a new store of its own.

pub mod batch;
pub mod checkpoint;
pub mod claim;
pub mod fencing;
pub mod forget;
pub mod history;
pub mod keys;
pub mod lists;
pub mod live;
pub mod reads;
pub mod submit;
pub mod sweep;

/// Hands the list of all cases to another macro, with what that needs beside it.
macro_rules! cases {
    ($then:ident $($beside:tt)*) => { $crate::suite::$then! { [$($beside)*]
        submit:
            what_was_submitted_is_what_is_read
            a_rejected_submission_takes_in_none_of_its_jobs
            a_repeated_request_returns_its_first_job
            a_request_id_stands_for_one_request_only
            the_same_request_twice_in_one_submission_makes_one_job
            each_tenant_has_request_ids_of_its_own
            request_ids_outlive_a_restart
            a_submission_that_repeats_a_forgotten_job_takes_in_nothing
            order_is_that_of_acceptance_whatever_the_clock_does
            a_history_never_goes_back_though_the_clock_does
            a_full_queue_takes_in_nothing;
        claim:
            claims_go_by_priority_then_creation
            only_jobs_of_the_wanted_kinds_are_claimed
            tenants_take_turns_within_a_claim_and_from_claim_to_claim
            no_job_is_claimed_twice
            a_claim_comes_with_all_that_its_worker_needs
            a_provisional_claim_leaves_no_trace
            a_claim_in_the_process_begins_the_attempt
            a_claim_of_several_workers_is_dealt_in_the_order_of_its_slots
            a_claim_takes_no_more_bytes_than_it_may_and_at_least_one_job
            a_claim_says_that_nothing_is_left_only_where_that_is_so
            only_a_sweep_makes_a_scheduled_job_ready
            a_job_that_has_ended_or_waits_is_never_claimed;
        sweep:
            a_scheduled_job_becomes_ready
            a_retried_job_becomes_ready
            a_job_that_was_given_back_becomes_ready
            a_pending_job_expires
            a_blocked_job_expires
            a_claim_that_is_never_accepted_does_not_keep_a_job_from_expiring
            an_attempt_takes_too_long
            a_job_takes_too_long
            a_grace_period_ends
            a_timeout_shows_the_last_that_was_kept_of_the_attempt
            a_sweep_goes_by_what_is_due_first_and_no_further_than_its_limit
            nothing_is_due_where_nothing_is_limited
            a_lease_has_no_deadline_in_the_store;
        keys:
            only_a_sweep_makes_a_job_with_a_key_ready
            a_key_never_exceeds_its_limit_and_nobody_starves
            the_best_blocked_job_gets_the_place
            each_job_waits_for_its_own_limit
            keys_are_each_tenants_own
            whoever_leaves_gives_the_place_back
            whoever_stays_keeps_the_place
            places_count_against_the_limit_of_a_sweep;
        fencing:
            a_lease_that_has_ended_records_nothing
            an_earlier_lease_records_nothing_under_a_later_one
            a_later_lease_that_was_never_given_records_nothing
            a_guessed_secret_records_nothing
            only_its_keeper_ends_a_lease
            a_cancelled_job_never_succeeds
            a_job_that_is_not_kept_is_not_found;
        history:
            a_history_is_all_that_the_steps_told
            a_step_that_says_nothing_new_adds_nothing
            the_first_event_says_how_the_job_began
            a_result_comes_with_the_success
            an_empty_result_is_a_result
            a_history_can_be_read_from_any_event_on
            a_page_of_history_has_a_limit_of_events
            a_page_of_history_has_a_limit_of_bytes_and_is_never_empty
            the_histories_of_several_jobs_come_in_one_call
            a_claim_that_lapses_is_not_in_the_history;
        reads:
            jobs_are_read_in_the_order_asked_for
            a_list_pages_through_a_tenants_jobs_newest_first
            a_list_shows_what_a_look_up_shows
            held_are_the_jobs_with_a_lease
            held_pages_in_the_order_of_ids
            held_passes_over_what_others_keep
            the_keeper_keeps_its_name
            a_reader_sees_a_whole_batch_or_nothing_of_it;
        lists:
            a_list_by_states_has_the_jobs_in_them
            a_list_by_kinds_has_the_jobs_of_them
            a_list_by_labels_has_the_jobs_with_all_of_them
            a_list_by_time_has_what_was_created_within_it
            a_list_by_everything_has_what_matches_everything
            a_page_has_a_limit_of_bytes_and_is_never_empty
            a_list_goes_on_where_it_was_whatever_happens_meanwhile
            jobs_are_counted_by_kind_and_state
            a_queue_shows_who_is_next;
        forget:
            a_retry_is_a_new_job_with_the_same_wish
            a_retry_with_a_request_id_happens_once
            only_what_has_ended_is_retried_or_deleted
            a_deleted_job_is_gone_with_all_that_belongs_to_it
            a_request_id_outlives_its_job_by_a_day
            jobs_are_pruned_when_their_time_is_over_and_not_before
            pruning_goes_in_steps_and_the_longest_over_first
            a_long_history_is_gone_at_once_and_goes_in_steps
            an_id_is_never_given_again;
        checkpoint:
            a_claim_comes_with_the_last_checkpoint
            a_claim_of_a_job_without_one_comes_without
            a_checkpoint_outlives_a_restart_and_a_claim_that_lapses
            a_checkpoint_that_is_void_is_not_given
            a_checkpoint_counts_with_the_bytes_of_a_claim
            a_forgotten_job_takes_its_checkpoint_along
            a_retry_goes_on_from_the_checkpoint
            a_retry_begins_anew_where_the_output_does_not_fit;
        live:
            the_latest_that_was_kept_is_shown
            what_belongs_to_another_attempt_is_passed_over
            a_job_that_no_worker_has_keeps_nothing
            a_new_attempt_begins_with_nothing
            the_end_of_an_attempt_has_the_last_word
            an_end_that_says_nothing_leaves_what_was_kept
            one_call_keeps_those_of_many_jobs;
        batch:
            a_rejection_leaves_the_others_in_place
            a_refusal_keeps_nothing_of_what_it_began
            operations_are_carried_out_in_their_order
            what_comes_in_with_a_batch_is_there_for_the_rest_of_it
            a_commit_that_nobody_heard_of_can_be_repeated
            a_lease_that_nobody_heard_of_is_found;
    } };
}

/// Makes a test of each case, on stores of one kind.
macro_rules! conformance {
    ([$store:ident $fixture:ident] $($part:ident: $($case:ident)+;)+) => {
        mod $store { $(mod $part { $(
            #[test]
            fn $case() {
                let fixture = crate::$fixture::default();
                crate::suite::$part::$case(&mut crate::bench::Bench::new(fixture));
            }
        )+ })+ }
    };
}

/// Makes a table of all cases.
macro_rules! table {
    ([] $($part:ident: $($case:ident)+;)+) => {
        &[$($((stringify!($case), crate::suite::$part::$case as crate::suite::Case)),+),+]
    };
}

pub(crate) use {cases, conformance, table};

/// A case: it panics where the store does not keep its promise.
pub type Case = fn(&mut crate::bench::Bench);

/// All of them, by name.
pub const CASES: &[(&str, Case)] = cases!(table);
