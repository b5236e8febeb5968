//! Somebody who watches many jobs: in the end what is shown is what a list says.

use crate::client::{Called, Client};
use crate::ledger::{Ledger, Told};
use longhaul::proto::watch_jobs_response::Event;
use longhaul::proto::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Jobs as they were shown: the state and the sequence of each.
#[derive(Default)]
pub struct Shown {
    jobs: BTreeMap<String, (i32, i64)>,
    /// Those that were told of since the last sync.
    fresh: BTreeSet<String>,
    pub synced: bool,
    /// The last that the present stream has shown of each job.
    last: BTreeMap<String, i64>,
}

impl Shown {
    /// A job never goes back, whoever shows it.
    fn check(&mut self, job: &Job, ledger: &Ledger) {
        let last = self.last.insert(job.id.clone(), job.sequence).unwrap_or_default();
        ledger.demand(job.sequence >= last, || {
            format!("a watch of many goes back from {last} to {} of {}", job.sequence, job.id)
        });
        ledger.shown(&Told::default(), job);
    }

    fn take(&mut self, event: Event, ledger: &Ledger) {
        match event {
            Event::Job(job) => {
                self.fresh.insert(job.id.clone());
                self.check(&job, ledger);
                self.jobs.insert(job.id.clone(), (job.state, job.sequence));
            }
            Event::Departed(job) => {
                ledger.see("a job departs from a watch");
                self.check(&job, ledger);
                self.jobs.remove(&job.id);
            }
            Event::ForgottenJobId(job) => {
                self.jobs.remove(&job);
            }
            Event::Synced(_) => {
                let fresh = std::mem::take(&mut self.fresh);
                self.jobs.retain(|job, _| fresh.contains(job));
                self.synced = true;
            }
            Event::Keepalive(_) => {}
        }
    }

    /// What is not as `listed` has it.
    pub fn differs(&self, listed: &[Job]) -> Option<String> {
        let listed: BTreeMap<String, (i32, i64)> =
            listed.iter().map(|job| (job.id.clone(), (job.state, job.sequence))).collect();
        (self.jobs != listed).then(|| format!("shows {:?} where there is {listed:?}", self.jobs))
    }
}

impl Client {
    /// Watches the jobs that match, for ever.
    pub async fn watch_many(self, filter: JobFilter, shown: Arc<Mutex<Shown>>) {
        let request = WatchJobsRequest { filter: Some(filter), initial_jobs: 1_000, ..Default::default() };
        loop {
            {
                let mut shown = shown.lock();
                shown.synced = false;
                shown.fresh.clear();
                shown.last.clear();
            }
            if let Called::Is(mut stream) = self.call(self.stub.clone().watch_jobs(request.clone())).await {
                while let Ok(Some(message)) = stream.message().await {
                    if let Some(event) = message.event {
                        shown.lock().take(event, &self.ledger);
                    }
                    if self.network.is_stormy() && self.lots.one_in(30) {
                        tokio::time::sleep(self.lots.millis(100..1_500)).await;
                    }
                }
            }
            tokio::time::sleep(self.lots.millis(5..200)).await;
        }
    }
}
