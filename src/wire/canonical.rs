//! Messages of the contract in protobuf's canonical JSON, for people and scripts.

use crate::proto::DESCRIPTORS;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::Serialize as _;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};
use std::io;
use std::sync::LazyLock;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build made the descriptors"));

/// The canonical JSON of a message on one line.
///
/// `name` is its name in the package `longhaul.v1`, for example `Job`.
pub fn canonical_json(name: &str, message: &impl Message) -> String {
    json_of(&format!("longhaul.v1.{name}"), message)
}

/// The JSON that a `google.protobuf.Value` stands for, on one line.
pub fn json_value(value: &prost_types::Value) -> String {
    json_of("google.protobuf.Value", value)
}

fn json_of(full_name: &str, message: &impl Message) -> String {
    let descriptor = POOL.get_message_by_name(full_name).expect("the name is one of the contract");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("the message was encoded by the same contract");
    let mut json = Vec::new();
    dynamic
        .serialize(&mut Serializer::with_formatter(&mut json, Shortest))
        .expect("a message of the contract has a JSON form");
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// Writes a whole number as one: in a `google.protobuf.Value` every number is a double, and 5 came in as 5.
struct Shortest;

impl Formatter for Shortest {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Past this a double does not tell each integer from the next.
        if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
            return self.write_i64(writer, value as i64);
        }
        CompactFormatter.write_f64(writer, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Job, JobEvent, Progress, job, job_event};

    #[test]
    fn names_are_camel_case_enums_are_names_and_times_end_in_z() {
        let job = Job {
            id: "019ab000-0000-7000-8000-000000000000".to_owned(),
            state: job::State::Running.into(),
            create_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 500_000_000 }),
            ..Default::default()
        };

        let json = canonical_json("Job", &job);

        assert!(json.contains(r#""state":"RUNNING""#), "{json}");
        assert!(json.contains(r#""createTime":"2026-09-21T14:13:20.500Z""#), "{json}");
    }

    #[test]
    fn long_integers_are_strings() {
        let event = JobEvent {
            sequence: 9_007_199_254_740_993,
            event: Some(job_event::Event::Progress(Progress { fraction: Some(0.5), ..Default::default() })),
            ..Default::default()
        };

        let json = canonical_json("JobEvent", &event);

        assert_eq!(json, r#"{"sequence":"9007199254740993","progress":{"fraction":0.5}}"#);
    }
    #[test]
    fn a_whole_number_is_written_as_one() {
        let value = |number| prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(number)) };
        for (number, text) in [(5.0, "5"), (-3.0, "-3"), (0.5, "0.5"), (1e300, "1e+300")] {
            assert_eq!(json_value(&value(number)), text);
        }
    }
}
