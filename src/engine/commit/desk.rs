//! Carries out what waits for a commit: one batch after the other, published and answered once it is durable.

use super::waiting::{BATCH_MAX, Request, Waiting};
use crate::clock::Clock;
use crate::engine::error::Error;
use crate::engine::observe::Batch;
use crate::engine::proof::Proof;
use crate::store::{Operation, Outcome, Store, Submitted};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a batch waits for company, at most, when there was company the last time.
const COMPANY_WAIT: Duration = Duration::from_micros(150);

/// What is to be done with what a commit brought, before its callers are answered.
pub trait Publish: Send + 'static {
    /// Makes `outcome` visible. It is durable.
    fn publish(&self, outcome: &Outcome);

    /// A batch is durable, and all of it is about to be published.
    fn committed(&self, batch: Batch);

    /// A batch failed.
    fn failed(&self, batch: Batch);

    /// A batch may have been committed without anybody knowing what came of it.
    fn unknown(&self);
}

/// Where batches are carried out.
pub struct Desk<P> {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    publish: P,
    proof: Arc<Proof>,
}

impl<P: Publish> Desk<P> {
    /// Commits to `store` what is then published.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, publish: P, proof: Arc<Proof>) -> Self {
        Self { store, clock, publish, proof }
    }

    /// Carries out what comes until nothing comes any more, on the caller's thread.
    pub fn run(self, requests: &Receiver<Request>) {
        let mut waiting = Waiting::default();
        let mut last_batch = 0;
        while gather(requests, &mut waiting, last_batch) {
            let batch = waiting.take();
            last_batch = batch.len();
            self.carry_out(batch);
        }
    }

    /// The same as a task, which is rung for: each batch in its turn, after a wait.
    pub async fn run_in_turns(
        self,
        requests: Receiver<Request>,
        bell: Arc<Notify>,
        time: Arc<dyn Fn() -> Duration + Send + Sync>,
    ) {
        let mut waiting = Waiting::default();
        loop {
            let ended = loop {
                match requests.try_recv() {
                    Ok(request) => waiting.push(request),
                    Err(error) => break error == TryRecvError::Disconnected,
                }
            };
            debug_assert!(!waiting.is_open(), "without threads all is sent at once that belongs together");
            if waiting.len() > 0 {
                let batch = waiting.take();
                #[cfg(feature = "mutants")]
                let batch = self.foretell(batch);
                tokio::time::sleep(time()).await;
                self.carry_out(batch);
            } else if ended {
                return;
            } else {
                bell.notified().await;
            }
        }
    }

    /// Tells what the commands of a batch will lead to, which is too early.
    #[cfg(feature = "mutants")]
    fn foretell(&self, mut batch: Vec<Request>) -> Vec<Request> {
        use super::waiting::Reply;
        use crate::mutants::{Mutant, is};
        use crate::store::Parts;
        if !is(Mutant::EventBeforeCommit) && !is(Mutant::AnswerBeforeCommit) {
            return batch;
        }
        for request in &mut batch {
            let Operation::Apply(id, command) = &request.operation else { continue };
            let Ok(Some(found)) = self.store.get(&[*id], Parts::BASIC).map(|mut found| found.remove(0))
            else {
                continue;
            };
            let step = crate::job::transition(&found.job, Clone::clone(command), self.clock.now());
            let Ok(step) = step else { continue };
            let outcome = Outcome::Apply(Ok(Box::new(step)));
            if is(Mutant::EventBeforeCommit) {
                self.publish.publish(&outcome);
            } else if is(Mutant::AnswerBeforeCommit) {
                std::mem::replace(&mut request.answer, Reply::Then(Box::new(drop))).give(Ok(outcome));
            }
        }
        batch
    }

    fn carry_out(&self, batch: Vec<Request>) {
        let (operations, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| (request.operation, (request.answer, request.place))).unzip();
        let count = operations.len();
        let is_changed = operations.iter().any(keeps);
        let began = Instant::now();
        let committed = self.store.commit(operations, self.clock.now());
        let time = began.elapsed();
        let changed = is_changed || committed.as_ref().is_ok_and(|outcomes| outcomes.iter().any(changes));
        let batch = Batch { operations: count, changed, time };
        match committed {
            Ok(outcomes) => {
                if changed {
                    self.proof.written(self.clock.now());
                }
                self.publish.committed(batch);
                for (outcome, (answer, _place)) in outcomes.into_iter().zip(answers) {
                    self.publish.publish(&outcome);
                    answer.give(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, operations = count, "a commit failed");
                self.proof.failed();
                self.publish.failed(batch);
                let may_have_committed = error.may_have_committed();
                let error = Error::from(error);
                for (answer, _place) in answers {
                    answer.give(Err(error.clone()));
                }
                if may_have_committed {
                    self.publish.unknown();
                }
            }
        }
    }
}

/// Whether an operation writes something whose outcome does not tell.
fn keeps(operation: &Operation) -> bool {
    matches!(operation, Operation::Probe)
        || matches!(operation, Operation::KeepLive(kept) if !kept.is_empty())
}

/// Whether something was written, as far as an outcome tells; a refusal writes nothing.
fn changes(outcome: &Outcome) -> bool {
    let created = |submitted: &Submitted| matches!(submitted, Submitted::Created(_));
    match outcome {
        Outcome::Submit(Ok(submitted)) => submitted.iter().any(created),
        Outcome::Retry(Ok(submitted)) => created(submitted),
        Outcome::Claim(dealt) => !dealt.claimed.is_empty(),
        Outcome::Apply(Ok(step)) => !step.events.is_empty(),
        Outcome::Sweep(swept) => !swept.transitions.is_empty(),
        Outcome::Prune(pruned) => !pruned.forgotten.is_empty(),
        Outcome::Delete(outcome) => outcome.is_ok(),
        Outcome::Submit(Err(_)) | Outcome::Retry(Err(_)) | Outcome::Apply(Err(_)) => false,
        Outcome::KeepLive | Outcome::Probe => false,
    }
}

/// Waits for something to do, and takes in all that has come; false where nothing comes any more. Where several came
/// together the last time, most of them are about to come again: waiting a moment for as many costs less than a flush for
/// each half.
fn gather(requests: &Receiver<Request>, waiting: &mut Waiting, last_batch: usize) -> bool {
    if waiting.len() == 0 {
        match requests.recv() {
            Ok(first) => waiting.push(first),
            Err(_) => return false,
        }
    }
    let began = Instant::now();
    loop {
        match requests.try_recv() {
            Ok(request) => waiting.push(request),
            Err(_) if waiting.is_open() => match requests.recv() {
                Ok(request) => waiting.push(request),
                Err(_) => return false,
            },
            Err(_) if waiting.len() >= last_batch.min(BATCH_MAX) => return true,
            Err(_) => match requests.recv_timeout(COMPANY_WAIT.saturating_sub(began.elapsed())) {
                Ok(request) => waiting.push(request),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return true,
            },
        }
    }
}
