//! What clients call: convert, ask the engine, convert back.

use super::streams;
use crate::engine::{
    Engine, Error, EventLimit, Listed, Page, Parts, Started, WatchJobsOptions, WatchOptions,
};
use crate::job::limits::GRACE_SECONDS_MAX;
use crate::job::{DEFAULT_TENANT, JobId, Snapshot};
use crate::proto;
use crate::proto::job_service_server::{JobService, JobServiceServer};
use crate::traces::Traces;
use crate::wire::trace::trace;
use crate::wire::{filter, reply, request, status};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
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
/// How long messages about one of many jobs are apart, where the watcher does not say.
const JOBS_INTERVAL: Duration = Duration::from_millis(250);
/// How many counts one answer has.
const COUNTS_MAX: usize = 10_000;
const MINIMUM_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// The service over an engine.
#[derive(Clone, Debug)]
pub struct Jobs {
    engine: Engine,
    traces: Traces,
}

impl Jobs {
    /// The service as it is offered: with compression and limits.
    pub fn service(engine: Engine, traces: Traces) -> JobServiceServer<Self> {
        JobServiceServer::new(Self { engine, traces })
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
        let mut call = self.traces.begin("StartJob", trace(request.metadata()));
        let (request, trace) = (request.into_inner(), call.trace());
        let terms = self.engine.terms(&request.kind);
        let large = request::json_bytes(&request) > JSON_INLINE_MAX;
        let spec = aside(large, move || request::spec(request, DEFAULT_TENANT, &terms, trace)).await?;
        let starting = self.engine.start(spec.map_err(status::invalid)?);
        let started = call.commit(starting).await.map_err(refused)?;
        call.has_started(&started.snapshot, started.repeated);
        Ok(ticket(&started))
    }

    async fn batch_start_jobs(
        &self,
        request: Request<proto::BatchStartJobsRequest>,
    ) -> Result<Response<proto::BatchStartJobsResponse>, Status> {
        let mut call = self.traces.begin("BatchStartJobs", trace(request.metadata()));
        let (requests, trace) = (request.into_inner().requests, call.trace());
        let large = requests.iter().map(request::json_bytes).sum::<usize>() > JSON_INLINE_MAX;
        let engine = self.engine.clone();
        let batch =
            move || request::batch(requests, DEFAULT_TENANT, |kind| engine.terms(kind), trace.as_ref());
        let specs = aside(large, batch).await?;
        let started = match specs.map_err(status::invalid)? {
            none if none.is_empty() => Vec::new(),
            specs => {
                let starting = call.commit(self.engine.start_all(specs)).await;
                starting.map_err(|error| status::status_in_batch(&error))?
            }
        };
        call.has_started_all(started.len());
        let jobs = started.iter().map(|started| reply::job(&started.snapshot)).collect();
        Ok(answer(proto::BatchStartJobsResponse { jobs }))
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
    ) -> Result<Response<Self::WatchJobStream>, Status> {
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
        Ok(Response::new(streams::watch_job(watch)))
    }

    async fn watch_jobs(
        &self,
        request: Request<proto::WatchJobsRequest>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        let request = request.into_inner();
        let filter = filter::filter(request.filter).map_err(status::invalid)?;
        let interval = request::duration(request.minimum_interval, "minimum_interval", MINIMUM_INTERVAL_MAX);
        let initial_jobs = request::initial_jobs(request.initial_jobs).map_err(status::invalid)?;
        let options = WatchJobsOptions {
            filter: Arc::new(filter),
            minimum_interval: interval.map_err(status::invalid)?.unwrap_or(JOBS_INTERVAL),
            initial_jobs,
        };
        let watch = self.engine.watch_jobs(DEFAULT_TENANT, options);
        Ok(Response::new(Box::pin(streams::watch_jobs(watch))))
    }

    async fn list_jobs(
        &self,
        request: Request<proto::ListJobsRequest>,
    ) -> Result<Response<proto::ListJobsResponse>, Status> {
        let request = request.into_inner();
        let fingerprint = filter::fingerprint(&request.filter);
        let filter = filter::filter(request.filter).map_err(status::invalid)?;
        let page = Page {
            before: filter::page_start(&request.page_token, fingerprint).map_err(status::invalid)?,
            jobs: request::page_size(request.page_size, 50).map_err(status::invalid)?,
            bytes: PAGE_BYTES_MAX,
        };
        let parts = request::parts(request.view, Parts::BASIC).map_err(status::invalid)?;
        let listed =
            self.engine.list(DEFAULT_TENANT, Arc::new(filter), page, parts).await.map_err(refused)?;
        let page = aside(parts.payloads, move || page_of_jobs(&listed, fingerprint)).await?;
        Ok(answer(page))
    }

    async fn count_jobs(
        &self,
        request: Request<proto::CountJobsRequest>,
    ) -> Result<Response<proto::CountJobsResponse>, Status> {
        let kinds = filter::checked_kinds(request.into_inner().kinds, "kinds", filter::KINDS_MAX);
        let kinds = kinds.map_err(status::invalid)?;
        // One more tells whether there are more.
        let counts = self.engine.count(DEFAULT_TENANT, kinds, COUNTS_MAX + 1).await.map_err(refused)?;
        let truncated = counts.len() > COUNTS_MAX;
        let counts = counts.iter().take(COUNTS_MAX).map(reply::count).collect();
        Ok(answer(proto::CountJobsResponse { counts, truncated }))
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

    async fn retry_job(
        &self,
        request: Request<proto::RetryJobRequest>,
    ) -> Result<Response<proto::Job>, Status> {
        let mut call = self.traces.begin("RetryJob", trace(request.metadata()));
        let request = request.into_inner();
        let id = job_id(&request.job_id)?;
        let key = request::retry_key(request).map_err(status::invalid)?;
        let retrying = self.engine.retry(DEFAULT_TENANT, id, key, call.trace());
        let started = call.commit(retrying).await.map_err(refused)?;
        call.has_started(&started.snapshot, started.repeated);
        Ok(ticket(&started))
    }

    async fn delete_job(&self, request: Request<proto::DeleteJobRequest>) -> Result<Response<()>, Status> {
        let id = job_id(&request.into_inner().job_id)?;
        self.engine.delete(id).await.map_err(refused)?;
        Ok(Response::new(()))
    }
}

impl Jobs {
    /// Whether a job has kept events after this one.
    async fn has_more(&self, id: JobId, after: u64) -> Result<bool, Status> {
        let snapshot = self.engine.get(id, Parts::BASIC).await.map_err(refused)?;
        Ok(snapshot.job.sequence() > after)
    }
}

/// A page that ends at the limit of bytes, with at least one job if there is one.
fn page_of_jobs(listed: &Listed, fingerprint: u32) -> proto::ListJobsResponse {
    let mut page = proto::ListJobsResponse::default();
    let mut bytes = 0;
    let mut next = listed.next;
    for snapshot in &listed.jobs {
        let job = reply::job(snapshot);
        bytes += job.encoded_len();
        if bytes > PAGE_BYTES_MAX && !page.jobs.is_empty() {
            next = Some(snapshot.job.id.ordinal() + 1);
            break;
        }
        page.jobs.push(job);
    }
    page.next_page_token = next.map(|before| filter::page_token(before, fingerprint)).unwrap_or_default();
    page
}

/// The ticket of a job that was started, now or before.
fn ticket(started: &Started) -> Response<proto::Job> {
    let mut response = answer(reply::job(&started.snapshot));
    if started.repeated {
        response.metadata_mut().insert("longhaul-repeated", MetadataValue::from_static("true"));
    }
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
