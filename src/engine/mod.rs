//! What happens to jobs: the handle that the edges and the workers call. The only writer.
//!
//! It does not know which store it has, what its callers speak, or who its workers are.

mod changes;
mod clients;
mod commit;
mod dispatch;
mod error;
mod hub;
mod leases;
mod output;
mod publish;
mod queue;
mod sweep;
mod watch;
mod watch_jobs;
mod work;

pub use crate::store::{Count, EventLimit, Listed, Page, Parts};
pub use clients::Started;
pub use error::Error;
pub use hub::{Shared as SharedEvent, SharedBody};
pub use leases::Order;
pub use watch::{Message, Watch, WatchOptions};
pub use watch_jobs::{JobsMessage, WatchJobs, WatchJobsOptions};
pub use work::{Leased, Worker};

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
use sweep::Sweeper;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

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
    changes: Arc<Changes>,
    queues: Queues,
    leases: Leases,
    dispatch: Dispatch,
    sweeper: Sweeper,
    /// Jobs are to be forgotten.
    pruner: Sweeper,
    /// Leases may be in the store that this process does not know.
    adopt: Notify,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What has the store open beside the tasks: reads on threads that may block, and leases that are given back.
    errands: TaskTracker,
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
            changes: Arc::default(),
            queues: Queues::default(),
            leases: Leases::default(),
            dispatch: Dispatch::default(),
            sweeper: Sweeper::default(),
            pruner: Sweeper::default(),
            adopt: Notify::new(),
            tasks: Mutex::default(),
            errands: TaskTracker::new(),
        });
        let committer = Committer::start(store, clock, Publisher(Arc::clone(&shared)))
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

    /// Sends watchers away with [`Error::Unavailable`]. Other calls go on to be served.
    pub fn close_watches(&self) {
        self.0.hub.close();
        self.0.changes.close();
    }

    /// Commits what waits, and stops. Every call after that is [`Error::Unavailable`], and whoever drops the last handle
    /// closes the store.
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
        self.0.errands.close();
        self.0.errands.wait().await;
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

    /// Reads what may be long on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, crate::store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.0.store);
        let read = self.0.errands.spawn_blocking(move || read(store.as_ref())).await;
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
