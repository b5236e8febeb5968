//! A ticket: what it says, what it refuses, and that one request makes one job.

use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::start_job_request::Payload;
use longhaul::proto::*;
use prost_types::{Duration, Struct, Timestamp, Value, value::Kind};
use std::collections::{BTreeMap, BTreeSet};
use tonic::Code;

fn once(request_id: &str) -> StartJobRequest {
    StartJobRequest { request_id: request_id.to_owned(), ..start("work", r#"{"n":1}"#) }
}

#[tokio::test]
async fn a_ticket_says_what_is_in_force() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = StartJobRequest {
        options: Some(JobOptions { priority: 7, concurrency_key: "gpu".to_owned(), ..Default::default() }),
        labels: BTreeMap::from([("team".to_owned(), "voice".to_owned())]),
        ..start("work", r#"{"n":1}"#)
    };

    let job = ok(client.start_job(request)).await;

    let options = job.options.unwrap();
    let retry = options.retry_policy.unwrap();
    assert_eq!(uuid::Uuid::parse_str(&job.id).unwrap().get_version_num(), 7);
    assert_eq!(
        (job.kind.as_str(), job.tenant.as_str(), job.attempt, job.sequence),
        ("work", "default", 0, 1)
    );
    assert_eq!(job.state, State::Pending as i32);
    assert_eq!((options.priority, options.concurrency_limit), (7, 1));
    assert_eq!((retry.maximum_attempts, retry.backoff_coefficient), (3, 2.0));
    assert_eq!(retry.initial_interval, Some(Duration { seconds: 1, nanos: 0 }));
    assert_eq!(retry.maximum_interval, Some(Duration { seconds: 300, nanos: 0 }));
    assert_eq!(options.retention, Some(Duration { seconds: 7 * 24 * 3600, nanos: 0 }));
    assert_eq!(job.labels["team"], "voice");
    assert!(job.input.is_none() && job.start_time.is_none() && job.progress.is_none());
}

#[tokio::test]
async fn a_job_of_a_kind_without_a_worker_waits() {
    let server = Server::start().await;
    let mut client = server.client().await;

    let job = ok(client.start_job(start("nobody-serves-this", "{}"))).await;

    assert_eq!(ok(client.get_status(get(&job))).await.state(), State::Pending);
}

#[tokio::test]
async fn an_input_may_be_a_struct_or_text() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let fields = [("n".to_owned(), Value { kind: Some(Kind::NumberValue(1.0)) })].into();
    let structured =
        StartJobRequest { payload: Some(Payload::Input(Struct { fields })), ..start("work", "") };

    let one = ok(client.start_job(structured)).await;
    let other = ok(client.start_job(start("work", r#" { "n" : 1 } "#))).await;

    let one = ok(client.get_status(get(&one))).await.input.unwrap();
    let other = ok(client.get_status(get(&other))).await.input.unwrap();
    assert_eq!(one, other);
}

#[tokio::test]
async fn a_job_for_later_is_scheduled_and_one_for_the_past_is_not() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let at = |seconds| StartJobRequest {
        options: Some(JobOptions {
            schedule_time: Some(Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        }),
        ..start("work", "{}")
    };

    let later = ok(client.start_job(at(4_000_000_000))).await;
    let past = ok(client.start_job(at(1))).await;

    assert_eq!(later.state(), State::Scheduled);
    assert_eq!(later.next_attempt_time.unwrap().seconds, 4_000_000_000);
    assert_eq!(past.state(), State::Pending);
}

#[tokio::test]
async fn a_repeated_request_has_the_first_ticket_also_after_a_restart() {
    let mut server = Server::start().await;
    let mut client = server.client().await;

    let first = within(client.start_job(once("a"))).await.unwrap();
    let again = within(client.start_job(once("a"))).await.unwrap();
    server.restart().await;
    let mut client = server.client().await;
    let after = within(client.start_job(once("a"))).await.unwrap();

    assert!(first.metadata().get("longhaul-repeated").is_none());
    assert_eq!(again.metadata().get("longhaul-repeated").unwrap(), "true");
    assert_eq!(after.metadata().get("longhaul-repeated").unwrap(), "true");
    assert_eq!(again.into_inner().id, first.get_ref().id);
    assert_eq!(after.into_inner().id, first.get_ref().id);
}

#[tokio::test]
async fn another_request_under_the_same_id_is_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    ok(client.start_job(once("a"))).await;

    let other = StartJobRequest { request_id: "a".to_owned(), ..start("work", r#"{"n":2}"#) };
    let (code, reason, details) = refused(client.start_job(other)).await;

    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    assert_eq!(fields(&details), ["request_id"]);
}

#[tokio::test]
async fn many_callers_with_one_request_have_one_ticket() {
    let server = Server::start().await;
    let client = server.client().await;

    let calls = (0..64).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { ok(client.start_job(once("same"))).await.id })
    });
    let mut tickets = BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        tickets.insert(call.await.unwrap());
    }

    assert_eq!(tickets.len(), 1);
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = StartJobRequest {
        options: Some(JobOptions { priority: 101, concurrency_limit: -1, ..Default::default() }),
        ..start("Not A Kind", "[1]")
    };

    let (code, reason, details) = refused(client.start_job(request)).await;

    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    let fields = fields(&details);
    for field in ["kind", "input_json", "options.priority", "options.concurrency_limit"] {
        assert!(fields.iter().any(|named| named == field), "{field} is not in {fields:?}");
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let server = Server::with(longhaul::processor::built_in(), |options| options.queue_max = Some(2)).await;
    let mut client = server.client().await;
    ok(client.start_job(once("a"))).await;
    ok(client.start_job(start("work", "{}"))).await;

    let (code, reason, details) = refused(client.start_job(start("work", "{}"))).await;

    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "QUEUE_FULL"));
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    // What is there already needs no room.
    ok(client.start_job(once("a"))).await;
}
