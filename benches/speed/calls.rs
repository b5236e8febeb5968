//! The calls that are measured, each as one caller makes it again and again.

use crate::echo::ECHO;
use crate::json::{self, Sender};
use crate::load::{Calls, connect};
use anyhow::ensure;
use http::Method;
use http::uri::PathAndQuery;
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::{
    BatchStartJobsRequest, GetStatusRequest, ListJobsRequest, StartJobRequest, start_job_request::Payload,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// An input as a client may send it, about 100 bytes.
const INPUT: &str =
    r#"{"prompt": "Describe the harbour at dawn in three sentences.", "seconds": 6, "steps": 20, "seed": 7}"#;
/// The jobs of a batch.
const BATCH: usize = 100;
/// The jobs among which `GetStatus` asks.
const JOBS: usize = 10_000;
/// The largest page of a listing.
const PAGE: i32 = 1_000;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// The bare server's answer to a request of `StartJob`.
    Echo,
    /// `StartJob`.
    Start,
    /// `StartJob` with a request id of its own.
    StartNamed,
    /// `BatchStartJobs` of a hundred.
    Batch,
    /// `GetStatus` of one of ten thousand jobs.
    Status,
    /// `StartJob` as JSON over HTTP/2.
    StartTwo,
    /// `StartJob` as JSON over HTTP/1.1.
    StartOne,
    /// `GetStatus` as JSON over HTTP/2.
    StatusTwo,
    /// `GetStatus` as JSON over HTTP/1.1.
    StatusOne,
    /// `LPUSH` into a list of Redis.
    Push,
}

/// One caller.
pub enum Caller {
    Echo(Grpc<Channel>),
    Start(JobServiceClient<Channel>, bool),
    Batch(JobServiceClient<Channel>),
    Status(JobServiceClient<Channel>, std::sync::Arc<[String]>),
    Json(Sender, std::sync::Arc<[String]>),
    Push(TcpStream),
}

/// All callers of an order.
pub async fn callers(order: &Calls) -> anyhow::Result<Vec<Caller>> {
    if order.what == Call::Push {
        return pushers(order).await;
    }
    let channels = connect(order.address, order.connections).await?;
    let jobs: std::sync::Arc<[String]> = match order.what {
        Call::Status | Call::StatusTwo | Call::StatusOne => jobs(order.address).await?.into(),
        _ => [].into(),
    };
    let senders = match order.what {
        Call::StartTwo | Call::StatusTwo => {
            json::two(order.address, order.callers, order.connections).await?
        }
        Call::StartOne | Call::StatusOne => json::one(order.address, order.callers).await?,
        _ => Vec::new(),
    };
    if !senders.is_empty() {
        return Ok(senders.into_iter().map(|sender| Caller::Json(sender, jobs.clone())).collect());
    }
    let channels = channels.iter().cycle().take(order.callers).cloned();
    let caller = |channel| match order.what {
        Call::Echo => Caller::Echo(Grpc::new(channel)),
        Call::Status => Caller::Status(JobServiceClient::new(channel), jobs.clone()),
        Call::Batch => Caller::Batch(JobServiceClient::new(channel)),
        call => Caller::Start(JobServiceClient::new(channel), call == Call::StartNamed),
    };
    Ok(channels.map(caller).collect())
}

impl Caller {
    /// Calls once, and waits for the answer.
    pub async fn call(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Echo(grpc) => {
                grpc.ready().await?;
                let path = PathAndQuery::from_static(ECHO);
                let codec = ProstCodec::<StartJobRequest, StartJobRequest>::default();
                grpc.unary(Request::new(wish("bench")), path, codec).await?;
            }
            Self::Start(client, named) => {
                let request_id =
                    if *named { format!("{:032x}", rand::random::<u128>()) } else { String::new() };
                client.start_job(StartJobRequest { request_id, ..wish("bench") }).await?;
            }
            Self::Batch(client) => {
                let requests = vec![wish("bench"); BATCH];
                client.batch_start_jobs(BatchStartJobsRequest { requests }).await?;
            }
            Self::Status(client, jobs) => {
                let job_id = jobs[rand::random_range(0..jobs.len())].clone();
                client.get_status(GetStatusRequest { job_id, ..Default::default() }).await?;
            }
            Self::Json(sender, jobs) if jobs.is_empty() => {
                let body = format!(r#"{{"kind": "bench", "input": {INPUT}}}"#);
                sender.call(Method::POST, "/v1/jobs", &body).await?;
            }
            Self::Json(sender, jobs) => {
                let path = format!("/v1/jobs/{}", jobs[rand::random_range(0..jobs.len())]);
                sender.call(Method::GET, &path, "").await?;
            }
            Self::Push(stream) => push(stream).await?,
        }
        Ok(())
    }
}

/// A wish for a job of this kind, with an input of the usual size.
pub fn wish(kind: &str) -> StartJobRequest {
    let payload = Some(Payload::InputJson(INPUT.to_owned()));
    StartJobRequest { kind: kind.to_owned(), payload, ..Default::default() }
}

/// The server's jobs; those that are missing from ten thousand are started.
async fn jobs(address: SocketAddr) -> anyhow::Result<Vec<String>> {
    let mut client = JobServiceClient::new(connect(address, 1).await?.remove(0));
    let (mut jobs, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListJobsRequest { page_size: PAGE, page_token, ..Default::default() };
        let page = client.list_jobs(request).await?.into_inner();
        jobs.extend(page.jobs.into_iter().map(|job| job.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut starting = tokio::task::JoinSet::new();
    for _ in jobs.len()..JOBS {
        let mut client = client.clone();
        starting.spawn(async move { client.start_job(wish("bench")).await });
    }
    while let Some(started) = starting.join_next().await {
        jobs.push(started??.into_inner().id);
    }
    Ok(jobs)
}

/// Callers of Redis, each on a connection of its own, as its clients do.
async fn pushers(order: &Calls) -> anyhow::Result<Vec<Caller>> {
    let mut callers = Vec::new();
    for _ in 0..order.callers {
        let stream = TcpStream::connect(order.address).await?;
        stream.set_nodelay(true)?;
        callers.push(Caller::Push(stream));
    }
    Ok(callers)
}

async fn push(stream: &mut TcpStream) -> anyhow::Result<()> {
    let command = format!("*3\r\n$5\r\nLPUSH\r\n$5\r\nbench\r\n${}\r\n{INPUT}\r\n", INPUT.len());
    stream.write_all(command.as_bytes()).await?;
    let mut answer = [0; 64];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n") {
        let read = stream.read(&mut answer[length..]).await?;
        ensure!(read > 0, "redis closed the connection");
        length += read;
    }
    ensure!(answer[0] == b':', "redis said {}", String::from_utf8_lossy(&answer[..length]));
    Ok(())
}
