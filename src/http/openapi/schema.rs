//! Messages of the contract as JSON Schema: their fields, their comments, and the limits that requests are held against.
//!
//! What is taken is more than what is sent: `null` for an absent field, and numbers as text.

use crate::job::limits::*;
use prost_reflect::{FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the comment of the contract says of a `Struct` is not so here.
const INPUT: &str =
    "What the handler is to work on. The worker gets it byte for byte. At most 30 levels deep.";

/// What a JSON text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The body of a request.
    Request,
    /// A parameter of an address.
    Query,
    /// What is answered.
    Response,
}

/// The schemas of messages, and of those within them.
pub fn all(messages: impl Iterator<Item = (MessageDescriptor, Side)>) -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for (message, side) in messages {
        add(&mut schemas, &message, side);
    }
    schemas
}

fn add(schemas: &mut BTreeMap<String, Value>, message: &MessageDescriptor, side: Side) {
    let name = name(message);
    if is_known(message) || schemas.contains_key(&name) {
        return;
    }
    schemas.insert(name.clone(), Value::Null);
    let mut properties = Map::new();
    for one in message.fields().filter(|one| !is_elsewhere(one, side)) {
        let mut schema = field(&one, side);
        schema["description"] = comment(&one.parent_message().parent_file(), one.path()).into();
        properties.insert(one.json_name().to_owned(), schema);
        if let Some(inner) = one.kind().as_message().filter(|_| !one.is_map()) {
            add(schemas, inner, side);
        }
    }
    let mut schema = json!({
        "type": "object",
        "description": comment(&message.parent_file(), message.path()),
        "properties": properties,
    });
    if side == Side::Request {
        schema["additionalProperties"] = false.into();
    }
    if message.name() == "StartJobRequest" {
        schema["required"] = json!(["kind"]);
        schema["properties"]["input"]["description"] = INPUT.into();
    }
    schemas.insert(name, schema);
}

/// A field that the address has, and not the body; or that says again, for those who have no JSON, what another one says.
fn is_elsewhere(field: &FieldDescriptor, side: Side) -> bool {
    side == Side::Request && matches!(field.name(), "job_id" | "input_json")
}

/// The name of a message's schema: `WatchJobsResponse.Synced` for one within another.
fn name(message: &MessageDescriptor) -> String {
    message.full_name().trim_start_matches("longhaul.v1.").to_owned()
}

/// Where the schema of a message is.
pub fn reference(message: &MessageDescriptor) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", name(message))})
}

fn is_known(message: &MessageDescriptor) -> bool {
    super::super::json::is_known_type(message)
}

/// The schema of a field.
pub fn field(field: &FieldDescriptor, side: Side) -> Value {
    let mut schema = match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let values = one(&entry.map_entry_value_field().kind(), side);
            json!({"type": "object", "additionalProperties": values})
        }
        kind if field.is_list() => json!({"type": "array", "items": one(&kind, side)}),
        kind => one(&kind, side),
    };
    if side != Side::Response
        && let Value::Object(bounds) = bounds(field.parent_message().name(), field.name())
    {
        schema.as_object_mut().expect("a schema is an object").extend(bounds);
    }
    if side == Side::Request && field.name() != "kind" {
        nullable(&mut schema);
    }
    schema
}

/// The schema of one value of a kind.
fn one(kind: &Kind, side: Side) -> Value {
    let is_sent = side == Side::Response;
    match kind {
        Kind::String => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Kind::Int32 if side == Side::Request => {
            json!({"type": ["integer", "string"], "format": "int32", "pattern": "^-?[0-9]{1,9}$"})
        }
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        Kind::Double if is_sent => json!({"type": ["number", "string"]}),
        Kind::Double => json!({"type": "number"}),
        Kind::Int64 => json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,18}$"}),
        Kind::Enum(names) => {
            // The first is never sent, and means as much as nothing.
            let names: Vec<String> = names.values().skip(1).map(|value| value.name().to_owned()).collect();
            json!({"type": "string", "enum": names})
        }
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => {
                json!({"type": "string", "pattern": "^[0-9]{1,8}(\\.[0-9]{1,9})?s$", "examples": ["1.5s"]})
            }
            "google.protobuf.Struct" => json!({"type": "object"}),
            "google.protobuf.Value" => json!({"description": "Any JSON value."}),
            _ => reference(message),
        },
        other => unreachable!("the contract has no {other:?}"),
    }
}

/// In a request `null` is the same as nothing.
fn nullable(schema: &mut Value) {
    let taken = schema.take();
    *schema = json!({"oneOf": [taken, {"type": "null"}]});
}

/// The limits of a field of a request, as `wire` and `job` check them.
fn bounds(message: &str, field: &str) -> Value {
    // Ten years, and ten minutes.
    let longest = "^[0-9]{1,8}(\\.[0-9]{1,9})?s$";
    // A microsecond at least.
    let positive = "^([1-9][0-9]{0,7}(\\.[0-9]{1,9})?|0\\.([1-9][0-9]{0,8}|0[1-9][0-9]{0,7}|0{2}[1-9][0-9]{0,6}\
         |0{3}[1-9][0-9]{0,5}|0{4}[1-9][0-9]{0,4}|0{5}[1-9][0-9]{0,3}))s$";
    let hour = "^([0-9]{1,3}|[12][0-9]{3}|3[0-5][0-9]{2})(\\.[0-9]{1,9})?s$";
    match (message, field) {
        ("StartJobRequest", "kind") => {
            json!({"pattern": format!("^[a-z0-9._-]{{1,{KIND_CHARACTERS_MAX}}}$")})
        }
        ("StartJobRequest" | "RetryJobRequest", "request_id") => {
            json!({"pattern": format!("^[ -~]{{0,{REQUEST_ID_CHARACTERS_MAX}}}$")})
        }
        ("StartJobRequest", "labels") => json!({
            "maxProperties": LABELS_MAX,
            "propertyNames": {"minLength": 1, "maxLength": LABEL_KEY_CHARACTERS_MAX},
            "additionalProperties": {"type": "string", "maxLength": LABEL_VALUE_CHARACTERS_MAX},
        }),
        ("BatchStartJobsRequest", "requests") => json!({"maxItems": crate::wire::request::BATCH_MAX}),
        ("JobOptions", "priority") => {
            json!({"minimum": -100, "maximum": 100, "pattern": "^-?(100|[0-9]{1,2})$"})
        }
        ("JobOptions", "concurrency_key") => json!({"maxLength": CONCURRENCY_KEY_CHARACTERS_MAX}),
        ("JobOptions", "concurrency_limit") => {
            json!({"minimum": 0, "maximum": CONCURRENCY_LIMIT_MAX, "pattern": "^[0-9]{1,5}$"})
        }
        ("JobOptions", "retention") | ("RetryPolicy", "initial_interval" | "maximum_interval") => {
            json!({"pattern": longest})
        }
        (
            "JobOptions",
            "schedule_to_start_timeout"
            | "start_to_close_timeout"
            | "schedule_to_close_timeout"
            | "progress_timeout",
        ) => json!({"pattern": positive}),
        ("RetryPolicy", "maximum_attempts") => {
            json!({"minimum": 0, "maximum": ATTEMPTS_MAX, "pattern": "^[0-9]{1,3}$"})
        }
        ("RetryPolicy", "backoff_coefficient") => {
            json!({"oneOf": [{"const": 0}, {"minimum": 1, "maximum": BACKOFF_COEFFICIENT_MAX}]})
        }
        ("CancelJobRequest", "reason") => json!({"maxLength": MESSAGE_CHARACTERS_MAX}),
        ("CancelJobRequest", "grace_period") => {
            json!({"pattern": "^([0-9]{1,2}|[1-5][0-9]{2})(\\.[0-9]{1,9})?s$"})
        }
        ("WatchJobRequest" | "WatchJobsRequest", "minimum_interval") => json!({"pattern": hour}),
        ("WatchJobsRequest", "initial_jobs") => json!({"minimum": 0, "maximum": 1_000}),
        (_, "page_size") => json!({"minimum": 0, "maximum": i32::MAX}),
        (_, "after_sequence") => json!({"pattern": "^[0-9]{1,18}$"}),
        ("CountJobsRequest" | "JobFilter", "kinds") => json!({
            "maxItems": crate::wire::filter::KINDS_MAX,
            "items": {"type": "string", "pattern": format!("^[a-z0-9._-]{{1,{KIND_CHARACTERS_MAX}}}$")},
        }),
        ("JobFilter", "states") => json!({"maxItems": crate::wire::filter::STATES_MAX}),
        _ => Value::Null,
    }
}

/// What the contract says of the thing at a path, as one text.
pub fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let location = source.and_then(|source| source.location.iter().find(|location| location.path == path));
    let text = location.map(|location| location.leading_comments()).unwrap_or_default();
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned()
}
