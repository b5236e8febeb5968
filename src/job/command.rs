//! What can be asked of a job. Everything that a transition needs to know beside the job comes with its command.

use super::event::{Failure, LogLine};
use super::lease::{Keeper, LeaseToken};
use super::progress::Live;
use bytes::Bytes;
use std::time::Duration;

/// Something asked of a job.
///
/// Those with a `lease` come from its worker and are refused when the lease has ended. Each may come twice, as after a
/// commit of unknown outcome, and does nothing the second time, unless it says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Lets a worker have the job: a new lease, provisional unless it is accepted at once.
    Lease {
        /// The worker.
        worker: String,
        /// Who watches over the lease.
        keeper: Keeper,
        /// The secret part of its token.
        secret: u64,
        /// The worker runs in the keeper's process.
        in_process: bool,
        /// How long the lease lasts without a sign of its holder, where the worker asked for something else than the
        /// server's own.
        term: Option<Duration>,
        /// It has a free slot right now: the attempt begins with the lease.
        accept: bool,
    },
    /// The worker has begun.
    Accept {
        /// Its lease.
        lease: LeaseToken,
    },
    /// Another server watches over the lease from now on.
    Adopt {
        /// The number of the lease.
        epoch: u32,
        /// That server.
        keeper: Keeper,
    },
    /// The attempt entered another stage. Entering the one that it is in does nothing.
    EnterStage {
        /// Its lease.
        lease: LeaseToken,
        /// The stage.
        name: String,
    },
    /// The attempt goes on with its output.
    AppendOutput {
        /// Its lease.
        lease: LeaseToken,
        /// The channel; empty is the main output.
        channel: String,
        /// Void everything from here on first. Where that comes twice, the data that came with it is voided and kept
        /// again: the history grows, the valid output is the same.
        reset_to: Option<u64>,
        /// Where `data` belongs. Bytes that are there already are skipped.
        offset: u64,
        /// The next bytes, none for a mere reset.
        data: Bytes,
    },
    /// The attempt records where it is, for the next one. One that is not numbered above the last does nothing.
    Checkpoint {
        /// Its lease.
        lease: LeaseToken,
        /// Its number among those of the attempt, from 1; some may be left out.
        number: u64,
        /// How much of the main output stays valid.
        output_bytes: u64,
        /// What the next attempt is given; empty with no output where that is to begin anew.
        data: Bytes,
    },
    /// The handler said something.
    AppendLog {
        /// Its lease.
        lease: LeaseToken,
        /// How many lines the attempt sent before. Lines that are there already are skipped.
        offset: u64,
        /// The lines.
        lines: Vec<LogLine>,
    },
    /// The worker is done.
    Complete {
        /// Its lease.
        lease: LeaseToken,
        /// What the job returns, as JSON text.
        result: Bytes,
        /// The last that was heard of the attempt.
        live: Live,
        /// How many bytes of output belong to the attempt, where the worker said so.
        output_bytes: Option<u64>,
    },
    /// The attempt failed; without a failure, the worker stopped as a cancellation asked.
    Fail {
        /// Its lease.
        lease: LeaseToken,
        /// What went wrong.
        failure: Option<Failure>,
        /// The shortest wait before the next attempt.
        retry_delay: Option<Duration>,
        /// The last that was heard of the attempt.
        live: Live,
        /// From 0 to 1, for the wait.
        jitter: f64,
    },
    /// The worker gives the job back.
    Release {
        /// Its lease.
        lease: LeaseToken,
        /// Why, for the history.
        reason: String,
        /// Not before this has passed.
        delay: Duration,
        /// The last that was heard of the attempt.
        live: Live,
    },
    /// The keeper takes the lease back.
    EndLease {
        /// The number of the lease.
        epoch: u32,
        /// The keeper; refused when the row names another.
        keeper: Keeper,
        /// Why.
        cause: LeaseEnd,
        /// The last that the keeper heard of the attempt.
        live: Live,
        /// From 0 to 1, for the wait.
        jitter: f64,
    },
    /// A client asks that it stop.
    Cancel {
        /// Why, for the history.
        reason: String,
        /// How long the worker may take.
        grace: Duration,
    },
    /// Does what is due by now: starts, retries, timeouts, expiry, the end of a grace period.
    ///
    /// What becomes due only by that, as a retry without a wait does, is for the next one.
    Advance {
        /// The last that was kept of the attempt.
        live: Live,
        /// From 0 to 1, for a wait.
        jitter: f64,
    },
    /// A place of its concurrency key is taken for it: it is ready.
    Grant,
}

/// Why a keeper takes a lease back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The worker was silent for a whole lease. The attempt counts.
    Expired,
    /// The claim was not accepted in time. Leaves no trace, but too many in a row end the job.
    Unaccepted,
    /// The claim never reached a worker. Leaves no trace, and says nothing about the job.
    Undelivered,
    /// The attempt was silent for longer than the job's `progress_timeout`. The attempt counts.
    Stalled,
    /// The process that ran the attempt stopped. The attempt does not count.
    Restarted,
}
