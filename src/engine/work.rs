//! What workers call: leases and what is reported under them.

use super::commit::received;
use super::hub::Change;
use super::leases::Order;
use super::{Engine, Error};
use crate::job::{
    Command, Failure, LeaseEnd, LeaseToken, Live, LogLine, Metrics, Progress, Refusal, Snapshot, State,
};
use crate::store::{Claim, Claimed, Operation, Outcome};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a worker waits before it claims again without a hint. A hint that was lost costs no more than this.
const CLAIM_AGAIN: Duration = Duration::from_secs(5);

/// Somebody who can run jobs.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its own name, for people and for the history.
    pub name: String,
    /// What it can run.
    pub kinds: Arc<[String]>,
    /// It runs in this very process: an attempt begins with its lease, and both end with the process.
    pub in_process: bool,
}

/// A job that a worker holds.
#[derive(Debug)]
pub struct Leased {
    /// The job, with its input.
    pub snapshot: Snapshot,
    /// Names the lease in every report.
    pub token: LeaseToken,
    /// What the server wants of the worker.
    pub orders: watch::Receiver<Order>,
}

impl Engine {
    /// Leases up to `count` ready jobs, and waits until there is one.
    ///
    /// Where the wait is given up in the middle of a claim, its leases are found later and ended.
    pub async fn lease(&self, worker: &Worker, count: usize) -> Result<Vec<Leased>, Error> {
        loop {
            let place = self.shared().dispatch.enlist(&worker.kinds);
            let leased = self.claim(worker, count).await?;
            if !leased.is_empty() {
                place.served();
                return Ok(leased);
            }
            let _ = tokio::time::timeout(CLAIM_AGAIN, place.wait()).await;
            place.leave();
        }
    }

    async fn claim(&self, worker: &Worker, count: usize) -> Result<Vec<Leased>, Error> {
        let shared = self.shared();
        let claim = Claim {
            worker: worker.name.clone(),
            kinds: Arc::clone(&worker.kinds),
            secrets: (0..count).map(|_| shared.chance()).collect(),
            in_process: worker.in_process,
        };
        // A caller that is gone by then must not leave jobs behind that nobody runs.
        let mut pending = PendingClaim {
            engine: self,
            answer: Some(shared.committer().queue(Operation::Claim(claim))),
            claimed: Vec::new(),
        };
        let Some(answer) = &mut pending.answer else { return Ok(Vec::new()) };
        let outcome = answer.await.map_err(|_| Error::Unavailable("the server is stopping".into()));
        pending.answer = None;
        let Outcome::Claim(claimed) = outcome?? else {
            unreachable!("an outcome is of its operation's kind")
        };
        pending.claimed = claimed;
        if pending.claimed.iter().any(|claimed| claimed.snapshot.job.options.concurrency.is_some()) {
            shared.leases.have_let_go().await;
        }
        let claimed = std::mem::take(&mut pending.claimed);
        Ok(claimed.into_iter().filter_map(|claimed| self.leased(claimed)).collect())
    }

    /// A lease that has ended again by now, for example by a cancellation, is passed over.
    fn leased(&self, claimed: Claimed) -> Option<Leased> {
        let Claimed { snapshot, token, .. } = claimed;
        let orders = self.shared().leases.orders(&token)?;
        Some(Leased { snapshot, token, orders })
    }

    /// Reports how far an attempt has come, and what it measured. Latest wins: it is shown at once and kept later.
    pub fn report(
        &self,
        token: &LeaseToken,
        progress: Option<Progress>,
        metrics: Metrics,
    ) -> Result<(), Error> {
        let shared = self.shared();
        let now = shared.clock.now();
        let change = Change { progress: progress.is_some(), metrics: !metrics.is_empty() };
        let (attempt, live) = shared.leases.report(token, progress, metrics, now)?;
        shared.hub.publish_live(token.job, attempt, &live, change, now);
        shared.changes.progressed(token.job);
        Ok(())
    }

    /// Records that an attempt has entered another stage, and shows it in its progress from then on.
    pub async fn enter_stage(&self, token: &LeaseToken, name: String) -> Result<(), Error> {
        self.flush(token).await?;
        let live = self.shared().leases.live(token).ok_or(Error::Refused(Refusal::LeaseLost))?;
        self.apply(token, Command::EnterStage { lease: *token, name: name.clone() }).await?;
        self.report(token, Some(Progress { stage: name, ..live.progress }), Metrics::new())
    }

    /// Takes the next bytes of an attempt's output. Waits only where too much of it is not durable yet.
    pub async fn append_output(&self, token: &LeaseToken, channel: &str, data: Bytes) -> Result<(), Error> {
        let shared = self.shared();
        let output = shared.leases.output(token, shared.clock.now())?;
        output.append(shared.committer(), token, channel, data).await
    }

    /// Records lines of an attempt's log, `offset` of which were sent before.
    pub async fn append_log(
        &self,
        token: &LeaseToken,
        offset: u64,
        lines: Vec<LogLine>,
    ) -> Result<(), Error> {
        self.flush(token).await?;
        self.apply(token, Command::AppendLog { lease: *token, offset, lines }).await?;
        self.shared().leases.touch(token, self.shared().clock.now())
    }

    /// Records success, after all output is durable.
    pub async fn complete(&self, token: &LeaseToken, result: Bytes) -> Result<State, Error> {
        self.flush(token).await?;
        let live = self.shared().leases.last_live(token);
        self.apply(token, Command::Complete { lease: *token, result, live, output_bytes: None }).await
    }

    /// Records that the attempt failed, or without a failure that it stopped as a cancellation asked.
    pub async fn fail(
        &self,
        token: &LeaseToken,
        failure: Option<Failure>,
        retry_delay: Option<Duration>,
    ) -> Result<State, Error> {
        // Output that could not be recorded may well be what the attempt failed of.
        let _ = self.flush(token).await;
        let live = self.shared().leases.last_live(token);
        let jitter = self.shared().jitter();
        self.apply(token, Command::Fail { lease: *token, failure, retry_delay, live, jitter }).await
    }

    /// Gives the job back; the attempt does not count.
    pub async fn release(&self, token: &LeaseToken, reason: String, delay: Duration) -> Result<State, Error> {
        let live = self.shared().leases.last_live(token);
        self.apply(token, Command::Release { lease: *token, reason, delay, live }).await
    }

    /// Ends an attempt because its process, which is this one, is about to stop; it does not count.
    pub async fn interrupt(&self, token: &LeaseToken) -> Result<State, Error> {
        let shared = self.shared();
        let live = shared.leases.last_live(token);
        let (keeper, jitter) = (shared.store.keeper(), shared.jitter());
        let cause = LeaseEnd::Restarted;
        self.apply(token, Command::EndLease { epoch: token.epoch, keeper, cause, live, jitter }).await
    }

    /// Takes back a lease that never reached its worker.
    async fn give_up(&self, token: &LeaseToken) -> Result<State, Error> {
        let (keeper, jitter) = (self.shared().store.keeper(), self.shared().jitter());
        let end =
            |cause| Command::EndLease { epoch: token.epoch, keeper, cause, live: Live::default(), jitter };
        match self.apply(token, end(LeaseEnd::Unaccepted)).await {
            // Its attempt has begun with the lease; that it ends so does not count.
            Err(Error::Refused(Refusal::Accepted)) => self.apply(token, end(LeaseEnd::Restarted)).await,
            other => other,
        }
    }

    async fn apply(&self, token: &LeaseToken, command: Command) -> Result<State, Error> {
        let operation = Operation::Apply(token.job, Box::new(command));
        match received(self.shared().committer().queue(operation)).await? {
            Outcome::Apply(outcome) => Ok(outcome?.answer),
            _ => unreachable!("an outcome is of its operation's kind"),
        }
    }

    /// Waits until what was taken of the attempt's output is durable.
    async fn flush(&self, token: &LeaseToken) -> Result<(), Error> {
        match self.shared().leases.known_output(token) {
            Some(output) => output.flush().await,
            None => Ok(()),
        }
    }
}

/// A claim that is under way.
struct PendingClaim<'a> {
    engine: &'a Engine,
    answer: Option<super::commit::Answer>,
    claimed: Vec<Claimed>,
}

impl Drop for PendingClaim<'_> {
    fn drop(&mut self) {
        let (answer, claimed) = (self.answer.take(), std::mem::take(&mut self.claimed));
        if answer.is_none() && claimed.is_empty() {
            return;
        }
        let engine = self.engine.clone();
        self.engine.shared().errands.spawn(async move {
            let claimed = match answer {
                None => claimed,
                Some(answer) => match received(answer).await {
                    Ok(Outcome::Claim(claimed)) => claimed,
                    _ => return,
                },
            };
            for token in claimed.iter().map(|claimed| claimed.token) {
                if let Err(error) = engine.give_up(&token).await {
                    tracing::warn!(%error, job = %token.job, "a lease that nobody waited for stays");
                }
            }
        });
    }
}
