//! Ten thousand watchers of one job: what reaches them, and what each costs the server's memory.

use crate::calls::wish;
use crate::echo::WATCH;
use crate::load::connect;
use crate::process::memory;
use anyhow::Context as _;
use http::uri::PathAndQuery;
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::{EncodedEvent, WatchJobRequest};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// How long all watchers watch before anything counts.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// So many watchers of one job, or of the bare server's channel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Watchers {
    pub address: SocketAddr,
    pub pid: u32,
    pub bare: bool,
    pub watchers: usize,
    pub connections: usize,
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Watched {
    /// Messages a second, all watchers together.
    pub rate: f64,
    /// What each watcher added to the server's memory.
    pub bytes_each: f64,
}

#[derive(Default)]
struct Counters {
    arrived: AtomicUsize,
    messages: AtomicUsize,
}

/// Watches, and counts.
pub async fn run(order: Watchers) -> anyhow::Result<Watched> {
    let (path, job_id) = match order.bare {
        true => (WATCH, String::new()),
        false => ("/longhaul.v1.JobService/WatchJob", start(order.address, "ticks").await?),
    };
    let channels = connect(order.address, order.connections).await?;
    sleep(SETTLE).await;
    let before = memory(order.pid)?;

    let counters = Arc::new(Counters::default());
    for channel in channels.iter().cycle().take(order.watchers).cloned() {
        tokio::spawn(watch(channel, path, job_id.clone(), counters.clone()));
    }
    while counters.arrived.load(Relaxed) < order.watchers {
        sleep(LOOK).await;
    }
    sleep(SETTLE).await;
    let (began, messages) = (Instant::now(), counters.messages.load(Relaxed));
    let mut most = memory(order.pid)?;
    while began.elapsed() < order.time {
        sleep(LOOK).await;
        most = most.max(memory(order.pid)?);
    }
    let received = (counters.messages.load(Relaxed) - messages) as f64;
    let bytes_each = most.saturating_sub(before) as f64 / order.watchers as f64;
    Ok(Watched { rate: received / began.elapsed().as_secs_f64(), bytes_each })
}

/// Starts a job of this kind, and returns its id.
pub async fn start(address: SocketAddr, kind: &str) -> anyhow::Result<String> {
    let mut client = JobServiceClient::new(connect(address, 1).await?.remove(0));
    Ok(client.start_job(wish(kind)).await?.into_inner().id)
}

/// One watcher. Its events stay undecoded, so that the load is small and the same for both servers.
async fn watch(
    channel: Channel,
    path: &'static str,
    job_id: String,
    counters: Arc<Counters>,
) -> anyhow::Result<()> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let codec = ProstCodec::<WatchJobRequest, EncodedEvent>::default();
    let request = Request::new(WatchJobRequest { job_id, ..Default::default() });
    let answer = grpc.server_streaming(request, PathAndQuery::from_static(path), codec).await?;
    let mut events = answer.into_inner();
    events.message().await?.context("the first message")?;
    counters.arrived.fetch_add(1, Relaxed);
    while events.message().await?.is_some() {
        counters.messages.fetch_add(1, Relaxed);
    }
    Ok(())
}
