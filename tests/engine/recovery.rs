//! Engines that stop, and what the next one finds.

use crate::bench::*;
use longhaul::engine::Error;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_closed_engine_answers_that_it_is_stopping() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    bench.write(&leased.token, "first").await;
    bench.settle().await;
    bench.write(&leased.token, "held").await;

    within(bench.engine.close()).await;
    let start = within(bench.engine.start(spec("work"))).await;
    let mut complete = Box::pin(bench.engine.complete(&leased.token, "{}".into()));
    // The output that is held waits for its window, which is not over yet.
    let _ = at_once(&mut complete).await;
    tokio::time::advance(Duration::from_millis(50)).await;

    assert!(matches!(start, Err(Error::Unavailable(_))), "{start:?}");
    let complete = within(&mut complete).await;
    assert!(matches!(complete, Err(Error::Unavailable(_))), "{complete:?}");
}
