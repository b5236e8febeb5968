//! What is given back: by a handler, with when and why, and by a source that rests, as if it had never come.

use super::*;
use crate::job::limits::MESSAGE_CHARACTERS_MAX;

fn release(message: Message) -> Option<proto::ReleaseJobRequest> {
    match message {
        Message::Release(release) => Some(release),
        _ => None,
    }
}

fn credit(message: Message) -> Option<(i32, i64)> {
    match message {
        Message::Credit(credit) => Some((credit.free_slots, credit.received)),
        _ => None,
    }
}

fn delay(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

#[tokio::test(start_paused = true)]
async fn a_job_is_given_back_with_when_and_why_and_behind_its_output() {
    let (mut far, source, job, mut work) = begun().await;
    let emit = written(&mut far, &source, &job, "half").await;
    let mut releasing =
        pin!(source.release(&job.token, "the provider rests".into(), Duration::from_millis(7_250)));
    assert!(poll!(releasing.as_mut()).is_pending());
    let quiet = work.beat(|reports| names(reports, &job)).await;
    work.renew(&quiet).await;

    let released = async {
        emit.settle(&job.token, 4).await;
        let released = work.until(release).await;
        work.acknowledge(&job.token, "").await;
        released
    };
    let (answer, released) = patiently(async { tokio::join!(releasing, released) }).await;

    let lease_token = job.token.to_string();
    let reason = "the provider rests".to_owned();
    assert_eq!(released, proto::ReleaseJobRequest { lease_token, reason, delay: delay(7, 250_000_000) });
    assert_eq!(answer, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_not_answered_is_said_again_as_it_was() {
    let (mut far, source, job, mut work) = begun().await;
    let mut releasing = pin!(source.release(&job.token, "later".into(), Duration::from_secs(60)));
    assert!(poll!(releasing.as_mut()).is_pending());
    let first = work.until(release).await;

    work.break_off().await;
    let (mut work, _) = far.greeted().await;
    let second = work.until(release).await;
    work.acknowledge(&job.token, "").await;

    assert_eq!((&first, first.delay), (&second, delay(60, 0)));
    assert_eq!(patiently(releasing).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_process_that_stops_is_given_back_without_a_delay() {
    let (_far, source, job, mut work) = begun().await;
    let interrupted = async {
        let released = work.until(release).await;
        work.acknowledge(&job.token, "").await;
        released
    };

    let (answer, released) = tokio::join!(source.interrupt(&job.token), interrupted);

    assert_eq!((answer, released.reason.as_str(), released.delay), (Ok(()), "the worker stops", None));
}

/// Gives each job back.
struct GivesBack;

#[async_trait]
impl Handler for GivesBack {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let failure = Failure::new("PROVIDER_BUSY", "ä".repeat(MESSAGE_CHARACTERS_MAX + 1));
        Err(context.give_back(failure, Duration::from_secs(3)))
    }
}

/// A pool of it with a job, and what it says of that.
async fn given_back() -> (Far, Pool<RemoteSource>, Work, LeaseToken, proto::ReleaseJobRequest) {
    let mut far = Far::new();
    let pool = Pool::start(source(&far), Registry::default().with("work", GivesBack), 1);
    let (mut work, _) = far.greeted().await;
    let token = work.assign(1).await;
    let released = work.until(release).await;
    (far, pool, work, token, released)
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_says_of_a_job_that_it_gives_back_is_no_longer_than_is_taken() {
    let (_far, _pool, mut work, token, released) = given_back().await;

    work.acknowledge(&token, "").await;

    assert_eq!(released.lease_token, token.to_string());
    assert_eq!((released.reason, released.delay), ("ä".repeat(MESSAGE_CHARACTERS_MAX), delay(3, 0)));
    assert_eq!(work.until(credit).await, (1, 1), "there is room for another");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_while_it_is_given_back_has_stopped() {
    let (_far, _pool, mut work, token, _) = given_back().await;

    work.acknowledge(&token, "JOB_CANCELLED").await;
    let failed =
        work.until(|message| if let Message::Fail(fail) = message { Some(fail) } else { None }).await;

    assert_eq!((failed.lease_token, failed.failure), (token.to_string(), None));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_rests_wants_nothing_and_gives_back_what_nobody_took_and_what_still_comes() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    assert!(poll!(pin!(source.lease(&wanted, 2))).is_pending());
    let (mut work, _) = far.greeted().await;
    assert_eq!(work.until(credit).await, (2, 0));
    let come = work.assign(1).await;
    work.until(|message| matches!(message, Message::Accept(_)).then_some(())).await;

    source.rest().await;
    let first = work.until(release).await;
    let told = work.until(credit).await;
    let on_its_way = work.assign(2).await;
    let second = work.until(release).await;
    for token in [come, on_its_way] {
        work.acknowledge(&token, "").await;
    }

    assert_eq!(told, (0, 1));
    for (release, token) in [(first, come), (second, on_its_way)] {
        assert_eq!((release.lease_token, release.delay), (token.to_string(), None));
        assert_eq!(release.reason, "no jobs are wanted now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_rested_takes_jobs_again() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    source.rest().await;
    assert!(poll!(pin!(source.lease(&wanted, 1))).is_pending());
    let (mut work, _) = far.greeted().await;
    work.until(credit).await;
    source.rest().await;
    assert_eq!(work.until(credit).await, (0, 0));

    let asked = async {
        assert_eq!(work.until(credit).await, (1, 0));
        work.assign(1).await
    };
    let (leased, token) = patiently(async { tokio::join!(source.lease(&wanted, 1), asked) }).await;

    assert_eq!(leased.unwrap().remove(0).token, token);
}
