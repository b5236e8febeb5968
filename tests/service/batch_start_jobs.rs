//! Many jobs in one step: all of them, or none.

use crate::support::*;
use longhaul::processor;
use longhaul::proto::*;
use tonic::Code;

fn named(id: &str, kind: &str) -> StartJobRequest {
    StartJobRequest { request_id: id.to_owned(), ..start(kind, "{}") }
}

fn batch(requests: impl IntoIterator<Item = StartJobRequest>) -> BatchStartJobsRequest {
    BatchStartJobsRequest { requests: requests.into_iter().collect() }
}

async fn count(client: &mut Client) -> i64 {
    ok(client.count_jobs(CountJobsRequest::default())).await.counts.iter().map(|count| count.jobs).sum()
}

#[tokio::test]
async fn the_tickets_come_in_the_order_of_the_requests() {
    let server = Server::start().await;
    let mut client = server.client().await;

    let requests = (0..1_000).map(|n| start(&format!("kind-{n}"), "{}"));
    let jobs = ok(client.batch_start_jobs(batch(requests))).await.jobs;

    assert!(jobs.iter().enumerate().all(|(n, job)| job.kind == format!("kind-{n}")));
    assert_eq!((jobs.len(), count(&mut client).await), (1_000, 1_000));
    assert_eq!(ok(client.get_status(get(&jobs[7]))).await.kind, "kind-7");
}

#[tokio::test]
async fn its_jobs_are_done() {
    let server = Server::start().await;
    let mut client = server.client().await;

    let jobs = ok(client.batch_start_jobs(batch((0..20).map(|_| simulated("a b"))))).await.jobs;

    for job in &jobs {
        assert_eq!(
            states(&to_the_end(ok(client.watch_job(watch(job, 0))).await).await).last(),
            Some(&job::State::Succeeded)
        );
    }
}

#[tokio::test]
async fn each_of_a_burst_is_begun_once() {
    let server = Server::with(processor::built_in(), |options| options.slots = Some(120)).await;
    let mut client = server.client().await;

    let slow = |_| start("simulate", r#"{"seconds": 60}"#);
    let jobs = ok(client.batch_start_jobs(batch((0..100).map(slow)))).await.jobs;
    for job in &jobs {
        reach(&mut client, job, job::State::Running).await;
    }

    for job in &jobs {
        let steps = history(&mut client, job).await;
        assert_eq!(states(&steps), [job::State::Pending, job::State::Running]);
    }
}

#[tokio::test]
async fn one_bad_request_keeps_all_of_them_out_and_is_named_with_its_place() {
    let server = Server::start().await;
    let mut client = server.client().await;

    let bad = batch([start("fine", "{}"), start("Not Fine", "[]"), start("fine", "{}"), start("", "{}")]);
    let (code, _, details) = refused(client.batch_start_jobs(bad)).await;
    let many = refused(client.batch_start_jobs(batch((0..1_001).map(|_| start("fine", "{}"))))).await;

    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(fields(&details), ["requests[1].input_json", "requests[1].kind", "requests[3].kind"]);
    assert_eq!((many.0, fields(&many.2)), (Code::InvalidArgument, vec!["requests".to_owned()]));
    assert_eq!(count(&mut client).await, 0);
}

#[tokio::test]
async fn a_batch_of_nothing_starts_nothing() {
    let server = Server::start().await;
    let mut client = server.client().await;

    assert_eq!(ok(client.batch_start_jobs(batch([]))).await.jobs, []);
}

#[tokio::test]
async fn equal_requests_of_one_id_are_one_job_and_a_repeat_returns_the_same_tickets() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = batch([named("a", "work"), named("b", "work"), named("a", "work"), start("work", "{}")]);

    let first = ok(client.batch_start_jobs(request.clone())).await.jobs;
    let second = ok(client.batch_start_jobs(request)).await.jobs;

    assert_eq!(first[0].id, first[2].id);
    assert_eq!(
        first[..3].iter().map(|job| &job.id).collect::<Vec<_>>(),
        second[..3].iter().map(|job| &job.id).collect::<Vec<_>>()
    );
    assert_ne!(first[3].id, second[3].id, "what has no request id is started again");
    assert_eq!(count(&mut client).await, 4);
}

#[tokio::test]
async fn different_requests_of_one_id_are_refused_at_the_later_one() {
    let server = Server::start().await;
    let mut client = server.client().await;
    ok(client.start_job(named("before", "work"))).await;

    let within = batch([start("work", "{}"), named("a", "work"), named("a", "other")]);
    let within = refused(client.batch_start_jobs(within)).await;
    let earlier =
        refused(client.batch_start_jobs(batch([named("new", "work"), named("before", "other")]))).await;

    for (refusal, field) in [(within, "requests[2].request_id"), (earlier, "requests[1].request_id")] {
        assert_eq!((refusal.0, refusal.1.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
        assert_eq!(fields(&refusal.2), [field]);
    }
    assert_eq!(count(&mut client).await, 1);
}

#[tokio::test]
async fn a_queue_without_room_for_all_takes_none() {
    let server = Server::with(Default::default(), |options| options.queue_max = Some(10)).await;
    let mut client = server.client().await;
    ok(client.batch_start_jobs(batch((0..8).map(|_| start("work", "{}"))))).await;

    let (code, reason, _) =
        refused(client.batch_start_jobs(batch((0..3).map(|_| start("work", "{}"))))).await;

    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "QUEUE_FULL"));
    assert_eq!(count(&mut client).await, 8);
}
