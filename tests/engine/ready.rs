//! Whether a server takes work: what it writes becomes durable, and it is not about to stop.

use crate::bench::*;
use crate::hostile::*;
use longhaul::engine::Error;

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_is_not_ready_until_it_can() {
    let bench = Bench::new().await;
    bench.store.fail(any, Fault::Unavailable);

    assert!(matches!(within(bench.engine.ready()).await, Err(Error::Unavailable(_))));
    assert_eq!(within(bench.engine.ready()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_is_not_ready_though_its_store_is() {
    let bench = Bench::new().await;
    assert_eq!(within(bench.engine.ready()).await, Ok(()));

    bench.engine.drain(SECOND);

    assert!(matches!(within(bench.engine.ready()).await, Err(Error::Unavailable(_))));
}
