//! What is latest-wins: shown before it is kept, never back within an attempt, no more often than is wanted.

use crate::bench::*;
use longhaul::engine::{SharedBody, WatchOptions};
use longhaul::job::*;
use longhaul::store::{Parts, Store};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_report_is_shown_at_once_and_kept_within_a_second() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let mut watch = bench.watch(token.job, None).await;
    let stored = || bench.store.get(&[token.job], Parts::BASIC).unwrap().remove(0).unwrap().live;

    bench.engine.report(&token, progress(0.5), [("tokens".to_owned(), 3.0)].into()).unwrap();

    let seen = drain(&mut watch).await;
    assert_eq!(fractions(&seen), [(1, 0.5)]);
    assert!(matches!(&seen[1].body, SharedBody::Metrics(metrics) if metrics["tokens"] == 3.0), "{seen:?}");
    let shown = bench.get(token.job).await.live;
    assert_eq!(shown.progress.fraction, Some(0.5));
    assert!(stored().is_empty());
    bench.pass(SECOND).await;
    assert_eq!(stored(), shown);
}

#[tokio::test(start_paused = true)]
async fn an_end_keeps_the_last_report_with_it() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    bench.engine.report(&token, progress(0.5), [("tokens".to_owned(), 3.0)].into()).unwrap();

    bench.complete(&token).await;

    let history = bench.history(token.job).await;
    let Body::StateChanged(change) = &history.last().unwrap().body else { panic!("{history:?}") };
    assert_eq!(change.metrics["tokens"], 3.0);
    assert_eq!(bench.get(token.job).await.live.progress.fraction, Some(0.5));
}

#[tokio::test(start_paused = true)]
async fn a_fraction_never_goes_back_within_an_attempt() {
    let bench = Bench::new().await;
    let first = bench.run().await.token;
    let mut watch = bench.watch(first.job, None).await;
    let mut seen = Vec::new();

    for fraction in [0.2, 0.5, 0.3, 1.0] {
        bench.engine.report(&first, progress(fraction), Metrics::new()).unwrap();
        seen.extend(drain(&mut watch).await);
    }
    within(bench.engine.fail(&first, failure(), None)).await.unwrap();
    bench.pass(2 * SECOND).await;
    let second = bench.lease().await.token;
    bench.engine.report(&second, progress(0.1), Metrics::new()).unwrap();
    seen.extend(drain(&mut watch).await);

    assert_eq!(fractions(&seen), [(1, 0.2), (1, 0.5), (1, 0.5), (1, 0.99), (2, 0.1)]);
}

#[tokio::test(start_paused = true)]
async fn a_report_of_an_attempt_is_not_shown_in_the_next_one() {
    let bench = Bench::new().await;
    let first = bench.run().await.token;
    let mut watch = bench.watch(first.job, None).await;

    bench.engine.report(&first, progress(0.5), Metrics::new()).unwrap();
    within(bench.engine.fail(&first, failure(), None)).await.unwrap();
    bench.pass(2 * SECOND).await;
    bench.lease().await;
    let seen = drain(&mut watch).await;

    let attempts: Vec<u32> = seen.iter().map(|event| event.attempt).collect();
    assert!(attempts.is_sorted(), "{attempts:?}");
    assert_eq!(attempts.last(), Some(&2));
    assert_eq!(bench.get(first.job).await.live.progress.fraction, None);
}

#[tokio::test(start_paused = true)]
async fn reports_come_no_more_often_than_is_wanted_and_the_last_one_comes() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let minimum_interval = SECOND;
    let mut watch = bench.watch_with(token.job, WatchOptions { minimum_interval, ..options() }).await;
    let (mut seen, mut times) = (Vec::new(), Vec::new());

    for n in 0..24 {
        bench.engine.report(&token, progress(f64::from(n) / 100.0), Metrics::new()).unwrap();
        let now = drain(&mut watch).await;
        times.extend(now.iter().map(|_| tokio::time::Instant::now()));
        seen.extend(now);
        bench.pass(Duration::from_millis(100)).await;
    }
    bench.pass(SECOND).await;
    seen.extend(drain(&mut watch).await);

    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= minimum_interval), "{times:?}");
    assert_eq!(fractions(&seen), [(1, 0.0), (1, 0.1), (1, 0.2), (1, 0.23)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_does_not_wait_for_what_is_not() {
    let bench = Bench::new().await;
    let token = bench.run().await.token;
    let options = WatchOptions { minimum_interval: 100 * SECOND, ..options() };
    let mut watch = bench.watch_with(token.job, options).await;
    for fraction in [0.1, 0.2] {
        bench.engine.report(&token, progress(fraction), Metrics::new()).unwrap();
        drain(&mut watch).await;
    }

    within(bench.engine.append_log(&token, 0, line("kept"))).await.unwrap();
    assert_eq!(kept(&drain(&mut watch).await).len(), 1);
    bench.complete(&token).await;

    assert_eq!(reasons(&kept(&to_the_end(watch).await)), [reason::COMPLETED]);
}
