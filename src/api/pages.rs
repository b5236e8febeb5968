//! Pages of jobs and of events, before anybody has turned them into messages.

use super::{JOBS_INLINE_MAX, PAGE_BYTES_MAX, aside};
use crate::engine::Listed;
use crate::job::{Event, JobId, Sequence, Snapshot};
use crate::wire::filter;
use tonic::Status;

/// A page of jobs.
#[derive(Debug)]
pub struct JobsPage {
    pub(super) listed: Listed,
    pub(super) fingerprint: u32,
    pub(super) has_payloads: bool,
}

/// A page of a job's kept events.
#[derive(Debug)]
pub struct EventsPage {
    /// The job.
    pub job: JobId,
    /// Its events, oldest first.
    pub events: Vec<Event>,
    /// The cursor of the next page, where there is one.
    pub next_after: Option<Sequence>,
}

impl JobsPage {
    /// The jobs as `show` shows them, which says how many bytes that takes, and the token of the next page. It ends early at
    /// the limit of bytes, with at least one job if there is one.
    pub async fn show<T: Send + 'static>(
        self,
        show: impl Fn(&Snapshot) -> (T, usize) + Send + 'static,
    ) -> Result<(Vec<T>, String), Status> {
        let much = self.has_payloads || self.listed.jobs.len() > JOBS_INLINE_MAX;
        aside(much, move || self.shown(show)).await
    }

    fn shown<T>(&self, show: impl Fn(&Snapshot) -> (T, usize)) -> (Vec<T>, String) {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        let mut next = self.listed.next;
        for snapshot in &self.listed.jobs {
            let (job, size) = show(snapshot);
            bytes += size;
            if bytes > PAGE_BYTES_MAX && !jobs.is_empty() {
                next = Some(snapshot.job.id.ordinal() + 1);
                break;
            }
            jobs.push(job);
        }
        let token = next.map(|before| filter::page_token(before, self.fingerprint));
        (jobs, token.unwrap_or_default())
    }
}
