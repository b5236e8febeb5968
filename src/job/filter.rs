//! Which jobs are meant, for lists and for watches over many.

use super::{Job, Snapshot, State, Timestamp};
use std::collections::BTreeMap;

/// Jobs that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// In one of these states; none means any.
    pub states: Vec<State>,
    /// Of one of these kinds; none means any.
    pub kinds: Vec<String>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Created at or after this time.
    pub created_from: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
}

impl Filter {
    /// Whether a job is meant.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        self.has_state(snapshot.job.state) && self.may_match(&snapshot.job, &snapshot.labels)
    }

    /// Whether a job with these labels is meant in some state: no other part of it ever changes.
    pub fn may_match(&self, job: &Job, labels: &BTreeMap<String, String>) -> bool {
        self.has_kind(&job.kind)
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.has_time(job.create_time)
    }

    /// Whether jobs in this state may be meant.
    pub fn has_state(&self, state: State) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }

    /// Whether jobs of this kind may be meant.
    pub fn has_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|other| other == kind)
    }

    /// Whether jobs that were created then may be meant.
    pub fn has_time(&self, create_time: Timestamp) -> bool {
        self.created_from.is_none_or(|from| create_time >= from)
            && self.created_before.is_none_or(|before| create_time < before)
    }
}
