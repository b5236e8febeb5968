//! Which jobs have changed lately, for those who watch many.
//!
//! One ring for all of them, of bounded length: each reader has a place in it, and one that falls behind begins anew. Nobody
//! who watches nothing pays for it.

use super::bell::{Bell, Listener};
use crate::job::{Body, Event, Job, JobId, State};
use crate::store::Forgotten;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

/// How many changes are remembered: about a second of all that a machine can do.
const CHANGES_MAX: usize = 1 << 15;

/// Some of the states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States(u16);

impl States {
    /// These states.
    pub fn of(states: impl IntoIterator<Item = State>) -> Self {
        Self(states.into_iter().fold(0, |states, state| states | 1 << state as u16))
    }

    /// Whether there is one that is in both.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The states of both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A job that has changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The job.
    pub job: JobId,
    /// The states that it was in before, meanwhile and after.
    pub states: States,
    /// The job as it was, where it is no more.
    pub forgotten: Option<Arc<Forgotten>>,
}

/// The newest changes.
#[derive(Debug)]
pub struct Changes {
    ring: Mutex<Ring>,
    readers: AtomicUsize,
    /// The number of the next change.
    bell: Bell<u64>,
    /// Whether the server is about to stop.
    closing: CancellationToken,
}

#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<Change>,
    /// The number of the next change.
    next: u64,
}

/// Somebody's place in the ring.
#[derive(Debug)]
pub struct Reader {
    changes: Arc<Changes>,
    /// The number of the next change to read.
    next: u64,
    /// Rings with each change.
    pub bell: Listener<u64>,
    /// Rings when the server is about to stop.
    pub closing: CancellationToken,
}

/// Changes are missing: the reader has to begin anew.
#[derive(Clone, Copy, Debug)]
pub struct Behind;

impl Default for Changes {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            readers: AtomicUsize::new(0),
            bell: Bell::default(),
            closing: CancellationToken::new(),
        }
    }
}

impl Changes {
    /// Takes a place at the end: whatever is told from now on can be read.
    pub fn join(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let next = self.ring.lock().next;
        let (bell, closing) = (self.bell.listen(), self.closing.clone());
        Reader { changes: Arc::clone(self), next, bell, closing }
    }

    /// How many places are taken.
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::SeqCst)
    }

    /// Tells that a job is new.
    pub fn created(&self, job: &Job) {
        self.push(|| Change { job: job.id, states: States::of([job.state]), forgotten: None });
    }

    /// Tells that a job has changed in its latest-wins part. It has left no state.
    pub fn progressed(&self, job: JobId) {
        self.push(|| Change { job, states: States::default(), forgotten: None });
    }

    /// Tells what has happened to a job.
    pub fn moved(&self, job: &Job, events: &[Event]) {
        self.push(|| {
            let passed = events.iter().flat_map(|event| match &event.body {
                Body::StateChanged(change) => [change.previous, Some(change.state)],
                _ => [None, None],
            });
            let states = States::of(passed.flatten()).and(States::of([job.state]));
            Change { job: job.id, states, forgotten: None }
        });
    }

    /// Tells that a job is no more.
    pub fn forgotten(&self, forgotten: &Forgotten) {
        self.push(|| Change {
            job: forgotten.job.id,
            states: States::of([forgotten.job.state]),
            forgotten: Some(Arc::new(forgotten.clone())),
        });
    }

    /// Something may have changed that nobody was told of: everybody begins anew.
    pub fn lose(&self) {
        let mut ring = self.ring.lock();
        ring.changes.clear();
        ring.next += 1;
        let next = ring.next;
        drop(ring);
        self.bell.ring(|latest| *latest = next.max(*latest));
    }

    /// Sends every reader away, those that are about to come as well.
    pub fn close(&self) {
        self.closing.cancel();
    }

    fn push(&self, change: impl FnOnce() -> Change) {
        if self.readers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let change = change();
        let mut ring = self.ring.lock();
        if ring.changes.len() == CHANGES_MAX {
            ring.changes.pop_front();
        }
        ring.changes.push_back(change);
        ring.next += 1;
        let next = ring.next;
        drop(ring);
        self.bell.ring(|latest| *latest = next.max(*latest));
    }
}

impl Reader {
    /// Hands all that is new to `take`.
    pub fn read(&mut self, mut take: impl FnMut(&Change)) -> Result<(), Behind> {
        let ring = self.changes.ring.lock();
        let first = ring.next - ring.changes.len() as u64;
        let behind = self.next < first;
        let skipped = self.next.saturating_sub(first) as usize;
        self.next = ring.next;
        if behind {
            return Err(Behind);
        }
        ring.changes.iter().skip(skipped).for_each(&mut take);
        Ok(())
    }

    /// Whether there is something new.
    pub fn has_news(&mut self) -> bool {
        *self.bell.hear() > self.next
    }

    /// Whether the server is about to stop.
    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.changes.readers.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Nobody reads any more; whoever comes next begins at the end.
            self.changes.ring.lock().changes = VecDeque::new();
        }
    }
}
