//! How far an attempt has come. Latest wins: a newer report replaces an older one.

use super::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Measurements by name; at most [`METRICS_MAX`](super::limits::METRICS_MAX).
pub type Metrics = BTreeMap<String, f64>;

/// The most that an unfinished job shows: only success is 1.
const UNFINISHED_FRACTION_MAX: f64 = 0.99;

/// How far an attempt has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1; absent while nobody can tell.
    pub fraction: Option<f64>,
    /// The fraction is a guess, not a count.
    pub estimated: bool,
    /// What is being done now, for people.
    pub stage: String,
    /// Units done.
    pub completed: i64,
    /// All units, where known.
    pub total: Option<i64>,
    /// What a unit is.
    pub unit: String,
    /// When the attempt is expected to end.
    pub expected_end_time: Option<Timestamp>,
    /// When the server received this.
    pub report_time: Option<Timestamp>,
}

impl Progress {
    /// This progress after `report`: the fraction never goes back and stays below 1, all else is as reported.
    pub fn advanced_by(&self, report: Progress, now: Timestamp) -> Progress {
        let reported = report.fraction.filter(|fraction| !fraction.is_nan());
        let fraction = match (self.fraction, reported) {
            (Some(last), Some(new)) => Some(last.max(new)),
            (last, new) => new.or(last),
        };
        Progress {
            fraction: fraction.map(|fraction| fraction.clamp(0.0, UNFINISHED_FRACTION_MAX)),
            report_time: Some(now),
            ..report
        }
    }
}

/// What is latest-wins of an attempt: shown at once, kept about once a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// How far it has come.
    pub progress: Progress,
    /// What it measured.
    pub metrics: Metrics,
}

impl Live {
    /// Whether nothing was reported.
    pub fn is_empty(&self) -> bool {
        self.progress == Progress::default() && self.metrics.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, None, None)]
    #[case(None, Some(0.5), Some(0.5))]
    #[case(Some(0.5), None, Some(0.5))]
    #[case(Some(0.5), Some(0.4), Some(0.5))]
    #[case(Some(0.5), Some(0.6), Some(0.6))]
    #[case(Some(0.5), Some(1.0), Some(0.99))]
    #[case(Some(0.5), Some(f64::NAN), Some(0.5))]
    #[case(Some(0.5), Some(f64::INFINITY), Some(0.99))]
    #[case(None, Some(-1.0), Some(0.0))]
    fn a_fraction_never_goes_back(
        #[case] last: Option<f64>,
        #[case] report: Option<f64>,
        #[case] shown: Option<f64>,
    ) {
        let last = Progress { fraction: last, stage: "before".into(), ..Default::default() };

        let next =
            last.advanced_by(Progress { fraction: report, ..Default::default() }, Timestamp::from_micros(1));

        assert_eq!(next.fraction, shown);
        assert_eq!(next.stage, "");
    }
}
