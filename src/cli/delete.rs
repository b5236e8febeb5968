//! `longhaul delete`: forgets jobs that have ended.

use super::connect::{Connect, call};
use super::each::each;
use super::text::print_line;
use crate::proto::DeleteJobRequest;
use clap::Args;
use std::process::ExitCode;

/// Forget jobs that have ended
///
/// The job, its history, its output and its result are gone at once. The server does the same by itself once a job's retention is
/// over. A job that has not ended must be cancelled first.
///
/// It exits with 1 if a job has not ended, and with 2 if there is no such job.
///
/// Example: longhaul delete 0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Delete {
    /// The tickets
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,
    #[command(flatten)]
    connect: Connect,
}

impl Delete {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.connect.client().await?;
        each(&self.jobs, async |job| {
            client.clone().delete_job(call(DeleteJobRequest { job_id: job.to_owned() })).await?;
            // The answer is the empty message.
            Ok(print_line(&if self.connect.json { "{}".to_owned() } else { format!("{job} is forgotten") })?)
        })
        .await
    }
}
