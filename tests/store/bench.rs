//! A store under test, with a clock that is moved by hand and short ways to ask for things.

use crate::builders::{apply, wish};
use bytes::Bytes;
use longhaul::job::*;
use longhaul::store::*;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// How many jobs may wait in every store here.
pub const QUEUE_MAX: u64 = 60;
/// The name under which every store here keeps leases.
pub const KEEPER: Keeper = Keeper(7);
/// When every case begins.
pub const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// How large a history is read at once where a case does not say.
pub const WHOLE: EventLimit = EventLimit { events: 100_000, bytes: 1 << 30 };

/// Opens a store, and opens the same one again once it is closed.
pub trait Fixture {
    /// Opens it.
    fn open(&mut self) -> Arc<dyn Store>;
}

/// A store in memory; opened again, it is a copy of itself.
#[derive(Default)]
pub struct MemoryFixture(Option<Arc<MemoryStore>>);

impl Fixture for MemoryFixture {
    fn open(&mut self) -> Arc<dyn Store> {
        let store = match &self.0 {
            Some(store) => store.reopened(),
            None => MemoryStore::new(QUEUE_MAX, KEEPER),
        };
        Arc::clone(self.0.insert(Arc::new(store))) as Arc<dyn Store>
    }
}

/// A store in a folder of its own.
pub struct SqliteFixture(TempDir);

impl Default for SqliteFixture {
    fn default() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }
}

impl Fixture for SqliteFixture {
    fn open(&mut self) -> Arc<dyn Store> {
        let settings = Settings { queue_max: QUEUE_MAX, free_bytes_min: 0, readers: 2, keeper: KEEPER.0 };
        Arc::new(SqliteStore::open(self.0.path(), settings).expect("the store opens"))
    }
}

/// A store under test.
pub struct Bench {
    // Dropped before the folder that it may lie in.
    store: Option<Arc<dyn Store>>,
    fixture: Box<dyn Fixture>,
    /// What time it is.
    pub now: Timestamp,
    drawn: u64,
}

impl Bench {
    pub fn new(fixture: impl Fixture + 'static) -> Self {
        let mut fixture = Box::new(fixture);
        Self { store: Some(fixture.open()), fixture, now: START, drawn: 0 }
    }

    pub fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("it is open between two calls")
    }

    /// The store itself, for a wrapper or a thread of its own. Must be given back before the next [`Bench::reopen`].
    pub fn share(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().expect("it is open between two calls"))
    }

    /// Closes the store and opens it again.
    pub fn reopen(&mut self) {
        self.store = None;
        self.store = Some(self.fixture.open());
    }

    /// Lets time pass.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// A number that was not drawn before.
    pub fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    pub fn commit(&self, batch: Vec<Operation>) -> Vec<Outcome> {
        let count = batch.len();
        let outcomes = self.store().commit(batch, self.now).expect("the store is available");
        assert_eq!(outcomes.len(), count, "one outcome for each operation");
        outcomes
    }

    fn commit_one(&self, operation: Operation) -> Outcome {
        self.commit(vec![operation]).remove(0)
    }

    pub fn submission(&mut self, specs: impl IntoIterator<Item = Spec>) -> Operation {
        let submissions =
            specs.into_iter().map(|spec| Submission { spec: Arc::new(spec), chance: self.draw() });
        Operation::Submit(submissions.collect())
    }

    pub fn submit(&mut self, specs: impl IntoIterator<Item = Spec>) -> Result<Vec<Submitted>, Rejection> {
        let operation = self.submission(specs);
        match self.commit_one(operation) {
            Outcome::Submit(outcome) => outcome,
            other => panic!("not the outcome of a submission: {other:?}"),
        }
    }

    /// Submits one job, which must be new.
    pub fn start(&mut self, spec: Spec) -> Job {
        match self.submit([spec]).expect("it is accepted").remove(0) {
            Submitted::Created(job) => *job,
            Submitted::Repeated(id) => panic!("it repeats {id}"),
        }
    }

    pub fn wish(&mut self, kinds: &[&str], count: usize, in_process: bool) -> Operation {
        let secrets: Vec<u64> = (0..count).map(|_| self.draw()).collect();
        Operation::Claim(wish(kinds, secrets, in_process))
    }

    /// Leases up to `count` jobs whose attempts then begin when their worker accepts.
    pub fn claim(&mut self, kinds: &[&str], count: usize) -> Vec<Claimed> {
        let operation = self.wish(kinds, count, false);
        claimed(self.commit_one(operation))
    }

    /// Leases up to `count` jobs whose attempts begin at once.
    pub fn run(&mut self, kinds: &[&str], count: usize) -> Vec<Claimed> {
        let operation = self.wish(kinds, count, true);
        claimed(self.commit_one(operation))
    }

    /// Starts a job of a kind of its own and lets an attempt begin.
    pub fn start_and_run(&mut self, spec: Spec) -> LeaseToken {
        let job = self.start(spec);
        if job.options.concurrency.is_some() {
            self.sweep();
        }
        let claimed = self.run(&[&job.kind], 1);
        assert_eq!(claimed.iter().map(|claimed| claimed.token.job).collect::<Vec<_>>(), [job.id]);
        claimed[0].token
    }

    pub fn apply(&self, id: JobId, command: Command) -> Result<Transition, Rejection> {
        match self.commit_one(apply(id, command)) {
            Outcome::Apply(outcome) => outcome.map(|step| *step),
            other => panic!("not the outcome of a command: {other:?}"),
        }
    }

    /// Applies a command that must be taken.
    pub fn step(&self, id: JobId, command: Command) -> Transition {
        let shown = format!("{command:?}");
        self.apply(id, command).unwrap_or_else(|rejection| panic!("{shown}: {rejection}"))
    }

    pub fn sweep(&mut self) -> Swept {
        self.sweep_some(1000)
    }

    pub fn sweep_some(&mut self, limit: usize) -> Swept {
        let chance = self.draw();
        match self.commit_one(Operation::Sweep { limit, chance }) {
            Outcome::Sweep(swept) => swept,
            other => panic!("not the outcome of a sweep: {other:?}"),
        }
    }

    pub fn retry(&mut self, job: JobId, request: Option<RequestKey>) -> Result<Submitted, Rejection> {
        self.retry_with(job, request, None)
    }

    /// The same, of a job whose checkpoint keeps this output.
    pub fn retry_with(
        &mut self,
        job: JobId,
        request: Option<RequestKey>,
        output: Option<Bytes>,
    ) -> Result<Submitted, Rejection> {
        let (tenant, chance) = (DEFAULT_TENANT.into(), self.draw());
        let retry = Retry { job, tenant, request, trace: None, output, chance };
        match self.commit_one(Operation::Retry(retry)) {
            Outcome::Retry(outcome) => outcome,
            other => panic!("not the outcome of a retry: {other:?}"),
        }
    }

    pub fn delete(&self, job: JobId) -> Result<Forgotten, Rejection> {
        match self.commit_one(Operation::Delete(job)) {
            Outcome::Delete(outcome) => outcome.map(|forgotten| *forgotten),
            other => panic!("not the outcome of a deletion: {other:?}"),
        }
    }

    pub fn prune(&self, limit: usize) -> Pruned {
        match self.commit_one(Operation::Prune { limit }) {
            Outcome::Prune(pruned) => pruned,
            other => panic!("not the outcome of pruning: {other:?}"),
        }
    }

    /// Forgets all whose time is over.
    pub fn prune_all(&self) {
        let more = |_: &usize| self.prune(10).next_due.is_some_and(|due| due <= self.now);
        let steps = (0..1_000).take_while(more).count();
        assert!(steps < 1_000, "it never ends");
    }

    pub fn keep_live(&self, job: JobId, attempt: u32, live: Live) {
        let outcome = self.commit_one(Operation::KeepLive(vec![LiveUpdate { job, attempt, live }]));
        assert!(matches!(outcome, Outcome::KeepLive));
    }

    /// Everything about a job, which must be kept.
    pub fn snapshot(&self, id: JobId) -> Snapshot {
        let mut found = self.store().get(&[id], Parts::FULL).expect("the store is available");
        found.remove(0).unwrap_or_else(|| panic!("{id} is not kept"))
    }

    pub fn job(&self, id: JobId) -> Job {
        self.snapshot(id).job
    }

    pub fn state(&self, id: JobId) -> State {
        self.job(id).state
    }

    /// The whole history of a job, which must be numbered as the contract says.
    pub fn history(&self, id: JobId) -> Vec<Event> {
        let events = self.store().events(&[(id, 0)], WHOLE).expect("the store is available").remove(0);
        let numbers: Vec<Sequence> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, (1..=self.job(id).sequence()).collect::<Vec<_>>(), "the numbers of the events");
        events
    }

    /// All that can be read of a job.
    pub fn all_of(&self, id: JobId) -> (Snapshot, Vec<Event>) {
        (self.snapshot(id), self.history(id))
    }
}

fn claimed(outcome: Outcome) -> Vec<Claimed> {
    match outcome {
        Outcome::Claim(dealt) => dealt.claimed,
        other => panic!("not the outcome of a claim: {other:?}"),
    }
}

/// The jobs of a claim, in their order.
pub fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|claimed| claimed.snapshot.job.id).collect()
}
