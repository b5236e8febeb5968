//! A worker of the unary methods that does everything a worker may do wrong: it says things twice and too late, is silent for
//! longer than its lease, and goes on with jobs that it has lost.

use crate::client::Called;
use crate::ledger::Ledger;
use crate::lots::Lots;
use crate::machine::LEASE;
use crate::network::{Link, Network};
use crate::script::{End, Plan, SCRIPTED};
use longhaul::proto::complete_job_request::Outcome;
use longhaul::proto::job::State;
use longhaul::proto::worker_service_client::WorkerServiceClient;
use longhaul::proto::*;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Response, Status};

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many jobs it takes at once.
const JOBS_MAX: u64 = 3;

/// The worker.
#[derive(Clone)]
pub struct Stranger {
    pub name: String,
    pub stub: WorkerServiceClient<Link>,
    pub ledger: Arc<Ledger>,
    pub network: Arc<Network>,
    pub lots: Lots,
}

impl Stranger {
    /// Takes jobs, for ever.
    pub async fn live(self) {
        loop {
            let request = LeaseJobsRequest {
                worker_id: self.name.clone(),
                kinds: vec!["work".to_owned(), "rare".to_owned()],
                max_jobs: self.lots.among(1..JOBS_MAX + 1) as i32,
                wait: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
                lease_duration: None,
            };
            if let Called::Is(leased) = self.call(self.stub.clone().lease_jobs(request)).await {
                for assignment in leased.assignments {
                    let stranger = Self { lots: self.lots.fork(), ..self.clone() };
                    tokio::spawn(stranger.work(assignment));
                }
            }
            tokio::time::sleep(self.lots.millis(10..600)).await;
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Called<T> {
        match tokio::time::timeout(PATIENCE, call).await {
            Err(_) => Called::Unknown,
            Ok(Ok(response)) => Called::Is(response.into_inner()),
            Ok(Err(status)) => match status.code() {
                Code::Unavailable => Called::Unknown,
                Code::FailedPrecondition | Code::NotFound | Code::OutOfRange | Code::AlreadyExists => {
                    Called::Refused(status)
                }
                code => {
                    self.ledger.blame(format!("a report is answered {code:?}: {}", status.message()));
                    Called::Refused(status)
                }
            },
        }
    }

    async fn work(self, assignment: Assignment) {
        let job = assignment.job.map(|job| job.id).unwrap_or_default();
        let token = assignment.lease_token;
        let offset = assignment.output_offset;
        let base = (assignment.checkpoint.as_ref(), offset as u64);
        let nonce = self.ledger.begin_attempt(&self.name, &job, base, &self.lots);
        self.ledger.note(|| format!("{nonce} has {job}"));
        if self.lots.one_in(20) && self.give_back(&token).await {
            return;
        }
        let beats = {
            let (stranger, token) = (Self { lots: self.lots.fork(), ..self.clone() }, token.clone());
            tokio::spawn(async move { stranger.beat(&token).await })
        };
        self.write_and_end(&job, &token, &nonce, offset).await;
        beats.abort();
    }

    async fn give_back(&self, token: &str) -> bool {
        let delay = self.lots.one_in(2).then(|| self.lots.millis(1..2_000).try_into().ok()).flatten();
        let request = ReleaseJobRequest { lease_token: token.to_owned(), reason: SCRIPTED.to_owned(), delay };
        matches!(self.call(self.stub.clone().release_job(request)).await, Called::Is(_))
    }

    /// Gives a sign now and then, and now and then too late.
    async fn beat(&self, token: &str) {
        loop {
            let report = Report { lease_token: token.to_owned(), ..Default::default() };
            let request = HeartbeatRequest { reports: vec![report] };
            let _ = self.call(self.stub.clone().heartbeat(request)).await;
            let late = self.network.is_stormy() && self.lots.one_in(12);
            tokio::time::sleep(if late { 2 * LEASE } else { self.lots.millis(300..900) }).await;
        }
    }

    async fn write_and_end(&self, job: &str, token: &str, nonce: &str, begin: i64) {
        let plan = Plan::new(&self.lots);
        let mut sent: Vec<(i64, Vec<u8>)> = Vec::new();
        let mut length = begin;
        for piece in 0..plan.pieces {
            tokio::time::sleep(self.lots.millis(0..plan.pause + 1)).await;
            let text = format!("{nonce}/{piece} ").into_bytes();
            self.ledger.writes(nonce, &format!("{nonce}/{piece} "));
            sent.push((length, text.clone()));
            length += text.len() as i64;
            // Sometimes all that went before is sent again with it, or something of it.
            let from = if self.lots.one_in(5) {
                self.lots.among(0..sent.len() as u64) as usize
            } else {
                sent.len() - 1
            };
            let (number, checkpoint) = match self.lots.one_in(4) {
                true => {
                    let (number, data) = self.ledger.checkpoints(nonce, true);
                    let (data, output_bytes) = (data.into(), length);
                    (number, Some(Checkpoint { data, output_bytes, number: number as i64 }))
                }
                false => (0, None),
            };
            if !self.append(token, &sent[from..], checkpoint.clone()).await {
                self.ledger.see("a worker has lost its job and goes on");
                self.go_on_all_the_same(job, token, nonce, length).await;
                return;
            }
            self.ledger.durable(nonce, (length - begin) as usize);
            self.ledger.recorded(nonce, number);
            if self.lots.one_in(6) {
                let _ = self.append(token, &sent[from..], checkpoint).await;
            }
        }
        tokio::time::sleep(self.lots.millis(0..plan.pause + 1)).await;
        match plan.end {
            End::Success => self.complete(job, token, nonce, length).await,
            End::Failure | End::Permanent => self.fail(token, matches!(plan.end, End::Permanent)).await,
            // It is not heard of again.
            End::Panic => {}
        }
        if self.lots.one_in(4) {
            tokio::time::sleep(self.lots.millis(0..6_000)).await;
            self.go_on_all_the_same(job, token, nonce, length).await;
        }
    }

    /// Sends bytes and a checkpoint until they are durable; false where it has lost the job.
    async fn append(&self, token: &str, pieces: &[(i64, Vec<u8>)], checkpoint: Option<Checkpoint>) -> bool {
        let Some((offset, _)) = pieces.first() else { return true };
        let request = AppendOutputRequest {
            lease_token: token.to_owned(),
            offset: *offset,
            data: pieces.iter().flat_map(|(_, text)| text.iter().copied()).collect(),
            checkpoint,
            ..Default::default()
        };
        loop {
            match self.call(self.stub.clone().append_output(request.clone())).await {
                Called::Is(_) => return true,
                Called::Refused(_) => return false,
                Called::Unknown => tokio::time::sleep(self.lots.millis(10..300)).await,
            }
        }
    }

    async fn complete(&self, job: &str, token: &str, nonce: &str, length: i64) {
        let request = CompleteJobRequest {
            lease_token: token.to_owned(),
            outcome: Some(Outcome::ResultJson(format!(r#"{{"nonce":"{nonce}"}}"#))),
            output_bytes: Some(length),
            ..Default::default()
        };
        let mut times = if self.lots.one_in(4) { 2 } else { 1 };
        let mut told = false;
        loop {
            match self.call(self.stub.clone().complete_job(request.clone())).await {
                Called::Is(CompleteJobResponse {}) => {
                    told = true;
                    self.ledger.note(|| format!("{nonce} has completed {job}"));
                    self.ledger.completed(job, nonce);
                    times -= 1;
                    if times == 0 {
                        return;
                    }
                }
                Called::Refused(status) => {
                    let gone = self.ledger.told(job).may_be_gone;
                    self.ledger.demand(!told || gone, || {
                        format!("{nonce} had completed {job}, and its repeat is refused: {status:?}")
                    });
                    return;
                }
                Called::Unknown => tokio::time::sleep(self.lots.millis(10..300)).await,
            }
        }
    }

    async fn fail(&self, token: &str, permanent: bool) {
        let failure = Failure { reason: "BY_LOT".into(), message: SCRIPTED.into(), permanent, details: None };
        let request =
            FailJobRequest { lease_token: token.to_owned(), failure: Some(failure), retry_delay: None };
        loop {
            match self.call(self.stub.clone().fail_job(request.clone())).await {
                Called::Is(failed) => {
                    let state = failed.state();
                    self.ledger.demand(state != State::Succeeded, || {
                        "a failed job is said to have succeeded".into()
                    });
                    return;
                }
                Called::Refused(_) => return,
                Called::Unknown => tokio::time::sleep(self.lots.millis(10..300)).await,
            }
        }
    }

    /// Says that it is done, and more, of a job that it may have lost long ago.
    async fn go_on_all_the_same(&self, job: &str, token: &str, nonce: &str, length: i64) {
        if self.lots.one_in(2) {
            let late = format!("{nonce}/late ");
            let request = AppendOutputRequest {
                lease_token: token.to_owned(),
                offset: length,
                data: late.clone().into(),
                ..Default::default()
            };
            self.ledger.may_write(nonce, &late);
            return match self.call(self.stub.clone().append_output(request)).await {
                Called::Is(_) => {
                    self.ledger.writes(nonce, &late);
                    self.complete(job, token, nonce, length + late.len() as i64).await;
                }
                Called::Refused(_) => self.ledger.may_write(nonce, ""),
                Called::Unknown => {}
            };
        }
        let request = CompleteJobRequest {
            lease_token: token.to_owned(),
            outcome: Some(Outcome::ResultJson(format!(r#"{{"nonce":"{nonce}"}}"#))),
            ..Default::default()
        };
        if let Called::Is(_) = self.call(self.stub.clone().complete_job(request)).await {
            self.ledger.completed(job, nonce);
        }
    }
}
