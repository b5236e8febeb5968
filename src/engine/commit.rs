//! The one place that writes.
//!
//! One thread takes all operations that wait, gives them to the store as one batch, and only when that is durable
//! publishes what happened and answers. So a caller that goes away in the middle stops nothing, and nothing is seen that a
//! crash could take back.

use super::error::Error;
use crate::clock::Clock;
use crate::store::{Operation, Outcome, Store};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many calls of clients may wait for a commit; more of them wait for their turn to wait.
const WAITING_MAX: usize = 4_096;
/// How many operations one batch takes, so that the first of them does not wait for too many.
const BATCH_MAX: usize = 1_024;
/// How long a batch waits for company, at most, when there was company the last time.
const COMPANY_WAIT: Duration = Duration::from_micros(150);

/// What is to be done with what a commit brought, before its callers are answered.
pub trait Publish: Send + 'static {
    /// Makes `outcome` visible. It is durable.
    fn publish(&self, outcome: &Outcome);

    /// A batch may have been committed without anybody knowing what came of it.
    fn unknown(&self);
}

/// Hands operations to the thread that commits.
#[derive(Debug)]
pub struct Committer {
    requests: Mutex<Option<Sender<Request>>>,
    waiting: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What will come of an operation.
pub type Answer = oneshot::Receiver<Result<Outcome, Error>>;

struct Request {
    operation: Operation,
    answer: oneshot::Sender<Result<Outcome, Error>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Committer {
    /// Starts the thread.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        publish: impl Publish,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("commit".into())
            .spawn(move || run(&receiver, store.as_ref(), clock.as_ref(), &publish))?;
        Ok(Self {
            requests: Mutex::new(Some(sender)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Commits an operation of a client: waits for its turn, then for the commit.
    pub async fn commit(&self, operation: Operation) -> Result<Outcome, Error> {
        let place = Arc::clone(&self.waiting).acquire_owned().await.map_err(|_| stopped())?;
        received(self.send(operation, Some(place))).await
    }

    /// Queues an operation at once, in the order of the calls. For those whose number is bounded otherwise: the reports of
    /// those that hold a lease, and the engine's own.
    pub fn queue(&self, operation: Operation) -> Answer {
        self.send(operation, None)
    }

    fn send(&self, operation: Operation, place: Option<OwnedSemaphorePermit>) -> Answer {
        let (answer, receiver) = oneshot::channel();
        if let Some(requests) = &*self.requests.lock() {
            // A thread that is gone has dropped the answer, which tells as much.
            let _ = requests.send(Request { operation, answer, _place: place });
        }
        receiver
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

fn run(requests: &Receiver<Request>, store: &dyn Store, clock: &dyn Clock, publish: &impl Publish) {
    let mut last_batch = 0;
    while let Ok(first) = requests.recv() {
        let batch = gather(requests, first, last_batch);
        last_batch = batch.len();
        let (operations, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| (request.operation, (request.answer, request._place))).unzip();
        match store.commit(operations, clock.now()) {
            Ok(outcomes) => {
                for (outcome, (answer, _place)) in outcomes.into_iter().zip(answers) {
                    publish.publish(&outcome);
                    // Nobody there any more: it has happened all the same.
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, operations = answers.len(), "a commit failed");
                let may_have_committed = error.may_have_committed();
                let error = Error::from(error);
                for (answer, _place) in answers {
                    let _ = answer.send(Err(error.clone()));
                }
                if may_have_committed {
                    publish.unknown();
                }
            }
        }
    }
}

/// All that waits, up to a limit. Where several came together the last time, most of them are about to come again: waiting
/// a moment for as many costs less than a flush for each half.
fn gather(requests: &Receiver<Request>, first: Request, last_batch: usize) -> Vec<Request> {
    let mut batch = Vec::with_capacity(last_batch.max(1));
    batch.push(first);
    let began = Instant::now();
    while batch.len() < BATCH_MAX {
        match requests.try_recv() {
            Ok(request) => batch.push(request),
            Err(_) if batch.len() >= last_batch => break,
            Err(_) => match requests.recv_timeout(COMPANY_WAIT.saturating_sub(began.elapsed())) {
                Ok(request) => batch.push(request),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            },
        }
    }
    batch
}
