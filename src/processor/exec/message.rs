//! The child protocol's two kinds of lines: the job that a program is given, and the messages that it answers with.

use crate::job::limits::*;
use crate::job::{Failure, LogLevel, LogLine, Metrics, Timestamp};
use crate::worker::Assignment;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};

/// Something that a program says about its job.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// More output.
    Output {
        /// The channel; empty is the main output.
        channel: String,
        /// The bytes.
        data: Bytes,
    },
    /// It has come further.
    Step(Step),
    /// A line for the log.
    Log(LogLine),
    /// Measurements.
    Metrics(Metrics),
    /// Where it is, for the next attempt.
    Checkpoint {
        /// As JSON text; empty where that is to begin anew.
        data: Bytes,
        /// How much of the main output stays valid; all that there is where it does not say.
        output_bytes: Option<u64>,
    },
    /// What the job returns, as JSON text.
    Result(Bytes),
    /// Why the attempt fails.
    Failure(Failure),
}

/// What has changed of a program's progress.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    pub fraction: Option<f64>,
    pub estimated: Option<bool>,
    pub stage: Option<String>,
    pub completed: Option<i64>,
    pub total: Option<i64>,
    pub unit: Option<String>,
    /// How long the rest will take.
    pub seconds_left: Option<f64>,
}

/// A message, as it stands on its line.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Message<'a> {
    progress: Option<f64>,
    estimated: Option<bool>,
    stage: Option<String>,
    completed: Option<i64>,
    total: Option<i64>,
    unit: Option<String>,
    seconds_left: Option<f64>,
    output: Option<String>,
    channel: Option<String>,
    log: Option<String>,
    level: Option<Level>,
    metrics: Option<Metrics>,
    #[serde(borrow, deserialize_with = "even_null")]
    checkpoint: Option<&'a RawValue>,
    output_bytes: Option<u64>,
    #[serde(borrow, deserialize_with = "even_null")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    failure: Option<Why<'a>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why<'a> {
    #[serde(default)]
    reason: String,
    message: String,
    #[serde(default)]
    permanent: bool,
    #[serde(borrow, default)]
    details: Option<&'a RawValue>,
}

/// A result of null is a result, and a checkpoint of null the wish to begin anew.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What a line says, where it is a message; added to `said`. A line that is none is output.
pub fn read(line: &[u8], said: &mut Vec<Said>) -> bool {
    // A list would be taken for an object whose fields come in order.
    if !line.starts_with(b"{") {
        return false;
    }
    let Ok(message) = serde_json::from_slice::<Message<'_>>(line) else { return false };
    let before = said.len();
    let is_whole = message.channel.as_ref().is_none_or(|channel| {
        message.output.is_some()
            && channel.chars().count() <= CHANNEL_CHARACTERS_MAX
            && !channel.contains(char::is_control)
    }) && (message.output_bytes.is_none() || message.checkpoint.is_some())
        && (message.level.is_none() || message.log.is_some())
        && message.metrics.as_ref().is_none_or(are_measurements);
    if !is_whole {
        return false;
    }
    let step = Step {
        fraction: message.progress,
        estimated: message.estimated,
        stage: message.stage,
        completed: message.completed,
        total: message.total,
        unit: message.unit,
        seconds_left: message.seconds_left,
    };
    if step != Step::default() {
        said.push(Said::Step(step));
    }
    if let Some(output) = message.output {
        said.push(Said::Output { channel: message.channel.unwrap_or_default(), data: output.into() });
    }
    if let Some(checkpoint) = message.checkpoint {
        let (data, output_bytes) = match checkpoint.get() {
            "null" => (Bytes::new(), Some(0)),
            text => (Bytes::copy_from_slice(text.as_bytes()), message.output_bytes),
        };
        said.push(Said::Checkpoint { data, output_bytes });
    }
    if let Some(text) = message.log {
        let level = match message.level.unwrap_or(Level::Info) {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        said.push(Said::Log(LogLine { level, message: text }));
    }
    if let Some(metrics) = message.metrics {
        said.push(Said::Metrics(metrics));
    }
    if let Some(result) = message.result {
        said.push(Said::Result(Bytes::copy_from_slice(result.get().as_bytes())));
    }
    if let Some(why) = message.failure {
        said.push(Said::Failure(failure(why)));
    }
    said.len() > before
}

fn are_measurements(metrics: &Metrics) -> bool {
    metrics.len() <= METRICS_MAX && metrics.keys().all(|name| name.chars().count() <= NAME_CHARACTERS_MAX)
}

/// The failure that a program names, in whatever form.
fn failure(why: Why<'_>) -> Failure {
    Failure {
        reason: why.reason.into(),
        message: why.message,
        permanent: why.permanent,
        details: why.details.map(|details| Bytes::copy_from_slice(details.get().as_bytes())),
    }
}

/// The line that gives a program its job, with its end.
pub fn job_line(assignment: &Assignment) -> Bytes {
    #[derive(Serialize)]
    struct Job<'a> {
        id: String,
        kind: &'a str,
        attempt: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        deadline: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        traceparent: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tracestate: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        checkpoint: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        output_offset: Option<u64>,
    }
    let trace = assignment.trace.as_ref();
    let job = Job {
        id: assignment.id.to_string(),
        kind: &assignment.kind,
        attempt: assignment.attempt,
        deadline: assignment.deadline.map(rfc3339),
        traceparent: trace.map(|trace| trace.parent.as_str()),
        tracestate: trace.map(|trace| trace.state.as_str()).filter(|state| !state.is_empty()),
        checkpoint: json_of(&assignment.checkpoint),
        output_offset: Some(assignment.output_offset).filter(|offset| *offset > 0),
    };
    let mut line = serde_json::to_vec(&job).expect("a few fields are always JSON");
    line.pop();
    line.extend_from_slice(br#","input":"#);
    line.extend_from_slice(&assignment.input);
    // Line ends can only stand between JSON's tokens, where a space is the same.
    line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    line.extend_from_slice(b"}\n");
    line.into()
}

/// A checkpoint as it goes to a program: that of a program is JSON, and that of another kind of worker is a text at least.
fn json_of(checkpoint: &Bytes) -> Option<Box<RawValue>> {
    let text = String::from_utf8_lossy(checkpoint);
    let as_text = || serde_json::value::to_raw_value(&text).ok();
    (!checkpoint.is_empty()).then(|| serde_json::from_str(&text).ok().or_else(as_text)).flatten()
}

fn rfc3339(time: Timestamp) -> String {
    let since = Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(0));
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, Trace};
    use rstest::rstest;

    fn said(line: &str) -> Option<Vec<Said>> {
        let mut said = Vec::new();
        read(line.as_bytes(), &mut said).then_some(said)
    }

    #[test]
    fn a_message_may_say_several_things_at_once() {
        let line =
            r#"{"progress": 0.5, "stage": "Reading", "total": 10, "log": "half", "metrics": {"pages": 5}}"#;

        let said = said(line).unwrap();

        let step = Step {
            fraction: Some(0.5),
            stage: Some("Reading".into()),
            total: Some(10),
            ..Default::default()
        };
        let log = LogLine { level: LogLevel::Info, message: "half".into() };
        let metrics = Metrics::from([("pages".to_owned(), 5.0)]);
        assert_eq!(said, [Said::Step(step), Said::Log(log), Said::Metrics(metrics)]);
    }

    #[test]
    fn a_result_is_passed_on_to_the_byte() {
        let result = |text: &'static str| Some(vec![Said::Result(Bytes::from_static(text.as_bytes()))]);

        assert_eq!(said(r#"{"result": 12345678901234567890}"#), result("12345678901234567890"));
        assert_eq!(said(r#"{"result": {"a" : 1.0}}"#), result(r#"{"a" : 1.0}"#));
        assert_eq!(said(r#"{"result":null}"#), result("null"));
    }

    #[test]
    fn a_failure_is_what_the_program_says() {
        let line =
            r#"{"failure": {"reason": "NO_SPEECH", "message": "m", "permanent": true, "details": {"a": 1}}}"#;
        let expected =
            Failure { details: Some(r#"{"a": 1}"#.into()), ..Failure::new("NO_SPEECH", "m").permanent() };
        assert_eq!(said(line), Some(vec![Said::Failure(expected)]));

        assert_eq!(
            said(r#"{"failure": {"message": "m"}}"#),
            Some(vec![Said::Failure(Failure::new("", "m"))])
        );
    }

    #[rstest]
    #[case("{}")]
    #[case("[1]")]
    #[case(r#"{"name": "what a model may well write"}"#)]
    #[case(r#"{"progress": 0.5, "more": 1}"#)]
    #[case(r#"{"progress": "half"}"#)]
    #[case(r#"{"channel": "reasoning"}"#)]
    #[case(r#"{"level": "info"}"#)]
    #[case(r#"{"output_bytes": 3}"#)]
    #[case(r#"{"checkpoint": 1, "output_bytes": -1}"#)]
    #[case(r#"{"log": "text", "level": "loud"}"#)]
    #[case(r#"{"failure": "text"}"#)]
    #[case(r#"{"result": 1"#)]
    fn what_is_no_message_is_output(#[case] line: &str) {
        assert_eq!(said(line), None);
    }

    #[test]
    fn a_job_is_one_line_whatever_its_input_looks_like() {
        let assignment = Assignment {
            id: JobId::new(Timestamp::from_micros(1), 0, 7),
            kind: "read \"aloud\"".into(),
            attempt: 2,
            input: Bytes::from_static(b"{\n  \"big\": 12345678901234567890,\r\n  \"text\": \"a\\nb\"\n}"),
            deadline: Some(Timestamp::from_micros(1_000_001)),
            trace: Some(Trace { parent: "00-1-2-01".into(), state: String::new() }),
            checkpoint: Bytes::from_static(b"{\n\"page\": 1.50}"),
            output_offset: 7,
        };

        let line = job_line(&assignment);

        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let text = std::str::from_utf8(&line).unwrap();
        assert!(text.contains("12345678901234567890"), "{text}");
        let job: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(job["id"], assignment.id.to_string());
        assert_eq!(job["kind"], "read \"aloud\"");
        assert_eq!(job["attempt"], 2);
        assert_eq!(job["deadline"], "1970-01-01T00:00:01.000001Z");
        assert_eq!((&job["traceparent"], job.get("tracestate")), (&"00-1-2-01".into(), None));
        assert_eq!(job["input"]["text"], "a\nb");
        assert!(text.contains("1.50"), "{text}");
        assert_eq!((&job["checkpoint"]["page"], &job["output_offset"]), (&1.5.into(), &7.into()));
    }

    #[rstest]
    #[case(b"", serde_json::Value::Null)]
    #[case(b"[1]", serde_json::json!([1]))]
    #[case(b"page 3", "page 3".into())]
    #[case(b"\xff", "\u{fffd}".into())]
    fn a_checkpoint_of_any_worker_is_json(#[case] data: &'static [u8], #[case] expected: serde_json::Value) {
        let given = json_of(&Bytes::from_static(data));

        let given = given.map_or(serde_json::Value::Null, |raw| serde_json::from_str(raw.get()).unwrap());
        assert_eq!(given, expected);
    }

    #[test]
    fn a_checkpoint_is_passed_on_to_the_byte_behind_the_output_of_its_message() {
        let checkpoint =
            |data: &'static str, output_bytes| Said::Checkpoint { data: data.into(), output_bytes };

        assert_eq!(
            said(r#"{"checkpoint": {"page" : 1.0}}"#),
            Some(vec![checkpoint(r#"{"page" : 1.0}"#, None)])
        );
        assert_eq!(
            said(r#"{"checkpoint": "a", "output_bytes": 3}"#),
            Some(vec![checkpoint(r#""a""#, Some(3))])
        );
        assert_eq!(said(r#"{"checkpoint": null}"#), Some(vec![checkpoint("", Some(0))]));
        let both = said(r#"{"checkpoint": 1, "output": "x"}"#).unwrap();
        assert!(matches!(&both[..], [Said::Output { .. }, Said::Checkpoint { .. }]), "{both:?}");
    }
}
