//! JobService over the wire: a server in this process, tonic's client, one file for each method.

#[path = "../support/mod.rs"]
mod support;

mod cancel_job;
mod get_status;
mod list_job_events;
mod list_jobs;
mod output;
mod shutdown;
mod start_job;
mod watch_job;
