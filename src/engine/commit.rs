//! The one place that writes.
//!
//! One thread takes all operations that wait, gives them to the store as one batch, and only when that is durable
//! publishes what happened and answers. So a caller that goes away in the middle stops nothing, and nothing is seen that a
//! crash could take back.

mod desk;
mod waiting;

pub use desk::Publish;

use super::error::Error;
use super::proof::{Proof, Waiting as Proving, Way};
use super::threads::Threads;
use crate::clock::Clock;
use crate::job::{Command, JobId, Transition};
use crate::store::{Operation, Outcome, Store};
use desk::Desk;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task;
use waiting::{Reply, Request, places};

/// How many calls of clients may wait for a commit; more of them wait for their turn to wait. A call with much in it takes
/// the place of several.
const WAITING_MAX: usize = 4_096;

/// Hands operations to the thread that commits.
#[derive(Debug)]
pub struct Committer {
    requests: Mutex<Option<Sender<Request>>>,
    waiting: Arc<Semaphore>,
    /// Whoever stops it has it until the end.
    running: tokio::sync::Mutex<Option<Running>>,
    /// Where there is no thread that would hear by itself.
    bell: Option<Arc<Notify>>,
    proof: Arc<Proof>,
}

/// Where batches are carried out.
#[derive(Debug)]
enum Running {
    Thread(thread::JoinHandle<()>),
    Task(task::JoinHandle<()>),
}

/// What will come of an operation.
pub type Answer = oneshot::Receiver<Result<Outcome, Error>>;

impl Committer {
    /// Starts the thread, or the task that has its place.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        threads: &Threads,
        publish: impl Publish,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let proof = Arc::new(Proof::default());
        let desk = Desk::new(store, clock, publish, Arc::clone(&proof));
        let (running, bell) = match threads {
            Threads::Own => {
                let run = move || desk.run(&receiver);
                (Running::Thread(thread::Builder::new().name("commit".into()).spawn(run)?), None)
            }
            Threads::None(time) => {
                let bell = Arc::new(Notify::new());
                let turns = desk.run_in_turns(receiver, Arc::clone(&bell), Arc::clone(time));
                (Running::Task(tokio::spawn(turns)), Some(bell))
            }
        };
        Ok(Self {
            requests: Mutex::new(Some(sender)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            running: tokio::sync::Mutex::new(Some(running)),
            bell,
            proof,
        })
    }

    /// Commits an operation of a client: waits for its turn, then for the commit.
    pub async fn commit(&self, operation: Operation) -> Result<Outcome, Error> {
        let places = places(&operation).min(WAITING_MAX as u32);
        let place =
            Arc::clone(&self.waiting).acquire_many_owned(places).await.map_err(|_| Error::stopping())?;
        let (answer, receiver) = oneshot::channel();
        self.send([Request {
            operation,
            answer: Reply::Waiting(answer),
            place: Some(place),
            with_next: false,
        }]);
        received(receiver).await
    }

    /// Queues an operation at once, in the order of the calls. For those whose number is bounded otherwise: the reports of
    /// those that hold a lease, and the engine's own.
    pub fn queue(&self, operation: Operation) -> Answer {
        let (answer, receiver) = oneshot::channel();
        self.send([Request { operation, answer: Reply::Waiting(answer), place: None, with_next: false }]);
        receiver
    }

    /// Queues a command of a job likewise, at once; the step that the job takes is what is waited for.
    pub fn apply(
        &self,
        job: JobId,
        command: Command,
    ) -> impl Future<Output = Result<Box<Transition>, Error>> + Send + use<> {
        stepped(self.queue(Operation::Apply(job, Box::new(command))))
    }

    /// Queues commands of a job likewise, all of which become durable in one commit, or none does. The steps are as many.
    pub fn apply_together(
        &self,
        job: JobId,
        commands: Vec<Command>,
    ) -> Vec<impl Future<Output = Result<Box<Transition>, Error>> + Send + use<>> {
        let last = commands.len().saturating_sub(1);
        let (requests, answers): (Vec<_>, Vec<_>) = commands
            .into_iter()
            .enumerate()
            .map(|(index, command)| {
                let (answer, receiver) = oneshot::channel();
                let operation = Operation::Apply(job, Box::new(command));
                let answer = Reply::Waiting(answer);
                (Request { operation, answer, place: None, with_next: index < last }, stepped(receiver))
            })
            .unzip();
        self.send(requests);
        answers
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
        waiting.answer().await.unwrap_or_else(|| Err(Error::stopping()))
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
        self.send([Request {
            operation,
            answer: Reply::Then(Box::new(then)),
            place: None,
            with_next: false,
        }]);
    }

    /// Sends them one right after the other.
    fn send(&self, all: impl IntoIterator<Item = Request>) {
        if let Some(requests) = &*self.requests.lock() {
            for request in all {
                // A thread that is gone has dropped the answer, which tells as much.
                let _ = requests.send(request);
            }
        }
        self.ring();
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }

    /// Whether the thread is gone though nobody has stopped it: by a panic, and for good.
    pub fn is_dead(&self) -> bool {
        let running = self.running.try_lock();
        running.is_ok_and(|running| {
            running.as_ref().is_some_and(|running| match running {
                Running::Thread(thread) => thread.is_finished(),
                Running::Task(task) => task.is_finished(),
            })
        })
    }

    /// Whether nothing is committed any more.
    pub fn is_stopped(&self) -> bool {
        self.requests.lock().is_none()
    }

    /// Commits what waits, and stops.
    pub async fn stop(&self) {
        self.requests.lock().take();
        self.ring();
        let mut running = self.running.lock().await;
        *running = running.take().map(|running| match running {
            Running::Thread(thread) => Running::Task(task::spawn_blocking(move || drop(thread.join()))),
            task @ Running::Task(_) => task,
        });
        if let Some(Running::Task(task)) = &mut *running {
            // A panic there has been reported already.
            let _ = task.await;
        }
        *running = None;
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.requests.get_mut().take();
        self.ring();
    }
}

/// Waits for the step that a job takes.
async fn stepped(answer: Answer) -> Result<Box<Transition>, Error> {
    match received(answer).await? {
        Outcome::Apply(outcome) => Ok(outcome?),
        _ => unreachable!("an outcome is of its operation's kind"),
    }
}

/// Waits for what comes of an operation.
pub async fn received(answer: Answer) -> Result<Outcome, Error> {
    answer.await.unwrap_or_else(|_| Err(Error::stopping()))
}
