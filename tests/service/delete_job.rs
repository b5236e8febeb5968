//! Forgetting jobs: by hand, and when their time is over.

use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::*;
use tonic::Code;

fn delete(job: &Job) -> DeleteJobRequest {
    DeleteJobRequest { job_id: job.id.clone() }
}

async fn succeeded(client: &mut Client) -> Job {
    let job = ok(client.start_job(simulated("one two"))).await;
    reach(client, &job, State::Succeeded).await;
    job
}

/// Nothing that can be asked knows of the job any more.
async fn assert_forgotten(client: &mut Client, job: &Job) {
    assert_eq!(refused(client.get_status(get(job))).await.0, Code::NotFound);
    assert_eq!(refused(client.watch_job(watch(job, 0))).await.0, Code::NotFound);
    let events = ListJobEventsRequest { job_id: job.id.clone(), ..Default::default() };
    assert_eq!(refused(client.list_job_events(events)).await.0, Code::NotFound);
    assert_eq!(
        refused(client.cancel_job(CancelJobRequest { job_id: job.id.clone(), ..Default::default() })).await.0,
        Code::NotFound
    );
    let listed = ok(client.list_jobs(ListJobsRequest::default())).await.jobs;
    assert!(listed.iter().all(|other| other.id != job.id));
}

#[tokio::test]
async fn a_deleted_job_is_gone_and_a_second_time_it_is_not_there() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let (job, other) = (succeeded(&mut client).await, succeeded(&mut client).await);

    ok(client.delete_job(delete(&job))).await;

    assert_forgotten(&mut client, &job).await;
    assert_eq!(refused(client.delete_job(delete(&job))).await.0, Code::NotFound);
    assert_eq!(ok(client.get_status(get(&other))).await.state(), State::Succeeded);
    let counts = ok(client.count_jobs(CountJobsRequest::default())).await.counts;
    assert_eq!(counts.iter().map(|count| count.jobs).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn an_active_job_is_not_deleted() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("nobody", "{}"))).await;

    let (code, reason, _) = refused(client.delete_job(delete(&job))).await;

    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "JOB_ACTIVE"));
    assert_eq!(ok(client.get_status(get(&job))).await.state(), State::Pending);
}

#[tokio::test]
async fn its_request_id_is_remembered() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = StartJobRequest { request_id: "once".to_owned(), ..simulated("one") };
    let job = ok(client.start_job(request.clone())).await;
    reach(&mut client, &job, State::Succeeded).await;
    ok(client.delete_job(delete(&job))).await;

    let (code, reason, _) = refused(client.start_job(request)).await;

    assert_eq!((code, reason.as_str()), (Code::NotFound, "JOB_NOT_FOUND"));
}

#[tokio::test]
async fn a_job_is_forgotten_when_its_time_is_over_and_its_watchers_are_told() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let retention = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let options = Some(JobOptions { retention, ..Default::default() });
    let job = ok(client.start_job(StartJobRequest { options, ..simulated("one") })).await;
    let kept = succeeded(&mut client).await;
    let mut jobs = ok(client.watch_jobs(WatchJobsRequest::default())).await;

    let forgotten = within(async {
        loop {
            let message = jobs.message().await.unwrap().unwrap();
            if let Some(watch_jobs_response::Event::ForgottenJobId(id)) = message.event {
                return id;
            }
        }
    })
    .await;

    assert_eq!(forgotten, job.id);
    assert_forgotten(&mut client, &job).await;
    assert_eq!(ok(client.get_status(get(&kept))).await.state(), State::Succeeded);
}
