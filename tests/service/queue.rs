//! Where a job that waits stands, as those who ask and those who watch are told.

use crate::support::puppet::{self, puppet};
use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::job_event::Event;
use longhaul::proto::*;
use longhaul::worker::Registry;
use std::time::Duration;
use tonic::Streaming;

async fn waiting(client: &mut Client, priority: i32) -> Job {
    let options = Some(JobOptions { priority, ..Default::default() });
    ok(client.start_job(StartJobRequest { options, ..start(puppet::KIND, "{}") })).await
}

async fn position(client: &mut Client, job: &Job) -> i32 {
    ok(client.get_status(get(job))).await.queue_position
}

async fn positions<const N: usize>(client: &mut Client, jobs: [&Job; N]) -> [i32; N] {
    let mut positions = [0; N];
    for (place, job) in positions.iter_mut().zip(jobs) {
        *place = position(client, job).await;
    }
    positions
}

/// Waits for a position, and returns the update that tells it.
async fn moves_to(stream: &mut Streaming<JobEvent>, position: i32) -> QueueUpdate {
    loop {
        let event = within(stream.message()).await.unwrap().expect("the job has not ended").event;
        if let Some(Event::QueueUpdate(update)) = event
            && update.position == position
        {
            return update;
        }
    }
}

#[tokio::test]
async fn a_job_stands_behind_those_of_higher_priority_and_those_before_it() {
    let (puppet, strings) = puppet();
    let registry = Registry::default().with(puppet::KIND, puppet);
    let server = Server::with(registry, |options| options.slots = Some(1)).await;
    let mut client = server.client().await;
    let first = waiting(&mut client, 0).await;
    reach(&mut client, &first, State::Running).await;
    let low = waiting(&mut client, -5).await;
    let early = waiting(&mut client, 0).await;
    let late = waiting(&mut client, 0).await;
    let urgent = waiting(&mut client, 7).await;
    // Another kind is another queue.
    let elsewhere = ok(client.start_job(start("nobody", "{}"))).await;

    let order = [&urgent, &early, &late, &low];
    // What is told may be a quarter of a second old.
    within(async {
        while !positions(&mut client, order).await.eq(&[1, 2, 3, 4]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(position(&mut client, &elsewhere).await, 1);
    assert_eq!(position(&mut client, &first).await, 0, "it runs");

    let mut stream = ok(client.watch_job(watch(&low, None))).await;
    let snapshot = within(stream.message()).await.unwrap().unwrap();
    assert!(
        matches!(snapshot.event, Some(Event::Snapshot(Snapshot { job: Some(job), .. })) if job.queue_position == 4)
    );
    for ahead in (1..4).rev() {
        strings.succeed("{}").await;
        let update = moves_to(&mut stream, ahead).await;
        // The queue has a pace by now.
        assert!(update.expected_start_time.is_some(), "{update:?}");
    }
    strings.succeed("{}").await;
    reach(&mut client, &low, State::Running).await;
    assert_eq!(position(&mut client, &low).await, 0);
}

#[tokio::test]
async fn a_job_that_is_not_in_the_queue_yet_has_no_place_in_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let later = Some(JobOptions { schedule_time: in_time(Duration::from_secs(600)), ..Default::default() });

    let scheduled = ok(client.start_job(StartJobRequest { options: later, ..start("nobody", "{}") })).await;
    let next = ok(client.start_job(start("nobody", "{}"))).await;

    assert_eq!((position(&mut client, &scheduled).await, position(&mut client, &next).await), (0, 1));
}
