//! What there is to do, who is there to do it, and what happened in the last minutes, for the pages: as they are made, and as
//! JSON for their scripts. That is bounded: it names what has most to do, and says how much more there is.

use super::counts::Table;
use crate::api::{self, COUNTS_MAX};
use crate::engine::{Engine, Error, Present, Workers};
use crate::http::lasting::Lasting;
use crate::job::{DEFAULT_TENANT, Timestamp};
use crate::metrics::{Minutes, Recent, SLICE, Slice};
use crate::wire::reply;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use std::sync::Arc;
use std::time::Duration;

/// How many kinds of a worker are named.
pub const WORKER_KINDS_MAX: usize = 12;

/// What there is to see, for all who ask.
#[derive(Clone, Debug)]
pub struct Overviews {
    engine: Engine,
    recent: Arc<Recent>,
    start: Timestamp,
    last: Lasting<Result<Arc<Overview>, Error>>,
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
            let (now, workers) = (engine.now(), engine.workers());
            // One more tells whether there are more.
            let counts = api::Counts::new(engine.count_here(DEFAULT_TENANT, &[], COUNTS_MAX + 1)?);
            let counts = Table::new(&counts, &workers.kinds);
            Ok(Arc::new(Overview::new(workers, &counts, recent.minutes(now), start, now)))
        };
        self.last.get(&self.engine, make).await?
    }
}

impl Overview {
    /// What there is to see now, in a process that began at `start`.
    pub fn new(workers: Workers, counts: &Table, minutes: Minutes, start: Timestamp, now: Timestamp) -> Self {
        let told = Told {
            now: Time(now),
            start_time: Time(start),
            workers: workers.named.iter().map(Worker::new).collect(),
            more_workers: workers.more,
            counts,
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
    counts: &'a Table,
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
    more_kinds: usize,
    jobs: usize,
    free: usize,
}

impl<'a> Worker<'a> {
    fn new(present: &'a Present) -> Self {
        let Present { name, in_process, kinds, jobs, free, .. } = present;
        let more_kinds = kinds.len().saturating_sub(WORKER_KINDS_MAX);
        let kinds = kinds.iter().take(WORKER_KINDS_MAX).map(String::as_str).collect();
        Self { name, in_process: *in_process, kinds, more_kinds, jobs: *jobs, free: *free }
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
    use crate::engine::{Count, WORKERS_MAX};
    use crate::http::fake::at;
    use crate::job::{State, Timestamp};
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

        let pending = Count { kind: "draw".to_owned(), state: State::Pending, jobs: 2 };
        let table = Table::new(&api::Counts::new(vec![pending]), &workers.kinds);
        let overview = Overview::new(
            workers,
            &table,
            Minutes { slices: vec![slice], all: slice },
            Timestamp::default(),
            at(12.5),
        );

        let told: Value = serde_json::from_slice(&overview.text).unwrap();
        let counts = json!({"time": "2026-01-01T00:00:10Z", "succeeded": 4, "p50": "1.5s"});
        let expected = json!({
            "now": "2026-01-01T00:00:12.500Z",
            "startTime": "1970-01-01T00:00:00Z",
            "workers": [{"name": "pool", "inProcess": true, "kinds": ["simulate"], "moreKinds": 0, "jobs": 3, "free": 5}],
            "moreWorkers": 2,
            "counts": {
                "kinds": [{"kind": "draw", "jobs": {"PENDING": 2}}],
                "moreKinds": 0,
                "all": {"PENDING": 2},
                "isCut": false,
                "unserved": [{"kind": "draw", "waiting": 2}],
                "moreUnserved": 0,
            },
            "interval": 10,
            "recent": [counts],
            "total": counts,
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn however_many_kinds_workers_have_a_page_loads_a_bounded_part_of_them() {
        let worker = |number: usize| Present {
            name: format!("{number:0128}"),
            kinds: (0..100).map(|kind| format!("{number:032}{kind:032}")).collect(),
            ..Default::default()
        };
        let named: Vec<Present> = (0..WORKERS_MAX).map(worker).collect();
        let kinds = named.iter().flat_map(|worker| worker.kinds.clone()).collect();
        let workers = Workers { named, more: 800, kinds };
        let minutes = Minutes { slices: Vec::new(), all: Slice::default() };

        let overview = Overview::new(workers, &Table::default(), minutes, at(0.0), at(0.0));

        let told: Value = serde_json::from_slice(&overview.text).unwrap();
        assert!(overview.text.len() < 256 << 10, "{} bytes", overview.text.len());
        assert_eq!(told["workers"][0]["moreKinds"], 100 - WORKER_KINDS_MAX);
    }
}
