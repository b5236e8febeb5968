//! What is counted by a reason. Workers invent reasons of their own, so only those that are known here have a label.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::HashMap;

/// The label of every reason that is not known.
pub const OTHER: &str = "OTHER";

/// Counters by reason.
#[derive(Debug)]
pub struct Reasons {
    known: HashMap<&'static str, Counter>,
    other: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

impl Reasons {
    /// Registers counters for these and for all others, each from 0 on, so that the first of a reason is seen as an increase.
    pub fn register(registry: &mut Registry, name: &str, help: &str, known: &[&'static str]) -> Self {
        let family: Family<Labels, Counter> = Family::default();
        registry.register(name, help, family.clone());
        let counter = |reason| family.get_or_create_owned(&Labels { reason });
        Self { known: known.iter().map(|reason| (*reason, counter(reason))).collect(), other: counter(OTHER) }
    }

    /// It has happened once more, for this reason.
    pub fn count(&self, reason: &str) {
        self.known.get(reason).unwrap_or(&self.other).inc();
    }
}
