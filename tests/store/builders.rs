//! Jobs and commands, each with what a case does not care about filled in.

use bytes::Bytes;
use longhaul::job::*;
use longhaul::store::{Claim, Operation, Page, Slot};
use std::time::Duration;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MICROSECOND: Duration = Duration::from_micros(1);

/// A job of this kind without any option.
pub fn spec(kind: &str) -> Spec {
    let wish = Wish { kind: kind.into(), input: "{}".into(), ..Default::default() };
    wish.into_spec(DEFAULT_TENANT, &Terms::default()).expect("a sound wish")
}

/// The same with some options.
pub fn tuned(kind: &str, tune: impl FnOnce(&mut Options)) -> Spec {
    let mut spec = spec(kind);
    tune(&mut spec.options);
    spec
}

pub fn of_tenant(tenant: &str, spec: Spec) -> Spec {
    Spec { tenant: tenant.into(), ..spec }
}

/// A wish for a job in each of these slots, named by the secrets of their leases.
pub fn wish(kinds: &[&str], secrets: impl IntoIterator<Item = u64>, in_process: bool) -> Claim {
    let slot = |(taker, secret)| Slot { taker, worker: "worker".into(), secret, term: None, in_process };
    Claim {
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        slots: (0..).zip(secrets).map(slot).collect(),
        bytes: usize::MAX,
    }
}

/// The same, named by its client.
pub fn named(id: &str, fingerprint: u8, spec: Spec) -> Spec {
    Spec { request: Some(RequestKey { id: id.into(), fingerprint: [fingerprint; 32] }), ..spec }
}

/// A job of kind `work` that shares the places of a key.
pub fn keyed(key: &str, limit: u32) -> Spec {
    tuned("work", |options| options.concurrency = Some(Concurrency { key: key.into(), limit }))
}

/// A job of kind `work` that is started at `time`.
pub fn scheduled(time: Timestamp) -> Spec {
    tuned("work", |options| options.schedule_time = Some(time))
}

/// The first page of a list, of so many jobs.
pub fn first(jobs: usize) -> Page {
    Page { before: None, jobs, bytes: usize::MAX }
}

pub fn apply(id: JobId, command: Command) -> Operation {
    Operation::Apply(id, Box::new(command))
}

pub fn accept(lease: LeaseToken) -> Command {
    Command::Accept { lease }
}

pub fn stage(lease: LeaseToken, name: &str) -> Command {
    Command::EnterStage { lease, name: name.into() }
}

pub fn output(lease: LeaseToken, offset: u64, data: impl Into<Bytes>) -> Command {
    Command::AppendOutput { lease, channel: String::new(), reset_to: None, offset, data: data.into() }
}

pub fn checkpoint(lease: LeaseToken, number: u64, output_bytes: u64, data: impl Into<Bytes>) -> Command {
    Command::Checkpoint { lease, number, output_bytes, data: data.into() }
}

pub fn log(lease: LeaseToken, offset: u64, message: &str) -> Command {
    let line = LogLine { level: LogLevel::Info, message: message.into() };
    Command::AppendLog { lease, offset, lines: vec![line] }
}

pub fn complete(lease: LeaseToken) -> Command {
    Command::Complete { lease, result: "{}".into(), live: Live::default(), output_bytes: None }
}

/// The attempt failed; the next one may come at once.
pub fn fail(lease: LeaseToken) -> Command {
    fail_for(lease, Duration::ZERO)
}

/// The attempt failed; the next one comes after `delay`.
pub fn fail_for(lease: LeaseToken, delay: Duration) -> Command {
    let failure = Some(Failure::new("BROKEN", "it broke"));
    Command::Fail { lease, failure, retry_delay: Some(delay), live: Live::default(), jitter: 0.0 }
}

/// The worker let go, as it was asked to.
pub fn stop(lease: LeaseToken) -> Command {
    Command::Fail { lease, failure: None, retry_delay: None, live: Live::default(), jitter: 0.0 }
}

pub fn release(lease: LeaseToken, delay: Duration) -> Command {
    Command::Release { lease, reason: "busy".into(), delay, live: Live::default() }
}

pub fn end_lease(lease: LeaseToken, keeper: Keeper, cause: LeaseEnd) -> Command {
    Command::EndLease { epoch: lease.epoch, keeper, cause, live: Live::default(), jitter: 0.0 }
}

pub fn cancel() -> Command {
    Command::Cancel { reason: "enough".into(), grace: 10 * SECOND }
}

/// Progress with a number to tell it by.
pub fn live(completed: i64) -> Live {
    let progress = Progress { fraction: Some(0.5), stage: "half".into(), completed, ..Default::default() };
    Live { progress, metrics: [("tokens".to_owned(), completed as f64)].into() }
}
