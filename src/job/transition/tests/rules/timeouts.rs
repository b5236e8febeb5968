//! What ends although nobody says so: late starts, long attempts, long lives, silence; and what time counts.

use crate::job::transition::tests::life::*;
use crate::job::*;
use std::time::Duration;

const TICK: Duration = Duration::from_micros(1);

fn start_within(limit: Duration) -> Options {
    Options { schedule_to_start_timeout: Some(limit), ..options() }
}

fn attempt_within(limit: Duration) -> Options {
    Options { start_to_close_timeout: Some(limit), ..options() }
}

fn life_within(limit: Duration) -> Options {
    Options { schedule_to_close_timeout: Some(limit), ..options() }
}

fn failure_reason(life: &Life) -> Option<&str> {
    life.job.failure.as_ref().map(|failure| &*failure.reason)
}

#[test]
fn a_job_with_a_time_waits_for_it() {
    let mut life = Life::new(Options { schedule_time: Some(START.after(HOUR)), ..options() });

    assert_eq!(life.job.state, State::Scheduled);
    assert_eq!(life.job.next_due(), Some(START.after(HOUR)));
    assert_eq!(life.last_change().next_attempt_time, Some(START.after(HOUR)));
    assert_eq!(life.wait(HOUR - TICK).advance(), State::Scheduled);
    assert_eq!(life.wait(TICK).advance(), State::Pending);
    assert_eq!(life.last_change().previous, Some(State::Scheduled));
}

#[test]
fn a_time_in_the_past_means_now() {
    let life = Life::new(Options { schedule_time: Some(Timestamp::from_micros(1)), ..options() });

    assert_eq!(life.job.state, State::Pending);
    assert_eq!(life.job.next_attempt_time, None);
}

#[test]
fn a_job_that_no_worker_begins_in_time_expires() {
    let mut life = Life::new(start_within(MINUTE));

    assert_eq!(life.job.next_due(), Some(START.after(MINUTE)));
    assert_eq!(life.wait(MINUTE - TICK).advance(), State::Pending);
    assert_eq!(life.wait(TICK).advance(), State::Expired);
    assert_eq!(failure_reason(&life), Some("START_TIMEOUT"));
}

#[test]
fn the_wait_for_a_worker_counts_from_the_later_of_ticket_and_time() {
    for (schedule_time, base) in
        [(START.after(HOUR), START.after(HOUR)), (Timestamp::from_micros(1), START), (START, START)]
    {
        let mut life = Life::new(Options { schedule_time: Some(schedule_time), ..start_within(MINUTE) });

        life.now = Timestamp::from_micros(base.after(MINUTE).as_micros() - 1);
        life.advance();
        assert_ne!(life.job.state, State::Expired);
        assert_eq!(life.wait(TICK).advance(), State::Expired);
    }
}

#[test]
fn a_claim_that_was_not_accepted_does_not_save_a_job_from_expiry() {
    let mut life = Life::new(start_within(MINUTE));
    life.claim(false).unwrap();
    let lease = life.token();

    assert_eq!(life.wait(MINUTE).advance(), State::Expired);

    assert_eq!(life.does(Command::Accept { lease }), Err(Refusal::LeaseLost));
}

#[test]
fn a_job_that_was_begun_once_never_expires() {
    let mut life = Life::running(start_within(MINUTE));

    life.ends(LeaseEnd::Expired).unwrap();

    assert_eq!(life.job.next_due(), None);
    assert_eq!(life.wait(HOUR).advance(), State::Pending);
}

#[test]
fn an_attempt_that_takes_too_long_loses_its_lease_and_counts() {
    let mut life = Life::new(attempt_within(MINUTE));
    life.claim(false).unwrap();
    let lease = life.token();
    life.wait(HOUR).does(Command::Accept { lease }).unwrap();

    assert_eq!(life.job.next_due(), Some(START.after(HOUR + MINUTE)));
    assert_eq!(life.wait(MINUTE - TICK).advance(), State::Running);
    assert_eq!(life.wait(TICK).advance(), State::Retrying);

    assert_eq!(failure_reason(&life), Some("ATTEMPT_TIMEOUT"));
    assert_eq!(life.job.next_attempt_time, Some(life.now.after(SECOND)));
    assert_eq!(life.job.counted_attempts, 1);
    assert_eq!(life.completes(), Err(Refusal::LeaseLost));
}

#[test]
fn the_last_attempt_that_takes_too_long_fails_the_job() {
    let mut options = attempt_within(MINUTE);
    options.retry.maximum_attempts = 1;
    let mut life = Life::running(options);

    assert_eq!(life.wait(MINUTE).advance(), State::Failed);

    assert_eq!(failure_reason(&life), Some("ATTEMPT_TIMEOUT"));
}

#[test]
fn each_attempt_has_the_whole_time() {
    let mut life = Life::running(attempt_within(MINUTE));
    life.wait(SECOND * 50).ends(LeaseEnd::Expired).unwrap();
    life.wait(SECOND * 5).begin();

    assert_eq!(life.job.next_due(), Some(START.after(SECOND * 55 + MINUTE)));
}

#[test]
fn a_life_that_takes_too_long_fails_wherever_it_is() {
    for name in ["pending", "claimed", "running", "retrying", "given back"] {
        let mut life = Life::new(life_within(MINUTE));
        match name {
            "claimed" => assert_eq!(life.claim(false), Ok(State::Pending)),
            "running" | "retrying" | "given back" => life.begin(),
            _ => {}
        }
        match name {
            "retrying" => {
                let failure = Failure::new("HANDLER_ERROR", "no");
                assert_eq!(life.fails_with(Some(failure), Some(HOUR)), Ok(State::Retrying));
            }
            "given back" => assert_eq!(life.releases(HOUR), Ok(State::Scheduled)),
            _ => {}
        }

        assert_eq!(life.job.next_due(), Some(START.after(MINUTE)), "{name}");
        assert_eq!(life.wait(MINUTE).advance(), State::Failed, "{name}");
        assert_eq!(failure_reason(&life), Some("JOB_TIMEOUT"), "{name}");
    }
}

#[test]
fn a_life_counts_from_its_time_where_that_is_later() {
    let life = Life::new(Options { schedule_time: Some(START.after(HOUR)), ..life_within(MINUTE) });

    assert_eq!(life.job.next_due(), Some(START.after(HOUR)));

    let mut life = life;
    life.wait(HOUR).advance();
    assert_eq!(life.job.next_due(), Some(START.after(HOUR + MINUTE)));
}

#[test]
fn a_silent_attempt_counts_and_is_retried_after_a_wait() {
    let mut life = Life::running(Options { progress_timeout: Some(MINUTE), ..options() });

    assert_eq!(life.ends(LeaseEnd::Stalled), Ok(State::Retrying));

    assert_eq!(failure_reason(&life), Some("STALLED"));
    assert_eq!(life.job.next_attempt_time, Some(START.after(SECOND)));
    assert_eq!(life.job.counted_attempts, 1);
}

#[test]
fn the_earliest_limit_is_what_is_due_next() {
    let options = Options {
        schedule_to_start_timeout: Some(SECOND * 10),
        start_to_close_timeout: Some(SECOND * 30),
        schedule_to_close_timeout: Some(SECOND * 40),
        ..options()
    };
    let mut life = Life::new(options);

    assert_eq!(life.job.next_due(), Some(START.after(SECOND * 10)));
    life.wait(SECOND * 5).begin();
    assert_eq!(life.job.next_due(), Some(START.after(SECOND * 35)));
    life.ends(LeaseEnd::Expired).unwrap();
    assert_eq!(life.job.next_due(), Some(START.after(SECOND * 40)));
    life.wait(SECOND * 15).begin();
    assert_eq!(life.job.next_due(), Some(START.after(SECOND * 40)));
    life.cancel(SECOND * 3).unwrap();
    assert_eq!(life.job.next_due(), Some(START.after(SECOND * 23)));
}

#[test]
fn queueing_is_the_time_spent_ready_without_a_worker() {
    let mut life = Life::new(Options { schedule_time: Some(START.after(HOUR)), ..options() });
    life.wait(HOUR).advance();
    life.wait(SECOND * 2).begin();
    life.wait(MINUTE).fails(Failure::new("HANDLER_ERROR", "no")).unwrap();
    life.wait(SECOND * 7).advance();
    life.wait(SECOND * 3).begin();

    assert_eq!(life.job.queue_duration, SECOND * 5);
    assert_eq!(life.job.run_duration, MINUTE);
}

#[test]
fn running_is_the_time_spent_with_a_worker_in_all_attempts() {
    let mut life = Life::running(options());
    life.wait(SECOND * 10).releases(MINUTE).unwrap();
    life.wait(MINUTE).advance();
    life.begin();
    life.wait(SECOND * 20).cancel(HOUR).unwrap();
    life.wait(SECOND * 5).fails_with(None, None).unwrap();

    assert_eq!(life.job.state, State::Cancelled);
    assert_eq!(life.job.run_duration, SECOND * 35);
    assert_eq!(life.job.attempt_start_time, Some(START.after(SECOND * 70)));
    assert_eq!(life.job.start_time, Some(START));
}

#[test]
fn queueing_counts_where_no_worker_ever_came() {
    let mut expired = Life::new(start_within(MINUTE));
    expired.wait(MINUTE).advance();
    let mut cancelled = Life::new(options());
    cancelled.wait(SECOND * 5).cancel(HOUR).unwrap();

    assert_eq!(expired.job.queue_duration, MINUTE);
    assert_eq!(cancelled.job.queue_duration, SECOND * 5);
}
