//! A job as its watcher knows it: built from the messages of a watch, over every reconnect and retry. Pure.

use super::times::{between, seconds};
use crate::proto::job::State;
use crate::proto::{Failure, JobEvent, Progress, job_event};
use prost_types::{Timestamp, Value};
use std::collections::BTreeMap;

/// What is known of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The ticket.
    pub job_id: String,
    /// The kind of work.
    pub kind: String,
    /// Where it is in its life.
    pub state: State,
    /// The current or last attempt.
    pub attempt: i32,
    /// How far that has come.
    pub progress: Progress,
    /// Why the latest attempt failed.
    pub failure: Option<Failure>,
    /// What the job returned, where the watch saw it succeed.
    pub result: Option<Value>,
    /// About where it stands among those that wait for its kind; 0 where that is not known.
    pub queue_position: i32,
    /// When the newest message was recorded.
    pub time: Option<Timestamp>,
    /// When the ticket was issued.
    pub create_time: Option<Timestamp>,
    /// When the attempt began.
    pub(super) attempt_start_time: Option<Timestamp>,
    /// By channel.
    pub(super) outputs: BTreeMap<String, Output>,
    /// The snapshot knows what happened up to here, output apart.
    pub(super) known: i64,
}

/// The valid output of a channel, as far as it was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Output {
    /// Where it begins: beyond 0 for a watch that came late.
    start: usize,
    data: Vec<u8>,
}

impl View {
    /// Takes in a message.
    pub fn apply(&mut self, event: &JobEvent) {
        let Some(body) = &event.event else { return };
        self.time = event.event_time.or(self.time);
        match body {
            job_event::Event::Snapshot(snapshot) => {
                let Some(job) = &snapshot.job else { return };
                self.job_id = job.id.clone();
                self.kind = job.kind.clone();
                self.state = job.state();
                self.attempt = job.attempt;
                self.progress = job.progress.clone().unwrap_or_default();
                self.failure = job.failure.clone();
                self.create_time = job.create_time;
                self.attempt_start_time = job.attempt_start_time;
                self.queue_position = job.queue_position;
                self.known = job.sequence;
            }
            job_event::Event::Output(output) => {
                let channel = self.outputs.entry(output.channel.clone()).or_default();
                channel.write(output.offset as usize, &output.data);
            }
            job_event::Event::OutputReset(reset) => {
                let channel = self.outputs.entry(reset.channel.clone()).or_default();
                channel.cut(reset.kept_bytes as usize);
            }
            job_event::Event::StateChange(change) => {
                if change.result.is_some() {
                    self.result = change.result.clone();
                }
                if event.sequence <= self.known {
                    return;
                }
                self.state = change.state();
                self.queue_position = 0;
                self.failure = change.failure.clone();
                if event.attempt != self.attempt {
                    self.attempt = event.attempt;
                    self.progress = Progress::default();
                }
                if self.state == State::Running {
                    self.attempt_start_time = event.event_time;
                }
                if self.state == State::Succeeded {
                    self.progress.fraction = Some(1.0);
                }
            }
            job_event::Event::Stage(stage) if event.sequence > self.known => {
                self.progress.stage = stage.name.clone();
            }
            job_event::Event::Progress(progress) => self.progress = progress.clone(),
            job_event::Event::QueueUpdate(update) => self.queue_position = update.position,
            job_event::Event::Stage(_)
            | job_event::Event::Log(_)
            | job_event::Event::Metrics(_)
            | job_event::Event::Keepalive(_) => {}
        }
    }

    /// Whether it has ended.
    pub fn is_final(&self) -> bool {
        is_final(self.state)
    }

    /// The valid main output as far as it was seen.
    pub fn output(&self) -> &[u8] {
        self.outputs.get("").map_or(&[], |output| &output.data)
    }

    /// The seconds that the attempt still needs: as its worker says, or else at the pace so far.
    pub fn seconds_left(&self) -> Option<f64> {
        let now = seconds(self.progress.report_time.as_ref()?);
        if let Some(end) = &self.progress.expected_end_time {
            return Some((seconds(end) - now).max(0.0));
        }
        let fraction = self.progress.fraction.filter(|fraction| *fraction > 0.0)?;
        let elapsed = now - seconds(self.attempt_start_time.as_ref()?);
        Some((elapsed * (1.0 - fraction) / fraction).max(0.0))
    }

    /// The seconds from the ticket to a moment.
    pub fn age_at(&self, time: Option<&Timestamp>) -> f64 {
        match (&self.create_time, time) {
            (Some(created), Some(time)) => between(created, time),
            _ => 0.0,
        }
    }
}

impl Output {
    /// Bytes that are there already change nothing: only a reset voids them.
    fn write(&mut self, offset: usize, data: &[u8]) {
        if self.data.is_empty() {
            self.start = offset;
        }
        let repeated = (self.start + self.data.len()).checked_sub(offset);
        if let Some(new) = repeated.and_then(|repeated| data.get(repeated..)) {
            self.data.extend_from_slice(new);
        }
    }

    fn cut(&mut self, kept: usize) {
        match kept.checked_sub(self.start) {
            Some(kept) => self.data.truncate(kept),
            None => *self = Self { start: kept, data: Vec::new() },
        }
    }
}

/// Whether a job in this state has ended.
pub fn is_final(state: State) -> bool {
    match state {
        State::Succeeded | State::Failed | State::Cancelled | State::Expired => true,
        State::Unspecified
        | State::Scheduled
        | State::Pending
        | State::Running
        | State::Retrying
        | State::Cancelling => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Job, OutputReset, QueueUpdate, Snapshot, StateChange, job_event::Event};

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn event(sequence: i64, attempt: i32, event: Event) -> JobEvent {
        JobEvent {
            sequence,
            attempt,
            event_time: at(100 + sequence),
            event: Some(event),
            ..Default::default()
        }
    }

    fn snapshot(state: State, attempt: i32, sequence: i64) -> JobEvent {
        let job = Job { attempt, sequence, create_time: at(100), ..Default::default() };
        let mut snapshot = Snapshot { job: Some(job), truncated: false };
        snapshot.job.as_mut().unwrap().set_state(state);
        event(sequence, attempt, Event::Snapshot(snapshot))
    }

    fn output(sequence: i64, offset: i64, text: &str) -> JobEvent {
        let data = text.as_bytes().to_vec().into();
        event(sequence, 1, Event::Output(crate::proto::Output { offset, data, ..Default::default() }))
    }

    fn moved(sequence: i64, attempt: i32, state: State) -> JobEvent {
        let mut change = StateChange::default();
        change.set_state(state);
        event(sequence, attempt, Event::StateChange(change))
    }

    fn view(events: &[JobEvent]) -> View {
        let mut view = View::default();
        events.iter().for_each(|event| view.apply(event));
        view
    }

    #[test]
    fn a_retry_voids_what_its_output_replaces() {
        let reset = event(5, 2, Event::OutputReset(OutputReset { kept_bytes: 4, ..Default::default() }));

        let view = view(&[output(3, 0, "one "), output(4, 4, "tow"), reset, output(6, 4, "two")]);

        assert_eq!(view.output(), b"one two");
    }

    #[test]
    fn a_watch_that_came_late_has_the_rest_of_the_output() {
        let mut late = view(&[output(9, 100, "later")]);
        assert_eq!(late.output(), b"later");

        late.apply(&event(10, 2, Event::OutputReset(OutputReset::default())));
        late.apply(&output(11, 0, "anew"));

        assert_eq!(late.output(), b"anew");
    }

    #[test]
    fn output_that_comes_twice_is_there_once() {
        assert_eq!(view(&[output(1, 0, "abc"), output(1, 0, "abc"), output(2, 2, "cde")]).output(), b"abcde");
    }

    #[test]
    fn history_that_the_snapshot_includes_does_not_turn_back_the_state() {
        let history =
            [snapshot(State::Running, 2, 9), moved(1, 0, State::Pending), moved(2, 1, State::Running)];

        let mut view = view(&history);
        assert_eq!((view.state, view.attempt), (State::Running, 2));

        view.apply(&moved(10, 2, State::Succeeded));
        assert!(view.is_final());
        assert_eq!(view.progress.fraction, Some(1.0));
    }

    #[test]
    fn a_new_attempt_begins_without_progress() {
        let progress = Progress { fraction: Some(0.7), ..Default::default() };
        let events = [
            snapshot(State::Running, 1, 2),
            event(2, 1, Event::Progress(progress)),
            moved(5, 2, State::Running),
        ];

        assert_eq!(view(&events).progress.fraction, None);
    }

    #[test]
    fn a_place_in_the_queue_is_known_while_the_job_waits() {
        let update = Event::QueueUpdate(QueueUpdate { position: 3, ..Default::default() });

        let mut view = view(&[snapshot(State::Pending, 0, 1), event(1, 0, update)]);
        assert_eq!(view.queue_position, 3);

        view.apply(&moved(2, 1, State::Running));
        assert_eq!(view.queue_position, 0);
    }

    #[test]
    fn the_time_that_is_left_follows_from_the_pace() {
        let progress = Progress { fraction: Some(0.25), report_time: at(112), ..Default::default() };

        let view = view(&[
            snapshot(State::Pending, 0, 1),
            moved(2, 1, State::Running),
            event(2, 1, Event::Progress(progress)),
        ]);

        assert_eq!(view.seconds_left(), Some(30.0));
        assert_eq!(view.age_at(at(112).as_ref()), 12.0);
    }
}
