//! A store that outlives the processes over it, and the part of each process that calls it: there commits fail, have an unknown
//! outcome, or are the last thing that the process does.

use crate::ledger::Ledger;
use crate::lots::Lots;
use longhaul::job::*;
use longhaul::store::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const KEEPER: u64 = 7;
const QUEUE_MAX: u64 = 1_000;

/// What is kept, whoever lives.
pub struct Disk {
    kept: Kept,
    places: Arc<Mutex<Places>>,
}

enum Kept {
    Memory(Arc<MemoryStore>),
    Sqlite(TempDir),
}

/// How the disk and its process fare, while things go wrong.
#[derive(Clone)]
pub struct Fate {
    pub lots: Lots,
    pub stormy: Arc<AtomicBool>,
    /// More goes wrong.
    pub endless: bool,
    pub epoch: Instant,
}

/// The store as one process has it.
pub struct Mounted {
    kept: Mutex<Option<Arc<dyn Store>>>,
    fate: Fate,
    /// Cancelled when the process dies.
    dead: CancellationToken,
    ledger: Arc<Ledger>,
    places: Arc<Mutex<Places>>,
}

/// Who holds a place of which concurrency key, by what was committed.
#[derive(Default)]
struct Places(BTreeMap<String, BTreeMap<JobId, u32>>);

impl Disk {
    pub fn new(on_disk: bool) -> Self {
        // Where flushing costs nothing: what a flush is good for is shown in tests/crash.
        let memory = Path::new("/dev/shm");
        let kept = match on_disk {
            false => Kept::Memory(Arc::new(MemoryStore::new(QUEUE_MAX, Keeper(KEEPER)))),
            true if memory.is_dir() => Kept::Sqlite(tempfile::tempdir_in(memory).unwrap()),
            true => Kept::Sqlite(tempfile::tempdir().unwrap()),
        };
        Self { kept, places: Arc::default() }
    }

    /// Opens the store for another process.
    pub fn mount(&mut self, fate: Fate, dead: CancellationToken, ledger: Arc<Ledger>) -> Arc<Mounted> {
        let kept: Arc<dyn Store> = match &mut self.kept {
            Kept::Memory(store) => {
                *store = Arc::new(store.reopened());
                Arc::clone(store) as Arc<dyn Store>
            }
            Kept::Sqlite(folder) => {
                let settings =
                    Settings { queue_max: QUEUE_MAX, free_bytes_min: 0, readers: 1, keeper: KEEPER };
                Arc::new(SqliteStore::open(folder.path(), settings).expect("the store opens again"))
            }
        };
        let places = Arc::clone(&self.places);
        Arc::new(Mounted { kept: Mutex::new(Some(kept)), fate, dead, ledger, places })
    }
}

impl Mounted {
    /// The process is no more: whatever it still calls has no effect, and nobody hears of it.
    pub fn die(&self) {
        self.kept.lock().take();
        self.dead.cancel();
    }

    fn store(&self) -> Result<Arc<dyn Store>, Error> {
        self.kept.lock().clone().ok_or_else(|| Error::Unavailable("the process is dead".into()))
    }

    /// No job is left that should have been claimed before one that was.
    fn check_order(&self, store: &dyn Store, kinds: &[Arc<[String]>], outcomes: &[Outcome]) {
        for (kinds, outcome) in kinds.iter().zip(outcomes) {
            let Outcome::Claim(dealt) = outcome else { continue };
            let left = kinds.iter().filter_map(|kind| {
                let queue = store.queue(DEFAULT_TENANT, kind, 1).ok()?;
                queue.first().copied()
            });
            let Some(best) = left.min() else { continue };
            for claimed in &dealt.claimed {
                self.ledger.see("a claim leaves others waiting");
                let job = &claimed.snapshot.job;
                self.ledger.demand(Rank::of(job) < best, || format!("{} is claimed before its turn", job.id));
            }
        }
    }

    /// A read, which may fail as well: of whatever it is, all that are made at one time.
    fn read(&self, what: impl Debug) -> Result<Arc<dyn Store>, Error> {
        let store = self.store()?;
        let lots = || self.fate.lots.of_the_moment(self.fate.epoch, &format!("{what:?}"));
        if self.fate.stormy.load(Ordering::SeqCst) && lots().one_in(200) {
            return Err(Error::Unavailable("as was decided by lot".into()));
        }
        Ok(store)
    }

    /// A key never has more holders than its limit.
    fn check_places(&self, outcomes: &[Outcome]) {
        let mut places = self.places.lock();
        for outcome in outcomes {
            match outcome {
                Outcome::Apply(Ok(step)) => places.follow(&step.job, &self.ledger),
                Outcome::Sweep(swept) => {
                    swept.transitions.iter().for_each(|step| places.follow(&step.job, &self.ledger));
                }
                Outcome::Claim(dealt) => {
                    dealt
                        .claimed
                        .iter()
                        .for_each(|claimed| places.follow(&claimed.snapshot.job, &self.ledger));
                }
                _ => {}
            }
        }
    }
}

/// The kinds that each operation of a batch claims, where it does nothing else that could make a job ready.
fn only_claims(batch: &[Operation]) -> Option<Vec<Arc<[String]>>> {
    let kinds = |operation: &Operation| match operation {
        Operation::Claim(claim) => Some(Arc::clone(&claim.kinds)),
        Operation::KeepLive(_) | Operation::Probe => Some([].into()),
        _ => None,
    };
    batch.iter().map(kinds).collect()
}

impl Places {
    fn follow(&mut self, job: &Job, ledger: &Ledger) {
        let Some(concurrency) = &job.options.concurrency else { return };
        let holders = self.0.entry(concurrency.key.clone()).or_default();
        match job.lease.is_some() {
            true => holders.insert(job.id, concurrency.limit),
            false => holders.remove(&job.id),
        };
        let limit = holders.values().copied().max().unwrap_or(u32::MAX);
        if holders.len() > limit as usize {
            let held: Vec<_> = holders.keys().map(ToString::to_string).collect();
            ledger.blame(format!("key {} has {} holders of {limit}: {held:?}", concurrency.key, held.len()));
        }
    }
}

impl Store for Mounted {
    fn commit(&self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let store = self.store()?;
        self.ledger.tell(|| format!("commit {batch:?}"));
        let lot = match (self.fate.stormy.load(Ordering::SeqCst), self.fate.endless) {
            (true, false) => self.fate.lots.among(0..1_000),
            (true, true) => self.fate.lots.among(0..300),
            (false, _) => 1_000,
        };
        match lot {
            0..3 => {
                self.ledger.note(|| "the server dies before a commit".into());
                self.die();
                Err(Error::Unavailable("the process is dead".into()))
            }
            3..6 => {
                self.ledger.note(|| "the server dies after a commit".into());
                self.check_places(&store.commit(batch, now)?);
                drop(store);
                self.die();
                Err(Error::Unknown("the process is dead".into()))
            }
            6..9 => {
                self.ledger.note(|| "a commit fails".into());
                Err(Error::Unavailable("as was decided by lot".into()))
            }
            9..12 => {
                self.ledger.note(|| "a commit fails, perhaps".into());
                Err(Error::Unknown("as was decided by lot".into()))
            }
            12..15 => {
                self.ledger.note(|| "a commit happens, and fails".into());
                self.check_places(&store.commit(batch, now)?);
                // Of what it claimed nobody has heard, and so nobody runs it.
                self.ledger.server_ended(now, now);
                Err(Error::Unknown("as was decided by lot".into()))
            }
            _ => {
                let kinds = only_claims(&batch);
                let outcomes = store.commit(batch, now)?;
                self.check_places(&outcomes);
                if let Some(kinds) = kinds {
                    self.check_order(store.as_ref(), &kinds, &outcomes);
                }
                Ok(outcomes)
            }
        }
    }

    fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error> {
        self.read(ids)?.get(ids, parts)
    }

    fn list(&self, tenant: &str, filter: &Filter, page: Page, parts: Parts) -> Result<Listed, Error> {
        self.read((filter, page))?.list(tenant, filter, page, parts)
    }

    fn count(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error> {
        self.read(kinds)?.count(tenant, kinds, limit)
    }

    fn queue(&self, tenant: &str, kind: &str, limit: usize) -> Result<Vec<Rank>, Error> {
        self.read(kind)?.queue(tenant, kind, limit)
    }

    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error> {
        self.read(wanted)?.events(wanted, limit)
    }

    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error> {
        self.read(after)?.held(after, limit)
    }

    fn keeper(&self) -> Keeper {
        Keeper(KEEPER)
    }
}
