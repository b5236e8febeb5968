//! The life of a job: the one function that changes it, exhaustive over state and command.
//!
//! It does not know what time it is, does not roll dice, does not store and does not tell anybody.

use super::limits::*;
use super::*;

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
    /// Log lines are missing before these.
    #[error("the log goes on at line {expected}")]
    LogGap {
        /// Where it goes on.
        expected: u64,
    },
}

/// Carries out `command` on `job` as of `now`.
pub fn transition(job: &Job, command: Command, now: Timestamp) -> Result<Transition, Refusal> {
    let mut step = Step { job: job.clone(), events: Vec::new(), result: None, live: None, now };
    let answer = match command {
        Command::Lease { worker, keeper, secret, in_process, accept } => {
            step.lease(Lease { secret, worker, keeper, in_process, accepted: false }, accept)
        }
        Command::Accept { lease } => step.accept(&lease),
        Command::Adopt { epoch, keeper } => step.adopt(epoch, keeper),
        Command::EnterStage { lease, name } => step.enter_stage(&lease, name),
        Command::AppendOutput { lease, channel, reset_to, offset, data } => {
            step.append_output(&lease, channel, reset_to, offset, data)
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
    let Step { job, events, result, live, .. } = step;
    Ok(Transition { job, events, result, live, answer })
}

/// What a command makes of a job, or why not.
type Answer = Result<State, Refusal>;

/// A job on its way through one command.
struct Step {
    job: Job,
    events: Vec<Event>,
    result: Option<Bytes>,
    live: Option<Live>,
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
    fn lease(&mut self, lease: Lease, accept: bool) -> Answer {
        if self.job.place() != Place::Ready {
            return Err(Refusal::NotReady);
        }
        self.job.epoch += 1;
        self.job.lease = Some(lease);
        if accept {
            self.begin_attempt();
        }
        Ok(self.job.state)
    }

    fn accept(&mut self, token: &LeaseToken) -> Answer {
        self.hold(token)?;
        Ok(self.job.state)
    }

    fn adopt(&mut self, epoch: u32, keeper: Keeper) -> Answer {
        match &mut self.job.lease {
            Some(lease) if self.job.epoch == epoch => {
                lease.keeper = keeper;
                Ok(self.job.state)
            }
            Some(_) | None => Err(Refusal::LeaseLost),
        }
    }

    fn enter_stage(&mut self, token: &LeaseToken, name: String) -> Answer {
        self.hold(token)?;
        // A job that has had its share of stages goes on showing them in its progress; they are kept no more.
        if self.job.emitted.stages < STAGES_MAX {
            self.job.emitted.stages += 1;
            self.emit(Body::StageEntered { name });
        }
        Ok(self.job.state)
    }

    fn append_output(
        &mut self,
        token: &LeaseToken,
        name: String,
        reset_to: Option<u64>,
        offset: u64,
        data: Bytes,
    ) -> Answer {
        self.hold(token)?;
        let known = self.job.emitted.channels.iter().position(|channel| channel.name == name);
        let mut bytes = known.map_or(0, |index| self.job.emitted.channels[index].bytes);
        if let Some(kept_bytes) = reset_to {
            if kept_bytes > bytes {
                return Err(Refusal::OutputGap { expected: bytes });
            }
            if kept_bytes < bytes {
                bytes = kept_bytes;
                self.emit(Body::OutputReset { channel: name.clone(), kept_bytes });
            }
        }
        if offset > bytes {
            return Err(Refusal::OutputGap { expected: bytes });
        }
        let known = match known {
            Some(index) => index,
            None if self.job.emitted.channels.len() == CHANNELS_MAX => return Err(Refusal::ChannelLimit),
            None => {
                self.job.emitted.channels.push(Channel { name: name.clone(), bytes: 0 });
                self.job.emitted.channels.len() - 1
            }
        };
        self.job.emitted.channels[known].bytes = bytes;
        let present = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(data.len());
        let mut rest = data.slice(present..);
        self.check_output_limits(rest.len() as u64)?;
        while !rest.is_empty() {
            let piece = rest.split_to(piece_length(&rest));
            let offset = self.job.emitted.channels[known].bytes;
            self.job.emitted.channels[known].bytes += piece.len() as u64;
            self.job.emitted.history_bytes += piece.len() as u64;
            self.emit(Body::OutputAppended { channel: name.clone(), offset, data: piece });
        }
        Ok(self.job.state)
    }

    fn check_output_limits(&self, more: u64) -> Result<(), Refusal> {
        let valid: u64 = self.job.emitted.channels.iter().map(|channel| channel.bytes).sum();
        let limits = [
            (valid + more, OUTPUT_BYTES_MAX),
            (self.job.emitted.history_bytes + more, OUTPUT_HISTORY_BYTES_MAX),
        ];
        match limits.into_iter().find(|(bytes, limit)| bytes > limit) {
            Some((_, limit)) => Err(Refusal::OutputLimit { limit }),
            None => Ok(()),
        }
    }

    fn append_log(&mut self, token: &LeaseToken, offset: u64, lines: Vec<LogLine>) -> Answer {
        self.hold(token)?;
        let expected = self.job.emitted.attempt_log_lines;
        if offset > expected {
            return Err(Refusal::LogGap { expected });
        }
        let present = usize::try_from(expected - offset).unwrap_or(usize::MAX);
        for line in lines.into_iter().skip(present) {
            self.job.emitted.attempt_log_lines += 1;
            let kept = self.job.emitted.log_lines;
            if kept >= LOG_LINES_MAX {
                continue;
            }
            self.job.emitted.log_lines += 1;
            self.emit(Body::Logged(match kept + 1 == LOG_LINES_MAX {
                false => line,
                true => LogLine {
                    level: LogLevel::Warn,
                    message: format!("the log is full at {LOG_LINES_MAX} lines; later ones are not kept"),
                },
            }));
        }
        Ok(self.job.state)
    }

    fn complete(
        &mut self,
        token: &LeaseToken,
        result: Bytes,
        live: Live,
        output_bytes: Option<u64>,
    ) -> Answer {
        if let Some(answer) = self.repeated(token, EndedBy::Completion) {
            return Ok(answer);
        }
        if self.ended_by_server(token) == Some(State::Cancelled) {
            return Err(Refusal::JobCancelled);
        }
        self.hold(token)?;
        match self.job.state {
            State::Running => {
                let present = self.job.emitted.channels.iter().map(|channel| channel.bytes).sum();
                if let Some(announced) = output_bytes.filter(|announced| *announced > present) {
                    return Err(Refusal::OutputMissing { present, announced });
                }
                let mut change = self.end_attempt(EndedBy::Completion, State::Succeeded, live);
                change.reason = reason::COMPLETED.into();
                change.result = Some(result.clone());
                self.result = Some(result);
                self.enter(State::Succeeded, change);
                Ok(self.job.state)
            }
            State::Cancelling => Err(Refusal::JobCancelled),
            State::Scheduled
            | State::Pending
            | State::Retrying
            | State::Succeeded
            | State::Failed
            | State::Cancelled
            | State::Expired => Err(Refusal::LeaseLost),
        }
    }

    fn fail(
        &mut self,
        token: &LeaseToken,
        failure: Option<Failure>,
        least_delay: Duration,
        live: Live,
        jitter: f64,
    ) -> Answer {
        if let Some(answer) = self.repeated(token, EndedBy::Failure) {
            return Ok(answer);
        }
        if self.ended_by_server(token) == Some(State::Cancelled) {
            return Ok(State::Cancelled);
        }
        self.hold(token)?;
        match (self.job.state, failure) {
            (State::Running, Some(failure)) => {
                let delay = self.job.options.retry.delay(self.job.counted_attempts, jitter).max(least_delay);
                self.fail_attempt(EndedBy::Failure, failure, AfterFailure::Retry(delay), live);
                Ok(self.job.state)
            }
            (State::Running, None) => Err(Refusal::NothingToStop),
            (State::Cancelling, _) => {
                self.let_go(EndedBy::Failure, reason::WORKER_STOPPED, live);
                Ok(self.job.state)
            }
            (
                State::Scheduled
                | State::Pending
                | State::Retrying
                | State::Succeeded
                | State::Failed
                | State::Cancelled
                | State::Expired,
                _,
            ) => Err(Refusal::LeaseLost),
        }
    }

    fn release(&mut self, token: &LeaseToken, message: String, delay: Duration, live: Live) -> Answer {
        if let Some(answer) = self.repeated(token, EndedBy::Release) {
            return Ok(answer);
        }
        if self.ended_by_server(token) == Some(State::Cancelled) {
            return Ok(State::Cancelled);
        }
        self.hold(token)?;
        match self.job.state {
            State::Running => {
                self.job.releases += 1;
                self.job.counted_attempts = self.job.counted_attempts.saturating_sub(1);
                if self.job.releases > RELEASES_MAX {
                    let text = format!("the job was given back more than {RELEASES_MAX} times");
                    let failure = Failure::new(reason::RELEASE_LIMIT, text).permanent();
                    self.fail_attempt(EndedBy::Release, failure, AfterFailure::Again, live);
                    return Ok(self.job.state);
                }
                let state = if delay.is_zero() { State::Pending } else { State::Scheduled };
                let mut change = self.end_attempt(EndedBy::Release, state, live);
                change.reason = reason::RELEASED.into();
                change.message = message;
                change.next_attempt_time = (!delay.is_zero()).then(|| self.now.after(delay));
                self.enter(state, change);
                Ok(self.job.state)
            }
            State::Cancelling => {
                self.let_go(EndedBy::Release, reason::WORKER_STOPPED, live);
                Ok(self.job.state)
            }
            State::Scheduled
            | State::Pending
            | State::Retrying
            | State::Succeeded
            | State::Failed
            | State::Cancelled
            | State::Expired => Err(Refusal::LeaseLost),
        }
    }

    fn end_lease(&mut self, epoch: u32, keeper: Keeper, cause: LeaseEnd, live: Live, jitter: f64) -> Answer {
        match &self.job.lease {
            Some(lease) if self.job.epoch == epoch && lease.keeper == keeper => {}
            Some(_) if self.job.epoch == epoch => return Err(Refusal::OtherKeeper),
            Some(_) | None => return Err(Refusal::LeaseLost),
        }
        match (self.job.state, cause) {
            (State::Pending, _) => self.lapse(),
            (State::Running | State::Cancelling, LeaseEnd::Unaccepted) => return Err(Refusal::Accepted),
            (State::Running, LeaseEnd::Expired) => {
                let failure = Failure::new(reason::LEASE_EXPIRED, "the worker was silent for a whole lease");
                self.fail_attempt(EndedBy::Server, failure, AfterFailure::Again, live);
            }
            (State::Running, LeaseEnd::Stalled) => {
                let failure = Failure::new(reason::STALLED, "the attempt was silent for too long");
                let delay = self.job.options.retry.delay(self.job.counted_attempts, jitter);
                self.fail_attempt(EndedBy::Server, failure, AfterFailure::Retry(delay), live);
            }
            (State::Running, LeaseEnd::Restarted) => {
                self.job.restarts += 1;
                self.job.counted_attempts = self.job.counted_attempts.saturating_sub(1);
                let failure = Failure::new(reason::SERVER_RESTART, "the server stopped during the attempt");
                let failure = Failure { permanent: self.job.restarts > RESTARTS_MAX, ..failure };
                self.fail_attempt(EndedBy::Server, failure, AfterFailure::Again, live);
            }
            (State::Cancelling, LeaseEnd::Expired | LeaseEnd::Stalled | LeaseEnd::Restarted) => {
                let why = match cause {
                    LeaseEnd::Restarted => reason::SERVER_RESTART,
                    LeaseEnd::Stalled => reason::STALLED,
                    LeaseEnd::Expired | LeaseEnd::Unaccepted => reason::LEASE_EXPIRED,
                };
                self.let_go(EndedBy::Server, why, live);
            }
            (
                State::Scheduled
                | State::Retrying
                | State::Succeeded
                | State::Failed
                | State::Cancelled
                | State::Expired,
                _,
            ) => return Err(Refusal::LeaseLost),
        }
        Ok(self.job.state)
    }

    fn cancel(&mut self, message: String, grace: Duration) -> Answer {
        match self.job.state {
            State::Scheduled | State::Pending | State::Retrying => {
                self.lapse();
                let change = StateChange {
                    reason: reason::CANCEL_REQUESTED.into(),
                    message,
                    ..self.change_to(State::Cancelled)
                };
                self.enter(State::Cancelled, change);
            }
            State::Running => {
                self.job.cancel_deadline = Some(self.now.after(grace));
                let change = StateChange {
                    reason: reason::CANCEL_REQUESTED.into(),
                    message,
                    ..self.change_to(State::Cancelling)
                };
                self.enter(State::Cancelling, change);
            }
            // The first cancellation set the grace period; a second one changes nothing.
            State::Cancelling | State::Succeeded | State::Failed | State::Cancelled | State::Expired => {}
        }
        Ok(self.job.state)
    }

    fn advance(&mut self, live: Live, jitter: f64) -> Answer {
        let now = self.now;
        let due = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
        let job_is_late = due(self.job.job_deadline());
        match self.job.state {
            State::Scheduled | State::Pending if due(self.job.start_deadline()) => {
                self.lapse();
                let failure = Failure::new(reason::START_TIMEOUT, "no worker began in time").permanent();
                self.end_with(State::Expired, failure);
            }
            State::Scheduled | State::Pending | State::Retrying if job_is_late => {
                self.lapse();
                self.end_with(State::Failed, job_timeout());
            }
            State::Scheduled | State::Retrying => {
                if due(self.job.next_attempt_time) {
                    let change = StateChange { reason: reason::DUE.into(), ..self.change_to(State::Pending) };
                    self.enter(State::Pending, change);
                }
            }
            State::Pending => {}
            State::Running if job_is_late => {
                self.fail_attempt(EndedBy::Server, job_timeout(), AfterFailure::Again, live);
            }
            State::Running => {
                if due(self.job.attempt_deadline()) {
                    let failure = Failure::new(reason::ATTEMPT_TIMEOUT, "the attempt took too long");
                    let delay = self.job.options.retry.delay(self.job.counted_attempts, jitter);
                    self.fail_attempt(EndedBy::Server, failure, AfterFailure::Retry(delay), live);
                }
            }
            State::Cancelling => {
                let why = if due(self.job.cancel_deadline) {
                    Some(reason::GRACE_PERIOD_ENDED)
                } else if job_is_late {
                    Some(reason::JOB_TIMEOUT)
                } else if due(self.job.attempt_deadline()) {
                    Some(reason::ATTEMPT_TIMEOUT)
                } else {
                    None
                };
                if let Some(why) = why {
                    self.let_go(EndedBy::Server, why, live);
                }
            }
            State::Succeeded | State::Failed | State::Cancelled | State::Expired => {}
        }
        Ok(self.job.state)
    }

    fn grant(&mut self) -> Answer {
        if self.job.place() != Place::Blocked {
            return Err(Refusal::NotReady);
        }
        self.job.granted = true;
        Ok(self.job.state)
    }

    /// Makes sure that `token` names the lease that holds the job, and accepts that lease where it is still provisional.
    fn hold(&mut self, token: &LeaseToken) -> Result<(), Refusal> {
        match &self.job.lease {
            Some(lease) if self.job.epoch == token.epoch && lease.secret == token.secret => {
                if !lease.accepted {
                    self.begin_attempt();
                }
                Ok(())
            }
            Some(_) | None => Err(Refusal::LeaseLost),
        }
    }

    /// What became of the job when this very report ended this very lease.
    fn repeated(&self, token: &LeaseToken, by: EndedBy) -> Option<State> {
        let ended = self.job.ended_lease?;
        (ended.epoch == token.epoch && ended.secret == token.secret && ended.by == by).then_some(ended.state)
    }

    /// What became of the job when the server took this lease back.
    fn ended_by_server(&self, token: &LeaseToken) -> Option<State> {
        self.repeated(token, EndedBy::Server)
    }

    /// From pending to running, with everything that an attempt begins with, in one step.
    fn begin_attempt(&mut self) {
        let now = self.now;
        let job = &mut self.job;
        if let Some(lease) = &mut job.lease {
            lease.accepted = true;
        }
        job.attempt += 1;
        job.counted_attempts += 1;
        job.start_time.get_or_insert(now);
        job.attempt_start_time = Some(now);
        let change = StateChange { reason: reason::ACCEPTED.into(), ..self.change_to(State::Running) };
        self.enter(State::Running, change);
        self.job.emitted.attempt_log_lines = 0;
        for index in 0..self.job.emitted.channels.len() {
            let channel = &mut self.job.emitted.channels[index];
            if std::mem::take(&mut channel.bytes) > 0 {
                let channel = channel.name.clone();
                self.emit(Body::OutputReset { channel, kept_bytes: 0 });
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

    /// Takes back a claim that was never accepted. It leaves no trace in the history.
    fn lapse(&mut self) {
        if let Some(lease) = self.job.lease.take() {
            self.job.ended_lease = Some(EndedLease {
                epoch: self.job.epoch,
                secret: lease.secret,
                by: EndedBy::Server,
                state: self.job.state,
            });
        }
    }

    /// Ends the lease and the attempt, on the way to `state`.
    fn end_attempt(&mut self, by: EndedBy, state: State, live: Live) -> StateChange {
        let change = StateChange { metrics: live.metrics.clone(), ..self.change_to(state) };
        let job = &mut self.job;
        if let Some(lease) = job.lease.take() {
            job.ended_lease = Some(EndedLease { epoch: job.epoch, secret: lease.secret, by, state });
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

fn job_timeout() -> Failure {
    Failure::new(reason::JOB_TIMEOUT, "the job took too long").permanent()
}

/// How much of `data` goes into one event: all that fits, without splitting a UTF-8 character.
fn piece_length(data: &[u8]) -> usize {
    if data.len() <= OUTPUT_EVENT_BYTES_MAX {
        return data.len();
    }
    let continues = |index: usize| data[index] & 0b1100_0000 == 0b1000_0000;
    // A character has at most four bytes; what has more continuation bytes is no text, and may be split anywhere.
    (OUTPUT_EVENT_BYTES_MAX - 3..=OUTPUT_EVENT_BYTES_MAX)
        .rev()
        .find(|index| !continues(*index))
        .unwrap_or(OUTPUT_EVENT_BYTES_MAX)
}

#[cfg(test)]
mod tests;
