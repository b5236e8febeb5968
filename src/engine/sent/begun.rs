//! Where the output of an attempt goes on that began before this server, or before it was asked for it.

use crate::job::{self, Job, Sequence};

/// What an attempt has sent before its output is taken in here: where it goes on.
#[derive(Clone, Debug, Default)]
pub struct Begun {
    pub(super) channels: Vec<(String, u64)>,
    pub(super) lines: u64,
    pub(super) checkpoints: u64,
    /// Bytes of output of all attempts, voided ones included.
    pub(super) history: u64,
    /// The attempt's output lies behind this event.
    pub(super) after: Sequence,
}

impl Begun {
    /// What the attempt that `job` is in has sent; nothing, where it is still to begin. The channels of earlier attempts are
    /// known all the same, since they count.
    pub fn of(job: &Job) -> Self {
        let accepted = job.lease.as_ref().is_some_and(|lease| lease.accepted);
        let valid = |bytes| if accepted { bytes } else { 0 };
        let kept = job.checkpoint().unwrap_or(0);
        let bytes = |channel: &job::Channel| match channel.name.is_empty() {
            true if !accepted => kept,
            true | false => valid(channel.bytes),
        };
        // In any other state than this, the last change of state is not the attempt's beginning; and what a checkpoint has kept,
        // be it void by now, lies before that.
        let is_all_behind = job.state == job::State::Running && job.emitted.checkpoint.is_none();
        let channels = job.emitted.channels.iter();
        Self {
            channels: channels.map(|channel| (channel.name.clone(), bytes(channel))).collect(),
            lines: valid(job.emitted.attempt_log_lines),
            checkpoints: valid(job.emitted.checkpoint.map_or(0, |checkpoint| checkpoint.number)),
            history: job.emitted.history_bytes,
            after: if is_all_behind { job.state_sequence } else { 0 },
        }
    }
}
