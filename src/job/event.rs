//! What happened to a job, numbered, in order, for good. These are the kept events; what is latest-wins has no number
//! and is in `progress`.

use super::progress::Metrics;
use super::state::State;
use super::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The number of a kept event among those of its job: 1, 2, 3, … without a gap. 0 is before the first.
pub type Sequence = u64;

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub sequence: Sequence,
    /// The attempt it belongs to, 0 before the first.
    pub attempt: u32,
    /// When it was recorded.
    pub time: Timestamp,
    /// What happened.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// The job moved to another state.
    StateChanged(Box<StateChange>),
    /// The attempt entered another stage.
    StageEntered {
        /// Its name.
        name: String,
    },
    /// The attempt produced a part of its output.
    OutputAppended {
        /// The channel; empty is the main output.
        channel: String,
        /// Where it belongs in the channel's valid output.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// A channel's output is void from an offset on.
    OutputReset {
        /// The channel.
        channel: String,
        /// How much of it stays valid.
        kept_bytes: u64,
    },
    /// The handler said something.
    Logged(LogLine),
}

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// For debugging.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is off; the attempt goes on.
    Warn,
    /// Something failed.
    Error,
}

/// A line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How serious it is.
    pub level: LogLevel,
    /// The line, without its end.
    pub message: String,
}

/// A step in the life of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    /// The state before; none for the first event.
    pub previous: Option<State>,
    /// The state after.
    pub state: State,
    /// Why, in UPPER_SNAKE_CASE.
    pub reason: Cow<'static, str>,
    /// The failure that it is due to.
    pub failure: Option<Failure>,
    /// The worker concerned.
    pub worker: Option<String>,
    /// The result, where the step is to success. Kept beside the history, not in it: a store puts it back in place.
    #[serde(skip)]
    pub result: Option<Bytes>,
    /// When the next attempt may start.
    pub next_attempt_time: Option<Timestamp>,
    /// What a person said.
    pub message: String,
    /// The last measurements of the attempt that the step ended.
    pub metrics: Metrics,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, in UPPER_SNAKE_CASE.
    pub reason: Cow<'static, str>,
    /// What happened, for people.
    pub message: String,
    /// A further attempt could not help.
    pub permanent: bool,
    /// More, as the JSON text of an object.
    pub details: Option<Bytes>,
}

impl Failure {
    /// A failure that another attempt may mend.
    pub fn new(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), permanent: false, details: None }
    }

    /// The same, for good.
    pub fn permanent(self) -> Self {
        Self { permanent: true, ..self }
    }
}

/// The reasons that are the server's own.
pub mod reason {
    /// The job was accepted.
    pub const CREATED: &str = "CREATED";
    /// Its time has come.
    pub const DUE: &str = "DUE";
    /// A worker has begun.
    pub const ACCEPTED: &str = "ACCEPTED";
    /// A worker completed it.
    pub const COMPLETED: &str = "COMPLETED";
    /// A client asked for it to be cancelled.
    pub const CANCEL_REQUESTED: &str = "CANCEL_REQUESTED";
    /// The worker stopped, as it was asked to.
    pub const WORKER_STOPPED: &str = "WORKER_STOPPED";
    /// The worker did not stop in time.
    pub const GRACE_PERIOD_ENDED: &str = "GRACE_PERIOD_ENDED";
    /// The worker gave it back.
    pub const RELEASED: &str = "RELEASED";
    /// No worker has accepted it, too often.
    pub const NOT_ACCEPTED: &str = "NOT_ACCEPTED";
    /// It was given back too often.
    pub const RELEASE_LIMIT: &str = "RELEASE_LIMIT";
    /// The handler said that it failed.
    pub const HANDLER_ERROR: &str = "HANDLER_ERROR";
    /// What the handler returned cannot be recorded.
    pub const INVALID_RESULT: &str = "INVALID_RESULT";
    /// The program ended with a code other than 0.
    pub const EXIT_CODE: &str = "EXIT_CODE";
    /// The program asked to be tried again.
    pub const TEMPORARY_FAILURE: &str = "TEMPORARY_FAILURE";
    /// A signal ended the program.
    pub const KILLED: &str = "KILLED";
    /// The handler panicked.
    pub const PANIC: &str = "PANIC";
    /// The attempt took longer than `start_to_close_timeout`.
    pub const ATTEMPT_TIMEOUT: &str = "ATTEMPT_TIMEOUT";
    /// The job took longer than `schedule_to_close_timeout`.
    pub const JOB_TIMEOUT: &str = "JOB_TIMEOUT";
    /// No worker began within `schedule_to_start_timeout`.
    pub const START_TIMEOUT: &str = "START_TIMEOUT";
    /// The attempt was silent for longer than `progress_timeout`.
    pub const STALLED: &str = "STALLED";
    /// The worker was silent for a whole lease.
    pub const LEASE_EXPIRED: &str = "LEASE_EXPIRED";
    /// The server that ran the attempt stopped.
    pub const SERVER_RESTART: &str = "SERVER_RESTART";

    /// Each of them.
    pub const ALL: &[&str] = &[
        CREATED,
        DUE,
        ACCEPTED,
        COMPLETED,
        CANCEL_REQUESTED,
        WORKER_STOPPED,
        GRACE_PERIOD_ENDED,
        RELEASED,
        NOT_ACCEPTED,
        RELEASE_LIMIT,
        HANDLER_ERROR,
        INVALID_RESULT,
        EXIT_CODE,
        TEMPORARY_FAILURE,
        KILLED,
        PANIC,
        ATTEMPT_TIMEOUT,
        JOB_TIMEOUT,
        START_TIMEOUT,
        STALLED,
        LEASE_EXPIRED,
        SERVER_RESTART,
    ];
}
