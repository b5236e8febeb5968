//! Where jobs are kept.
//!
//! A [`Store`] is a transactional executor of the pure state machine in `job`: it finds the job, lets
//! [`transition`](crate::job::transition) decide, and writes row, events, request id and output together or not at all. It
//! knows jobs, not queues, leases' deadlines or watchers.

mod memory;
mod record;
mod sqlite;

pub use memory::MemoryStore;
pub use sqlite::{BackedUp, Settings, SqliteStore, back_up};

use crate::job::{
    Command, Event, Filter, Job, JobId, Keeper, LeaseToken, Live, Refusal, RequestKey, Sequence, Snapshot,
    Spec, State, Timestamp, Transition,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
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
    /// Creates a job like one that has ended, or finds the one that the request id has already made.
    Retry(Retry),
    /// Forgets a job that has ended, with all that belongs to it but its request id.
    Delete(JobId),
    /// Forgets jobs whose time to be kept is over, and what is left of those that are forgotten already.
    Prune {
        /// About how many jobs; one with a long history counts as many.
        limit: usize,
    },
}

/// A wish to do again what one job has done.
#[derive(Clone, Debug)]
pub struct Retry {
    /// The job that has ended.
    pub job: JobId,
    /// Whose it is.
    pub tenant: String,
    /// The client's name for the request.
    pub request: Option<RequestKey>,
    /// For the new id.
    pub chance: u64,
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
    /// The job that the retry made, or made before.
    Retry(Result<Submitted, Rejection>),
    /// What was forgotten.
    Delete(Result<Box<Forgotten>, Rejection>),
    /// What was forgotten.
    Prune(Pruned),
}

/// A job that is no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Forgotten {
    /// The job as it was.
    pub job: Job,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a [`Operation::Prune`] did.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// The jobs that are no more.
    pub forgotten: Vec<Forgotten>,
    /// When there is more to forget: now, where the limit was reached.
    pub next_due: Option<Timestamp>,
}

/// What came of a submission.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// A new job.
    Created(Box<Job>),
    /// The job that the same request made before. That of a retry may be forgotten by now; a submission that repeats one
    /// that is forgotten is rejected.
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
    /// The job has not ended.
    #[error("the job has not ended")]
    Active,
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

/// Which page of a list to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Only jobs with a smaller [ordinal](JobId::ordinal) than this one.
    pub before: Option<i64>,
    /// At most so many jobs.
    pub jobs: usize,
    /// At most about so many bytes of inputs, results, labels and progress; at least one job comes, however large.
    pub bytes: usize,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// The jobs.
    pub jobs: Vec<Snapshot>,
    /// Where the next page goes on, as its [`Page::before`]; none after the last.
    pub next: Option<i64>,
}

/// How many jobs of a kind are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The kind.
    pub kind: String,
    /// The state.
    pub state: State,
    /// How many; never 0.
    pub jobs: u64,
}

/// A ready job's rank among those of its kind and tenant: the smallest is claimed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The job's priority, negated.
    pub urgency: i64,
    /// The job's ordinal.
    pub ordinal: i64,
}

impl Rank {
    /// The rank that a job has or would have.
    pub fn of(job: &Job) -> Self {
        Self { urgency: -i64::from(job.options.priority), ordinal: job.id.ordinal() }
    }
}

/// How long a request id is remembered at least, also where its job is forgotten.
pub const REQUEST_IDS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Whether a request id stands for its job still.
fn is_remembered(ordinal: i64, is_kept: bool, now: Timestamp) -> bool {
    is_kept || JobId::time_of(ordinal).after(REQUEST_IDS_KEPT) > now
}

/// About how many bytes of a job its client gets beside what all jobs have.
fn size(snapshot: &Snapshot) -> usize {
    let payload = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let labels: usize = snapshot.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let metrics: usize = snapshot.live.metrics.keys().map(|name| name.len() + size_of::<f64>()).sum();
    let failure = snapshot.job.failure.as_ref();
    let failure =
        failure.map_or(0, |failure| failure.message.len() + failure.details.as_ref().map_or(0, Bytes::len));
    payload(&snapshot.input) + payload(&snapshot.result) + labels + metrics + failure
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

/// Why a store could not be backed up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder has no store in it.
    #[error("there is no store in {0}")]
    NoStore(String),
    /// A backup never takes another file's place.
    #[error("{0} is there already")]
    Exists(String),
    /// It could not be read, or not be written.
    #[error("cannot back up to {file}: {why}")]
    Failed {
        /// The backup.
        file: String,
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
