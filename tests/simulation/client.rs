//! Somebody who starts, watches, cancels, lists, repeats and forgets jobs, and who knows what an answer that did not come means:
//! perhaps.

use crate::ledger::Ledger;
use crate::lots::Lots;
use crate::network::{Link, Network};
use crate::time::MachineClock;
use longhaul::proto::job_service_client::JobServiceClient;
use longhaul::proto::start_job_request::Payload;
use longhaul::proto::*;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Response, Status};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how long a watch should have ended, once nothing goes wrong any more.
pub const END: Duration = Duration::from_secs(400);
/// In how many groups jobs are listed and watched.
pub const GROUPS: u64 = 2;

/// What comes of a call.
pub enum Called<T> {
    Is(T),
    Refused(Status),
    /// It has happened or not.
    Unknown,
}

/// The client.
#[derive(Clone)]
pub struct Client {
    pub name: String,
    pub stub: JobServiceClient<Link>,
    pub ledger: Arc<Ledger>,
    pub network: Arc<Network>,
    pub lots: Lots,
    /// The server's machine has the same.
    pub clock: MachineClock,
}

impl Client {
    /// Does one thing after the other until all is calm.
    pub async fn live(self, wishes: u64) {
        let mut wished = 0;
        let mut watches = tokio::task::JoinSet::new();
        while wished < wishes || self.network.is_stormy() {
            tokio::time::sleep(self.lots.millis(0..400)).await;
            match self.lots.among(0..20) {
                0..8 if wished < wishes => {
                    wished += 1;
                    if let Some(job) = self.start(&format!("{}.{wished}", self.name)).await {
                        let client = Self { lots: self.lots.fork(), ..self.clone() };
                        if !self.lots.one_in(4) {
                            watches.spawn(client.watch(job));
                        }
                    }
                }
                8..10 => self.cancel().await,
                10..13 => self.look().await,
                13 => self.list().await,
                18 if wished < wishes => {
                    wished += 1;
                    self.start_batch(wished).await;
                }
                14 => {
                    wished += 1;
                    self.retry(wished).await;
                }
                15 if self.lots.one_in(3) => self.delete().await,
                16..18 => {
                    if let Some(job) = self.some_job() {
                        watches.spawn(Self { lots: self.lots.fork(), ..self.clone() }.watch(job));
                    }
                }
                _ => {}
            }
        }
        while let Some(watched) = watches.join_next().await {
            self.ledger.demand(watched.is_ok(), || "a watcher panicked".into());
        }
    }

    /// What came of a call.
    pub async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Called<T> {
        match tokio::time::timeout(PATIENCE, call).await {
            Err(_) => Called::Unknown,
            Ok(Ok(response)) => Called::Is(response.into_inner()),
            Ok(Err(status)) => match status.code() {
                Code::Unavailable => Called::Unknown,
                Code::NotFound | Code::FailedPrecondition => Called::Refused(status),
                code => {
                    self.ledger
                        .blame(format!("an answer that nobody expects: {code:?} {}", status.message()));
                    Called::Refused(status)
                }
            },
        }
    }

    fn some_job(&self) -> Option<String> {
        let tickets = self.ledger.tickets();
        (!tickets.is_empty()).then(|| self.lots.pick(&tickets).clone())
    }

    /// A request by lot.
    fn request(&self, label: &str) -> StartJobRequest {
        let lots = &self.lots;
        let millis = |range| lots.millis(range).try_into().ok();
        let some = |times, range| if lots.one_in(times) { millis(range) } else { None };
        let retry_policy = RetryPolicy {
            maximum_attempts: lots.among(1..5) as i32,
            initial_interval: millis(1..1_000),
            backoff_coefficient: 2.0,
            maximum_interval: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        };
        let later = self.clock.now().after(lots.millis(0..8_000)).as_micros();
        let schedule_time =
            prost_types::Timestamp { seconds: later / 1_000_000, nanos: (later % 1_000_000 * 1_000) as i32 };
        let key = lots.among(0..10);
        let (concurrency_key, concurrency_limit) = match key {
            0 | 1 => ("one".to_owned(), 1),
            2 => ("two".to_owned(), 2),
            _ => (String::new(), 0),
        };
        let options = JobOptions {
            priority: lots.among(0..3) as i32 - 1,
            schedule_time: lots.one_in(8).then_some(schedule_time),
            retry_policy: Some(retry_policy),
            schedule_to_start_timeout: some(12, 4_000..20_000),
            start_to_close_timeout: some(8, 1_000..6_000),
            schedule_to_close_timeout: some(12, 5_000..30_000),
            progress_timeout: some(10, 1_000..4_000),
            concurrency_key,
            concurrency_limit,
            ..Default::default()
        };
        let group = lots.among(0..GROUPS).to_string();
        StartJobRequest {
            kind: (*lots.pick(&["work", "work", "work", "rare"])).to_owned(),
            payload: Some(Payload::InputJson(format!(r#"{{"wish":"{label}"}}"#))),
            options: Some(options),
            request_id: if lots.one_in(3) { String::new() } else { label.to_owned() },
            labels: [("wish".to_owned(), label.to_owned()), ("group".to_owned(), group)].into(),
        }
    }

    /// Starts a job; where its request has an id, again and again until there is an answer.
    async fn start(&self, label: &str) -> Option<String> {
        let request = self.request(label);
        self.ledger.wish(label, &request.labels["group"], None);
        loop {
            let told = self.call(self.stub.clone().start_job(request.clone())).await;
            match told {
                Called::Is(job) => {
                    self.started(label, &job);
                    if request.request_id.is_empty() || !self.lots.one_in(4) {
                        return Some(job.id);
                    }
                    // Once more for what is there.
                    if let Called::Is(same) = self.call(self.stub.clone().start_job(request)).await {
                        self.ledger.started(label, &same);
                    }
                    return Some(job.id);
                }
                Called::Refused(status) => {
                    self.ledger.blame(format!("{label} is refused: {status:?}"));
                    return None;
                }
                Called::Unknown if request.request_id.is_empty() => return None,
                Called::Unknown => tokio::time::sleep(self.lots.millis(10..500)).await,
            }
        }
    }

    fn started(&self, label: &str, job: &Job) {
        self.ledger.note(|| format!("{} has {label}: {}", self.name, job.id));
        self.ledger.started(label, job);
        self.ledger.shown(&Default::default(), job);
    }

    /// Starts several jobs, all or none.
    async fn start_batch(&self, number: u64) {
        let labels: Vec<String> =
            (0..self.lots.among(2..5)).map(|index| format!("{}.batch{number}.{index}", self.name)).collect();
        let requests: Vec<_> = labels.iter().map(|label| self.request(label)).collect();
        let batch = Some(self.lots.number());
        for (label, request) in labels.iter().zip(&requests) {
            self.ledger.wish(label, &request.labels["group"], batch);
        }
        let again = requests.iter().all(|request| !request.request_id.is_empty());
        loop {
            let request = BatchStartJobsRequest { requests: requests.clone() };
            match self.call(self.stub.clone().batch_start_jobs(request)).await {
                Called::Is(started) => {
                    self.ledger.see("a batch is started");
                    labels.iter().zip(&started.jobs).for_each(|(label, job)| self.started(label, job));
                    return self.ledger.demand(started.jobs.len() == labels.len(), || {
                        format!("{} of {} jobs of a batch are answered", started.jobs.len(), labels.len())
                    });
                }
                Called::Refused(status) => {
                    return self.ledger.blame(format!("a batch is refused: {status:?}"));
                }
                Called::Unknown if !again => return,
                Called::Unknown => tokio::time::sleep(self.lots.millis(10..500)).await,
            }
        }
    }

    async fn cancel(&self) {
        let Some(job_id) = self.some_job() else { return };
        let before = self.ledger.told(&job_id);
        let grace_period = self.lots.one_in(2).then(|| self.lots.millis(0..2_000).try_into().ok()).flatten();
        let request = CancelJobRequest { job_id: job_id.clone(), grace_period, ..Default::default() };
        match self.call(self.stub.clone().cancel_job(request)).await {
            Called::Is(job) => {
                self.ledger.note(|| format!("{} cancelled {job_id}: {:?}", self.name, job.state()));
                self.ledger.shown(&before, &job);
                self.ledger.cancelled(&job);
            }
            Called::Refused(status) => self.refused(&job_id, &status),
            Called::Unknown => {}
        }
    }

    /// Asks how a job is.
    async fn look(&self) {
        let Some(job_id) = self.some_job() else { return };
        let before = self.ledger.told(&job_id);
        let request = GetStatusRequest { job_id: job_id.clone(), ..Default::default() };
        match self.call(self.stub.clone().get_status(request)).await {
            Called::Is(job) => self.ledger.shown(&before, &job),
            Called::Refused(status) => self.refused(&job_id, &status),
            Called::Unknown => {}
        }
    }

    pub fn refused(&self, job: &str, status: &Status) {
        let gone = status.code() == Code::NotFound && self.ledger.told(job).may_be_gone;
        self.ledger.demand(gone, || format!("{job} is refused: {status:?}"));
    }

    /// Has a job repeated that has ended.
    async fn retry(&self, number: u64) {
        let Some(job_id) = self.some_job() else { return };
        let before = self.ledger.told(&job_id);
        let request_id = format!("{}-again.{number}", self.name);
        let request = RetryJobRequest { job_id: job_id.clone(), request_id: request_id.clone() };
        let mut times = if self.lots.one_in(3) { 2 } else { 1 };
        while times > 0 {
            match self.call(self.stub.clone().retry_job(request.clone())).await {
                Called::Is(job) => {
                    times -= 1;
                    self.ledger.see("a job is repeated");
                    self.ledger.note(|| format!("{} has {} again: {}", self.name, job_id, job.id));
                    self.ledger.demand(job.retry_of == job_id, || {
                        format!("{} repeats {} where {job_id} was to be", job.id, job.retry_of)
                    });
                    self.ledger.again(&request_id, &job.id);
                    self.ledger.shown(&Default::default(), &job);
                }
                Called::Refused(status) => {
                    // So is a repeat whose own job was forgotten meanwhile.
                    let made = self.ledger.made_again(&request_id);
                    let is_gone = |job: &String| self.ledger.told(job).may_be_gone;
                    let open =
                        before.outcome.is_none() || is_gone(&job_id) || made.as_ref().is_some_and(is_gone);
                    return self.ledger.demand(open, || format!("{job_id} is not repeated: {status:?}"));
                }
                Called::Unknown => tokio::time::sleep(self.lots.millis(10..500)).await,
            }
        }
    }

    async fn delete(&self) {
        let Some(job_id) = self.some_job() else { return };
        if self.ledger.told(&job_id).outcome.is_none() {
            return;
        }
        self.ledger.may_be_gone(&job_id);
        let request = DeleteJobRequest { job_id: job_id.clone() };
        match self.call(self.stub.clone().delete_job(request)).await {
            Called::Is(()) => {
                self.ledger.see("a job is forgotten");
                self.ledger.is_gone(&job_id, true);
            }
            Called::Refused(status) => self.ledger.demand(status.code() == Code::NotFound, || {
                format!("{job_id} has ended and is not forgotten: {status:?}")
            }),
            Called::Unknown => {}
        }
    }
}

/// The jobs of a group.
pub fn in_group(group: &str) -> JobFilter {
    JobFilter { labels: [("group".to_owned(), group.to_owned())].into(), ..Default::default() }
}
