//! Where jobs are kept.
//!
//! A [`Store`] is a transactional executor of the pure state machine in `job`: it finds the job, lets
//! [`transition`](crate::job::transition) decide, and writes row, events, request id and output together or not at all. It
//! knows jobs, not queues, leases' deadlines or watchers.

mod error;
mod memory;
mod operation;
mod reading;
mod record;
mod sqlite;

pub use error::{BackupError, Error, OpenError};
pub use memory::MemoryStore;
pub use operation::{
    Claim, Claimed, Dealt, Forgotten, LiveUpdate, Operation, Outcome, Pruned, Rejection, Retry, Slot,
    Submission, Submitted, Swept,
};
pub use reading::{Count, EventLimit, Listed, Page, Parts, Rank};
pub use sqlite::{BackedUp, Settings, SqliteStore, back_up};

use crate::job::{Event, Filter, Job, JobId, Keeper, Sequence, Snapshot, Timestamp};
use reading::size;
use std::time::Duration;

/// Keeps jobs.
///
/// All methods block; a caller that must not be held up calls them from a thread of its own. Reads never wait for
/// [`commit`](Store::commit) and see everything that it has answered for.
///
/// What a store is, is decided by the conformance suite in `tests/store`: whatever passes it will do.
pub trait Store: Send + Sync + 'static {
    /// Carries out a batch of operations as of `now`, in their order, in one transaction, and makes it durable.
    ///
    /// Returns one outcome for each operation. A refusal inside an outcome concerns that operation alone; an error
    /// concerns the whole batch, and says whether it may have been committed all the same. After an error that may have
    /// been a commit every operation can be repeated, and has no further effect where it had one.
    ///
    /// Callers take turns: a store that is called from two threads at once serves one after the other.
    fn commit(&self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error>;

    /// Returns the jobs with these ids, in their order; none for one that is not kept.
    fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error>;

    /// Returns a page of a tenant's jobs that match a filter, newest first.
    ///
    /// It sees one moment of the store. What it costs depends on the page, not on how many jobs there are: a search that
    /// finds little ends early, and the page says where to go on.
    fn list(&self, tenant: &str, filter: &Filter, page: Page, parts: Parts) -> Result<Listed, Error>;

    /// Counts a tenant's jobs by kind and state, up to `limit` counts of these kinds or of all, in the order of kinds.
    ///
    /// What it costs does not depend on how many jobs there are.
    fn count(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error>;

    /// Returns the first `limit` ready jobs of a kind, in the order in which they are to be claimed.
    fn queue(&self, tenant: &str, kind: &str, limit: usize) -> Result<Vec<Rank>, Error>;

    /// Returns, for each job, its kept events after a sequence, oldest first, until `limit` is reached.
    ///
    /// Empty for a job that is not kept.
    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error>;

    /// Returns up to `limit` jobs with a lease that this server keeps, in the order of their ids, after `after`.
    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error>;

    /// The name under which this server keeps leases, the same after every restart.
    fn keeper(&self) -> Keeper;
}

/// How long a request id is remembered at least, also where its job is forgotten.
pub const REQUEST_IDS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Whether a request id stands for its job still.
fn is_remembered(ordinal: i64, is_kept: bool, now: Timestamp) -> bool {
    is_kept || JobId::time_of(ordinal).after(REQUEST_IDS_KEPT) > now
}

/// A number from 0 to 1 for one job out of the chance of a whole sweep.
///
/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn jitter(chance: u64, ordinal: i64) -> f64 {
    let mut z = chance ^ (ordinal as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
