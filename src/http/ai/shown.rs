//! Jobs in the hackathon's words: five statuses, a percentage, and `null` for what is not there yet.

use crate::engine;
use crate::job::{Failure, Snapshot, State, Timestamp};
use crate::wire::{raw, reply};
use serde::Serialize;
use serde_json::value::RawValue;

/// The word for a state.
pub fn word(state: State) -> &'static str {
    match state {
        State::Scheduled | State::Pending | State::Retrying => "pending",
        State::Running | State::Cancelling => "processing",
        State::Succeeded => "completed",
        State::Failed | State::Expired => "failed",
        State::Cancelled => "cancelled",
    }
}

/// What has just been started.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    job_id: String,
    status: &'static str,
    message: String,
}

impl Started {
    /// The answer to a start.
    pub fn new(started: &engine::Started) -> Self {
        let job = &started.snapshot.job;
        let when = if started.repeated { "was started before" } else { "was accepted" };
        let message = format!("the job {when}; its status is at /ai/status/{}", job.id);
        Self { job_id: job.id.to_string(), status: word(job.state), message }
    }
}

/// What a cancellation came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    job_id: String,
    status: &'static str,
    message: &'static str,
}

impl Cancelled {
    /// The answer to a cancellation.
    pub fn new(snapshot: &Snapshot) -> Self {
        let job = &snapshot.job;
        let message = match job.state {
            State::Cancelled => "the job is cancelled",
            State::Succeeded | State::Failed | State::Expired => {
                "the job had ended before, and stays as it ended"
            }
            State::Scheduled | State::Pending | State::Retrying | State::Running | State::Cancelling => {
                "the job is asked to stop"
            }
        };
        Self { job_id: job.id.to_string(), status: word(job.state), message }
    }
}

/// A page of jobs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Jobs {
    /// The jobs, newest first.
    pub jobs: Vec<Box<RawValue>>,
    /// Where the list goes on; empty where it does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_page_token: String,
}

/// A job as it is now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status<'a> {
    job_id: String,
    status: &'static str,
    progress: Progress<'a>,
    result: Option<&'a RawValue>,
    error: Option<String>,
    created_at: String,
    updated_at: String,
    duration: u64,
}

#[derive(Debug, Serialize)]
struct Progress<'a> {
    percent: u8,
    message: &'a str,
}

impl<'a> Status<'a> {
    /// A job as it is at this time.
    pub fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let job = &snapshot.job;
        let is_failed = matches!(job.state, State::Failed | State::Expired);
        let updated = job.update_time().max(snapshot.live.progress.report_time.unwrap_or_default());
        let time = |time| reply::timestamp(time).to_string();
        Self {
            job_id: job.id.to_string(),
            status: word(job.state),
            progress: Progress { percent: percent(snapshot), message: stage(snapshot) },
            result: snapshot.result.as_deref().and_then(raw::text),
            // A client takes an error for the end, and an attempt that is followed by another is none.
            error: job.failure.as_ref().filter(|_| is_failed).map(told),
            created_at: time(job.create_time),
            updated_at: time(updated),
            // From creation to the end, or until now, in milliseconds.
            duration: job.end_time.unwrap_or(now).since(job.create_time).as_millis() as u64,
        }
    }

    /// Its JSON text.
    pub fn text(&self) -> Box<RawValue> {
        raw::write(self)
    }
}

/// A failure in a line.
pub fn told(failure: &Failure) -> String {
    match failure.message.is_empty() {
        true => failure.reason.to_string(),
        false => format!("{}: {}", failure.reason, failure.message),
    }
}

/// The fraction that is done; none before the first attempt, and where nobody can tell.
pub fn fraction(snapshot: &Snapshot) -> Option<f64> {
    reply::shown_progress(&snapshot.job, &snapshot.live.progress)?.fraction
}

/// How far a job is. Whoever waits for 100 waits for the end.
fn percent(snapshot: &Snapshot) -> u8 {
    let most = if snapshot.job.state.is_final() { 100 } else { 99 };
    // By way of millionths: 0.29 is a little less than 29 hundredths.
    let millionths = (fraction(snapshot).unwrap_or(0.0) * 1e6).round() as u32;
    (millionths / 10_000).min(most) as u8
}

/// What is being done, or was done last.
pub fn stage(snapshot: &Snapshot) -> &str {
    match snapshot.job.emitted.stage.as_str() {
        "" => &snapshot.live.progress.stage,
        stage => stage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::{at, snapshot};
    use serde_json::json;

    fn shown(snapshot: &Snapshot) -> serde_json::Value {
        serde_json::from_str(Status::new(snapshot, at(12.5)).text().get()).unwrap()
    }

    #[test]
    fn a_job_that_waits_has_every_field() {
        let snapshot = snapshot();

        assert_eq!(
            shown(&snapshot),
            json!({
                "jobId": snapshot.job.id.to_string(),
                "status": "pending",
                "progress": {"percent": 0, "message": ""},
                "result": null,
                "error": null,
                "createdAt": "2026-01-01T00:00:10Z",
                "updatedAt": "2026-01-01T00:00:10Z",
                "duration": 2_500,
            })
        );
    }

    #[test]
    fn a_job_that_runs_shows_how_far_it_is() {
        let mut snapshot = snapshot();
        snapshot.job.state = State::Running;
        snapshot.job.attempt = 1;
        snapshot.job.emitted.stage = "Counting".to_owned();
        snapshot.live.progress.fraction = Some(0.29);
        snapshot.live.progress.report_time = Some(at(12.25));

        let shown = shown(&snapshot);

        assert_eq!(shown["progress"], json!({"percent": 29, "message": "Counting"}));
        assert_eq!(shown["updatedAt"], "2026-01-01T00:00:12.250Z");
    }

    #[test]
    fn a_hundred_percent_is_the_end() {
        let mut snapshot = snapshot();
        (snapshot.job.state, snapshot.job.attempt) = (State::Running, 1);
        let mut percent = |state, fraction| {
            snapshot.job.state = state;
            snapshot.live.progress.fraction = Some(fraction);
            percent(&snapshot)
        };

        for (fraction, shown) in [(0.0, 0), (0.29, 29), (0.57, 57), (0.576, 57), (0.995, 99), (1.0, 99)] {
            assert_eq!(percent(State::Running, fraction), shown, "{fraction}");
        }
        assert_eq!(percent(State::Cancelling, 1.0), 99);
        assert_eq!(percent(State::Retrying, 1.0), 99);
        assert_eq!(percent(State::Failed, 0.999), 99);
        assert_eq!(percent(State::Succeeded, 0.5), 100);
    }

    #[test]
    fn a_result_is_shown_byte_for_byte() {
        let mut snapshot = snapshot();
        let result = r#"{"n" : 9007199254740993, "x": 1.50}"#;
        (snapshot.job.state, snapshot.job.attempt) = (State::Succeeded, 1);
        snapshot.job.end_time = Some(at(11.0));
        snapshot.result = Some(result.into());

        let text = Status::new(&snapshot, at(12.5)).text();

        assert!(text.get().contains(&format!("\"result\":{result},")), "{text}");
        assert!(
            text.get().contains(r#""percent":100"#) && text.get().ends_with(r#""duration":1000}"#),
            "{text}"
        );
    }

    #[test]
    fn only_an_end_has_an_error() {
        let mut snapshot = snapshot();
        snapshot.job.failure = Some(Failure::new("HANDLER_ERROR", "too bad"));
        let mut error = |state| {
            snapshot.job.state = state;
            shown(&snapshot)["error"].clone()
        };

        assert_eq!(error(State::Retrying), json!(null));
        assert_eq!(error(State::Failed), json!("HANDLER_ERROR: too bad"));
        assert_eq!(error(State::Expired), json!("HANDLER_ERROR: too bad"));
    }

    #[test]
    fn every_state_has_a_word() {
        let words: Vec<&str> = State::ALL.into_iter().map(word).collect();

        let (waits, runs) = ("pending", "processing");
        assert_eq!(words, [waits, waits, runs, waits, runs, "completed", "failed", "cancelled", "failed"]);
    }
}
