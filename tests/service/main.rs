//! JobService over the wire, one file for each method, and WorkerService: a server in this process, tonic's client.

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "not every fault of a store is of interest here")]
#[path = "../engine/hostile.rs"]
mod hostile;

mod batch_start_jobs;
mod cancel_job;
mod checkpoints;
mod churn;
mod count_jobs;
mod delete_job;
mod figures;
mod get_status;
mod list_job_events;
mod list_jobs;
mod output;
mod queue;
mod remote;
mod retry_job;
mod sessions;
mod shutdown;
mod stalled_store;
mod start_job;
mod watch_job;
mod watch_jobs;
mod workers;
