//! A job as it is now.

use crate::support::*;
use longhaul::proto::job::{State, View};
use longhaul::proto::*;
use prost_types::value::Kind;
use tonic::Code;
use tonic::codec::CompressionEncoding;

#[tokio::test]
async fn a_job_that_has_ended_shows_how() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(simulated("Hello"))).await;
    reach(&mut client, &job, State::Succeeded).await;

    let full = ok(client.get_status(get(&job))).await;
    let basic = ok(client.get_status(GetStatusRequest { view: View::Basic.into(), ..get(&job) })).await;

    let progress = full.progress.clone().unwrap();
    assert_eq!(full.state(), State::Succeeded);
    assert_eq!((full.attempt, full.counted_attempts, progress.fraction), (1, 1, Some(1.0)));
    assert!(full.input.is_some() && full.result.is_some());
    assert!(full.start_time.is_some() && full.end_time.is_some() && full.purge_time.is_some());
    assert!(full.worker_id.is_empty() && full.failure.is_none());
    assert_eq!(basic, Job { input: None, result: None, ..full });
}

#[tokio::test]
async fn a_ticket_that_nobody_has_is_not_found_and_no_ticket_is_a_slip() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let ask = |id: &str| GetStatusRequest { job_id: id.to_owned(), ..Default::default() };

    let unknown = refused(client.get_status(ask("0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11"))).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (Code::NotFound, "JOB_NOT_FOUND"));

    for id in ["", "7", "not-a-ticket", "0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c1"] {
        let (code, _, details) = refused(client.get_status(ask(id))).await;
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["job_id".to_owned()]), "{id}");
    }
}

#[tokio::test]
async fn a_view_that_does_not_exist_is_a_slip() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("work", "{}"))).await;

    let (code, _, details) = refused(client.get_status(GetStatusRequest { view: 77, ..get(&job) })).await;

    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["view".to_owned()]));
}

#[tokio::test]
async fn large_messages_may_be_compressed_both_ways() {
    let server = Server::start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = server.client().await.accept_compressed(encoding).send_compressed(encoding);
        let input = format!(r#"{{"text":"{}"}}"#, "over and over ".repeat(10_000));
        let job = ok(client.start_job(start("work", &input))).await;

        let answer = within(client.get_status(get(&job))).await.unwrap();

        let name = answer.metadata().get("grpc-encoding").map(|name| name.to_str().unwrap().to_owned());
        assert_eq!(
            name.as_deref(),
            Some(if encoding == CompressionEncoding::Gzip { "gzip" } else { "zstd" })
        );
        let text = &answer.get_ref().input.as_ref().unwrap().fields["text"];
        assert_eq!(text.kind, Some(Kind::StringValue("over and over ".repeat(10_000))));
    }
}
