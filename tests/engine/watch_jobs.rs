//! Many jobs at once: latest wins for each, nobody hears of another's jobs, and what nobody can tell is told anew.

use crate::bench::*;
use crate::hostile::*;
use longhaul::engine::{JobsMessage, WatchJobs, WatchJobsOptions};
use longhaul::job::*;
use rstest::rstest;
use std::sync::Arc;
use std::time::Duration;

fn watch(bench: &Bench, filter: Filter, minimum_interval: Duration) -> WatchJobs {
    let options = WatchJobsOptions { filter: Arc::new(filter), minimum_interval, initial_jobs: 100 };
    bench.engine.watch_jobs(DEFAULT_TENANT, options)
}

/// What a reader is told, in short.
fn told(message: &JobsMessage) -> String {
    let of = |snapshot: &Snapshot| format!("{:?} {:?}", snapshot.job.state, fraction(&snapshot.live));
    match message {
        JobsMessage::Job(snapshot) => of(snapshot),
        JobsMessage::Departed(snapshot) => format!("departed {}", of(snapshot)),
        other => format!("{other:?}"),
    }
}

fn fraction(live: &Live) -> f64 {
    live.progress.fraction.unwrap_or(0.0)
}

/// What comes next.
async fn next(watch: &mut WatchJobs) -> String {
    told(&within(watch.next()).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_sign_of_life() {
    let bench = Bench::new().await;
    let mut watch = watch(&bench, Filter::default(), Duration::ZERO);
    assert_eq!(next(&mut watch).await, "Synced");

    for _ in 0..2 {
        bench.pass(14 * SECOND).await;
        assert!(at_once(watch.next()).await.is_none());
        bench.pass(SECOND).await;
        assert_eq!(next(&mut watch).await, "Keepalive");
    }
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn of_many_changes_within_the_interval_the_newest_is_told(
    #[values(Kept::Memory, Kept::Sqlite)] kept_in: Kept,
) {
    let bench = Bench::on(kept_in).await;
    let token = bench.run().await.token;
    let mut watch = watch(&bench, Filter::default(), 2 * SECOND);
    assert_eq!(next(&mut watch).await, "Running 0.0");
    assert_eq!(next(&mut watch).await, "Synced");

    for tenth in 1..10 {
        bench.engine.report(&token, progress(f64::from(tenth) / 10.0), Default::default()).unwrap();
        bench.settle().await;
        assert!(at_once(watch.next()).await.is_none(), "the interval is not over");
    }
    bench.pass(2 * SECOND).await;
    let progressed = next(&mut watch).await;
    bench.complete(&token).await;
    bench.pass(2 * SECOND).await;

    assert_eq!(progressed, "Running 0.9");
    assert_eq!(next(&mut watch).await, "Succeeded 0.9");
}

#[tokio::test(start_paused = true)]
async fn nobody_hears_of_the_jobs_of_another_tenant() {
    let bench = Bench::new().await;
    let mut mine = watch(&bench, Filter::default(), Duration::ZERO);
    assert_eq!(next(&mut mine).await, "Synced");

    let theirs = bench.start_spec(Spec { tenant: "theirs".into(), ..spec("work") }).await;
    within(bench.engine.cancel(theirs, String::new(), None)).await.unwrap();
    within(bench.engine.delete(theirs)).await.unwrap();
    bench.start().await;

    assert_eq!(next(&mut mine).await, "Pending 0.0");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_expires_unseen_is_told_as_gone() {
    let bench = Bench::new().await;
    let job = bench.start_with(|options| options.retention = 5 * SECOND).await;
    let mut watch = watch(&bench, Filter::default(), Duration::ZERO);
    assert_eq!(next(&mut watch).await, "Pending 0.0");
    assert_eq!(next(&mut watch).await, "Synced");

    within(bench.engine.cancel(job, String::new(), None)).await.unwrap();
    bench.settle().await;
    assert_eq!(next(&mut watch).await, "Cancelled 0.0");
    bench.pass(7 * SECOND).await;

    assert_eq!(next(&mut watch).await, format!("Forgotten({job:?})"));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_heard_of_is_told_by_a_new_sync() {
    let bench = Bench::new().await;
    let job = bench.start().await;
    let mut watch = watch(&bench, Filter::default(), Duration::ZERO);
    assert_eq!(next(&mut watch).await, "Pending 0.0");
    assert_eq!(next(&mut watch).await, "Synced");

    bench.store.fail(applies, Fault::Unknown);
    assert!(within(bench.engine.cancel(job, String::new(), None)).await.is_err());
    bench.settle().await;

    assert_eq!(next(&mut watch).await, "Cancelled 0.0");
    assert_eq!(next(&mut watch).await, "Synced");
}
