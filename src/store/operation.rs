//! What a store is asked to do, and what comes of it.

use crate::job::{
    Command, Event, Job, JobId, LeaseToken, Live, Refusal, RequestKey, Snapshot, Spec, Timestamp, Trace,
    Transition,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
    /// Writes something that means nothing, so that whoever asks knows that writing works.
    Probe,
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
    /// The trace that the new job belongs to.
    pub trace: Option<Trace>,
    /// The main output that its checkpoint keeps, where the new job is to go on from that. Of a job that has ended it never
    /// changes, so whoever asks has read it before; where it is not what the checkpoint says, the new job begins anew.
    pub output: Option<Bytes>,
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

/// A wish for work, of one worker or of several that can run the same kinds.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What they can run.
    pub kinds: Arc<[String]>,
    /// Who gets the jobs: the best one goes to the first.
    pub slots: Vec<Slot>,
    /// No more jobs are taken once their inputs have so many bytes together; at least one is.
    pub bytes: usize,
}

/// A place for one job, with all that its lease is to have.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Says whose it is, to whoever made the claim.
    pub taker: u64,
    /// The worker's name.
    pub worker: String,
    /// The secret of the lease's token.
    pub secret: u64,
    /// How long the lease is to last without a sign, where that is not the server's own term.
    pub term: Option<Duration>,
    /// The worker runs in this process, and the slot is free: the attempt begins with the lease.
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
    /// What was leased.
    Claim(Dealt),
    /// The step that the job took, or why it did not.
    Apply(Result<Box<Transition>, Rejection>),
    /// What was due.
    Sweep(Swept),
    /// It is kept.
    KeepLive,
    /// It is written.
    Probe,
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

/// What came of a claim.
#[derive(Clone, Debug, Default)]
pub struct Dealt {
    /// The jobs that were leased, in the order of the slots.
    pub claimed: Vec<Claimed>,
    /// No job of these kinds was ready any more. Where there are enough, nobody looks whether there are more.
    pub exhausted: bool,
}

/// A job that was leased.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The [`Slot::taker`] of the slot that it is for.
    pub taker: u64,
    /// The job, with its input.
    pub snapshot: Snapshot,
    /// Names the lease.
    pub token: LeaseToken,
    /// The data of the checkpoint that the attempt goes on from; empty where none is kept.
    pub checkpoint: Bytes,
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
    /// The disk has too little space for new jobs.
    #[error("the disk has {free} bytes free; new jobs are taken from {limit} on")]
    DiskFull {
        /// How many bytes are free.
        free: u64,
        /// How many have to be.
        limit: u64,
    },
    /// The job's row cannot be read.
    #[error("{0}")]
    Damaged(String),
}
