//! How much of what is to be read, and what is found.

use crate::job::{Job, Snapshot, State};
use bytes::Bytes;

/// Which parts of a job to read; the rest is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The input.
    pub input: bool,
    /// The result.
    pub result: bool,
}

impl Parts {
    /// All but input and result.
    pub const BASIC: Self = Self { input: false, result: false };
    /// All but the input.
    pub const RESULT: Self = Self { input: false, result: true };
    /// Everything.
    pub const FULL: Self = Self { input: true, result: true };
}

/// Which page of a list to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Only jobs with a smaller [ordinal](crate::job::JobId::ordinal) than this one.
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

/// How much of a history to read, for each job; at least one event comes, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimit {
    /// At most so many events.
    pub events: usize,
    /// At most about so many bytes.
    pub bytes: usize,
}

/// About how many bytes of a job its client gets beside what all jobs have.
pub(super) fn size(snapshot: &Snapshot) -> usize {
    let payload = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let labels: usize = snapshot.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let metrics: usize = snapshot.live.metrics.keys().map(|name| name.len() + size_of::<f64>()).sum();
    let failure = snapshot.job.failure.as_ref();
    let failure =
        failure.map_or(0, |failure| failure.message.len() + failure.details.as_ref().map_or(0, Bytes::len));
    payload(&snapshot.input) + payload(&snapshot.result) + labels + metrics + failure
}
