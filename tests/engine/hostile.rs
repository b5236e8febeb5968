//! A store in memory whose commits fail, or hang, as they are told.

use longhaul::job::*;
use longhaul::store::*;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

/// What a commit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, and says so.
    Unavailable,
    /// What was asked, and says that nobody knows.
    Unknown,
}

/// Whether an operation is meant.
type Which = fn(&Operation) -> bool;

#[derive(Debug)]
pub struct Hostile {
    store: MemoryStore,
    /// For the next commits of what the filter lets through.
    faults: Mutex<VecDeque<(Fault, Which)>>,
    blocked: Mutex<bool>,
    opened: Condvar,
}

impl Hostile {
    pub fn new(store: MemoryStore) -> Self {
        Self { store, faults: Mutex::default(), blocked: Mutex::default(), opened: Condvar::new() }
    }

    /// As a restart would leave it.
    pub fn reopened(&self) -> Self {
        Self::new(self.store.reopened())
    }

    /// The next commit that has such an operation fails.
    pub fn fail(&self, fault: Fault, which: Which) {
        self.faults.lock().unwrap().push_back((fault, which));
    }

    /// Commits hang from now on.
    pub fn block(&self) {
        *self.blocked.lock().unwrap() = true;
    }

    /// They go on.
    pub fn unblock(&self) {
        *self.blocked.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

impl Store for Hostile {
    fn commit(&self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        drop(self.opened.wait_while(self.blocked.lock().unwrap(), |blocked| *blocked).unwrap());
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            let hit = faults.front().is_some_and(|(_, which)| batch.iter().any(which));
            hit.then(|| faults.pop_front()).flatten()
        };
        match fault {
            None => self.store.commit(batch, now),
            Some((Fault::Unavailable, _)) => Err(Error::Unavailable("on purpose".into())),
            Some((Fault::Unknown, _)) => {
                self.store.commit(batch, now)?;
                Err(Error::Unknown("on purpose".into()))
            }
        }
    }

    fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error> {
        self.store.get(ids, parts)
    }

    fn list(
        &self,
        tenant: &str,
        before: Option<JobId>,
        limit: usize,
        parts: Parts,
    ) -> Result<Vec<Snapshot>, Error> {
        self.store.list(tenant, before, limit, parts)
    }

    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error> {
        self.store.events(wanted, limit)
    }

    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error> {
        self.store.held(after, limit)
    }

    fn keeper(&self) -> Keeper {
        self.store.keeper()
    }
}
