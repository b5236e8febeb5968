//! Where jobs are kept.
//!
//! A [`Store`] is a transactional executor of the pure state machine in `job`: it finds the job, lets
//! [`transition`](crate::job::transition) decide, and writes row, events, request id and output together or not at all. It
//! knows jobs, not queues, leases' deadlines or watchers.

mod memory;
mod record;
mod sqlite;

pub use memory::MemoryStore;
pub use sqlite::{Settings, SqliteStore};

use crate::job::{Command, Event, Job, JobId, Keeper, LeaseToken, Live, Refusal, Sequence, Snapshot, Spec};
use crate::job::{Timestamp, Transition};
use std::sync::Arc;

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

    /// Returns up to `limit` jobs of a tenant, newest first, from the one accepted just before `before` on.
    fn list(
        &self,
        tenant: &str,
        before: Option<JobId>,
        limit: usize,
        parts: Parts,
    ) -> Result<Vec<Snapshot>, Error>;

    /// Returns, for each job, its kept events after a sequence, oldest first, until `limit` is reached.
    ///
    /// Empty for a job that is not kept.
    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error>;

    /// Returns up to `limit` jobs with a lease that this server keeps, in the order of their ids, after `after`.
    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error>;

    /// The name under which this server keeps leases, the same after every restart.
    fn keeper(&self) -> Keeper;
}

/// Something for a store to do.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Creates jobs, or finds those that their request ids have already made; all or none.
    ///
    /// The store gives each its id and `create_time`, which grow in the order of acceptance whatever the clock does.
    Submit(Vec<Submission>),
    /// Leases ready jobs of some kinds: round robin over the tenants that have one, then by priority, then by creation.
    ///
    /// No two claims ever get the same job.
    Claim(Claim),
    /// Lets a job carry out a command.
    Apply(JobId, Box<Command>),
    /// Does what is due: starts, retries, timeouts, expiries, and freed places of concurrency keys.
    Sweep {
        /// At most so many jobs.
        limit: usize,
        /// For the waits of those that are to be retried.
        chance: u64,
    },
    /// Keeps the latest-wins part of running attempts. Those that are not current any more are passed over.
    KeepLive(Vec<LiveUpdate>),
}

/// A job to be created.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What it is to be.
    pub spec: Arc<Spec>,
    /// For its id.
    pub chance: u64,
}

/// A wish for work.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who wants it.
    pub worker: String,
    /// What it can do.
    pub kinds: Arc<[String]>,
    /// The secrets of the tokens of the new leases; there are at most as many of these.
    pub secrets: Vec<u64>,
    /// The worker runs in this process and has a free slot for each: the attempts begin with the leases.
    pub in_process: bool,
}

/// The latest-wins part of a running attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveUpdate {
    /// The job.
    pub job: JobId,
    /// The attempt that it belongs to.
    pub attempt: u32,
    /// What it reported.
    pub live: Live,
}

/// What came of an [`Operation`], in the variant of the same name.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// One for each submission, or why none of them was accepted.
    Submit(Result<Vec<Submitted>, Rejection>),
    /// The jobs that were leased; none where none is ready.
    Claim(Vec<Claimed>),
    /// The step that the job took, or why it did not.
    Apply(Result<Box<Transition>, Rejection>),
    /// What was due.
    Sweep(Swept),
    /// It is kept.
    KeepLive,
}

/// What came of a submission.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// A new job.
    Created(Box<Job>),
    /// The job that the same request made before. It may be forgotten by now.
    Repeated(JobId),
}

/// A job that was leased.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job, with its input.
    pub snapshot: Snapshot,
    /// Names the lease.
    pub token: LeaseToken,
    /// What happened: nothing for a provisional lease.
    pub events: Vec<Event>,
}

/// What a sweep did.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// The steps that were due.
    pub transitions: Vec<Transition>,
    /// When the next one is due: now, where the limit was reached.
    pub next_due: Option<Timestamp>,
}

/// Why one operation had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such job.
    #[error("there is no such job")]
    NotFound,
    /// The job does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A request id was used for another request.
    #[error("the request id was used for a different request")]
    RequestIdReused {
        /// Which of the submissions.
        index: usize,
    },
    /// Too many jobs are waiting.
    #[error("{limit} jobs are waiting already")]
    QueueFull {
        /// The limit.
        limit: u64,
    },
    /// The job's row cannot be read.
    #[error("{0}")]
    Damaged(String),
}

/// Which parts of a job to read; the rest is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The input and the result.
    pub payloads: bool,
}

impl Parts {
    /// All but input and result.
    pub const BASIC: Self = Self { payloads: false };
    /// Everything.
    pub const FULL: Self = Self { payloads: true };
}

/// How much of a history to read, for each job; at least one event comes, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    /// At most so many events.
    pub events: usize,
    /// At most about so many bytes.
    pub bytes: usize,
}

/// A store's failure, which concerns all that was asked of it in one call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nothing of it has happened, and the next call may succeed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// It may have happened or not.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// Something that was stored cannot be read: nobody gets a wrong answer instead.
    #[error("a stored {what} is damaged: {why}")]
    Damaged {
        /// What it is.
        what: &'static str,
        /// How that shows.
        why: String,
    },
}

impl Error {
    /// Whether a commit that ended so may have happened all the same.
    pub fn may_have_committed(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Unavailable(_) | Self::Damaged { .. } => false,
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server has it.
    #[error("the data folder {0} is in use by another server")]
    InUse(String),
    /// It was written by a later version.
    #[error("the store has version {found}; this program knows versions up to {known}")]
    Version {
        /// The version found.
        found: u32,
        /// The latest that this program knows.
        known: u32,
    },
    /// The folder holds something else, or cannot be used.
    #[error("cannot open the store in {folder}: {why}")]
    Failed {
        /// The data folder.
        folder: String,
        /// What went wrong.
        why: String,
    },
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
