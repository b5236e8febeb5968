//! Heartbeats of workers elsewhere: what they renew, and in which order what they report is shown.
//!
//! What broke: output renewed its lease; a heartbeat that came while the end of its lease was on its way was told that it was
//! renewed; and a stage was compared with the last that was durable, not with the last that was reported.

use crate::bench::*;
use longhaul::engine::*;
use longhaul::job::*;

fn report(token: LeaseToken, stage: &str, fraction: f64) -> Report {
    let progress = Progress { stage: stage.into(), fraction: Some(fraction), ..Default::default() };
    Report { token, progress: Some(progress), metrics: Metrics::new() }
}

fn bare(token: LeaseToken) -> Report {
    Report { token, progress: None, metrics: Metrics::new() }
}

/// A job whose attempt has begun at a worker elsewhere.
async fn begun(bench: &Bench) -> LeaseToken {
    bench.start().await;
    let token = bench.lease_for(&remote()).await.token;
    within(bench.engine.renew(bare(token))).await.unwrap();
    token
}

#[tokio::test(start_paused = true)]
async fn output_alone_renews_no_lease() {
    let bench = Bench::new().await;
    let token = begun(&bench).await;

    for offset in 0..3 {
        bench.pass(9 * SECOND).await;
        let frame = Frame { offset, data: "x".into(), ..Default::default() };
        within(bench.engine.append_frame(&token, frame)).await.unwrap();
        within(bench.engine.accept(&token)).await.unwrap();
    }
    bench.pass(4 * SECOND).await;

    assert_eq!(bench.reasons(token.job).await.last().unwrap(), reason::LEASE_EXPIRED);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_renews_and_says_until_when() {
    let bench = Bench::new().await;
    let token = begun(&bench).await;

    for _ in 0..3 {
        bench.pass(20 * SECOND).await;
        within(bench.engine.renew(bare(token))).await.unwrap();
    }

    let directive = bench.engine.directive(&token).unwrap();
    assert_eq!(directive.order, Order::Continue);
    assert_eq!(directive.expire_time, bench.engine.now().after(30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_comes_too_late_is_never_told_that_it_renewed() {
    let bench = Bench::new().await;
    let token = begun(&bench).await;
    bench.pass(29 * SECOND).await;
    bench.store.block();
    for _ in 0..8 {
        // Without settling, which would wait for a commit.
        bench.clock.advance(SECOND / 4);
        tokio::time::advance(SECOND / 4).await;
        tokio::task::yield_now().await;
    }

    let mut renewing = Box::pin(bench.engine.renew(bare(token)));
    assert!(at_once(&mut renewing).await.is_none());
    bench.store.unblock();

    assert_eq!(within(renewing).await, Err(Error::Refused(Refusal::LeaseLost)));
}

#[tokio::test(start_paused = true)]
async fn stages_are_kept_and_shown_in_the_order_in_which_they_were_reported() {
    let bench = Bench::new().await;
    let token = begun(&bench).await;
    within(bench.engine.renew(report(token, "A", 0.1))).await.unwrap();

    bench.store.block();
    let beats = [("B", 0.2), ("A", 0.3), ("A", 0.4)];
    let mut renewing = Box::pin(futures_util::future::join_all(
        beats.map(|(stage, fraction)| bench.engine.renew(report(token, stage, fraction))),
    ));
    assert!(at_once(&mut renewing).await.is_none());
    assert_eq!(bench.get(token.job).await.live.progress.fraction, Some(0.1), "nothing overtakes");
    bench.store.unblock();
    assert!(within(renewing).await.into_iter().all(|renewed| renewed.is_ok()));

    let shown = bench.get(token.job).await.live.progress;
    assert_eq!((shown.stage.as_str(), shown.fraction), ("A", Some(0.4)));
    assert_eq!(stages(&bench, token.job).await, ["A", "B", "A"]);
}

#[tokio::test(start_paused = true)]
async fn a_stage_whose_heartbeat_was_given_up_is_entered_by_the_next() {
    let bench = Bench::new().await;
    let token = begun(&bench).await;
    bench.store.fail(crate::hostile::applies, crate::hostile::Fault::Unavailable);
    drop(bench.engine.renew(report(token, "A", 0.1)));
    bench.settle().await;
    assert!(bench.store.has_failed());

    within(bench.engine.renew(report(token, "A", 0.2))).await.unwrap();

    assert_eq!(stages(&bench, token.job).await, ["A"]);
    assert_eq!(bench.get(token.job).await.live.progress.stage, "A");
}

async fn stages(bench: &Bench, job: JobId) -> Vec<String> {
    let stage = |event: Event| match event.body {
        Body::StageEntered { name } => Some(name),
        _ => None,
    };
    bench.history(job).await.into_iter().filter_map(stage).collect()
}
