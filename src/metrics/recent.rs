//! What happened in the last minutes, in slices of ten seconds, for people who look at a page.
//!
//! The times are those of the jobs and their events, so nobody asks a clock. What is older than the newest by more than is
//! kept is left out.

mod times;

use crate::engine::Observe;
use crate::job::{Body, Event, Job, State, StateChange, Timestamp};
use parking_lot::Mutex;
use std::time::Duration;
use times::Times;

/// How long a slice is: some points in each minute, and few enough to be drawn.
pub const SLICE: Duration = Duration::from_secs(10);
/// How many slices are kept: a quarter of an hour, in about 80 KiB.
pub const SLICES: usize = 90;

const SLICE_MICROS: i64 = SLICE.as_micros() as i64;

/// What happened in the last minutes.
#[derive(Debug)]
pub struct Recent(Mutex<Vec<Kept>>);

/// What happened in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// When it begins.
    pub time: Timestamp,
    /// Jobs that were created.
    pub created: u64,
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that were not started in time.
    pub expired: u64,
    /// Attempts that failed and are repeated.
    pub retried: u64,
    /// How long half of the jobs that succeeded took at most, from the ticket or the time that they were scheduled for.
    pub p50: Option<Duration>,
    /// How long 95 % of them took at most.
    pub p95: Option<Duration>,
}

/// The slices of the last minutes, and what they come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minutes {
    /// All of them, oldest first; the last is still going on.
    pub slices: Vec<Slice>,
    /// Their sum.
    pub all: Slice,
}

/// A slice as it is kept.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// Which one it is, counted from 1970.
    number: i64,
    counts: Slice,
    times: Times,
}

impl Default for Recent {
    fn default() -> Self {
        Self(Mutex::new(vec![Kept::default(); SLICES]))
    }
}

impl Recent {
    /// The slices up to the one that `now` lies in.
    pub fn minutes(&self, now: Timestamp) -> Minutes {
        // Copied, so that whoever commits waits no longer than that takes.
        let kept = self.0.lock().clone();
        let last = number(now);
        let mut all = Kept::default();
        let slices = (last - (SLICES as i64 - 1)..=last).map(|number| {
            let found = &kept[place(number)];
            let time = Timestamp::from_micros(number.saturating_mul(SLICE_MICROS));
            if found.number != number {
                return Slice { time, ..Slice::default() };
            }
            all.add(found);
            Slice { time, ..found.slice() }
        });
        let slices: Vec<Slice> = slices.collect();
        let time = slices.first().map_or(now, |first| first.time);
        Minutes { slices, all: Slice { time, ..all.slice() } }
    }

    fn record(&self, time: Timestamp, act: impl FnOnce(&mut Kept)) {
        let number = number(time);
        let mut kept = self.0.lock();
        let kept = &mut kept[place(number)];
        if kept.number < number {
            *kept = Kept { number, ..Kept::default() };
        }
        // One that is older than what has taken its place comes too late.
        if kept.number == number {
            act(kept);
        }
    }
}

impl Observe for Recent {
    fn created(&self, job: &Job) {
        self.record(job.create_time, |kept| kept.counts.created += 1);
    }

    fn moved(&self, job: &Job, events: &[Event]) {
        for event in events {
            let Body::StateChanged(change) = &event.body else { continue };
            if change.state.is_final() || is_repeated(change) {
                let took = event.time.since(job.base_time());
                self.record(event.time, |kept| kept.step(change.state, took));
            }
        }
    }
}

/// Whether an attempt has failed and there will be another.
fn is_repeated(change: &StateChange) -> bool {
    change.failure.is_some() && !change.state.is_final()
}

impl Kept {
    fn step(&mut self, state: State, took: Duration) {
        let counts = &mut self.counts;
        match state {
            State::Succeeded => {
                counts.succeeded += 1;
                self.times.count(took);
            }
            State::Failed => counts.failed += 1,
            State::Cancelled => counts.cancelled += 1,
            State::Expired => counts.expired += 1,
            State::Scheduled | State::Pending | State::Running | State::Retrying | State::Cancelling => {
                counts.retried += 1;
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.counts.created += other.counts.created;
        self.counts.succeeded += other.counts.succeeded;
        self.counts.failed += other.counts.failed;
        self.counts.cancelled += other.counts.cancelled;
        self.counts.expired += other.counts.expired;
        self.counts.retried += other.counts.retried;
        self.times.add(&other.times);
    }

    fn slice(&self) -> Slice {
        Slice { p50: self.times.quantile(0.5), p95: self.times.quantile(0.95), ..self.counts }
    }
}

/// Which slice a moment lies in.
fn number(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(SLICE_MICROS)
}

/// Where a slice is kept.
fn place(number: i64) -> usize {
    number.rem_euclid(SLICES as i64) as usize
}

#[cfg(test)]
mod tests;
