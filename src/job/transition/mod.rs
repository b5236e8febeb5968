//! The life of a job: the one function that changes it, exhaustive over state and command.
//!
//! It does not know what time it is, does not roll dice, does not store and does not tell anybody.

mod resume;
mod server;
mod work;

pub use resume::resume;

use super::limits::*;
use super::*;
use crate::mutants::{self, Mutant};

/// A step that a job has taken, or a repeat of one that it had taken before.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// The job after it.
    pub job: Job,
    /// What happened, in order; nothing for a repeat.
    pub events: Vec<Event>,
    /// What the handler returned, where the step is to success.
    pub result: Option<Bytes>,
    /// What is now the last of the attempt that is latest-wins, where the step says so.
    pub live: Option<Live>,
    /// The data of the checkpoint that is kept from now on, where the step is to another one.
    pub checkpoint: Option<Bytes>,
    /// What the command made of the job; for a repeat, what it had made of it then.
    pub answer: State,
}

/// Why a command is refused. The job is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody may lease it now.
    #[error("the job is not ready")]
    NotReady,
    /// The lease has ended or passed to another.
    #[error("the lease has ended")]
    LeaseLost,
    /// The lease has another keeper.
    #[error("the lease is kept by another server")]
    OtherKeeper,
    /// The lease was accepted, so it cannot lapse for want of that.
    #[error("the lease was accepted")]
    Accepted,
    /// The job is being cancelled, or was: it cannot succeed any more.
    #[error("the job was cancelled")]
    JobCancelled,
    /// A worker said that it stopped, but nobody had asked it to.
    #[error("the job is not being cancelled, so a failure is required")]
    NothingToStop,
    /// Output is missing before this piece.
    #[error("the output goes on at byte {expected}")]
    OutputGap {
        /// Where it goes on.
        expected: u64,
    },
    /// Other bytes are there already.
    #[error("the output has other bytes at {offset}")]
    OutputConflict {
        /// Where they were to go.
        offset: u64,
    },
    /// Output is missing at the end.
    #[error("{present} of {announced} bytes of output have come")]
    OutputMissing {
        /// What has come.
        present: u64,
        /// What the worker announced.
        announced: u64,
    },
    /// There is too much output.
    #[error("the job's output exceeds {limit} bytes")]
    OutputLimit {
        /// The limit.
        limit: u64,
    },
    /// There are too many channels.
    #[error("the job's output has more than {CHANNELS_MAX} channels")]
    ChannelLimit,
    /// A checkpoint is to keep more output than there is.
    #[error("a checkpoint keeps {output_bytes} bytes of output; there are {present}")]
    CheckpointAhead {
        /// How much it is to keep.
        output_bytes: u64,
        /// How much there is.
        present: u64,
    },
    /// Log lines are missing before these.
    #[error("the log goes on at line {expected}")]
    LogGap {
        /// Where it goes on.
        expected: u64,
    },
}

/// Carries out `command` on `job` as of `now`, or of its last event, where a clock has gone back behind that.
pub fn transition(job: &Job, command: Command, now: Timestamp) -> Result<Transition, Refusal> {
    let now = now.max(job.update_time());
    let mut step =
        Step { job: job.clone(), events: Vec::new(), result: None, live: None, checkpoint: None, now };
    let answer = match command {
        Command::Lease { worker, keeper, secret, in_process, term, accept } => {
            step.lease(Lease { secret, worker, keeper, in_process, accepted: false }, term, accept)
        }
        Command::Accept { lease } => step.accept(&lease),
        Command::Adopt { epoch, keeper } => step.adopt(epoch, keeper),
        Command::EnterStage { lease, name } => step.enter_stage(&lease, name),
        Command::AppendOutput { lease, channel, reset_to, offset, data } => {
            step.append_output(&lease, channel, reset_to, offset, data)
        }
        Command::Checkpoint { lease, number, output_bytes, data } => {
            step.checkpoint(&lease, number, output_bytes, data)
        }
        Command::AppendLog { lease, offset, lines } => step.append_log(&lease, offset, lines),
        Command::Complete { lease, result, live, output_bytes } => {
            step.complete(&lease, result, live, output_bytes)
        }
        Command::Fail { lease, failure, retry_delay, live, jitter } => {
            step.fail(&lease, failure, retry_delay.unwrap_or_default(), live, jitter)
        }
        Command::Release { lease, reason, delay, live } => step.release(&lease, reason, delay, live),
        Command::EndLease { epoch, keeper, cause, live, jitter } => {
            step.end_lease(epoch, keeper, cause, live, jitter)
        }
        Command::Cancel { reason, grace } => step.cancel(reason, grace),
        Command::Advance { live, jitter } => step.advance(live, jitter),
        Command::Grant => step.grant(),
    }?;
    let Step { job, events, result, live, checkpoint, .. } = step;
    Ok(Transition { job, events, result, live, checkpoint, answer })
}

/// What a command makes of a job, or why not.
type Answer = Result<State, Refusal>;

/// A job on its way through one command.
struct Step {
    job: Job,
    events: Vec<Event>,
    result: Option<Bytes>,
    live: Option<Live>,
    checkpoint: Option<Bytes>,
    now: Timestamp,
}

/// What follows on a failed attempt, unless it was the last.
enum AfterFailure {
    /// Another attempt after a wait.
    Retry(Duration),
    /// Another attempt at once.
    Again,
}

impl Step {
    /// Makes sure that `token` names the lease that holds the job.
    fn check(&self, token: &LeaseToken) -> Result<&Lease, Refusal> {
        match &self.job.lease {
            Some(lease) if self.job.epoch == token.epoch && lease.secret == token.secret => Ok(lease),
            Some(lease) if mutants::is(Mutant::FencingOff) => Ok(lease),
            Some(_) | None => Err(Refusal::LeaseLost),
        }
    }

    /// The same, and accepts that lease where it is still provisional.
    fn hold(&mut self, token: &LeaseToken) -> Result<(), Refusal> {
        if !self.check(token)?.accepted {
            self.begin_attempt();
        }
        Ok(())
    }

    /// What became of the job when this very report ended this very lease.
    fn repeated(&self, token: &LeaseToken, by: EndedBy) -> Option<State> {
        let ended = self.job.ended_lease?;
        (ended.epoch == token.epoch && ended.secret == token.secret && ended.by == by).then_some(ended.state)
    }

    /// Whether the job was cancelled with this very lease: every later report hears that, whatever ended the lease.
    fn ended_cancelled(&self, token: &LeaseToken) -> bool {
        let of = |ended: &EndedLease| ended.epoch == token.epoch && ended.secret == token.secret;
        self.job.ended_lease.as_ref().is_some_and(|ended| of(ended) && ended.state == State::Cancelled)
    }

    /// From pending to running, with everything that an attempt begins with, in one step.
    fn begin_attempt(&mut self) {
        let now = self.now;
        let job = &mut self.job;
        if let Some(lease) = &mut job.lease {
            lease.accepted = true;
        }
        job.counted_attempts += 1;
        job.attempt = match mutants::is(Mutant::AttemptNumberReused) {
            false => job.attempt + 1,
            true => job.counted_attempts,
        };
        job.unaccepted = 0;
        job.start_time.get_or_insert(now);
        job.attempt_start_time = Some(now);
        let change = StateChange { reason: reason::ACCEPTED.into(), ..self.change_to(State::Running) };
        self.enter(State::Running, change);
        self.job.emitted.attempt_log_lines = 0;
        self.job.emitted.stage.clear();
        if let Some(checkpoint) = &mut self.job.emitted.checkpoint {
            checkpoint.number = 0;
        }
        let kept = match mutants::is(Mutant::KeptOutputVoid) {
            false => self.job.checkpoint().unwrap_or(0),
            true => 0,
        };
        for index in 0..self.job.emitted.channels.len() {
            let channel = &mut self.job.emitted.channels[index];
            let kept_bytes = if channel.name.is_empty() { kept } else { 0 };
            if std::mem::replace(&mut channel.bytes, kept_bytes) > 0
                && !mutants::is(Mutant::OutputResetLeftOut)
            {
                let channel = channel.name.clone();
                self.emit(Body::OutputReset { channel, kept_bytes });
            }
        }
    }

    /// The attempt has failed: another one, or the end.
    fn fail_attempt(&mut self, by: EndedBy, failure: Failure, then: AfterFailure, live: Live) {
        let exhausted = self.job.counted_attempts >= self.job.options.retry.maximum_attempts;
        let (state, next_attempt_time) = match then {
            _ if failure.permanent || exhausted => (State::Failed, None),
            AfterFailure::Retry(delay) => (State::Retrying, Some(self.now.after(delay))),
            AfterFailure::Again => (State::Pending, None),
        };
        let mut change = self.end_attempt(by, state, live);
        change.reason = failure.reason.clone();
        change.next_attempt_time = next_attempt_time;
        change.failure = Some(failure);
        self.enter(state, change);
    }

    /// The worker of a job that is being cancelled is gone, one way or another.
    fn let_go(&mut self, by: EndedBy, why: &'static str, live: Live) {
        let mut change = self.end_attempt(by, State::Cancelled, live);
        change.reason = why.into();
        self.enter(State::Cancelled, change);
    }

    /// Ends a job that no worker has.
    fn end_with(&mut self, state: State, failure: Failure) {
        let change =
            StateChange { reason: failure.reason.clone(), failure: Some(failure), ..self.change_to(state) };
        self.enter(state, change);
    }

    /// Ends a claim that was never accepted. It leaves no trace in the history.
    fn lapse(&mut self, by: EndedBy) {
        self.end_lease_as(by, self.job.state);
    }

    /// Ends the lease on the way to `state`, and remembers it where a report under it may get that answer again. What the
    /// server has ended is heard as lost by every later report, unless the job was cancelled; so it does not take the place of
    /// a lease whose own last report may come again.
    fn end_lease_as(&mut self, by: EndedBy, state: State) {
        let job = &mut self.job;
        if let Some(lease) = job.lease.take()
            && (by != EndedBy::Server || state == State::Cancelled)
        {
            job.ended_lease = Some(EndedLease { epoch: job.epoch, secret: lease.secret, by, state });
        }
    }

    /// Ends the lease and the attempt, on the way to `state`.
    fn end_attempt(&mut self, by: EndedBy, state: State, live: Live) -> StateChange {
        let change = StateChange { metrics: live.metrics.clone(), ..self.change_to(state) };
        self.end_lease_as(by, state);
        let job = &mut self.job;
        if mutants::is(Mutant::CheckpointLost) {
            job.emitted.checkpoint = None;
        }
        job.run_duration += self.now.since(job.attempt_start_time.unwrap_or(self.now));
        if !live.is_empty() {
            self.live = Some(live);
        }
        change
    }

    /// A step from here to `state`, with what is the same for all of them.
    fn change_to(&self, state: State) -> StateChange {
        StateChange {
            previous: Some(self.job.state),
            state,
            reason: "".into(),
            failure: None,
            worker: self.job.lease.as_ref().map(|lease| lease.worker.clone()),
            result: None,
            next_attempt_time: None,
            message: String::new(),
            metrics: Metrics::new(),
        }
    }

    /// Moves to `state`: everything that follows from being there, and the event.
    fn enter(&mut self, state: State, change: StateChange) {
        let job = &mut self.job;
        job.state = state;
        job.failure = change.failure.clone().filter(|_| match state {
            State::Retrying | State::Failed | State::Expired => true,
            State::Scheduled
            | State::Pending
            | State::Running
            | State::Cancelling
            | State::Succeeded
            | State::Cancelled => false,
        });
        job.next_attempt_time = change.next_attempt_time;
        job.queue_duration += self.now.since(job.pending_time.unwrap_or(self.now));
        job.pending_time = (state == State::Pending).then_some(self.now);
        if state != State::Cancelling {
            job.cancel_deadline = None;
        }
        if state.is_final() {
            job.end_time = Some(self.now);
        }
        if state != State::Pending && state != State::Running && state != State::Cancelling {
            job.granted = false;
        }
        if state == State::Cancelling && mutants::is(Mutant::KeyReleasedTwice) {
            job.granted = false;
        }
        job.state_sequence = job.sequence() + 1;
        job.state_time = self.now;
        let event = Event {
            sequence: job.state_sequence,
            attempt: job.attempt,
            time: self.now,
            body: Body::StateChanged(Box::new(change)),
        };
        self.events.push(event);
    }

    /// Records something that the attempt sent.
    fn emit(&mut self, body: Body) {
        let sequence = self.job.sequence() + 1;
        self.job.emitted.sequence = sequence;
        self.job.emitted.time = self.now;
        self.events.push(Event { sequence, attempt: self.job.attempt, time: self.now, body });
    }
}

#[cfg(test)]
mod tests;
