//! Output over attempts: what a watcher puts together is what the surviving attempt wrote.

use crate::support::puppet::{self, Act, puppet};
use crate::support::*;
use longhaul::job::Failure;
use longhaul::proto::job::State;
use longhaul::proto::*;
use longhaul::worker::Registry;

/// What a watcher has in the end, who does as the contract says.
fn put_together(events: &[JobEvent], channel: &str) -> String {
    let mut text = Vec::new();
    for event in events {
        match &event.event {
            Some(job_event::Event::Output(output)) if output.channel == channel => {
                assert_eq!(output.offset as usize, text.len(), "no gap and no overlap");
                text.extend_from_slice(&output.data);
            }
            Some(job_event::Event::OutputReset(reset)) if reset.channel == channel => {
                text.truncate(reset.kept_bytes as usize);
            }
            _ => {}
        }
    }
    String::from_utf8(text).unwrap()
}

fn retry_at_once(request: StartJobRequest) -> StartJobRequest {
    let retry_policy = RetryPolicy {
        maximum_attempts: 5,
        initial_interval: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
        ..Default::default()
    };
    StartJobRequest {
        options: Some(JobOptions { retry_policy: Some(retry_policy), ..Default::default() }),
        ..request
    }
}

#[tokio::test]
async fn a_retry_voids_what_the_attempt_before_wrote() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(retry_at_once(start(puppet::KIND, "{}")))).await;

    strings.output("once upon a").await;
    strings.pull(Act::Output("reasoning", "hm".into())).await.unwrap();
    strings.pull(Act::Panic).await.unwrap();
    strings.output("it was ").await;
    strings.pull(Act::Return(Err(Failure::new("UNLUCKY", "again")))).await.unwrap();
    strings.output("in the ").await;
    strings.output("end").await;
    strings.succeed("{}").await;

    let events = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;
    assert_eq!(put_together(&events, ""), "in the end");
    assert_eq!(put_together(&events, "reasoning"), "");
    let resets = events.iter().filter(|e| matches!(e.event, Some(job_event::Event::OutputReset(_)))).count();
    assert_eq!(resets, 3, "two channels, then one");
    use State::*;
    assert_eq!(
        states(&events),
        [Pending, Running, Retrying, Pending, Running, Retrying, Pending, Running, Succeeded]
    );
}

#[tokio::test]
async fn a_panic_is_told_as_one() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let mut request = start(puppet::KIND, "{}");
    let retry_policy = Some(RetryPolicy { maximum_attempts: 1, ..Default::default() });
    request.options = Some(JobOptions { retry_policy, ..Default::default() });
    let job = ok(client.start_job(request)).await;

    strings.pull(Act::Panic).await.unwrap();
    reach(&mut client, &job, State::Failed).await;

    let failure = ok(client.get_status(get(&job))).await.failure.unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.message.as_str()),
        ("PANIC", "the handler panicked: as told")
    );
}

#[tokio::test]
async fn many_small_pieces_are_few_events_and_every_byte() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;

    for _ in 0..2_000 {
        strings.output("wörd ").await;
    }
    strings.succeed("{}").await;

    let events = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;
    assert_eq!(put_together(&events, ""), "wörd ".repeat(2_000));
    assert!(kept(&events).len() < 1_000, "{} events", kept(&events).len());
}
