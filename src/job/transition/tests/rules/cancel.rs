//! Cancel wins: after a cancellation a job can only end cancelled, soon, and once.

use crate::job::transition::tests::life::*;
use crate::job::*;
use rstest::rstest;
use std::time::Duration;

const TICK: Duration = Duration::from_micros(1);

fn error() -> Failure {
    Failure::new("HANDLER_ERROR", "no")
}

/// A running job that was asked to stop within a minute.
fn cancelling() -> Life {
    let mut life = Life::running(options());
    assert_eq!(life.cancel(MINUTE), Ok(State::Cancelling));
    life
}

#[test]
fn a_job_without_a_worker_is_cancelled_at_once() {
    let scheduled = Options { schedule_time: Some(START.after(HOUR)), ..options() };
    let mut retrying = Life::running(options());
    retrying.fails(error()).unwrap();
    let mut claimed = Life::new(options());
    claimed.claim(false).unwrap();

    for mut life in [Life::new(scheduled), Life::new(options()), retrying, claimed] {
        assert_eq!(life.cancel(MINUTE), Ok(State::Cancelled));

        assert_eq!(
            (&*life.last_change().reason, &*life.last_change().message),
            ("CANCEL_REQUESTED", "enough")
        );
        assert_eq!((life.job.end_time, life.job.failure.clone()), (Some(START), None));
        assert_eq!((life.job.lease.clone(), life.job.next_attempt_time), (None, None));
    }
}

#[test]
fn a_claim_of_a_cancelled_job_can_record_nothing() {
    let mut life = Life::new(options());
    life.claim(false).unwrap();
    let lease = life.token();
    life.cancel(MINUTE).unwrap();

    assert_eq!(life.does(Command::Accept { lease }), Err(Refusal::LeaseLost));
    assert_eq!(life.completes(), Err(Refusal::JobCancelled));
    assert_eq!(life.job.attempt, 0);
}

#[test]
fn a_completion_after_the_cancellation_is_refused() {
    let mut life = cancelling();

    assert_eq!(life.completes(), Err(Refusal::JobCancelled));
    assert_eq!(life.job.state, State::Cancelling);

    life.wait(MINUTE).advance();
    assert_eq!(life.completes(), Err(Refusal::JobCancelled));
    assert_eq!(life.job.state, State::Cancelled);
}

#[test]
fn a_completion_before_the_cancellation_stands() {
    let mut life = Life::running(options());

    assert_eq!(life.completes(), Ok(State::Succeeded));
    let events = life.events.len();

    assert_eq!(life.cancel(MINUTE), Ok(State::Succeeded));
    assert_eq!(life.events.len(), events);
}

#[rstest]
#[case::stops(|life: &mut Life| life.fails_with(None, None))]
#[case::fails(|life: &mut Life| life.fails(error()))]
#[case::gives_back(|life: &mut Life| life.releases(HOUR))]
fn a_worker_that_lets_go_ends_the_job_cancelled(#[case] lets_go: fn(&mut Life) -> Result<State, Refusal>) {
    let mut life = cancelling();

    assert_eq!(lets_go(life.wait(SECOND)), Ok(State::Cancelled));

    assert_eq!(life.last_change().reason, "WORKER_STOPPED");
    assert_eq!((life.job.end_time, life.job.failure.clone()), (Some(life.now), None));
    assert_eq!(life.job.next_due(), None);
}

#[rstest]
#[case::stops(|life: &mut Life| life.fails_with(None, None))]
#[case::gives_back(|life: &mut Life| life.releases(HOUR))]
fn whatever_a_worker_repeats_after_it_let_go_hears_of_the_cancellation(
    #[case] lets_go: fn(&mut Life) -> Result<State, Refusal>,
) {
    let mut life = cancelling();
    let refused = life.completes();
    assert_eq!(lets_go(&mut life), Ok(State::Cancelled));

    assert_eq!((life.completes(), refused), (Err(Refusal::JobCancelled), Err(Refusal::JobCancelled)));
    assert_eq!(life.fails(error()), Ok(State::Cancelled));
    assert_eq!(life.releases(HOUR), Ok(State::Cancelled));
}

#[rstest]
#[case(LeaseEnd::Expired, "LEASE_EXPIRED")]
#[case(LeaseEnd::Stalled, "STALLED")]
#[case(LeaseEnd::Restarted, "SERVER_RESTART")]
fn the_end_of_the_lease_ends_the_job_cancelled(#[case] cause: LeaseEnd, #[case] reason: &str) {
    let mut life = cancelling();

    assert_eq!(life.ends(cause), Ok(State::Cancelled));

    assert_eq!(life.last_change().reason, reason);
    assert_eq!(life.fails(error()), Ok(State::Cancelled));
}

#[test]
fn the_end_of_the_grace_period_ends_the_job_cancelled() {
    let mut life = cancelling();

    assert_eq!(life.job.next_due(), Some(START.after(MINUTE)));
    assert_eq!(life.wait(MINUTE - TICK).advance(), State::Cancelling);
    assert_eq!(life.wait(TICK).advance(), State::Cancelled);
    assert_eq!(life.last_change().reason, "GRACE_PERIOD_ENDED");
}

#[test]
fn a_timeout_during_the_grace_period_ends_the_job_cancelled() {
    let attempt = Options { start_to_close_timeout: Some(SECOND), ..options() };
    let whole = Options { schedule_to_close_timeout: Some(SECOND), ..options() };
    for (options, reason) in [(attempt, "ATTEMPT_TIMEOUT"), (whole, "JOB_TIMEOUT")] {
        let mut life = Life::running(options);
        life.cancel(MINUTE).unwrap();

        assert_eq!(life.job.next_due(), Some(START.after(SECOND)));
        assert_eq!(life.wait(SECOND).advance(), State::Cancelled);
        assert_eq!(life.last_change().reason, reason);
    }
}

#[test]
fn cancelling_twice_changes_nothing() {
    let mut life = cancelling();
    let (job, events) = (life.job.clone(), life.events.len());

    assert_eq!(life.wait(SECOND * 30).cancel(HOUR), Ok(State::Cancelling));

    assert_eq!((&life.job, life.events.len()), (&job, events));
    assert_eq!(life.wait(SECOND * 30).advance(), State::Cancelled);
}

#[test]
fn a_job_that_is_being_cancelled_still_records_what_its_worker_sends() {
    let mut life = cancelling();

    assert_eq!(life.outputs("", None, 0, "the end"), Ok(State::Cancelling));
    assert_eq!(life.logs(0, &["stopping"]), Ok(State::Cancelling));

    assert_eq!(life.last_change().worker.as_deref(), Some("w"));
    assert_eq!(life.events.len(), 5);
}

#[test]
fn a_worker_stops_for_no_reason_only_where_it_was_asked_to() {
    let mut life = Life::running(options());

    assert_eq!(life.fails_with(None, None), Err(Refusal::NothingToStop));
    assert_eq!(life.job.state, State::Running);
}
