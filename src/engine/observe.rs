//! Who is told what has become durable, for figures and traces. Nothing that the engine does depends on them.

use crate::job::{Event, Job, LeaseToken, Snapshot};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Is told what happens to jobs, after it is durable and before anybody is answered.
///
/// Unless it says otherwise, a call is made on the thread that commits, so it must be short, and must never wait.
pub trait Observe: Send + Sync + 'static {
    /// A batch is durable.
    fn committed(&self, _batch: Batch) {}

    /// A batch failed; it may have been committed all the same.
    fn failed(&self, _batch: Batch) {}

    /// A job was created.
    fn created(&self, _job: &Job) {}

    /// A worker has leased a job, provisionally unless it is in this process. What is put in place of the snapshot's trace is
    /// what the worker gets.
    fn leased(&self, _snapshot: &mut Snapshot) {}

    /// A worker had leased a job before this process knew of it: an earlier one gave the lease, or nobody was told of the commit
    /// that did. This call is made by another task.
    fn adopted(&self, _snapshot: &Snapshot) {}

    /// A lease has ended by a commit that nobody was told of. This call is made by another task.
    fn lost(&self, _token: &LeaseToken) {}

    /// The leases have been compared with the store: one that is not kept has ended, whatever was told of it. This call is made by
    /// another task.
    fn compared(&self, _is_kept: &dyn Fn(&LeaseToken) -> bool) {}

    /// A job is as it now is through a step of these events, which may be none.
    fn moved(&self, _job: &Job, _events: &[Event]) {}
}

/// A batch of operations, as it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many operations it has.
    pub operations: usize,
    /// How long the store took over it.
    pub time: Duration,
}

/// All that are told.
#[derive(Clone, Default)]
pub struct Observers(Arc<[Arc<dyn Observe>]>);

impl Observers {
    /// Whether there is nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells each of them.
    pub(super) fn tell(&self, tell: impl FnMut(&dyn Observe)) {
        self.0.iter().map(AsRef::as_ref).for_each(tell);
    }
}

impl FromIterator<Arc<dyn Observe>> for Observers {
    fn from_iter<I: IntoIterator<Item = Arc<dyn Observe>>>(observers: I) -> Self {
        Self(observers.into_iter().collect())
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} observers", self.0.len())
    }
}
