//! How many jobs there are, by kind and state.

use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::*;
use tonic::Code;

async fn counts(client: &mut Client, kinds: &[&str]) -> Vec<(String, State, i64)> {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let answer = ok(client.count_jobs(CountJobsRequest { kinds })).await;
    assert!(!answer.truncated);
    answer.counts.iter().map(|count| (count.kind.clone(), count.state(), count.jobs)).collect()
}

#[tokio::test]
async fn jobs_are_counted_by_kind_and_state_also_after_a_restart() {
    let mut server = Server::start().await;
    let mut client = server.client().await;
    let done = ok(client.start_job(simulated("one"))).await;
    reach(&mut client, &done, State::Succeeded).await;
    for kind in ["b", "a", "b"] {
        ok(client.start_job(start(kind, "{}"))).await;
    }
    let waiting = ok(client.start_job(start("a", "{}"))).await;
    ok(client.cancel_job(CancelJobRequest { job_id: waiting.id, ..Default::default() })).await;

    let all = counts(&mut client, &[]).await;
    server.restart().await;
    let mut client = server.client().await;

    let expected = [
        ("a".to_owned(), State::Pending, 1),
        ("a".to_owned(), State::Cancelled, 1),
        ("b".to_owned(), State::Pending, 2),
        ("simulate".to_owned(), State::Succeeded, 1),
    ];
    assert_eq!(all, expected);
    assert_eq!(counts(&mut client, &[]).await, expected);
    assert_eq!(counts(&mut client, &["b", "b", "nobody"]).await, expected[2..3]);
}

#[tokio::test]
async fn too_many_kinds_are_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let kinds = (0..65).map(|n| n.to_string()).collect();

    let (code, _, details) = refused(client.count_jobs(CountJobsRequest { kinds })).await;

    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["kinds".to_owned()]));
}

#[tokio::test]
async fn what_an_answer_has_no_room_for_is_said_to_be_missing() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for thousand in 0..10 {
        let requests = (0..1_000).map(|n| start(&format!("kind-{thousand}-{n}"), "{}")).collect();
        ok(client.batch_start_jobs(BatchStartJobsRequest { requests })).await;
    }
    assert_eq!(counts(&mut client, &[]).await.len(), 10_000);

    ok(client.start_job(start("one-more", "{}"))).await;
    let answer = ok(client.count_jobs(CountJobsRequest::default())).await;

    assert_eq!((answer.counts.len(), answer.truncated), (10_000, true));
}
