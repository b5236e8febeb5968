//! A job to show in tests.

use crate::job::{DEFAULT_TENANT, Job, JobId, Live, Snapshot, Terms, Timestamp, Wish};

/// A job of the tenth second of 2026, which waits.
pub fn snapshot() -> Snapshot {
    let wish = Wish { kind: "simulate".to_owned(), ..Default::default() };
    let spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).unwrap();
    let time = at(10.0);
    Snapshot {
        job: Job::new(JobId::new(time, 0, 0), &spec, time),
        labels: Default::default(),
        request_id: None,
        retry_of: None,
        trace: None,
        input: None,
        result: None,
        live: Live::default(),
        queue_position: None,
    }
}

/// So many seconds after the start of 2026.
pub fn at(seconds: f64) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000 + (seconds * 1e6) as i64)
}
