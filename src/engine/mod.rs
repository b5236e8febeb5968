//! What happens to jobs: the handle that the edges and the workers call. The only writer.
//!
//! It does not know which store it has, what its callers speak, or who its workers are.

mod commit;
mod dispatch;
mod error;
mod hub;
mod leases;
mod output;
mod publish;
mod sweep;
mod watch;
mod work;

pub use crate::store::{EventLimit, Parts};
pub use error::Error;
pub use hub::{Shared as SharedEvent, SharedBody};
pub use leases::Order;
pub use watch::{Message, Watch, WatchOptions};
pub use work::{Leased, Worker};

use crate::clock::Clock;
use crate::job::{Command, Event, JobId, Place, Sequence, Snapshot, Spec, Terms, Timestamp};
use crate::store::{Operation, Outcome, Store, Submission, Submitted};
use commit::Committer;
use dispatch::Dispatch;
use hub::Hub;
use leases::Leases;
use parking_lot::Mutex;
use publish::Publisher;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use sweep::Sweeper;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What is set for an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a lease lasts without a sign of its holder.
    pub lease_duration: Duration,
    /// How soon a claim must be accepted.
    pub accept_timeout: Duration,
    /// How long a worker may take to let go of a cancelled job, where the client does not say.
    pub cancel_grace: Duration,
    /// What is put in place of what a wish leaves open.
    pub terms: Terms,
    /// How long an attempt of a kind may be silent, where a wish does not say.
    pub progress_timeouts: HashMap<String, Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(30),
            accept_timeout: Duration::from_secs(10),
            cancel_grace: Duration::from_secs(10),
            terms: Terms::default(),
            progress_timeouts: HashMap::new(),
        }
    }
}

/// Where chance comes from: each call gives another 64 random bits.
pub type Chance = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The engine's handle; a copy costs a reference count.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// What the handles and the tasks of one engine share.
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    chance: Chance,
    committer: OnceLock<Arc<Committer>>,
    hub: Arc<Hub>,
    leases: Leases,
    dispatch: Dispatch,
    sweeper: Sweeper,
    /// Leases may be in the store that this process does not know.
    adopt: Notify,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A job that was started.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The job, without its input.
    pub snapshot: Snapshot,
    /// The same request had made it before.
    pub repeated: bool,
}

impl Engine {
    /// Starts the engine over a store: takes over what an earlier process has left there, then sees to what is due.
    ///
    /// Must be called in a tokio runtime, where its tasks go on until [`close`](Engine::close).
    pub async fn start_up(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        chance: Chance,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            settings,
            chance,
            committer: OnceLock::new(),
            hub: Arc::default(),
            leases: Leases::default(),
            dispatch: Dispatch::default(),
            sweeper: Sweeper::default(),
            adopt: Notify::new(),
            tasks: Mutex::default(),
        });
        let committer = Committer::start(store, clock, Publisher(Arc::clone(&shared)))
            .map_err(|error| Error::Unavailable(format!("no thread for commits: {error}")))?;
        shared.committer.get_or_init(|| Arc::new(committer));
        let engine = Self(Arc::clone(&shared));
        sweep::adopt(&shared).await?;
        *shared.tasks.lock() = vec![
            tokio::spawn(sweep::sweep(Arc::clone(&shared))),
            tokio::spawn(sweep::keep_leases(Arc::clone(&shared))),
            tokio::spawn(sweep::each_second(Arc::clone(&shared))),
            tokio::spawn(sweep::adopt_again(engine.clone())),
        ];
        Ok(engine)
    }

    /// Sends watchers away with [`Error::Unavailable`]. Other calls go on to be served.
    pub fn close_watches(&self) {
        self.0.hub.close();
    }

    /// Commits what waits, and stops. Every call after that is [`Error::Unavailable`].
    pub async fn close(&self) {
        self.close_watches();
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            task.abort();
            // Until it is gone it has the store open.
            let _ = task.await;
        }
        let committer = Arc::clone(self.0.committer());
        // A panic there has been reported by its own thread.
        let _ = tokio::task::spawn_blocking(move || committer.stop()).await;
    }

    /// Creates a job, or finds the one that its request id has already made. It is durable when this returns.
    pub async fn start(&self, spec: Spec) -> Result<Started, Error> {
        let spec = Arc::new(spec);
        let submission = Submission { spec: Arc::clone(&spec), chance: self.0.chance() };
        let Outcome::Submit(outcome) = self.0.committer().commit(Operation::Submit(vec![submission])).await?
        else {
            unreachable!("an outcome is of its operation's kind")
        };
        match outcome?.pop() {
            Some(Submitted::Created(job)) => {
                let snapshot = Snapshot {
                    job: *job,
                    labels: spec.labels.clone(),
                    request_id: spec.request.as_ref().map(|request| request.id.clone()),
                    retry_of: spec.retry_of,
                    input: None,
                    result: None,
                    live: Default::default(),
                };
                Ok(Started { snapshot, repeated: false })
            }
            Some(Submitted::Repeated(id)) => {
                Ok(Started { snapshot: self.get(id, Parts::BASIC).await?, repeated: true })
            }
            None => unreachable!("there is one outcome for each submission"),
        }
    }

    /// Asks that a job stop, within `grace` or the server's own period. Repeating it, or asking after the end, changes
    /// nothing and is no error.
    pub async fn cancel(
        &self,
        id: JobId,
        reason: String,
        grace: Option<Duration>,
    ) -> Result<Snapshot, Error> {
        let grace = grace.unwrap_or(self.0.settings.cancel_grace);
        let command = Command::Cancel { reason, grace };
        let Outcome::Apply(outcome) =
            self.0.committer().commit(Operation::Apply(id, Box::new(command))).await?
        else {
            unreachable!("an outcome is of its operation's kind")
        };
        outcome?;
        self.get(id, Parts::BASIC).await
    }

    /// Returns a job as it is now.
    ///
    /// Reads on the caller's own thread: a row of a database in memory is nearer than another thread is.
    pub async fn get(&self, id: JobId, parts: Parts) -> Result<Snapshot, Error> {
        let mut snapshot = self.0.store.get(&[id], parts)?.pop().flatten().ok_or(Error::NotFound)?;
        self.add_live(&mut snapshot);
        Ok(snapshot)
    }

    /// Returns up to `limit` jobs of a tenant, newest first, from the one accepted just before `before` on.
    pub async fn list(
        &self,
        tenant: &str,
        before: Option<JobId>,
        limit: usize,
        parts: Parts,
    ) -> Result<Vec<Snapshot>, Error> {
        let tenant = tenant.to_owned();
        let mut snapshots = self.read(move |store| store.list(&tenant, before, limit, parts)).await?;
        for snapshot in &mut snapshots {
            self.add_live(snapshot);
        }
        Ok(snapshots)
    }

    /// Returns a job's kept events after a sequence, oldest first; empty where there are no more.
    pub async fn history(&self, id: JobId, after: Sequence, limit: EventLimit) -> Result<Vec<Event>, Error> {
        let mut histories = self.read(move |store| store.events(&[(id, after)], limit)).await?;
        let history = histories.pop().unwrap_or_default();
        if history.is_empty() {
            // No more events, or no such job any more?
            self.get(id, Parts::BASIC).await?;
        }
        Ok(history)
    }

    /// Watches a job from a cursor on.
    pub async fn watch(&self, id: JobId, options: WatchOptions) -> Result<Watch, Error> {
        Watch::open(self, id, options).await
    }

    /// What is put in place of what a wish for a job of `kind` leaves open.
    pub fn terms(&self, kind: &str) -> Terms {
        let settings = &self.0.settings;
        Terms { progress_timeout: settings.progress_timeouts.get(kind).copied(), ..settings.terms }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// A running attempt's latest-wins part is newer in memory than in the store.
    fn add_live(&self, snapshot: &mut Snapshot) {
        if snapshot.job.place() == Place::Held
            && let Some(live) = self.0.leases.live_of(&snapshot.job)
        {
            snapshot.live = live;
        }
    }

    /// Reads what may be long on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, crate::store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.0.store);
        let read = tokio::task::spawn_blocking(move || read(store.as_ref())).await;
        Ok(read.map_err(|error| Error::Unavailable(error.to_string()))??)
    }
}

impl Shared {
    fn committer(&self) -> &Arc<Committer> {
        self.committer.get().expect("it is set before anybody has a handle")
    }

    fn chance(&self) -> u64 {
        (self.chance)()
    }

    /// From 0 to 1.
    fn jitter(&self) -> f64 {
        (self.chance() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").finish_non_exhaustive()
    }
}
