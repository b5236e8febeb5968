//! What becomes of claims that nobody accepts, and what a lease is asked twice.

use crate::job::limits::UNACCEPTED_MAX;
use crate::job::transition::tests::life::*;
use crate::job::*;
use rstest::rstest;
use std::time::Duration;

#[test]
fn a_claim_that_is_given_back_at_once_leaves_no_trace() {
    let mut life = Life::new(options());
    life.claim(false).unwrap();

    assert_eq!(life.releases(Duration::ZERO), Ok(State::Pending));
    assert_eq!(life.releases(Duration::ZERO), Ok(State::Pending), "a repeat has the same answer");

    assert_eq!((life.events.len(), life.job.attempt, life.job.releases), (1, 0, 0));
    assert_eq!(life.job.place(), Place::Ready);
    assert_eq!(life.completes(), Err(Refusal::LeaseLost));
}

#[rstest]
#[case::a_claim_that_lapses(LeaseEnd::Unaccepted, false)]
#[case::an_attempt_that_the_server_ends(LeaseEnd::Expired, true)]
fn a_report_gets_its_answer_again_whatever_the_server_ends_meanwhile(
    #[case] cause: LeaseEnd,
    #[case] accept: bool,
) {
    let mut life = Life::running(options());
    let lease = life.token();
    let fail = || Command::Fail {
        lease,
        failure: Some(Failure::new("BROKEN", "it broke")),
        retry_delay: None,
        live: Live::default(),
        jitter: 1.0,
    };
    assert_eq!(life.does(fail()), Ok(State::Retrying));

    life.wait(HOUR).advance();
    life.claim(accept).unwrap();
    life.ends(cause).unwrap();

    assert_eq!(life.job.state, State::Pending);
    assert_eq!(life.does(fail()), Ok(State::Retrying));
}

#[test]
fn a_claim_that_is_given_back_for_later_was_an_attempt() {
    let mut life = Life::new(options());
    life.claim(false).unwrap();

    assert_eq!(life.releases(HOUR), Ok(State::Scheduled));

    assert_eq!((life.job.attempt, life.job.counted_attempts, life.job.releases), (1, 0, 1));
}

#[test]
fn a_job_that_nobody_ever_accepts_ends() {
    let mut life = Life::new(options());
    for _ in 1..UNACCEPTED_MAX {
        life.claim(false).unwrap();
        assert_eq!(life.ends(LeaseEnd::Unaccepted), Ok(State::Pending));
    }
    assert_eq!(life.events.len(), 1);

    life.claim(false).unwrap();
    assert_eq!(life.ends(LeaseEnd::Unaccepted), Ok(State::Failed));

    assert_eq!(life.last_change().reason, "NOT_ACCEPTED");
    assert!(life.job.lease.is_none());
}

#[test]
fn attempts_that_began_are_none_of_those_claims() {
    let mut life = Life::new(options());
    for _ in 0..2 * UNACCEPTED_MAX {
        life.begin();
        assert_eq!(life.releases(Duration::ZERO), Ok(State::Pending));
    }

    life.claim(false).unwrap();

    assert_eq!(life.ends(LeaseEnd::Unaccepted), Ok(State::Pending));
}

#[test]
fn a_claim_that_never_reached_a_worker_says_nothing_about_its_job() {
    let mut life = Life::new(options());
    for _ in 0..2 * UNACCEPTED_MAX {
        life.claim(false).unwrap();
        assert_eq!(life.ends(LeaseEnd::Undelivered), Ok(State::Pending));
    }

    life.claim(false).unwrap();

    assert_eq!(life.ends(LeaseEnd::Unaccepted), Ok(State::Pending));
    assert_eq!((life.events.len(), life.job.unaccepted), (1, 1));
}

#[test]
fn a_claim_that_is_given_back_at_once_was_in_good_hands() {
    let mut life = Life::new(options());
    for _ in 0..2 * UNACCEPTED_MAX {
        life.claim(false).unwrap();
        life.releases(Duration::ZERO).unwrap();
    }

    life.claim(false).unwrap();

    assert_eq!(life.ends(LeaseEnd::Unaccepted), Ok(State::Pending));
}

#[test]
fn an_acceptance_makes_up_for_all_claims_before_it() {
    let mut life = Life::new(options());
    for _ in 0..3 {
        for _ in 1..UNACCEPTED_MAX {
            life.claim(false).unwrap();
            assert_eq!(life.ends(LeaseEnd::Unaccepted), Ok(State::Pending));
        }
        life.begin();
        life.releases(Duration::ZERO).unwrap();
    }

    assert_eq!((life.job.unaccepted, life.job.attempt), (0, 3));
}

#[test]
fn a_stage_is_entered_once_and_again_in_the_next_attempt() {
    let mut life = Life::running(options());
    for stage in ["one", "one", "two", "two", "one"] {
        life.enters(stage).unwrap();
    }
    life.releases(Duration::ZERO).unwrap();
    life.begin();
    life.enters("one").unwrap();

    let entered: Vec<&str> = life
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::StageEntered { name } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(entered, ["one", "two", "one", "one"]);
}

#[test]
fn more_output_than_was_announced_is_no_success() {
    let mut life = Life::running(options());
    life.outputs("", None, 0, "abc").unwrap();

    assert_eq!(life.completes_with(Some(2)), Err(Refusal::OutputConflict { offset: 2 }));
    assert_eq!(life.completes_with(Some(4)), Err(Refusal::OutputMissing { present: 3, announced: 4 }));
    assert_eq!(life.completes_with(Some(3)), Ok(State::Succeeded));
}
