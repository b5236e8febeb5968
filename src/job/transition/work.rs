//! What the holder of a lease says: that it has begun, what it has made, and how it ended.
//!
//! Who holds a lease at all is decided by the server, in `server`.

use super::{AfterFailure, Answer, Refusal, Step};
use crate::job::limits::*;
use crate::job::*;

impl Step {
    pub(super) fn accept(&mut self, token: &LeaseToken) -> Answer {
        self.hold(token)?;
        Ok(self.job.state)
    }

    pub(super) fn enter_stage(&mut self, token: &LeaseToken, name: String) -> Answer {
        self.hold(token)?;
        if self.job.emitted.stage == name {
            return Ok(self.job.state);
        }
        self.job.emitted.stage.clone_from(&name);
        // A job that has had its share of stages goes on showing them in its progress; they are kept no more.
        if self.job.emitted.stages < STAGES_MAX {
            self.job.emitted.stages += 1;
            self.emit(Body::StageEntered { name });
        }
        Ok(self.job.state)
    }

    pub(super) fn append_output(
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
                if name.is_empty() {
                    self.void_checkpoint(kept_bytes);
                }
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

    /// A checkpoint never claims output that is void.
    fn void_checkpoint(&mut self, kept_bytes: u64) {
        if let Some(checkpoint) = &mut self.job.emitted.checkpoint
            && checkpoint.output_bytes.is_some_and(|claimed| claimed > kept_bytes)
        {
            checkpoint.output_bytes = None;
        }
    }

    pub(super) fn checkpoint(
        &mut self,
        token: &LeaseToken,
        number: u64,
        output_bytes: u64,
        data: Bytes,
    ) -> Answer {
        self.hold(token)?;
        // First, since what was reset meanwhile may well have been there when this one was recorded.
        if number <= self.job.emitted.checkpoint.map_or(0, |checkpoint| checkpoint.number) {
            return Ok(self.job.state);
        }
        let main = self.job.emitted.channels.iter().find(|channel| channel.name.is_empty());
        let present = main.map_or(0, |channel| channel.bytes);
        if output_bytes > present {
            return Err(Refusal::CheckpointAhead { output_bytes, present });
        }
        let begins_anew = data.is_empty() && output_bytes == 0;
        let output_bytes = (!begins_anew).then_some(output_bytes);
        self.job.emitted.checkpoint = Some(LastCheckpoint { number, output_bytes });
        self.checkpoint = (!begins_anew).then_some(data);
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

    pub(super) fn append_log(&mut self, token: &LeaseToken, offset: u64, lines: Vec<LogLine>) -> Answer {
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

    pub(super) fn complete(
        &mut self,
        token: &LeaseToken,
        result: Bytes,
        live: Live,
        output_bytes: Option<u64>,
    ) -> Answer {
        if let Some(answer) = self.repeated(token, EndedBy::Completion) {
            return Ok(answer);
        }
        if self.ended_cancelled(token) {
            return Err(Refusal::JobCancelled);
        }
        self.hold(token)?;
        match self.job.state {
            State::Running => {
                let present = self.job.emitted.channels.iter().map(|channel| channel.bytes).sum();
                match output_bytes {
                    Some(announced) if announced > present => {
                        return Err(Refusal::OutputMissing { present, announced });
                    }
                    // A frame from before a reset that came late: nobody should take it for the worker's own.
                    Some(announced) if announced < present => {
                        return Err(Refusal::OutputConflict { offset: announced });
                    }
                    Some(_) | None => {}
                }
                let mut change = self.end_attempt(EndedBy::Completion, State::Succeeded, live);
                change.reason = reason::COMPLETED.into();
                change.result = Some(result.clone());
                self.result = Some(result);
                self.enter(State::Succeeded, change);
                // Nothing goes on from it any more.
                self.job.emitted.checkpoint = None;
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

    pub(super) fn fail(
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
        if self.ended_cancelled(token) {
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

    pub(super) fn release(
        &mut self,
        token: &LeaseToken,
        message: String,
        delay: Duration,
        live: Live,
    ) -> Answer {
        if let Some(answer) = self.repeated(token, EndedBy::Release) {
            return Ok(answer);
        }
        if self.ended_cancelled(token) {
            return Ok(State::Cancelled);
        }
        if delay.is_zero() && self.job.lease.as_ref().is_some_and(|lease| !lease.accepted) {
            // Nothing has begun that could be given back.
            self.check(token)?;
            self.lapse(EndedBy::Release);
            return Ok(self.job.state);
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
}

/// How much of `data` goes into one event: all that fits, without splitting a UTF-8 character.
pub(super) fn piece_length(data: &[u8]) -> usize {
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
