//! What these routes are asked, and the requests of the contract that it means. A name that they do not have is refused.

use super::shown::word;
use crate::http::json::{PARAMETER_UNKNOWN, invalid, pairs, without_position};
use crate::job::{State, Violation};
use crate::proto::start_job_request::Payload;
use crate::proto::{JobFilter, ListJobsRequest, StartJobRequest};
use crate::wire::{reply, status};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;
use tonic::Status;

/// The range of sampling temperatures that models have.
pub const TEMPERATURE_MAX: f64 = 2.0;
/// More tokens than any model writes in one go.
pub const TOKENS_MAX: i64 = 1_000_000;
/// The jobs of a page, where it is not said.
pub const PAGE_JOBS: i32 = 50;
/// The most jobs that a page can be asked to have.
pub const PAGE_JOBS_MAX: i32 = 100;

/// What `/ai/start` is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    options: Option<Object<Options>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Options {
    temperature: Option<f64>,
    max_tokens: Option<f64>,
}

/// The input of the job, in the names that models have for their options.
#[derive(Serialize)]
struct Input {
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    #[serde(default, rename = "jobId")]
    job_id: String,
}

/// The job that the body of `/ai/start` asks for, but for its kind; its input may have so many bytes.
pub fn start(text: &[u8], input_bytes_max: usize) -> Result<StartJobRequest, Status> {
    let Start { prompt, options } = read(text)?;
    let Options { temperature, max_tokens: tokens } =
        options.map(|Object(options)| options).unwrap_or_default();
    let mut violations = Vec::new();
    if prompt.trim().is_empty() {
        violations.push(Violation::new("prompt", "prompt is required"));
    }
    if let Some(t) = temperature.filter(|t| !(0.0..=TEMPERATURE_MAX).contains(t)) {
        let text = format!("temperature is {t}; it must be from 0 to {TEMPERATURE_MAX}");
        violations.push(Violation::new("options.temperature", text));
    }
    // In JSON 5.0 is as whole as 5.
    let max_tokens = tokens.filter(|n| n.fract() == 0.0).map(|n| n as i64);
    if let Some(n) = tokens.filter(|_| !max_tokens.is_some_and(|n| (1..=TOKENS_MAX).contains(&n))) {
        let text = format!("maxTokens is {n}; it must be a whole number from 1 to {TOKENS_MAX}");
        violations.push(Violation::new("options.maxTokens", text));
    }
    let input = serde_json::to_string(&Input { prompt, temperature, max_tokens })
        .expect("texts and finite numbers have a JSON form");
    if input.len() > input_bytes_max {
        let text = format!("with it the input has {} bytes; the limit is {input_bytes_max}", input.len());
        violations.push(Violation::new("prompt", text));
    }
    match violations.is_empty() {
        true => Ok(StartJobRequest { payload: Some(Payload::InputJson(input)), ..Default::default() }),
        false => Err(status::invalid(violations)),
    }
}

/// The ticket in the body of `/ai/cancel`.
pub fn cancel(text: &[u8]) -> Result<String, Status> {
    read::<Cancel>(text).map(|cancel| cancel.job_id)
}

/// The page that the query of `/ai/jobs` asks for.
pub fn list(query: &str) -> Result<ListJobsRequest, Status> {
    let (mut limit, mut token, mut states) = (None, None, None);
    for pair in pairs(query) {
        let (name, value) = pair?;
        let is_new = match name.as_str() {
            "limit" => limit.replace(self::limit(&value)?).is_none(),
            "pageToken" => token.replace(value).is_none(),
            "status" => states.replace(states_of(&value)?).is_none(),
            _ => false,
        };
        if !is_new {
            return Err(invalid(&name, PARAMETER_UNKNOWN));
        }
    }
    Ok(ListJobsRequest {
        filter: states.map(|states| JobFilter { states, ..Default::default() }),
        page_size: limit.unwrap_or(PAGE_JOBS),
        page_token: token.unwrap_or_default(),
        ..Default::default()
    })
}

/// Makes sure that a query is empty.
pub fn none(query: &str) -> Result<(), Status> {
    match pairs(query).next() {
        None => Ok(()),
        Some(pair) => Err(invalid(&pair?.0, PARAMETER_UNKNOWN)),
    }
}

fn limit(text: &str) -> Result<i32, Status> {
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_JOBS_MAX).contains(limit));
    limit.ok_or_else(|| invalid("limit", &format!("it must be a number from 1 to {PAGE_JOBS_MAX}")))
}

/// The states that have this word.
fn states_of(status: &str) -> Result<Vec<i32>, Status> {
    let states = State::ALL.into_iter().filter(|state| word(*state) == status);
    let states: Vec<i32> = states.map(|state| reply::state(state).into()).collect();
    match states.is_empty() {
        false => Ok(states),
        true => {
            let words = "it must be pending, processing, completed, failed or cancelled";
            Err(invalid("status", words))
        }
    }
}

/// Reads a JSON object; what is wrong is named by its path. An empty body is an empty object.
fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Status> {
    let text = if text.is_empty() { b"{}" } else { text };
    let mut json = serde_json::Deserializer::from_slice(text);
    let Object(read) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { "body" } else { &path };
        match error.inner().classify() {
            serde_json::error::Category::Data => invalid(place, &without_position(error.inner())),
            _ => not_json(error.inner()),
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(read)
}

fn not_json(error: &serde_json::Error) -> Status {
    Status::invalid_argument(format!("the body is not JSON: {error}"))
}

/// What is read from an object alone: serde would take a list of the values as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use tonic_types::StatusExt;

    fn started(text: &str) -> Result<StartJobRequest, Status> {
        start(text.as_bytes(), 100)
    }

    fn fields(status: &Status) -> Vec<String> {
        let details = status.get_error_details();
        let fields = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        fields.into_iter().map(|one| one.field).collect()
    }

    #[test]
    fn a_prompt_and_its_options_are_the_input() {
        let input = |text: &str| match started(text).unwrap().payload {
            Some(Payload::InputJson(input)) => input,
            other => panic!("{other:?}"),
        };

        assert_eq!(input(r#"{"prompt": "Hello Judges"}"#), r#"{"prompt":"Hello Judges"}"#);
        assert_eq!(
            input(r#"{"prompt": " ü\n", "options": {"temperature": 0.7, "maxTokens": 5.0}}"#),
            r#"{"prompt":" ü\n","temperature":0.7,"max_tokens":5}"#
        );
        assert_eq!(input(r#"{"prompt": "x", "options": null}"#), r#"{"prompt":"x"}"#);
    }

    #[rstest]
    #[case("", &["prompt"])]
    #[case("{}", &["prompt"])]
    #[case(r#"{"prompt": "  "}"#, &["prompt"])]
    #[case(r#"{"prompt": null}"#, &["prompt"])]
    #[case(r#"{"prompt": 7}"#, &["prompt"])]
    #[case(r#"{"prompt": "x", "options": {"temperature": 2.1, "maxTokens": 0}}"#, &["options.temperature", "options.maxTokens"])]
    #[case(r#"{"prompt": "x", "options": {"temperature": "hot"}}"#, &["options.temperature"])]
    #[case(r#"{"prompt": "x", "options": {"maxTokens": 1.5}}"#, &["options.maxTokens"])]
    #[case(r#"{"prompt": "x", "options": {"maxTokens": 1e300}}"#, &["options.maxTokens"])]
    #[case(r#"{"prompt": "x", "options": {"maxTokens": 1000001}}"#, &["options.maxTokens"])]
    #[case(r#"{"prompt": "x", "options": {"topP": 1}}"#, &["options.topP"])]
    #[case(r#"{"prompt": "x", "options": [1, 2]}"#, &["options"])]
    #[case(r#"{"prompt": "x", "model": "y"}"#, &["model"])]
    #[case(r#"["x"]"#, &["body"])]
    #[case("7", &["body"])]
    #[case("{", &[])]
    #[case("{} {}", &[])]
    fn what_is_wrong_is_named_by_its_path(#[case] text: &str, #[case] named: &[&str]) {
        let status = started(text).unwrap_err();

        assert_eq!(fields(&status), named, "{status}");
    }

    #[test]
    fn a_prompt_may_be_as_long_as_an_input() {
        let fits = "x".repeat(100 - r#"{"prompt":""}"#.len());

        assert!(started(&format!(r#"{{"prompt": "{fits}"}}"#)).is_ok());
        let error = started(&format!(r#"{{"prompt": "{fits}x"}}"#)).unwrap_err();
        assert!(error.message().contains("101 bytes; the limit is 100"), "{error}");
    }

    #[test]
    fn a_query_asks_for_a_page() {
        let request = list("limit=7&pageToken=1.2&status=processing").unwrap();

        assert_eq!((request.page_size, request.page_token.as_str()), (7, "1.2"));
        let states = request.filter.unwrap().states;
        assert_eq!(states, [State::Running, State::Cancelling].map(|state| i32::from(reply::state(state))));
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("limit=1&limit=2", "limit"),
            ("status=RUNNING", "status"),
            ("status=", "status"),
            ("page=2", "page"),
        ] {
            assert_eq!(fields(&list(query).unwrap_err()), [field], "{query}");
        }
    }
}
