//! A pool that wants no jobs for a while: what was claimed for it and not taken goes back to the queue, for others or for
//! later, and that counts for nothing.

use crate::bench::*;
use futures_util::FutureExt as _;
use longhaul::job::*;
use longhaul::worker::{JobSource as _, LocalSource};
use std::sync::Arc;

/// A source that has waited for jobs, and that nobody waits at any more.
async fn left(bench: &Bench) -> LocalSource {
    let source = LocalSource::new(bench.engine.clone(), "pool");
    ask(&source);
    bench.settle().await;
    source
}

/// Asks for a job, and does not wait.
fn ask(source: &LocalSource) {
    assert!(source.lease(&pool().kinds, 1).now_or_never().is_none());
}

async fn lease(source: &LocalSource) -> LeaseToken {
    within(source.lease(&pool().kinds, 1)).await.unwrap().remove(0).token
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_claimed_and_not_taken_is_given_back_as_often_as_it_takes() {
    let bench = Bench::new().await;
    let source = LocalSource::new(bench.engine.clone(), "pool");
    let job = bench.start().await;
    let times = limits::RESTARTS_MAX + 2;

    for _ in 0..times {
        // It must not be there before nobody waits for it any more.
        bench.store.block();
        ask(&source);
        bench.store.unblock();
        bench.settle().await;
        within(source.rest()).await;
        assert_eq!(bench.state(job).await, State::Pending);
    }

    let token = lease(&source).await;
    assert_eq!((token.job, bench.get(job).await.job.counted_attempts), (job, 1), "none of them counts");
    let given_back = bench.reasons(job).await.into_iter().filter(|why| why == reason::RELEASED).count();
    assert_eq!(given_back, times as usize);
    assert_eq!(bench.complete(&token).await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_pool_rests_is_for_others() {
    let bench = Bench::new().await;
    let source = left(&bench).await;

    within(source.rest()).await;
    let job = bench.start().await;
    bench.settle().await;

    assert_eq!(bench.reasons(job).await, [reason::CREATED], "nobody claims it");
    assert_eq!(bench.lease().await.token.job, job);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_claimed_when_a_pool_comes_to_rest_is_given_back_too() {
    let bench = Bench::new().await;
    let source = Arc::new(LocalSource::new(bench.engine.clone(), "pool"));
    let job = bench.start().await;
    bench.store.block();
    ask(&source);
    let store = Arc::clone(&bench.store);
    within(tokio::task::spawn_blocking(move || store.wait_for_blocked())).await.unwrap();

    let resting = tokio::spawn({
        let source = Arc::clone(&source);
        async move { source.rest().await }
    });
    tokio::task::yield_now().await;
    assert!(!resting.is_finished(), "it waits for the claim");
    bench.store.unblock();
    within(resting).await.unwrap();

    assert_eq!(bench.reasons(job).await.last().map(String::as_str), Some(reason::RELEASED));
    assert_eq!(bench.state(job).await, State::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_never_asked_and_one_that_drains_have_nothing_to_give_back() {
    let bench = Bench::new().await;
    let source = LocalSource::new(bench.engine.clone(), "pool");

    within(source.rest()).await;
    ask(&source);
    within(source.drain()).await;
    within(source.rest()).await;
    let job = bench.start().await;
    ask(&source);
    bench.settle().await;

    assert_eq!(bench.reasons(job).await, [reason::CREATED], "who drains takes no place again");
}
