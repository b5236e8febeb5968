//! What is refused is counted by its reason, whichever way it was asked for.

use crate::support::*;
use crate::workers::*;
use longhaul::proto::*;
use work_request::Message as Ask;

/// How often something was refused for this reason.
async fn refusals(server: &Server, reason: &str) -> u32 {
    let text = server.figures().await;
    let beginning = format!("longhaul_refusals_total{{reason=\"{reason}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&beginning));
    count.unwrap_or_else(|| panic!("there is no {reason} in:\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn errors_of_calls_are_counted() {
    let server = Server::start().await;
    let mut client = server.client().await;

    refused(client.start_job(start("", "{}"))).await;
    refused(client.get_status(GetStatusRequest { job_id: "?".into(), ..Default::default() })).await;
    // An error at the end of a stream, in its trailers.
    let mut job = ok(client.start_job(simulated("a"))).await;
    ok(client.watch_job(watch(&job, 0))).await;
    let ahead = client.watch_job(watch(&job, 1_000)).await;
    let ahead = match ahead {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(explained(&ahead).1, "AHEAD_OF_JOB");
    job.id = "01981f9e-0000-7000-8000-000000000000".into();
    refused(client.get_status(get(&job))).await;

    assert_eq!(refusals(&server, "INVALID_REQUEST").await, 2);
    assert_eq!(refusals(&server, "AHEAD_OF_JOB").await, 1);
    assert_eq!(refusals(&server, "JOB_NOT_FOUND").await, 1);
    assert_eq!(refusals(&server, "OTHER").await, 0);
}

#[tokio::test]
async fn refusals_on_the_streams_of_workers_are_counted() {
    let server = patient_server().await;
    let mut workers = workers(&server.url()).await;
    let token = "01981f9e-0000-7000-8000-000000000000.1.0000000000000001";
    let (mut stream, _) = Stream::open(&mut workers, "test", &[]).await;

    stream.ask(Ask::Complete(complete(token, None))).await;
    assert_eq!(stream.ack().await.refusal, "JOB_NOT_FOUND");
    let mut answers = ok(workers.emit(tokio_stream::once(frame(token, 0, "x")))).await;
    let answer = within(answers.message()).await.unwrap().unwrap();
    assert_eq!(answer.refusal, "LEASE_LOST");

    assert_eq!(refusals(&server, "JOB_NOT_FOUND").await, 1);
    assert_eq!(refusals(&server, "LEASE_LOST").await, 1);
}
