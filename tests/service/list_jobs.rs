//! Lists, newest first, page by page.

use crate::support::*;
use longhaul::proto::job::View;
use longhaul::proto::*;
use tonic::Code;

#[tokio::test]
async fn each_job_is_on_exactly_one_page_newest_first() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut started = Vec::new();
    for n in 0..23 {
        started.push(ok(client.start_job(start("work", &format!(r#"{{"n":{n}}}"#)))).await.id);
    }
    started.reverse();

    let mut request = ListJobsRequest { page_size: 5, ..Default::default() };
    let mut listed = Vec::new();
    loop {
        let page = ok(client.list_jobs(request.clone())).await;
        listed.extend(page.jobs.into_iter().map(|job| job.id));
        // What comes in during a listing is newer than its first page.
        ok(client.start_job(start("work", "{}"))).await;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }

    assert_eq!(listed, started);
}

#[tokio::test]
async fn a_page_ends_at_its_limit_of_bytes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let input = format!(r#"{{"text":"{}"}}"#, "x".repeat(400_000));
    for _ in 0..5 {
        ok(client.start_job(start("work", &input))).await;
    }

    let full = ListJobsRequest { view: View::Full.into(), ..Default::default() };
    let page = ok(client.list_jobs(full)).await;
    let basic = ok(client.list_jobs(ListJobsRequest::default())).await;

    assert_eq!(page.jobs.len(), 2, "three would be more than 1 MiB");
    assert!(!page.next_page_token.is_empty() && page.jobs[0].input.is_some());
    assert_eq!((basic.jobs.len(), basic.next_page_token.as_str()), (5, ""));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let bad = [
        ("page_size", ListJobsRequest { page_size: -1, ..Default::default() }),
        ("page_token", ListJobsRequest { page_token: "page two".to_owned(), ..Default::default() }),
        ("view", ListJobsRequest { view: 9, ..Default::default() }),
    ];

    for (field, request) in bad {
        let (code, _, details) = refused(client.list_jobs(request)).await;
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
}
