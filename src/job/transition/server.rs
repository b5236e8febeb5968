//! What the server does to a job, for a client or by itself: gives leases, takes them back, minds the time.

use super::{AfterFailure, Answer, Refusal, Step};
use crate::job::limits::*;
use crate::job::*;

impl Step {
    pub(super) fn lease(&mut self, lease: Lease, term: Option<Duration>, accept: bool) -> Answer {
        if self.job.place() != Place::Ready {
            return Err(Refusal::NotReady);
        }
        self.job.epoch += 1;
        self.job.lease = Some(lease);
        self.job.lease_term = term;
        if accept {
            self.begin_attempt();
        }
        Ok(self.job.state)
    }

    pub(super) fn adopt(&mut self, epoch: u32, keeper: Keeper) -> Answer {
        match &mut self.job.lease {
            Some(lease) if self.job.epoch == epoch => {
                lease.keeper = keeper;
                Ok(self.job.state)
            }
            Some(_) | None => Err(Refusal::LeaseLost),
        }
    }

    pub(super) fn end_lease(
        &mut self,
        epoch: u32,
        keeper: Keeper,
        cause: LeaseEnd,
        live: Live,
        jitter: f64,
    ) -> Answer {
        match &self.job.lease {
            Some(lease) if self.job.epoch == epoch && lease.keeper == keeper => {}
            Some(_) if self.job.epoch == epoch => return Err(Refusal::OtherKeeper),
            Some(_) | None => return Err(Refusal::LeaseLost),
        }
        match (self.job.state, cause) {
            (State::Pending, cause) => {
                self.lapse(EndedBy::Server);
                if cause == LeaseEnd::Unaccepted {
                    self.job.unaccepted += 1;
                }
                // A job that kills its worker at first sight ends so.
                if self.job.unaccepted >= UNACCEPTED_MAX {
                    let text =
                        format!("the job was handed out {UNACCEPTED_MAX} times in a row and never accepted");
                    self.end_with(State::Failed, Failure::new(reason::NOT_ACCEPTED, text).permanent());
                }
            }
            (State::Running | State::Cancelling, LeaseEnd::Unaccepted | LeaseEnd::Undelivered) => {
                return Err(Refusal::Accepted);
            }
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
                    LeaseEnd::Expired | LeaseEnd::Unaccepted | LeaseEnd::Undelivered => reason::LEASE_EXPIRED,
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

    pub(super) fn cancel(&mut self, message: String, grace: Duration) -> Answer {
        match self.job.state {
            State::Scheduled | State::Pending | State::Retrying => {
                self.end_lease_as(EndedBy::Server, State::Cancelled);
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

    pub(super) fn advance(&mut self, live: Live, jitter: f64) -> Answer {
        let now = self.now;
        let due = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
        let job_is_late = due(self.job.job_deadline());
        match self.job.state {
            State::Scheduled | State::Pending if due(self.job.start_deadline()) => {
                self.lapse(EndedBy::Server);
                let failure = Failure::new(reason::START_TIMEOUT, "no worker began in time").permanent();
                self.end_with(State::Expired, failure);
            }
            State::Scheduled | State::Pending | State::Retrying if job_is_late => {
                self.lapse(EndedBy::Server);
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

    pub(super) fn grant(&mut self) -> Answer {
        if self.job.place() != Place::Blocked {
            return Err(Refusal::NotReady);
        }
        self.job.granted = true;
        Ok(self.job.state)
    }
}

fn job_timeout() -> Failure {
    Failure::new(reason::JOB_TIMEOUT, "the job took too long").permanent()
}
