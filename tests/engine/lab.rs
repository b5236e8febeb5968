//! An engine, its store and its clock, with short ways to ask for things.

use crate::hostile::Hostile;
use longhaul::clock::ManualClock;
use longhaul::engine::*;
use longhaul::job::*;
use longhaul::store::MemoryStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Far more than anything here takes, and less than the engine takes to heal a lost hint: what is seen within it was told.
pub const PROMPT: Duration = Duration::from_secs(4);
/// Short enough that it passes in one go, without this process seeming to have been stopped.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);
pub const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

pub struct Lab {
    pub engine: Engine,
    pub clock: Arc<ManualClock>,
    pub store: Arc<Hostile>,
}

impl Lab {
    pub async fn new() -> Self {
        let store = Hostile::new(MemoryStore::new(1_000, Keeper(7)));
        Self::over(store, Arc::new(ManualClock::new(START))).await
    }

    async fn over(store: Hostile, clock: Arc<ManualClock>) -> Self {
        let store = Arc::new(store);
        let drawn = AtomicU64::new(1);
        let chance = move || drawn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let settings = Settings { accept_timeout: ACCEPT_TIMEOUT, ..Default::default() };
        let engine =
            Engine::start_up(store.clone(), clock.clone(), settings, Arc::new(chance)).await.unwrap();
        Self { engine, clock, store }
    }

    /// The process is gone without a word, and another one has taken over its store.
    pub async fn crash(self) -> Self {
        let store = self.store.reopened();
        self.engine.close().await;
        Self::over(store, self.clock).await
    }

    pub async fn start(&self, spec: Spec) -> JobId {
        within(self.engine.start(spec)).await.unwrap().snapshot.job.id
    }

    /// Leases one job of kind `work` for a slot of this process; its attempt has begun.
    pub async fn run(&self) -> Leased {
        within(self.engine.lease(&worker(true), 1)).await.unwrap().remove(0)
    }

    /// Starts a job and lets its attempt begin.
    pub async fn start_and_run(&self, spec: Spec) -> Leased {
        self.start(spec).await;
        self.run().await
    }

    /// Lets time pass, and the engine look at its leases. Several such looks without one in between would seem to it as if its
    /// process had been stopped.
    pub async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.engine.get(id, Parts::BASIC).await.unwrap().job
    }

    pub async fn history(&self, id: JobId) -> Vec<Event> {
        let all = EventLimit { events: 100_000, bytes: 1 << 30 };
        self.engine.history(id, 0, all).await.unwrap()
    }

    pub async fn watch(&self, id: JobId, after: impl Into<Option<Sequence>>) -> Watch {
        let options = WatchOptions {
            after: after.into(),
            minimum_interval: Duration::ZERO,
            omit_output: false,
            parts: Parts::BASIC,
        };
        self.engine.watch(id, options).await.unwrap()
    }

    /// Waits, as a watcher does, until the job is in this state.
    pub async fn reach(&self, id: JobId, state: State) -> Job {
        let mut watch = self.watch(id, 0).await;
        within(async {
            loop {
                let job = self.job(id).await;
                if job.state == state {
                    return job;
                }
                watch.next().await.expect("it has ended otherwise").unwrap();
            }
        })
        .await
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PROMPT, future).await.expect("it takes far too long")
}

/// A job of kind `work` with some options.
pub fn spec(tune: impl FnOnce(&mut Options)) -> Spec {
    let wish = Wish { kind: "work".into(), input: "{}".into(), ..Default::default() };
    let mut spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).unwrap();
    tune(&mut spec.options);
    spec
}

pub fn plain() -> Spec {
    spec(|_| {})
}

pub fn worker(in_process: bool) -> Worker {
    Worker { name: "worker".into(), kinds: ["work".to_owned()].into(), in_process }
}

/// The states that a history went through, with the reason of each.
pub fn steps(history: &[Event]) -> Vec<(State, String)> {
    let step = |event: &Event| match &event.body {
        Body::StateChanged(change) => Some((change.state, change.reason.to_string())),
        _ => None,
    };
    history.iter().filter_map(step).collect()
}

/// The kept event that a message tells, if it does.
pub fn kept(message: &Message) -> Option<(Sequence, Body)> {
    match message {
        Message::Shared(shared) => match &shared.body {
            SharedBody::Kept(body) => Some((shared.sequence, body.clone())),
            SharedBody::Progress(_) | SharedBody::Metrics(_) => None,
        },
        Message::Snapshot { .. } | Message::Keepalive { .. } => None,
    }
}

/// All messages of a watch, which must end well.
pub async fn to_the_end(mut watch: Watch) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = within(watch.next()).await {
        messages.push(message.unwrap());
    }
    messages
}
