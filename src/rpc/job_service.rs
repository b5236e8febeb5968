//! JobService over gRPC: each call is one of `api`, its answer a message.

use super::{room, streams};
use crate::api::{self, MESSAGE_BYTES_MAX};
use crate::engine::Started;
use crate::proto;
use crate::proto::job_service_server::{JobService, JobServiceServer};
use crate::wire::reply;
use crate::wire::trace::trace;
use prost::Message as _;
use tonic::codec::CompressionEncoding;
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

/// What an answer must have for its compression to pay.
const COMPRESSED_FROM: usize = 1 << 10;

/// The service over the calls.
#[derive(Clone, Debug)]
pub struct Jobs {
    api: api::Jobs,
}

impl Jobs {
    /// The service as it is offered: with compression and limits.
    pub fn service(api: api::Jobs) -> JobServiceServer<Self> {
        JobServiceServer::new(Self { api })
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl JobService for Jobs {
    type WatchJobStream = streams::WatchStream;
    type WatchJobsStream = BoxStream<proto::WatchJobsResponse>;

    async fn start_job(
        &self,
        request: Request<proto::StartJobRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        let _place = room::unpacked(&request)?;
        let trace = trace(request.metadata().as_ref());
        Ok(ticket(&self.api.start(request.into_inner(), trace).await?))
    }

    async fn batch_start_jobs(
        &self,
        request: Request<proto::BatchStartJobsRequest>,
    ) -> Result<Response<proto::BatchStartJobsResponse>, Status> {
        let _place = room::unpacked(&request)?;
        let trace = trace(request.metadata().as_ref());
        let started = self.api.start_batch(request.into_inner(), trace).await?;
        let jobs = started.iter().map(|started| reply::job(&started.snapshot)).collect();
        Ok(answer(proto::BatchStartJobsResponse { jobs }))
    }

    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        let snapshot = self.api.status(request.into_inner()).await?;
        Ok(answer(api::show(snapshot, reply::job).await?))
    }

    async fn watch_job(
        &self,
        request: Request<proto::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let watch = self.api.watch(request.into_inner()).await?;
        Ok(plain(streams::watch_job(watch)))
    }

    async fn watch_jobs(
        &self,
        request: Request<proto::WatchJobsRequest>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        let watch = self.api.watch_all(request.into_inner())?;
        Ok(plain(Box::pin(streams::watch_jobs(watch))))
    }

    async fn list_jobs(
        &self,
        request: Request<proto::ListJobsRequest>,
    ) -> Result<Response<proto::ListJobsResponse>, Status> {
        let page = self.api.list(request.into_inner()).await?;
        let show = |snapshot: &_| {
            let job = reply::job(snapshot);
            let bytes = job.encoded_len();
            (job, bytes)
        };
        let (jobs, next_page_token) = page.show(show).await?;
        Ok(answer(proto::ListJobsResponse { jobs, next_page_token }))
    }

    async fn count_jobs(
        &self,
        request: Request<proto::CountJobsRequest>,
    ) -> Result<Response<proto::CountJobsResponse>, Status> {
        let api::Counts { counts, truncated } = self.api.count(request.into_inner()).await?;
        let counts = counts.iter().map(reply::count).collect();
        Ok(answer(proto::CountJobsResponse { counts, truncated }))
    }

    async fn list_job_events(
        &self,
        request: Request<proto::ListJobEventsRequest>,
    ) -> Result<Response<proto::ListJobEventsResponse>, Status> {
        let api::EventsPage { job, events, next_after } = self.api.history(request.into_inner()).await?;
        let events = events.iter().map(|event| reply::event(job, event)).collect();
        let next_after_sequence = next_after.unwrap_or(0) as i64;
        Ok(answer(proto::ListJobEventsResponse { events, next_after_sequence }))
    }

    async fn cancel_job(
        &self,
        request: Request<proto::CancelJobRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        Ok(answer(reply::job(&self.api.cancel(request.into_inner()).await?)))
    }

    async fn retry_job(
        &self,
        request: Request<proto::RetryJobRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        let trace = trace(request.metadata().as_ref());
        Ok(ticket(&self.api.retry(request.into_inner(), trace).await?))
    }

    async fn delete_job(&self, request: Request<proto::DeleteJobRequest>) -> Result<Response<()>, Status> {
        self.api.delete(request.into_inner()).await?;
        Ok(Response::new(()))
    }
}

/// The ticket of a job that was started, now or before.
fn ticket(started: &Started) -> Response<proto::Job> {
    let mut response = answer(reply::job(&started.snapshot));
    if started.repeated {
        response.metadata_mut().insert("longhaul-repeated", MetadataValue::from_static("true"));
    }
    response
}

/// A stream that is not compressed: its messages are small, and one that many watch is encoded once for all of them.
fn plain<S>(stream: S) -> Response<S> {
    let mut response = Response::new(stream);
    response.disable_compression();
    response
}

/// An answer, compressed only where that pays.
fn answer<M: prost::Message>(message: M) -> Response<M> {
    let small = message.encoded_len() < COMPRESSED_FROM;
    let mut response = Response::new(message);
    if small {
        response.disable_compression();
    }
    response
}
