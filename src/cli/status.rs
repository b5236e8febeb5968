//! `longhaul status`: a job as it is now.

use super::connect::{Connect, call};
use super::text::{one_line, print_line};
use super::times::{fine, length};
use super::view::is_final;
use crate::proto::{GetStatusRequest, Job};
use crate::wire::canonical::{canonical_json, json_value};
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Show a job as it is now
///
/// Example: longhaul status 0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Status {
    /// The ticket
    job: String,
    #[command(flatten)]
    connect: Connect,
}

impl Status {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.connect.client().await?;
        let request = GetStatusRequest { job_id: self.job, ..Default::default() };
        let job = client.get_status(call(request)).await?.into_inner();
        print_line(&match self.connect.json {
            true => canonical_json(&job),
            false => summary(&job),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A job for people, a line for each thing that there is to say.
fn summary(job: &Job) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<10}{}", one_line(value));
    };
    line("job", &job.id);
    line("kind", &job.kind);
    line("state", job.state().as_str_name());
    if job.attempt > 0 {
        let of = job.options.as_ref().and_then(|options| options.retry_policy.as_ref());
        let of = of.map_or(String::new(), |policy| format!(" (at most {})", policy.maximum_attempts));
        line("attempt", &format!("{}{of}", job.attempt));
    }
    if let Some(progress) = job.progress.as_ref().filter(|_| !is_final(job.state())) {
        let percent = progress.fraction.map(|fraction| format!("{:.0} %", fraction * 100.0));
        let parts: Vec<String> = percent
            .into_iter()
            .chain(Some(progress.stage.clone()).filter(|stage| !stage.is_empty()))
            .collect();
        if !parts.is_empty() {
            line("progress", &parts.join("  "));
        }
    }
    if !job.worker_id.is_empty() {
        line("worker", &job.worker_id);
    }
    for (name, value) in &job.labels {
        line("label", &format!("{name}={value}"));
    }
    for (name, time) in [
        ("created", &job.create_time),
        ("started", &job.start_time),
        ("next", &job.next_attempt_time),
        ("ended", &job.end_time),
        ("kept to", &job.purge_time),
    ] {
        if let Some(time) = time {
            line(name, &time.to_string());
        }
    }
    for (name, duration) in [("waited", &job.queue_duration), ("ran", &job.run_duration)] {
        if let Some(duration) = duration {
            line(name, &fine(length(duration)));
        }
    }
    if let Some(failure) = &job.failure {
        line("failure", &format!("{}: {}", failure.reason, failure.message));
    }
    if let Some(result) = &job.result {
        line("result", &json_value(result));
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::job::State;
    use crate::proto::{Failure, Progress};

    #[test]
    fn a_summary_says_what_there_is_to_say_and_no_more() {
        let mut job =
            Job { id: "ticket".to_owned(), kind: "work".to_owned(), attempt: 2, ..Default::default() };
        job.set_state(State::Retrying);
        job.progress =
            Some(Progress { fraction: Some(0.25), stage: "Reading".to_owned(), ..Default::default() });
        job.failure =
            Some(Failure { reason: "PANIC".to_owned(), message: "oh".to_owned(), ..Default::default() });

        let lines = summary(&job);

        assert_eq!(
            lines,
            "job       ticket\nkind      work\nstate     RETRYING\nattempt   2\nprogress  25 %  Reading\nfailure   PANIC: oh"
        );
    }
}
