//! What is read when somebody asks, and kept nowhere: how many jobs, workers, leases and watchers there are now.

use super::kinds::{KINDS_MAX, Labels, OTHER, OfKind, OfState};
use crate::engine::{Engine, Error, Figures};
use crate::job::{DEFAULT_TENANT, State};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::collections::{HashMap, HashSet};

/// How many counts are read to add up the kinds that have no label, and to find those that have most jobs: some
/// milliseconds of a thread that may block.
pub const COUNTS_MAX: usize = 10_000;
/// How many there can be of the kinds that have one.
const LABELLED_COUNTS_MAX: usize = KINDS_MAX * State::ALL.len();

/// The jobs in each state, by label.
type Jobs = HashMap<String, [u64; State::ALL.len()]>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watching {
    watching: &'static str,
}

/// Reads all of it. What has many parts is looked up in `labels`, which nobody else waits for.
pub fn scrape(engine: &Engine, labels: &Labels, registry: &mut Registry) {
    match jobs(engine, labels) {
        Ok(jobs) => register_jobs(&jobs, registry),
        // The rest is the more worth reading.
        Err(error) => tracing::warn!(%error, "jobs cannot be counted"),
    }
    let Figures { watches, events_at_hand, watches_of_many, leases, workers } = engine.figures();
    registry.register("leases", "Leases that workers hold", ConstGauge::new(leases as i64));
    let watchers = Family::<Watching, Gauge>::default();
    for (watching, count) in [("job", watches), ("jobs", watches_of_many)] {
        watchers.get_or_create(&Watching { watching }).set(count as i64);
    }
    registry.register("watchers", "Open watches, of one job or of many", watchers);
    let at_hand = "Events of watched jobs that are at hand in memory, at most 64 a job";
    registry.register("watched_events", at_hand, ConstGauge::new(events_at_hand as i64));
    let by_kind = Family::<OfKind, Gauge>::default();
    for kind in labels.kinds().chain([OTHER]) {
        by_kind.get_or_create(&OfKind { kind: kind.to_owned() }).set(0);
    }
    let mut by_label: HashMap<&str, usize> = HashMap::new();
    for (theirs, count) in &workers {
        let theirs: HashSet<&str> = theirs.iter().map(|kind| labels.of(kind)).collect();
        theirs.into_iter().for_each(|label| *by_label.entry(label).or_default() += count);
    }
    for (label, count) in by_label {
        by_kind.get_or_create(&OfKind { kind: label.to_owned() }).set(count as i64);
    }
    let help = "Workers elsewhere that have a stream or a call for work open, by the kinds that they can run";
    registry.register("workers", help, by_kind);
}

/// Counts the jobs of each label.
fn jobs(engine: &Engine, labels: &Labels) -> Result<Jobs, Error> {
    let counts = engine.count_here(DEFAULT_TENANT, &[], COUNTS_MAX)?;
    let is_cut = counts.len() == COUNTS_MAX;
    let mut jobs: Jobs = labels.kinds().map(|kind| (kind.to_owned(), Default::default())).collect();
    for count in counts {
        let label = labels.of(&count.kind);
        // What has a label of its own is read below, where it may lie behind the cut.
        if !is_cut || label == OTHER {
            jobs.entry(label.to_owned()).or_default()[count.state as usize] += count.jobs;
        }
    }
    if is_cut {
        let kinds: Vec<String> = labels.kinds().map(str::to_owned).collect();
        for count in engine.count_here(DEFAULT_TENANT, &kinds, LABELLED_COUNTS_MAX)? {
            jobs.entry(count.kind).or_default()[count.state as usize] += count.jobs;
        }
    }
    Ok(jobs)
}

fn register_jobs(jobs: &Jobs, registry: &mut Registry) {
    let family = Family::<OfState, Gauge>::default();
    for (kind, by_state) in jobs {
        for state in State::ALL {
            let labels = OfState { kind: kind.clone(), state: state.name() };
            family.get_or_create(&labels).set(by_state[state as usize] as i64);
        }
    }
    let help = format!(
        "Jobs by kind and state; of the kinds that have no label of their own those among the first {COUNTS_MAX} counts"
    );
    registry.register("jobs", help, family);
}
