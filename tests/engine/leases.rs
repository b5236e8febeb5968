//! Who works on a job, for how long, and who is woken when there is work.

use crate::lab::*;
use longhaul::engine::{Error, Order};
use longhaul::job::*;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn lease_lost<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Refused(Refusal::LeaseLost)))
}

#[tokio::test]
async fn a_worker_that_waits_is_woken_by_a_start() {
    let lab = Lab::new().await;

    let waiting = tokio::spawn({
        let engine = lab.engine.clone();
        async move { engine.lease(&worker(true), 1).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let id = lab.start(plain()).await;

    assert_eq!(within(waiting).await.unwrap().unwrap()[0].token.job, id);
}

#[tokio::test]
async fn each_of_two_workers_that_wait_gets_one_of_two_jobs() {
    let lab = Lab::new().await;
    let wait = || {
        let engine = lab.engine.clone();
        tokio::spawn(async move { engine.lease(&worker(true), 1).await })
    };
    let (one, other) = (wait(), wait());
    tokio::time::sleep(Duration::from_millis(20)).await;

    let mut started = [lab.start(plain()).await, lab.start(plain()).await];

    let mut leased = [
        within(one).await.unwrap().unwrap()[0].token.job,
        within(other).await.unwrap().unwrap()[0].token.job,
    ];
    started.sort();
    leased.sort();
    assert_eq!(leased, started);
}

#[tokio::test]
async fn a_retry_is_handed_out_when_it_is_due() {
    let lab = Lab::new().await;
    let first = lab.start_and_run(plain()).await;
    let failure = Failure::new("UNLUCKY", "once");
    within(lab.engine.fail(&first.token, Some(failure), Some(60 * SECOND))).await.unwrap();

    assert!(
        tokio::time::timeout(Duration::from_millis(50), lab.engine.lease(&worker(true), 1)).await.is_err()
    );
    lab.clock.advance(61 * SECOND);

    assert_eq!(lab.run().await.snapshot.job.attempt, 2);
}

#[tokio::test]
async fn a_freed_key_lets_the_next_job_in() {
    let lab = Lab::new().await;
    let keyed = || spec(|options| options.concurrency = Some(Concurrency { key: "gpu".into(), limit: 1 }));
    lab.start(keyed()).await;
    let second = lab.start(keyed()).await;
    let first = lab.run().await;

    assert!(
        tokio::time::timeout(Duration::from_millis(50), lab.engine.lease(&worker(true), 1)).await.is_err()
    );
    within(lab.engine.complete(&first.token, "{}".into())).await.unwrap();

    assert_eq!(lab.run().await.token.job, second);
}

#[tokio::test]
async fn a_claim_that_is_never_accepted_leaves_no_trace() {
    let lab = Lab::new().await;
    let id = lab.start(plain()).await;
    let unaccepted = within(lab.engine.lease(&worker(false), 1)).await.unwrap().remove(0);

    lab.clock.advance(ACCEPT_TIMEOUT + SECOND / 2);
    let leased = lab.run().await;

    assert_eq!((leased.token.job, leased.snapshot.job.attempt), (id, 1));
    assert!(lease_lost(lab.engine.enter_stage(&unaccepted.token, "late".into()).await));
    let steps = steps(&lab.history(id).await);
    assert_eq!(steps.len(), 2, "{steps:?}");
}

#[tokio::test]
async fn a_silent_attempt_is_ended_and_what_it_says_later_does_not_count() {
    let lab = Lab::new().await;
    let patient = || spec(|options| options.progress_timeout = Some(SECOND));
    let leased = lab.start_and_run(patient()).await;
    let (id, token) = (leased.token.job, leased.token);

    // Each sign of life is enough.
    lab.pass(SECOND * 4 / 5).await;
    lab.engine.report(&token, Some(Progress::default()), Metrics::new()).unwrap();
    lab.pass(SECOND * 4 / 5).await;
    within(lab.engine.append_output(&token, "", "x".into())).await.unwrap();
    lab.pass(SECOND * 4 / 5).await;
    within(lab.engine.append_log(&token, 0, vec![])).await.unwrap();
    lab.pass(SECOND * 4 / 5).await;
    assert_eq!(lab.job(id).await.state, State::Running);
    lab.pass(SECOND * 3 / 2).await;

    let job = lab.reach(id, State::Retrying).await;
    assert_eq!(job.failure.unwrap().reason, reason::STALLED);
    assert!(lease_lost(lab.engine.complete(&token, "{}".into()).await));
    assert!(lease_lost(lab.engine.report(&token, Some(Progress::default()), Metrics::new())));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_ended_and_its_worker_told() {
    let lab = Lab::new().await;
    let mut leased =
        lab.start_and_run(spec(|options| options.start_to_close_timeout = Some(10 * SECOND))).await;

    lab.clock.advance(11 * SECOND);

    let job = lab.reach(leased.token.job, State::Retrying).await;
    assert_eq!(job.failure.unwrap().reason, reason::ATTEMPT_TIMEOUT);
    let order = within(leased.orders.wait_for(|order| *order != Order::Continue)).await.map(|order| *order);
    assert!(matches!(order, Ok(Order::Lost) | Err(_)), "{order:?}");
}

#[tokio::test]
async fn a_cancelled_attempt_is_told_then_ended_and_cannot_succeed() {
    let lab = Lab::new().await;
    let mut leased = lab.start_and_run(plain()).await;
    let id = leased.token.job;

    let cancelling = within(lab.engine.cancel(id, "enough".into(), Some(5 * SECOND))).await.unwrap();
    let order = *within(leased.orders.wait_for(|order| *order != Order::Continue)).await.unwrap();
    let too_late = within(lab.engine.complete(&leased.token, "{}".into())).await;
    lab.clock.advance(6 * SECOND);
    let ended = lab.reach(id, State::Cancelled).await;

    assert_eq!(cancelling.job.state, State::Cancelling);
    assert_eq!(order, Order::Cancel { grace: 5 * SECOND });
    assert!(matches!(too_late, Err(Error::Refused(Refusal::JobCancelled))), "{too_late:?}");
    assert_eq!(ended.state, State::Cancelled);
    assert_eq!(steps(&lab.history(id).await).last().unwrap().0, State::Cancelled);
}

#[tokio::test]
async fn a_job_that_nobody_takes_in_time_expires() {
    let lab = Lab::new().await;
    let id = lab.start(spec(|options| options.schedule_to_start_timeout = Some(10 * SECOND))).await;

    lab.clock.advance(11 * SECOND);

    lab.reach(id, State::Expired).await;
}

#[tokio::test]
async fn an_attempt_is_not_late_where_the_server_itself_was_stopped() {
    let lab = Lab::new().await;
    let leased = lab.start_and_run(spec(|options| options.progress_timeout = Some(10 * SECOND))).await;

    // Between two looks at the leases an hour has passed: nobody could have been heard.
    lab.clock.advance(3600 * SECOND);
    tokio::time::sleep(Duration::from_millis(600)).await;

    assert_eq!(lab.job(leased.token.job).await.state, State::Running);
}
