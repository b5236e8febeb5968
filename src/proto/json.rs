//! Where the canonical JSON of protobuf differs from what serde does by itself.
//!
//! The build puts these functions on the fields that need them. Source: "ProtoJSON Format" of the protobuf documentation.

use super::{JobEvent, WatchJobsResponse};
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Integers from here on may have lost digits in a double, so they are printed as what they are: doubles.
const EXACT_INTEGERS_END: f64 = 9_007_199_254_740_992.0;

/// An enum of the contract.
pub trait Enumeration: TryFrom<i32> {
    /// The name of a value in the contract.
    fn name(&self) -> &'static str;
}

/// Whether a field is left out, as is one that nobody has set.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A 64-bit integer is text, since a reader may have nothing but doubles.
pub fn long<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// A 64-bit integer that may be absent.
pub fn optional_long<S: Serializer>(number: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => long(number, serializer),
        None => serializer.serialize_none(),
    }
}

/// An enum by the name of its value, or by its number, where that is of a later contract.
pub fn enumeration<E: Enumeration, S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match E::try_from(*number) {
        Ok(value) => serializer.serialize_str(value.name()),
        Err(_) => serializer.serialize_i32(*number),
    }
}

/// Bytes in base64.
pub fn base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(bytes, &STANDARD))
}

/// A time or a duration, whose text is the canonical one.
pub fn text<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// A number; a whole one is written as one, and what JSON cannot write as a number is text.
pub fn double<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match *number {
        whole if whole.fract() == 0.0 && whole.abs() < EXACT_INTEGERS_END => {
            serializer.serialize_i64(whole as i64)
        }
        finite if finite.is_finite() => serializer.serialize_f64(finite),
        infinite if infinite > 0.0 => serializer.serialize_str("Infinity"),
        infinite if infinite < 0.0 => serializer.serialize_str("-Infinity"),
        _ => serializer.serialize_str("NaN"),
    }
}

/// A number that may be absent.
pub fn optional_double<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => double(number, serializer),
        None => serializer.serialize_none(),
    }
}

/// Numbers by name.
pub fn doubles<S: Serializer>(numbers: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers.iter().map(|(name, number)| (name, Number(*number))))
}

/// An object that may be absent.
pub fn object<S: Serializer>(object: &Option<Struct>, serializer: S) -> Result<S::Ok, S::Error> {
    match object {
        Some(object) => Object(object).serialize(serializer),
        None => serializer.serialize_none(),
    }
}

/// A value that may be absent.
pub fn value<S: Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => Any(value).serialize(serializer),
        None => serializer.serialize_none(),
    }
}

struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        double(&self.0, serializer)
    }
}

struct Object<'a>(&'a Struct);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.fields.len()))?;
        for (name, value) in &self.0.fields {
            map.serialize_entry(name, &Any(value))?;
        }
        map.end()
    }
}

/// The JSON value that a `google.protobuf.Value` stands for.
#[derive(Clone, Copy, Debug)]
pub struct Any<'a>(pub &'a Value);

impl Serialize for Any<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.kind {
            None | Some(Kind::NullValue(_)) => serializer.serialize_unit(),
            Some(Kind::BoolValue(value)) => serializer.serialize_bool(*value),
            Some(Kind::NumberValue(number)) => double(number, serializer),
            Some(Kind::StringValue(text)) => serializer.serialize_str(text),
            Some(Kind::StructValue(object)) => Object(object).serialize(serializer),
            Some(Kind::ListValue(ListValue { values })) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(&Any(value)))?;
                list.end()
            }
        }
    }
}

impl Serialize for JobEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let JobEvent { job_id, sequence, attempt, event_time, event } = self;
        Told { job_id, sequence: *sequence, attempt: *attempt, event_time, event }.serialize(serializer)
    }
}

/// A [`JobEvent`] as it is written, with what happened in a form of its own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told<'a, E: Serialize> {
    #[serde(skip_serializing_if = "is_default")]
    /// As [`JobEvent::job_id`].
    pub job_id: &'a str,
    /// As [`JobEvent::sequence`].
    #[serde(skip_serializing_if = "is_default", serialize_with = "long")]
    pub sequence: i64,
    /// As [`JobEvent::attempt`].
    #[serde(skip_serializing_if = "is_default")]
    pub attempt: i32,
    /// As [`JobEvent::event_time`].
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub event_time: &'a Option<Timestamp>,
    /// As [`JobEvent::event`].
    #[serde(flatten)]
    pub event: E,
}

impl Serialize for WatchJobsResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.event {
            Some(event) => event.serialize(serializer),
            None => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::*;
    use proptest::prelude::*;
    use prost::Message;
    use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage};
    use prost_types::value::Kind;
    use prost_types::{Duration, ListValue, Struct, Timestamp, Value};
    use std::collections::BTreeMap;

    fn time() -> impl Strategy<Value = Option<Timestamp>> {
        let nanos = prop_oneof![Just(0), Just(500_000_000), Just(1_000), 0..1_000_000_000];
        proptest::option::of(
            (-62_135_596_800i64..253_402_300_800, nanos)
                .prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }),
        )
    }

    fn duration() -> impl Strategy<Value = Option<Duration>> {
        let nanos = prop_oneof![Just(0), Just(500_000_000), Just(1_000), 0..1_000_000_000];
        proptest::option::of(
            (0..315_576_000_000i64, nanos).prop_map(|(seconds, nanos)| Duration { seconds, nanos }),
        )
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Kind::NullValue(0)),
            any::<bool>().prop_map(Kind::BoolValue),
            (-1e300..1e300f64).prop_map(Kind::NumberValue),
            (-1_000..1_000i32).prop_map(|number| Kind::NumberValue(number.into())),
            any::<String>().prop_map(Kind::StringValue),
        ];
        let value = leaf.prop_map(|kind| Value { kind: Some(kind) });
        value.prop_recursive(3, 12, 3, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|values| Kind::ListValue(ListValue { values }));
            let object = proptest::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|fields| Kind::StructValue(Struct { fields }));
            prop_oneof![list, object].prop_map(|kind| Value { kind: Some(kind) })
        })
    }

    fn metrics() -> impl Strategy<Value = BTreeMap<String, f64>> {
        proptest::collection::btree_map(any::<String>(), -1e9..1e9f64, 0..3)
    }

    fn job() -> impl Strategy<Value = Job> {
        let text = any::<String>;
        let progress =
            (proptest::option::of(0.0..1.0f64), text(), any::<i64>(), any::<Option<i64>>(), time());
        let progress = progress.prop_map(|(fraction, stage, completed, total, time)| Progress {
            fraction,
            stage,
            completed,
            total,
            report_time: time,
            ..Default::default()
        });
        let parts = (
            (text(), text(), 0..12i32, proptest::option::of(value()), metrics()),
            (time(), duration(), any::<i32>(), any::<i64>(), proptest::option::of(progress)),
            proptest::collection::btree_map(text(), text(), 0..3),
        );
        parts.prop_map(
            |((id, kind, state, result, metrics), (time, length, number, long, progress), labels)| {
                let retry_policy = RetryPolicy {
                    maximum_attempts: number,
                    backoff_coefficient: 1.5,
                    initial_interval: length,
                    ..Default::default()
                };
                Job {
                    id,
                    kind,
                    state,
                    result,
                    metrics,
                    labels,
                    progress,
                    create_time: time,
                    queue_duration: length,
                    sequence: long,
                    options: Some(JobOptions {
                        priority: number,
                        retry_policy: Some(retry_policy),
                        ..Default::default()
                    }),
                    ..Default::default()
                }
            },
        )
    }

    fn event() -> impl Strategy<Value = JobEvent> {
        let event = prop_oneof![
            job().prop_map(|job| job_event::Event::Snapshot(Snapshot { job: Some(job), truncated: true })),
            (proptest::collection::vec(any::<u8>(), 0..9), any::<i64>()).prop_map(|(data, offset)| {
                job_event::Event::Output(Output { data: data.into(), offset, ..Default::default() })
            }),
            (0..6i32, any::<String>())
                .prop_map(|(level, message)| job_event::Event::Log(LogLine { level, message })),
            (0..12i32, proptest::option::of(value())).prop_map(|(state, result)| {
                job_event::Event::StateChange(StateChange { state, result, ..Default::default() })
            }),
            metrics().prop_map(|values| job_event::Event::Metrics(Metrics { values })),
            Just(job_event::Event::Keepalive(Keepalive {})),
        ];
        (event, any::<i64>(), time()).prop_map(|(event, sequence, event_time)| JobEvent {
            sequence,
            event_time,
            event: Some(event),
            ..Default::default()
        })
    }

    /// The JSON that a library makes of a message, which knows nothing but its descriptor.
    fn reflected(name: &str, message: &impl Message) -> serde_json::Value {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let descriptor = pool.get_message_by_name(&format!("longhaul.v1.{name}")).unwrap();
        let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).unwrap();
        assert_eq!(dynamic.descriptor().name(), name);
        serde_json::to_value(dynamic).unwrap()
    }

    /// Equal, where 5 and 5.0 are the same number.
    fn same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
        use serde_json::Value::{Array, Number, Object};
        match (one, other) {
            (Number(one), Number(other)) => one.as_f64() == other.as_f64(),
            (Array(one), Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
            }
            (Object(one), Object(other)) => {
                one.len() == other.len()
                    && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
            }
            _ => one == other,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_a_reflecting_library_writes(event in event()) {
            let written = serde_json::to_value(&event).unwrap();
            let reflected = reflected("JobEvent", &event);

            prop_assert!(same(&written, &reflected), "{written} is not {reflected}");
        }
    }

    #[test]
    fn every_field_of_a_watch_of_many_has_its_name() {
        let message =
            WatchJobsResponse { event: Some(watch_jobs_response::Event::ForgottenJobId("one".to_owned())) };

        let written = serde_json::to_value(&message).unwrap();

        assert_eq!(written, reflected("WatchJobsResponse", &message));
        assert_eq!(written, serde_json::json!({"forgottenJobId": "one"}));
    }
}
