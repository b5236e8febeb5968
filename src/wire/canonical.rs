//! Messages of the contract in protobuf's canonical JSON, for people and scripts.

use crate::proto::json::Any;
use serde::Serialize;

/// The canonical JSON of a message on one line.
pub fn canonical_json(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("a message of the contract has a JSON form")
}

/// The JSON that a `google.protobuf.Value` stands for, on one line.
pub fn json_value(value: &prost_types::Value) -> String {
    canonical_json(&Any(value))
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

        let json = canonical_json(&job);

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

        let json = canonical_json(&event);

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
