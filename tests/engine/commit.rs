//! What callers and watchers see of a commit that fails, that hangs, or of which nobody knows.

use crate::bench::*;
use crate::hostile::*;
use longhaul::engine::Error;
use longhaul::job::*;
use rstest::rstest;
use std::sync::Arc;

#[rstest]
#[tokio::test(start_paused = true)]
async fn callers_learn_whether_a_failed_commit_may_have_happened(
    #[values(Kept::Memory, Kept::Sqlite)] kept: Kept,
) {
    let bench = Bench::on(kept).await;

    bench.store.fail(any, Fault::Unavailable);
    let unavailable = within(bench.engine.start(named("first"))).await;
    bench.store.fail(any, Fault::Unknown);
    let unknown = within(bench.engine.start(named("second"))).await;
    let first = within(bench.engine.start(named("first"))).await.unwrap();
    let second = within(bench.engine.start(named("second"))).await.unwrap();

    assert!(matches!(unavailable, Err(Error::Unavailable(_))), "{unavailable:?}");
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    assert_eq!((first.repeated, second.repeated), (false, true));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_stops_nothing() {
    let bench = Bench::new().await;
    bench.store.block();
    {
        let mut start = Box::pin(bench.engine.start(named("gone")));
        assert!(at_once(&mut start).await.is_none());
    }

    bench.store.unblock();
    let again = within(bench.engine.start(named("gone"))).await.unwrap();

    assert!(again.repeated);
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn nothing_is_seen_before_it_is_durable(#[values(Kept::Memory, Kept::Sqlite)] kept: Kept) {
    let bench = Bench::on(kept).await;
    let leased = bench.run().await;
    let mut watch = bench.watch(leased.token.job, None).await;

    bench.store.block();
    let mut complete = Box::pin(bench.engine.complete(&leased.token, "{}".into(), Metrics::new(), None));
    assert!(at_once(&mut complete).await.is_none());
    let store = Arc::clone(&bench.store);
    within(tokio::task::spawn_blocking(move || store.wait_for_blocked())).await.unwrap();

    assert!(at_once(watch.next()).await.is_none());
    assert_eq!(bench.state(leased.token.job).await, State::Running);

    bench.store.unblock();
    assert_eq!(within(&mut complete).await, Ok(State::Succeeded));
    assert!(within(watch.next()).await.is_some_and(|message| message.is_ok()));
    assert!(within(watch.next()).await.is_none());
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_heard_of_leaves_no_job_stuck(
    #[values(Kept::Memory, Kept::Sqlite)] kept: Kept,
    #[values(true, false)] in_process: bool,
) {
    let bench = Bench::on(kept).await;
    let worker = longhaul::engine::Worker { in_process, ..pool() };
    let job = bench.start().await;

    bench.store.fail(claims, Fault::Unknown);
    let mut lease = Box::pin(lease(&bench.engine, &worker, 1));
    assert!(at_once(&mut lease).await.is_none());
    bench.pass(11 * SECOND).await;
    let leased = within(lease).await.unwrap().remove(0);

    assert_eq!(leased.token.job, job);
    assert_eq!(bench.complete(&leased.token).await, State::Succeeded);
    let job = bench.get(job).await.job;
    assert_eq!((job.counted_attempts, job.restarts), (1, in_process as u32));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_goes_away_in_the_middle_of_a_claim_leaves_no_job_behind() {
    let bench = Bench::new().await;
    let job = bench.start().await;
    bench.store.block();
    let worker = pool();
    {
        let mut lease = Box::pin(lease(&bench.engine, &worker, 1));
        assert!(at_once(&mut lease).await.is_none());
    }

    bench.store.unblock();
    bench.settle().await;

    assert_eq!(bench.lease().await.token.job, job);
    assert_eq!(bench.get(job).await.job.counted_attempts, 1);
}
