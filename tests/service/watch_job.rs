//! A watch never lies: the whole history, in order, once, from any cursor, until the end and not before.

use crate::support::puppet::{self, Act, puppet};
use crate::support::*;
use longhaul::job::Failure;
use longhaul::proto::job::State;
use longhaul::proto::*;
use longhaul::worker::Registry;
use tonic::Code;

fn event_of(event: &JobEvent) -> &job_event::Event {
    event.event.as_ref().expect("every message says something")
}

#[tokio::test]
async fn a_watch_begins_with_a_snapshot_and_ends_after_the_last_event() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(simulated("one two three"))).await;

    let events = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;

    assert!(matches!(event_of(&events[0]), job_event::Event::Snapshot(_)));
    let kept = kept(&events);
    assert_eq!(states(&kept), [State::Pending, State::Running, State::Succeeded]);
    let numbers: Vec<i64> = kept.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=kept.len() as i64).collect::<Vec<_>>());
    assert_eq!(kept, history(&mut client, &job).await);
}

#[tokio::test]
async fn a_watch_resumes_after_any_message_that_was_seen() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    let stream = ok(client.watch_job(watch(&job, 0))).await;
    let seen = tokio::spawn(to_the_end(stream));
    for act in [
        Act::Stage("first"),
        Act::Output("", "a".into()),
        Act::Progress(0.25),
        Act::Metric("tokens", 3.0),
        Act::Output("reasoning", "b".into()),
        Act::Log("careful"),
    ] {
        strings.pull(act).await.unwrap();
    }
    strings.pull(Act::Return(Err(Failure::new("UNLUCKY", "once")))).await.unwrap();
    for act in [Act::Output("", "c".into()), Act::Stage("second")] {
        strings.pull(act).await.unwrap();
    }
    strings.succeed("{}").await;
    let seen = within(seen).await.unwrap();
    let history = history(&mut client, &job).await;

    for broken_at in &seen {
        let resumed = to_the_end(ok(client.watch_job(watch(&job, broken_at.sequence))).await).await;

        assert!(matches!(event_of(&resumed[0]), job_event::Event::Snapshot(_)));
        assert_eq!(kept(&resumed), history[broken_at.sequence as usize..], "after {broken_at:?}");
    }
    assert_eq!(kept(&seen), history);
}

#[tokio::test]
async fn without_a_cursor_only_what_happens_from_now_on_is_told() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    strings.pull(Act::Stage("before")).await.unwrap();

    let mut stream = ok(client.watch_job(watch(&job, None))).await;
    let first = within(stream.message()).await.unwrap().unwrap();
    strings.pull(Act::Stage("after")).await.unwrap();
    strings.succeed("{}").await;
    let rest = to_the_end(stream).await;

    let job_event::Event::Snapshot(snapshot) = event_of(&first) else { panic!("{first:?}") };
    assert_eq!(first.sequence, snapshot.job.as_ref().unwrap().sequence);
    let stages: Vec<&str> = rest
        .iter()
        .filter_map(|event| match event_of(event) {
            job_event::Event::Stage(stage) => Some(stage.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(stages, ["after"]);
}

#[tokio::test]
async fn progress_is_seen_while_it_happens_and_never_goes_back() {
    let (handler, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, handler), |_| {}).await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    let mut stream = ok(client.watch_job(watch(&job, 0))).await;
    let fraction = |event: &JobEvent| match event_of(event) {
        job_event::Event::Progress(progress) => progress.fraction,
        _ => None,
    };

    strings.pull(Act::Progress(0.5)).await.unwrap();
    assert_eq!(next(&mut stream, fraction).await, 0.5);
    strings.pull(Act::Progress(0.2)).await.unwrap();
    assert_eq!(next(&mut stream, fraction).await, 0.5);
    strings.pull(Act::Progress(1.0)).await.unwrap();
    assert_eq!(next(&mut stream, fraction).await, 0.99);
    assert_eq!(ok(client.get_status(get(&job))).await.progress.unwrap().fraction, Some(0.99));

    strings.succeed("{}").await;
}

#[tokio::test]
async fn output_can_be_left_out() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(simulated("one two three"))).await;

    let request = WatchJobRequest { omit_output: true, ..watch(&job, 0) };
    let events = to_the_end(ok(client.watch_job(request)).await).await;

    assert!(!events.iter().any(|event| matches!(event_of(event), job_event::Event::Output(_))));
    let all = history(&mut client, &job).await;
    assert_eq!(events.last().unwrap().sequence, all.len() as i64);
}

#[tokio::test]
async fn a_job_that_has_ended_can_be_watched() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(simulated("Hello"))).await;
    let first = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;
    let last = first.last().unwrap().sequence;

    let again = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;
    let behind = to_the_end(ok(client.watch_job(watch(&job, last))).await).await;

    assert_eq!(kept(&again), kept(&first));
    assert_eq!(behind.len(), 1, "the snapshot alone: {behind:?}");
}

#[tokio::test]
async fn a_cursor_ahead_of_the_job_is_out_of_range() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("work", "{}"))).await;

    let (code, reason, _) = refused(client.watch_job(watch(&job, 2))).await;
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "AHEAD_OF_JOB"));

    let (code, _, details) = refused(client.watch_job(watch(&job, -1))).await;
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["after_sequence".to_owned()]));
}

#[tokio::test]
async fn an_unknown_job_cannot_be_watched() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = Job { id: "0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11".to_owned(), ..Default::default() };

    let (code, reason, _) = refused(client.watch_job(watch(&job, 0))).await;

    assert_eq!((code, reason.as_str()), (Code::NotFound, "JOB_NOT_FOUND"));
}
