//! From JSON and from the query of an address to requests of the contract, by the contract's own descriptors.
//!
//! Both spellings of a name are known, `pageSize` and `page_size`; what is not a field is refused by its name.

use crate::job::Violation;
use crate::proto::start_job_request::Payload;
use crate::proto::{BatchStartJobsRequest, DESCRIPTORS, StartJobRequest};
use crate::wire::status;
use percent_encoding::percent_decode_str;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
};
use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;
use tonic::Status;

/// The contract, as it describes itself.
pub static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build made the descriptors"));

/// What is wrong with a parameter that a call does not have.
pub const PARAMETER_UNKNOWN: &str = "there is no such parameter, or it is there twice";

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

/// The job that a body asks for. Its input stays the text that it is.
pub fn start(text: &[u8]) -> Result<StartJobRequest, Status> {
    start_in(text, "")
}

/// The jobs that a body asks for.
pub fn batch(text: &[u8]) -> Result<BatchStartJobsRequest, Status> {
    let mut fields = Fields::read(text, "")?;
    let list = match fields.take("requests").filter(|list| list.get() != "null") {
        Some(list) => serde_json::from_str::<Vec<&RawValue>>(list.get())
            .map_err(|error| invalid("requests", &error.to_string()))?,
        None => Vec::new(),
    };
    let mut request: BatchStartJobsRequest = decode(&fields.rest(&[]), "")?;
    let one =
        |(index, one): (usize, &&RawValue)| start_in(one.get().as_bytes(), &format!("requests[{index}]."));
    request.requests = list.iter().enumerate().map(one).collect::<Result<_, _>>()?;
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

/// The request that the query of an address asks for: `filter.states=RUNNING&filter.labels.team=voice&page_size=10`.
pub fn from_query<M: Request>(query: &str, given: &Given<'_>) -> Result<M, Status> {
    let message = descriptor(M::NAME);
    let mut object = Map::new();
    for (name, value) in given {
        object.insert((*name).to_owned(), Value::from(*value));
    }
    for pair in pairs(query) {
        let (name, value) = pair?;
        if given.iter().any(|(given, _)| *given == name) || !put(&mut object, &message, &name, value) {
            return Err(invalid(&name, PARAMETER_UNKNOWN));
        }
    }
    if object.is_empty() {
        return Ok(M::default());
    }
    decode(&Value::Object(object).to_string(), "")
}

/// The parameters of a query.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), Status>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name)?, decoded(value)?))
    })
}

/// Puts a parameter where its name says; false where nothing is there, or something already.
fn put(object: &mut Map<String, Value>, message: &MessageDescriptor, name: &str, value: String) -> bool {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let Some(field) = field(message, first) else { return false };
    let json_name = field.json_name().to_owned();
    match (field.kind(), rest) {
        _ if field.is_map() => {
            let Some(key) = rest else { return false };
            let map = object.entry(json_name).or_insert_with(|| Map::new().into());
            map.as_object_mut().is_some_and(|map| map.insert(key.to_owned(), value.into()).is_none())
        }
        (Kind::Message(inner), Some(rest)) if !is_known_type(&inner) => {
            let inside = object.entry(json_name).or_insert_with(|| Map::new().into());
            inside.as_object_mut().is_some_and(|inside| put(inside, &inner, rest, value))
        }
        (_, Some(_)) => false,
        (kind, None) if field.is_list() => {
            let list = object.entry(json_name).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut().is_some_and(|list| {
                list.push(scalar(&kind, value));
                true
            })
        }
        (kind, None) => object.insert(json_name, scalar(&kind, value)).is_none(),
    }
}

/// In JSON all but a bool may be text.
fn scalar(kind: &Kind, value: String) -> Value {
    match (kind, value.as_str()) {
        (Kind::Bool, "true") => true.into(),
        (Kind::Bool, "false") => false.into(),
        _ => value.into(),
    }
}

fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// Whether JSON has a form of its own for it.
pub fn is_known_type(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// Percent-decoded, and `+` is a space.
fn decoded(text: &str) -> Result<String, Status> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| invalid(text, "it is not UTF-8"))
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

/// Takes anything in which no object has a name twice; in a message, both spellings are one name. The library takes the last,
/// where another reader may have seen the first.
struct Once(Option<MessageDescriptor>);

impl<'de> DeserializeSeed<'de> for Once {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Once(self.0.clone()))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let known = self.0.as_ref().and_then(|message| field(message, &name));
            let own = known.as_ref().map_or(name.as_str(), FieldDescriptor::json_name).to_owned();
            if !names.insert(own) {
                return Err(de::Error::custom(format!("{name} is there twice")));
            }
            let inside = known.filter(|field| !field.is_map()).and_then(|field| match field.kind() {
                Kind::Message(message) => Some(message),
                _ => None,
            });
            map.next_value_seed(Once(inside))?;
        }
        Ok(())
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

/// The fields of a JSON object as the texts that they are.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    fn read(text: &'a [u8], path: &str) -> Result<Self, Status> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let place = path.strip_suffix('.').unwrap_or("body");
        serde_json::from_slice(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => invalid(place, &error.to_string()),
            _ => Status::invalid_argument(format!("the body is not JSON: {error}")),
        })
    }

    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let place = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// An object of those that are left, and of more.
    fn rest(&self, more: &[(Cow<'_, str>, String)]) -> String {
        let own = self.0.iter().map(|(name, value)| (name, value.get()));
        let more = more.iter().map(|(name, value)| (name, value.as_str()));
        let mut text = String::from("{");
        for (name, value) in own.chain(more) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&Value::from(name.as_ref()).to_string());
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }
}

impl<'de: 'a, 'a> de::Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(de::Error::custom(format!("{name} is there twice")));
                    }
                    if fields.len() == FIELDS_MAX {
                        return Err(de::Error::custom("there are far more fields than there can be"));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// How much is said of what is wrong: a few lines.
const WHAT_BYTES_MAX: usize = 512;

/// No message has nearly as many; each is compared with all others.
const FIELDS_MAX: usize = 100;

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{CancelJobRequest, ListJobsRequest, WatchJobRequest, job};
    use tonic_types::StatusExt;

    fn fields(status: &Status) -> Vec<String> {
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
    fn a_query_reaches_every_field() {
        let request: ListJobsRequest = from_query(
            "filter.states=RUNNING&filter.states=FAILED&filter.labels.my.team=a%20b&page_size=10&view=FULL\
             &filter.createTimeMin=2026-11-28T00:00:00Z",
            &[],
        )
        .unwrap();

        let filter = request.filter.clone().unwrap();
        assert_eq!(filter.states, [job::State::Running as i32, job::State::Failed as i32]);
        assert_eq!(filter.labels["my.team"], "a b");
        assert_eq!(filter.create_time_min.unwrap().seconds, 1_795_824_000);
        assert_eq!((request.page_size, request.view()), (10, job::View::Full));
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

    #[test]
    fn a_parameter_that_means_nothing_is_named() {
        for query in
            ["colour=red", "pageSize=1&page_size=2", "filter=x", "filter.labels=x", "jobId=two", "view.x=1"]
        {
            let name = query.split('=').next().unwrap();
            let found = from_query::<ListJobsRequest>(query, &[("jobId", "one")]).unwrap_err();
            assert!(
                fields(&found)[0]
                    .replace('_', "")
                    .to_lowercase()
                    .starts_with(&name.replace('_', "").to_lowercase()),
                "{query}: {found}"
            );
        }
    }
}
