//! What a request asks for. Everything is checked here or in `job::spec`, and told by the field's path.

use super::json;
use crate::engine::Parts;
use crate::job::limits::*;
use crate::job::{JobId, RequestKey, Sequence, Spec, Terms, Timestamp, Violation, Wish, check_request_id};
use crate::proto;
use bytes::Bytes;
use prost::Message;
use proto::start_job_request::Payload;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// What is wrong with a request.
pub type Violations = Vec<Violation>;

/// The last second that a protobuf `Timestamp` can name, in the year 9999.
const TIMESTAMP_SECONDS_MAX: i64 = 253_402_300_799;
/// The first one, in the year 1.
const TIMESTAMP_SECONDS_MIN: i64 = -62_135_596_800;
const PAGE_SIZE_MAX: usize = 1_000;
/// How many jobs a batch may have.
pub const BATCH_MAX: usize = 1_000;
/// How much that is wrong one answer tells of.
const VIOLATIONS_MAX: usize = 100;

/// The job that a request wishes for. It has no trace yet.
pub fn spec(mut request: proto::StartJobRequest, tenant: &str, terms: &Terms) -> Result<Spec, Violations> {
    let mut violations = Violations::new();
    let request_id = std::mem::take(&mut request.request_id);
    let fingerprint = match request_id.is_empty() {
        true => [0; 32],
        // Maps are ordered, so equal requests have equal encodings.
        false => Sha256::digest(request.encode_to_vec()).into(),
    };
    let (input_field, input) = input(request.payload, &mut violations);
    let options = request.options.unwrap_or_default();
    let retry = options.retry_policy.unwrap_or_default();
    let mut duration = |field: &str, duration| {
        optional(duration, &mut violations, |duration| checked_duration(duration, field))
    };
    let wish = Wish {
        kind: request.kind,
        input,
        priority: options.priority,
        maximum_attempts: retry.maximum_attempts,
        initial_interval: duration("options.retry_policy.initial_interval", retry.initial_interval),
        backoff_coefficient: retry.backoff_coefficient,
        maximum_interval: duration("options.retry_policy.maximum_interval", retry.maximum_interval),
        schedule_to_start_timeout: duration(
            "options.schedule_to_start_timeout",
            options.schedule_to_start_timeout,
        ),
        start_to_close_timeout: duration("options.start_to_close_timeout", options.start_to_close_timeout),
        schedule_to_close_timeout: duration(
            "options.schedule_to_close_timeout",
            options.schedule_to_close_timeout,
        ),
        progress_timeout: duration("options.progress_timeout", options.progress_timeout),
        concurrency_key: options.concurrency_key,
        concurrency_limit: options.concurrency_limit,
        retention: duration("options.retention", options.retention),
        schedule_time: optional(options.schedule_time, &mut violations, |time| {
            checked_timestamp(time, "options.schedule_time")
        }),
        labels: request.labels,
        request_id,
        fingerprint,
        trace: None,
    };
    match wish.into_spec(tenant, terms) {
        Ok(spec) if violations.is_empty() => Ok(spec),
        Ok(_) => Err(violations),
        Err(others) => {
            let renamed = others.into_iter().map(|violation| match violation.field.as_str() {
                "input" => Violation { field: input_field.to_owned(), ..violation },
                _ => violation,
            });
            violations.extend(renamed);
            Err(violations)
        }
    }
}

/// The jobs that a batch wishes for; what is wrong is named with its place in the batch.
pub fn batch(
    requests: Vec<proto::StartJobRequest>,
    tenant: &str,
    terms: impl Fn(&str) -> Terms,
) -> Result<Vec<Spec>, Violations> {
    let count = requests.len();
    if count > BATCH_MAX {
        let text = format!("there are {count} requests; the limit is {BATCH_MAX}");
        return Err(vec![Violation::new("requests", text)]);
    }
    let mut specs = Vec::with_capacity(count);
    let mut violations = Violations::new();
    for (index, request) in requests.into_iter().enumerate() {
        let terms = terms(&request.kind);
        match spec(request, tenant, &terms) {
            Ok(spec) => specs.push(spec),
            Err(others) => violations.extend(
                others
                    .into_iter()
                    .map(|violation| Violation { field: in_batch(index, &violation.field), ..violation }),
            ),
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    if violations.is_empty() { Ok(specs) } else { Err(violations) }
}

/// The path of a field of one request of a batch.
pub fn in_batch(index: usize, field: &str) -> String {
    format!("requests[{index}].{field}")
}

/// The client's name for a retry, and what tells it from another request.
pub fn retry_key(request: proto::RetryJobRequest) -> Result<Option<RequestKey>, Violations> {
    let proto::RetryJobRequest { job_id, request_id } = request;
    if request_id.is_empty() {
        return Ok(None);
    }
    check_request_id(&request_id)?;
    let message = proto::RetryJobRequest { job_id, request_id: String::new() };
    // No StartJobRequest has this encoding, since its first field would be no kind.
    let fingerprint = Sha256::digest(message.encode_to_vec()).into();
    Ok(Some(RequestKey { id: request_id, fingerprint }))
}

/// How many bytes of a request have to be read as JSON.
pub fn json_bytes(request: &proto::StartJobRequest) -> usize {
    match &request.payload {
        Some(Payload::Input(input)) => input.encoded_len(),
        Some(Payload::InputJson(text)) => text.len(),
        None => 0,
    }
}

fn input(payload: Option<Payload>, violations: &mut Violations) -> (&'static str, Bytes) {
    match payload {
        None => ("input", Bytes::from_static(b"{}")),
        Some(Payload::Input(object)) => match json::from_struct(&object, "input") {
            Ok(text) => ("input", text.into()),
            Err(violation) => {
                violations.push(violation);
                ("input", Bytes::new())
            }
        },
        Some(Payload::InputJson(text)) => {
            // One that is too long is refused for that; there is no need to read it.
            if text.len() <= INPUT_BYTES_MAX
                && let Err(violation) = json::check_object(&text, "input_json")
            {
                violations.push(violation);
            }
            ("input_json", text.into())
        }
    }
}

/// The id of a job.
pub fn job_id(text: &str) -> Result<JobId, Violations> {
    match text.is_empty() {
        true => Err(vec![Violation::new("job_id", "job_id is required")]),
        false => text.parse().map_err(|error| vec![Violation::new("job_id", format!("{error}"))]),
    }
}

/// How much of a job is to be shown.
pub fn parts(view: i32, default: Parts) -> Result<Parts, Violations> {
    match proto::job::View::try_from(view) {
        Ok(proto::job::View::Unspecified) => Ok(default),
        Ok(proto::job::View::Basic) => Ok(Parts::BASIC),
        Ok(proto::job::View::Full) => Ok(Parts::FULL),
        Err(_) => Err(vec![Violation::new("view", format!("{view} is no view"))]),
    }
}

/// A cursor.
pub fn sequence(number: i64, field: &str) -> Result<Sequence, Violations> {
    number
        .try_into()
        .map_err(|_| vec![Violation::new(field, format!("{field} is {number}; it must not be negative"))])
}

/// The size of a page; what is more than the most is the most.
pub fn page_size(size: i32, default: usize) -> Result<usize, Violations> {
    match usize::try_from(size) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => {
            Err(vec![Violation::new("page_size", format!("page_size is {size}; it must not be negative"))])
        }
    }
}

/// How many jobs a watch begins with.
pub fn initial_jobs(count: i32) -> Result<usize, Violations> {
    match usize::try_from(count) {
        Ok(count) if count <= PAGE_SIZE_MAX => Ok(count),
        _ => {
            let text = format!("initial_jobs is {count}; it must be from 0 to {PAGE_SIZE_MAX}");
            Err(vec![Violation::new("initial_jobs", text)])
        }
    }
}

/// A duration that may be left out.
pub fn duration(
    duration: Option<prost_types::Duration>,
    field: &str,
    most: Duration,
) -> Result<Option<Duration>, Violations> {
    let Some(duration) = duration else { return Ok(None) };
    let duration = checked_duration(duration, field).map_err(|violation| vec![violation])?;
    match duration > most {
        true => {
            let text = format!("it is {} s; the limit is {} s", duration.as_secs_f64(), most.as_secs());
            Err(vec![Violation::new(field, text)])
        }
        false => Ok(Some(duration)),
    }
}

/// What a person said.
pub fn message(text: String, field: &str) -> Result<String, Violations> {
    let count = text.chars().count();
    match count > MESSAGE_CHARACTERS_MAX {
        true => {
            let text = format!("it has {count} characters; the limit is {MESSAGE_CHARACTERS_MAX}");
            Err(vec![Violation::new(field, text)])
        }
        false => Ok(text),
    }
}

fn optional<P, T>(
    value: Option<P>,
    violations: &mut Violations,
    check: impl FnOnce(P) -> Result<T, Violation>,
) -> Option<T> {
    match check(value?) {
        Ok(value) => Some(value),
        Err(violation) => {
            violations.push(violation);
            None
        }
    }
}

pub(super) fn checked_duration(duration: prost_types::Duration, field: &str) -> Result<Duration, Violation> {
    let prost_types::Duration { seconds, nanos } = duration;
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) => Ok(Duration::new(seconds, nanos)),
        _ if seconds < 0 || nanos < 0 => Err(Violation::new(field, "it is negative")),
        _ => Err(Violation::new(field, "its nanos are a second or more")),
    }
}

pub(super) fn checked_timestamp(time: prost_types::Timestamp, field: &str) -> Result<Timestamp, Violation> {
    let prost_types::Timestamp { seconds, nanos } = time;
    match (TIMESTAMP_SECONDS_MIN..=TIMESTAMP_SECONDS_MAX).contains(&seconds)
        && (0..1_000_000_000).contains(&nanos)
    {
        true => Ok(Timestamp::from_micros(seconds * 1_000_000 + i64::from(nanos) / 1_000)),
        false => Err(Violation::new(field, "it is no time between the years 1 and 9999")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::DEFAULT_TENANT;
    use rstest::rstest;

    fn request() -> proto::StartJobRequest {
        proto::StartJobRequest {
            kind: "simulate".into(),
            options: Some(Default::default()),
            ..Default::default()
        }
    }

    fn options(request: &mut proto::StartJobRequest) -> &mut proto::JobOptions {
        request.options.get_or_insert_default()
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn fields(request: proto::StartJobRequest) -> Vec<String> {
        let result = spec(request, DEFAULT_TENANT, &Terms::default());
        result.map_or_else(|violations| violations.into_iter().map(|v| v.field).collect(), |_| Vec::new())
    }

    #[rstest]
    #[case(|r: &mut proto::StartJobRequest| r.kind = "A".into(), "kind")]
    #[case(|r: &mut proto::StartJobRequest| r.payload = Some(Payload::InputJson("[]".into())), "input_json")]
    #[case(|r: &mut proto::StartJobRequest| r.payload = Some(Payload::InputJson("{".into())), "input_json")]
    #[case(|r: &mut proto::StartJobRequest| r.payload = Some(Payload::InputJson(" ".repeat(1 << 21))), "input_json")]
    #[case(|r: &mut proto::StartJobRequest| options(r).schedule_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), "options.schedule_time")]
    #[case(|r: &mut proto::StartJobRequest| options(r).start_to_close_timeout = seconds(-1), "options.start_to_close_timeout")]
    #[case(|r: &mut proto::StartJobRequest| options(r).schedule_to_close_timeout = seconds(i64::MAX), "options.schedule_to_close_timeout")]
    #[case(|r: &mut proto::StartJobRequest| options(r).schedule_to_start_timeout = seconds(0), "options.schedule_to_start_timeout")]
    #[case(|r: &mut proto::StartJobRequest| options(r).progress_timeout = Some(prost_types::Duration { seconds: 1, nanos: -1 }), "options.progress_timeout")]
    #[case(|r: &mut proto::StartJobRequest| options(r).retention = seconds(-5), "options.retention")]
    #[case(|r: &mut proto::StartJobRequest| options(r).retry_policy = Some(proto::RetryPolicy { initial_interval: seconds(-1), ..Default::default() }), "options.retry_policy.initial_interval")]
    #[case(|r: &mut proto::StartJobRequest| options(r).retry_policy = Some(proto::RetryPolicy { maximum_interval: seconds(-1), ..Default::default() }), "options.retry_policy.maximum_interval")]
    fn what_is_wrong_is_named_by_its_path(
        #[case] spoil: fn(&mut proto::StartJobRequest),
        #[case] field: &str,
    ) {
        let mut request = request();
        spoil(&mut request);

        assert_eq!(fields(request), [field]);
    }

    #[test]
    fn an_input_as_text_is_kept_byte_for_byte() {
        let text = " {\"n\": 9007199254740993, \"x\" : 1.50} ";
        let request = proto::StartJobRequest { payload: Some(Payload::InputJson(text.into())), ..request() };

        let spec = spec(request, DEFAULT_TENANT, &Terms::default()).unwrap();

        assert_eq!(spec.input, text.as_bytes());
    }

    #[test]
    fn requests_are_told_apart_by_all_but_their_id() {
        let fingerprint = |kind: &str, request_id: &str| {
            let request =
                proto::StartJobRequest { kind: kind.into(), request_id: request_id.into(), ..request() };
            spec(request, DEFAULT_TENANT, &Terms::default()).unwrap().request.unwrap().fingerprint
        };

        assert_eq!(fingerprint("a", "one"), fingerprint("a", "two"));
        assert_ne!(fingerprint("a", "one"), fingerprint("b", "one"));
    }

    #[test]
    fn pages_have_bounds() {
        assert_eq!(page_size(0, 50), Ok(50));
        assert_eq!(page_size(5_000, 50), Ok(1_000));
        assert!(page_size(-1, 50).is_err());
        assert!(sequence(-1, "after_sequence").is_err());
        assert!(job_id("").is_err());
        assert!(parts(7, Parts::BASIC).is_err());
    }
}
