//! A process that was stopped for a while heard nobody meanwhile: no lease ends for that, but time has gone by.

use crate::bench::*;
use longhaul::engine::Order;
use longhaul::job::*;

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// The clock goes on, and nothing here does.
async fn stop_for_an_hour(bench: &Bench) {
    bench.clock.advance(HOUR);
    bench.pass(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_gets_as_much_more_time() {
    let bench = Bench::new().await;
    let job = bench.start().await;
    let leased = bench.lease_for(&remote()).await;
    within(bench.engine.append_log(&leased.token, 0, line("here"))).await.unwrap();

    stop_for_an_hour(&bench).await;
    within(bench.engine.append_log(&leased.token, 1, line("still here"))).await.unwrap();
    assert_eq!(*leased.orders.borrow(), Order::Continue);
    bench.pass(31 * SECOND).await;

    assert_eq!(*leased.orders.borrow(), Order::Lost);
    assert_eq!(bench.reasons(job).await.last().unwrap(), reason::LEASE_EXPIRED);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_not_stalled_by_it() {
    let bench = Bench::new().await;
    let job = bench.start_with(|options| options.progress_timeout = Some(5 * SECOND)).await;
    bench.lease().await;

    stop_for_an_hour(&bench).await;
    assert_eq!(bench.state(job).await, State::Running);
    bench.pass(6 * SECOND).await;

    assert!(bench.reasons(job).await.iter().any(|why| why == reason::STALLED));
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_jobs_hold_all_the_same() {
    let bench = Bench::new().await;
    let limited = bench.start_with(|options| options.start_to_close_timeout = Some(60 * SECOND)).await;
    let leased = bench.lease().await;
    let time = bench.engine.now().after(60 * SECOND);
    let scheduled = bench.start_with(|options| options.schedule_time = Some(time)).await;

    stop_for_an_hour(&bench).await;

    assert!(bench.reasons(limited).await.iter().any(|why| why == reason::ATTEMPT_TIMEOUT));
    assert_eq!(*leased.orders.borrow(), Order::Lost);
    assert_eq!(bench.state(scheduled).await, State::Pending);
}
