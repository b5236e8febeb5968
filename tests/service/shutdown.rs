//! Stopping and starting again: nothing that was acknowledged is lost, nobody is told an end that is none.

use crate::support::puppet::{self, Act, puppet};
use crate::support::*;
use longhaul::cli::times::Time;
use longhaul::proto::job::State;
use longhaul::proto::*;
use longhaul::worker::Registry;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn a_job_that_ran_when_the_server_stopped_runs_again_and_that_does_not_count() {
    let (handler, strings) = puppet();
    let mut server = Server::with(Registry::default().with(puppet::KIND, handler), |options| {
        options.drain_timeout = Some(Time(Duration::from_millis(10)));
    })
    .await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    strings.output("half a sen").await;
    let mut stream = ok(client.watch_job(watch(&job, 0))).await;
    next(&mut stream, |event| matches!(event.event, Some(job_event::Event::Output(_))).then_some(())).await;

    server.restart().await;
    let broken = within(async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    })
    .await;
    strings.output("a whole sentence").await;
    strings.succeed("{}").await;

    let (code, _, details) = explained(&broken.expect_err("an end that is none"));
    assert_eq!(code, Code::Unavailable);
    assert!(details.retry_info().is_some());
    let mut client = server.client().await;
    let events = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;
    use State::*;
    assert_eq!(states(&events), [Pending, Running, Pending, Running, Succeeded]);
    let reasons: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.event {
            Some(job_event::Event::StateChange(change)) => Some(change.reason.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons[2], "SERVER_RESTART");
    let job = ok(client.get_status(get(&job))).await;
    assert_eq!((job.attempt, job.counted_attempts), (2, 1));
}

#[tokio::test]
async fn a_job_may_end_while_the_server_drains() {
    let (handler, strings) = puppet();
    let mut server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let running = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    strings.pull(Act::Stage("begun")).await.unwrap();
    let stream = ok(client.watch_job(watch(&running, 0))).await;

    let seen = tokio::spawn(to_the_end(stream));
    let (_, ()) = tokio::join!(server.restart(), strings.succeed("{}"));

    assert_eq!(states(&within(seen).await.unwrap()).last(), Some(&State::Succeeded));
}
