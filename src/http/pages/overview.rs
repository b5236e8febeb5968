//! Who is there, and what happened in the last minutes, for the pages: as they are made, and as JSON for their scripts.

use crate::engine::{Engine, Error, Present, Workers};
use crate::http::lasting::Lasting;
use crate::job::Timestamp;
use crate::metrics::{Minutes, Recent, SLICE, Slice};
use crate::wire::reply;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use std::sync::Arc;
use std::time::Duration;

/// What there is to see, for all who ask.
#[derive(Clone, Debug)]
pub struct Overviews {
    engine: Engine,
    recent: Arc<Recent>,
    start: Timestamp,
    last: Lasting<Arc<Overview>>,
}

/// What there was to see at one moment.
#[derive(Debug)]
pub struct Overview {
    /// Who was there.
    pub workers: Workers,
    /// What had happened.
    pub minutes: Minutes,
    /// When the process began, before which it has seen nothing.
    pub start: Timestamp,
    /// All of it as JSON.
    pub text: Bytes,
}

impl Overviews {
    /// Of this engine, and of what was observed of it since `start`.
    pub fn new(engine: Engine, recent: Arc<Recent>, start: Timestamp) -> Self {
        Self { engine, recent, start, last: Lasting::default() }
    }

    /// What there is to see as of about now.
    pub async fn get(&self) -> Result<Arc<Overview>, Error> {
        let (recent, start) = (Arc::clone(&self.recent), self.start);
        let make = move |engine: &Engine| {
            let now = engine.now();
            Arc::new(Overview::new(engine.workers(), recent.minutes(now), start, now))
        };
        self.last.get(&self.engine, make).await
    }
}

impl Overview {
    /// What there is to see now, in a process that began at `start`.
    pub fn new(workers: Workers, minutes: Minutes, start: Timestamp, now: Timestamp) -> Self {
        let told = Told {
            now: Time(now),
            start_time: Time(start),
            workers: workers.named.iter().map(Worker::new).collect(),
            more_workers: workers.more,
            served_kinds: workers.kinds.iter().map(String::as_str).collect(),
            interval: SLICE.as_secs(),
            recent: minutes.slices.iter().map(Counts::new).collect(),
            total: Counts::new(&minutes.all),
        };
        let text = serde_json::to_vec(&told).expect("what we send has a JSON form");
        Self { text: text.into(), workers, minutes, start }
    }
}

/// The JSON. As in the API, what is zero is left out of what there are many of.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    now: Time,
    start_time: Time,
    workers: Vec<Worker<'a>>,
    more_workers: usize,
    served_kinds: Vec<&'a str>,
    interval: u64,
    recent: Vec<Counts>,
    total: Counts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker<'a> {
    name: &'a str,
    in_process: bool,
    kinds: Vec<&'a str>,
    jobs: usize,
    free: usize,
}

impl<'a> Worker<'a> {
    fn new(present: &'a Present) -> Self {
        let Present { name, in_process, kinds, jobs, free, .. } = present;
        let kinds = kinds.iter().map(String::as_str).collect();
        Self { name, in_process: *in_process, kinds, jobs: *jobs, free: *free }
    }
}

#[derive(Serialize)]
struct Counts {
    time: Time,
    #[serde(skip_serializing_if = "is_zero")]
    created: u64,
    #[serde(skip_serializing_if = "is_zero")]
    succeeded: u64,
    #[serde(skip_serializing_if = "is_zero")]
    failed: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cancelled: u64,
    #[serde(skip_serializing_if = "is_zero")]
    expired: u64,
    #[serde(skip_serializing_if = "is_zero")]
    retried: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<Lasted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95: Option<Lasted>,
}

impl Counts {
    fn new(slice: &Slice) -> Self {
        let Slice { time, created, succeeded, failed, cancelled, expired, retried, p50, p95 } = *slice;
        let (time, p50, p95) = (Time(time), p50.map(Lasted), p95.map(Lasted));
        Self { time, created, succeeded, failed, cancelled, expired, retried, p50, p95 }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A time as in the API.
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&reply::timestamp(self.0))
    }
}

/// A duration as in the API.
struct Lasted(Duration);

impl Serialize for Lasted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}s", self.0.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::at;
    use crate::job::Timestamp;
    use serde_json::{Value, json};

    #[test]
    fn a_script_is_told_who_is_there_and_what_happened() {
        let kinds = || ["simulate".to_owned()].into();
        let pool = Present {
            name: "pool".to_owned(),
            in_process: true,
            kinds: kinds(),
            places: 1,
            jobs: 3,
            free: 5,
        };
        let workers = Workers { named: vec![pool], more: 2, kinds: kinds() };
        let slice = Slice {
            time: at(10.0),
            succeeded: 4,
            p50: Some(Duration::from_millis(1_500)),
            ..Slice::default()
        };

        let overview = Overview::new(
            workers,
            Minutes { slices: vec![slice], all: slice },
            Timestamp::default(),
            at(12.5),
        );

        let told: Value = serde_json::from_slice(&overview.text).unwrap();
        let counts = json!({"time": "2026-01-01T00:00:10Z", "succeeded": 4, "p50": "1.5s"});
        let expected = json!({
            "now": "2026-01-01T00:00:12.500Z",
            "startTime": "1970-01-01T00:00:00Z",
            "workers": [{"name": "pool", "inProcess": true, "kinds": ["simulate"], "jobs": 3, "free": 5}],
            "moreWorkers": 2,
            "servedKinds": ["simulate"],
            "interval": 10,
            "recent": [counts],
            "total": counts,
        });
        assert_eq!(told, expected);
    }
}
