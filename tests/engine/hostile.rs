//! A store that fails on command, around one that works.
//!
//! It decides nothing about jobs: what is kept, and what a batch does, is the other's.

use longhaul::job::*;
use longhaul::store::*;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is to become of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of it happens, and that is what is told.
    Unavailable,
    /// It happens, and nobody can tell.
    Unknown,
    /// The store has a fault of its own.
    Panic,
}

/// Tells the batches that a fault is meant for.
pub type Chosen = fn(&Operation) -> bool;

/// The store.
pub struct HostileStore {
    kept: Arc<dyn Store>,
    faults: Mutex<VecDeque<(Chosen, Fault)>>,
    gate: Mutex<Gate>,
    opened: Condvar,
    probed: AtomicUsize,
    read: AtomicUsize,
    counted: AtomicUsize,
    recorded: AtomicUsize,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    /// Batches that wait before it.
    waiting: usize,
}

impl HostileStore {
    pub fn new(kept: Arc<dyn Store>) -> Self {
        Self {
            kept,
            faults: Mutex::default(),
            gate: Mutex::default(),
            opened: Condvar::new(),
            probed: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            counted: AtomicUsize::new(0),
            recorded: AtomicUsize::new(0),
        }
    }

    /// Does this to the next batch with such an operation; one that is still to come is meant for the one after it.
    pub fn fail(&self, chosen: Chosen, fault: Fault) {
        self.faults.lock().push_back((chosen, fault));
    }

    /// Whether all the faults that were asked for have been met with.
    pub fn has_failed(&self) -> bool {
        self.faults.lock().is_empty()
    }

    /// Lets no batch pass.
    pub fn block(&self) {
        self.gate.lock().closed = true;
    }

    /// Waits until a batch is held up. Blocks its thread.
    pub fn wait_for_blocked(&self) {
        let mut gate = self.gate.lock();
        while gate.waiting == 0 {
            self.opened.wait(&mut gate);
        }
    }

    /// Lets all pass again.
    pub fn unblock(&self) {
        self.gate.lock().closed = false;
        self.opened.notify_all();
    }

    /// How many events were read since this was asked last.
    pub fn events_read(&self) -> usize {
        self.read.swap(0, Ordering::Relaxed)
    }

    /// How many probes have come so far.
    pub fn probes(&self) -> usize {
        self.probed.load(Ordering::Relaxed)
    }

    /// How often jobs were counted so far.
    pub fn counts(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    /// How many checkpoints were recorded since this was asked last.
    pub fn checkpoints(&self) -> usize {
        self.recorded.swap(0, Ordering::Relaxed)
    }

    fn pass_gate(&self) {
        let mut gate = self.gate.lock();
        gate.waiting += 1;
        self.opened.notify_all();
        while gate.closed {
            self.opened.wait(&mut gate);
        }
        gate.waiting -= 1;
    }

    fn fault(&self, batch: &[Operation]) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let (chosen, _) = faults.front()?;
        if batch.iter().any(chosen) { faults.pop_front().map(|(_, fault)| fault) } else { None }
    }
}

impl Store for HostileStore {
    fn commit(&self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let probes = batch.iter().filter(|operation| matches!(operation, Operation::Probe)).count();
        self.probed.fetch_add(probes, Ordering::Relaxed);
        let checkpoints = batch.iter().filter(|operation| records(operation)).count();
        self.recorded.fetch_add(checkpoints, Ordering::Relaxed);
        self.pass_gate();
        match self.fault(&batch) {
            None => self.kept.commit(batch, now),
            Some(Fault::Unavailable) => Err(Error::Unavailable("as was asked for".into())),
            Some(Fault::Panic) => panic!("as was asked for"),
            Some(Fault::Unknown) => {
                self.kept.commit(batch, now)?;
                Err(Error::Unknown("as was asked for".into()))
            }
        }
    }

    fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error> {
        self.kept.get(ids, parts)
    }

    fn list(&self, tenant: &str, filter: &Filter, page: Page, parts: Parts) -> Result<Listed, Error> {
        self.kept.list(tenant, filter, page, parts)
    }

    fn count(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error> {
        self.counted.fetch_add(1, Ordering::Relaxed);
        self.kept.count(tenant, kinds, limit)
    }

    fn queue(&self, tenant: &str, kind: &str, limit: usize) -> Result<Vec<Rank>, Error> {
        self.kept.queue(tenant, kind, limit)
    }

    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error> {
        let events = self.kept.events(wanted, limit)?;
        self.read.fetch_add(events.iter().map(Vec::len).sum(), Ordering::Relaxed);
        Ok(events)
    }

    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error> {
        self.kept.held(after, limit)
    }

    fn keeper(&self) -> Keeper {
        self.kept.keeper()
    }
}

/// Any batch.
pub fn any(_: &Operation) -> bool {
    true
}

/// One that wants work.
pub fn claims(operation: &Operation) -> bool {
    matches!(operation, Operation::Claim(_))
}

/// One that does what is due.
pub fn sweeps(operation: &Operation) -> bool {
    matches!(operation, Operation::Sweep { .. })
}

/// One with a command of a client or a worker, or the end of a lease.
pub fn applies(operation: &Operation) -> bool {
    matches!(operation, Operation::Apply(..))
}

/// One with output.
pub fn appends(operation: &Operation) -> bool {
    matches!(operation, Operation::Apply(_, command) if matches!(**command, Command::AppendOutput { .. }))
}

/// One with a checkpoint.
fn records(operation: &Operation) -> bool {
    matches!(operation, Operation::Apply(_, command) if matches!(**command, Command::Checkpoint { .. }))
}
