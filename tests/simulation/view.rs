//! What one watcher knows of a job, message by message, and what must be true of each of them.

use crate::ledger::{Ledger, Told, is_final};
use longhaul::proto::job::State;
use longhaul::proto::job_event::Event;
use longhaul::proto::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The view.
pub struct View {
    pub job: String,
    /// What comes after it is wanted; the whole of what is from now on, where there is none.
    pub cursor: Option<i64>,
    ledger: Arc<Ledger>,
    /// It has seen every event, from the first one on.
    whole: bool,
    /// What was known when the present stream was asked for, until its first message.
    before: Option<Told>,
    state: Option<State>,
    attempt: i32,
    fraction: (i32, f64),
    /// The output of each channel that is valid, where all of it was seen.
    output: BTreeMap<String, Vec<u8>>,
}

impl View {
    pub fn new(job: String, cursor: Option<i64>, ledger: Arc<Ledger>) -> Self {
        Self {
            job,
            cursor,
            ledger,
            whole: cursor == Some(0),
            before: None,
            state: None,
            attempt: 0,
            fraction: (0, 0.0),
            output: BTreeMap::new(),
        }
    }

    /// Another stream begins.
    pub fn begin(&mut self, before: Told) {
        self.before = Some(before);
        self.fraction = (0, 0.0);
    }

    fn demand(&self, holds: bool, what: impl FnOnce() -> String) {
        self.ledger.demand(holds, || format!("a watch of {} {}", self.job, what()));
    }

    /// Takes the next message in.
    pub fn take(&mut self, event: &JobEvent) {
        let Some(body) = &event.event else { return self.demand(false, || "shows nothing".into()) };
        self.demand(event.job_id == self.job, || format!("shows {}", event.job_id));
        if let Some(before) = self.before.take() {
            let Event::Snapshot(snapshot) = body else {
                return self.demand(false, || format!("begins with {body:?}"));
            };
            return self.take_snapshot(event, snapshot, &before);
        }
        let cursor = self.cursor.unwrap_or_default();
        match body {
            Event::StateChange(_)
            | Event::Output(_)
            | Event::OutputReset(_)
            | Event::Log(_)
            | Event::Stage(_) => {
                self.ledger.note(|| format!("{} shows {} of {}", self.job, event.sequence, event.attempt));
                self.demand(event.sequence == cursor + 1, || {
                    format!("shows event {} after {cursor}", event.sequence)
                });
                self.demand(event.attempt >= self.attempt || !self.whole, || {
                    format!("goes back from attempt {} to {}", self.attempt, event.attempt)
                });
                self.ledger.saw(event);
                self.cursor = Some(event.sequence);
                self.attempt = event.attempt;
                self.take_kept(body);
            }
            Event::Snapshot(_) => self.demand(false, || "has a snapshot in the middle".into()),
            Event::Progress(progress) => {
                self.take_live(event, cursor);
                let fraction = progress.fraction.unwrap_or_default();
                let (attempt, last) = self.fraction;
                self.demand(attempt != event.attempt || fraction >= last, || {
                    format!("goes back from {last} to {fraction} in attempt {attempt}")
                });
                self.fraction = (event.attempt, fraction);
            }
            Event::Metrics(_) | Event::QueueUpdate(_) | Event::Keepalive(_) => self.take_live(event, cursor),
        }
    }

    fn take_live(&mut self, event: &JobEvent, cursor: i64) {
        self.demand(event.sequence == cursor, || {
            format!("stamps {} what comes after {cursor}", event.sequence)
        });
        self.demand(event.attempt >= self.attempt, || {
            format!("shows attempt {} after {}", event.attempt, self.attempt)
        });
    }

    fn take_snapshot(&mut self, event: &JobEvent, snapshot: &Snapshot, before: &Told) {
        let Some(job) = &snapshot.job else { return self.demand(false, || "begins with nothing".into()) };
        self.ledger.shown(before, job);
        let expected = self.cursor.unwrap_or(job.sequence);
        self.demand(event.sequence == expected, || {
            format!("begins at {}, where {expected} was to be", event.sequence)
        });
        self.cursor = Some(event.sequence);
        if job.sequence == event.sequence {
            self.state = Some(job.state());
            self.attempt = self.attempt.max(job.attempt);
        }
    }

    fn take_kept(&mut self, body: &Event) {
        match body {
            Event::StateChange(change) => {
                let before = self.state.unwrap_or(change.previous_state());
                self.demand(!is_final(before), || format!("goes on after the end with {:?}", change.state()));
                self.demand(change.previous_state() == before, || {
                    format!("leaves {:?} where it was {before:?}", change.previous_state())
                });
                self.state = Some(change.state());
            }
            Event::Output(output) if self.whole => {
                let valid = self.output.entry(output.channel.clone()).or_default();
                let length = valid.len();
                valid.extend(&output.data);
                self.demand(output.offset == length as i64, || {
                    format!("has output at {} where {length} bytes are valid", output.offset)
                });
            }
            Event::OutputReset(reset) if self.whole => {
                let valid = self.output.entry(reset.channel.clone()).or_default();
                let length = valid.len();
                valid.truncate(reset.kept_bytes as usize);
                self.demand(reset.kept_bytes <= length as i64, || {
                    format!("keeps {} of {length} bytes", reset.kept_bytes)
                });
            }
            _ => {}
        }
    }

    /// The stream has ended well.
    pub fn end(&mut self) {
        let state = self.state.unwrap_or(State::Unspecified);
        self.demand(self.before.is_none(), || "ends before it begins".into());
        self.demand(is_final(state), || format!("ends, and the job is {state:?}"));
        self.ledger.note(|| format!("{} was watched to its end: {state:?}", self.job));
        self.ledger.ended(&self.job, state, self.cursor.unwrap_or_default());
    }
}
