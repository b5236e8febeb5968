//! Watchers that stop reading while a job writes 30 MiB, and one beside them that goes on.

use crate::handlers::{FLOOD_BYTES, FLOOD_PIECE_BYTES, STAMP_BYTES};
use crate::load::connect;
use crate::process::memory;
use crate::watchers::start;
use anyhow::{Context as _, ensure};
use longhaul::clock::{Clock as _, SystemClock};
use longhaul::job::Timestamp;
use longhaul::proto::job_event::Event;
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::{JobEvent, WatchJobRequest};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// What a stalled client takes before it takes no more: HTTP/2's own default, so that the server holds the rest.
const WINDOW_BYTES: u32 = 65_535;

/// So many watchers that stall, each on a connection of its own.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Stalled {
    pub address: SocketAddr,
    pub pid: u32,
    pub watchers: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Stood {
    /// By how much the server's memory rose.
    pub bytes: u64,
    /// The longest time from the handler's write to the fast watcher.
    pub latest: Duration,
}

/// Lets them stall, and watches.
pub async fn run(order: Stalled) -> anyhow::Result<Stood> {
    let before = memory(order.pid)?;
    let job_id = start(order.address, "flood").await?;
    let request = WatchJobRequest { job_id, after_sequence: Some(0), ..Default::default() };
    let mut stalled = Vec::new();
    for _ in 0..order.watchers {
        let endpoint = Endpoint::from_shared(format!("http://{}", order.address))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let mut client = JobServiceClient::new(endpoint.connect().await?);
        let mut events = client.watch_job(request.clone()).await?.into_inner();
        events.message().await?.context("no snapshot came")?;
        stalled.push((client, events));
    }

    let mut client = JobServiceClient::new(connect(order.address, 1).await?.remove(0));
    let events = client.watch_job(request).await?.into_inner();
    let mut fast = tokio::spawn(read_all(events));
    let mut most = before;
    let latest = loop {
        tokio::select! {
            latest = &mut fast => break latest??,
            () = tokio::time::sleep(LOOK) => most = most.max(memory(order.pid)?),
        }
    };
    drop(stalled);
    Ok(Stood { bytes: most - before, latest })
}

/// Reads a flood to its end; returns the longest time that a piece took from the handler to here.
async fn read_all(mut events: Streaming<JobEvent>) -> anyhow::Result<Duration> {
    let clock = SystemClock::new();
    let (mut output, mut latest) = (Vec::with_capacity(FLOOD_BYTES), Duration::ZERO);
    let mut pieces = (0..FLOOD_BYTES).step_by(FLOOD_PIECE_BYTES).peekable();
    while let Some(event) = events.message().await? {
        let Some(Event::Output(part)) = event.event else { continue };
        ensure!(part.offset == output.len() as i64, "output at {} after {}", part.offset, output.len());
        output.extend_from_slice(&part.data);
        while let Some(piece) = pieces.next_if(|piece| piece + STAMP_BYTES <= output.len()) {
            let stamp = output[piece..piece + STAMP_BYTES].try_into()?;
            latest = latest.max(clock.now().since(Timestamp::from_micros(i64::from_be_bytes(stamp))));
        }
    }
    ensure!(output.len() == FLOOD_BYTES, "{} of {FLOOD_BYTES} bytes of output arrived", output.len());
    Ok(latest)
}
