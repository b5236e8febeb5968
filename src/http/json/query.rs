//! From the query of an address to a request of the contract.

use super::{Given, Request, decode, descriptor, field, invalid, is_known_type};
use percent_encoding::percent_decode_str;
use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use tonic::Status;

/// What is wrong with a parameter that a call does not have.
pub const PARAMETER_UNKNOWN: &str = "there is no such parameter, or it is there twice";

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

/// Percent-decoded, and `+` is a space.
fn decoded(text: &str) -> Result<String, Status> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| invalid(text, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::tests::fields;
    use crate::proto::{ListJobsRequest, job};

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
