//! What callers are told, and when.

use crate::hostile::Fault;
use crate::lab::*;
use longhaul::engine::Error;
use longhaul::job::*;
use longhaul::store::Operation;
use std::time::Duration;
use tokio::time::timeout;

fn is_submit(operation: &Operation) -> bool {
    matches!(operation, Operation::Submit(_))
}

fn is_claim(operation: &Operation) -> bool {
    matches!(operation, Operation::Claim(_))
}

/// Long enough for whatever is wrongly shown early.
const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn nothing_is_answered_or_shown_before_it_is_durable() {
    let lab = Lab::new().await;
    let id = lab.start(plain()).await;
    let mut watch = lab.watch(id, 1).await;
    within(watch.next()).await.unwrap().unwrap();

    lab.store.block();
    let mut cancel = tokio::spawn({
        let engine = lab.engine.clone();
        async move { engine.cancel(id, "enough".into(), None).await }
    });
    assert!(timeout(MOMENT, &mut cancel).await.is_err(), "answered");
    assert!(timeout(MOMENT, watch.next()).await.is_err(), "shown");
    assert_eq!(lab.job(id).await.state, State::Pending);
    lab.store.unblock();

    assert_eq!(within(cancel).await.unwrap().unwrap().job.state, State::Cancelled);
    assert!(kept(&within(watch.next()).await.unwrap().unwrap()).is_some());
}

#[tokio::test]
async fn a_failed_commit_is_told_to_all_in_it_and_the_next_one_works() {
    let lab = Lab::new().await;

    lab.store.fail(Fault::Unavailable, is_submit);
    let refused = within(lab.engine.start(plain())).await.unwrap_err();
    lab.store.fail(Fault::Unknown, is_submit);
    let unknown = within(lab.engine.start(plain())).await.unwrap_err();

    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    assert!(matches!(unknown, Error::Unknown(_)), "{unknown:?}");
    lab.start(plain()).await;
    let jobs = lab.engine.list(DEFAULT_TENANT, None, 10, longhaul::engine::Parts::BASIC).await.unwrap();
    assert_eq!(jobs.len(), 2, "the unknown one was taken in");
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_nothing() {
    let lab = Lab::new().await;
    lab.store.block();

    let gone = timeout(MOMENT, lab.engine.start(plain())).await;
    assert!(gone.is_err());
    lab.store.unblock();

    // Its job is there, and runs.
    lab.run().await;
}

#[tokio::test]
async fn a_claim_that_nobody_heard_of_holds_up_nobody() {
    let lab = Lab::new().await;
    let id = lab.start(plain()).await;

    lab.store.fail(Fault::Unknown, is_claim);
    let unheard = within(lab.engine.lease(&worker(true), 1)).await;
    let leased = lab.run().await;

    assert!(matches!(unheard, Err(Error::Unknown(_))), "{unheard:?}");
    assert_eq!((leased.token.job, leased.snapshot.job.counted_attempts), (id, 1));
    within(lab.engine.complete(&leased.token, "{}".into())).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_gives_up_in_the_middle_of_a_claim_leaves_its_job_to_others() {
    let lab = Lab::new().await;
    let id = lab.start(plain()).await;
    lab.store.block();

    let gone = timeout(MOMENT, lab.engine.lease(&worker(true), 1)).await;
    assert!(gone.is_err());
    lab.store.unblock();

    assert_eq!(lab.run().await.token.job, id);
}
