//! Somebody who watches a group of jobs: in the end what is shown is what a list says.

use crate::client::{Client, Told, in_group};
use longhaul::proto::watch_jobs_response::Event;
use longhaul::proto::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The jobs of a group as they were shown: the state and the sequence of each.
#[derive(Default)]
pub struct Shown {
    jobs: BTreeMap<String, (i32, i64)>,
    /// Those that were told of since the last sync.
    fresh: BTreeSet<String>,
    pub synced: bool,
}

impl Shown {
    fn take(&mut self, event: Event) {
        match event {
            Event::Job(job) => {
                self.fresh.insert(job.id.clone());
                self.jobs.insert(job.id.clone(), (job.state, job.sequence));
            }
            Event::Departed(job) => {
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
    /// Watches the jobs of a group, for ever.
    pub async fn watch_group(self, group: u64, shown: Arc<Mutex<Shown>>) {
        let filter = Some(in_group(&group.to_string()));
        let request = WatchJobsRequest { filter, initial_jobs: 1_000, ..Default::default() };
        loop {
            shown.lock().synced = false;
            shown.lock().fresh.clear();
            if let Told::Is(mut stream) = self.call(self.stub.clone().watch_jobs(request.clone())).await {
                while let Ok(Some(message)) = stream.message().await {
                    if let Some(event) = message.event {
                        shown.lock().take(event);
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
