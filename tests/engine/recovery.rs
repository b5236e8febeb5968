//! Engines that stop, and what the next one finds.

use crate::bench::*;
use longhaul::clock::ManualClock;
use longhaul::engine::Error;
use longhaul::job::*;
use rstest::rstest;
use std::sync::Arc;
use std::time::Duration;

#[rstest]
#[tokio::test(start_paused = true)]
async fn an_attempt_of_a_process_that_is_gone_does_not_count(
    #[values(Kept::Memory, Kept::Sqlite)] kept: Kept,
    #[values(true, false)] closed: bool,
) {
    let mut bench = Bench::on(kept).await;
    let job = bench.start().await;

    if closed {
        bench.lease().await;
        bench.restart().await;
    } else {
        let act = |engine: longhaul::engine::Engine| async move {
            lease(&engine, &pool(), 1).await.unwrap();
        };
        bench.die_after(act).await;
    }

    assert_eq!(bench.reasons(job).await, [reason::CREATED, reason::ACCEPTED, reason::SERVER_RESTART]);
    let next = bench.lease().await.snapshot.job;
    assert_eq!((next.id, next.attempt, next.counted_attempts, next.restarts), (job, 2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_sees_too_many_restarts_fails() {
    let mut bench = Bench::new().await;
    let job = bench.start().await;

    for _ in 0..limits::RESTARTS_MAX {
        bench.lease().await;
        bench.restart().await;
        assert_eq!(bench.state(job).await, State::Pending);
    }
    bench.lease().await;
    bench.restart().await;

    assert_eq!(bench.state(job).await, State::Failed);
    assert_eq!(bench.reasons(job).await.last().unwrap(), reason::SERVER_RESTART);
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_lease_held_elsewhere_gets_a_fresh_term(#[values(Kept::Memory, Kept::Sqlite)] kept: Kept) {
    let mut bench = Bench::on(kept).await;
    let job = bench.start().await;
    let token = bench.lease_for(&remote()).await.token;
    within(bench.engine.append_log(&token, 0, line("before"))).await.unwrap();
    bench.pass(8 * SECOND).await;

    bench.restart().await;
    bench.pass(29 * SECOND).await;
    within(bench.engine.append_log(&token, 1, line("after"))).await.unwrap();
    assert_eq!(bench.state(job).await, State::Running);
    bench.pass(2 * SECOND).await;

    assert_eq!(bench.reasons(job).await, [reason::CREATED, reason::ACCEPTED, reason::LEASE_EXPIRED]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_worker_elsewhere_may_be_accepted_after_a_restart_but_not_for_long() {
    let mut bench = Bench::new().await;
    let job = bench.start().await;
    bench.lease_for(&remote()).await;
    bench.pass(8 * SECOND).await;

    bench.restart().await;
    bench.pass(9 * SECOND).await;
    assert!(bench.get(job).await.job.lease.is_some());
    bench.pass(2 * SECOND).await;

    assert_eq!(bench.lease().await.token.job, job);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_being_cancelled_is_cancelled_by_a_restart() {
    let mut bench = Bench::new().await;
    let job = bench.run().await.token.job;
    within(bench.engine.cancel(job, String::new(), None)).await.unwrap();

    bench.restart().await;

    assert_eq!(bench.state(job).await, State::Cancelled);
    assert_eq!(bench.reasons(job).await.last().unwrap(), reason::SERVER_RESTART);
}

#[tokio::test(start_paused = true)]
async fn what_became_due_while_nobody_was_there_is_done_at_once() {
    let mut bench = Bench::new().await;
    let time = bench.engine.now().after(5 * SECOND);
    let scheduled = bench.start_with(|options| options.schedule_time = Some(time)).await;
    let expiring = bench.start_with(|options| options.schedule_to_start_timeout = Some(SECOND)).await;

    within(bench.engine.close()).await;
    bench.clock.advance(6 * SECOND);
    bench.start_again().await;

    assert_eq!(bench.state(scheduled).await, State::Pending);
    assert_eq!(bench.state(expiring).await, State::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_time_is_by_the_clock_of_clients_where_the_engines_is_ahead() {
    let mut bench = Bench::new().await;
    let (theirs, day) = (bench.engine.now(), Duration::from_secs(86_400));
    bench.clock = Arc::new(ManualClock::ahead_by(day, theirs.after(day)));
    bench.restart().await;

    let soon = theirs.after(5 * SECOND);
    let job = bench.start_with(|options| options.schedule_time = Some(soon)).await;
    bench.pass(4 * SECOND).await;
    assert_eq!(bench.state(job).await, State::Scheduled);
    bench.pass(2 * SECOND).await;

    assert_eq!(bench.state(job).await, State::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_closed_engine_answers_that_it_is_stopping() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    bench.write(&leased.token, "first").await;
    bench.settle().await;
    bench.write(&leased.token, "held").await;

    within(bench.engine.close()).await;
    let start = within(bench.engine.start(spec("work"))).await;
    let mut complete = Box::pin(bench.engine.complete(&leased.token, "{}".into(), Metrics::new(), None));
    // The output that is held waits for its window, which is not over yet.
    let _ = at_once(&mut complete).await;
    tokio::time::advance(Duration::from_millis(50)).await;

    assert!(matches!(start, Err(Error::Unavailable(_))), "{start:?}");
    let complete = within(&mut complete).await;
    assert!(matches!(complete, Err(Error::Unavailable(_))), "{complete:?}");
}
