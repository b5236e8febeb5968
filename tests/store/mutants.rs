//! Stores that each break a promise. A suite that does not notice proves nothing.

mod mutant;

use crate::bench::Bench;
use crate::suite::CASES;
use longhaul::job::State;
use mutant::{Flaw, MutantFixture};
use rstest::rstest;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

#[rstest]
#[case(Flaw::FencingOff, "an_earlier_lease_records_nothing_under_a_later_one")]
#[case(Flaw::AnyKeeper, "only_its_keeper_ends_a_lease")]
#[case(Flaw::NotDurable, "what_was_submitted_is_what_is_read")]
#[case(Flaw::RequestIdsOfOneLife, "request_ids_outlive_a_restart")]
#[case(Flaw::SomeOfASubmission, "a_rejected_submission_takes_in_none_of_its_jobs")]
#[case(Flaw::RejectionEndsBatch, "a_rejection_leaves_the_others_in_place")]
#[case(Flaw::EachOperationAlone, "a_reader_sees_a_whole_batch_or_nothing_of_it")]
#[case(Flaw::NoQueueLimit, "a_full_queue_takes_in_nothing")]
#[case(Flaw::NoPriority, "claims_go_by_priority_then_creation")]
#[case(Flaw::NoTurns, "tenants_take_turns_within_a_claim_and_from_claim_to_claim")]
#[case(Flaw::ClaimedTwice, "no_job_is_claimed_twice")]
#[case(Flaw::AlwaysAccepted, "a_provisional_claim_leaves_no_trace")]
#[case(Flaw::DealsBackwards, "a_claim_of_several_workers_is_dealt_in_the_order_of_its_slots")]
#[case(Flaw::TermsForgotten, "a_claim_of_several_workers_is_dealt_in_the_order_of_its_slots")]
#[case(Flaw::HugeClaims, "a_claim_takes_no_more_bytes_than_it_may_and_at_least_one_job")]
#[case(Flaw::AlwaysExhausted, "a_claim_says_that_nothing_is_left_only_where_that_is_so")]
#[case(Flaw::ClaimSweeps, "only_a_sweep_makes_a_scheduled_job_ready")]
#[case(Flaw::ClaimSweeps, "only_a_sweep_makes_a_job_with_a_key_ready")]
#[case(Flaw::OnePlaceTooMany, "a_key_never_exceeds_its_limit_and_nobody_starves")]
#[case(Flaw::NeverDue(State::Scheduled), "a_scheduled_job_becomes_ready")]
#[case(Flaw::NeverDue(State::Pending), "a_pending_job_expires")]
#[case(Flaw::NeverDue(State::Running), "an_attempt_takes_too_long")]
#[case(Flaw::NeverDue(State::Retrying), "a_retried_job_becomes_ready")]
#[case(Flaw::NeverDue(State::Cancelling), "a_grace_period_ends")]
#[case(Flaw::DueTooLate, "a_scheduled_job_becomes_ready")]
#[case(Flaw::EventLost, "a_history_is_all_that_the_steps_told")]
#[case(Flaw::ResultLost, "a_result_comes_with_the_success")]
#[case(Flaw::EndlessPages, "a_page_of_history_has_a_limit_of_events")]
#[case(Flaw::EndlessPages, "a_page_of_history_has_a_limit_of_bytes_and_is_never_empty")]
#[case(Flaw::OutputTwice, "a_commit_that_nobody_heard_of_can_be_repeated")]
#[case(Flaw::AnyAttempt, "what_belongs_to_another_attempt_is_passed_over")]
#[case(Flaw::OldestFirst, "a_list_pages_through_a_tenants_jobs_newest_first")]
#[case(Flaw::AnyTenant, "a_list_pages_through_a_tenants_jobs_newest_first")]
#[case(Flaw::OnlyAcceptedHeld, "a_lease_that_nobody_heard_of_is_found")]
#[case(Flaw::NoStates, "a_list_by_states_has_the_jobs_in_them")]
#[case(Flaw::NoKinds, "a_list_by_kinds_has_the_jobs_of_them")]
#[case(Flaw::NoLabels, "a_list_by_labels_has_the_jobs_with_all_of_them")]
#[case(Flaw::NoTimes, "a_list_by_time_has_what_was_created_within_it")]
#[case(Flaw::BetweenPages, "a_list_by_everything_has_what_matches_everything")]
#[case(Flaw::HugePages, "a_page_has_a_limit_of_bytes_and_is_never_empty")]
#[case(Flaw::CountsTheForgotten, "jobs_are_counted_by_kind_and_state")]
#[case(Flaw::CountsOfAllTenants, "jobs_are_counted_by_kind_and_state")]
#[case(Flaw::QueueByAge, "a_queue_shows_who_is_next")]
#[case(Flaw::RetriesTwice, "a_retry_with_a_request_id_happens_once")]
#[case(Flaw::DeletesTheActive, "only_what_has_ended_is_retried_or_deleted")]
#[case(Flaw::RequestIdsForgotten, "a_request_id_outlives_its_job_by_a_day")]
#[case(Flaw::HistoryStays, "a_deleted_job_is_gone_with_all_that_belongs_to_it")]
#[case(Flaw::PrunesTooEarly, "jobs_are_pruned_when_their_time_is_over_and_not_before")]
#[case(Flaw::PrunesWithoutLimit, "pruning_goes_in_steps_and_the_longest_over_first")]
fn a_broken_store_is_found_out(#[case] flaw: Flaw, #[case] case: &str) {
    let failed = failures(flaw);

    assert!(failed.contains(&case), "{case} does not notice {flaw:?}; these do: {failed:?}");
}

#[test]
fn a_sound_store_in_the_same_wrapper_passes() {
    assert_eq!(failures(Flaw::None), Vec::<&str>::new());
}

/// The cases that notice.
fn failures(flaw: Flaw) -> Vec<&'static str> {
    let failed = |(_, case): &&(&str, crate::suite::Case)| {
        quietly(|| case(&mut Bench::new(MutantFixture::new(flaw)))).is_err()
    };
    CASES.iter().filter(failed).map(|(name, _)| *name).collect()
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic that is expected, without its message and its slow backtrace.
fn quietly(run: impl FnOnce()) -> std::thread::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    outcome
}
