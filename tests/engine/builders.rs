//! Jobs, workers and reports, each with what a case does not care about filled in.

use longhaul::engine::{WatchOptions, Worker};
use longhaul::job::*;
use longhaul::store::Parts;
use std::time::Duration;

pub fn spec(kind: &str) -> Spec {
    let wish = Wish { kind: kind.into(), input: "{}".into(), ..Default::default() };
    wish.into_spec(DEFAULT_TENANT, &Terms::default()).unwrap()
}

/// A job of kind `work`, named by its client.
pub fn named(id: &str) -> Spec {
    Spec { request: Some(RequestKey { id: id.into(), fingerprint: [0; 32] }), ..spec("work") }
}

/// Everything from now on, at once.
pub fn options() -> WatchOptions {
    WatchOptions { after: None, minimum_interval: Duration::ZERO, omit_output: false, parts: Parts::BASIC }
}

/// A worker in this process.
pub fn pool() -> Worker {
    Worker { name: "pool".into(), kinds: ["work".to_owned()].into(), in_process: true, term: None }
}

/// A worker elsewhere.
pub fn remote() -> Worker {
    Worker { name: "remote".into(), kinds: ["work".to_owned()].into(), in_process: false, term: None }
}

pub fn progress(fraction: f64) -> Option<Progress> {
    Some(Progress { fraction: Some(fraction), ..Default::default() })
}

pub fn line(message: &str) -> Vec<LogLine> {
    vec![LogLine { level: LogLevel::Info, message: message.into() }]
}

pub fn failure() -> Option<Failure> {
    Some(Failure::new("BROKEN", "it broke"))
}
