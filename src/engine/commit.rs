//! The one place that writes.
//!
//! One thread takes all operations that wait, gives them to the store as one batch, and only when that is durable
//! publishes what happened and answers. So a caller that goes away in the middle stops nothing, and nothing is seen that a
//! crash could take back.

use super::error::Error;
use super::observe::Batch;
use super::proof::{Proof, Waiting as Proving, Way};
use crate::clock::Clock;
use crate::job::{Command, JobId, Transition};
use crate::store::{Operation, Outcome, Store, Submitted};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many calls of clients may wait for a commit; more of them wait for their turn to wait. A call with much in it takes
/// the place of several.
const WAITING_MAX: usize = 4_096;
/// How many bytes of inputs take a place: all that wait hold a quarter of a gigabyte at most.
const BYTES_PER_PLACE: usize = 64 << 10;
/// How many jobs take a place.
const JOBS_PER_PLACE: usize = 16;
/// How many operations one batch takes, so that the first of them does not wait for too many; a submission counts as many
/// as it has jobs. Reports come first, so that however many jobs are started, those that run can end.
const BATCH_MAX: usize = 1_024;
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

/// Hands operations to the thread that commits.
#[derive(Debug)]
pub struct Committer {
    requests: Mutex<Option<Sender<Request>>>,
    waiting: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    proof: Arc<Proof>,
}

/// What will come of an operation.
pub type Answer = oneshot::Receiver<Result<Outcome, Error>>;

/// Where that goes.
enum Reply {
    /// To whoever waits for it.
    Waiting(oneshot::Sender<Result<Outcome, Error>>),
    /// To what is to be done with it, on the thread that commits. Dropped where nothing comes any more.
    Then(Box<dyn FnOnce(Result<Outcome, Error>) + Send>),
}

impl Reply {
    fn give(self, outcome: Result<Outcome, Error>) {
        match self {
            // Nobody there any more: it has happened all the same.
            Self::Waiting(sender) => drop(sender.send(outcome)),
            Self::Then(then) => then(outcome),
        }
    }
}

struct Request {
    operation: Operation,
    answer: Reply,
    /// A client's call has one; a report has none.
    place: Option<OwnedSemaphorePermit>,
}

impl Committer {
    /// Starts the thread.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        publish: impl Publish,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let proof = Arc::new(Proof::default());
        let run = {
            let proof = Arc::clone(&proof);
            move || run(&receiver, store.as_ref(), clock.as_ref(), &publish, &proof)
        };
        let thread = std::thread::Builder::new().name("commit".into()).spawn(run)?;
        Ok(Self {
            requests: Mutex::new(Some(sender)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            thread: Mutex::new(Some(thread)),
            proof,
        })
    }

    /// Commits an operation of a client: waits for its turn, then for the commit.
    pub async fn commit(&self, operation: Operation) -> Result<Outcome, Error> {
        let places = places(&operation).min(WAITING_MAX as u32);
        let place = Arc::clone(&self.waiting).acquire_many_owned(places).await.map_err(|_| stopped())?;
        let (answer, receiver) = oneshot::channel();
        self.send(Request { operation, answer: Reply::Waiting(answer), place: Some(place) });
        received(receiver).await
    }

    /// Queues an operation at once, in the order of the calls. For those whose number is bounded otherwise: the reports of
    /// those that hold a lease, and the engine's own.
    pub fn queue(&self, operation: Operation) -> Answer {
        let (answer, receiver) = oneshot::channel();
        self.send(Request { operation, answer: Reply::Waiting(answer), place: None });
        receiver
    }

    /// Queues a command of a job likewise, at once; the step that the job takes is what is waited for.
    pub fn apply(
        &self,
        job: JobId,
        command: Command,
    ) -> impl Future<Output = Result<Box<Transition>, Error>> + Send + use<> {
        let answer = self.queue(Operation::Apply(job, Box::new(command)));
        async move {
            match received(answer).await? {
                Outcome::Apply(outcome) => Ok(outcome?),
                _ => unreachable!("an outcome is of its operation's kind"),
            }
        }
    }

    /// Makes sure that something can be written, or could a moment ago. However many ask, one probe waits for its commit; it
    /// goes ahead of clients' calls, which may be many where all is well.
    pub async fn probe(&self, clock: &Arc<dyn Clock>) -> Result<(), Error> {
        let waiting: Proving = match self.proof.ask(clock.now()) {
            Way::Known(answer) => return answer,
            Way::Wait(waiting) => waiting,
            Way::Probe(probe, waiting) => {
                let (proof, clock) = (Arc::clone(&self.proof), Arc::clone(clock));
                let then = move |outcome: Result<Outcome, Error>| {
                    proof.told(probe, outcome.map(drop), clock.now());
                };
                self.queue_then(Operation::Probe, then);
                waiting
            }
        };
        waiting.answer().await.unwrap_or_else(|| Err(stopped()))
    }

    /// Waits until all that was queued before is committed and published.
    pub fn barrier(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let answer = self.queue(Operation::KeepLive(Vec::new()));
        async move { received(answer).await.map(drop) }
    }

    /// Queues an operation likewise, and does `then` with what comes of it, at once, on the thread that commits: it must be
    /// short. It is never done where nothing is committed any more.
    pub fn queue_then(
        &self,
        operation: Operation,
        then: impl FnOnce(Result<Outcome, Error>) + Send + 'static,
    ) {
        self.send(Request { operation, answer: Reply::Then(Box::new(then)), place: None });
    }

    fn send(&self, request: Request) {
        if let Some(requests) = &*self.requests.lock() {
            // A thread that is gone has dropped the answer, which tells as much.
            let _ = requests.send(request);
        }
    }

    /// Whether the thread is gone though nobody has stopped it: by a panic, and for good.
    pub fn is_dead(&self) -> bool {
        // Whoever has the lock waits for its end.
        let thread = self.thread.try_lock();
        thread.is_some_and(|thread| thread.as_ref().is_some_and(JoinHandle::is_finished))
    }

    /// Whether nothing is committed any more.
    pub fn is_stopped(&self) -> bool {
        self.requests.lock().is_none()
    }

    /// Commits what waits, and stops.
    pub fn stop(&self) {
        self.requests.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// Waits for what comes of an operation.
pub async fn received(answer: Answer) -> Result<Outcome, Error> {
    answer.await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> Error {
    Error::Unavailable("the server is stopping".into())
}

/// How many places of those that may wait an operation takes.
fn places(operation: &Operation) -> u32 {
    let extra = match operation {
        Operation::Submit(submissions) => {
            let bytes: usize = submissions.iter().map(|submission| submission.spec.input.len()).sum();
            bytes / BYTES_PER_PLACE + submissions.len() / JOBS_PER_PLACE
        }
        _ => 0,
    };
    u32::try_from(1 + extra).unwrap_or(u32::MAX)
}

/// How much of a batch an operation is.
fn weight(operation: &Operation) -> usize {
    match operation {
        Operation::Submit(submissions) => submissions.len().max(1),
        _ => 1,
    }
}

/// What waits for a batch.
#[derive(Default)]
struct Waiting {
    reports: VecDeque<Request>,
    calls: VecDeque<Request>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.reports.len() + self.calls.len()
    }

    fn push(&mut self, request: Request) {
        match request.place {
            Some(_) => self.calls.push_back(request),
            None => self.reports.push_back(request),
        }
    }

    /// Takes the next batch: reports, then calls until they are as much as a batch takes, one of them at least.
    fn take(&mut self) -> Vec<Request> {
        let mut batch: Vec<Request> = self.reports.drain(..self.reports.len().min(BATCH_MAX)).collect();
        let mut taken = 0;
        while let Some(call) = self.calls.pop_front() {
            taken += weight(&call.operation);
            if taken > BATCH_MAX && taken > weight(&call.operation) {
                self.calls.push_front(call);
                break;
            }
            batch.push(call);
        }
        batch
    }
}

fn run(
    requests: &Receiver<Request>,
    store: &dyn Store,
    clock: &dyn Clock,
    publish: &impl Publish,
    proof: &Proof,
) {
    let mut waiting = Waiting::default();
    let mut last_batch = 0;
    while gather(requests, &mut waiting, last_batch) {
        let batch = waiting.take();
        last_batch = batch.len();
        let (operations, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| (request.operation, (request.answer, request.place))).unzip();
        let is_changed = operations.iter().any(keeps);
        let began = Instant::now();
        let committed = store.commit(operations, clock.now());
        let time = began.elapsed();
        let changed = is_changed || committed.as_ref().is_ok_and(|outcomes| outcomes.iter().any(changes));
        let batch = Batch { operations: last_batch, changed, time };
        match committed {
            Ok(outcomes) => {
                if changed {
                    proof.written(clock.now());
                }
                publish.committed(batch);
                for (outcome, (answer, _place)) in outcomes.into_iter().zip(answers) {
                    publish.publish(&outcome);
                    answer.give(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, operations = answers.len(), "a commit failed");
                proof.failed();
                publish.failed(batch);
                let may_have_committed = error.may_have_committed();
                let error = Error::from(error);
                for (answer, _place) in answers {
                    answer.give(Err(error.clone()));
                }
                if may_have_committed {
                    publish.unknown();
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
            Err(_) if waiting.len() >= last_batch.min(BATCH_MAX) => return true,
            Err(_) => match requests.recv_timeout(COMPANY_WAIT.saturating_sub(began.elapsed())) {
                Ok(request) => waiting.push(request),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{DEFAULT_TENANT, JobId, Terms, Wish};
    use crate::store::Submission;

    fn request(operation: Operation, place: Option<OwnedSemaphorePermit>) -> Request {
        Request { operation, answer: Reply::Waiting(oneshot::channel().0), place }
    }

    /// A submission of so many jobs, from a client.
    fn call(jobs: usize) -> Request {
        let wish = Wish { kind: "work".into(), input: "{}".into(), ..Default::default() };
        let spec = Arc::new(wish.into_spec(DEFAULT_TENANT, &Terms::default()).unwrap());
        let submit = Operation::Submit(vec![Submission { spec, chance: 0 }; jobs]);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        request(submit, Some(place))
    }

    fn report() -> Request {
        request(Operation::Delete(JobId::default()), None)
    }

    fn weights(batch: &[Request]) -> Vec<usize> {
        batch.iter().map(|request| weight(&request.operation)).collect()
    }

    #[test]
    fn a_flood_of_starts_leaves_every_report_its_place_in_the_next_batch() {
        let mut waiting = Waiting::default();
        (0..10).for_each(|_| waiting.push(call(1_000)));
        (0..5).for_each(|_| waiting.push(report()));

        assert_eq!(weights(&waiting.take()), [1, 1, 1, 1, 1, 1_000]);
        waiting.push(report());
        assert_eq!(weights(&waiting.take()), [1, 1_000]);
    }

    #[test]
    fn a_batch_takes_calls_in_their_order_up_to_its_weight() {
        let mut waiting = Waiting::default();
        [500, 500, 24, 1, 2_000, 7].into_iter().for_each(|jobs| waiting.push(call(jobs)));

        let batches: Vec<_> = std::iter::from_fn(|| {
            let batch = waiting.take();
            (!batch.is_empty()).then(|| weights(&batch))
        })
        .collect();

        assert_eq!(batches, [vec![500, 500, 24], vec![1], vec![2_000], vec![7]]);
    }

    #[test]
    fn a_call_with_much_in_it_takes_more_places() {
        assert_eq!(places(&call(1).operation), 1);
        assert_eq!(places(&call(1_000).operation), 63);
    }
}
