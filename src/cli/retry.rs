//! `longhaul retry`: starts a job anew that has ended.

use super::connect::{Connect, call};
use super::start::started;
use super::watch::Patience;
use crate::proto::RetryJobRequest;
use clap::Args;
use std::process::ExitCode;

/// Start a job again that has ended, and print the new ticket
///
/// The new job has the kind, input, options and labels of the old one, which stays as it ended.
///
/// It exits with 1 if the job has not ended, or, with --watch, if the new one does not succeed; with 2 if there is no such job.
///
/// Example: longhaul retry 0199a6d0-3c6a-7c5e-9d1b-5a8f0f6f2c11 --watch
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct Retry {
    /// The ticket
    job: String,
    /// Start at most one job under this id, however often the command is repeated
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
    /// Watch the new job to its end
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    patience: Patience,
}

impl Retry {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.connect.client().await?;
        let request = RetryJobRequest { job_id: self.job, request_id: self.request_id };
        let job = client.retry_job(call(request)).await?.into_inner();
        started(client, &job, self.watch, &self.connect, self.patience).await
    }
}
