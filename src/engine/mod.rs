//! What happens to jobs: the handle that the edges and the workers call. The only writer.
//!
//! It does not know which store it has, what its callers speak, or who its workers are.

mod bell;
mod changes;
mod claims;
mod clients;
mod commit;
mod dispatch;
mod emission;
mod error;
mod figures;
mod hub;
mod leases;
mod observe;
mod output;
mod proof;
mod publish;
mod queue;
mod resume;
mod sent;
mod stopping;
mod sweep;
mod threads;
mod watch;
mod watch_jobs;
mod work;
mod workers;

pub use crate::store::{Count, EventLimit, Listed, Page, Parts};
pub use claims::{Leased, Place, Worker};
pub use clients::Started;
pub use emission::{Emission, Frame};
pub use error::Error;
pub use figures::Figures;
pub use hub::{Form, Shared as SharedEvent, SharedBody};
pub use leases::{Directive, Order};
pub use observe::{Batch, Observe, Observers};
pub use sent::{Durable, SentCheckpoint};
pub use stopping::{StopListener, Stopping};
pub use threads::Threads;
pub use watch::{Message, Watch, WatchOptions};
pub use watch_jobs::{JobsMessage, WatchJobs, WatchJobsOptions};
pub use work::Report;
pub use workers::{Present, WORKERS_MAX, Workers};

use crate::clock::Clock;
use crate::job::{Terms, Timestamp};
use crate::store::Store;
use changes::Changes;
use commit::Committer;
use dispatch::Dispatch;
use hub::Hub;
use leases::Leases;
use parking_lot::Mutex;
use publish::Publisher;
use queue::Queues;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stopping::Stop;
use sweep::Sweeper;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use workers::Roll;

/// What is set for an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a lease lasts without a sign of its holder.
    pub lease_duration: Duration,
    /// How often a worker elsewhere is to give a sign; a third of the lease, where nothing is said.
    pub heartbeat_interval: Option<Duration>,
    /// How soon a claim must be accepted.
    pub accept_timeout: Duration,
    /// How long a worker may take to let go of a cancelled job, where the client does not say.
    pub cancel_grace: Duration,
    /// What is put in place of what a wish leaves open.
    pub terms: Terms,
    /// How long an attempt of a kind may be silent, where a wish does not say.
    pub progress_timeouts: HashMap<String, Duration>,
    /// Who is told what becomes durable.
    pub observers: Observers,
    /// Where that is done which would hold others up.
    pub threads: Threads,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(30),
            heartbeat_interval: None,
            accept_timeout: Duration::from_secs(10),
            cancel_grace: Duration::from_secs(10),
            terms: Terms::default(),
            progress_timeouts: HashMap::new(),
            observers: Observers::default(),
            threads: Threads::default(),
        }
    }
}

/// The terms of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// How often a worker is to give a sign.
    pub heartbeat_interval: Duration,
    /// How long a lease lasts without one.
    pub lease_duration: Duration,
    /// How soon a claim must be accepted.
    pub accept_timeout: Duration,
}

/// Where chance comes from: each call gives another 64 random bits.
pub type Chance = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How many jobs are taken up again at a time: what they have left may lie anywhere in their histories.
const RETRIES_MAX: usize = 8;

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
    changes: Arc<Changes>,
    queues: Queues,
    leases: Leases,
    dispatch: Dispatch<claims::Taker>,
    sweeper: Sweeper,
    /// Jobs are to be forgotten.
    pruner: Sweeper,
    /// Leases may be in the store that this process does not know.
    adopt: Notify,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What has the store open beside the tasks: reads on threads that may block, and leases that are given back.
    errands: TaskTracker,
    /// Each reads what its job has left, and holds that until it is committed.
    retries: Semaphore,
    /// Where they run, for those that the commit thread sends.
    runtime: Handle,
    stop: Arc<Stop>,
    roll: Roll,
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
            leases: Leases::new(settings.lease_duration, settings.accept_timeout),
            settings,
            chance,
            runtime: Handle::current(),
            stop: Arc::default(),
            roll: Roll::default(),
            committer: OnceLock::new(),
            hub: Arc::default(),
            changes: Arc::default(),
            queues: Queues::default(),
            dispatch: Dispatch::default(),
            sweeper: Sweeper::default(),
            pruner: Sweeper::default(),
            adopt: Notify::new(),
            tasks: Mutex::default(),
            errands: TaskTracker::new(),
            retries: Semaphore::new(RETRIES_MAX),
        });
        let threads = &shared.settings.threads;
        let committer = Committer::start(store, clock, threads, Publisher(Arc::clone(&shared)))
            .map_err(|error| Error::Unavailable(format!("no thread for commits: {error}")))?;
        shared.committer.get_or_init(|| Arc::new(committer));
        let engine = Self(Arc::clone(&shared));
        sweep::adopt(&shared).await?;
        *shared.tasks.lock() = vec![
            tokio::spawn(sweep::sweep(Arc::clone(&shared))),
            tokio::spawn(sweep::prune(Arc::clone(&shared))),
            tokio::spawn(sweep::keep_leases(Arc::clone(&shared))),
            tokio::spawn(sweep::each_second(Arc::clone(&shared))),
            tokio::spawn(sweep::adopt_again(engine.clone())),
        ];
        Ok(engine)
    }

    /// Gives out no more work to workers elsewhere, and tells them that their streams last this long at least.
    pub fn drain(&self, time: Duration) {
        self.0.stop.drain(time);
        // Each hears of it in its turn, and is not to be given a job meanwhile.
        self.0.dispatch.turn_away();
    }

    /// Tells whether the server is about to stop.
    pub fn stopping(&self) -> StopListener {
        self.0.stop.listen()
    }

    /// Waits until no worker elsewhere has a stream or a call for work.
    pub async fn workers_gone(&self) {
        self.0.stop.left().await;
    }

    /// Sends watchers and workers away with [`Error::Unavailable`]. Other calls go on to be served.
    pub fn close_streams(&self) {
        self.0.stop.close();
        self.0.hub.close();
        self.0.changes.close();
    }

    /// Commits what waits, and stops. Every call after that is [`Error::Unavailable`], and whoever drops the last handle
    /// closes the store.
    pub async fn close(&self) {
        self.close_streams();
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            task.abort();
            // Until it is gone it has the store open.
            let _ = task.await;
        }
        self.0.committer().stop().await;
        self.0.errands.close();
        self.0.errands.wait().await;
    }

    /// What is put in place of what a wish for a job of `kind` leaves open.
    pub fn terms(&self, kind: &str) -> Terms {
        let settings = &self.0.settings;
        Terms { progress_timeout: settings.progress_timeouts.get(kind).copied(), ..settings.terms }
    }

    /// The terms of leases that last as long without a sign as `asked`, or as the server's own.
    pub fn lease_terms(&self, asked: Option<Duration>) -> LeaseTerms {
        let settings = &self.0.settings;
        let lease_duration = asked.unwrap_or(settings.lease_duration);
        let third = lease_duration / 3;
        LeaseTerms {
            heartbeat_interval: settings.heartbeat_interval.map_or(third, |interval| interval.min(third)),
            lease_duration,
            accept_timeout: settings.accept_timeout,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Another 64 random bits, from where the engine has its own.
    pub fn chance(&self) -> u64 {
        self.0.chance()
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Does what may take long on a thread that may block. Once it has begun it comes to its end, whether anybody waits for it or
    /// not, and before [`close`](Engine::close) does.
    pub async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let engine = self.clone();
        self.0.aside(move || work(&engine)).await
    }

    /// Reads what may be long likewise.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, crate::store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.aside(move |engine| read(engine.0.store.as_ref())).await??)
    }
}

impl Shared {
    fn committer(&self) -> &Arc<Committer> {
        self.committer.get().expect("it is set before anybody has a handle")
    }

    /// Does what may take long where it holds nobody up. See [`Engine::aside`].
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        match self.settings.threads {
            Threads::Own => {
                let done = self.errands.spawn_blocking(work).await;
                done.map_err(|error| Error::Unavailable(error.to_string()))
            }
            Threads::None(_) => {
                tokio::task::yield_now().await;
                Ok(work())
            }
        }
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
