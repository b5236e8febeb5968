//! What the server does, in figures: the text of OpenMetrics that is read at `/metrics`.
//!
//! The engine tells it what has become durable, the edges what they refuse and how long they take. It knows no protocol:
//! whoever serves the text also reads the request. Every label is bounded.

mod buckets;
mod kinds;
mod outcomes;
mod reasons;
mod recent;
mod scrape;

pub use kinds::{KINDS_MAX, SERVED_KINDS};
pub use outcomes::Timing;
pub use recent::{Minutes, Recent, SLICE, SLICES, Slice};
pub use scrape::COUNTS_MAX;

use crate::engine::{Batch, Count, Engine, Observe};
use crate::job::{Body, Event, Job, StateChange, Timestamp, reason};
use kinds::{Kinds, OfKind};
use outcomes::Outcomes;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use reasons::Reasons;
use std::time::Duration;

/// What the text is, as a header says it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "longhaul";

/// The server's own words for steps that are no failure. A worker's failure that is called so is counted among the others.
const NO_FAILURES: [&str; 8] = [
    reason::CREATED,
    reason::DUE,
    reason::ACCEPTED,
    reason::COMPLETED,
    reason::CANCEL_REQUESTED,
    reason::WORKER_STOPPED,
    reason::GRACE_PERIOD_ENDED,
    reason::RELEASED,
];

/// The figures of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    kinds: Kinds,
    ended: Reasons,
    refusals: Reasons,
    start_job: Outcomes,
    commit_operations: Histogram,
    commit_time: Outcomes,
    failed_commits: Counter,
    flush_time: Histogram,
    connections: Gauge,
    lost_spans: Counter,
}

impl Metrics {
    /// Counts from nothing, in a process that began at `start` and has so many slots, for these kinds: they have labels of their
    /// own from the beginning. A refusal is counted by its reason where that is one of these.
    pub fn new(start: Timestamp, kinds: &[String], slots: usize, refusals: &[&'static str]) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let metrics = Self {
            kinds: Kinds::register(&mut registry, kinds),
            ended: Reasons::register(
                &mut registry,
                "attempts_ended",
                "Attempts by why they ended; a reason of a worker's own is OTHER",
                reason::ALL,
            ),
            refusals: Reasons::register(
                &mut registry,
                "refusals",
                "Errors of calls and refusals on workers' streams, by the reason that they were told",
                refusals,
            ),
            start_job: Outcomes::register(
                &mut registry,
                "start_job",
                "How long StartJob took to be answered; failed are those that were refused and those whose caller went away",
                "started",
            ),
            commit_operations: buckets::sizes(),
            commit_time: Outcomes::register(
                &mut registry,
                "commit",
                "How long the store took over a batch of operations that changed something, or that failed",
                "committed",
            ),
            failed_commits: Counter::default(),
            flush_time: buckets::short(),
            connections: Gauge::default(),
            lost_spans: Counter::default(),
            registry,
        };
        metrics.registered(start, kinds, slots)
    }

    fn registered(mut self, start: Timestamp, kinds: &[String], slots: usize) -> Self {
        let registry = &mut self.registry;
        let by_kind = Family::<OfKind, Gauge>::default();
        let labels = self.kinds.labels();
        for kind in kinds {
            let kind = labels.of(kind).to_owned();
            by_kind.get_or_create(&OfKind { kind }).set(slots as i64);
        }
        registry.register("slots", "Slots of the server itself that can run a kind", by_kind);
        let flush =
            "How long SQLite's COMMIT took, of batches that changed something: writing the log and its flush";
        registry.register_with_unit("flush", flush, Unit::Seconds, self.flush_time.clone());
        let operations = "How many operations were committed together, in batches that changed something";
        registry.register("commit_operations", operations, self.commit_operations.clone());
        registry.register("commits_failed", "Batches that failed", self.failed_commits.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("spans_lost", "Spans of traces that no collector got", self.lost_spans.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        let start = ConstGauge::new(start.as_micros() as f64 / 1e6);
        registry.register_with_unit(
            "start_time",
            "When the process began, since the epoch",
            Unit::Seconds,
            start,
        );
        self
    }

    /// Gives labels to the kinds that have most of these jobs: what an earlier process has left, before anything happens.
    pub fn remember(&self, counts: &[Count]) {
        self.kinds.remember(counts);
    }

    /// A StartJob begins. It has failed unless it says otherwise before what is returned is dropped.
    pub fn starting(&self) -> Timing {
        self.start_job.begin()
    }

    /// The store took so long to write a batch to its log and to flush it.
    pub fn flushed(&self, time: Duration) {
        self.flush_time.observe(time.as_secs_f64());
    }

    /// Something was refused, for this reason.
    pub fn refused(&self, reason: &str) {
        self.refusals.count(reason);
    }

    /// How many connections are open, for whoever opens and closes them.
    pub fn connections(&self) -> Gauge {
        self.connections.clone()
    }

    /// So many spans of traces are lost.
    pub fn lost_spans(&self, spans: u64) {
        self.lost_spans.inc_by(spans);
    }

    /// All figures as of now, in the text format of OpenMetrics 1.0. It reads the store, and with many kinds it takes some
    /// milliseconds: to be called on a thread that may block.
    pub fn text(&self, engine: &Engine) -> String {
        let mut now = Registry::with_prefix(PREFIX);
        scrape::scrape(engine, &self.kinds.labels(), &mut now);
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &now))
            .and_then(|()| encode_eof(&mut text));
        written.expect("a string takes whatever is written");
        text
    }
}

impl Observe for Metrics {
    fn committed(&self, batch: Batch) {
        // The looks of workers that find nothing would be most of all on a server with nothing to do.
        if batch.changed {
            self.commit_operations.observe(batch.operations as f64);
            self.commit_time.succeeded(batch.time);
        }
    }

    fn failed(&self, batch: Batch) {
        self.commit_time.failed(batch.time);
        self.failed_commits.inc();
    }

    fn created(&self, job: &Job) {
        self.kinds.created(&job.kind);
    }

    fn moved(&self, job: &Job, events: &[Event]) {
        for event in events {
            let Body::StateChanged(change) = &event.body else { continue };
            self.kinds.stepped(job, event, change);
            if kinds::ends_attempt(change) {
                self.ended.count(why(change));
            }
        }
    }
}

/// Why a step was taken, as far as that is believed.
fn why(change: &StateChange) -> &str {
    let is_a_lie = change.failure.is_some() && NO_FAILURES.contains(&change.reason.as_ref());
    if is_a_lie { reasons::OTHER } else { &change.reason }
}
