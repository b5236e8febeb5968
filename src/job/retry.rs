//! When a failed attempt is repeated.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Exponential backoff with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// All attempts, the first included; at least 1.
    pub maximum_attempts: u32,
    /// The upper bound of the first wait.
    pub initial_interval: Duration,
    /// How much the bound grows with each attempt; at least 1.
    pub backoff_coefficient: f64,
    /// The bound's own bound.
    pub maximum_interval: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            maximum_attempts: 3,
            initial_interval: Duration::from_secs(1),
            backoff_coefficient: 2.0,
            maximum_interval: Duration::from_secs(300),
        }
    }
}

impl RetryPolicy {
    /// The wait after the `failures`-th counted attempt has failed, for `jitter` from 0 to 1.
    ///
    /// Full jitter, from "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): any time from none to the bound
    /// is as likely as any other, so that jobs that failed together do not come back together.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let exponent = failures.saturating_sub(1).min(1_000) as i32;
        // Without the bound, none at first would grow to no number at all.
        let growth = self.backoff_coefficient.powi(exponent).min(f64::MAX);
        let grown = self.initial_interval.as_secs_f64() * growth;
        let bound = grown.min(self.maximum_interval.as_secs_f64());
        Duration::try_from_secs_f64(bound * jitter.clamp(0.0, 1.0)).unwrap_or(self.maximum_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bound_doubles_until_its_own_bound() {
        let policy = RetryPolicy::default();

        let bounds: Vec<u64> = [1, 2, 3, 9, 10, 4_000_000_000].map(|n| policy.delay(n, 1.0).as_secs()).into();

        assert_eq!(bounds, [1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn no_wait_at_first_stays_none() {
        let none =
            RetryPolicy { initial_interval: Duration::ZERO, backoff_coefficient: 3.0, ..Default::default() };

        assert_eq!([1, 2, 999].map(|n| none.delay(n, 1.0)), [Duration::ZERO; 3]);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_the_policy_allows(
            failures: u32, jitter in 0.0..1.0f64, coefficient in 1.0..1000.0f64, initial in 0u64..100_000, maximum in 0u64..1_000_000,
        ) {
            let policy = RetryPolicy {
                maximum_attempts: 3,
                initial_interval: Duration::from_millis(initial),
                backoff_coefficient: coefficient,
                maximum_interval: Duration::from_millis(maximum),
            };

            prop_assert!(policy.delay(failures, jitter) <= policy.maximum_interval);
        }
    }
}
