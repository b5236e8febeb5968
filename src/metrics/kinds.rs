//! What is counted by kind. Clients invent kinds, so only so many of them have a label of their own.

use super::buckets;
use crate::job::{Event, Job, State, StateChange};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;

/// How many kinds have a label of their own, first come, first served. Each is about fifty lines of every answer, and as
/// many series for whoever keeps them.
pub const KINDS_MAX: usize = 100;
/// The label of all other kinds.
pub const OTHER: &str = "other";

const FINAL_STATES: [State; 4] = [State::Succeeded, State::Failed, State::Cancelled, State::Expired];

/// A kind, or all that have no label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    /// Its label.
    pub kind: String,
}

/// The jobs of a kind that are in a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfState {
    /// The label of the kind.
    pub kind: String,
    /// The state.
    pub state: &'static str,
}

/// The counters of all kinds.
#[derive(Debug)]
pub struct Kinds {
    families: Families,
    /// Those that have a label. Held for a moment only, by the thread that commits or whoever asks for the figures.
    known: Mutex<HashMap<String, Kind>>,
    other: Kind,
}

#[derive(Debug)]
struct Families {
    created: Family<OfKind, Counter>,
    attempts: Family<OfKind, Counter>,
    outcomes: Family<OfState, Counter>,
    queue_time: Family<OfKind, Histogram, fn() -> Histogram>,
    run_time: Family<OfKind, Histogram, fn() -> Histogram>,
}

/// The counters of one kind, so that an event has to find no more than these.
#[derive(Debug)]
struct Kind {
    created: Counter,
    attempts: Counter,
    outcomes: [(State, Counter); FINAL_STATES.len()],
    queue_time: Histogram,
    run_time: Histogram,
}

impl Kinds {
    /// Registers them. These kinds have a label from the beginning.
    pub fn register(registry: &mut Registry, known: &[String]) -> Self {
        let families = Families {
            created: Family::default(),
            attempts: Family::default(),
            outcomes: Family::default(),
            queue_time: Family::new_with_constructor(buckets::long),
            run_time: Family::new_with_constructor(buckets::long),
        };
        registry.register("jobs_started", "Jobs that were created", families.created.clone());
        registry.register("jobs_ended", "Jobs that reached this final state", families.outcomes.clone());
        registry.register("attempts_started", "Attempts that a worker began", families.attempts.clone());
        registry.register_with_unit(
            "queue_time",
            "How long jobs were pending before their first attempt began",
            Unit::Seconds,
            families.queue_time.clone(),
        );
        registry.register_with_unit(
            "run_time",
            "How long attempts ran, whatever ended them",
            Unit::Seconds,
            families.run_time.clone(),
        );
        let kinds = Self { other: Kind::new(&families, OTHER), known: Mutex::default(), families };
        known.iter().for_each(|kind| kinds.with(kind, |_| ()));
        kinds
    }

    /// The kinds that have a label.
    pub fn labels(&self) -> Vec<String> {
        self.known.lock().keys().cloned().collect()
    }

    /// The label of a kind.
    pub fn label<'a>(&self, kind: &'a str) -> &'a str {
        self.with(kind, |_| ());
        if self.known.lock().contains_key(kind) { kind } else { OTHER }
    }

    /// A job was created.
    pub fn created(&self, kind: &str) {
        self.with(kind, |kind| kind.created.inc());
    }

    /// A job is as it now is through a step that was part of these events.
    pub fn stepped(&self, job: &Job, event: &Event, change: &StateChange) {
        self.with(&job.kind, |kind| kind.stepped(job, event, change));
    }

    fn with<T>(&self, kind: &str, act: impl FnOnce(&Kind) -> T) -> T {
        let mut known = self.known.lock();
        if let Some(kind) = known.get(kind) {
            return act(kind);
        }
        if known.len() >= KINDS_MAX {
            return act(&self.other);
        }
        let new = Kind::new(&self.families, kind);
        act(known.entry(kind.to_owned()).or_insert(new))
    }
}

impl Kind {
    fn new(families: &Families, kind: &str) -> Self {
        let label = OfKind { kind: kind.to_owned() };
        let outcome = |state: State| {
            let label = OfState { kind: kind.to_owned(), state: state.name() };
            (state, families.outcomes.get_or_create_owned(&label))
        };
        Self {
            created: families.created.get_or_create_owned(&label),
            attempts: families.attempts.get_or_create_owned(&label),
            outcomes: FINAL_STATES.map(outcome),
            queue_time: families.queue_time.get_or_create_owned(&label),
            run_time: families.run_time.get_or_create_owned(&label),
        }
    }

    fn stepped(&self, job: &Job, event: &Event, change: &StateChange) {
        if begins_attempt(change) {
            self.attempts.inc();
            // Of a later attempt it is not known any more how much of the time pending was its own.
            if event.attempt == 1 {
                self.queue_time.observe(job.queue_duration.as_secs_f64());
            }
        }
        if ends_attempt(change) {
            let began = job.attempt_start_time.unwrap_or(event.time);
            self.run_time.observe(event.time.since(began).as_secs_f64());
        }
        if let Some((_, outcome)) = self.outcomes.iter().find(|(state, _)| *state == change.state) {
            outcome.inc();
        }
    }
}

fn begins_attempt(change: &StateChange) -> bool {
    change.state == State::Running
}

/// Whether the job was with a worker before, and is no more.
pub fn ends_attempt(change: &StateChange) -> bool {
    let is_held = |state| matches!(state, State::Running | State::Cancelling);
    change.previous.is_some_and(is_held) && !is_held(change.state)
}
