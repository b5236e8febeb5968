//! Checkpoints over the wire: what the next attempt is given, and what watchers see of the output that stays.

use crate::support::*;
use crate::workers::*;
use bytes::Bytes;
use longhaul::job::limits::CHECKPOINT_BYTES_MAX;
use longhaul::proto::job::State;
use longhaul::proto::*;
use tonic::Code;

fn recording(
    number: i64,
    output_bytes: i64,
    data: &'static str,
    of: AppendOutputRequest,
) -> AppendOutputRequest {
    let checkpoint = Checkpoint { data: Bytes::from_static(data.as_bytes()), output_bytes, number };
    AppendOutputRequest { checkpoint: Some(checkpoint), ..of }
}

fn release(token: &str) -> ReleaseJobRequest {
    ReleaseJobRequest { lease_token: token.to_owned(), ..Default::default() }
}

/// What an assignment has of the attempts before it.
fn left(assignment: &Assignment) -> (&[u8], i64) {
    (&assignment.checkpoint, assignment.output_offset)
}

#[tokio::test]
async fn a_live_and_a_late_watcher_see_the_output_that_stays_and_what_comes_behind_it() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let live = ok(client.watch_job(watch(&job, 0))).await;

    let first = lease(&mut workers).await;
    let token = &first.lease_token;
    let recorded = ok(workers.append_output(recording(0, 4, "one", frame(token, 0, "one two")))).await;
    ok(workers.release_job(release(token))).await;
    let second = lease(&mut workers).await;
    ok(workers.append_output(frame(&second.lease_token, 4, "three"))).await;
    ok(workers.complete_job(complete(&second.lease_token, Some(9)))).await;

    assert_eq!((left(&first), left(&second)), ((&b""[..], 0), (&b"one"[..], 4)));
    assert_eq!((recorded.durable_bytes, recorded.durable_checkpoints), (7, Some(1)));
    let live = to_the_end(live).await;
    let late = to_the_end(ok(client.watch_job(watch(&job, 0))).await).await;
    let whole = history(&mut client, &job).await;
    assert_eq!((kept(&live), kept(&late)), (whole.clone(), whole.clone()));
    assert_eq!(output(&whole), ("one three".to_owned(), 1));
    let is_reset = |event: &&JobEvent| matches!(event.event, Some(job_event::Event::OutputReset(_)));
    let reset = whole.iter().find(is_reset).unwrap();
    let expected = OutputReset { kept_bytes: 4, channel: String::new() };
    assert_eq!((reset.attempt, &reset.event), (2, &Some(job_event::Event::OutputReset(expected))));
}

#[tokio::test]
async fn a_checkpoint_outlives_its_server_and_a_repeat_after_that_changes_nothing() {
    let mut server = patient_server().await;
    let (mut client, mut before) = (server.client().await, workers(&server.url()).await);
    ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut before).await.lease_token;
    ok(before.append_output(recording(7, 4, "one", frame(&token, 0, "one two")))).await;

    server.restart().await;
    let mut after = workers(&server.url()).await;
    let repeated = ok(after.append_output(recording(7, 1, "late", frame(&token, 0, "one ")))).await;
    ok(after.release_job(release(&token))).await;
    let next = lease(&mut after).await;

    assert_eq!((repeated.durable_bytes, repeated.durable_checkpoints), (7, Some(7)));
    assert_eq!(left(&next), (&b"one"[..], 4));
}

#[tokio::test]
async fn what_a_checkpoint_cannot_be_is_refused_with_the_limit_and_takes_nothing_of_its_frame() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut workers).await.lease_token;
    let large = Checkpoint { data: vec![0; CHECKPOINT_BYTES_MAX + 1].into(), ..Default::default() };
    let too_large = AppendOutputRequest { checkpoint: Some(large), ..frame(&token, 0, "one") };

    let ahead = refused(workers.append_output(recording(1, 4, "four", frame(&token, 0, "one")))).await;
    let too_large = refused(workers.append_output(too_large)).await;
    let durable = ok(workers.append_output(frame(&token, 0, ""))).await;

    let (code, reason, details) = ahead;
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "CHECKPOINT_AHEAD"));
    let told = &details.error_info().unwrap().metadata;
    assert_eq!((told["output_bytes"].as_str(), told["expected"].as_str()), ("4", "3"));
    let (code, _, details) = too_large;
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["checkpoint.data".to_owned()]));
    assert_eq!((durable.durable_bytes, durable.durable_checkpoints), (0, Some(0)));
}

#[tokio::test]
async fn a_stream_that_sends_an_earlier_checkpoint_again_takes_no_later_ones_place() {
    let server = patient_server().await;
    let (mut client, mut workers) = (server.client().await, workers(&server.url()).await);
    let job = ok(client.start_job(start(KIND, "{}"))).await;
    let token = lease(&mut workers).await.lease_token;
    let frames =
        [recording(1, 4, "one", frame(&token, 0, "one ")), recording(2, 8, "two", frame(&token, 4, "two "))];

    let mut last = Vec::new();
    for sent in [frames.to_vec(), frames[..1].to_vec()] {
        let mut answers = ok(workers.emit(tokio_stream::iter(sent))).await;
        let mut answer = None;
        while let Some(next) = within(answers.message()).await.unwrap() {
            answer = Some(next);
        }
        last.push(answer.expect("all is answered"));
    }
    ok(workers.release_job(release(&token))).await;
    let next = lease(&mut workers).await;
    ok(workers.complete_job(complete(&next.lease_token, None))).await;

    assert!(
        last.iter().all(|answer| (answer.durable_bytes, answer.durable_checkpoints) == (8, Some(2))),
        "{last:?}"
    );
    assert_eq!(left(&next), (&b"two"[..], 8));
    let whole = history(&mut client, &job).await;
    assert_eq!((output(&whole).0.as_str(), states(&whole).last()), ("one two ", Some(&State::Succeeded)));
}
