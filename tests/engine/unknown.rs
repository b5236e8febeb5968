//! A commit of which nobody knows whether it happened, and which did: nothing that follows from it is forgotten.

use crate::bench::*;
use crate::hostile::*;
use longhaul::engine::Order;
use longhaul::job::*;

#[tokio::test(start_paused = true)]
async fn a_start_that_nobody_heard_of_is_still_due() {
    let bench = Bench::new().await;
    let mut scheduled = named("later");
    scheduled.options.schedule_time = Some(bench.engine.now().after(5 * SECOND));
    bench.store.fail(any, Fault::Unknown);
    assert!(within(bench.engine.start(scheduled.clone())).await.is_err());
    let id = within(bench.engine.start(scheduled)).await.unwrap().snapshot.job.id;

    bench.pass(6 * SECOND).await;

    assert_eq!(bench.state(id).await, State::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_nobody_heard_of_reaches_the_worker_and_ends_in_time() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    let id = leased.token.job;

    bench.store.fail(applies, Fault::Unknown);
    assert!(within(bench.engine.cancel(id, "enough".into(), Some(SECOND))).await.is_err());
    bench.settle().await;
    let order = *leased.orders.borrow();
    bench.pass(2 * SECOND).await;

    assert_eq!(order, Order::Cancel { grace: SECOND });
    assert_eq!(bench.state(id).await, State::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn an_end_of_a_lease_that_nobody_heard_of_reaches_the_worker() {
    let bench = Bench::new().await;
    let id = bench.start_with(|options| options.start_to_close_timeout = Some(SECOND)).await;
    let leased = bench.lease().await;

    bench.store.fail(sweeps, Fault::Unknown);
    bench.pass(2 * SECOND).await;

    assert!(bench.store.has_failed());
    assert!(bench.reasons(id).await.iter().any(|why| why == reason::ATTEMPT_TIMEOUT));
    assert_eq!(*leased.orders.borrow(), Order::Lost);
}
