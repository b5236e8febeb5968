//! An engine over a store that can fail, in a time that only the test moves.
//!
//! tokio's time stands still while a wait goes on (see [`within`]), so a slow machine is no reason for a timer to fire.

pub use crate::builders::*;
use crate::hostile::HostileStore;
pub use crate::seen::*;
use longhaul::clock::{Clock, ManualClock};
use longhaul::engine::*;
use longhaul::job::*;
use longhaul::store::{EventLimit, MemoryStore, Parts, Settings as Disk, SqliteStore, Store};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

pub const SECOND: Duration = Duration::from_secs(1);
pub const ALL: EventLimit = EventLimit { events: 20_000, bytes: 1 << 30 };

/// How long anything here may really take; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// How far the time moves at once: as often as the keeper of leases looks.
const STEP: Duration = Duration::from_millis(250);
/// Where the time begins.
const BEGIN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// Which store is behind the engine.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    Memory,
    Sqlite,
}

pub struct Bench {
    pub engine: Engine,
    pub store: Arc<HostileStore>,
    pub clock: Arc<ManualClock>,
    settings: Settings,
    _folder: Option<TempDir>,
}

impl Bench {
    /// With a store in memory.
    pub async fn new() -> Self {
        Self::with(Kept::Memory, Settings::default()).await
    }

    pub async fn on(kept: Kept) -> Self {
        Self::with(kept, Settings::default()).await
    }

    pub async fn with(kept: Kept, settings: Settings) -> Self {
        let (store, folder): (Arc<dyn Store>, _) = match kept {
            Kept::Memory => (Arc::new(MemoryStore::new(1_000_000, Keeper(1))), None),
            Kept::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let disk = Disk { queue_max: 1_000_000, free_bytes_min: 0, readers: 2, keeper: 1 };
                (Arc::new(SqliteStore::open(folder.path(), disk).unwrap()), Some(folder))
            }
        };
        let store = Arc::new(HostileStore::new(store));
        let clock = Arc::new(ManualClock::new(BEGIN));
        let engine = start_up(&store, &clock, &settings).await;
        let bench = Self { engine, store, clock, settings, _folder: folder };
        bench.settle().await;
        bench
    }

    /// Closes the engine and starts another one over the same store.
    pub async fn restart(&mut self) {
        within(self.engine.close()).await;
        self.start_again().await;
    }

    /// Starts another engine over the same store.
    pub async fn start_again(&mut self) {
        self.engine = start_up(&self.store, &self.clock, &self.settings).await;
        self.settle().await;
    }

    /// Does something in a process that dies without a word, then starts again over the same store.
    pub async fn die_after<F: Future<Output = ()>>(
        &mut self,
        act: impl FnOnce(Engine) -> F + Send + 'static,
    ) {
        within(self.engine.close()).await;
        let (store, clock, settings) =
            (Arc::clone(&self.store), Arc::clone(&self.clock), self.settings.clone());
        let process = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async { act(start_up(&store, &clock, &settings).await).await });
        };
        within(tokio::task::spawn_blocking(process)).await.unwrap();
        self.start_again().await;
    }

    /// Lets all that was set off come to its end; the time stands still meanwhile.
    pub async fn settle(&self) {
        // Commits are carried out in their order, so one that does nothing comes after those that are under way.
        let nobody = JobId::new(Timestamp::default(), 0, 0);
        for _ in 0..3 {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let _ = within(self.engine.cancel(nobody, String::new(), None)).await;
        }
    }

    /// Lets time go by, in steps that are no surprise to anybody.
    pub async fn pass(&self, duration: Duration) {
        let mut rest = duration;
        while !rest.is_zero() {
            let step = rest.min(STEP);
            self.clock.advance(step);
            tokio::time::advance(step).await;
            self.settle().await;
            rest -= step;
        }
    }

    /// Starts a job of kind `work`.
    pub async fn start(&self) -> JobId {
        self.start_spec(spec("work")).await
    }

    pub async fn start_with(&self, tune: impl FnOnce(&mut Options)) -> JobId {
        let mut spec = spec("work");
        tune(&mut spec.options);
        self.start_spec(spec).await
    }

    pub async fn start_spec(&self, spec: Spec) -> JobId {
        within(self.engine.start(spec)).await.unwrap().snapshot.job.id
    }

    /// Leases one job for the pool.
    pub async fn lease(&self) -> Leased {
        self.lease_for(&pool()).await
    }

    pub async fn lease_for(&self, worker: &Worker) -> Leased {
        let mut leased = within(lease(&self.engine, worker, 1)).await.unwrap();
        assert_eq!(leased.len(), 1);
        leased.remove(0)
    }

    /// Starts a job and leases it for the pool.
    pub async fn run(&self) -> Leased {
        self.start().await;
        self.lease().await
    }

    pub async fn write(&self, token: &LeaseToken, text: impl Into<bytes::Bytes>) {
        within(self.engine.append_output(token, "", text.into())).await.unwrap();
    }

    pub async fn complete(&self, token: &LeaseToken) -> State {
        within(self.engine.complete(token, "{}".into(), Metrics::new(), None)).await.unwrap()
    }

    pub async fn get(&self, id: JobId) -> Snapshot {
        within(self.engine.get(id, Parts::FULL)).await.unwrap()
    }

    pub async fn state(&self, id: JobId) -> State {
        self.get(id).await.job.state
    }

    pub async fn history(&self, id: JobId) -> Vec<Event> {
        within(self.engine.history(id, 0, ALL)).await.unwrap()
    }

    /// The reasons of the steps in a job's life.
    pub async fn reasons(&self, id: JobId) -> Vec<String> {
        reasons(&self.history(id).await)
    }

    pub async fn watch(&self, id: JobId, after: Option<Sequence>) -> Watch {
        self.watch_with(id, WatchOptions { after, ..options() }).await
    }

    pub async fn watch_with(&self, id: JobId, options: WatchOptions) -> Watch {
        let mut watch = within(self.engine.watch(id, options)).await.unwrap();
        let first = within(watch.next()).await;
        assert!(matches!(first, Some(Ok(Message::Snapshot { .. }))), "{first:?}");
        watch
    }
}

async fn start_up(store: &Arc<HostileStore>, clock: &Arc<ManualClock>, settings: &Settings) -> Engine {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    within(Engine::start_up(store, clock, settings.clone(), chance(7))).await.unwrap()
}

/// Random numbers that are the same each time: Weyl's sequence, multiplied.
pub fn chance(seed: u64) -> Chance {
    let state = AtomicU64::new(seed);
    Arc::new(move || {
        let n = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        (n ^ (n >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    })
}

/// Waits while tokio's time stands still, and not for ever: time goes on by itself only where no blocking task runs.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    let (_alive, ended) = std::sync::mpsc::channel::<()>();
    let watchdog = tokio::task::spawn_blocking(move || ended.recv_timeout(PATIENCE));
    tokio::select! {
        biased;
        value = future => value,
        _ = watchdog => panic!("nothing has come for {PATIENCE:?}"),
    }
}

/// What is there without waiting.
pub async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::ZERO, future).await.ok()
}

/// Leases up to `count` jobs for somebody who will not ask again, and waits until there is one. What more had been claimed for
/// them is given back.
pub async fn lease(engine: &Engine, worker: &Worker, count: usize) -> Result<Vec<Leased>, Error> {
    engine.enlist(worker).lease(count).await
}
