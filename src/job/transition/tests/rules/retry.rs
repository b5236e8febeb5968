//! When a failed attempt is repeated, and which attempts count.

use crate::job::transition::tests::life::*;
use crate::job::*;
use std::time::Duration;

fn error() -> Failure {
    Failure::new("HANDLER_ERROR", "no")
}

fn attempts(maximum_attempts: u32) -> Options {
    let mut options = options();
    options.retry.maximum_attempts = maximum_attempts;
    options
}

/// The wait that the last failure led to.
fn waiting(life: &Life) -> Duration {
    life.job.next_attempt_time.expect("it waits").since(life.now)
}

/// Lets the wait pass and begins the next attempt.
fn again(life: &mut Life) {
    life.now = life.job.next_attempt_time.expect("it waits");
    assert_eq!(life.advance(), State::Pending);
    life.begin();
}

#[test]
fn the_waits_double_from_a_second_to_five_minutes() {
    let mut life = Life::running(attempts(12));

    let mut waits = Vec::new();
    for _ in 0..11 {
        assert_eq!(life.fails(error()), Ok(State::Retrying));
        waits.push(waiting(&life).as_secs());
        again(&mut life);
    }

    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(life.fails(error()), Ok(State::Failed));
}

#[test]
fn a_wait_is_anything_from_none_to_its_bound() {
    for (jitter, milliseconds) in [(0.0, 0), (0.25, 250), (1.0, 1000)] {
        let mut life = Life::running(options());
        life.jitter = jitter;

        assert_eq!(life.fails(error()), Ok(State::Retrying));

        assert_eq!(waiting(&life), Duration::from_millis(milliseconds));
    }
}

#[test]
fn a_worker_may_ask_for_a_longer_wait_but_not_for_a_shorter_one() {
    for (asked, waited) in [(MINUTE, MINUTE), (Duration::ZERO, SECOND)] {
        let mut life = Life::running(options());

        assert_eq!(life.fails_with(Some(error()), Some(asked)), Ok(State::Retrying));

        assert_eq!(waiting(&life), waited);
    }
}

#[test]
fn a_job_has_three_attempts_unless_it_says_otherwise() {
    let mut life = Life::running(options());

    assert_eq!(life.fails(error()), Ok(State::Retrying));
    again(&mut life);
    assert_eq!(life.fails(error()), Ok(State::Retrying));
    again(&mut life);
    assert_eq!(life.fails(error()), Ok(State::Failed));

    assert_eq!((life.job.attempt, life.job.counted_attempts), (3, 3));
    assert_eq!(life.job.end_time, Some(life.now));
    assert_eq!(life.job.next_due(), None);
}

#[test]
fn one_attempt_means_no_retry() {
    let mut life = Life::running(attempts(1));

    assert_eq!(life.fails(error()), Ok(State::Failed));

    assert_eq!(life.job.failure, Some(error()));
}

#[test]
fn a_permanent_failure_is_not_retried() {
    let mut life = Life::running(attempts(1000));
    let refused = Failure::new("PROVIDER_REFUSED", "no").permanent();

    assert_eq!(life.fails(refused.clone()), Ok(State::Failed));

    assert_eq!(life.last_change().reason, "PROVIDER_REFUSED");
    assert_eq!(life.last_change().failure, Some(refused));
}

#[test]
fn a_retry_tells_why_and_when_and_starts_then() {
    let mut life = Life::running(options());
    life.fails(error()).unwrap();

    let change = life.last_change().clone();
    assert_eq!((change.previous, change.state), (Some(State::Running), State::Retrying));
    assert_eq!(change.next_attempt_time, Some(START.after(SECOND)));
    assert_eq!((change.failure, change.worker.as_deref()), (Some(error()), Some("w")));
    assert_eq!(life.job.failure, Some(error()));

    assert_eq!(life.wait(Duration::from_millis(999)).advance(), State::Retrying);
    assert_eq!(life.wait(Duration::from_millis(1)).advance(), State::Pending);
    assert_eq!((life.job.failure.clone(), life.job.next_attempt_time), (None, None));
}

#[test]
fn a_worker_that_dies_three_times_fails_the_job() {
    let mut life = Life::running(options());

    assert_eq!(life.ends(LeaseEnd::Expired), Ok(State::Pending));
    life.begin();
    assert_eq!(life.ends(LeaseEnd::Expired), Ok(State::Pending));
    life.begin();
    assert_eq!(life.ends(LeaseEnd::Expired), Ok(State::Failed));

    assert_eq!(life.job.failure.as_ref().map(|failure| &*failure.reason), Some("LEASE_EXPIRED"));
    assert_eq!(life.job.counted_attempts, 3);
}

#[test]
fn ten_restarts_of_the_server_do_not_count_and_the_next_one_fails_the_job() {
    let mut life = Life::running(attempts(1));

    for restart in 1..=10 {
        assert_eq!(life.ends(LeaseEnd::Restarted), Ok(State::Pending), "restart {restart}");
        assert_eq!(life.job.counted_attempts, 0);
        life.begin();
    }

    assert_eq!(life.ends(LeaseEnd::Restarted), Ok(State::Failed));
    assert_eq!(life.last_change().reason, "SERVER_RESTART");
    assert_eq!(life.job.attempt, 11);
}

#[test]
fn a_thousand_releases_do_not_count_and_the_next_one_fails_the_job() {
    let mut life = Life::running(attempts(1));

    for release in 1..=1000 {
        assert_eq!(life.releases(Duration::ZERO), Ok(State::Pending), "release {release}");
        assert_eq!(life.job.counted_attempts, 0);
        life.begin();
    }

    assert_eq!(life.releases(Duration::ZERO), Ok(State::Failed));
    assert_eq!(life.last_change().reason, "RELEASE_LIMIT");
    assert_eq!(life.job.attempt, 1001);
}

#[test]
fn a_job_given_back_with_a_delay_waits_for_it_without_a_failure() {
    let mut life = Life::running(options());

    assert_eq!(life.releases(MINUTE), Ok(State::Scheduled));

    assert_eq!(life.job.next_attempt_time, Some(START.after(MINUTE)));
    assert_eq!(life.job.failure, None);
    assert_eq!((&*life.last_change().reason, &*life.last_change().message), ("RELEASED", "later"));
    assert_eq!(life.wait(MINUTE).advance(), State::Pending);
}

#[test]
fn releases_and_restarts_do_not_lengthen_the_next_wait() {
    let mut life = Life::running(options());
    for cause in [None, Some(LeaseEnd::Restarted), None] {
        match cause {
            Some(cause) => life.ends(cause).unwrap(),
            None => life.releases(Duration::ZERO).unwrap(),
        };
        life.begin();
    }

    life.fails(error()).unwrap();

    assert_eq!(waiting(&life), SECOND);
    assert_eq!((life.job.attempt, life.job.counted_attempts), (4, 1));
}

#[test]
fn a_claim_that_nobody_accepts_leaves_no_trace() {
    let mut life = Life::new(options());
    let fresh = life.job.clone();

    for _ in 0..5 {
        life.claim(false).unwrap();
        assert_eq!(life.wait(SECOND).ends(LeaseEnd::Unaccepted), Ok(State::Pending));
    }

    assert_eq!(life.events.len(), 1);
    assert_eq!((life.job.attempt, life.job.counted_attempts, life.job.start_time), (0, 0, None));
    // The next lease must not share a number with one that somebody may still hold.
    assert_eq!(life.job.epoch, fresh.epoch + 5);
}

#[test]
fn the_first_report_begins_the_attempt() {
    let mut life = Life::new(options());
    life.claim(false).unwrap();

    assert_eq!(life.wait(SECOND).enters("reading"), Ok(State::Running));

    assert_eq!((life.job.attempt, life.job.start_time), (1, Some(START.after(SECOND))));
    assert!(matches!(&life.events[1].body, Body::StateChanged(change) if change.state == State::Running));
    assert_eq!(life.events[2].body, Body::StageEntered { name: "reading".into() });
}
