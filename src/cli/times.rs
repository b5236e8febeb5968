//! Moments and durations as people read and write them.

use crate::clock::{Clock as _, SystemClock};
use prost_types::{Duration, Timestamp};
use serde::{Deserialize, Deserializer};
use std::str::FromStr;

/// A duration as people write it: `30s`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub std::time::Duration);

impl FromStr for Time {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The seconds since 1970 of a moment.
pub fn seconds(time: &Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}

/// The seconds from one moment to another; 0 where it is not later.
pub fn between(from: &Timestamp, to: &Timestamp) -> f64 {
    (seconds(to) - seconds(from)).max(0.0)
}

/// The seconds of a duration.
pub fn length(duration: &Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) / 1e9
}

/// This moment, in seconds since 1970, by the clock of this machine.
pub fn now() -> f64 {
    SystemClock::new().now().as_micros() as f64 / 1e6
}

/// A duration in its two largest units: `42s`, `4m10s`, `2h05m`, `3d04h`.
pub fn brief(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3_600, whole / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", whole % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// As [`brief`], with a tenth of a second below a minute.
pub fn fine(seconds: f64) -> String {
    // What rounds to a minute is shown as one.
    if seconds < 59.95 { format!("{:.1}s", seconds.max(0.0)) } else { brief(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_two_units() {
        for (seconds, told) in [
            (0.0, "0s"),
            (-5.0, "0s"),
            (59.4, "59s"),
            (59.5, "1m00s"),
            (250.0, "4m10s"),
            (3_599.6, "1h00m"),
            (7_500.0, "2h05m"),
            (86_400.0 * 3.0 + 3_600.0 * 4.0, "3d04h"),
        ] {
            assert_eq!(brief(seconds), told, "{seconds}");
        }
    }

    #[test]
    fn a_short_duration_is_told_finely() {
        assert_eq!(fine(0.04), "0.0s");
        assert_eq!(fine(59.94), "59.9s");
        assert_eq!(fine(59.96), "1m00s");
    }
}
