//! Doing again what has ended.

use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::*;
use tonic::Code;

fn retry(job: &Job, request_id: &str) -> RetryJobRequest {
    RetryJobRequest { job_id: job.id.clone(), request_id: request_id.to_owned() }
}

async fn failed(client: &mut Client) -> Job {
    let input = r#"{"seconds":0,"chaos":{"error":1}}"#;
    let options = JobOptions {
        priority: 3,
        retry_policy: Some(RetryPolicy { maximum_attempts: 1, ..Default::default() }),
        ..Default::default()
    };
    let labels = [("team".to_owned(), "voice".to_owned())].into();
    let request = StartJobRequest { options: Some(options), labels, ..start("simulate", input) };
    let job = ok(client.start_job(request)).await;
    reach(client, &job, State::Failed).await;
    ok(client.get_status(get(&job))).await
}

#[tokio::test]
async fn a_retry_is_a_new_job_with_the_same_wish() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = failed(&mut client).await;

    let again = ok(client.retry_job(retry(&job, ""))).await;
    reach(&mut client, &again, State::Failed).await;
    let again = ok(client.get_status(get(&again))).await;

    assert_ne!(again.id, job.id);
    assert_eq!(again.retry_of, job.id);
    assert_eq!((&again.kind, &again.input, &again.options), (&job.kind, &job.input, &job.options));
    assert_eq!(again.labels, job.labels);
    assert_eq!(ok(client.get_status(get(&job))).await, job, "what has ended stays as it ended");
}

#[tokio::test]
async fn an_active_job_is_not_retried() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("nobody", "{}"))).await;

    let (code, reason, _) = refused(client.retry_job(retry(&job, ""))).await;

    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "JOB_ACTIVE"));
}

#[tokio::test]
async fn a_retry_with_a_request_id_happens_once() {
    let mut server = Server::start().await;
    let mut client = server.client().await;
    let (one, other) = (failed(&mut client).await, failed(&mut client).await);

    let first = within(client.retry_job(retry(&one, "again"))).await.unwrap();
    server.restart().await;
    let mut client = server.client().await;
    let second = within(client.retry_job(retry(&one, "again"))).await.unwrap();
    ok(client.delete_job(DeleteJobRequest { job_id: one.id.clone() })).await;
    let third = ok(client.retry_job(retry(&one, "again"))).await;
    let reused = refused(client.retry_job(retry(&other, "again"))).await;
    let taken =
        refused(client.start_job(StartJobRequest { request_id: "again".into(), ..simulated("a") })).await;

    assert_eq!(first.metadata().get("longhaul-repeated"), None);
    assert_eq!(second.metadata().get("longhaul-repeated").unwrap(), "true");
    let first = first.into_inner().id;
    assert_eq!((&first, &first), (&second.into_inner().id, &third.id));
    for refusal in [reused, taken] {
        assert_eq!((refusal.0, refusal.1.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    }
}

#[tokio::test]
async fn what_is_not_there_cannot_be_retried() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let unknown = Job { id: "0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11".to_owned(), ..Default::default() };

    assert_eq!(refused(client.retry_job(retry(&unknown, ""))).await.0, Code::NotFound);
    let (code, _, details) = refused(client.retry_job(retry(&unknown, &"x".repeat(129)))).await;
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["request_id".to_owned()]));
}
