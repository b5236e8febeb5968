//! `/openapi.json`: the JSON API as a document that programs read (OpenAPI 3.1), made of what answers: the table of routes, the
//! contract's own descriptors and comments, and the limits that requests are held against.

pub mod problems;
mod schema;

use super::json::CONTRACT;
use super::routes::{Call, JOB_ID, ROUTES, Route};
use bytes::Bytes;
use http::Method;
use problems::{Form, headers};
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use schema::{Side, comment, reference};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// What the header may be: a request id, in quotes or without, which has something in it.
pub const IDEMPOTENCY_KEY: &str = r#"^([!#-~]([ -~]{0,126}[!-~])?|"[ -~]{1,126}[!-~])$"#;

/// The document.
pub static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(serde_json::to_vec(&document()).expect("it is JSON already")));

fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_lowercase()] = operation(route);
    }
    paths.extend(super::ai::paths());
    let mut schemas = schema::all(ROUTES.iter().flat_map(|route| {
        let method = method(route);
        let body = (route.method == Method::POST).then(|| (method.input(), Side::Request));
        body.into_iter().chain([(method.output(), Side::Response)])
    }));
    schemas.insert("Problem".to_owned(), problems::schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "longhaul",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": service_comment(),
        },
        "paths": paths,
        "components": {"schemas": schemas, "responses": problems::responses()},
    })
}

/// What the contract says of the service as a whole.
fn service_comment() -> String {
    let service = CONTRACT.get_service_by_name("longhaul.v1.JobService");
    service.map(|service| comment(&service.parent_file(), service.path())).unwrap_or_default()
}

fn method(route: &Route) -> MethodDescriptor {
    let service = CONTRACT.get_service_by_name("longhaul.v1.JobService").expect("the contract has it");
    let method = service.methods().find(|method| method.name() == route.name);
    method.expect("every route is one of its methods")
}

fn operation(route: &Route) -> Value {
    let method = method(route);
    let mut parameters: Vec<Value> = Vec::new();
    if route.path.contains(JOB_ID) {
        let schema = json!({"type": "string", "format": "uuid"});
        parameters.push(json!({
            "name": "jobId", "in": "path", "required": true, "description": "The ticket.", "schema": schema,
        }));
    }
    let mut operation = json!({
        "operationId": route.name,
        "description": comment(&method.parent_service().parent_file(), method.path()),
        "responses": responses(route, &method),
    });
    match route.method {
        Method::POST => {
            operation["requestBody"] = json!({
                "required": route.call == Call::Start,
                "content": {"application/json": {"schema": reference(&method.input())}},
            });
        }
        _ => parameters.extend(query(&method.input(), "")),
    }
    if matches!(route.call, Call::Start | Call::Retry) {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header",
            "description": "The same as `requestId` in the body.",
            "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY},
        }));
    }
    if route.call == Call::Watch {
        parameters.push(json!({
            "name": "Last-Event-ID", "in": "header",
            "description": "The id of the last event seen. It wins over `afterSequence`; ahead of the job, the stream begins anew.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
        }));
    }
    operation["parameters"] = parameters.into();
    operation
}

/// The fields of a message as parameters of a query; those of a message within it have its name in front.
fn query(message: &MessageDescriptor, before: &str) -> Vec<Value> {
    let mut parameters = Vec::new();
    for field in message.fields().filter(|field| field.name() != "job_id") {
        let name = format!("{before}{}", field.json_name());
        match field.kind().as_message() {
            // A parameter for each key, which this language cannot name.
            _ if field.is_map() => {}
            Some(inner) if !super::json::is_known_type(inner) => {
                parameters.extend(query(inner, &format!("{name}.")));
            }
            _ => parameters.push(json!({
                "name": name, "in": "query",
                "description": comment(&field.parent_message().parent_file(), field.path()),
                "schema": schema::field(&field, Side::Query),
            })),
        }
    }
    parameters
}

fn responses(route: &Route, method: &MethodDescriptor) -> Value {
    let schema = reference(&method.output());
    let answer =
        |what: &str| json!({"description": what, "content": {"application/json": {"schema": schema}}});
    let events = || {
        json!({
            "description": "Server-sent events. The name of each is the field of the message that it has.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        })
    };
    let mut responses = match route.call {
        Call::Start | Call::Retry => {
            let mut responses = json!({
                "201": answer("A new job."),
                "200": answer("The job that the same request has made before."),
            });
            responses["201"]["headers"] = headers(&["Location"]);
            responses["200"]["headers"] = headers(&["Location", "longhaul-repeated"]);
            responses
        }
        Call::Delete => json!({"204": {"description": "The job is forgotten."}}),
        Call::Watch => {
            json!({"200": events(), "204": {"description": "There is nothing after `Last-Event-ID`, for good."}})
        }
        Call::WatchAll => json!({"200": events()}),
        Call::StartBatch | Call::Status | Call::List | Call::Count | Call::History | Call::Cancel => {
            json!({"200": answer("The answer.")})
        }
    };
    let more = match route.call {
        Call::Start | Call::StartBatch | Call::Retry => problems::STARTS,
        Call::Delete => problems::FORGETS,
        Call::Status
        | Call::Watch
        | Call::WatchAll
        | Call::List
        | Call::Count
        | Call::History
        | Call::Cancel => &[],
    };
    problems::add(&mut responses, route, Form::Json, more);
    responses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_route_is_described() {
        let document = document();
        let text = document.to_string();

        for reference in text.split("\"#/").skip(1) {
            let pointer = format!("/{}", reference.split('"').next().unwrap());
            assert!(document.pointer(&pointer).is_some(), "{pointer}");
        }
        for route in ROUTES {
            let method = route.method.as_str().to_lowercase();
            let operation = &document["paths"][route.path][method];
            assert!(operation["description"].as_str().is_some_and(|text| text.len() > 20), "{}", route.name);
        }
    }

    #[test]
    fn a_field_has_the_words_and_the_limits_of_the_contract() {
        let document = document();

        let options = &document["components"]["schemas"]["JobOptions"]["properties"];
        assert_eq!(options["priority"]["oneOf"][0]["minimum"], -100);
        assert!(options["priority"]["description"].as_str().unwrap().contains("runs sooner"));
        let job = &document["components"]["schemas"]["Job"]["properties"];
        assert!(job["state"]["enum"].as_array().unwrap().contains(&"SUCCEEDED".into()));
        assert_eq!(job["sequence"]["type"], "string");
    }
}
