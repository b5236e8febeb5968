//! Whether a server takes work: what it writes becomes durable, and it is not about to stop.

use crate::bench::*;
use crate::hostile::*;
use futures_util::future::join_all;
use longhaul::engine::Error;
use std::sync::Arc;

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_is_not_ready_until_it_can() {
    let bench = Bench::new().await;
    bench.store.fail(any, Fault::Unavailable);

    assert!(matches!(within(bench.engine.ready()).await, Err(Error::Unavailable(_))));
    bench.pass(SECOND).await;
    assert_eq!(within(bench.engine.ready()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_is_not_ready_though_its_store_is() {
    let bench = Bench::new().await;
    assert_eq!(within(bench.engine.ready()).await, Ok(()));

    bench.engine.drain(SECOND);

    assert!(matches!(within(bench.engine.ready()).await, Err(Error::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_while_the_store_hangs_wait_for_one_probe() {
    let bench = Bench::new().await;
    bench.store.block();
    for _ in 0..50 {
        // Somebody who asks and goes away.
        assert!(at_once(bench.engine.ready()).await.is_none());
    }
    let mut asking = Box::pin(join_all((0..50).map(|_| bench.engine.ready())));
    assert!(at_once(&mut asking).await.is_none());
    let store = Arc::clone(&bench.store);
    within(tokio::task::spawn_blocking(move || store.wait_for_blocked())).await.unwrap();
    assert_eq!(bench.store.probes(), 1);

    bench.store.unblock();

    assert!(within(asking).await.into_iter().all(|answer| answer == Ok(())));
    bench.settle().await;
    assert_eq!(bench.store.probes(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_good_for_a_second() {
    let bench = Bench::new().await;
    for _ in 0..10 {
        assert_eq!(within(bench.engine.ready()).await, Ok(()));
    }
    assert_eq!(bench.store.probes(), 1);

    bench.pass(SECOND).await;

    assert_eq!(within(bench.engine.ready()).await, Ok(()));
    assert_eq!(bench.store.probes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_changed_something_is_proof_until_one_fails() {
    let bench = Bench::new().await;
    bench.start().await;
    assert_eq!(within(bench.engine.ready()).await, Ok(()));
    assert_eq!(bench.store.probes(), 0);

    bench.store.fail(any, Fault::Unavailable);
    within(bench.engine.start(named("lost"))).await.unwrap_err();

    bench.store.fail(any, Fault::Unavailable);
    assert!(matches!(within(bench.engine.ready()).await, Err(Error::Unavailable(_))));
    assert_eq!(bench.store.probes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_changed_nothing_proves_nothing() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    bench.complete(&leased.token).await;
    bench.pass(SECOND).await;

    within(bench.engine.cancel(leased.token.job, String::new(), None)).await.unwrap();

    assert_eq!(within(bench.engine.ready()).await, Ok(()));
    assert_eq!(bench.store.probes(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_can_never_write_again_is_dead_and_a_closed_one_is_not() {
    let (broken, closed) = (Bench::new().await, Bench::new().await);
    assert!(!broken.engine.is_dead());

    broken.store.fail(any, Fault::Panic);
    within(broken.engine.start(named("lost"))).await.unwrap_err();
    within(closed.engine.close()).await;

    // Whoever waits for an answer learns of the panic before the thread is quite gone.
    within(async {
        while !broken.engine.is_dead() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(within(broken.engine.ready()).await, Err(Error::Unavailable(_))));
    assert!(!closed.engine.is_dead());
}
