//! A commit of which nobody knows whether it happened, and which did: nothing that follows from it is forgotten.

use crate::bench::*;
use crate::hostile::*;
use longhaul::engine::{Observe, Order, Settings};
use longhaul::job::*;
use parking_lot::Mutex;
use std::sync::Arc;

/// What an observer was told that others could not be.
#[derive(Default)]
struct Observer {
    adopted: Mutex<Vec<(JobId, Option<Trace>)>>,
    lost: Mutex<Vec<LeaseToken>>,
}

impl Observe for Observer {
    fn adopted(&self, snapshot: &Snapshot) {
        self.adopted.lock().push((snapshot.job.id, snapshot.trace.clone()));
    }

    fn lost(&self, token: &LeaseToken) {
        self.lost.lock().push(*token);
    }
}

async fn observed() -> (Bench, Arc<Observer>) {
    let observer = Arc::new(Observer::default());
    let observers = [Arc::clone(&observer) as Arc<dyn Observe>].into_iter().collect();
    (Bench::with(Kept::Memory, Settings { observers, ..Settings::default() }).await, observer)
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_of_a_lease_whose_end_nobody_heard_of() {
    let (bench, observer) = observed().await;
    let token = bench.run().await.token;

    bench.store.fail(applies, Fault::Unknown);
    assert!(within(bench.engine.complete(&token, "{}".into(), Metrics::new(), None)).await.is_err());
    bench.settle().await;

    assert_eq!(bench.state(token.job).await, State::Succeeded);
    assert_eq!(*observer.lost.lock(), [token]);
}

#[rstest::rstest]
#[tokio::test(start_paused = true)]
async fn an_observer_is_told_of_a_lease_that_nobody_heard_of(#[values(true, false)] in_process: bool) {
    let (mut bench, observer) = observed().await;
    let trace = Some(Trace { parent: "00-1-2-01".into(), state: String::new() });
    let job = bench.start_spec(Spec { trace: trace.clone(), ..spec("work") }).await;

    bench.lease_for(&if in_process { pool() } else { remote() }).await;
    assert_eq!(*observer.adopted.lock(), []);
    bench.restart().await;

    assert_eq!(*observer.adopted.lock(), [(job, trace)]);
}

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
    let mut leased = bench.run().await;
    let id = leased.token.job;

    bench.store.fail(applies, Fault::Unknown);
    assert!(within(bench.engine.cancel(id, "enough".into(), Some(SECOND))).await.is_err());
    // What is kept is read again on another thread.
    let order = *within(leased.orders.wait_for(|order| *order != Order::Continue)).await.unwrap();
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
