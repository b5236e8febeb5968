//! The one table of errors: which code and which reason each of them has at the edge.

use crate::engine::Error;
use crate::job::{Refusal, Violation};
use http::StatusCode;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// The domain of every ErrorInfo that this server sends.
pub const DOMAIN: &str = "longhaul";

/// When a call that found the server busy should be tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How many bytes of what is wrong with a request its error has: all of it is a header, of which gRPC's C core takes
/// 8 KiB unless it is told otherwise, and grows on the way.
const VIOLATION_BYTES_MAX: usize = 3_000;
/// How many bytes of a field's path are shown; a key in it may be as long as the request.
const PATH_BYTES_MAX: usize = 512;

/// The reason of what is wrong with a request.
pub const INVALID_REQUEST: &str = "INVALID_REQUEST";
/// The reason of a message that has more bytes than its method takes.
pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
/// The reason of a message that is compressed in a way that nobody here knows.
pub const ENCODING_UNKNOWN: &str = "ENCODING_UNKNOWN";

/// Every reason that this server gives.
pub const REASONS: &[&str] = &[
    INVALID_REQUEST,
    MESSAGE_TOO_LARGE,
    ENCODING_UNKNOWN,
    "JOB_NOT_FOUND",
    "JOB_ACTIVE",
    "REQUEST_ID_REUSED",
    "QUEUE_FULL",
    "DISK_FULL",
    "AHEAD_OF_JOB",
    "UNAVAILABLE",
    "OUTCOME_UNKNOWN",
    "DATA_LOSS",
    "JOB_NOT_READY",
    "LEASE_LOST",
    "LEASE_ACCEPTED",
    "JOB_CANCELLED",
    "NOTHING_TO_STOP",
    "OUTPUT_GAP",
    "LOG_GAP",
    "OUTPUT_CONFLICT",
    "OUTPUT_MISSING",
    "CHECKPOINT_AHEAD",
    "OUTPUT_LIMIT",
    "CHANNEL_LIMIT",
    "CANCELLED",
    "UNKNOWN",
    "MALFORMED_REQUEST",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "METHOD_UNKNOWN",
    "INTERNAL",
    "UNAUTHENTICATED",
    "PATH_UNKNOWN",
    "CONTENT_TYPE_UNKNOWN",
    "BODY_TIMEOUT",
    "BUSY",
    "TARGET_AMBIGUOUS",
    "HOST_UNKNOWN",
    "ORIGIN_FOREIGN",
    "CONNECTION_LIMIT",
    "HTTP_VERSION_UNKNOWN",
];

/// What a client is told of an error.
pub fn status(error: &Error) -> Status {
    status_in(error, |_, field| field.to_owned())
}

/// What a client is told while other requests take all the room that there is.
pub fn busy() -> Status {
    let mut details = ErrorDetails::with_error_info("BUSY", DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_DELAY));
    let message = "other requests take all the room that there is; try again";
    Status::with_error_details(Code::Unavailable, message, details)
}

/// What a client is told of an error of a batch: what is wrong is named with its place in the batch.
pub fn status_in_batch(error: &Error) -> Status {
    status_in(error, super::request::in_batch)
}

fn status_in(error: &Error, path: impl Fn(usize, &str) -> String) -> Status {
    let (code, reason) = code_and_reason(error);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata(error));
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(RETRY_DELAY));
    }
    match error {
        Error::RequestIdReused { index } => {
            details.add_bad_request_violation(path(*index, "request_id"), error.to_string());
        }
        Error::AheadOfJob { .. } => {
            details.add_bad_request_violation("after_sequence", error.to_string());
        }
        _ => {}
    }
    Status::with_error_details(code, error.to_string(), details)
}

/// What a client is told of a request that cannot be accepted: the first things that are wrong, and how many more.
pub fn invalid(mut violations: Vec<Violation>) -> Status {
    for Violation { field, .. } in violations.iter_mut().filter(|one| one.field.len() > PATH_BYTES_MAX) {
        field.truncate(field.floor_char_boundary(PATH_BYTES_MAX));
        field.push('…');
    }
    let message = match violations.as_slice() {
        [one] => format!("{}: {}", one.field, one.description),
        [first, ..] => format!("{}: {} (and {} more)", first.field, first.description, violations.len() - 1),
        [] => "the request is not valid".to_owned(),
    };
    let mut details = ErrorDetails::with_error_info(INVALID_REQUEST, DOMAIN, HashMap::new());
    let mut bytes = 0;
    let fields = violations
        .into_iter()
        .take_while(|violation| {
            let fits = bytes < VIOLATION_BYTES_MAX;
            bytes += violation.field.len() + violation.description.len();
            fits
        })
        .map(|violation| FieldViolation::new(violation.field, violation.description));
    details.set_bad_request(fields.collect::<Vec<_>>());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Why a report on a stream is refused: the stable reason, and what it means.
pub fn refusal(error: &Error) -> (String, String) {
    (code_and_reason(error).1.to_owned(), error.to_string())
}

/// The stable reason of an error that lies with the server; none where the call itself could not be granted.
pub fn fault(error: &Error) -> Option<&'static str> {
    let is_fault = match error {
        Error::QueueFull { .. }
        | Error::DiskFull { .. }
        | Error::Unavailable(_)
        | Error::Unknown(_)
        | Error::Damaged(_) => true,
        Error::NotFound
        | Error::Active
        | Error::RequestIdReused { .. }
        | Error::AheadOfJob { .. }
        | Error::Refused(_) => false,
    };
    is_fault.then(|| code_and_reason(error).1)
}

/// The stable reason of an error that says no more than its code.
pub fn reason(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "MALFORMED_REQUEST",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "METHOD_UNKNOWN",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn code_and_reason(error: &Error) -> (Code, &'static str) {
    match error {
        Error::NotFound => (Code::NotFound, "JOB_NOT_FOUND"),
        Error::Active => (Code::FailedPrecondition, "JOB_ACTIVE"),
        Error::RequestIdReused { .. } => (Code::InvalidArgument, "REQUEST_ID_REUSED"),
        Error::QueueFull { .. } => (Code::ResourceExhausted, "QUEUE_FULL"),
        Error::DiskFull { .. } => (Code::ResourceExhausted, "DISK_FULL"),
        Error::AheadOfJob { .. } => (Code::OutOfRange, "AHEAD_OF_JOB"),
        Error::Unavailable(_) => (Code::Unavailable, "UNAVAILABLE"),
        Error::Unknown(_) => (Code::Unavailable, "OUTCOME_UNKNOWN"),
        Error::Damaged(_) => (Code::DataLoss, "DATA_LOSS"),
        Error::Refused(refusal) => match refusal {
            Refusal::NotReady => (Code::FailedPrecondition, "JOB_NOT_READY"),
            Refusal::LeaseLost | Refusal::OtherKeeper => (Code::FailedPrecondition, "LEASE_LOST"),
            Refusal::Accepted => (Code::FailedPrecondition, "LEASE_ACCEPTED"),
            Refusal::JobCancelled => (Code::FailedPrecondition, "JOB_CANCELLED"),
            Refusal::NothingToStop => (Code::InvalidArgument, "NOTHING_TO_STOP"),
            Refusal::OutputGap { .. } => (Code::OutOfRange, "OUTPUT_GAP"),
            Refusal::LogGap { .. } => (Code::OutOfRange, "LOG_GAP"),
            Refusal::OutputConflict { .. } => (Code::FailedPrecondition, "OUTPUT_CONFLICT"),
            Refusal::OutputMissing { .. } => (Code::FailedPrecondition, "OUTPUT_MISSING"),
            Refusal::CheckpointAhead { .. } => (Code::OutOfRange, "CHECKPOINT_AHEAD"),
            Refusal::OutputLimit { .. } => (Code::FailedPrecondition, "OUTPUT_LIMIT"),
            Refusal::ChannelLimit => (Code::FailedPrecondition, "CHANNEL_LIMIT"),
        },
    }
}

/// The HTTP status of an error: that of google.rpc.Code's mapping, except where HTTP has a word of its own.
pub fn http(code: Code, reason: &str) -> StatusCode {
    match reason {
        "MESSAGE_TOO_LARGE" => return StatusCode::PAYLOAD_TOO_LARGE,
        "REQUEST_ID_REUSED" => return StatusCode::CONFLICT,
        _ => {}
    }
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// What a program may want to know of an error, beside its reason.
fn metadata(error: &Error) -> HashMap<String, String> {
    let pairs: &[(&str, u64)] = match error {
        Error::QueueFull { limit } => &[("limit", *limit)],
        Error::DiskFull { free, limit } => &[("free", *free), ("limit", *limit)],
        Error::AheadOfJob { sequence, .. } => &[("sequence", *sequence)],
        Error::Refused(Refusal::OutputGap { expected } | Refusal::LogGap { expected }) => {
            &[("expected", *expected)]
        }
        Error::Refused(Refusal::CheckpointAhead { output_bytes, present }) => {
            &[("output_bytes", *output_bytes), ("expected", *present)]
        }
        Error::Refused(Refusal::OutputLimit { limit }) => &[("limit", *limit)],
        Error::NotFound
        | Error::Active
        | Error::RequestIdReused { .. }
        | Error::Unavailable(_)
        | Error::Unknown(_)
        | Error::Damaged(_)
        | Error::Refused(_) => &[],
    };
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Error> {
        let refused = [
            Refusal::NotReady,
            Refusal::LeaseLost,
            Refusal::OtherKeeper,
            Refusal::Accepted,
            Refusal::JobCancelled,
            Refusal::NothingToStop,
            Refusal::OutputGap { expected: 7 },
            Refusal::LogGap { expected: 7 },
            Refusal::OutputConflict { offset: 7 },
            Refusal::OutputMissing { present: 1, announced: 2 },
            Refusal::CheckpointAhead { output_bytes: 2, present: 1 },
            Refusal::OutputLimit { limit: 7 },
            Refusal::ChannelLimit,
        ];
        let mut all = vec![
            Error::NotFound,
            Error::Active,
            Error::RequestIdReused { index: 0 },
            Error::QueueFull { limit: 7 },
            Error::DiskFull { free: 6, limit: 7 },
            Error::AheadOfJob { after: 9, sequence: 7 },
            Error::Unavailable("closed".to_owned()),
            Error::Unknown("disk".to_owned()),
            Error::Damaged("row".to_owned()),
        ];
        all.extend(refused.map(Error::Refused));
        all
    }

    #[test]
    fn every_error_has_a_stable_reason_of_our_domain() {
        for error in all() {
            let status = status(&error);

            let details = status.get_error_details();
            let info = details.error_info().expect("every error has one");
            assert_eq!(info.domain, DOMAIN);
            assert!(
                info.reason.chars().all(|c| c.is_ascii_uppercase() || c == '_'),
                "{error:?}: {}",
                info.reason
            );
            assert!(REASONS.contains(&info.reason.as_str()), "{error:?}: {}", info.reason);
            assert!(!status.message().is_empty());
        }
    }

    #[test]
    fn the_list_of_reasons_has_each_once_and_those_of_bare_codes() {
        let mut once = REASONS.to_vec();
        once.sort_unstable();
        once.dedup();

        assert_eq!(once.len(), REASONS.len());
        for code in (1..17).map(Code::from_i32) {
            assert!(REASONS.contains(&reason(code)), "{code:?}");
        }
    }

    #[test]
    fn it_says_when_to_come_again_just_where_that_helps() {
        for error in all() {
            let retry = status(&error).get_error_details().retry_info().is_some();
            let helps = matches!(
                error,
                Error::Unavailable(_) | Error::Unknown(_) | Error::QueueFull { .. } | Error::DiskFull { .. }
            );

            assert_eq!(retry, helps, "{error:?}");
        }
    }

    #[test]
    fn numbers_that_a_program_wants_are_metadata() {
        let metadata = |error| {
            let details = status(&error).get_error_details();
            details.error_info().unwrap().metadata.clone()
        };

        assert_eq!(metadata(Error::QueueFull { limit: 7 })["limit"], "7");
        assert_eq!(metadata(Error::AheadOfJob { after: 9, sequence: 7 })["sequence"], "7");
        assert_eq!(metadata(Error::Refused(Refusal::OutputGap { expected: 7 }))["expected"], "7");
    }

    #[test]
    fn a_bad_request_names_every_field() {
        let violation = |field: &str| Violation { field: field.to_owned(), description: "is bad".to_owned() };

        let status = invalid(vec![violation("kind"), violation("options.priority")]);

        let details = status.get_error_details();
        let fields = &details.bad_request().unwrap().field_violations;
        assert_eq!(status.message(), "kind: is bad (and 1 more)");
        assert_eq!(fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["kind", "options.priority"]);
    }
    #[test]
    fn what_is_wrong_fits_into_a_header_however_much_it_is() {
        let violation =
            |index| Violation::new(format!("requests[{index}].input.{}", "ü".repeat(100_000)), "is bad");

        let status = invalid((0..1_000).map(violation).collect());

        let details = status.get_error_details();
        let fields = &details.bad_request().unwrap().field_violations;
        assert!(fields.len() > 1 && status.message().ends_with("(and 999 more)"), "{}", status.message());
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(bytes < 8 << 10, "{bytes} bytes");
    }
}
