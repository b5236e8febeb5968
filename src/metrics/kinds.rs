//! What is counted by kind. Clients invent kinds, so only so many of them have a label of their own.
//!
//! The server's own have one, then those that have most jobs when it starts, then first come, first served. A kind comes by a
//! job of it: to be asked for, or to be on a worker's list, is not enough.

use super::buckets;
use crate::engine::Count;
use crate::job::{Event, Job, State, StateChange, reason};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{HashMap, HashSet};

/// How many kinds have a label of their own. Each is about fifty lines of every answer, and as many series for whoever keeps
/// them.
pub const KINDS_MAX: usize = 100;
/// How many of the labels are kept for kinds of which a worker begins a job, so that a client that invents kinds cannot have
/// them all.
pub const SERVED_KINDS: usize = 20;
/// The label of all other kinds, and of a kind that is called so.
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
            "How long attempts ran, but for those that a stop of the server ended: when is not known",
            Unit::Seconds,
            families.run_time.clone(),
        );
        let kinds = Self { other: Kind::new(&families, OTHER), known: Mutex::default(), families };
        known.iter().for_each(|kind| kinds.with(kind, KINDS_MAX, |_| ()));
        kinds
    }

    /// Gives a label to the kinds that have most jobs, those that are kept for kinds with a worker left out.
    pub fn remember(&self, counts: &[Count]) {
        let mut jobs: HashMap<&str, u64> = HashMap::new();
        for count in counts {
            *jobs.entry(&count.kind).or_default() += count.jobs;
        }
        let mut kinds: Vec<(&str, u64)> = jobs.into_iter().collect();
        kinds.sort_unstable_by_key(|(kind, jobs)| (std::cmp::Reverse(*jobs), *kind));
        kinds.truncate(KINDS_MAX);
        kinds.iter().for_each(|(kind, _)| self.with(kind, KINDS_MAX - SERVED_KINDS, |_| ()));
    }

    /// The kinds that have a label now.
    pub fn labels(&self) -> Labels {
        Labels(self.known.lock().keys().cloned().collect())
    }

    /// A job was created.
    pub fn created(&self, kind: &str) {
        self.with(kind, KINDS_MAX - SERVED_KINDS, |kind| kind.created.inc());
    }

    /// A job is as it now is through a step that was part of these events.
    pub fn stepped(&self, job: &Job, event: &Event, change: &StateChange) {
        let most = if begins_attempt(change) { KINDS_MAX } else { KINDS_MAX - SERVED_KINDS };
        self.with(&job.kind, most, |kind| kind.stepped(job, event, change));
    }

    /// Counts something of a kind, which gets a label while fewer than `most` have one.
    fn with<T>(&self, kind: &str, most: usize, act: impl FnOnce(&Kind) -> T) -> T {
        let mut known = self.known.lock();
        if let Some(kind) = known.get(kind) {
            return act(kind);
        }
        if known.len() >= most || kind == OTHER {
            return act(&self.other);
        }
        let new = Kind::new(&self.families, kind);
        act(known.entry(kind.to_owned()).or_insert(new))
    }
}

/// The kinds that had a label at one moment, to look many up without holding up who counts.
#[derive(Debug)]
pub struct Labels(HashSet<String>);

impl Labels {
    /// The label of a kind.
    pub fn of<'a>(&self, kind: &'a str) -> &'a str {
        if self.0.contains(kind) { kind } else { OTHER }
    }

    /// Each kind that has one.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
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
        // The server was down when such an attempt ended, and nobody knows since when.
        if ends_attempt(change) && change.reason != reason::SERVER_RESTART {
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
