//! Where a job can be in its life.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The state of a job, as its clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Waiting for its time: not yet due, or given back with a delay.
    Scheduled,
    /// Waiting for a free worker.
    Pending,
    /// Held by a worker that has accepted it.
    Running,
    /// The last attempt failed; the next one waits for its time.
    Retrying,
    /// Cancellation was asked for; the worker has not yet let go.
    Cancelling,
    /// A worker completed it.
    Succeeded,
    /// It failed for good.
    Failed,
    /// Cancelled before it finished.
    Cancelled,
    /// Not started in time.
    Expired,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Pending,
        Self::Running,
        Self::Retrying,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// Whether a job never leaves this state.
    pub fn is_final(self) -> bool {
        match self {
            Self::Scheduled | Self::Pending | Self::Running | Self::Retrying | Self::Cancelling => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired => true,
        }
    }

    /// Whether a job in this state still waits for a worker.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Scheduled | Self::Pending | Self::Retrying)
    }

    /// The state's name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Retrying => "RETRYING",
            Self::Cancelling => "CANCELLING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
