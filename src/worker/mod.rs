//! Who runs jobs: one loop over a source of them.
//!
//! It knows neither the store nor the protocol. Where its jobs come from is the source's affair, what they do is their
//! handler's.

#[cfg(test)]
pub mod fake;
mod handler;
mod local;
mod remote;
mod source;

pub use handler::{Context, Handler, Registry, invalid_input};
pub use local::LocalSource;
pub use remote::{Identity, RemoteSource};
pub use source::{Assignment, Error, JobSource, LeasedJob};

use crate::engine::Order;
use crate::job::limits::RESULT_BYTES_MAX;
use crate::job::{Failure, LeaseToken, reason};
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

/// How long to wait before something that failed on the way to the source is tried again: the first time, and at most.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

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
            stopping: pool.stopping.clone(),
            tasks: pool.tasks.clone(),
        };
        if slots > 0 {
            let draining = pool.draining.clone();
            pool.tasks.spawn(async move {
                tokio::select! {
                    () = worker.lease_forever() => {}
                    () = draining.cancelled() => {}
                }
            });
        }
        pool
    }

    /// Leases no more jobs, waits for those that run, and after `time` gives back what still does.
    pub async fn drain(&self, time: Duration) {
        self.draining.cancel();
        self.source.drain();
        self.tasks.close();
        if tokio::time::timeout(time, self.tasks.wait()).await.is_err() {
            self.stopping.cancel();
            self.tasks.wait().await;
        }
    }
}

/// What the loop and its jobs need.
struct Worker<S> {
    source: Arc<S>,
    registry: Arc<Registry>,
    slots: Arc<Semaphore>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl<S: JobSource> Worker<S> {
    /// Leases a job for each free slot. While one call is under way the slots that become free gather for the next.
    async fn lease_forever(&self) {
        let kinds = self.registry.kinds();
        let mut pause = TRY_AGAIN.0;
        loop {
            let Ok(first) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let mut slots = vec![first];
            while let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                slots.push(slot);
            }
            match self.source.lease(&kinds, slots.len()).await {
                Ok(leased) => {
                    pause = TRY_AGAIN.0;
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
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(TRY_AGAIN.1);
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
        let token = job.token;
        let context = Context::new(job.assignment, token, Arc::clone(&self.source) as Arc<dyn JobSource>);
        let cancelled = context.cancelled();
        let ended = match self.registry.get(&context.assignment.kind) {
            None => Ended::Returned(Err(Failure::new(reason::HANDLER_ERROR, "no handler for this kind"))),
            Some(handler) => self.supervise(handler.as_ref(), &context, job.orders).await,
        };
        match ended {
            Ended::Returned(_) if cancelled.is_cancelled() => {
                self.record(&token, || self.source.fail(&token, None)).await.ok();
            }
            Ended::Returned(Ok(result)) if result.len() > RESULT_BYTES_MAX => {
                let text = format!("the result is {} bytes; the limit is {RESULT_BYTES_MAX}", result.len());
                let failure = Failure::new("RESULT_TOO_LARGE", text).permanent();
                self.record(&token, || self.source.fail(&token, Some(failure.clone()))).await.ok();
            }
            Ended::Returned(Ok(result)) => {
                let recorded = self.record(&token, || self.source.complete(&token, result.clone())).await;
                let failure = match recorded {
                    Err(Error::Refused(why)) => Some(Failure::new(reason::INVALID_RESULT, why).permanent()),
                    // The order was still on its way.
                    Err(Error::Cancelled(_)) => None,
                    Ok(()) | Err(Error::Transient(_) | Error::Lost(_) | Error::OutputLimit(_)) => return,
                };
                self.record(&token, || self.source.fail(&token, failure.clone())).await.ok();
            }
            Ended::Returned(Err(failure)) => {
                self.record(&token, || self.source.fail(&token, Some(failure.clone()))).await.ok();
            }
            Ended::Interrupted => {
                self.record(&token, || self.source.interrupt(&token)).await.ok();
            }
            Ended::Lost => {}
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

    /// Records the end of an attempt, again and again while it is not known to be recorded.
    async fn record<F: Future<Output = Result<(), Error>>>(
        &self,
        token: &LeaseToken,
        report: impl Fn() -> F,
    ) -> Result<(), Error> {
        let mut pause = TRY_AGAIN.0;
        loop {
            match report().await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Transient(_)) if !self.stopping.is_cancelled() => {
                    tracing::warn!(%error, job = %token.job, "the end of an attempt is recorded again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(TRY_AGAIN.1);
                }
                Err(error) => {
                    tracing::info!(%error, job = %token.job, "the end of an attempt was not recorded");
                    return Err(error);
                }
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
