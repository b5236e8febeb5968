//! The source against a server that breaks, is silent, refuses, and comes back.

mod far;
mod releases;

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

fn stage(reports: &[proto::Report]) -> Option<String> {
    reports.iter().find_map(|report| Some(report.progress.as_ref()?.stage.clone()))
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_and_is_not_durable_is_sent_again_though_nothing_new_is_written() {
    let (mut far, source, job, _work) = begun().await;
    let emit = written(&mut far, &source, &job, "the last").await;

    emit.break_off().await;
    let mut again = far.emit().await;
    let frame = again.next().await;

    assert_eq!((frame.offset, &frame.data[..]), (0, &b"the last"[..]));
    let flushed = async {
        again.settle(&job.token, 8).await;
        source.book.emitted(&job.token).await
    };
    assert_eq!(patiently(flushed).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn output_that_the_server_lost_fails_the_attempt_and_is_not_waited_for() {
    let (mut far, source, job, mut work) = begun().await;
    let emit = written(&mut far, &source, &job, "all").await;
    emit.settle(&job.token, 3).await;

    let complete = || source.complete(&job.token, Bytes::from_static(b"{}"));
    let refuse = async |work: &mut Work| {
        assert_eq!(work.until(completion).await.output_bytes, Some(3));
        work.acknowledge(&job.token, "OUTPUT_MISSING").await;
    };
    let (first, ()) = tokio::join!(complete(), refuse(&mut work));
    let (second, ()) = tokio::join!(complete(), refuse(&mut work));

    assert!(matches!(first, Err(Error::Transient(_))), "{first:?}");
    assert!(matches!(second, Err(Error::OutputConflict(_))), "{second:?}");
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
async fn a_heartbeat_is_no_sign_of_progress() {
    let (_far, source, job, mut work) = begun().await;
    let half = Progress { fraction: Some(0.5), ..Default::default() };
    source.report(&job.token, Some(half), [("tokens".to_owned(), 1.0)].into()).unwrap();

    let mut told = Vec::new();
    let began = Instant::now();
    while began.elapsed() < 5 * INTERVAL {
        let reports = work.beat(|_| true).await;
        work.renew(&reports).await;
        told.extend(reports.into_iter().filter(|r| r.progress.is_some() || !r.metrics.is_empty()));
    }

    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn progress_that_was_not_answered_is_reported_again_after_a_break_and_no_other() {
    let (mut far, source, job, mut work) = begun().await;
    let half = Progress { fraction: Some(0.5), ..Default::default() };
    source.report(&job.token, Some(half), Metrics::new()).unwrap();
    let has_progress = |reports: &[proto::Report]| reports.iter().any(|report| report.progress.is_some());

    work.beat(has_progress).await;
    work.break_off().await;
    let (mut work, _) = far.greeted().await;
    let again = work.beat(has_progress).await;
    work.renew(&again).await;
    let reports = work.beat(|reports| !has_progress(reports)).await;
    work.renew(&reports).await;
    work.break_off().await;

    let (mut work, _) = far.greeted().await;
    assert!(!has_progress(&work.beat(|reports| !reports.is_empty()).await));
}

#[tokio::test(start_paused = true)]
async fn no_more_measurements_are_sent_than_are_taken() {
    let (_far, source, job, mut work) = begun().await;
    for number in 0..100 {
        source.report(&job.token, None, [(number.to_string(), 1.0)].into()).unwrap();
    }

    let ended = async {
        let complete = work.until(completion).await;
        work.acknowledge(&job.token, "").await;
        complete
    };
    let (_, complete) = tokio::join!(source.complete(&job.token, Bytes::from_static(b"{}")), ended);

    assert_eq!(complete.metrics.len(), crate::job::limits::METRICS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_server_older_than_checkpoints_is_told_of_and_not_waited_for() {
    let (mut far, source, job, mut work) = begun().await;
    let checkpoint = source.checkpoint(&job.token, Bytes::new(), Bytes::from_static(b"far"), 0);
    let answer = async {
        let mut emit = far.emit().await;
        assert_eq!(emit.next().await.checkpoint.expect("it is sent all the same").data, "far");
        // As it says it of any frame.
        emit.settle(&job.token, 0).await;
        emit
    };

    let (refused, emit) = patiently(async { tokio::join!(checkpoint, answer) }).await;

    let Err(Error::Refused(message)) = &refused else { panic!("{refused:?}") };
    assert!(message.contains("older than checkpoints"), "{message}");
    // The attempt itself goes on.
    source.append_output(&job.token, "", Bytes::from_static(b"text")).await.unwrap();
    emit.settle(&job.token, 4).await;
    let complete = source.complete(&job.token, Bytes::from_static(b"{}"));
    let acknowledged = async {
        work.until(completion).await;
        work.acknowledge(&job.token, "").await;
    };
    let (completed, ()) = patiently(async { tokio::join!(complete, acknowledged) }).await;
    assert_eq!(completed, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn output_that_was_refused_is_not_announced() {
    type Is = fn(&Error) -> bool;
    let cases: [(&str, Is); 3] = [
        ("OUTPUT_LIMIT", |error| matches!(error, Error::OutputLimit(_))),
        ("CHANNEL_LIMIT", |error| matches!(error, Error::OutputLimit(_))),
        ("OUTPUT_CONFLICT", |error| matches!(error, Error::OutputConflict(_))),
    ];
    for (refusal, is_expected) in cases {
        let (mut far, source, job, _work) = begun().await;
        let emit = written(&mut far, &source, &job, "too much").await;
        emit.refuse(&job.token, refusal).await;
        let refused = async {
            while source.append_output(&job.token, "", Bytes::new()).await.is_ok() {
                tokio::task::yield_now().await;
            }
            source.complete(&job.token, Bytes::from_static(b"{}")).await.unwrap_err()
        };

        let error = patiently(refused).await;

        assert!(is_expected(&error), "{refusal}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_left_for_another_with_both_streams() {
    let (mut far, source, job, work) = begun().await;
    let emit = written(&mut far, &source, &job, "lost").await;
    let began = Instant::now();

    let (next, hello) = far.greeted().await;
    let mut next_emit = far.emit().await;

    assert_eq!((work.connection, emit.connection), (1, 1));
    assert_eq!((next.connection, next_emit.connection), (2, 2));
    assert_eq!(hello.lease_tokens, [job.token.to_string()]);
    assert_eq!(next_emit.next().await.data, "lost");
    let waited = began.elapsed();
    assert!((2 * INTERVAL..4 * INTERVAL).contains(&waited), "{waited:?}");
    assert!(goes_on(&job.orders), "a break loses no lease");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_greet_is_asked_over_another_connection() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    let mut leasing = pin!(source.lease(&wanted, 1));
    assert!(poll!(leasing.as_mut()).is_pending());
    let _silent = far.work().await;
    let began = Instant::now();

    let (next, _) = far.greeted().await;

    assert_eq!(next.connection, 2);
    assert!((10..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stage_survives_a_break_and_comes_once_and_in_order() {
    let (mut far, source, job, mut work) = begun().await;
    source.enter_stage(&job.token, "Reading".into()).await.unwrap();
    source.enter_stage(&job.token, "Writing".into()).await.unwrap();
    work.beat(|reports| stage(reports).is_some()).await;

    work.break_off().await;
    let (mut work, _) = far.greeted().await;
    let mut told = Vec::new();
    let began = Instant::now();
    while began.elapsed() < 4 * INTERVAL {
        let reports = work.beat(|_| true).await;
        told.extend(stage(&reports));
        work.renew(&reports).await;
    }

    assert_eq!(told, ["Reading", "Writing"]);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_is_not_answered_is_told_again() {
    let (_far, source, job, mut work) = begun().await;
    source.enter_stage(&job.token, "Reading".into()).await.unwrap();
    work.beat(|reports| stage(reports).is_some()).await;

    // Of a report that could not be recorded nothing is said; the others are answered.
    let mut others = 0;
    let reports = loop {
        let reports = work.beat(|_| true).await;
        match stage(&reports) {
            Some(_) => break reports,
            None => work.renew(&reports).await,
        }
        others += 1;
    };

    assert_eq!(stage(&reports).as_deref(), Some("Reading"));
    assert!(others > 0, "it is not told twice at once, since both may be recorded");
    let mut completing = pin!(source.complete(&job.token, Bytes::from_static(b"{}")));
    assert!(poll!(completing.as_mut()).is_pending());
    work.renew(&reports).await;
    let ended = async {
        work.until(completion).await;
        work.acknowledge(&job.token, "").await;
    };
    assert_eq!(tokio::join!(completing, ended).0, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn refused_output_is_sent_again_less_and_less_often() {
    let (mut far, source, job, work) = begun().await;
    tokio::spawn(alive(work));
    source.append_output(&job.token, "", Bytes::from_static(b"x")).await.unwrap();

    let mut tries = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        let mut emit = far.emit().await;
        emit.next().await;
        emit.refuse(&job.token, "UNAVAILABLE").await;
        tries += 1;
    }

    assert!((5..20).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_what_was_durable_is_final() {
    let (mut far, source, job, work) = begun().await;
    tokio::spawn(alive(work));
    source.append_output(&job.token, "", Bytes::from_static(b"x")).await.unwrap();
    let refusing = async {
        loop {
            let mut emit = far.emit().await;
            while let Ok(Some(_)) = emit.heard.message().await {
                emit.refuse(&job.token, "OUTPUT_GAP").await;
            }
        }
    };

    let emitted = tokio::select! {
        emitted = patiently(source.book.emitted(&job.token)) => emitted,
        () = refusing => unreachable!("it does not end"),
    };

    assert!(matches!(emitted, Err(Error::OutputConflict(_))), "{emitted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_greets_and_breaks_off_is_asked_less_and_less_often() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    let mut leasing = pin!(source.lease(&wanted, 1));
    assert!(poll!(leasing.as_mut()).is_pending());

    let mut tries = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        far.greeted().await.0.break_off().await;
        tries += 1;
    }

    assert!((5..20).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn no_more_slots_are_told_than_a_server_takes() {
    let mut far = Far::new();
    let source = source(&far);
    let wanted = kinds();
    let mut leasing = pin!(source.lease(&wanted, 20_000));
    assert!(poll!(leasing.as_mut()).is_pending());
    let (mut work, hello) = far.greeted().await;

    let credit = |message| match message {
        Message::Credit(credit) => Some(credit.free_slots),
        _ => None,
    };

    assert_eq!(work.until(credit).await, 10_000);
    assert_eq!(hello.kinds, ["work"]);
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
async fn a_source_that_is_dropped_ends_its_streams() {
    let (mut far, source, job, mut work) = begun().await;
    let mut emit = written(&mut far, &source, &job, "text").await;

    drop(source);

    let to_the_end = async {
        while let Ok(Some(_)) = work.heard.message().await {}
        while let Ok(Some(_)) = emit.heard.message().await {}
    };
    patiently(to_the_end).await;
}

#[tokio::test(start_paused = true)]
async fn the_trace_of_a_job_comes_with_it() {
    let (_far, _source, job, _work) = begun().await;

    assert_eq!(job.assignment.trace.map(|trace| trace.parent).as_deref(), Some("00-trace"));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_server_that_does_not_read_does_not_grow() {
    let book = Book::new(Identity::default());
    let (_, _) = book.begin_work();

    for _ in 0..1_000 {
        book.beat();
        book.tell_changes();
    }
    book.drain();

    let mut waiting = 0;
    while let Poll::Ready(Some(_)) = poll!(pin!(book.next_message(1))) {
        waiting += 1;
    }
    assert_eq!(waiting, 2, "one heartbeat, and the word that it drains");
}

/// Reads and answers heartbeats, so that the stream stays.
async fn alive(mut work: Work) {
    while let Ok(Some(message)) = work.heard.message().await {
        if let Some(Message::Heartbeat(heartbeat)) = message.message {
            work.renew(&heartbeat.reports).await;
        }
    }
}
