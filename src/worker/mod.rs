//! Who runs jobs: one loop over a source of them.
//!
//! It knows neither the store nor the protocol. Where its jobs come from is the source's affair, what they do is their
//! handler's.

mod backoff;
#[cfg(test)]
pub mod fake;
mod form;
mod gate;
mod handler;
mod local;
mod remote;
mod source;

pub use gate::Gate;
pub use handler::{Context, Handler, Registry, invalid_input, parse_json};
pub use local::LocalSource;
pub use remote::{Channel, Identity, RemoteSource};
pub use source::{Assignment, Error, JobSource, LeasedJob};

use crate::engine::Order;
use crate::job::{Failure, LeaseToken, reason};
use backoff::Backoff;
use bytes::Bytes;
use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long what is still to be said may take once the process is about to stop: a source that is away is not waited for,
/// since its leases end by themselves.
const PARTING_TIME: Duration = Duration::from_secs(3);

/// A number of slots that run the jobs of one source, each in a task of its own.
#[derive(Debug)]
pub struct Pool<S> {
    source: Arc<S>,
    /// No more jobs are leased.
    draining: CancellationToken,
    /// The process is about to stop: what still runs is interrupted.
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl<S: JobSource> Pool<S> {
    /// Runs jobs of the registry's kinds in so many slots, at once, in the current tokio runtime.
    pub fn start(source: S, registry: Registry, slots: usize) -> Self {
        Self::start_behind(Gate::default(), source, registry, slots)
    }

    /// The same, and leases nothing while the gate is closed.
    pub fn start_behind(gate: Gate, source: S, registry: Registry, slots: usize) -> Self {
        let pool = Self {
            source: Arc::new(source),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let worker = Worker {
            source: Arc::clone(&pool.source),
            registry: Arc::new(registry),
            slots: Arc::new(Semaphore::new(slots)),
            gate,
            stopping: pool.stopping.clone(),
            tasks: pool.tasks.clone(),
        };
        if slots > 0 {
            let draining = pool.draining.clone();
            pool.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = draining.cancelled() => {}
                    () = worker.lease_forever() => {}
                }
            });
        }
        pool
    }

    /// Leases no more jobs, waits for those that run, and after `time` gives back what still does. Ends a few seconds after
    /// that, whatever becomes of it.
    pub async fn drain(&self, time: Duration) {
        self.draining.cancel();
        self.tasks.close();
        let mut ended = pin!(async { tokio::join!(self.tasks.wait(), self.source.drain()) });
        if tokio::time::timeout(time, ended.as_mut()).await.is_err() {
            self.stopping.cancel();
            // Each job has an end of its own to that, but for a handler that blocks its thread.
            if tokio::time::timeout(2 * PARTING_TIME, ended).await.is_err() {
                tracing::warn!("a handler does not stop; it is not waited for");
            }
        }
    }
}

/// What the loop and its jobs need.
struct Worker<S> {
    source: Arc<S>,
    registry: Arc<Registry>,
    slots: Arc<Semaphore>,
    gate: Gate,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl<S: JobSource> Worker<S> {
    /// Leases a job for each free slot. While one call is under way the slots that become free gather for the next.
    async fn lease_forever(&self) {
        let kinds = self.registry.kinds();
        let mut backoff = Backoff::default();
        loop {
            self.gate.opened().await;
            let Ok(first) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let mut slots = vec![first];
            while let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                slots.push(slot);
            }
            let leased = tokio::select! {
                biased;
                () = self.gate.closed() => {
                    self.source.rest().await;
                    continue;
                }
                leased = self.source.lease(&kinds, slots.len()) => leased,
            };
            match leased {
                Ok(leased) => {
                    backoff = Backoff::default();
                    for (job, slot) in leased.into_iter().zip(slots) {
                        let running = Running {
                            source: Arc::clone(&self.source),
                            registry: Arc::clone(&self.registry),
                            stopping: self.stopping.clone(),
                        };
                        self.tasks.spawn(async move {
                            running.run(job).await;
                            drop(slot);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no jobs can be leased; trying again");
                    backoff.pause(self.source.chance()).await;
                }
            }
        }
    }
}

/// What one job needs while it runs.
struct Running<S> {
    source: Arc<S>,
    registry: Arc<Registry>,
    stopping: CancellationToken,
}

/// How a handler came to its end.
enum Ended {
    /// By itself.
    Returned(Result<Bytes, Failure>),
    /// Its lease is lost, so nothing it does counts any more.
    Lost,
    /// The process is about to stop.
    Interrupted,
}

impl<S: JobSource> Running<S> {
    async fn run(&self, job: LeasedJob) {
        // The orders are held to the end: by them the source knows that somebody works under the lease.
        let LeasedJob { assignment, token, orders } = job;
        let context = Context::new(assignment, token, Arc::clone(&self.source) as Arc<dyn JobSource>);
        let cancelled = context.cancelled();
        let ended = match self.registry.get(&context.assignment.kind) {
            None => Ended::Returned(Err(Failure::new(reason::HANDLER_ERROR, "no handler for this kind"))),
            Some(handler) => self.supervise(handler.as_ref(), &context, orders.clone()).await,
        };
        match ended {
            Ended::Returned(_) if cancelled.is_cancelled() => self.fail(&token, None).await,
            Ended::Returned(Ok(result)) => match form::check_result(&result) {
                Ok(()) => self.complete(&token, result).await,
                Err(failure) => self.fail(&token, Some(failure)).await,
            },
            Ended::Returned(Err(failure)) => match context.return_delay() {
                Some(delay) => self.give_back(&token, form::message(failure.message), delay).await,
                None => self.fail(&token, Some(form::failure(failure))).await,
            },
            Ended::Interrupted => {
                self.record(&token, || self.source.interrupt(&token)).await.ok();
            }
            Ended::Lost => {}
        }
    }

    /// Records success, or why it is none.
    async fn complete(&self, token: &LeaseToken, result: Bytes) {
        match self.record(token, || self.source.complete(token, result.clone())).await {
            Err(Error::Refused(why)) => {
                self.fail(token, Some(Failure::new(reason::INVALID_RESULT, why).permanent())).await;
            }
            Err(error @ (Error::OutputLimit(_) | Error::OutputConflict(_))) => {
                self.fail(token, Some(handler::failure_of(error))).await;
            }
            // The order was still on its way.
            Err(Error::Cancelled(_)) => self.fail(token, None).await,
            Ok(()) | Err(Error::Transient(_) | Error::Lost(_)) => {}
        }
    }

    /// Records a failure. Where it is refused, its details are to blame, and it is recorded without them.
    async fn fail(&self, token: &LeaseToken, failure: Option<Failure>) {
        let recorded = self.record(token, || self.source.fail(token, failure.clone())).await;
        if let (Err(Error::Refused(_)), Some(failure)) = (recorded, failure) {
            let bare = Failure { details: None, ..failure };
            self.record(token, || self.source.fail(token, Some(bare.clone()))).await.ok();
        }
    }

    /// Records that the job is given back, not to be leased again before `delay` is over.
    async fn give_back(&self, token: &LeaseToken, why: String, delay: Duration) {
        let released = self.record(token, || self.source.release(token, why.clone(), delay)).await;
        if let Err(Error::Cancelled(_)) = released {
            self.fail(token, None).await;
        }
    }

    /// Runs the handler until it returns or must not go on, and passes the server's orders on to it.
    async fn supervise(
        &self,
        handler: &dyn Handler,
        context: &Context,
        mut orders: watch::Receiver<Order>,
    ) -> Ended {
        let mut handled = pin!(handler.run(context));
        // A panic inside a poll is caught there, so that it ends this job and nothing else.
        let mut handled = pin!(poll_fn(|task| {
            match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(task))) {
                Ok(poll) => poll,
                Err(panic) => Poll::Ready(Err(Failure::new(reason::PANIC, panic_message(panic.as_ref())))),
            }
        }));
        loop {
            let order = *orders.borrow_and_update();
            match order {
                Order::Continue => {}
                Order::Cancel { grace } => context.cancel(grace),
                Order::Lost => return Ended::Lost,
            }
            tokio::select! {
                biased;
                changed = orders.changed() => if changed.is_err() {
                    return Ended::Lost;
                },
                () = self.stopping.cancelled() => return Ended::Interrupted,
                result = handled.as_mut() => return Ended::Returned(result),
            }
        }
    }

    /// Records the end of an attempt, again and again while it is not known to be recorded; not for long, once the process
    /// is about to stop.
    async fn record<F: Future<Output = Result<(), Error>>>(
        &self,
        token: &LeaseToken,
        report: impl Fn() -> F,
    ) -> Result<(), Error> {
        let parted = async {
            self.stopping.cancelled().await;
            tokio::time::sleep(PARTING_TIME).await;
        };
        let recorded = tokio::select! {
            biased;
            recorded = self.recorded(token, report) => recorded,
            () = parted => Err(Error::Transient("the source did not answer".to_owned())),
        };
        recorded.inspect_err(|error| {
            tracing::info!(%error, job = %token.job, "the end of an attempt was not recorded");
        })
    }

    async fn recorded<F: Future<Output = Result<(), Error>>>(
        &self,
        token: &LeaseToken,
        report: impl Fn() -> F,
    ) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        loop {
            match report().await {
                Err(error @ Error::Transient(_)) if !self.stopping.is_cancelled() => {
                    tracing::warn!(%error, job = %token.job, "the end of an attempt is recorded again");
                    backoff.pause(self.source.chance()).await;
                }
                recorded => return recorded,
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests;
