//! Our own worker elsewhere: the loop of the server's slots, over the wire.

mod breaks;
mod same;

use crate::support::puppet::{Act, KIND, Strings, puppet};
use crate::support::*;
use longhaul::cli::times::Time;
use longhaul::job::Failure;
use longhaul::processor;
use longhaul::proto::job::State;
use longhaul::proto::*;
use longhaul::worker::{Identity, Pool, Registry, RemoteSource};
use std::time::Duration;
use tonic::transport::Endpoint;

/// A server without slots, and a worker beside it whose handler does what it is told.
async fn elsewhere() -> (Server, Pool<RemoteSource>, Strings) {
    let server = without_slots().await;
    let (handler, strings) = puppet();
    let pool = worker(&server, Registry::default().with(KIND, handler));
    (server, pool, strings)
}

async fn without_slots() -> Server {
    Server::with(processor::built_in(), |options| {
        options.slots = Some(0);
        options.lease_duration = Some(Time(Duration::from_secs(3)));
    })
    .await
}

fn worker(server: &Server, registry: Registry) -> Pool<RemoteSource> {
    worker_at(server.url(), registry)
}

fn worker_at(url: String, registry: Registry) -> Pool<RemoteSource> {
    let identity = Identity { worker_id: "far".into(), ..Default::default() };
    Pool::start(RemoteSource::start(Endpoint::from_shared(url).unwrap(), identity), registry, 2)
}

fn text(history: &[JobEvent]) -> String {
    let piece = |event: &JobEvent| match &event.event {
        Some(job_event::Event::Output(piece)) => Some(piece.data.clone()),
        _ => None,
    };
    String::from_utf8(history.iter().filter_map(piece).collect::<Vec<_>>().concat()).unwrap()
}

/// The last change of a job's state.
fn last(history: &[JobEvent]) -> StateChange {
    match &history.last().unwrap().event {
        Some(job_event::Event::StateChange(change)) => change.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_handler_does_elsewhere_is_the_same_here() {
    let (server, _pool, strings) = elsewhere().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(KIND, "{}"))).await;

    strings.pull(Act::Stage("Reading")).await.unwrap();
    strings.output("one ").await;
    strings.pull(Act::Log("a line")).await.unwrap();
    strings.output("two").await;
    strings.pull(Act::Metric("tokens", 7.0)).await.unwrap();
    strings.pull(Act::Progress(0.5)).await.unwrap();
    strings.succeed(r#"{"done":true}"#).await;
    let events = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;

    let kept = kept(&events);
    assert_eq!(states(&kept), [State::Pending, State::Running, State::Succeeded]);
    assert_eq!(text(&kept), "one two");
    let is = |event: &JobEvent, wanted: &str| match &event.event {
        Some(job_event::Event::Stage(stage)) => stage.name == wanted,
        Some(job_event::Event::Log(line)) => line.message == wanted,
        _ => false,
    };
    assert!(kept.iter().any(|event| is(event, "Reading")) && kept.iter().any(|event| is(event, "a line")));
    let last = last(&kept);
    assert_eq!((last.worker_id.as_str(), last.metrics["tokens"]), ("far", 7.0));
    assert!(last.result.is_some());
}

#[tokio::test]
async fn a_restart_of_the_server_costs_nothing_but_time() {
    let (mut server, _pool, strings) = elsewhere().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    strings.output("before ").await;
    reach(&mut client, &job, State::Running).await;

    for round in ["one ", "two "] {
        server.restart().await;
        strings.output(round).await;
    }
    strings.succeed("{}").await;

    let mut client = server.client().await;
    let history = kept(&to_the_end(ok(client.watch_job(watch(&job, 0))).await).await);
    assert_eq!(states(&history), [State::Pending, State::Running, State::Succeeded]);
    assert_eq!(text(&history), "before one two ");
}

#[tokio::test]
async fn a_cancelled_handler_is_told_and_its_word_ends_the_job() {
    let (server, _pool, strings) = elsewhere().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    reach(&mut client, &job, State::Running).await;

    let (cancelled, _) = tokio::join!(
        ok(client.cancel_job(CancelJobRequest { job_id: job.id.clone(), ..Default::default() })),
        strings.pull(Act::AwaitCancel),
    );
    let mut client = server.client().await;
    let history = kept(&to_the_end(ok(client.watch_job(watch(&job, 0))).await).await);

    assert!(
        matches!(cancelled.state(), State::Cancelling | State::Cancelled),
        "as of the moment of the answer"
    );
    assert_eq!(last(&history).reason, "WORKER_STOPPED");
}

#[tokio::test]
async fn a_worker_that_stops_gives_its_jobs_back() {
    let (server, pool, strings) = elsewhere().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    strings.output("void").await;
    reach(&mut client, &job, State::Running).await;

    within(pool.drain(Duration::ZERO)).await;
    let given_back = ok(client.get_status(get(&job))).await;
    let (handler, strings) = puppet();
    let _next = worker(&server, Registry::default().with(KIND, handler));
    strings.output("valid").await;
    strings.succeed("{}").await;
    to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;

    assert_eq!((given_back.state(), given_back.counted_attempts), (State::Pending, 0));
    let ended = ok(client.get_status(get(&job))).await;
    assert_eq!((ended.state(), ended.attempt, ended.counted_attempts), (State::Succeeded, 2, 1));
}

#[tokio::test]
async fn failures_and_panics_and_a_result_that_is_none_are_told() {
    let (server, _pool, strings) = elsewhere().await;
    let mut client = server.client().await;
    for (act, reason) in [
        (Act::Return(Err(Failure::new("NO_LUCK", "none").permanent())), "NO_LUCK"),
        (Act::Return(Ok("{".into())), "INVALID_RESULT"),
        (Act::Panic, "PANIC"),
    ] {
        let once = Some(RetryPolicy { maximum_attempts: 1, ..Default::default() });
        let options = Some(JobOptions { retry_policy: once, ..Default::default() });
        let job = ok(client.start_job(StartJobRequest { options, ..start(KIND, "{}") })).await;

        let _ = strings.pull(act).await;
        let history = kept(&to_the_end(ok(client.watch_job(watch(&job, 0))).await).await);

        assert_eq!((last(&history).state(), last(&history).reason.as_str()), (State::Failed, reason));
    }
}

#[tokio::test]
async fn a_built_in_kind_runs_elsewhere_as_it_is() {
    let (server, _pool, _strings) = elsewhere().await;
    let _far = worker(&server, processor::built_in());
    let mut client = server.client().await;

    let job = ok(client.start_job(simulated("to be or not to be"))).await;
    let history = kept(&to_the_end(ok(client.watch_job(watch(&job, 0))).await).await);

    assert_eq!(last(&history).state(), State::Succeeded);
    assert_eq!(text(&history).trim(), "to be or not to be");
}
