//! How a job and what happens to it are shown.

use super::json;
use crate::engine::{Count, Durable, Form, JobsMessage, Message, SharedBody, SharedEvent};
use crate::job::{
    Body, Event, Failure, Job, JobId, LeaseToken, LogLevel, Metrics, Options, Progress, Snapshot, State,
    StateChange, Timestamp,
};
use crate::proto::{self, EncodedEvent, job_event};
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;

/// A job as a client sees it. Input and result are there if the snapshot has them.
pub fn job(snapshot: &Snapshot) -> proto::Job {
    proto::Job {
        input: snapshot.input.as_deref().and_then(json::to_struct),
        result: snapshot.result.as_deref().and_then(json::to_value),
        ..job_without_payloads(snapshot)
    }
}

/// A job without its input and its result.
pub fn job_without_payloads(snapshot: &Snapshot) -> proto::Job {
    let Snapshot { job, labels, request_id, retry_of, trace: _, input: _, result: _, live, queue_position } =
        snapshot;
    proto::Job {
        id: job.id.to_string(),
        kind: job.kind.clone(),
        state: state(job.state).into(),
        input: None,
        options: Some(options(&job.options)),
        labels: labels.clone(),
        tenant: job.tenant.clone(),
        request_id: request_id.clone().unwrap_or_default(),
        attempt: job.attempt as i32,
        progress: shown_progress(job, &live.progress),
        result: None,
        failure: job.failure.as_ref().map(failure),
        metrics: live.metrics.clone(),
        worker_id: worker_id(job),
        queue_position: queue_position.unwrap_or(0) as i32,
        counted_attempts: job.counted_attempts as i32,
        create_time: Some(timestamp(job.create_time)),
        start_time: job.start_time.map(timestamp),
        end_time: job.end_time.map(timestamp),
        update_time: Some(timestamp(job.update_time())),
        next_attempt_time: job.next_attempt_time.map(timestamp),
        purge_time: job.purge_time().map(timestamp),
        queue_duration: Some(duration(job.queue_duration)),
        run_duration: Some(duration(job.run_duration)),
        attempt_start_time: job.attempt_start_time.map(timestamp),
        sequence: job.sequence() as i64,
        retry_of: retry_of.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// What somebody who watches many jobs is told.
pub fn watched_jobs(message: &JobsMessage) -> proto::WatchJobsResponse {
    use proto::watch_jobs_response::{Event, Synced};
    let event = match message {
        JobsMessage::Job(snapshot) => Event::Job(job(snapshot)),
        JobsMessage::Departed(snapshot) => Event::Departed(job(snapshot)),
        JobsMessage::Forgotten(id) => Event::ForgottenJobId(id.to_string()),
        JobsMessage::Synced => Event::Synced(Synced {}),
        JobsMessage::Keepalive => Event::Keepalive(proto::Keepalive {}),
    };
    proto::WatchJobsResponse { event: Some(event) }
}

/// How many jobs of a kind are in a state.
pub fn count(count: &Count) -> proto::JobCount {
    let Count { kind, state, jobs } = count;
    proto::JobCount {
        kind: kind.clone(),
        state: self::state(*state).into(),
        jobs: i64::try_from(*jobs).unwrap_or(i64::MAX),
    }
}

/// How much of a channel and of the log of an attempt is durable.
pub fn durable(token: &LeaseToken, channel: String, durable: Durable) -> proto::AppendOutputResponse {
    proto::AppendOutputResponse {
        lease_token: token.to_string(),
        durable_bytes: durable.bytes as i64,
        durable_logs: durable.lines as i64,
        durable_checkpoints: Some(durable.checkpoints as i64),
        channel,
        ..Default::default()
    }
}

/// A kept event, as the history lists it.
pub fn event(job: JobId, event: &Event) -> proto::JobEvent {
    let body = SharedBody::Kept(event.body.clone());
    job_event(job, event.sequence, event.attempt, event.time, shared_body(&body))
}

/// What a watcher is told, encoded; an event that others are told as well is encoded once for all of them.
pub fn watched(message: &Message) -> EncodedEvent {
    match message {
        Message::Shared(shared) => EncodedEvent(shared.encoded(Form::Binary, encode_shared)),
        Message::Snapshot { snapshot, cursor } => {
            let Snapshot { job: the, .. } = snapshot.as_ref();
            let body =
                job_event::Event::Snapshot(proto::Snapshot { job: Some(job(snapshot)), truncated: false });
            encode(&job_event(the.id, *cursor, the.attempt, the.update_time(), body))
        }
        Message::Keepalive { job, cursor, attempt, time } => encode(&job_event(
            *job,
            *cursor,
            *attempt,
            *time,
            job_event::Event::Keepalive(proto::Keepalive {}),
        )),
    }
}

fn encode(event: &proto::JobEvent) -> EncodedEvent {
    EncodedEvent(event.encode_to_vec().into())
}

fn encode_shared(shared: &SharedEvent) -> Bytes {
    shared_event(shared).encode_to_vec().into()
}

/// What all watchers of a job are told.
pub fn shared_event(shared: &SharedEvent) -> proto::JobEvent {
    let SharedEvent { job, sequence, attempt, time, ref body, .. } = *shared;
    job_event(job, sequence, attempt, time, shared_body(body))
}

fn job_event(
    job: JobId,
    sequence: u64,
    attempt: u32,
    time: Timestamp,
    event: job_event::Event,
) -> proto::JobEvent {
    proto::JobEvent {
        job_id: job.to_string(),
        sequence: sequence as i64,
        attempt: attempt as i32,
        event_time: Some(timestamp(time)),
        event: Some(event),
    }
}

fn shared_body(body: &SharedBody) -> job_event::Event {
    match body {
        SharedBody::Kept(Body::StateChanged(change)) => job_event::Event::StateChange(state_change(change)),
        SharedBody::Kept(Body::StageEntered { name }) => {
            job_event::Event::Stage(proto::Stage { name: name.clone() })
        }
        SharedBody::Kept(Body::OutputAppended { channel, offset, data }) => {
            job_event::Event::Output(proto::Output {
                offset: *offset as i64,
                data: data.clone(),
                channel: channel.clone(),
            })
        }
        SharedBody::Kept(Body::OutputReset { channel, kept_bytes }) => {
            job_event::Event::OutputReset(proto::OutputReset {
                kept_bytes: *kept_bytes as i64,
                channel: channel.clone(),
            })
        }
        SharedBody::Kept(Body::Logged(line)) => job_event::Event::Log(proto::LogLine {
            level: log_level(line.level).into(),
            message: line.message.clone(),
        }),
        SharedBody::Progress(progress) => job_event::Event::Progress(self::progress(progress)),
        SharedBody::Queue { position, expected_start } => job_event::Event::QueueUpdate(proto::QueueUpdate {
            position: *position as i32,
            expected_start_time: expected_start.map(timestamp),
        }),
        SharedBody::Metrics(values) => job_event::Event::Metrics(proto::Metrics { values: values.clone() }),
    }
}

fn state_change(change: &StateChange) -> proto::StateChange {
    proto::StateChange {
        previous_state: change.previous.map_or(proto::job::State::Unspecified, state).into(),
        state: state(change.state).into(),
        reason: change.reason.to_string(),
        failure: change.failure.as_ref().map(failure),
        worker_id: change.worker.clone().unwrap_or_default(),
        result: change.result.as_deref().and_then(json::to_value),
        next_attempt_time: change.next_attempt_time.map(timestamp),
        message: change.message.clone(),
        metrics: Metrics::clone(&change.metrics),
    }
}

/// A state by its name in the contract.
pub fn state(state: State) -> proto::job::State {
    match state {
        State::Scheduled => proto::job::State::Scheduled,
        State::Pending => proto::job::State::Pending,
        State::Running => proto::job::State::Running,
        State::Retrying => proto::job::State::Retrying,
        State::Cancelling => proto::job::State::Cancelling,
        State::Succeeded => proto::job::State::Succeeded,
        State::Failed => proto::job::State::Failed,
        State::Cancelled => proto::job::State::Cancelled,
        State::Expired => proto::job::State::Expired,
    }
}

fn log_level(level: LogLevel) -> proto::log_line::Level {
    match level {
        LogLevel::Debug => proto::log_line::Level::Debug,
        LogLevel::Info => proto::log_line::Level::Info,
        LogLevel::Warn => proto::log_line::Level::Warn,
        LogLevel::Error => proto::log_line::Level::Error,
    }
}

/// Only a job that succeeded is at 1. Before its first attempt it has no progress.
pub fn shown_progress(job: &Job, last: &Progress) -> Option<proto::Progress> {
    if job.attempt == 0 {
        return None;
    }
    let mut shown = progress(last);
    if job.state == State::Succeeded {
        shown.fraction = Some(1.0);
    }
    Some(shown)
}

fn progress(progress: &Progress) -> proto::Progress {
    proto::Progress {
        fraction: progress.fraction,
        estimated: progress.estimated,
        stage: progress.stage.clone(),
        completed: progress.completed,
        total: progress.total,
        unit: progress.unit.clone(),
        expected_end_time: progress.expected_end_time.map(timestamp),
        report_time: progress.report_time.map(timestamp),
    }
}

fn failure(failure: &Failure) -> proto::Failure {
    proto::Failure {
        reason: failure.reason.to_string(),
        message: failure.message.clone(),
        permanent: failure.permanent,
        details: failure.details.as_deref().and_then(json::to_struct),
    }
}

fn options(options: &Options) -> proto::JobOptions {
    let concurrency = options.concurrency.as_ref();
    proto::JobOptions {
        priority: options.priority.into(),
        schedule_time: options.schedule_time.map(timestamp),
        retry_policy: Some(proto::RetryPolicy {
            maximum_attempts: options.retry.maximum_attempts as i32,
            initial_interval: Some(duration(options.retry.initial_interval)),
            backoff_coefficient: options.retry.backoff_coefficient,
            maximum_interval: Some(duration(options.retry.maximum_interval)),
        }),
        schedule_to_start_timeout: options.schedule_to_start_timeout.map(duration),
        start_to_close_timeout: options.start_to_close_timeout.map(duration),
        schedule_to_close_timeout: options.schedule_to_close_timeout.map(duration),
        concurrency_key: concurrency.map(|concurrency| concurrency.key.clone()).unwrap_or_default(),
        concurrency_limit: concurrency.map_or(0, |concurrency| concurrency.limit as i32),
        progress_timeout: options.progress_timeout.map(duration),
        retention: Some(duration(options.retention)),
    }
}

fn worker_id(job: &Job) -> String {
    match (job.state, &job.lease) {
        (State::Running | State::Cancelling, Some(lease)) => lease.worker.clone(),
        _ => String::new(),
    }
}

/// A time as the contract has it.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: micros.rem_euclid(1_000_000) as i32 * 1_000,
    }
}

/// A duration as the contract has it.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}
