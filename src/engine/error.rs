//! What can go wrong with a call on the engine.

use crate::job::{Refusal, Sequence};
use crate::store::{self, Rejection};

/// Why a call had no effect, or may have had none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such job, or no more.
    #[error("there is no such job")]
    NotFound,
    /// The job's state does not allow it.
    #[error(transparent)]
    Refused(Refusal),
    /// The job has not ended.
    #[error("the job has not ended")]
    Active,
    /// The request id was used for a different request.
    #[error("the request id was used for a different request")]
    RequestIdReused {
        /// Which of the jobs of a batch.
        index: usize,
    },
    /// Too many jobs are waiting.
    #[error("{limit} jobs are waiting already")]
    QueueFull {
        /// The limit.
        limit: u64,
    },
    /// The disk has too little space for new jobs; those that are there go on.
    #[error("the disk has {free} bytes free; new jobs are taken from {limit} on")]
    DiskFull {
        /// How many bytes are free.
        free: u64,
        /// How many have to be.
        limit: u64,
    },
    /// The cursor lies ahead of the job.
    #[error("the cursor {after} lies ahead of the job, which is at {sequence}")]
    AheadOfJob {
        /// The cursor.
        after: Sequence,
        /// The job's last event.
        sequence: Sequence,
    },
    /// Nothing has happened; it may succeed later.
    #[error("not available: {0}")]
    Unavailable(String),
    /// It may have happened or not; it can be repeated.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// What is stored cannot be read.
    #[error("{0}")]
    Damaged(String),
}

impl Error {
    /// The server is about to stop, and does not do it any more.
    pub(crate) fn stopping() -> Self {
        Self::Unavailable("the server is stopping".into())
    }

    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unknown(_) => true,
            Self::NotFound
            | Self::Refused(_)
            | Self::Active
            | Self::RequestIdReused { .. }
            | Self::QueueFull { .. }
            | Self::DiskFull { .. }
            | Self::AheadOfJob { .. }
            | Self::Damaged(_) => false,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(why) => Self::Unavailable(why),
            store::Error::Unknown(why) => Self::Unknown(why),
            store::Error::Damaged { .. } => Self::Damaged(error.to_string()),
        }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::NotFound => Self::NotFound,
            Rejection::Refused(refusal) => Self::Refused(refusal),
            Rejection::Active => Self::Active,
            Rejection::RequestIdReused { index } => Self::RequestIdReused { index },
            Rejection::QueueFull { limit } => Self::QueueFull { limit },
            Rejection::DiskFull { free, limit } => Self::DiskFull { free, limit },
            Rejection::Damaged(what) => Self::Damaged(what),
        }
    }
}
