//! Output that is lost, refused or not answered, and the checkpoints behind it.

use super::*;

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

/// Reads and answers heartbeats, so that the stream stays.
async fn alive(mut work: Work) {
    while let Ok(Some(message)) = work.heard.message().await {
        if let Some(Message::Heartbeat(heartbeat)) = message.message {
            work.renew(&heartbeat.reports).await;
        }
    }
}
