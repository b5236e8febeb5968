//! The source against a server that breaks, is silent, refuses, and comes back. Here: leases, and how they are ended.

mod connections;
mod far;
mod outputs;
mod releases;
mod reports;

use super::*;
use crate::worker::{Context, Handler, Pool, Registry};
use far::{Emit, Far, INTERVAL, Work, goes_on, patiently};
use futures_util::poll;
use std::pin::pin;
use std::task::Poll;
use tokio::time::Instant;

fn kinds() -> Arc<[String]> {
    ["work".to_owned()].into()
}

fn source(far: &Far) -> RemoteSource {
    let identity = Identity { worker_id: "near".into(), ..Default::default() };
    RemoteSource::over(far.dial(), identity, Arc::new(SystemClock::new()), Arc::new(rand::random))
}

/// A source with one job that it was assigned on the stream that is still open.
async fn begun() -> (Far, RemoteSource, LeasedJob, Work) {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    let assigned = async {
        let (work, _) = far.greeted().await;
        work.assign(1).await;
        work
    };
    let (leased, work) = tokio::join!(source.lease(&wanted, 1), assigned);
    (far, source, leased.unwrap().remove(0), work)
}

/// Writes something and lets it be sent.
async fn written(far: &mut Far, source: &RemoteSource, job: &LeasedJob, text: &'static str) -> Emit {
    source.append_output(&job.token, "", Bytes::from_static(text.as_bytes())).await.unwrap();
    let mut emit = far.emit().await;
    assert_eq!(emit.next().await.data, text);
    emit
}

fn completion(message: Message) -> Option<proto::CompleteJobRequest> {
    match message {
        Message::Complete(complete) => Some(complete),
        _ => None,
    }
}

fn names(reports: &[proto::Report], job: &LeasedJob) -> bool {
    reports.iter().any(|report| report.lease_token == job.token.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_works_under_is_not_renewed() {
    let (mut far, source, job, mut work) = begun().await;
    work.beat(|reports| names(reports, &job)).await;
    let refused = async {
        let end = work.until(|message| matches!(message, Message::Fail(_)).then_some(()));
        end.await;
        work.acknowledge(&job.token, "INVALID_REQUEST").await;
        work
    };
    let (failed, mut work) = tokio::join!(source.fail(&job.token, None), refused);
    assert!(matches!(failed, Err(Error::Refused(_))));

    drop(job);

    work.beat(<[_]>::is_empty).await;
    work.break_off().await;
    let (_, hello) = far.greeted().await;
    assert_eq!(hello.lease_tokens, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_until_its_end_is_answered() {
    let (mut far, source, job, mut work) = begun().await;
    let mut ending = pin!(source.complete(&job.token, Bytes::from_static(b"{}")));
    assert!(poll!(ending.as_mut()).is_pending());
    work.until(completion).await;

    work.beat(|reports| names(reports, &job)).await;
    work.break_off().await;
    let (mut work, hello) = far.greeted().await;

    assert_eq!(hello.lease_tokens, [job.token.to_string()]);
    work.until(completion).await;
    work.acknowledge(&job.token, "").await;
    assert_eq!(patiently(ending).await, Ok(()));
}

/// Returns at once, or never.
struct Returns(bool);

#[async_trait]
impl Handler for Returns {
    async fn run(&self, _: &Context) -> Result<Bytes, Failure> {
        match self.0 {
            true => Ok(Bytes::from_static(b"{}")),
            false => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_without_a_server() {
    for returns in [true, false] {
        let mut far = Far::new();
        let pool = Pool::start(source(&far), Registry::default().with("work", Returns(returns)), 2);
        let (mut work, _) = far.greeted().await;
        work.assign(1).await;
        work.until(|message| matches!(message, Message::Accept(_)).then_some(())).await;

        far.go_away();
        drop(work);
        let began = Instant::now();
        patiently(pool.drain(Duration::from_secs(5))).await;

        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_until_what_was_not_taken_is_given_back() {
    for is_answered in [true, false] {
        let mut far = Far::new();
        let source = source(&far);
        let wanted = kinds();
        let mut leasing = pin!(source.lease(&wanted, 1));
        assert!(poll!(leasing.as_mut()).is_pending());
        let (mut work, _) = far.greeted().await;
        let token = work.assign(1).await;
        work.until(|message| matches!(message, Message::Accept(_)).then_some(())).await;

        let mut draining = pin!(source.drain());
        assert!(poll!(draining.as_mut()).is_pending());
        let release = |message| match message {
            Message::Release(release) => Some(release.lease_token),
            _ => None,
        };
        let released = work.until(release).await;
        assert!(poll!(draining.as_mut()).is_pending());
        let began = Instant::now();
        if is_answered {
            work.acknowledge(&token, "").await;
        }
        patiently(draining).await;

        assert_eq!(released, token.to_string());
        assert_eq!(began.elapsed() < Duration::from_secs(1), is_answered);
        assert!(matches!(poll!(leasing.as_mut()), Poll::Pending), "it is not taken any more");
    }
}

#[tokio::test(start_paused = true)]
async fn the_trace_of_a_job_comes_with_it() {
    let (_far, _source, job, _work) = begun().await;

    assert_eq!(job.assignment.trace.map(|trace| trace.parent).as_deref(), Some("00-trace"));
}
