//! The load, in its own process: so many callers on so many connections, each with one call at a time.

use crate::calls::{self, Call};
use crate::chat::{self, Chats};
use crate::crowd::{self, Crowd};
use crate::json;
use crate::lives::{self, Lives};
use crate::process::processor_time;
use crate::programs::{self, Programs};
use crate::stalled::{self, Stalled};
use crate::watchers::{self, Watchers};
use crate::workers::{self, Workers};
use anyhow::Context as _;
use longhaul::cli::serve;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// How long callers call before anything counts: until connections, caches and the store's files are there.
const WARM_UP: Duration = Duration::from_millis(500);
/// With one, the load and not the server would be the limit.
const THREADS: usize = 2;
/// No load takes this long; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a load process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Load {
    /// Calls of one kind, for a time.
    Calls(Calls),
    /// Whole lives of jobs.
    Lives(Lives),
    /// Many watchers of one job.
    Watchers(Watchers),
    /// How many bytes a collector has got.
    Collected(SocketAddr),
    /// A crowd over both protocols.
    Crowd(Crowd),
    /// Watchers that stop reading.
    Stalled(Stalled),
    /// Workers elsewhere.
    Workers(Workers),
    /// Programs as workers.
    Programs(Programs),
    /// Answers of a provider.
    Chats(Chats),
}

/// Calls of one kind.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Calls {
    pub address: SocketAddr,
    pub what: Call,
    pub callers: usize,
    pub connections: usize,
    pub time: Duration,
    /// The server's process, where its time is wanted.
    pub pid: Option<u32>,
}

/// What came of the calls.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Calls a second, all callers together.
    pub rate: f64,
    /// The time of one call that half of them stayed below.
    pub p50: Duration,
    /// The time of one call that all but one in a hundred stayed below.
    pub p99: Duration,
    /// Seconds of processor that the server took for a call; 0 where nobody asked.
    pub server_time: f64,
}

/// Does what was ordered, and prints what was measured.
pub fn run(order: Load) -> anyhow::Result<()> {
    let runtime = serve::runtime(THREADS)?;
    let measured = runtime.block_on(async { tokio::time::timeout(PATIENCE, measure(order)).await });
    println!("{}", measured.context("the load did not end")??);
    Ok(())
}

async fn measure(order: Load) -> anyhow::Result<String> {
    Ok(match order {
        Load::Collected(address) => serde_json::to_string(&collected(address).await?),
        Load::Calls(order) => serde_json::to_string(&calls(order).await?),
        Load::Lives(order) => serde_json::to_string(&lives::run(order).await?),
        Load::Watchers(order) => serde_json::to_string(&watchers::run(order).await?),
        Load::Workers(order) => serde_json::to_string(&workers::run(order).await?),
        Load::Programs(order) => serde_json::to_string(&programs::run(order).await?),
        Load::Chats(order) => serde_json::to_string(&chat::run(order).await?),
        Load::Crowd(order) => serde_json::to_string(&crowd::run(order).await?),
        Load::Stalled(order) => serde_json::to_string(&stalled::run(order).await?),
    }?)
}

async fn collected(address: SocketAddr) -> anyhow::Result<f64> {
    let mut sender = json::two(address, 1, 1).await?.remove(0);
    let bytes = sender.call(http::Method::GET, "/", "").await?;
    Ok(std::str::from_utf8(&bytes)?.parse()?)
}

/// Connections to one server, each with its own socket.
pub async fn connect(address: SocketAddr, connections: usize) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::with_capacity(connections);
    for _ in 0..connections {
        channels.push(Endpoint::from_shared(format!("http://{address}"))?.connect().await?);
    }
    Ok(channels)
}

async fn calls(order: Calls) -> anyhow::Result<Figures> {
    let callers = calls::callers(&order).await?;
    let began = Instant::now();
    let (from, until) = (began + WARM_UP, began + WARM_UP + order.time);
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(1 << 16);
            loop {
                let start = Instant::now();
                if start >= until {
                    return anyhow::Ok(times);
                }
                caller.call().await?;
                let end = Instant::now();
                if start >= from && end <= until {
                    times.push(end - start);
                }
            }
        });
    }
    let used = tokio::spawn(async move {
        let Some(pid) = order.pid else { return anyhow::Ok(0.0) };
        tokio::time::sleep_until(from.into()).await;
        let before = processor_time(pid)?;
        tokio::time::sleep_until(until.into()).await;
        Ok(processor_time(pid)? - before)
    });
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    times.sort_unstable();
    let rate = times.len() as f64 / order.time.as_secs_f64();
    let server_time = used.await?? / times.len().max(1) as f64;
    Ok(Figures { rate, p50: quantile(&times, 0.5), p99: quantile(&times, 0.99), server_time })
}

/// The value that this part of a sorted list stays below.
pub fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let place = (sorted.len() as f64 * part) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
