//! How a lease ends that nobody ends: silence, limits of time, cancellation. And what that does to its holder.

use crate::bench::*;
use longhaul::engine::{Error, Order, Worker};
use longhaul::job::*;
use rstest::rstest;
use std::time::Duration;

const LOST: Result<(), Error> = Err(Error::Refused(Refusal::LeaseLost));

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_accepted_leaves_no_trace(#[values(Kept::Memory, Kept::Sqlite)] kept: Kept) {
    let bench = Bench::on(kept).await;
    let job = bench.start().await;
    let leased = bench.lease_for(&remote()).await;

    bench.pass(9 * SECOND).await;
    assert_eq!(*leased.orders.borrow(), Order::Continue);
    bench.pass(SECOND).await;

    assert_eq!(*leased.orders.borrow(), Order::Lost);
    assert_eq!(bench.reasons(job).await, [reason::CREATED]);
    assert_eq!(within(bench.engine.append_log(&leased.token, 0, line("late"))).await, LOST);
    let next = bench.lease().await;
    assert_eq!((next.token.job, next.snapshot.job.attempt), (job, 1));
}

#[tokio::test(start_paused = true)]
async fn a_remote_worker_that_falls_silent_loses_its_attempt() {
    let bench = Bench::new().await;
    let job = bench.start().await;
    let leased = bench.lease_for(&remote()).await;
    within(bench.engine.append_log(&leased.token, 0, line("here"))).await.unwrap();
    assert_eq!(bench.state(job).await, State::Running);

    bench.pass(31 * SECOND).await;

    assert_eq!(bench.reasons(job).await, [reason::CREATED, reason::ACCEPTED, reason::LEASE_EXPIRED]);
    assert_eq!(*leased.orders.borrow(), Order::Lost);
    let next = bench.lease().await.snapshot.job;
    assert_eq!((next.attempt, next.counted_attempts), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_has_ended_records_nothing() {
    let bench = Bench::new().await;
    let job = bench.start_with(|options| options.start_to_close_timeout = Some(SECOND)).await;
    let old = bench.lease().await.token;
    bench.pass(3 * SECOND).await;
    let new = bench.lease().await.token;
    assert_eq!(new.epoch, old.epoch + 1);

    let output = within(bench.engine.append_output(&old, "", "late".into())).await;
    let stage = within(bench.engine.enter_stage(&old, "late".into())).await;
    let report = bench.engine.report(&old, progress(0.9), Metrics::new());
    let complete = within(bench.engine.complete(&old, "{}".into(), Metrics::new(), None)).await;

    assert_eq!([output, stage, report, complete.map(drop)], [LOST; 4]);
    assert!(pieces(&bench.history(job).await, "").is_empty());
    assert_eq!(bench.complete(&new).await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn output_in_hand_when_the_lease_ends_is_refused() {
    let bench = Bench::new().await;
    let job = bench.start_with(|options| options.start_to_close_timeout = Some(SECOND)).await;
    let old = bench.lease().await.token;
    bench.write(&old, "first").await;
    bench.settle().await;
    bench.write(&old, "held").await;

    // All of it at once: the timer of the attempt fires first, the window of the output ends later.
    bench.clock.advance(SECOND);
    bench.settle().await;
    tokio::time::advance(Duration::from_millis(50)).await;
    bench.settle().await;

    assert_eq!(bench.state(job).await, State::Retrying);
    assert_eq!(pieces(&bench.history(job).await, ""), ["first"]);
}

#[rstest]
#[case::nothing(None, reason::STALLED)]
#[case::progress(Some("progress"), reason::ACCEPTED)]
#[case::output(Some("output"), reason::ACCEPTED)]
#[case::log(Some("log"), reason::ACCEPTED)]
#[tokio::test(start_paused = true)]
async fn an_attempt_stalls_unless_it_gives_signs(#[case] sign: Option<&str>, #[case] last: &str) {
    let bench = Bench::new().await;
    let job = bench
        .start_with(|options| {
            options.progress_timeout = Some(5 * SECOND);
            options.retry.maximum_attempts = 1;
        })
        .await;
    let token = bench.lease().await.token;

    for n in 0..3 {
        bench.pass(4 * SECOND).await;
        match sign {
            Some("progress") => bench.engine.report(&token, progress(0.1), Metrics::new()).unwrap(),
            Some("output") => bench.write(&token, "x").await,
            Some(_) => within(bench.engine.append_log(&token, n, line("x"))).await.unwrap(),
            None => {}
        }
    }

    assert_eq!(bench.reasons(job).await.last().unwrap(), last);
    bench.pass(6 * SECOND).await;
    assert_eq!(bench.reasons(job).await.last().unwrap(), reason::STALLED);
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_ends_with_the_last_it_reported(
    #[values(Kept::Memory, Kept::Sqlite)] kept: Kept,
) {
    let bench = Bench::on(kept).await;
    let job = bench
        .start_with(|options| {
            options.start_to_close_timeout = Some(2 * SECOND);
            options.retry.initial_interval = Duration::from_secs(100);
        })
        .await;
    let leased = bench.lease().await;
    bench.pass(SECOND).await;
    bench.engine.report(&leased.token, progress(0.7), [("tokens".to_owned(), 7.0)].into()).unwrap();

    bench.pass(SECOND).await;

    let history = bench.history(job).await;
    let Body::StateChanged(change) = &history.last().unwrap().body else { panic!("{history:?}") };
    assert_eq!((change.state, &*change.reason), (State::Retrying, reason::ATTEMPT_TIMEOUT));
    assert_eq!(change.metrics["tokens"], 7.0);
    assert_eq!(*leased.orders.borrow(), Order::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_is_an_order_first_and_an_end_after_its_grace() {
    let bench = Bench::new().await;
    let mut leased = bench.run().await;
    let job = leased.token.job;

    within(bench.engine.cancel(job, "enough".into(), Some(3 * SECOND))).await.unwrap();
    within(leased.orders.changed()).await.unwrap();
    assert_eq!(*leased.orders.borrow_and_update(), Order::Cancel { grace: 3 * SECOND });
    within(bench.engine.cancel(job, "more than enough".into(), Some(SECOND))).await.unwrap();
    let complete = within(bench.engine.complete(&leased.token, "{}".into(), Metrics::new(), None)).await;
    assert_eq!(complete, Err(Error::Refused(Refusal::JobCancelled)));
    bench.pass(2 * SECOND).await;
    assert_eq!(bench.state(job).await, State::Cancelling);
    bench.pass(SECOND).await;

    assert_eq!(*leased.orders.borrow(), Order::Lost);
    let wanted = [reason::CREATED, reason::ACCEPTED, reason::CANCEL_REQUESTED, reason::GRACE_PERIOD_ENDED];
    assert_eq!(bench.reasons(job).await, wanted);
    assert_eq!(
        within(bench.engine.complete(&leased.token, "{}".into(), Metrics::new(), None)).await,
        complete
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_lets_go_ends_a_cancellation_early() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    within(bench.engine.cancel(leased.token.job, String::new(), None)).await.unwrap();

    let state = within(bench.engine.fail(&leased.token, None, None)).await;

    assert_eq!(state, Ok(State::Cancelled));
    assert_eq!(bench.reasons(leased.token.job).await.last().unwrap(), reason::WORKER_STOPPED);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_fails_whatever_it_does() {
    let bench = Bench::new().await;
    let limited = |options: &mut Options| options.schedule_to_close_timeout = Some(2 * SECOND);
    let (running, waiting) = (bench.start_with(limited).await, bench.start_with(limited).await);
    let leased = bench.lease().await;

    bench.pass(2 * SECOND).await;

    for job in [running, waiting] {
        assert_eq!(bench.state(job).await, State::Failed);
        assert_eq!(bench.reasons(job).await.last().unwrap(), reason::JOB_TIMEOUT);
    }
    assert_eq!(*leased.orders.borrow(), Order::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_begins_expires() {
    let bench = Bench::new().await;
    let job = bench.start_with(|options| options.schedule_to_start_timeout = Some(2 * SECOND)).await;

    bench.pass(2 * SECOND).await;

    assert_eq!(bench.state(job).await, State::Expired);
    assert_eq!(bench.reasons(job).await, [reason::CREATED, reason::START_TIMEOUT]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_served_while_its_worker_holds_a_job_and_not_by_a_namesake_elsewhere() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let namesake = Worker { kinds: ["draw".to_owned()].into(), in_process: false, ..pool() };
    bench.start_spec(spec("draw")).await;

    // Neither asks for more.
    assert!(bench.engine.is_served("work"));
    let drawing = bench.lease_for(&namesake).await.token;
    bench.complete(&token).await;

    assert!(!bench.engine.is_served("work"), "the namesake can only draw");
    assert!(bench.engine.is_served("draw"));
    let workers = bench.engine.workers();
    let told: Vec<_> = workers.named.iter().map(|one| (one.in_process, one.jobs)).collect();
    assert_eq!(told, [(false, 1)]);
    bench.complete(&drawing).await;
    assert!(!bench.engine.is_served("draw"));
}
