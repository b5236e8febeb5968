//! Cancelling: at once where nobody works, with a grace period where somebody does, and for good.

use crate::support::puppet::{self, Act, puppet};
use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::*;
use longhaul::worker::Registry;
use prost_types::Duration;
use tonic::Code;

fn cancel(job: &Job) -> CancelJobRequest {
    CancelJobRequest { job_id: job.id.clone(), reason: "not needed".to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_job_that_waits_is_cancelled_at_once() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("work", "{}"))).await;

    let cancelled = ok(client.cancel_job(cancel(&job))).await;
    let again = ok(client.cancel_job(cancel(&job))).await;

    assert_eq!(cancelled.state(), State::Cancelled);
    assert_eq!(again, cancelled);
    let history = history(&mut client, &job).await;
    assert_eq!(states(&history), [State::Pending, State::Cancelled]);
    let Some(job_event::Event::StateChange(change)) = &history[1].event else { panic!("{history:?}") };
    assert_eq!(change.message, "not needed");
}

#[tokio::test]
async fn a_job_that_runs_is_told_and_then_cancelled() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    strings.output("begun").await;
    let waiting = tokio::spawn(async move { strings.pull(Act::AwaitCancel).await });

    let cancelling = ok(client.cancel_job(cancel(&job))).await;
    let events = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;
    waiting.await.unwrap().unwrap();

    // The answer shows the job as it is once it is read, and the worker may have let go by then.
    assert!(matches!(cancelling.state(), State::Cancelling | State::Cancelled), "{cancelling:?}");
    // It returned a result, which does not count any more.
    assert_eq!(states(&events), [State::Pending, State::Running, State::Cancelling, State::Cancelled]);
    assert!(ok(client.get_status(get(&job))).await.result.is_none());
}

#[tokio::test]
async fn a_handler_that_does_not_listen_loses_its_lease() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    strings.output("begun").await;
    let hanging = tokio::spawn({
        let strings = strings.clone();
        async move { strings.pull(Act::Hang).await }
    });

    let grace_period = Some(Duration { seconds: 0, nanos: 50_000_000 });
    ok(client.cancel_job(CancelJobRequest { grace_period, ..cancel(&job) })).await;
    let events = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;

    assert_eq!(states(&events).last(), Some(&State::Cancelled));
    // Its task was ended too, so that its slot is free for another job.
    hanging.await.unwrap().unwrap();
    let next = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    strings.succeed("{}").await;
    reach(&mut client, &next, State::Succeeded).await;
}

#[tokio::test]
async fn what_has_ended_stays_as_it_ended() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(simulated("Hello"))).await;
    reach(&mut client, &job, State::Succeeded).await;

    let after = ok(client.cancel_job(cancel(&job))).await;

    assert_eq!(after.state(), State::Succeeded);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("work", "{}"))).await;
    let seconds = |seconds| Some(Duration { seconds, nanos: 0 });
    let bad = [
        ("reason", CancelJobRequest { reason: "x".repeat(256), ..cancel(&job) }),
        ("grace_period", CancelJobRequest { grace_period: seconds(601), ..cancel(&job) }),
        ("grace_period", CancelJobRequest { grace_period: seconds(-1), ..cancel(&job) }),
        ("job_id", CancelJobRequest { job_id: "x".to_owned(), ..cancel(&job) }),
    ];

    for (field, request) in bad {
        let (code, _, details) = refused(client.cancel_job(request)).await;
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    assert_eq!(ok(client.get_status(get(&job))).await.state(), State::Pending);
}
