//! What everybody was told, in the order of the run's time; whatever contradicts it is written down with it.

use crate::lots::Lots;
use longhaul::job::Timestamp;
use longhaul::proto::job::State;
use longhaul::proto::*;
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The ledger of a run.
pub struct Ledger {
    began: Instant,
    trace: Trace,
    kept: Mutex<Kept>,
}

/// How much of the trace is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// What people would tell of it.
    Brief,
    /// Every commit as well.
    Whole,
    /// The same, and its lines are kept.
    Kept,
    /// The same, and shown as it grows.
    Shown,
}

/// What was seen, and how often.
pub type Sights = BTreeMap<&'static str, u64>;

#[derive(Default)]
struct Kept {
    /// Of the trace up to now.
    checksum: crc32fast::Hasher,
    /// What happened at this very time. Who of several comes first then is nobody's affair, so it is sorted.
    time: Duration,
    lines: Vec<String>,
    told: Vec<String>,
    violations: Vec<String>,
    wishes: BTreeMap<String, Wish>,
    jobs: BTreeMap<String, Told>,
    attempts: BTreeMap<String, Attempt>,
    /// The jobs that repeat others, by the ids of their requests.
    again: BTreeMap<String, String>,
    /// From when on, by their own clocks, processes of the server ended or lost what they had claimed, and up to when.
    ends: Vec<(i64, i64)>,
    sights: Sights,
}

/// A job that somebody wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub ticket: Option<String>,
    pub group: String,
    /// Those that are started with it, all or none.
    pub batch: Option<u64>,
}

/// What was told of a job.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The last event that somebody has seen.
    pub sequence: i64,
    pub outcome: Option<(State, i64)>,
    pub cancelled: bool,
    /// Somebody has asked that it be forgotten.
    pub may_be_gone: bool,
    /// And was told that it is.
    pub is_gone: bool,
    /// The attempt of which it was told that it has succeeded.
    pub completed: Option<String>,
    /// Kept events as they were shown.
    events: BTreeMap<i64, Vec<u8>>,
    /// Its state and attempt as they were shown, by its sequence then.
    states: BTreeMap<i64, (State, i32)>,
}

/// What an attempt has written, by its own account.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    pub job: String,
    pub text: String,
    /// What it has written behind that, or not: it was told neither.
    pub perhaps: String,
    /// How much of it was said to be durable.
    pub durable: usize,
    /// The checkpoint that it was given, which is the output that it keeps.
    pub base: String,
    /// The checkpoints that it has sent, and how many of them were answered up to the last one that was.
    pub checkpoints: Vec<String>,
    pub recorded: usize,
}

pub fn is_final(state: State) -> bool {
    matches!(state, State::Succeeded | State::Failed | State::Cancelled | State::Expired)
}

impl Kept {
    /// The time goes on.
    fn pass(&mut self, trace: Trace) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort_unstable();
        for line in lines {
            let line = format!("{:>9.3} {line}\n", self.time.as_secs_f64());
            self.checksum.update(line.as_bytes());
            if trace == Trace::Shown {
                print!("{line}");
            }
            if matches!(trace, Trace::Kept | Trace::Shown) {
                self.told.push(line);
            }
        }
    }
}

impl Ledger {
    pub fn new(trace: Trace) -> Self {
        Self { began: Instant::now(), trace, kept: Mutex::default() }
    }

    /// Something was seen that must be seen now and then.
    pub fn see(&self, what: &'static str) {
        *self.kept.lock().sights.entry(what).or_default() += 1;
    }

    /// The lines of the trace, where they are kept.
    pub fn lines(&self) -> Vec<String> {
        self.kept.lock().told.clone()
    }

    pub fn sights(&self) -> Sights {
        self.kept.lock().sights.clone()
    }

    /// Writes a line into the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let line = line();
        let mut kept = self.kept.lock();
        let now = self.began.elapsed();
        if now > kept.time {
            kept.pass(self.trace);
            kept.time = now;
        }
        kept.lines.push(line);
    }

    /// Writes a line that is long, where all are wanted.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if self.trace != Trace::Brief {
            self.note(line);
        }
    }

    /// Something is not as it must be.
    pub fn blame(&self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        let mut kept = self.kept.lock();
        // One is enough to fail, and a broken promise is seldom broken once.
        if kept.violations.len() < 10 {
            kept.violations.push(what);
        }
    }

    pub fn demand(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.blame(what());
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.kept.lock().violations.clone()
    }

    pub fn checksum(&self) -> u32 {
        let mut kept = self.kept.lock();
        kept.pass(self.trace);
        kept.checksum.clone().finalize()
    }

    pub fn wish(&self, label: &str, group: &str, batch: Option<u64>) {
        let wish = Wish { ticket: None, group: group.to_owned(), batch };
        self.kept.lock().wishes.entry(label.to_owned()).or_insert(wish);
    }

    pub fn wishes(&self) -> BTreeMap<String, Wish> {
        self.kept.lock().wishes.clone()
    }

    /// A start was answered.
    pub fn started(&self, label: &str, job: &Job) {
        let before = {
            let mut kept = self.kept.lock();
            let wish = kept.wishes.get_mut(label).expect("it was wished for");
            wish.ticket.replace(job.id.clone())
        };
        self.demand(before.as_ref().is_none_or(|before| *before == job.id), || {
            format!("{label} has jobs {before:?} and {}", job.id)
        });
        let found = job.labels.get("wish");
        self.demand(found.is_some_and(|found| found == label), || {
            format!("{label} is answered by {found:?}")
        });
    }

    /// What is known of a job at this moment.
    pub fn told(&self, job: &str) -> Told {
        let kept = self.kept.lock();
        let Some(told) = kept.jobs.get(job) else { return Told::default() };
        Told {
            sequence: told.sequence,
            outcome: told.outcome,
            cancelled: told.cancelled,
            may_be_gone: told.may_be_gone,
            is_gone: told.is_gone,
            completed: told.completed.clone(),
            ..Default::default()
        }
    }

    /// A job was shown to somebody who asked when `before` was known.
    pub fn shown(&self, before: &Told, job: &Job) {
        let (id, state, sequence) = (&job.id, job.state(), job.sequence);
        self.demand(sequence >= before.sequence, || {
            format!("{id} is at {sequence}, and was at {} before", before.sequence)
        });
        if let Some(outcome) = before.outcome {
            self.demand((state, sequence) == outcome, || {
                format!("{id} had ended as {outcome:?} and is {state:?} at {sequence}")
            });
        }
        let may_be = matches!(state, State::Cancelling | State::Cancelled);
        self.demand(!before.cancelled || may_be, || format!("{id} was cancelled and is {state:?}"));
        if let Some(nonce) = &before.completed {
            self.demand(state == State::Succeeded, || {
                format!("{id} is {state:?}, and {nonce} was told that it had succeeded")
            });
        }
        self.demand(!before.is_gone, || format!("{id} was forgotten and is there"));
        let outcome = is_final(state).then_some((state, sequence));
        let (known, was) = {
            let mut kept = self.kept.lock();
            let told = kept.jobs.entry(id.clone()).or_default();
            told.sequence = told.sequence.max(sequence);
            let known = told.outcome;
            told.outcome = known.or(outcome);
            (known, told.states.insert(sequence, (state, job.attempt)))
        };
        self.demand(was.is_none_or(|was| was == (state, job.attempt)), || {
            format!("{id} was {was:?} at {sequence} and is {state:?} there")
        });
        if let (Some(known), Some(outcome)) = (known, outcome) {
            self.demand(known == outcome, || format!("{id} ended as {known:?} and as {outcome:?}"));
        }
    }

    /// A cancel was answered.
    pub fn cancelled(&self, job: &Job) {
        let state = job.state();
        let is = matches!(state, State::Cancelling | State::Cancelled);
        self.demand(is || is_final(state), || format!("{} was cancelled and is {state:?}", job.id));
        let mut kept = self.kept.lock();
        kept.jobs.entry(job.id.clone()).or_default().cancelled |= is;
    }

    /// Somebody asks that a job be forgotten.
    pub fn may_be_gone(&self, job: &str) {
        self.kept.lock().jobs.entry(job.to_owned()).or_default().may_be_gone = true;
    }

    /// Somebody was told that a job is forgotten, or that it stays.
    pub fn is_gone(&self, job: &str, is_gone: bool) {
        let mut kept = self.kept.lock();
        let told = kept.jobs.entry(job.to_owned()).or_default();
        told.is_gone |= is_gone;
    }

    /// A job that repeats another was asked for under this id.
    pub fn again(&self, request_id: &str, job: &str) {
        let before = self.kept.lock().again.insert(request_id.to_owned(), job.to_owned());
        self.demand(before.as_ref().is_none_or(|before| before == job), || {
            format!("{request_id} has jobs {before:?} and {job}")
        });
    }

    /// The job that was made under this id.
    pub fn made_again(&self, request_id: &str) -> Option<String> {
        self.kept.lock().again.get(request_id).cloned()
    }

    /// Every job of which somebody has the ticket.
    pub fn tickets(&self) -> Vec<String> {
        let kept = self.kept.lock();
        let wished = kept.wishes.values().filter_map(|wish| wish.ticket.clone());
        wished.chain(kept.again.values().cloned()).collect()
    }

    /// Every state and attempt in which a job was shown, by its sequence then.
    pub fn states(&self, job: &str) -> BTreeMap<i64, (State, i32)> {
        self.kept.lock().jobs.get(job).map(|told| told.states.clone()).unwrap_or_default()
    }

    /// A worker was told that so much of what its attempt has written is durable.
    pub fn durable(&self, nonce: &str, bytes: usize) {
        if let Some(attempt) = self.kept.lock().attempts.get_mut(nonce) {
            attempt.durable = attempt.durable.max(bytes);
        }
    }

    /// A process of the server has ended between these times of its clock, or did before the first, which is the next one's.
    pub fn server_ended(&self, from: Timestamp, to: Timestamp) {
        let ends = &mut self.kept.lock().ends;
        // A clock may be behind what a history has seen of an earlier one's, and a history never goes back.
        let latest = ends.last().map_or(i64::MIN, |(_, to)| *to);
        ends.push((from.as_micros(), to.as_micros().max(latest)));
    }

    /// Whether a process of the server ended between these times.
    pub fn ends_within(&self, from: i64, to: i64) -> bool {
        self.kept.lock().ends.iter().any(|(first, last)| *first <= to && from <= *last)
    }

    /// A worker was told that its attempt has succeeded.
    pub fn completed(&self, job: &str, nonce: &str) {
        let before = {
            let mut kept = self.kept.lock();
            let told = kept.jobs.entry(job.to_owned()).or_default();
            told.completed.replace(nonce.to_owned())
        };
        self.demand(before.as_ref().is_none_or(|before| before == nonce), || {
            format!("{job} succeeded for {before:?} and for {nonce}")
        });
    }

    /// A kept event was shown.
    pub fn saw(&self, event: &JobEvent) {
        let bytes = event.encode_to_vec();
        let same = {
            let mut kept = self.kept.lock();
            let told = kept.jobs.entry(event.job_id.clone()).or_default();
            told.sequence = told.sequence.max(event.sequence);
            let known = told.events.entry(event.sequence).or_insert_with(|| bytes.clone());
            *known == bytes
        };
        self.demand(same, || format!("{} shows another event {} than before", event.job_id, event.sequence));
    }

    /// Somebody was shown the last event of a job.
    pub fn ended(&self, job: &str, state: State, sequence: i64) {
        let known = {
            let mut kept = self.kept.lock();
            let told = kept.jobs.entry(job.to_owned()).or_default();
            *told.outcome.get_or_insert((state, sequence))
        };
        self.demand(known == (state, sequence), || {
            format!("{job} ended as {known:?} and as {state:?} at {sequence}")
        });
    }

    /// The last event that anybody has seen of each job.
    pub fn seen(&self) -> BTreeMap<String, i64> {
        let kept = self.kept.lock();
        let last = |told: &Told| told.events.keys().next_back().copied().unwrap_or(0);
        kept.jobs.iter().map(|(job, told)| (job.clone(), last(told))).collect()
    }

    /// An attempt begins, as its worker has it; returns the name that it goes by.
    ///
    /// Every checkpoint is the output that it keeps.
    pub fn begin_attempt(
        &self,
        worker: &str,
        job: &str,
        (checkpoint, output_offset): (&[u8], u64),
        lots: &Lots,
    ) -> String {
        let nonce = format!("{worker}-{:08x}", lots.number() as u32);
        let base = String::from_utf8_lossy(checkpoint).into_owned();
        self.demand(base.len() as u64 == output_offset, || {
            format!("{nonce} is to go on at {output_offset} and from {base:?}")
        });
        if !base.is_empty() {
            self.see("an attempt goes on from a checkpoint");
        }
        let attempt = Attempt { job: job.to_owned(), base, ..Default::default() };
        self.kept.lock().attempts.insert(nonce.clone(), attempt);
        nonce
    }

    /// It is about to write this.
    pub fn writes(&self, nonce: &str, text: &str) {
        if let Some(attempt) = self.kept.lock().attempts.get_mut(nonce) {
            attempt.text.push_str(text);
            attempt.perhaps.clear();
        }
    }

    /// It is about to record a checkpoint: all that it has written so far, or that with which it has begun. Its number, and what
    /// it is.
    pub fn checkpoints(&self, nonce: &str, all: bool) -> (usize, String) {
        let mut kept = self.kept.lock();
        let attempt = kept.attempts.get_mut(nonce).expect("it has begun");
        let written = if all { attempt.text.as_str() } else { "" };
        let checkpoint = attempt.base.clone() + written;
        attempt.checkpoints.push(checkpoint.clone());
        (attempt.checkpoints.len(), checkpoint)
    }

    /// It was told that the checkpoint of this number is durable.
    pub fn recorded(&self, nonce: &str, number: usize) {
        if let Some(attempt) = self.kept.lock().attempts.get_mut(nonce) {
            attempt.recorded = attempt.recorded.max(number);
        }
    }

    /// It writes this, and may not be told whether that has come.
    pub fn may_write(&self, nonce: &str, text: &str) {
        if let Some(attempt) = self.kept.lock().attempts.get_mut(nonce) {
            attempt.perhaps = text.to_owned();
        }
    }

    /// How much of what each attempt has written was said to be durable.
    pub fn all_durable(&self) -> BTreeMap<String, usize> {
        let kept = self.kept.lock();
        kept.attempts.iter().map(|(nonce, attempt)| (nonce.clone(), attempt.durable)).collect()
    }

    pub fn attempt(&self, nonce: &str) -> Option<Attempt> {
        self.kept.lock().attempts.get(nonce).cloned()
    }
}
