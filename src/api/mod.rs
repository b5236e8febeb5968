//! What clients can ask for, whatever they speak: check a request, ask the engine.
//!
//! The doors above it, `rpc` and `http`, turn bytes into requests of the contract and what comes of them into bytes.

mod pages;

pub use pages::{EventsPage, JobsPage};

use crate::engine::{
    Count, Engine, Error, EventLimit, Page, Parts, Started, Watch, WatchJobs, WatchJobsOptions, WatchOptions,
};
use crate::job::limits::GRACE_SECONDS_MAX;
use crate::job::{DEFAULT_TENANT, JobId, Snapshot, Spec, Terms, Timestamp, Trace};
use crate::metrics::Metrics;
use crate::proto;
use crate::traces::Traces;
use crate::wire::{filter, request, status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Status;

/// The largest message that is taken: four inputs of the largest size.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The largest JSON text that is read or written on a thread that others wait for: about half a millisecond's work.
pub const JSON_INLINE_MAX: usize = 64 << 10;
/// How many of the larger are worked on at once: more than there are cores are no sooner done. The others wait with their calls,
/// and are dropped with them.
const TURNS_MAX: usize = 16;
static TURNS: Semaphore = Semaphore::const_new(TURNS_MAX);
/// The most jobs that are shown on a thread that others wait for.
pub const JOBS_INLINE_MAX: usize = 64;
/// The largest page of jobs or events.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// How long a watcher's latest-wins events are apart, where it does not say.
const MINIMUM_INTERVAL: Duration = Duration::from_millis(50);
/// How long messages about one of many jobs are apart, where the watcher does not say.
const JOBS_INTERVAL: Duration = Duration::from_millis(250);
/// How many counts one answer has.
pub const COUNTS_MAX: usize = 10_000;
/// How long the store may take before the server counts as not ready: far longer than a commit, and shorter than a prober waits,
/// which is a second where nothing else is said to Kubernetes.
const READY_MAX: Duration = Duration::from_millis(800);
const MINIMUM_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// The calls of JobService over an engine. A copy costs a reference count.
#[derive(Clone, Debug)]
pub struct Jobs {
    engine: Engine,
    metrics: Option<Arc<Metrics>>,
    traces: Traces,
}

/// How many jobs of each kind are in each state.
#[derive(Clone, Debug)]
pub struct Counts {
    /// By kind, then state.
    pub counts: Vec<Count>,
    /// There are more than these.
    pub truncated: bool,
}

impl Counts {
    /// As many as there is room for; one more than that tells that there are more.
    pub fn new(mut counts: Vec<Count>) -> Self {
        let truncated = counts.len() > COUNTS_MAX;
        counts.truncate(COUNTS_MAX);
        Self { counts, truncated }
    }
}

impl Jobs {
    /// Over this engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine, metrics: None, traces: Traces::default() }
    }

    /// With figures of how long a start takes.
    pub fn measured(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// With traces of the calls that start jobs.
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// What a job of this kind has to keep to.
    pub fn terms(&self, kind: &str) -> Terms {
        self.engine.terms(kind)
    }

    /// Whether there is somebody now who runs jobs of this kind.
    pub fn is_served(&self, kind: &str) -> bool {
        self.engine.is_served(kind)
    }

    /// Another 64 random bits.
    pub fn chance(&self) -> u64 {
        self.engine.chance()
    }

    /// What time it is for the jobs.
    pub fn now(&self) -> Timestamp {
        self.engine.now()
    }

    /// Accepts a job.
    pub async fn start(
        &self,
        request: proto::StartJobRequest,
        trace: Option<Trace>,
    ) -> Result<Started, Status> {
        let timing = self.metrics.as_ref().map(|metrics| metrics.starting());
        let arrival = self.traces.arrived("StartJob", trace);
        let terms = self.engine.terms(&request.kind);
        let large = request::json_bytes(&request) > JSON_INLINE_MAX;
        let spec = aside(large, move || request::spec(request, DEFAULT_TENANT, &terms)).await?;
        let spec = spec.map_err(status::invalid)?;
        let mut call = arrival.begin(1);
        let starting = self.engine.start(Spec { trace: call.trace(0), ..spec });
        let started = call.commit(starting, status::fault).await.map_err(refused)?;
        call.has_started(&started.snapshot, started.repeated);
        if let Some(timing) = timing {
            timing.succeed();
        }
        Ok(started)
    }

    /// Accepts jobs, all or none.
    pub async fn start_batch(
        &self,
        request: proto::BatchStartJobsRequest,
        trace: Option<Trace>,
    ) -> Result<Vec<Started>, Status> {
        let arrival = self.traces.arrived("BatchStartJobs", trace);
        let requests = request.requests;
        let large = requests.iter().map(request::json_bytes).sum::<usize>() > JSON_INLINE_MAX;
        let engine = self.engine.clone();
        let batch = move || request::batch(requests, DEFAULT_TENANT, |kind| engine.terms(kind));
        let mut specs = aside(large, batch).await?.map_err(status::invalid)?;
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = arrival.begin(specs.len());
        specs.iter_mut().enumerate().for_each(|(index, spec)| spec.trace = call.trace(index));
        let starting = call.commit(self.engine.start_all(specs), status::fault).await;
        let started = starting.map_err(|error| status::status_in_batch(&error))?;
        call.has_started_all(started.len());
        Ok(started)
    }

    /// A job as it is now.
    pub async fn status(&self, request: proto::GetStatusRequest) -> Result<Snapshot, Status> {
        let id = job_id(&request.job_id)?;
        let parts = request::parts(request.view, Parts::FULL).map_err(status::invalid)?;
        self.engine.get(id, parts).await.map_err(refused)
    }

    /// These parts of a job as it is now.
    pub async fn parts(&self, ticket: &str, parts: Parts) -> Result<Snapshot, Status> {
        self.engine.get(job_id(ticket)?, parts).await.map_err(refused)
    }

    /// Follows a job to its end.
    pub async fn watch(&self, request: proto::WatchJobRequest) -> Result<Watch, Status> {
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
        self.engine.watch(id, options).await.map_err(refused)
    }

    /// Follows all jobs that match a filter.
    pub fn watch_all(&self, request: proto::WatchJobsRequest) -> Result<WatchJobs, Status> {
        let filter = filter::filter(request.filter).map_err(status::invalid)?;
        let interval = request::duration(request.minimum_interval, "minimum_interval", MINIMUM_INTERVAL_MAX);
        let initial_jobs = request::initial_jobs(request.initial_jobs).map_err(status::invalid)?;
        let options = WatchJobsOptions {
            filter: Arc::new(filter),
            minimum_interval: interval.map_err(status::invalid)?.unwrap_or(JOBS_INTERVAL),
            initial_jobs,
        };
        Ok(self.engine.watch_jobs(DEFAULT_TENANT, options))
    }

    /// A page of the jobs that match a filter, newest first.
    pub async fn list(&self, request: proto::ListJobsRequest) -> Result<JobsPage, Status> {
        let parts = request::parts(request.view, Parts::BASIC).map_err(status::invalid)?;
        self.list_parts(request, parts).await
    }

    /// As [`list`](Self::list), with these parts of each job instead of the view that is asked for.
    pub async fn list_parts(
        &self,
        request: proto::ListJobsRequest,
        parts: Parts,
    ) -> Result<JobsPage, Status> {
        let fingerprint = filter::fingerprint(&request.filter);
        let filter = filter::filter(request.filter).map_err(status::invalid)?;
        let page = Page {
            before: filter::page_start(&request.page_token, fingerprint).map_err(status::invalid)?,
            jobs: request::page_size(request.page_size, 50).map_err(status::invalid)?,
            bytes: PAGE_BYTES_MAX,
        };
        let listed =
            self.engine.list(DEFAULT_TENANT, Arc::new(filter), page, parts).await.map_err(refused)?;
        Ok(JobsPage { listed, fingerprint, has_payloads: parts.input || parts.result })
    }

    /// Counts jobs by kind and state.
    pub async fn count(&self, request: proto::CountJobsRequest) -> Result<Counts, Status> {
        let kinds = filter::checked_kinds(request.kinds, "kinds", filter::KINDS_MAX);
        let kinds = kinds.map_err(status::invalid)?;
        let counts = self.engine.count(DEFAULT_TENANT, kinds, COUNTS_MAX + 1).await.map_err(refused)?;
        Ok(Counts::new(counts))
    }

    /// A page of a job's history, oldest first.
    pub async fn history(&self, request: proto::ListJobEventsRequest) -> Result<EventsPage, Status> {
        let job = job_id(&request.job_id)?;
        let after = request::sequence(request.after_sequence, "after_sequence").map_err(status::invalid)?;
        let limit = request::page_size(request.page_size, 100).map_err(status::invalid)?;
        // One more tells whether there is another page.
        let limits = EventLimit { events: limit + 1, bytes: PAGE_BYTES_MAX };
        let mut events = self.engine.history(job, after, limits).await.map_err(refused)?;
        let Some(last) = events.last().map(|event| event.sequence) else {
            return Ok(EventsPage { job, events, next_after: None });
        };
        events.truncate(limit);
        let shown = events.last().map_or(0, |event| event.sequence);
        let more = shown < last || self.has_more(job, last).await?;
        Ok(EventsPage { job, events, next_after: more.then_some(shown) })
    }

    /// Asks that a job stop.
    pub async fn cancel(&self, request: proto::CancelJobRequest) -> Result<Snapshot, Status> {
        let id = job_id(&request.job_id)?;
        let reason = request::message(request.reason, "reason").map_err(status::invalid)?;
        let most = Duration::from_secs(GRACE_SECONDS_MAX);
        let grace = request::duration(request.grace_period, "grace_period", most).map_err(status::invalid)?;
        self.engine.cancel(id, reason, grace).await.map_err(refused)
    }

    /// Starts a job that has ended again, as a new one.
    pub async fn retry(
        &self,
        request: proto::RetryJobRequest,
        trace: Option<Trace>,
    ) -> Result<Started, Status> {
        let arrival = self.traces.arrived("RetryJob", trace);
        let id = job_id(&request.job_id)?;
        let key = request::retry_key(request).map_err(status::invalid)?;
        let mut call = arrival.begin(1);
        let retrying = self.engine.retry(DEFAULT_TENANT, id, key, call.trace(0));
        let started = call.commit(retrying, status::fault).await.map_err(refused)?;
        call.has_started(&started.snapshot, started.repeated);
        Ok(started)
    }

    /// Forgets a job that has ended.
    pub async fn delete(&self, request: proto::DeleteJobRequest) -> Result<(), Status> {
        let id = job_id(&request.job_id)?;
        self.engine.delete(id).await.map_err(refused)
    }

    /// Makes sure that this server takes work.
    pub async fn ready(&self) -> Result<(), Status> {
        let answer = tokio::time::timeout(READY_MAX, self.engine.ready()).await;
        answer
            .unwrap_or_else(|_| Err(Error::Unavailable("the store does not answer".into())))
            .map_err(refused)
    }

    /// Makes sure that this server can still come to take work: one that cannot is to be started anew.
    pub fn alive(&self) -> Result<(), Status> {
        if self.engine.is_dead() {
            return Err(Status::internal("the thread that commits is gone; the fault is the server's own"));
        }
        Ok(())
    }

    /// Whether a job has kept events after this one.
    async fn has_more(&self, id: JobId, after: u64) -> Result<bool, Status> {
        let snapshot = self.engine.get(id, Parts::BASIC).await.map_err(refused)?;
        Ok(snapshot.job.sequence() > after)
    }
}

/// Shows a job: on a thread that nobody else waits for, where its input and result are much.
pub async fn show<T: Send + 'static>(
    snapshot: Snapshot,
    show: impl FnOnce(&Snapshot) -> T + Send + 'static,
) -> Result<T, Status> {
    let bytes = |payload: &Option<bytes::Bytes>| payload.as_ref().map_or(0, |payload| payload.len());
    let large = bytes(&snapshot.input) + bytes(&snapshot.result) > JSON_INLINE_MAX;
    aside(large, move || show(&snapshot)).await
}

/// Does what is much work on a thread that nobody else waits for, where it is its turn. Until then it can be dropped.
pub async fn aside<T: Send + 'static>(
    much: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    if !much {
        return Ok(work());
    }
    let turn = TURNS.acquire().await;
    let work = move || {
        let done = work();
        drop(turn);
        done
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        // Whoever catches panics of calls shall catch this one: its text may quote an input.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(status::status(&Error::stopping())),
    }
}

fn job_id(text: &str) -> Result<JobId, Status> {
    request::job_id(text).map_err(status::invalid)
}

fn refused(error: Error) -> Status {
    status::status(&error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn what_is_much_waits_for_its_turn_and_goes_with_its_call() {
        let all = TURNS.acquire_many(TURNS_MAX as u32).await.unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        let work = |name: &'static str| {
            let told = told.clone();
            move || told.send(name).unwrap()
        };

        let mut dropped = Box::pin(aside(true, work("dropped")));
        let mut patient = Box::pin(aside(true, work("patient")));
        assert!((&mut dropped).now_or_never().is_none() && (&mut patient).now_or_never().is_none());
        aside(false, work("little")).await.unwrap();
        drop(dropped);
        drop(all);
        patient.await.unwrap();

        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["little", "patient"]);
    }
}
