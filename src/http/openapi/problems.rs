//! What goes wrong, as the document has it: a response for each status, and those that an operation can have. There is no
//! `default` among them, so that whatever else is answered is not as the document says.

use crate::http::problem::PROBLEM;
use crate::http::routes::{JOB_ID, Route};
use crate::wire::status::DOMAIN;
use http::Method;
use serde_json::{Map, Value, json};

/// A status, what it means, and the header that says more.
struct Meaning(u16, &'static str, Option<&'static str>);

const MEANINGS: [Meaning; 9] = [
    Meaning(400, "The request is not valid; `fields` says where.", None),
    Meaning(404, "There is no such job, or nothing at this address.", None),
    Meaning(405, "The address does not have this method.", Some("Allow")),
    Meaning(408, "The body did not come in time.", None),
    Meaning(409, "The job is still active, or the request id is that of another request.", None),
    Meaning(413, "The body is too large.", None),
    Meaning(415, "The body is not JSON, or it is compressed.", None),
    Meaning(429, "The queue or the disk is full.", Some("Retry-After")),
    Meaning(503, "The server cannot do this now; `reason` says whether it may have.", Some("Retry-After")),
];
/// What any call can be answered.
const ANY: &[u16] = &[400, 405, 503];
/// What one with a body can be answered.
const WITH_A_BODY: &[u16] = &[408, 413, 415];
/// What one that names a job can be answered.
pub const NAMES_A_JOB: &[u16] = &[404];
/// What one that forgets a job can be answered.
pub const FORGETS: &[u16] = &[409];
/// What one that starts jobs can be answered.
pub const STARTS: &[u16] = &[409, 429];

/// In what form a problem comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As JSON.
    Json,
    /// As JSON, or as a page for who likes that better.
    JsonOrPage,
}

/// Adds to the responses of a call what can go wrong with it: what its route tells of, and `more`.
pub fn add<C: Copy>(responses: &mut Value, route: &Route<C>, form: Form, more: &[u16]) {
    let names_a_job = if route.path.contains(JOB_ID) { NAMES_A_JOB } else { &[] };
    let with_a_body = if route.method == Method::POST { WITH_A_BODY } else { &[] };
    for status in [ANY, names_a_job, with_a_body, more].into_iter().flatten() {
        let reference = format!("#/components/responses/{}", name(*status, form));
        responses[status.to_string()] = json!({"$ref": reference});
    }
}

/// The responses, by their names.
pub fn responses() -> Map<String, Value> {
    let both = |meaning| [Form::Json, Form::JsonOrPage].map(|form| response(meaning, form));
    MEANINGS.iter().flat_map(both).collect()
}

fn name(status: u16, form: Form) -> String {
    let form = match form {
        Form::Json => "Problem",
        Form::JsonOrPage => "ProblemOrPage",
    };
    format!("{form}{status}")
}

fn response(Meaning(status, what, header): &Meaning, form: Form) -> (String, Value) {
    let mut response = json!({
        "description": what,
        "content": {(PROBLEM): {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    if form == Form::JsonOrPage {
        response["content"]["text/html"] = json!({"schema": {"type": "string"}});
    }
    if let Some(header) = header {
        response["headers"] = headers(&[header]);
        // A server that stops does not know when it comes back.
        response["headers"][*header]["required"] = (*status != 503).into();
    }
    (name(*status, form), response)
}

/// Headers that an answer always has.
pub fn headers(names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), header(name))).collect::<Map<_, _>>().into()
}

fn header(name: &str) -> Value {
    let (what, schema) = match name {
        "Allow" => ("The methods that the address has.", json!({"type": "string", "pattern": "^[A-Z, ]+$"})),
        "Retry-After" => ("Come again in so many seconds.", json!({"type": "integer", "minimum": 1})),
        "Location" => ("The job's address.", json!({"type": "string", "format": "uri-reference"})),
        "longhaul-repeated" => ("Nothing was started.", json!({"const": "true"})),
        other => unreachable!("no answer is described with {other}"),
    };
    json!({"description": what, "required": true, "schema": schema})
}

/// What every problem says, as RFC 9457 has it.
pub fn schema() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong, as RFC 9457 has it.",
        "required": ["type", "title", "status", "detail", "reason", "domain"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is wrong, for people."},
            "reason": {"type": "string", "pattern": "^[A-Z_]+$", "description": "Stable, and the same as in gRPC's ErrorInfo."},
            "domain": {"const": DOMAIN},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "fields": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "description"],
                    "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use crate::http::openapi::document;

    #[test]
    fn every_call_is_described_with_the_problems_that_it_can_have_and_no_others() {
        let document = document();
        let problems = |path: &str, method: &str| -> Vec<u16> {
            let responses = &document["paths"][path][method]["responses"];
            let statuses = responses.as_object().unwrap().keys().map(|status| status.parse().unwrap());
            statuses.filter(|status| *status >= 400).collect()
        };

        for start in ["/v1/jobs", "/v1/jobs:batchStart", "/ai/start"] {
            assert_eq!(problems(start, "post"), [400, 405, 408, 409, 413, 415, 429, 503], "{start}");
        }
        assert_eq!(problems("/v1/jobs/{jobId}:retry", "post"), [400, 404, 405, 408, 409, 413, 415, 429, 503]);
        for cancel in ["/v1/jobs/{jobId}:cancel", "/ai/cancel"] {
            assert_eq!(problems(cancel, "post"), [400, 404, 405, 408, 413, 415, 503], "{cancel}");
        }
        assert_eq!(problems("/v1/jobs/{jobId}", "delete"), [400, 404, 405, 409, 503]);
        for of_a_job in ["/v1/jobs/{jobId}", "/v1/jobs/{jobId}:watch", "/ai/status/{jobId}"] {
            assert_eq!(problems(of_a_job, "get"), [400, 404, 405, 503], "{of_a_job}");
        }
        for of_many in ["/v1/jobs", "/v1/jobs:count", "/v1/jobs:watch", "/ai/jobs"] {
            assert_eq!(problems(of_many, "get"), [400, 405, 503], "{of_many}");
        }
    }
}
