//! What a worker says: who it is, how far it has come, what it has made, how it ended.

use super::check::Check;
use super::filter::checked_kinds;
use super::json;
pub use super::request::Violations;
use super::request::duration;
use super::status;
use crate::engine::{Frame, Report, Worker};
use crate::job::limits::*;
use crate::job::{Failure, LeaseToken, Metrics, Violation, check_labels};
use crate::proto::{self, complete_job_request::Outcome, work_request::Hello};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How many jobs one call takes.
const JOBS_MAX: i32 = 100;
/// How many kinds a worker may run; a claim looks for each of them.
const KINDS_MAX: usize = 100;
/// How long a call waits for one.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a lease may last without a sign of its holder, where the worker asks for it.
const TERM: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How many leases one heartbeat renews.
const REPORTS_MAX: usize = 1_000;
/// How many leases a worker may bring from an earlier stream.
const TOKENS_MAX: usize = 10_000;
/// How many slots a worker may have.
const SLOTS_MAX: i32 = 10_000;
/// How many lines of a log come at once.
const LINES_MAX: usize = 1_000;

/// A lease to renew.
#[derive(Debug)]
pub struct Renewal {
    /// What is said of it.
    pub report: Report,
    /// What of that is not valid, for which none of it is taken; empty where all is.
    pub refused: String,
}

/// A call for work.
#[derive(Debug)]
pub struct Wanted {
    /// Who calls.
    pub worker: Worker,
    /// How many jobs it wants at most.
    pub jobs: usize,
    /// How long it waits for the first.
    pub wait: Duration,
}

/// How a worker says that it is done.
#[derive(Debug)]
pub struct Completion {
    /// The lease.
    pub token: LeaseToken,
    /// What the job returns, as JSON text.
    pub result: Bytes,
    /// The last measurements.
    pub metrics: Metrics,
    /// How much output there is.
    pub output_bytes: Option<u64>,
}

/// How a worker says that it failed.
#[derive(Debug)]
pub struct Failed {
    /// The lease.
    pub token: LeaseToken,
    /// What went wrong; none where it stopped as it was asked to.
    pub failure: Option<Failure>,
    /// The shortest wait before the next attempt.
    pub retry_delay: Option<Duration>,
}

/// How a worker gives a job back.
#[derive(Debug)]
pub struct Release {
    /// The lease.
    pub token: LeaseToken,
    /// Why.
    pub reason: String,
    /// Not before this has passed.
    pub delay: Duration,
}

/// Who wants how many jobs.
pub fn wanted(request: proto::LeaseJobsRequest) -> Result<Wanted, Violations> {
    let mut check = Check::default();
    let worker = worker(&mut check, request.worker_id, request.kinds);
    let jobs = if request.max_jobs == 0 { 1 } else { request.max_jobs };
    check.that((1..=JOBS_MAX).contains(&jobs), "max_jobs", || {
        format!("it is {jobs}; it must be from 1 to {JOBS_MAX}")
    });
    let wait = check.take(duration(request.wait, "wait", WAIT_MAX)).flatten();
    let term = check.take(duration(request.lease_duration, "lease_duration", TERM.1)).flatten();
    check.that(term.is_none_or(|term| term >= TERM.0), "lease_duration", || {
        format!("it must be at least {} s", TERM.0.as_secs())
    });
    check.done(|| Wanted {
        worker: Worker { term, ..worker },
        jobs: jobs as usize,
        wait: wait.unwrap_or_default(),
    })
}

/// Who comes with which leases.
pub fn hello(hello: Hello) -> Result<(Worker, Vec<LeaseToken>), Violations> {
    let mut check = Check::default();
    let worker = worker(&mut check, hello.worker_id, hello.kinds);
    let tokens = &hello.lease_tokens;
    check.at_most("lease_tokens", tokens.len(), TOKENS_MAX, "leases");
    let tokens = tokens.iter().take(TOKENS_MAX).enumerate();
    let tokens: Vec<_> = tokens
        .filter_map(|(index, text)| check.take(token(text, &format!("lease_tokens[{index}]"))))
        .collect();
    check.take(check_labels(&hello.labels));
    check.done(|| (worker, tokens))
}

fn worker(check: &mut Check, name: String, kinds: Vec<String>) -> Worker {
    check.that(!name.is_empty(), "worker_id", || "worker_id is required".to_owned());
    check.characters("worker_id", &name, WORKER_ID_CHARACTERS_MAX);
    check.that(!kinds.is_empty(), "kinds", || "at least one kind is required".to_owned());
    // In order, so that all who can run the same are one group.
    let kinds: Arc<[String]> =
        check.take(checked_kinds(kinds, "kinds", KINDS_MAX)).unwrap_or_default().into();
    Worker { name, kinds, in_process: false, term: None }
}

/// How many slots are free, when how many assignments had come.
pub fn credit(credit: proto::work_request::Credit, sent: u64) -> Result<usize, Violations> {
    let proto::work_request::Credit { free_slots, received } = credit;
    let mut check = Check::default();
    check.that((0..=SLOTS_MAX).contains(&free_slots), "credit.free_slots", || {
        format!("it is {free_slots}; it must be from 0 to {SLOTS_MAX}")
    });
    let known = u64::try_from(received).ok().filter(|received| *received <= sent);
    check.that(known.is_some(), "credit.received", || {
        format!("it is {received}; this stream has brought {sent}")
    });
    let on_their_way = usize::try_from(sent - known.unwrap_or(0)).unwrap_or(usize::MAX);
    check.done(|| (free_slots.max(0) as usize).saturating_sub(on_their_way))
}

/// The lease that a report is about.
pub fn token(text: &str, field: &str) -> Result<LeaseToken, Violations> {
    match text.is_empty() {
        true => Err(vec![Violation::new(field, "a lease token is required")]),
        false => text.parse().map_err(|error| vec![Violation::new(field, format!("{error}"))]),
    }
}

/// The leases to renew. Refused is only what names no leases, or too many.
pub fn heartbeat(request: proto::HeartbeatRequest) -> Result<Vec<Renewal>, Violations> {
    let mut check = Check::default();
    check.at_most("reports", request.reports.len(), REPORTS_MAX, "reports");
    let reports = request.reports.into_iter().take(REPORTS_MAX).enumerate();
    let renewals: Vec<_> = reports
        .filter_map(|(index, report)| {
            let token = token(&report.lease_token, &format!("reports[{index}].lease_token"));
            check.take(token).map(|token| renewal(token, report))
        })
        .collect();
    check.done(|| renewals)
}

fn renewal(token: LeaseToken, report: proto::Report) -> Renewal {
    let mut check = Check::default();
    let progress = report.progress.map(|progress| check.progress(progress));
    check.metrics(&report.metrics);
    match check.done(|| Report { token, progress, metrics: report.metrics }) {
        Ok(report) => Renewal { report, refused: String::new() },
        Err(violations) => Renewal {
            report: Report { token, progress: None, metrics: Metrics::new() },
            refused: status::invalid(violations).message().to_owned(),
        },
    }
}

/// A piece of output.
pub fn frame(request: proto::AppendOutputRequest) -> Result<(LeaseToken, Frame), Violations> {
    let token = token(&request.lease_token, "lease_token");
    match (token, frame_of(request)) {
        (Ok(token), Ok(frame)) => Ok((token, frame)),
        (Ok(_), Err(violations)) | (Err(violations), Ok(_)) => Err(violations),
        (Err(violations), Err(others)) => Err([violations, others].concat()),
    }
}

/// The same, of a lease that is known.
pub fn frame_of(request: proto::AppendOutputRequest) -> Result<Frame, Violations> {
    let mut check = Check::default();
    check.at_most("data", request.data.len(), OUTPUT_FRAME_BYTES_MAX, "bytes");
    check.characters("channel", &request.channel, CHANNEL_CHARACTERS_MAX);
    check.at_most("logs", request.logs.len(), LINES_MAX, "lines");
    let offset = check.count("offset", request.offset);
    let reset_to = request.reset_to.map(|offset| check.count("reset_to", offset));
    let line_offset = check.count("log_offset", request.log_offset);
    let lines = request.logs.into_iter().take(LINES_MAX).enumerate();
    let lines: Vec<_> = lines.filter_map(|(index, line)| check.line(index, line)).collect();
    let checkpoint = request.checkpoint.map(|checkpoint| check.checkpoint(checkpoint));
    check.done(|| Frame {
        channel: request.channel,
        reset_to,
        offset,
        data: request.data,
        line_offset,
        lines,
        checkpoint,
    })
}

/// A job that is done.
pub fn completion(request: proto::CompleteJobRequest) -> Result<Completion, Violations> {
    let mut check = Check::default();
    let token = check.take(token(&request.lease_token, "lease_token"));
    let (field, result) = match request.outcome {
        None => ("result", "null".to_owned()),
        Some(Outcome::Result(value)) => {
            let text = json::from_value(&value, "result").map_err(|violation| vec![violation]);
            ("result", check.take(text).unwrap_or_default())
        }
        Some(Outcome::ResultJson(text)) => {
            if text.len() <= RESULT_BYTES_MAX {
                check.take(json::check(&text, "result_json").map_err(|violation| vec![violation]));
            }
            ("result_json", text)
        }
    };
    check.at_most(field, result.len(), RESULT_BYTES_MAX, "bytes");
    check.metrics(&request.metrics);
    let output_bytes = request.output_bytes.map(|bytes| check.count("output_bytes", bytes));
    let metrics = request.metrics;
    match token {
        Some(token) => check.done(|| Completion { token, result: result.into(), metrics, output_bytes }),
        None => Err(check.found),
    }
}

/// A job that failed.
pub fn failed(request: proto::FailJobRequest) -> Result<Failed, Violations> {
    let mut check = Check::default();
    let token = check.take(token(&request.lease_token, "lease_token"));
    let failure = request.failure.map(|failure| check.failure(failure));
    let retry_delay = check.delay("retry_delay", request.retry_delay);
    match token {
        Some(token) => check.done(|| Failed { token, failure, retry_delay }),
        None => Err(check.found),
    }
}

/// A job that is given back.
pub fn release(request: proto::ReleaseJobRequest) -> Result<Release, Violations> {
    let mut check = Check::default();
    let token = check.take(token(&request.lease_token, "lease_token"));
    check.characters("reason", &request.reason, MESSAGE_CHARACTERS_MAX);
    let delay = check.delay("delay", request.delay).unwrap_or_default();
    match token {
        Some(token) => check.done(|| Release { token, reason: request.reason, delay }),
        None => Err(check.found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;
    use rstest::rstest;

    fn text() -> String {
        LeaseToken { job: JobId::default(), epoch: 1, secret: 2 }.to_string()
    }

    fn fields<T>(result: Result<T, Violations>) -> Vec<String> {
        result.err().unwrap_or_default().into_iter().map(|violation| violation.field).collect()
    }

    #[rstest]
    #[case(|r: &mut proto::Report| r.progress = Some(proto::Progress { stage: "s".repeat(129), ..Default::default() }), "progress.stage")]
    #[case(|r: &mut proto::Report| r.progress = Some(proto::Progress { completed: -1, ..Default::default() }), "progress.completed")]
    #[case(|r: &mut proto::Report| r.progress = Some(proto::Progress { fraction: Some(f64::NAN), ..Default::default() }), "progress.fraction")]
    #[case(|r: &mut proto::Report| r.metrics = [("x".into(), f64::INFINITY)].into(), "metrics")]
    fn what_is_wrong_with_a_report_is_named_and_costs_no_lease(
        #[case] spoil: fn(&mut proto::Report),
        #[case] field: &str,
    ) {
        let mut report = proto::Report { lease_token: text(), ..Default::default() };
        spoil(&mut report);

        let renewal = heartbeat(proto::HeartbeatRequest { reports: vec![report] }).unwrap().remove(0);

        assert!(renewal.refused.starts_with(&format!("{field}: ")), "{}", renewal.refused);
        assert_eq!(renewal.report.token.to_string(), text());
        assert!(renewal.report.progress.is_none() && renewal.report.metrics.is_empty());
    }

    #[test]
    fn what_names_no_lease_is_refused_by_its_place() {
        let report = |lease_token: String| proto::Report { lease_token, ..Default::default() };
        let reports = vec![report(text()), report("x".into()), report(String::new())];

        let refused = heartbeat(proto::HeartbeatRequest { reports });

        assert_eq!(fields(refused), ["reports[1].lease_token", "reports[2].lease_token"]);
    }

    #[test]
    fn a_worker_comes_back_with_so_many_leases() {
        let back = |leases: usize| {
            let (worker_id, kinds) = ("worker".to_owned(), vec!["kind".to_owned()]);
            hello(Hello { worker_id, kinds, lease_tokens: vec![text(); leases], ..Default::default() })
        };

        assert_eq!(back(TOKENS_MAX).unwrap().1.len(), 10_000);
        assert_eq!(fields(back(TOKENS_MAX + 1)), ["lease_tokens"]);
    }

    #[test]
    fn credit_takes_off_what_is_on_its_way() {
        let free =
            |free_slots, received, sent| credit(proto::work_request::Credit { free_slots, received }, sent);

        assert_eq!(free(8, 0, 0), Ok(8));
        assert_eq!(free(8, 3, 5), Ok(6));
        assert_eq!(free(1, 0, 5), Ok(0));
        assert_eq!(free(SLOTS_MAX, 0, 0), Ok(10_000));
        assert_eq!(fields(free(SLOTS_MAX + 1, 0, 0)), ["credit.free_slots"]);
        assert_eq!(fields(free(-1, 0, 0)), ["credit.free_slots"]);
        assert_eq!(fields(free(1, 6, 5)), ["credit.received"]);
        assert_eq!(fields(free(1, -1, 5)), ["credit.received"]);
    }

    #[test]
    fn a_result_is_any_json_and_null_where_there_is_none() {
        let result = |outcome| {
            let request = proto::CompleteJobRequest { lease_token: text(), outcome, ..Default::default() };
            completion(request).map(|completion| completion.result)
        };

        assert_eq!(result(None).unwrap(), "null");
        assert_eq!(result(Some(Outcome::ResultJson(" [1] ".into()))).unwrap(), " [1] ");
        assert_eq!(fields(result(Some(Outcome::ResultJson("[1".into())))), ["result_json"]);
        assert_eq!(fields(result(Some(Outcome::ResultJson(" ".repeat(2 << 20))))), ["result_json"]);
    }

    #[test]
    fn a_failure_without_a_reason_has_a_general_one() {
        let fail = |reason: &str| {
            let failure = Some(proto::Failure { reason: reason.into(), ..Default::default() });
            failed(proto::FailJobRequest { lease_token: text(), failure, retry_delay: None })
        };

        assert_eq!(fail("").unwrap().failure.unwrap().reason, "HANDLER_ERROR");
        assert_eq!(fields(fail("rate limit")), ["failure.reason"]);
    }
}
