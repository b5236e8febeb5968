//! Progress, stages and measurements: each is told until it is answered, and no more often.

use super::*;

fn stage(reports: &[proto::Report]) -> Option<String> {
    reports.iter().find_map(|report| Some(report.progress.as_ref()?.stage.clone()))
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
