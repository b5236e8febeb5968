//! What clients call: convert, ask the engine, convert back.

use crate::engine::{Engine, Error, EventLimit, Parts, Watch, WatchOptions};
use crate::job::limits::GRACE_SECONDS_MAX;
use crate::job::{DEFAULT_TENANT, JobId, Snapshot};
use crate::proto::job_service_server::{JobService, JobServiceServer};
use crate::proto::{self, EncodedEvent};
use crate::wire::{reply, request, status};
use futures_core::Stream;
use prost::Message as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::sync::ReusableBoxFuture;
use tonic::codec::CompressionEncoding;
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

/// The largest message that is taken: four inputs of the largest size.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// What an answer must have for its compression to pay.
const COMPRESSED_FROM: usize = 1 << 10;
/// The largest JSON text that is read on a thread that others wait for: about half a millisecond's work.
const JSON_INLINE_MAX: usize = 64 << 10;
/// The largest page of jobs or events.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// How long a watcher's latest-wins events are apart, where it does not say.
const MINIMUM_INTERVAL: Duration = Duration::from_millis(50);
const MINIMUM_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// The service over an engine.
#[derive(Clone, Debug)]
pub struct Jobs {
    engine: Engine,
}

impl Jobs {
    /// The service as it is offered: with compression and limits.
    pub fn service(engine: Engine) -> JobServiceServer<Self> {
        JobServiceServer::new(Self { engine })
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl JobService for Jobs {
    async fn start_job(
        &self,
        request: Request<proto::StartJobRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        let request = request.into_inner();
        let terms = self.engine.terms(&request.kind);
        let large = request::json_bytes(&request) > JSON_INLINE_MAX;
        let spec = aside(large, move || request::spec(request, DEFAULT_TENANT, &terms)).await?;
        let started = self.engine.start(spec.map_err(status::invalid)?).await.map_err(refused)?;
        let mut response = answer(reply::job(&started.snapshot));
        if started.repeated {
            response.metadata_mut().insert("longhaul-repeated", MetadataValue::from_static("true"));
        }
        Ok(response)
    }

    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        let request = request.into_inner();
        let id = job_id(&request.job_id)?;
        let parts = request::parts(request.view, Parts::FULL).map_err(status::invalid)?;
        let snapshot = self.engine.get(id, parts).await.map_err(refused)?;
        Ok(answer(aside(payload_bytes(&snapshot) > JSON_INLINE_MAX, move || reply::job(&snapshot)).await?))
    }

    async fn watch_job(
        &self,
        request: Request<proto::WatchJobRequest>,
    ) -> Result<Response<BoxStream<EncodedEvent>>, Status> {
        let request = request.into_inner();
        let id = job_id(&request.job_id)?;
        let after =
            request.after_sequence.map(|after| request::sequence(after, "after_sequence")).transpose();
        let interval = request::duration(request.minimum_interval, "minimum_interval", MINIMUM_INTERVAL_MAX);
        let options = WatchOptions {
            after: after.map_err(status::invalid)?,
            minimum_interval: interval.map_err(status::invalid)?.unwrap_or(MINIMUM_INTERVAL),
            omit_output: request.omit_output,
            parts: request::parts(request.view, Parts::BASIC).map_err(status::invalid)?,
        };
        let watch = self.engine.watch(id, options).await.map_err(refused)?;
        Ok(Response::new(Box::pin(WatchStream(ReusableBoxFuture::new(next_message(watch))))))
    }

    async fn list_jobs(
        &self,
        request: Request<proto::ListJobsRequest>,
    ) -> Result<Response<proto::ListJobsResponse>, Status> {
        let request = request.into_inner();
        if request.filter.is_some_and(|filter| filter != proto::JobFilter::default()) {
            return Err(status::unimplemented("this server cannot filter jobs yet"));
        }
        let limit = request::page_size(request.page_size, 50).map_err(status::invalid)?;
        let before = request::page_token(&request.page_token).map_err(status::invalid)?;
        let parts = request::parts(request.view, Parts::BASIC).map_err(status::invalid)?;
        let found = self.engine.list(DEFAULT_TENANT, before, limit, parts).await.map_err(refused)?;
        let page = aside(parts.payloads, move || page_of_jobs(&found, limit)).await?;
        Ok(answer(page))
    }

    async fn list_job_events(
        &self,
        request: Request<proto::ListJobEventsRequest>,
    ) -> Result<Response<proto::ListJobEventsResponse>, Status> {
        let request = request.into_inner();
        let id = job_id(&request.job_id)?;
        let after = request::sequence(request.after_sequence, "after_sequence").map_err(status::invalid)?;
        let limit = request::page_size(request.page_size, 100).map_err(status::invalid)?;
        // One more tells whether there is another page.
        let limits = EventLimit { events: limit + 1, bytes: PAGE_BYTES_MAX };
        let found = self.engine.history(id, after, limits).await.map_err(refused)?;
        let last = match found.last() {
            Some(event) => event.sequence,
            None => return Ok(answer(proto::ListJobEventsResponse::default())),
        };
        let events: Vec<_> = found.iter().take(limit).map(|event| reply::event(id, event)).collect();
        let shown = events.last().map_or(0, |event| event.sequence);
        let more = shown < last as i64 || self.has_more(id, last).await?;
        let next_after_sequence = if more { shown } else { 0 };
        Ok(answer(proto::ListJobEventsResponse { events, next_after_sequence }))
    }

    async fn cancel_job(
        &self,
        request: Request<proto::CancelJobRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        let request = request.into_inner();
        let id = job_id(&request.job_id)?;
        let reason = request::message(request.reason, "reason").map_err(status::invalid)?;
        let most = Duration::from_secs(GRACE_SECONDS_MAX);
        let grace = request::duration(request.grace_period, "grace_period", most).map_err(status::invalid)?;
        let snapshot = self.engine.cancel(id, reason, grace).await.map_err(refused)?;
        Ok(answer(reply::job(&snapshot)))
    }
}

impl Jobs {
    /// Whether a job has kept events after this one.
    async fn has_more(&self, id: JobId, after: u64) -> Result<bool, Status> {
        let snapshot = self.engine.get(id, Parts::BASIC).await.map_err(refused)?;
        Ok(snapshot.job.sequence() > after)
    }
}

/// A watch as a stream. It ends without an error only where the watch does: after the job's last event.
struct WatchStream(ReusableBoxFuture<'static, (Watch, Option<Result<EncodedEvent, Status>>)>);

async fn next_message(mut watch: Watch) -> (Watch, Option<Result<EncodedEvent, Status>>) {
    let next = watch.next().await;
    (watch, next.map(|next| next.map(|message| reply::watched(&message)).map_err(refused)))
}

impl Stream for WatchStream {
    type Item = Result<EncodedEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (watch, next) = std::task::ready!(self.0.poll(context));
        self.0.set(next_message(watch));
        Poll::Ready(next)
    }
}

/// A page that ends at the limit of bytes, with at least one job.
fn page_of_jobs(found: &[Snapshot], limit: usize) -> proto::ListJobsResponse {
    let mut page = proto::ListJobsResponse::default();
    let mut bytes = 0;
    for snapshot in found {
        let job = reply::job(snapshot);
        bytes += job.encoded_len();
        if bytes > PAGE_BYTES_MAX && !page.jobs.is_empty() {
            break;
        }
        page.jobs.push(job);
    }
    let is_last = found.len() < limit && page.jobs.len() == found.len();
    if let (false, Some(last)) = (is_last, page.jobs.last()) {
        page.next_page_token = last.id.clone();
    }
    page
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

/// Does what is much work on a thread that nobody else waits for.
async fn aside<T: Send + 'static>(
    much: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    match much {
        false => Ok(work()),
        true => tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string())),
    }
}

fn payload_bytes(snapshot: &Snapshot) -> usize {
    snapshot.input.as_ref().map_or(0, |input| input.len())
        + snapshot.result.as_ref().map_or(0, |result| result.len())
}

fn job_id(text: &str) -> Result<JobId, Status> {
    request::job_id(text).map_err(status::invalid)
}

fn refused(error: Error) -> Status {
    status::status(&error)
}
