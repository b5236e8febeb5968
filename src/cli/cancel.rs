//! `longhaul cancel`: asks that jobs stop.

use super::connect::{Connect, call};
use super::each::each;
use super::text::print_line;
use super::times::Time;
use super::times::{brief, length};
use super::view::is_final;
use crate::proto::job::State;
use crate::proto::{CancelJobRequest, Job};
use crate::wire::canonical::canonical_json;
use clap::Args;
use std::process::ExitCode;

/// Cancel jobs
///
/// A job that waits is CANCELLED at once. One that runs is told so and is CANCELLING until its worker lets go or the grace period
/// is over. Either way it cannot succeed any more. A job that has ended stays as it is.
///
/// It exits with 0 if every job is cancelled or has ended, and with 2 if there is no such job.
///
/// Example: longhaul cancel 0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11 --reason "asked the wrong question"
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Cancel {
    /// The tickets
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,
    /// Why, for the history of the job
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    /// How long a worker may take to let go, for example 1m [default: the server's, which is 10s]
    #[arg(long, value_name = "TIME")]
    grace: Option<Time>,
    #[command(flatten)]
    connect: Connect,
}

impl Cancel {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.connect.client().await?;
        let grace_period = self.grace.map(|Time(time)| prost_types::Duration::try_from(time)).transpose()?;
        each(&self.jobs, async |job| {
            let request =
                CancelJobRequest { job_id: job.to_owned(), reason: self.reason.clone(), grace_period };
            let job = client.clone().cancel_job(call(request)).await?.into_inner();
            Ok(print_line(&match self.connect.json {
                true => canonical_json(&job),
                false => outcome(&job, grace_period.as_ref()),
            })?)
        })
        .await
    }
}

/// What became of a job.
fn outcome(job: &Job, grace: Option<&prost_types::Duration>) -> String {
    let Job { id, .. } = job;
    match job.state() {
        State::Cancelled => format!("{id} is CANCELLED"),
        State::Cancelling => {
            let within = grace.map_or("soon".to_owned(), |grace| format!("within {}", brief(length(grace))));
            format!("{id} is CANCELLING: it ends when its worker lets go, or else by force, {within}")
        }
        state if is_final(state) => format!("{id} had ended already: {}", state.as_str_name()),
        state => format!("{id} is {}", state.as_str_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_job_is_told() {
        let grace = prost_types::Duration { seconds: 90, nanos: 0 };
        let job = |state: State| Job { id: "j".to_owned(), state: state.into(), ..Default::default() };

        assert_eq!(outcome(&job(State::Cancelled), None), "j is CANCELLED");
        assert_eq!(outcome(&job(State::Failed), None), "j had ended already: FAILED");
        assert!(outcome(&job(State::Cancelling), Some(&grace)).ends_with("within 1m30s"));
    }
}
