//! A crowd at one job, half of it over server-sent events and half over gRPC: when the last of them sees the end.

use crate::calls::wish;
use crate::load::connect;
use crate::process::memory;
use anyhow::{Context as _, ensure};
use longhaul::clock::{Clock as _, SystemClock};
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::{CancelJobRequest, GetStatusRequest, WatchJobRequest};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Channel;

/// Watchers on one connection of gRPC.
const STREAMS: usize = 1_000;
/// How many connections are opened at once.
const OPENING: usize = 100;
/// How long all of them watch before the job ends.
const WATCHING: Duration = Duration::from_secs(3);
/// How often is looked whether all have come, and how much memory the server has.
const LOOK: Duration = Duration::from_millis(50);

/// So many watchers of either kind, twice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Crowd {
    pub address: SocketAddr,
    pub pid: u32,
    pub each: usize,
}

/// What came of one round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// From the job's end until the last watcher had seen it, in seconds.
    pub latest: f64,
    /// The most memory that the server had.
    pub bytes: f64,
}

/// Lets this process, and those that it starts, have a file open for each watcher.
pub fn allow_open_files() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Two rounds with the same server.
pub async fn run(order: Crowd) -> anyhow::Result<[Seen; 2]> {
    Ok([round(order).await?, round(order).await?])
}

async fn round(order: Crowd) -> anyhow::Result<Seen> {
    let channels = connect(order.address, order.each.div_ceil(STREAMS)).await?;
    // The others have as many streams as they may.
    let mut client = JobServiceClient::new(connect(order.address, 1).await?.remove(0));
    let job = client.start_job(wish("ticks")).await?.into_inner().id;
    let arrived = Arc::new(AtomicUsize::new(0));
    let clock = Arc::new(SystemClock::new());
    let mut watchers = JoinSet::new();
    for channel in channels.iter().cycle().take(order.each).cloned() {
        let (job, arrived, clock) = (job.clone(), Arc::clone(&arrived), Arc::clone(&clock));
        watchers.spawn(async move { over_grpc(channel, job, &arrived).await.map(|()| clock.now()) });
    }
    for count in 0..order.each {
        // Gently, so that no connection waits in a full backlog.
        while count % OPENING == 0 && arrived.load(Relaxed) < count {
            sleep(LOOK).await;
            ensure!(watchers.try_join_next().is_none(), "a watcher ended before the job did");
        }
        let (job, arrived, clock) = (job.clone(), Arc::clone(&arrived), Arc::clone(&clock));
        let address = order.address;
        watchers.spawn(async move { over_http(address, &job, &arrived).await.map(|()| clock.now()) });
    }
    while arrived.load(Relaxed) < 2 * order.each {
        sleep(LOOK).await;
    }

    let mut bytes = 0;
    for _ in 0..WATCHING.as_millis() / LOOK.as_millis() {
        sleep(LOOK).await;
        bytes = bytes.max(memory(order.pid)?);
    }
    client.cancel_job(CancelJobRequest { job_id: job.clone(), ..Default::default() }).await?;
    let mut last = 0;
    while let Some(seen) = watchers.join_next().await {
        last = last.max(seen??.as_micros());
        bytes = bytes.max(memory(order.pid)?);
    }
    let ended = client.get_status(GetStatusRequest { job_id: job, ..Default::default() }).await?.into_inner();
    let end = ended.end_time.context("the job has ended")?;
    let end = end.seconds * 1_000_000 + i64::from(end.nanos) / 1_000;
    Ok(Seen { latest: (last - end) as f64 / 1e6, bytes: bytes as f64 })
}

async fn over_grpc(channel: Channel, job_id: String, arrived: &AtomicUsize) -> anyhow::Result<()> {
    let request = WatchJobRequest { job_id, ..Default::default() };
    let mut events = JobServiceClient::new(channel).watch_job(request).await?.into_inner();
    events.message().await?.context("the first message")?;
    arrived.fetch_add(1, Relaxed);
    while events.message().await?.is_some() {}
    Ok(())
}

/// Reads to the end, which must be the job's and not a break.
async fn over_http(address: SocketAddr, job: &str, arrived: &AtomicUsize) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET /v1/jobs/{job}:watch HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut tail, mut first) = (vec![0; 4096], Vec::new(), true);
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        if std::mem::take(&mut first) {
            arrived.fetch_add(1, Relaxed);
        }
        tail.extend_from_slice(&buffer[..length]);
        let old = tail.len().saturating_sub(2048);
        tail.drain(..old);
    }
    let text = String::from_utf8_lossy(&tail);
    ensure!(
        text.contains(r#""state":"CANCELLED""#) && text.ends_with("\r\n0\r\n\r\n"),
        "it broke off: {text}"
    );
    Ok(())
}
