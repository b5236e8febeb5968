//! What a job is and may become. Pure: no clock, no chance, no I/O, no protocol.
//!
//! [`transition`] is the one function that changes a job. A [`Job`] is what it decides on; a [`Snapshot`] adds what is only
//! carried along and shown.

mod command;
mod event;
mod filter;
mod id;
mod lease;
pub mod limits;
mod progress;
mod retry;
mod spec;
mod state;
mod time;
mod transition;

pub use command::{Command, LeaseEnd};
pub use event::{Body, Event, Failure, LogLevel, LogLine, Sequence, StateChange, reason};
pub use filter::Filter;
pub use id::{IDS_PER_MILLISECOND, JobId, MalformedId};
pub use lease::{EndedBy, EndedLease, Keeper, Lease, LeaseToken, MalformedToken};
pub use progress::{Live, Metrics, Progress};
pub use retry::RetryPolicy;
pub use spec::{
    Concurrency, DEFAULT_TENANT, Options, RequestKey, Spec, Terms, Trace, Violation, Wish, check_kind,
    check_labels, check_request_id,
};
pub use state::State;
pub use time::Timestamp;
pub use transition::{Refusal, Transition, resume, transition};

use crate::mutants::{self, Mutant};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A unit of long-running work: all that a transition may depend on.
///
/// What is skipped when it is serialized has columns or a record of its own in every store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The ticket.
    #[serde(skip)]
    pub id: JobId,
    /// Whose it is.
    #[serde(skip)]
    pub tenant: String,
    /// The kind of work.
    #[serde(skip)]
    pub kind: String,
    /// How it is run.
    pub options: Options,
    /// Where it is in its life.
    pub state: State,
    /// It holds a place of its concurrency key.
    pub granted: bool,
    /// The number of its last lease, 0 before the first.
    pub epoch: u32,
    /// The lease that holds it now; provisional while the job is still pending.
    pub lease: Option<Lease>,
    /// The lease that ended last by a report or a cancellation.
    pub ended_lease: Option<EndedLease>,
    /// The number of the current or last attempt, 0 before the first.
    pub attempt: u32,
    /// The attempts that count against its retry policy, a running one included.
    pub counted_attempts: u32,
    /// The attempts that only a stop of the server ended.
    pub restarts: u32,
    /// The attempts that were given back.
    pub releases: u32,
    /// Why the latest attempt failed, while that is what the state says.
    pub failure: Option<Failure>,
    /// When its worker must have let go, while it is being cancelled.
    pub cancel_deadline: Option<Timestamp>,
    /// When the ticket was issued.
    pub create_time: Timestamp,
    /// When the first attempt began.
    pub start_time: Option<Timestamp>,
    /// When the current or last attempt began.
    pub attempt_start_time: Option<Timestamp>,
    /// Since when it has been pending, while it is.
    pub pending_time: Option<Timestamp>,
    /// When the next attempt may start, while it waits for that.
    pub next_attempt_time: Option<Timestamp>,
    /// When it reached its final state.
    pub end_time: Option<Timestamp>,
    /// Time spent pending, up to when it last was.
    pub queue_duration: Duration,
    /// Time spent with a worker, all ended attempts together.
    pub run_duration: Duration,
    /// The number of the last state change.
    pub state_sequence: Sequence,
    /// When that was recorded.
    pub state_time: Timestamp,
    /// How long its lease lasts without a sign of the holder, where that is not the server's own term. Not in the lease:
    /// what version 2 of the stored form has added lies at the end.
    pub lease_term: Option<Duration>,
    /// The claims in a row that reached a worker and were not accepted in time. Version 3 has added it.
    pub unaccepted: u32,
    /// What its attempts have sent. Kept apart from the rest, since it changes far more often.
    #[serde(skip)]
    pub emitted: Emitted,
}

/// What the attempts of a job have sent so far: stages, output, logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitted {
    /// The number of the last such event, 0 for none.
    pub sequence: Sequence,
    /// When that was recorded.
    pub time: Timestamp,
    /// The channels that have had output.
    pub channels: Vec<Channel>,
    /// Bytes of output, voided ones included.
    pub history_bytes: u64,
    /// Lines of log of the current attempt, those that were not kept included.
    pub attempt_log_lines: u64,
    /// Lines of log that are kept.
    pub log_lines: u32,
    /// Stages that are kept.
    pub stages: u32,
    /// The stage that the current attempt is in; empty before its first.
    pub stage: String,
    /// Where the attempts have got to; none where no checkpoint was recorded that still matters. Version 4 has added it.
    pub checkpoint: Option<LastCheckpoint>,
}

/// What is known of a job's checkpoints, beside the data of the one that is kept: that is large, and has a record of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheckpoint {
    /// The number of the last one among those of the current attempt, 0 before its first.
    pub number: u64,
    /// How much of the main output the one that is kept keeps valid; none where none is kept.
    pub output_bytes: Option<u64>,
}

/// A channel of a job's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name; empty is the main output.
    pub name: String,
    /// The length of its valid output.
    pub bytes: u64,
}

/// Where a job lies while it waits, which decides who looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A worker may have it.
    Ready,
    /// Waits for its time.
    Waiting,
    /// Waits for a place of its concurrency key.
    Blocked,
    /// A worker has it, or is about to.
    Held,
    /// Final.
    Done,
}

/// A job with all that belongs to it, as of `job.sequence()`.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The job itself.
    pub job: Job,
    /// The client's own tags.
    pub labels: BTreeMap<String, String>,
    /// The client's name for the request that made it.
    pub request_id: Option<String>,
    /// The job that it repeats.
    pub retry_of: Option<JobId>,
    /// The trace that it belongs to.
    pub trace: Option<Trace>,
    /// What its handler is given; absent where it was not asked for.
    pub input: Option<Bytes>,
    /// What its handler returned; absent where it was not asked for, or there is none.
    pub result: Option<Bytes>,
    /// What is latest-wins of the current or last attempt.
    pub live: Live,
    /// About where it stands among those that wait for its kind, 1 being next; absent where nobody has looked.
    pub queue_position: Option<u32>,
}

impl Job {
    /// The job that `spec` asks for, accepted now.
    pub fn new(id: JobId, spec: &Spec, now: Timestamp) -> Self {
        let scheduled = spec.options.schedule_time.filter(|time| *time > now);
        Self {
            id,
            tenant: spec.tenant.clone(),
            kind: spec.kind.clone(),
            options: spec.options.clone(),
            state: if scheduled.is_some() { State::Scheduled } else { State::Pending },
            granted: false,
            epoch: 0,
            lease: None,
            ended_lease: None,
            attempt: 0,
            counted_attempts: 0,
            restarts: 0,
            releases: 0,
            failure: None,
            cancel_deadline: None,
            create_time: now,
            start_time: None,
            attempt_start_time: None,
            pending_time: if scheduled.is_some() { None } else { Some(now) },
            next_attempt_time: scheduled,
            end_time: None,
            queue_duration: Duration::ZERO,
            run_duration: Duration::ZERO,
            state_sequence: 1,
            state_time: now,
            lease_term: None,
            unaccepted: 0,
            emitted: Emitted::default(),
        }
    }

    /// The first event of its history. It follows from the job, so nobody needs to keep it.
    pub fn first_event(&self) -> Event {
        let scheduled = self.options.schedule_time.filter(|time| *time > self.create_time);
        let change = StateChange {
            previous: None,
            state: if scheduled.is_some() { State::Scheduled } else { State::Pending },
            reason: reason::CREATED.into(),
            failure: None,
            worker: None,
            result: None,
            next_attempt_time: scheduled,
            message: String::new(),
            metrics: Metrics::new(),
        };
        Event { sequence: 1, attempt: 0, time: self.create_time, body: Body::StateChanged(Box::new(change)) }
    }

    /// The number of its last kept event.
    pub fn sequence(&self) -> Sequence {
        self.state_sequence.max(self.emitted.sequence)
    }

    /// When its last kept event was recorded.
    pub fn update_time(&self) -> Timestamp {
        self.state_time.max(self.emitted.time)
    }

    /// When the server may forget it.
    pub fn purge_time(&self) -> Option<Timestamp> {
        self.end_time.map(|end| end.after(self.options.retention))
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        match self.state {
            State::Scheduled | State::Retrying => Place::Waiting,
            State::Pending if self.lease.is_some() => Place::Held,
            State::Pending if self.options.concurrency.is_some() && !self.granted => Place::Blocked,
            State::Pending => Place::Ready,
            State::Running | State::Cancelling => Place::Held,
            State::Succeeded | State::Failed | State::Cancelled | State::Expired => Place::Done,
        }
    }

    /// How much of the main output its checkpoint keeps for the next attempt; none where no checkpoint is kept.
    pub fn checkpoint(&self) -> Option<u64> {
        self.emitted.checkpoint?.output_bytes
    }

    /// The token of the lease that holds it now.
    pub fn lease_token(&self) -> Option<LeaseToken> {
        let lease = self.lease.as_ref()?;
        Some(LeaseToken { job: self.id, epoch: self.epoch, secret: lease.secret })
    }

    /// When its current attempt must have ended, where that is limited.
    pub fn attempt_deadline(&self) -> Option<Timestamp> {
        Some(self.attempt_start_time?.after(self.options.start_to_close_timeout?))
    }

    /// When an attempt that begins at `start` must have ended, where that is limited.
    pub fn deadline_from(&self, start: Timestamp) -> Option<Timestamp> {
        let attempt = self.options.start_to_close_timeout.map(|timeout| start.after(timeout));
        [attempt, self.job_deadline()].into_iter().flatten().min()
    }

    /// When [`Command::Advance`] next has something to do; never, where nothing is limited or scheduled.
    ///
    /// It changes with each transition, and only so. Asking too early is harmless.
    pub fn next_due(&self) -> Option<Timestamp> {
        let mine = match self.state {
            State::Scheduled => [self.next_attempt_time, self.start_deadline()],
            State::Pending => [None, self.start_deadline()],
            State::Retrying if mutants::is(Mutant::TimerForgotten) => [None, None],
            State::Retrying => [self.next_attempt_time, None],
            State::Running => [None, self.attempt_deadline()],
            State::Cancelling => [self.cancel_deadline, self.attempt_deadline()],
            State::Succeeded | State::Failed | State::Cancelled | State::Expired => return None,
        };
        mine.into_iter().chain([self.job_deadline()]).flatten().min()
    }

    /// When a first worker must have begun.
    fn start_deadline(&self) -> Option<Timestamp> {
        match self.start_time {
            Some(_) => None,
            None => Some(self.base_time().after(self.options.schedule_to_start_timeout?)),
        }
    }

    /// When the whole job must have ended.
    fn job_deadline(&self) -> Option<Timestamp> {
        Some(self.base_time().after(self.options.schedule_to_close_timeout?))
    }

    /// What its whole life is counted from: the ticket, or when it was scheduled for.
    pub fn base_time(&self) -> Timestamp {
        self.options.schedule_time.map_or(self.create_time, |time| time.max(self.create_time))
    }
}
