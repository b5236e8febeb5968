//! How long something takes, what went well apart from what did not: either would hide the other.

use super::buckets;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::{Duration, Instant};

/// What did not go well.
const FAILED: &str = "failed";

/// Times by outcome.
#[derive(Debug)]
pub struct Outcomes {
    succeeded: Histogram,
    failed: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
}

impl Outcomes {
    /// Registers both; `success` is what a good outcome is called.
    pub fn register(registry: &mut Registry, name: &str, help: &str, success: &'static str) -> Self {
        let family: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(buckets::short);
        registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        let histogram = |outcome| family.get_or_create_owned(&Labels { outcome });
        Self { succeeded: histogram(success), failed: histogram(FAILED) }
    }

    /// It went well, and took so long.
    pub fn succeeded(&self, time: Duration) {
        self.succeeded.observe(time.as_secs_f64());
    }

    /// It did not, and took so long.
    pub fn failed(&self, time: Duration) {
        self.failed.observe(time.as_secs_f64());
    }

    /// It begins.
    pub fn begin(&self) -> Timing {
        Timing { began: Instant::now(), outcome: self.failed.clone(), success: self.succeeded.clone() }
    }
}

/// Something under way, measured when this is dropped: also where nobody waits for it any more.
#[derive(Debug)]
pub struct Timing {
    began: Instant,
    outcome: Histogram,
    success: Histogram,
}

impl Timing {
    /// It has gone well.
    pub fn succeed(mut self) {
        self.outcome = self.success.clone();
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.outcome.observe(self.began.elapsed().as_secs_f64());
    }
}
