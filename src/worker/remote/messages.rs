//! Between what a handler says and the contract's messages.

use crate::job::{Failure, JobId, LeaseToken, LogLevel, LogLine, Progress, Timestamp, Trace};
use crate::proto::{self, work_request::Message};
use crate::worker::source::Assignment;
use bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use std::time::Duration;

/// What is to be done; none where that is not said.
pub fn assignment(assignment: proto::Assignment) -> Option<Assignment> {
    let job = assignment.job?;
    let trace = Trace { parent: assignment.traceparent, state: assignment.tracestate };
    Some(Assignment {
        trace: Some(trace).filter(|trace| !trace.parent.is_empty()),
        id: job.id.parse::<JobId>().ok()?,
        kind: job.kind,
        // The one that begins with the acceptance.
        attempt: u32::try_from(job.attempt).ok()? + 1,
        input: assignment.input_json.into(),
        checkpoint: assignment.checkpoint,
        output_offset: u64::try_from(assignment.output_offset).ok()?,
        deadline: assignment.attempt_deadline.map(|time| {
            Timestamp::from_micros(time.seconds.saturating_mul(1_000_000) + i64::from(time.nanos) / 1_000)
        }),
    })
}

/// How far an attempt has come.
pub fn progress(progress: &Progress) -> proto::Progress {
    let time = |time: Timestamp| prost_types::Timestamp {
        seconds: time.as_micros().div_euclid(1_000_000),
        nanos: time.as_micros().rem_euclid(1_000_000) as i32 * 1_000,
    };
    proto::Progress {
        fraction: progress.fraction,
        estimated: progress.estimated,
        stage: progress.stage.clone(),
        completed: progress.completed,
        total: progress.total,
        unit: progress.unit.clone(),
        expected_end_time: progress.expected_end_time.map(time),
        report_time: None,
    }
}

/// A line of the log.
pub fn log_line(line: &LogLine) -> proto::LogLine {
    let level = match line.level {
        LogLevel::Debug => proto::log_line::Level::Debug,
        LogLevel::Info => proto::log_line::Level::Info,
        LogLevel::Warn => proto::log_line::Level::Warn,
        LogLevel::Error => proto::log_line::Level::Error,
    };
    proto::LogLine { level: level.into(), message: line.message.clone() }
}

/// A job that is given back because the worker stops.
pub fn released(token: &LeaseToken) -> Message {
    given_back(token, "the worker stops".to_owned(), None)
}

/// A job that is given back, not to be leased again before `delay` is over.
pub fn given_back(token: &LeaseToken, reason: String, delay: Option<Duration>) -> Message {
    let delay = delay.and_then(|delay| delay.try_into().ok());
    Message::Release(proto::ReleaseJobRequest { lease_token: token.to_string(), reason, delay })
}

/// What went wrong.
pub fn failure(failure: Failure) -> proto::Failure {
    proto::Failure {
        reason: failure.reason.into_owned(),
        message: failure.message,
        permanent: failure.permanent,
        details: failure.details.as_ref().and_then(object),
    }
}

/// The object that a JSON text is.
fn object(text: &Bytes) -> Option<Struct> {
    match value(serde_json::from_slice(text).ok()?).kind? {
        Kind::StructValue(object) => Some(object),
        _ => None,
    }
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, field)| (name, value(field))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
