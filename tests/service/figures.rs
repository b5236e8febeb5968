//! What is refused is counted by its reason, whichever way it was asked for.

use crate::support::*;
use crate::workers::*;
use longhaul::proto::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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

/// The status line of an answer, or nothing where there is none.
async fn status(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_the_edge_refuses_is_counted() {
    let server = Server::start().await;
    let call = "/longhaul.v1.JobService/StartJob";

    for (target, host, headers, code, reason) in [
        ("POST /v1/jobs", "evil.example", "", "403", "HOST_UNKNOWN"),
        ("POST /v1/jobs", "localhost", "origin: http://evil.example\r\n", "403", "ORIGIN_FOREIGN"),
        ("POST http://evil.example/v1/jobs", "localhost", "", "400", "TARGET_AMBIGUOUS"),
        (&format!("GET {call}"), "localhost", "", "405", "METHOD_UNKNOWN"),
        (&format!("POST {call}"), "localhost", "", "415", "CONTENT_TYPE_UNKNOWN"),
        (
            &format!("POST {call}"),
            "localhost",
            "content-type: application/grpc\r\n",
            "505",
            "HTTP_VERSION_UNKNOWN",
        ),
    ] {
        let request = format!(
            "{target} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        let line = status(&server, &request).await;

        assert!(line.starts_with(&format!("HTTP/1.1 {code} ")), "{target}: {line}");
        assert_eq!(refusals(&server, reason).await, 1, "{target}");
    }
    assert_eq!(refusals(&server, "OTHER").await, 0);
}

#[tokio::test]
async fn connections_over_the_cap_are_counted() {
    let set = |options: &mut longhaul::cli::settings::Options| options.connections_max = Some(1);
    let server = Server::with(longhaul::processor::built_in(), set).await;
    let mut client = server.client().await;
    ok(client.start_job(simulated("a"))).await;

    let line = status(&server, "").await;

    assert_eq!(line, "");
    assert_eq!(refusals(&server, "CONNECTION_LIMIT").await, 1);
}
