//! From JSON to requests of the contract, by the contract's own descriptors.
//!
//! Both spellings of a name are known, `pageSize` and `page_size`; what is not a field is refused by its name.

mod fields;
mod once;
mod query;

pub use query::{PARAMETER_UNKNOWN, from_query, pairs};

use crate::job::Violation;
use crate::proto::start_job_request::Payload;
use crate::proto::{BatchStartJobsRequest, DESCRIPTORS, StartJobRequest};
use crate::wire::status;
use fields::{Fields, List};
use once::Once;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, MessageDescriptor};
use serde::Deserializer;
use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::LazyLock;
use tonic::Status;

/// The contract, as it describes itself.
pub static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build made the descriptors"));

/// What an address has given a name, beside a body or a query.
pub type Given<'a> = [(&'a str, &'a str)];

/// A message of the contract that can be asked for.
pub trait Request: Message + Default {
    /// Its name in the package `longhaul.v1`.
    const NAME: &'static str;
}

macro_rules! requests {
    ($($name:ident),+) => {
        $(impl Request for crate::proto::$name {
            const NAME: &'static str = stringify!($name);
        })+
    };
}

requests!(
    StartJobRequest,
    BatchStartJobsRequest,
    GetStatusRequest,
    WatchJobRequest,
    WatchJobsRequest,
    ListJobsRequest,
    CountJobsRequest,
    ListJobEventsRequest,
    CancelJobRequest,
    RetryJobRequest,
    DeleteJobRequest
);

/// The request that a body asks for, with what the address says; an empty body is an empty object.
pub fn from_body<M: Request>(text: &[u8], given: &Given<'_>) -> Result<M, Status> {
    let fields = Fields::read(text, "")?;
    let message = descriptor(M::NAME);
    let known = |name: &str| field(&message, name).map(|field| field.number());
    if let Some((name, _)) =
        fields.0.iter().find(|(name, _)| given.iter().any(|(given, _)| known(name) == known(given)))
    {
        return Err(invalid(name, "the address says it already"));
    }
    let given: Vec<(Cow<'_, str>, String)> =
        given.iter().map(|(name, value)| (Cow::from(*name), Value::from(*value).to_string())).collect();
    decode(&fields.rest(&given), "")
}

/// [`from_body`] for a request about one job, which the address names.
pub fn from_body_about<M: Request>(ticket: &str) -> impl FnOnce(&[u8]) -> Result<M, Status> + Send + use<M> {
    let ticket = ticket.to_owned();
    move |text| from_body(text, &[("jobId", &ticket)])
}

/// The job that a body asks for. Its input stays the text that it is.
pub fn start(text: &[u8]) -> Result<StartJobRequest, Status> {
    start_in(text, "")
}

/// The jobs that a body asks for.
pub fn batch(text: &[u8]) -> Result<BatchStartJobsRequest, Status> {
    let mut fields = Fields::read(text, "")?;
    let list = match fields.take("requests").filter(|list| list.get() != "null") {
        Some(list) => serde_json::from_str(list.get())
            .map_err(|error| invalid("requests", &without_position(&error)))?,
        None => List(Vec::new()),
    };
    let mut request: BatchStartJobsRequest = decode(&fields.rest(&[]), "")?;
    let one =
        |(index, one): (usize, &&RawValue)| start_in(one.get().as_bytes(), &format!("requests[{index}]."));
    request.requests = list.0.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    Ok(request)
}

fn start_in(text: &[u8], path: &str) -> Result<StartJobRequest, Status> {
    let mut fields = Fields::read(text, path)?;
    let input = fields.take("input").filter(|input| input.get() != "null");
    let mut request: StartJobRequest = decode(&fields.rest(&[]), path)?;
    match (input, &request.payload) {
        (Some(_), Some(_)) => {
            return Err(invalid(&format!("{path}input"), "it is there twice, also as text"));
        }
        (Some(input), None) => request.payload = Some(Payload::InputJson(input.get().to_owned())),
        (None, _) => {}
    }
    Ok(request)
}

fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// Whether JSON has a form of its own for it.
pub fn is_known_type(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// A message of the contract.
pub fn descriptor(name: &str) -> MessageDescriptor {
    CONTRACT.get_message_by_name(&format!("longhaul.v1.{name}")).expect("the name is one of the contract")
}

fn decode<M: Request>(text: &str, path: &str) -> Result<M, Status> {
    let message = read(text, path, Seed(descriptor(M::NAME)))?;
    read(text, path, Once(Some(descriptor(M::NAME))))?;
    Ok(M::decode(message.encode_to_vec().as_slice()).expect("it follows the same contract"))
}

/// Reads a text; what is wrong with it is named with its place below `path`.
fn read<'de, S: DeserializeSeed<'de>>(text: &'de str, path: &str, seed: S) -> Result<S::Value, Status> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    seed.deserialize(tracked).map_err(|error| {
        let place = match track.path().to_string().as_str() {
            "." => path.strip_suffix('.').unwrap_or("body").to_owned(),
            place => format!("{path}{place}"),
        };
        invalid(&place, &without_position(&error))
    })
}

struct Seed(MessageDescriptor);

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = DynamicMessage;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DynamicMessage, D::Error> {
        DynamicMessage::deserialize_with_options(self.0, deserializer, &DeserializeOptions::new())
    }
}

/// What is wrong, without the place in a text that is not the one that was sent, or is named by its path.
pub fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned()
}

/// A request in which one thing is wrong; that may quote a name of any length.
pub fn invalid(field: &str, what: &str) -> Status {
    let mut what = what.to_owned();
    if what.len() > WHAT_BYTES_MAX {
        what.truncate(what.floor_char_boundary(WHAT_BYTES_MAX));
        what.push('…');
    }
    status::invalid(vec![Violation::new(field, what)])
}

/// How much is said of what is wrong: a few lines.
const WHAT_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{CancelJobRequest, WatchJobRequest};
    use crate::wire::request::BATCH_MAX;
    use tonic_types::StatusExt;

    pub fn fields(status: &Status) -> Vec<String> {
        let details = status.get_error_details();
        details.bad_request().unwrap().field_violations.iter().map(|one| one.field.clone()).collect()
    }

    #[test]
    fn an_input_is_taken_byte_for_byte() {
        let request =
            start(br#"{"kind": "k", "input": {"n": 9007199254740993, "x" : 1.50}, "labels": {"a": "b"}}"#);

        let request = request.unwrap();

        assert_eq!(
            request.payload,
            Some(Payload::InputJson(r#"{"n": 9007199254740993, "x" : 1.50}"#.into()))
        );
        assert_eq!((request.kind.as_str(), request.labels["a"].as_str()), ("k", "b"));
    }

    #[test]
    fn each_request_of_a_batch_has_its_place_in_what_is_wrong() {
        let text =
            br#"{"requests": [{"kind": "k", "input": {}}, {"kind": "k", "options": {"priority": "high"}}]}"#;

        assert_eq!(fields(&batch(text).unwrap_err()), ["requests[1].options.priority"]);
        let unknown = batch(br#"{"requests": [{"kind": "k"}, {"kinds": "k"}]}"#);
        assert_eq!(fields(&unknown.unwrap_err()), ["requests[1]"]);
        assert_eq!(batch(br#"{"requests": [{"kind": "k"}]}"#).unwrap().requests.len(), 1);
        assert_eq!(fields(&batch(br#"{"requests": 5}"#).unwrap_err()), ["requests"]);
        // It is refused before any of them is looked at.
        let many = format!(r#"{{"requests": [{}{{}}]}}"#, "5,".repeat(BATCH_MAX));
        assert_eq!(fields(&batch(many.as_bytes()).unwrap_err()), ["requests"]);
        assert!(batch(br#"{"requests": null}"#).unwrap().requests.is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        for (text, field) in [
            (&br#"{"kinds": "k"}"#[..], "body"),
            (br#"{"kind": 5}"#, "kind"),
            (br#"{"kind": "a", "kind": "b"}"#, "body"),
            (br#"{"requestId": "a", "request_id": "a"}"#, "body"),
            (br#"{"options": {"priority": 1, "priority": 2}}"#, "options"),
            (br#"{"options": {"retryPolicy": {}, "retry_policy": {}}}"#, "options"),
            (br#"{"labels": {"a": "1", "a": "2"}}"#, "labels"),
            (br#"{"input": {}, "inputJson": "{}"}"#, "input"),
            (
                br#"{"options": {"retryPolicy": {"maximumAttempts": 1.5}}}"#,
                "options.retryPolicy.maximumAttempts",
            ),
            (b"[]", "body"),
        ] {
            let found = fields(&start(text).unwrap_err());
            assert_eq!(found, [field], "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(start(b"{").unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn an_object_has_no_more_fields_than_any_message() {
        let text = |fields: usize| {
            let fields: Vec<String> = (0..fields).map(|n| format!(r#""field-{n}": {n}"#)).collect();
            format!("{{{}}}", fields.join(", "))
        };
        let said = |fields: usize| start(text(fields).as_bytes()).unwrap_err().message().to_owned();

        assert!(!said(100).contains("far more fields"), "{}", said(100));
        assert!(said(101).contains("far more fields"), "{}", said(101));
    }

    #[test]
    fn an_address_gives_the_job() {
        let watch: WatchJobRequest =
            from_query("afterSequence=7&omitOutput=true&minimumInterval=0.5s", &[("jobId", "one")]).unwrap();
        let cancel: CancelJobRequest = from_body(br#"{"reason": "enough"}"#, &[("jobId", "one")]).unwrap();

        assert_eq!((watch.job_id.as_str(), watch.after_sequence, watch.omit_output), ("one", Some(7), true));
        assert_eq!((cancel.job_id.as_str(), cancel.reason.as_str()), ("one", "enough"));
        assert!(from_body::<CancelJobRequest>(br#"{"jobId": "two"}"#, &[("jobId", "one")]).is_err());
    }
}
