//! Lists, newest first, page by page.

use crate::support::*;
use longhaul::proto::job::{State, View};
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

/// A job with this label, in this state.
async fn made(client: &mut Client, kind: &str, team: &str, state: State) -> Job {
    let labels = [("team".to_owned(), team.to_owned()), ("size".to_owned(), "s".to_owned())].into();
    let job =
        ok(client.start_job(StartJobRequest { labels, ..start(kind, r#"{"seconds":0,"prompt":"a"}"#) }))
            .await;
    if state == State::Cancelled {
        ok(client.cancel_job(CancelJobRequest { job_id: job.id.clone(), ..Default::default() })).await;
    }
    reach(client, &job, state).await;
    job
}

#[tokio::test]
async fn a_list_has_what_matches_each_part_of_its_filter() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut jobs = Vec::new();
    for (kind, team, state) in [
        ("nobody", "voice", State::Pending),
        ("nobody", "text", State::Cancelled),
        ("simulate", "voice", State::Succeeded),
        ("simulate", "text", State::Succeeded),
    ] {
        jobs.push(made(&mut client, kind, team, state).await);
    }
    let states = |states: &[State]| JobFilter {
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..Default::default()
    };
    let kinds = |kinds: &[&str]| JobFilter {
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        ..Default::default()
    };
    let labels = |labels: &[(&str, &str)]| JobFilter {
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Default::default()
    };
    let created = |from: Option<&Job>, before: Option<&Job>| JobFilter {
        create_time_min: from.and_then(|job| job.create_time),
        create_time_max: before.and_then(|job| job.create_time),
        ..Default::default()
    };

    for (filter, expected) in [
        (JobFilter::default(), &[3, 2, 1, 0][..]),
        (states(&[State::Succeeded]), &[3, 2]),
        (states(&[State::Pending, State::Cancelled, State::Pending]), &[1, 0]),
        (states(&[State::Running]), &[]),
        (kinds(&["nobody"]), &[1, 0]),
        (kinds(&["nobody", "simulate", "else"]), &[3, 2, 1, 0]),
        (kinds(&["else"]), &[]),
        (labels(&[("team", "voice")]), &[2, 0]),
        (labels(&[("size", "s"), ("team", "text")]), &[3, 1]),
        (labels(&[("team", "voice"), ("size", "l")]), &[]),
        (created(Some(&jobs[1]), Some(&jobs[3])), &[2, 1]),
        (created(Some(&jobs[3]), Some(&jobs[1])), &[]),
        (JobFilter { labels: labels(&[("team", "voice")]).labels, ..states(&[State::Succeeded]) }, &[2]),
        (
            JobFilter {
                kinds: kinds(&["nobody"]).kinds,
                labels: labels(&[("team", "text")]).labels,
                create_time_max: jobs[2].create_time,
                ..states(&[State::Cancelled, State::Succeeded])
            },
            &[1],
        ),
    ] {
        let request = ListJobsRequest { filter: Some(filter), ..Default::default() };
        let page = ok(client.list_jobs(request.clone())).await;
        let expected: Vec<&str> = expected.iter().map(|index| jobs[*index].id.as_str()).collect();
        assert_eq!(page.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), expected, "{request:?}");
        assert_eq!(page.next_page_token, "");
    }
}

#[tokio::test]
async fn a_page_of_one_list_does_not_go_on_in_another() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for kind in ["a", "b", "a"] {
        ok(client.start_job(start(kind, "{}"))).await;
    }
    let of = |kind: &str| Some(JobFilter { kinds: vec![kind.to_owned()], ..Default::default() });
    let first = ListJobsRequest { filter: of("a"), page_size: 1, ..Default::default() };
    let page_token = ok(client.list_jobs(first.clone())).await.next_page_token;

    let other = ListJobsRequest { filter: of("b"), page_token: page_token.clone(), ..first.clone() };
    let (code, _, details) = refused(client.list_jobs(other)).await;
    // The size of a page may change.
    let rest = ok(client.list_jobs(ListJobsRequest { page_token, page_size: 9, ..first })).await;

    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["page_token".to_owned()]));
    assert_eq!((rest.jobs.len(), rest.next_page_token.as_str()), (1, ""));
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
