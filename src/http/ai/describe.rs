//! These routes as `/openapi.json` has them: no contract describes them but this.

use super::request::{PAGE_JOBS, PAGE_JOBS_MAX, TEMPERATURE_MAX, TOKENS_MAX};
use super::shown::word;
use super::{Call, ROUTES};
use crate::http::openapi::IDEMPOTENCY_KEY;
use crate::http::openapi::problems::{self, Form, headers};
use crate::http::routes::{JOB_ID, Route};
use crate::job::State;
use http::Method;
use serde_json::{Map, Value, json};

/// The operations, by path and method.
pub fn paths() -> Map<String, Value> {
    let mut paths = Map::new();
    for route in ROUTES {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_lowercase()] = operation(route);
    }
    paths
}

fn operation(route: &Route<Call>) -> Value {
    let mut operation = json!({
        "operationId": route.name,
        "description": description(route.call),
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if route.method == Method::POST {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": body(route.call)}}});
    }
    operation
}

fn description(call: Call) -> &'static str {
    match call {
        Call::Start => "Starts a job of the kind that the server's setting `ai_kind` names.",
        Call::Status => "A job as it is now. Who likes text/html better than JSON is sent on to its page.",
        Call::List => "A page of all jobs, newest first.",
        Call::Cancel => "Asks that a job stop. One that has ended stays as it ended.",
    }
}

fn parameters(route: &Route<Call>) -> Value {
    let query = |name, schema: Value| json!({"name": name, "in": "query", "schema": schema});
    match route.call {
        _ if route.path.contains(JOB_ID) => {
            let schema = json!({"type": "string", "format": "uuid"});
            json!([{"name": "jobId", "in": "path", "required": true, "schema": schema}])
        }
        Call::List => json!([
            query(
                "limit",
                json!({"type": "integer", "minimum": 1, "maximum": PAGE_JOBS_MAX, "default": PAGE_JOBS})
            ),
            query("pageToken", json!({"type": "string"})),
            query("status", status()),
        ]),
        Call::Start => json!([
            {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY}},
        ]),
        Call::Status | Call::Cancel => json!([]),
    }
}

fn body(call: Call) -> Value {
    let (required, properties) = match call {
        Call::Start => {
            let options = json!({
                "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": TEMPERATURE_MAX},
                "maxTokens": {"type": ["integer", "null"], "minimum": 1, "maximum": TOKENS_MAX},
            });
            let options =
                json!({"type": ["object", "null"], "properties": options, "additionalProperties": false});
            ("prompt", json!({"prompt": {"type": "string", "pattern": "\\S"}, "options": options}))
        }
        Call::Status | Call::List | Call::Cancel => {
            ("jobId", json!({"jobId": {"type": "string", "format": "uuid"}}))
        }
    };
    json!({"type": "object", "required": [required], "properties": properties, "additionalProperties": false})
}

fn responses(route: &Route<Call>) -> Value {
    let answer = |what: &str, schema: &Value| json!({"description": what, "content": {"application/json": {"schema": schema}}});
    let told = object(json!({
        "jobId": {"type": "string", "format": "uuid"}, "status": status(), "message": {"type": "string"},
    }));
    let mut responses = match route.call {
        Call::Start => {
            let mut responses = json!({
                "201": answer("A new job.", &told),
                "200": answer("The job that the same request has made before.", &told),
            });
            responses["201"]["headers"] = headers(&["Location"]);
            responses["200"]["headers"] = headers(&["Location", "longhaul-repeated"]);
            responses
        }
        Call::Status => json!({
            "200": answer("The job.", &job()),
            "303": {"description": "For a browser, which is sent on to the job's page.", "headers": headers(&["Location"])},
        }),
        Call::List => {
            let properties =
                json!({"jobs": {"type": "array", "items": job()}, "nextPageToken": {"type": "string"}});
            let page = json!({"type": "object", "required": ["jobs"], "properties": properties});
            json!({"200": answer("The jobs, and where the list goes on.", &page)})
        }
        Call::Cancel => json!({"200": answer("What came of it.", &told)}),
    };
    let (form, more) = match route.call {
        Call::Start => (Form::Json, problems::STARTS),
        Call::Cancel => (Form::Json, problems::NAMES_A_JOB),
        Call::List => (Form::Json, &[][..]),
        Call::Status => (Form::JsonOrPage, &[][..]),
    };
    problems::add(&mut responses, route, form, more);
    responses
}

/// A job in these words.
pub fn job() -> Value {
    let time = || json!({"type": "string", "format": "date-time"});
    object(json!({
        "jobId": {"type": "string", "format": "uuid"},
        "status": status(),
        "progress": object(json!({
            "percent": {"type": "integer", "minimum": 0, "maximum": 100},
            "message": {"type": "string", "description": "What is being done, or was done last."},
        })),
        "result": {"description": "What the job returned; null until then."},
        "error": {"type": ["string", "null"], "description": "Why it failed: a stable reason, and what happened."},
        "createdAt": time(),
        "updatedAt": time(),
        "duration": {
            "type": "integer", "minimum": 0,
            "description": "Milliseconds from its creation to its end, or until now.",
        },
    }))
}

/// An object that has all of its properties.
fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({"type": "object", "required": names, "properties": properties})
}

/// The words for states.
fn status() -> Value {
    let mut words: Vec<&str> = State::ALL.into_iter().map(word).collect();
    words.sort_unstable();
    words.dedup();
    json!({"enum": words})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ai::shown::Status;
    use crate::http::fake::{at, snapshot};

    #[test]
    fn a_job_is_shown_as_it_is_described() {
        let snapshot = snapshot();

        let shown: Value = serde_json::from_str(Status::new(&snapshot, at(11.0)).text().get()).unwrap();

        let names = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&shown), names(&job()["properties"]));
        assert_eq!(names(&shown["progress"]), names(&job()["properties"]["progress"]["properties"]));
    }

    #[test]
    fn every_route_is_described() {
        let paths = paths();

        for route in ROUTES {
            let operation = &paths[route.path][route.method.as_str().to_lowercase()];
            assert_eq!(operation["operationId"], route.name);
            assert_eq!(
                operation.get("requestBody").is_some(),
                route.method == Method::POST,
                "{}",
                route.path
            );
        }
    }
}
