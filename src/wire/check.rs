//! What a message of a worker's is made of, each part held against its limits.

use super::json;
use super::request::{Violations, checked_duration, checked_timestamp};
use crate::engine::SentCheckpoint;
use crate::job::limits::*;
use crate::job::{Failure, LogLevel, LogLine, Metrics, Progress, Violation, reason};
use crate::proto;
use bytes::Bytes;
use std::time::Duration;

/// Collects what is wrong.
#[derive(Default)]
pub struct Check {
    /// So far.
    pub found: Violations,
}

impl Check {
    /// The value, unless something is wrong.
    pub fn done<T>(self, value: impl FnOnce() -> T) -> Result<T, Violations> {
        if self.found.is_empty() { Ok(value()) } else { Err(self.found) }
    }

    /// What was read, unless that is wrong.
    pub fn take<T>(&mut self, result: Result<T, Violations>) -> Option<T> {
        result.map_err(|violations| self.found.extend(violations)).ok()
    }

    /// Something has to hold.
    pub fn that(&mut self, holds: bool, field: &str, description: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation::new(field, description()));
        }
    }

    /// There may be so many of something.
    pub fn at_most(&mut self, field: &str, count: usize, limit: usize, what: &str) {
        self.that(count <= limit, field, || format!("there are {count} {what}; the limit is {limit}"));
    }

    /// A text may have so many characters.
    pub fn characters(&mut self, field: &str, text: &str, limit: usize) {
        // Nothing is counted that is short enough in bytes.
        let fits = text.len() <= limit || text.chars().count() <= limit;
        self.that(fits, field, || {
            format!("it has {} characters; the limit is {limit}", text.chars().count())
        });
    }

    /// A number that is not negative.
    pub fn count(&mut self, field: &str, number: i64) -> u64 {
        self.that(number >= 0, field, || format!("it is {number}; it must not be negative"));
        number.max(0) as u64
    }

    /// Where an attempt is.
    pub fn checkpoint(&mut self, checkpoint: proto::Checkpoint) -> SentCheckpoint {
        let proto::Checkpoint { data, output_bytes, number } = checkpoint;
        self.at_most("checkpoint.data", data.len(), CHECKPOINT_BYTES_MAX, "bytes");
        let output_bytes = self.count("checkpoint.output_bytes", output_bytes);
        let number = self.count("checkpoint.number", number);
        SentCheckpoint { number: (number > 0).then_some(number), output_bytes, data }
    }

    /// A time to wait.
    pub fn delay(&mut self, field: &str, delay: Option<prost_types::Duration>) -> Option<Duration> {
        let delay = checked_duration(delay?, field).map_err(|violation| vec![violation]);
        let delay = self.take(delay)?;
        self.that(delay.as_secs() <= DURATION_SECONDS_MAX, field, || {
            format!("it is {} s; the limit is {DURATION_SECONDS_MAX} s", delay.as_secs())
        });
        Some(delay)
    }

    /// What an attempt has measured.
    pub fn metrics(&mut self, metrics: &Metrics) {
        self.at_most("metrics", metrics.len(), METRICS_MAX, "measurements");
        for (name, value) in metrics.iter().take(METRICS_MAX) {
            self.characters("metrics", name, NAME_CHARACTERS_MAX);
            self.that(!name.is_empty(), "metrics", || "a measurement needs a name".to_owned());
            self.that(value.is_finite(), "metrics", || format!("{name} is {value}, which is no number"));
        }
    }

    /// How far it has come.
    pub fn progress(&mut self, progress: proto::Progress) -> Progress {
        self.characters("progress.stage", &progress.stage, STAGE_CHARACTERS_MAX);
        self.characters("progress.unit", &progress.unit, NAME_CHARACTERS_MAX);
        self.that(progress.fraction.is_none_or(|fraction| !fraction.is_nan()), "progress.fraction", || {
            "it is no number".to_owned()
        });
        self.count("progress.completed", progress.completed);
        self.count("progress.total", progress.total.unwrap_or(0));
        let time =
            |time| checked_timestamp(time, "progress.expected_end_time").map_err(|violation| vec![violation]);
        Progress {
            fraction: progress.fraction,
            estimated: progress.estimated,
            stage: progress.stage,
            completed: progress.completed,
            total: progress.total,
            unit: progress.unit,
            expected_end_time: progress.expected_end_time.and_then(|end| self.take(time(end))),
            report_time: None,
        }
    }

    /// A line of its log; none where that is too long.
    pub fn line(&mut self, index: usize, line: proto::LogLine) -> Option<LogLine> {
        let level = match line.level() {
            proto::log_line::Level::Debug => LogLevel::Debug,
            proto::log_line::Level::Unspecified | proto::log_line::Level::Info => LogLevel::Info,
            proto::log_line::Level::Warn => LogLevel::Warn,
            proto::log_line::Level::Error => LogLevel::Error,
        };
        let known = proto::log_line::Level::try_from(line.level).is_ok();
        self.that(known, &format!("logs[{index}].level"), || format!("{} is no level", line.level));
        let bytes = line.message.len();
        self.at_most(&format!("logs[{index}].message"), bytes, LOG_LINE_BYTES_MAX, "bytes");
        (bytes <= LOG_LINE_BYTES_MAX).then_some(LogLine { level, message: line.message })
    }

    /// Why it failed; one without a reason has a general one.
    pub fn failure(&mut self, failure: proto::Failure) -> Failure {
        let allowed = |c: char| matches!(c, 'A'..='Z' | '0'..='9' | '_');
        self.characters("failure.reason", &failure.reason, NAME_CHARACTERS_MAX);
        self.that(failure.reason.chars().all(allowed), "failure.reason", || {
            "it must be in UPPER_SNAKE_CASE".to_owned()
        });
        self.at_most("failure.message", failure.message.len(), FAILURE_MESSAGE_BYTES_MAX, "bytes");
        let details = failure.details.as_ref().and_then(|details| {
            let text = json::from_struct(details, "failure.details").map_err(|violation| vec![violation]);
            self.take(text)
        });
        let bytes = details.as_ref().map_or(0, String::len);
        self.at_most("failure.details", bytes, FAILURE_DETAILS_BYTES_MAX, "bytes");
        let name = match failure.reason.is_empty() {
            true => reason::HANDLER_ERROR.into(),
            false => failure.reason.into(),
        };
        Failure {
            reason: name,
            message: failure.message,
            permanent: failure.permanent,
            details: details.map(Bytes::from),
        }
    }
}
