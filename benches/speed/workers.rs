//! Workers elsewhere: how many jobs one carries, how soon it has one, how fast output goes in, how soon a cancellation
//! comes out, and what idle ones cost.

use crate::calls::wish;
use crate::load::{connect, quantile};
use crate::process::processor_time;
use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use longhaul::job::{Failure, JobId};
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::worker_service_client::WorkerServiceClient;
use longhaul::proto::*;
use longhaul::worker::{Context, Handler, Identity, Pool, Registry, RemoteSource};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::{Channel, Endpoint};

pub const KIND: &str = "elsewhere";
const SLOTS: usize = 64;
/// The jobs of a batch with which a queue is filled.
pub const BATCH: usize = 1_000;
/// Bytes of a chunk of output: a few tokens.
const CHUNK_BYTES: usize = 32;
/// How many connections idle workers share; each has a stream of its own.
const IDLE_CONNECTIONS: usize = 10;
/// How often an idle worker gives a sign.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Workers {
    /// So many no-op jobs that wait, through one worker: jobs a second.
    Carry(SocketAddr, usize),
    /// From StartJob's answer to the handler, so many times: seconds, sorted.
    Deliver(SocketAddr, usize),
    /// So many chunks into one job: chunks a second.
    Emit(SocketAddr, usize),
    /// From CancelJob's call to the handler, so many times: seconds, sorted.
    Cancel(SocketAddr, usize),
    /// So many workers that wait, for a time: seconds of the server's processor per second.
    Idle(SocketAddr, u32, usize, Duration),
}

/// What was measured: one figure, or the median and the 99th percentile of times in seconds.
pub type Figures = Vec<f64>;

/// Does what was ordered.
pub async fn run(order: Workers) -> anyhow::Result<Figures> {
    match order {
        Workers::Carry(address, jobs) => carry(address, jobs).await,
        Workers::Deliver(address, jobs) => deliver(address, jobs).await,
        Workers::Emit(address, chunks) => emit(address, chunks).await,
        Workers::Cancel(address, jobs) => cancel(address, jobs).await,
        Workers::Idle(address, pid, workers, time) => idle(address, pid, workers, time).await,
    }
}

/// Tells when each job comes, and when it is cancelled.
struct Told(UnboundedSender<(JobId, Instant)>, bool);

#[async_trait]
impl Handler for Told {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let Self(sender, waits) = self;
        if *waits {
            // Nobody listens any more at the end.
            let _ = sender.send((context.assignment.id, Instant::now()));
            context.cancelled().cancelled().await;
        }
        let _ = sender.send((context.assignment.id, Instant::now()));
        Ok(Bytes::from_static(b"null"))
    }
}

/// Counts the jobs that come.
pub struct Counted(pub Arc<AtomicUsize>);

#[async_trait]
impl Handler for Counted {
    async fn run(&self, _: &Context) -> Result<Bytes, Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from_static(b"null"))
    }
}

pub fn worker(address: SocketAddr, handler: impl Handler) -> anyhow::Result<Pool<RemoteSource>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let identity = Identity { worker_id: "bench".into(), ..Default::default() };
    Ok(Pool::start(RemoteSource::start(endpoint, identity), Registry::default().with(KIND, handler), SLOTS))
}

async fn jobs(address: SocketAddr) -> anyhow::Result<JobServiceClient<Channel>> {
    Ok(JobServiceClient::new(connect(address, 1).await?.remove(0)).max_decoding_message_size(64 << 20))
}

async fn carry(address: SocketAddr, count: usize) -> anyhow::Result<Figures> {
    let mut client = jobs(address).await?;
    for _ in 0..count / BATCH {
        client.batch_start_jobs(BatchStartJobsRequest { requests: vec![wish(KIND); BATCH] }).await?;
    }
    let carried = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let pool = worker(address, Counted(Arc::clone(&carried)))?;
    while carried.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Ends once the last of them is durable.
    pool.drain(Duration::from_secs(10)).await;
    let elapsed = began.elapsed();
    let counts = client.count_jobs(CountJobsRequest { kinds: vec![KIND.into()] }).await?.into_inner().counts;
    let succeeded = counts.iter().find(|count| count.state() == job::State::Succeeded);
    let succeeded = succeeded.map_or(0, |count| count.jobs);
    ensure!(succeeded == count as i64, "{succeeded} of {count} jobs have succeeded");
    Ok(vec![count as f64 / elapsed.as_secs_f64()])
}

async fn deliver(address: SocketAddr, count: usize) -> anyhow::Result<Figures> {
    let mut client = jobs(address).await?;
    let (sender, mut told) = unbounded_channel();
    let pool = worker(address, Told(sender, false))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.start_job(wish(KIND)).await?;
        let answered = Instant::now();
        let (_, received) = come(&mut told).await?;
        times.push(received.saturating_duration_since(answered));
    }
    pool.drain(Duration::from_secs(10)).await;
    Ok(quantiles(times))
}

async fn cancel(address: SocketAddr, count: usize) -> anyhow::Result<Figures> {
    let mut client = jobs(address).await?;
    let (sender, mut told) = unbounded_channel();
    let pool = worker(address, Told(sender, true))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let job_id = client.start_job(wish(KIND)).await?.into_inner().id;
        come(&mut told).await?;
        // Until the lease is accepted, there is nothing to be cancelled but a job that waits.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let called = Instant::now();
        client.cancel_job(CancelJobRequest { job_id, ..Default::default() }).await?;
        let (_, received) = come(&mut told).await?;
        times.push(received - called);
    }
    pool.drain(Duration::from_secs(10)).await;
    Ok(quantiles(times))
}

async fn come(told: &mut UnboundedReceiver<(JobId, Instant)>) -> anyhow::Result<(JobId, Instant)> {
    tokio::time::timeout(Duration::from_secs(10), told.recv()).await?.context("the worker has gone")
}

/// A frame for each chunk, as a worker sends them that does not join.
async fn emit(address: SocketAddr, chunks: usize) -> anyhow::Result<Figures> {
    let mut client = jobs(address).await?;
    client.start_job(wish(KIND)).await?;
    let mut workers = WorkerServiceClient::new(connect(address, 1).await?.remove(0));
    let lease =
        LeaseJobsRequest { worker_id: "bench".into(), kinds: vec![KIND.into()], ..Default::default() };
    let assignment = workers.lease_jobs(lease).await?.into_inner().assignments.pop().context("no job")?;
    let lease_token = assignment.lease_token;
    let token = lease_token.clone();
    let frames = stream::iter((0..chunks).map(move |number| AppendOutputRequest {
        lease_token: token.clone(),
        offset: (number * CHUNK_BYTES) as i64,
        data: Bytes::from(format!("{number:0CHUNK_BYTES$}")),
        ..Default::default()
    }));
    let began = Instant::now();
    let mut answers = workers.emit(frames).await?.into_inner();
    let mut durable = 0;
    while let Some(answer) = answers.message().await? {
        ensure!(answer.refusal.is_empty(), "refused: {} {}", answer.refusal, answer.message);
        durable = answer.durable_bytes;
    }
    let elapsed = began.elapsed();
    ensure!(durable as usize == chunks * CHUNK_BYTES, "{durable} bytes are durable");
    let output_bytes = Some(durable);
    workers.complete_job(CompleteJobRequest { lease_token, output_bytes, ..Default::default() }).await?;
    in_order(&mut client, &assignment.job.context("no job")?.id, chunks).await?;
    Ok(vec![chunks as f64 / elapsed.as_secs_f64()])
}

/// Makes sure that a job's output is what was sent.
async fn in_order(client: &mut JobServiceClient<Channel>, id: &str, chunks: usize) -> anyhow::Result<()> {
    let request = WatchJobRequest { job_id: id.to_owned(), after_sequence: Some(0), ..Default::default() };
    let mut watch = client.watch_job(request).await?.into_inner();
    let mut output = Vec::with_capacity(chunks * CHUNK_BYTES);
    while let Some(event) = watch.message().await? {
        if let Some(job_event::Event::Output(piece)) = event.event {
            output.extend_from_slice(&piece.data);
        }
    }
    let expected = |(number, chunk): (usize, &[u8])| chunk == format!("{number:0CHUNK_BYTES$}").as_bytes();
    ensure!(output.len() == chunks * CHUNK_BYTES && output.chunks(CHUNK_BYTES).enumerate().all(expected));
    Ok(())
}

async fn idle(address: SocketAddr, pid: u32, count: usize, time: Duration) -> anyhow::Result<Figures> {
    let channels = connect(address, IDLE_CONNECTIONS).await?;
    let mut streams = Vec::with_capacity(count);
    for (number, channel) in channels.iter().cycle().take(count).enumerate() {
        let hello = work_request::Hello {
            worker_id: format!("idle-{number}"),
            kinds: vec![KIND.into()],
            ..Default::default()
        };
        let credit = work_request::Credit { free_slots: 8, received: 0 };
        let first = [work_request::Message::Hello(hello), work_request::Message::Credit(credit)];
        // Not all at the same moment.
        let delay = HEARTBEAT.mul_f64(number as f64 / count as f64);
        let beats = stream::unfold(delay, |pause| async move {
            tokio::time::sleep(pause).await;
            Some((work_request::Message::Heartbeat(HeartbeatRequest::default()), HEARTBEAT))
        });
        let messages = futures_util::StreamExt::chain(stream::iter(first), beats);
        let requests =
            futures_util::StreamExt::map(messages, |message| WorkRequest { message: Some(message) });
        let mut responses = WorkerServiceClient::new(channel.clone()).work(requests).await?.into_inner();
        responses.message().await?.context("no welcome")?;
        streams.push(tokio::spawn(async move { while let Ok(Some(_)) = responses.message().await {} }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = processor_time(pid)?;
    tokio::time::sleep(time).await;
    let used = processor_time(pid)? - before;
    ensure!(streams.iter().all(|stream| !stream.is_finished()), "a stream has ended");
    Ok(vec![used / time.as_secs_f64()])
}

fn quantiles(mut times: Vec<Duration>) -> Figures {
    times.sort_unstable();
    vec![quantile(&times, 0.5).as_secs_f64(), quantile(&times, 0.99).as_secs_f64()]
}
