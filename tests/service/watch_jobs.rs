//! Watching many jobs: those that match now, then each change.

use crate::support::puppet::{self, Act, puppet};
use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::watch_jobs_response::Event;
use longhaul::proto::*;
use longhaul::worker::Registry;
use std::collections::BTreeSet;
use tonic::{Code, Streaming};

fn filter(states: &[State]) -> Option<JobFilter> {
    let states = states.iter().map(|state| i32::from(*state)).collect();
    Some(JobFilter { states, ..Default::default() })
}

fn quick(initial_jobs: i32, filter: Option<JobFilter>) -> WatchJobsRequest {
    let minimum_interval = Some(prost_types::Duration::default());
    WatchJobsRequest { filter, minimum_interval, initial_jobs }
}

async fn next_event(stream: &mut Streaming<WatchJobsResponse>) -> Event {
    within(stream.message())
        .await
        .unwrap()
        .expect("it never ends by itself")
        .event
        .expect("it says something")
}

/// What comes up to the next sync.
async fn to_synced(stream: &mut Streaming<WatchJobsResponse>) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        match next_event(stream).await {
            Event::Synced(_) => return events,
            event => events.push(event),
        }
    }
}

fn ids(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .map(|event| match event {
            Event::Job(job) => job.id.as_str(),
            other => panic!("no job: {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn it_begins_with_the_newest_that_match_and_a_sync() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut started = Vec::new();
    for n in 0..150 {
        started.push(ok(client.start_job(start("work", &format!(r#"{{"n":{n}}}"#)))).await.id);
    }
    started.reverse();

    for (initial_jobs, expected) in [(0, 0), (3, 3), (140, 140), (1_000, 150)] {
        let mut stream = ok(client.watch_jobs(quick(initial_jobs, None))).await;
        assert_eq!(ids(&to_synced(&mut stream).await), started[..expected]);
    }
    let mut none = ok(client.watch_jobs(quick(9, filter(&[State::Running])))).await;
    assert_eq!(to_synced(&mut none).await, []);
}

#[tokio::test]
async fn each_change_comes_as_the_whole_job() {
    let (puppet, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, puppet), |_| {}).await;
    let mut client = server.client().await;
    let mut stream = ok(client.watch_jobs(quick(0, None))).await;
    assert_eq!(to_synced(&mut stream).await, []);

    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    let reached = async |stream: &mut Streaming<WatchJobsResponse>, is: fn(&Job) -> bool| loop {
        match next_event(stream).await {
            Event::Job(other) if other.id == job.id && is(&other) => return other,
            Event::Job(other) => assert_eq!(other.id, job.id),
            other => panic!("{other:?}"),
        }
    };
    reached(&mut stream, |job| job.state() == State::Running).await;
    strings.pull(Act::Progress(0.5)).await.unwrap();
    reached(&mut stream, |job| job.progress.as_ref().is_some_and(|p| p.fraction == Some(0.5))).await;
    strings.succeed(r#"{"x":1}"#).await;
    let end = reached(&mut stream, |job| job.state() == State::Succeeded).await;

    assert_eq!(
        end,
        ok(client.get_status(GetStatusRequest { view: job::View::Basic.into(), ..get(&job) })).await
    );
}

#[tokio::test]
async fn a_job_that_leaves_the_filter_departs_and_one_that_never_matched_is_not_told_of() {
    let (puppet, strings) = puppet();
    let server = Server::with(Registry::default().with(puppet::KIND, puppet), |_| {}).await;
    let mut client = server.client().await;
    let mut running = ok(client.watch_jobs(quick(0, filter(&[State::Running])))).await;
    let mut failed = ok(client.watch_jobs(quick(0, filter(&[State::Failed])))).await;
    to_synced(&mut running).await;
    to_synced(&mut failed).await;

    let job = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    let first = next_event(&mut running).await;
    strings.succeed("{}").await;
    let mut then = next_event(&mut running).await;
    while matches!(then, Event::Job(_)) {
        then = next_event(&mut running).await;
    }
    let next = ok(client.start_job(start(puppet::KIND, "{}"))).await;
    let mut again = next_event(&mut running).await;
    // It may be said twice, and is said before anything of the next job.
    while matches!(&again, Event::Departed(one) if one.id == job.id) {
        again = next_event(&mut running).await;
    }
    // From here on either stream is about the next job: the one that goes matches neither.
    ok(client.delete_job(DeleteJobRequest { job_id: job.id.clone() })).await;
    let failure = longhaul::job::Failure::new("BROKEN", "it broke").permanent();
    strings.pull(Act::Return(Err(failure))).await.unwrap();
    let mut last = next_event(&mut running).await;
    while matches!(&last, Event::Job(one) if one.id == next.id) {
        last = next_event(&mut running).await;
    }
    let broken = next_event(&mut failed).await;

    assert!(matches!(&first, Event::Job(one) if one.id == job.id && one.state() == State::Running));
    assert!(matches!(&then, Event::Departed(one) if one.id == job.id && one.state() == State::Succeeded));
    assert!(matches!(&again, Event::Job(one) if one.id == next.id), "{again:?}");
    assert!(matches!(&last, Event::Departed(one) if one.id == next.id), "{last:?}");
    assert!(matches!(&broken, Event::Job(one) if one.id == next.id), "{broken:?}");
}

#[tokio::test]
async fn a_reader_that_falls_behind_gets_a_new_sync() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut stream = ok(narrow_client(&server.url()).await.watch_jobs(quick(5, None))).await;
    assert_eq!(to_synced(&mut stream).await, []);
    let batch = || BatchStartJobsRequest { requests: vec![start("work", "{}"); 1_000] };
    let mut known = BTreeSet::new();
    for job in ok(client.batch_start_jobs(batch())).await.jobs {
        let told = next_event(&mut stream).await;
        assert_eq!(ids(&[told]), [job.id.as_str()]);
        known.insert(job.id);
    }

    // Nobody reads, and the server cannot send much: it has to forget what it would have told.
    for _ in 0..10 {
        ok(client.batch_start_jobs(batch())).await;
    }
    let gone: Vec<String> = known.iter().take(10).cloned().collect();
    for job_id in &gone {
        ok(client.cancel_job(CancelJobRequest { job_id: job_id.clone(), ..Default::default() })).await;
        ok(client.delete_job(DeleteJobRequest { job_id: job_id.clone() })).await;
    }
    let mut last = Vec::new();
    for _ in 0..40 {
        last = ok(client.batch_start_jobs(batch())).await.jobs;
    }
    let mut told = 0;
    for event in to_synced(&mut stream).await {
        told += 1;
        match event {
            Event::Job(job) => drop(known.insert(job.id)),
            Event::ForgottenJobId(id) => assert!(known.remove(&id)),
            other => assert!(matches!(&other, Event::Departed(_)), "{other:?}"),
        }
    }

    assert!(told < 50_000, "{told} changes were told all the same");
    assert!(last.iter().rev().take(5).all(|job| known.contains(&job.id)), "the newest are missing");
    // They were told of since the last sync, and went while nothing could be told.
    assert!(gone.iter().all(|id| !known.contains(id)), "what is gone is still there");
}

#[tokio::test]
async fn it_ends_when_the_server_stops() {
    let mut server = Server::start().await;
    let mut client = server.client().await;
    let mut stream = ok(client.watch_jobs(WatchJobsRequest::default())).await;
    to_synced(&mut stream).await;

    server.stop().await;

    assert_eq!(within(stream.message()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let minus = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let bad = [
        ("initial_jobs", WatchJobsRequest { initial_jobs: -1, ..Default::default() }),
        ("initial_jobs", WatchJobsRequest { initial_jobs: 1_001, ..Default::default() }),
        ("minimum_interval", WatchJobsRequest { minimum_interval: minus, ..Default::default() }),
        ("filter.states[0]", quick(0, Some(JobFilter { states: vec![99], ..Default::default() }))),
    ];

    for (field, request) in bad {
        let (code, _, details) = refused(client.watch_jobs(request)).await;
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
}
