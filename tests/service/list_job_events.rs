//! The history of a job, page by page.

use crate::support::*;
use longhaul::proto::job::State;
use longhaul::proto::*;
use tonic::Code;

fn list(job: &Job, after: i64, size: i32) -> ListJobEventsRequest {
    ListJobEventsRequest { job_id: job.id.clone(), after_sequence: after, page_size: size }
}

#[tokio::test]
async fn a_history_is_complete_whatever_the_size_of_its_pages() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(simulated("one two three"))).await;
    reach(&mut client, &job, State::Succeeded).await;
    let whole = ok(client.list_job_events(list(&job, 0, 0))).await;
    assert_eq!(whole.next_after_sequence, 0);

    for size in 1..=whole.events.len() as i32 + 1 {
        let (mut after, mut events) = (0, Vec::new());
        loop {
            let page = ok(client.list_job_events(list(&job, after, size))).await;
            assert!(page.events.len() <= size as usize);
            events.extend(page.events);
            after = page.next_after_sequence;
            if after == 0 {
                break;
            }
        }
        assert_eq!(events, whole.events, "in pages of {size}");
    }
    let behind = ok(client.list_job_events(list(&job, whole.events.len() as i64, 10))).await;
    assert_eq!((behind.events.len(), behind.next_after_sequence), (0, 0));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let job = ok(client.start_job(start("work", "{}"))).await;
    let nobody = Job { id: "x".to_owned(), ..Default::default() };

    for (field, request) in [
        ("page_size", list(&job, 0, -1)),
        ("after_sequence", list(&job, -1, 0)),
        ("job_id", list(&nobody, 0, 0)),
    ] {
        let (code, _, details) = refused(client.list_job_events(request)).await;
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
}
