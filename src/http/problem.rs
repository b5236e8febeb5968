//! Errors as problem details (RFC 9457), with the reasons that gRPC has.

use super::body::{Answer, json};
use crate::wire::status::{self, DOMAIN};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;
use std::collections::BTreeMap;
use tonic::Status;
use tonic_types::{FieldViolation, StatusExt};

/// The content-type of a problem.
pub const PROBLEM: &str = "application/problem+json";

/// Why a request has no other answer.
#[derive(Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    details: Box<Details>,
    /// The methods that the address has, where it does not have the one that was asked for.
    allow: Option<String>,
    retry_after: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Details {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// The stable reason, the same as in gRPC's ErrorInfo.
    reason: String,
    domain: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
}

#[derive(Debug, Serialize)]
struct Field {
    field: String,
    description: String,
}

impl Problem {
    /// A problem of HTTP's own, which gRPC does not have.
    pub fn new(status: StatusCode, reason: &str, detail: impl Into<String>) -> Self {
        let details = Box::new(Details {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            reason: reason.to_owned(),
            domain: DOMAIN,
            metadata: BTreeMap::new(),
            fields: Vec::new(),
        });
        Self { status, details, allow: None, retry_after: None }
    }

    /// There is nothing at this address.
    pub fn nothing() -> Self {
        Self::new(StatusCode::NOT_FOUND, "PATH_UNKNOWN", "there is nothing at this address")
    }

    /// The address has these methods only.
    pub fn method(allow: String) -> Self {
        let detail = format!("this address has the methods {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_UNKNOWN", detail) }
    }

    /// The stable reason.
    pub fn reason(&self) -> &str {
        &self.details.reason
    }

    /// What has happened, for people.
    pub fn detail(&self) -> &str {
        &self.details.detail
    }

    /// What it says, for where it is not an answer.
    pub fn details(&self) -> &impl Serialize {
        &*self.details
    }

    /// The answer that tells of it.
    pub fn into_answer(self) -> Answer {
        let mut answer: Answer = Response::new(json(&*self.details));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::try_from(allow).expect("methods are plain text"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        answer
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.map_or(status::reason(status.code()), |info| info.reason.as_str());
        let mut problem = Self::new(status::http(status.code(), reason), reason, status.message());
        if let Some(info) = info {
            problem.details.metadata = info.metadata.clone().into_iter().collect();
        }
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice());
        problem.details.fields = violations.unwrap_or_default().iter().map(Field::new).collect();
        // The message begins with the first of them, by the name that the contract has for it.
        if let (Some(first), Some(field)) =
            (violations.and_then(<[_]>::first), problem.details.fields.first())
            && let Some(rest) =
                status.message().strip_prefix(&format!("{}: {}", first.field, first.description))
        {
            problem.details.detail = format!("{}: {}{rest}", field.field, field.description);
        }
        let delay = details.retry_info().and_then(|retry| retry.retry_delay);
        problem.retry_after = delay.map(|delay| delay.as_secs().max(1));
        problem
    }
}

impl Field {
    fn new(violation: &FieldViolation) -> Self {
        let field = json_path(&violation.field);
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let (name, own) = (last(&violation.field), last(&field));
        Self { field, description: violation.description.replace(&name, &own) }
    }
}

/// A field's path with the names that JSON has: `options.retry_policy` is `options.retryPolicy`. What stands in quotes is the
/// client's own.
fn json_path(path: &str) -> String {
    let mut named = String::with_capacity(path.len());
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                named.push('"');
                named.extend(letters.by_ref());
            }
            '_' => named.extend(letters.next().map(|letter| letter.to_ascii_uppercase())),
            other => named.push(other),
        }
    }
    // However it came, what a client of JSON sends is the input.
    match named.strip_suffix("inputJson") {
        Some(before) => format!("{before}input"),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Violation;

    #[test]
    fn fields_have_the_names_of_json() {
        assert_eq!(json_path("options.retry_policy.initial_interval"), "options.retryPolicy.initialInterval");
        assert_eq!(json_path("requests[3].input_json"), "requests[3].input");
        assert_eq!(json_path("labels[\"my_key\"]"), "labels[\"my_key\"]");
    }

    #[test]
    fn an_error_of_a_call_keeps_its_reason_and_its_fields() {
        let violations =
            vec![Violation::new("options.retry_policy", "is bad"), Violation::new("kind", "too")];

        let problem = Problem::from(status::invalid(violations));

        assert_eq!((problem.status, problem.reason()), (StatusCode::BAD_REQUEST, "INVALID_REQUEST"));
        let fields: Vec<&str> = problem.details.fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fields, ["options.retryPolicy", "kind"]);
    }

    #[test]
    fn what_is_said_of_a_field_has_the_names_of_json_too() {
        let violation = Violation::new("page_size", "page_size is -1; it must not be negative");

        let problem = Problem::from(status::invalid(vec![violation.clone(), violation]));

        let said = "pageSize: pageSize is -1; it must not be negative (and 1 more)";
        assert_eq!(problem.details.detail, said);
    }

    #[test]
    fn a_busy_server_says_when_to_come_again() {
        let full = crate::engine::Error::QueueFull { limit: 7 };

        let answer = Problem::from(status::status(&full)).into_answer();

        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
        assert_eq!(answer.headers()[CONTENT_TYPE], PROBLEM);
    }
}
