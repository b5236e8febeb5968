//! The canonical JSON of jobs and their events, in which inputs and results stand as they came, byte for byte: an integer
//! beyond 2^53 survives, which it would not as the double that a `google.protobuf.Value` has.

use super::reply;
use crate::engine::{JobsMessage, SharedBody, SharedEvent};
use crate::job::{Body, Event, JobId, Sequence, Snapshot};
use crate::proto::json::Told;
use crate::proto::{self, job_event};
use serde::Serialize;
use serde_json::value::RawValue;

/// A job as JSON. Input and result are there if the snapshot has them.
pub fn job(snapshot: &Snapshot) -> Box<RawValue> {
    write(&Shown::new(snapshot, &reply::job_without_payloads(snapshot)))
}

/// The first message of a watch as JSON.
pub fn snapshot(snapshot: &Snapshot, cursor: Sequence) -> Box<RawValue> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    enum First<'a> {
        Snapshot { job: Shown<'a> },
    }
    let job = reply::job_without_payloads(snapshot);
    write(&Told {
        job_id: &job.id,
        sequence: cursor as i64,
        attempt: job.attempt,
        event_time: &job.update_time,
        event: First::Snapshot { job: Shown::new(snapshot, &job) },
    })
}

/// A kept event as JSON.
pub fn event(job: JobId, event: &Event) -> Box<RawValue> {
    told(reply::event(job, event), result(&event.body))
}

/// What all watchers of a job are told, as JSON.
pub fn shared(shared: &SharedEvent) -> Box<RawValue> {
    let result = match &shared.body {
        SharedBody::Kept(body) => result(body),
        SharedBody::Progress(_) | SharedBody::Metrics(_) | SharedBody::Queue { .. } => None,
    };
    told(reply::shared_event(shared), result)
}

/// What somebody who watches many jobs is told, as JSON.
pub fn watched_jobs(message: &JobsMessage) -> Box<RawValue> {
    // Jobs come without payloads here.
    write(&reply::watched_jobs(message))
}

/// A job with its payloads as they are kept.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    job: &'a proto::Job,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
}

impl<'a> Shown<'a> {
    fn new(snapshot: &'a Snapshot, job: &'a proto::Job) -> Self {
        let Snapshot { input, result, .. } = snapshot;
        Self { job, input: input.as_deref().and_then(text), result: result.as_deref().and_then(text) }
    }
}

fn result(body: &Body) -> Option<&RawValue> {
    match body {
        Body::StateChanged(change) => change.result.as_deref().and_then(text),
        Body::StageEntered { .. }
        | Body::OutputAppended { .. }
        | Body::OutputReset { .. }
        | Body::Logged(_) => None,
    }
}

fn told(event: proto::JobEvent, result: Option<&RawValue>) -> Box<RawValue> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    enum Changed<'a> {
        StateChange {
            #[serde(flatten)]
            change: &'a proto::StateChange,
            result: &'a RawValue,
        },
    }
    let proto::JobEvent { job_id, sequence, attempt, event_time, event: what } = &event;
    match (what, result) {
        (Some(job_event::Event::StateChange(change)), Some(result)) => {
            let change = &proto::StateChange { result: None, ..change.clone() };
            let (sequence, attempt) = (*sequence, *attempt);
            write(&Told {
                job_id,
                sequence,
                attempt,
                event_time,
                event: Changed::StateChange { change, result },
            })
        }
        _ => write(&event),
    }
}

/// A payload as the JSON text that it is.
pub fn text(payload: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(payload).ok()
}

/// The JSON of what has such a form.
pub fn write(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a message of the contract has a JSON form")
}
