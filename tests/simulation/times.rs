//! When things happened to a job by its history: nothing before its time, and how long it ran.

use longhaul::proto::job::State;
use longhaul::proto::{Job, JobEvent, JobOptions, StateChange};

/// The times of a job, event by event.
pub struct Times {
    options: JobOptions,
    /// What the limits of its whole life are counted from.
    base: i64,
    /// When it was last to wait until.
    wait: Option<i64>,
    began: Option<i64>,
    /// From when to when the last attempt that has ended went on.
    pub last_attempt: (i64, i64),
    last: i64,
    /// The attempts that count.
    pub counted: i32,
    /// How long all of them have taken, in microseconds.
    pub ran: i64,
}

impl Times {
    pub fn new(job: &Job) -> Self {
        let options = job.options.clone().unwrap_or_default();
        let created = job.create_time.as_ref().map_or(0, micros);
        let base = options.schedule_time.as_ref().map_or(created, |time| micros(time).max(created));
        Self { options, base, wait: None, began: None, last_attempt: (0, 0), last: 0, counted: 0, ran: 0 }
    }

    /// Takes the next change of state in; what is wrong with its time, if anything is.
    pub fn pass(&mut self, event: &JobEvent, change: &StateChange) -> Option<String> {
        let now = event.event_time.as_ref().map_or(0, micros);
        let limit = |duration: &Option<prost_types::Duration>| duration.as_ref().map(micros_of);
        let since = |begin: i64, limit: Option<i64>| limit.is_some_and(|limit| now - begin < limit);
        let early = match change.reason.as_str() {
            "DUE" => self.wait.is_some_and(|wait| now < wait),
            "START_TIMEOUT" => since(self.base, limit(&self.options.schedule_to_start_timeout)),
            "JOB_TIMEOUT" => since(self.base, limit(&self.options.schedule_to_close_timeout)),
            "ATTEMPT_TIMEOUT" => {
                since(self.began.unwrap_or(now), limit(&self.options.start_to_close_timeout))
            }
            _ => false,
        };
        let back = now < self.last;
        self.last = now;
        self.wait = change.next_attempt_time.as_ref().map(micros).or(match change.state() {
            State::Scheduled => self.options.schedule_time.as_ref().map(micros),
            _ => None,
        });
        if change.state() == State::Running {
            self.began = Some(now);
            self.counted += 1;
        } else if change.state() != State::Cancelling
            && let Some(began) = self.began.take()
        {
            self.ran += now - began;
            self.last_attempt = (began, now);
            let counts = !matches!(change.reason.as_str(), "SERVER_RESTART" | "RELEASED");
            self.counted -= i32::from(!counts && change.state() != State::Cancelled);
        }
        match (early, back) {
            (true, _) => Some(format!("{} comes too early", change.reason)),
            (_, true) => Some("its time goes back".to_owned()),
            _ => None,
        }
    }
}

fn micros(time: &prost_types::Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

/// How many microseconds that is.
pub fn micros_of(duration: &prost_types::Duration) -> i64 {
    duration.seconds * 1_000_000 + i64::from(duration.nanos) / 1_000
}
