//! Whole lives of no-op jobs: from StartJob to SUCCEEDED, as many a second as the server's own slots carry.

use crate::calls::wish;
use crate::load::connect;
use anyhow::ensure;
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::{GetStatusRequest, ListJobsRequest, job};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// How many jobs a caller starts before it looks back.
const BATCH: usize = 100;
/// How long a caller that waits lets go between two questions: long, since questions take from what is measured.
const POLL: Duration = Duration::from_millis(20);

/// So many jobs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Lives {
    pub address: SocketAddr,
    pub jobs: usize,
    pub callers: usize,
    pub connections: usize,
}

/// Starts them all and waits until every one has succeeded; returns how many a second.
pub async fn run(order: Lives) -> anyhow::Result<f64> {
    let channels = connect(order.address, order.connections).await?;
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for channel in channels.iter().cycle().take(order.callers) {
        let client = JobServiceClient::new(channel.clone());
        callers.spawn(start_and_wait(client, order.jobs / order.callers));
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let elapsed = began.elapsed();

    let started = order.jobs / order.callers * order.callers;
    let succeeded = succeeded(JobServiceClient::new(channels[0].clone())).await?;
    ensure!(succeeded == started, "{succeeded} of {started} jobs have succeeded");
    Ok(started as f64 / elapsed.as_secs_f64())
}

/// Starts jobs in batches, each once the batch before the last has succeeded: so the queue is bounded, and yet nobody asks
/// for long.
async fn start_and_wait(mut client: JobServiceClient<Channel>, jobs: usize) -> anyhow::Result<()> {
    let mut before = None;
    for number in 1..=jobs {
        let job_id = client.start_job(wish("noop")).await?.into_inner().id;
        if number == jobs {
            wait(&mut client, job_id).await?;
        } else if number % BATCH == 0
            && let Some(job_id) = before.replace(job_id)
        {
            wait(&mut client, job_id).await?;
        }
    }
    Ok(())
}

async fn wait(client: &mut JobServiceClient<Channel>, job_id: String) -> anyhow::Result<()> {
    let request = GetStatusRequest { job_id, view: job::View::Basic as i32 };
    while client.get_status(request.clone()).await?.into_inner().state() != job::State::Succeeded {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn succeeded(mut client: JobServiceClient<Channel>) -> anyhow::Result<usize> {
    let (mut count, mut page_token) = (0, String::new());
    loop {
        let request = ListJobsRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = client.list_jobs(request).await?.into_inner();
        count += page.jobs.iter().filter(|job| job.state() == job::State::Succeeded).count();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(count);
        }
    }
}
