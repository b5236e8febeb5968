//! What clients read: pages of jobs and of histories, and watches over every break.

use crate::client::{Called, Client, END, GROUPS, in_group};
use crate::view::View;
use longhaul::proto::job::State;
use longhaul::proto::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::Code;

impl Client {
    /// Lists jobs, page by page: whatever matched throughout is on exactly one page.
    pub async fn list(&self) {
        let wishes = self.ledger.wishes();
        let told = |ticket: &str| self.ledger.told(ticket);
        let succeeded = |ticket: &str| matches!(told(ticket).outcome, Some((State::Succeeded, _)));
        let group = self.lots.among(0..GROUPS + 1);
        let (filter, expected): (JobFilter, Vec<String>) = match group < GROUPS {
            true => {
                let group = group.to_string();
                let theirs = wishes.into_values().filter(|wish| wish.group == group);
                let tickets = theirs.filter_map(|wish| wish.ticket).collect();
                (in_group(&group), tickets)
            }
            false => {
                let tickets = wishes.into_values().filter_map(|wish| wish.ticket);
                let states = vec![State::Succeeded.into()];
                (
                    JobFilter { states, ..Default::default() },
                    tickets.filter(|ticket| succeeded(ticket)).collect(),
                )
            }
        };
        let Some(jobs) = self.all(filter.clone()).await else { return };
        let listed: BTreeSet<&String> = jobs.iter().map(|job| &job.id).collect();
        for ticket in &expected {
            let there = listed.contains(ticket) || told(ticket).may_be_gone;
            self.ledger.demand(there, || format!("{ticket} is not listed"));
        }
        self.ledger.demand(listed.len() == jobs.len(), || "a job is on two pages".into());
        let matches = |job: &Job| {
            filter.labels.iter().all(|(key, value)| job.labels.get(key) == Some(value))
                && (filter.states.is_empty() || filter.states.contains(&job.state))
        };
        self.ledger.demand(jobs.iter().all(matches), || "a list has what was not asked for".into());
        let order = |job: &Job| (job.create_time.map(|time| (time.seconds, time.nanos)), job.id.clone());
        let ordered = jobs.is_sorted_by(|newer, older| order(newer) > order(older));
        self.ledger.demand(ordered, || "a list is not in order".into());
    }

    /// All jobs that match, as far as they can be read.
    pub async fn all(&self, filter: JobFilter) -> Option<Vec<Job>> {
        let page_size = self.lots.among(1..9) as i32;
        let mut request = ListJobsRequest { filter: Some(filter), page_size, ..Default::default() };
        let mut jobs = Vec::new();
        loop {
            let page = match self.call(self.stub.clone().list_jobs(request.clone())).await {
                Called::Is(page) => page,
                Called::Refused(_) | Called::Unknown => return None,
            };
            self.ledger.demand(page.jobs.len() <= page_size as usize, || "a page is too long".into());
            jobs.extend(page.jobs);
            if page.next_page_token.is_empty() {
                return Some(jobs);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The whole history of a job.
    pub async fn history(&self, job_id: &str) -> Option<Vec<JobEvent>> {
        let page_size = self.lots.among(1..50) as i32;
        let mut request = ListJobEventsRequest { job_id: job_id.to_owned(), page_size, ..Default::default() };
        let mut events = Vec::new();
        loop {
            let page = match self.call(self.stub.clone().list_job_events(request.clone())).await {
                Called::Is(page) => page,
                Called::Refused(_) | Called::Unknown => return None,
            };
            events.extend(page.events);
            if page.next_after_sequence == 0 {
                return Some(events);
            }
            request.after_sequence = page.next_after_sequence;
        }
    }

    /// Watches a job over every break, to its end.
    pub async fn watch(self, job: String) {
        let from = match self.lots.among(0..3) {
            0 => None,
            _ => Some(0),
        };
        let slow = self.lots.one_in(6);
        let mut view = View::new(job.clone(), from, Arc::clone(&self.ledger));
        let followed = tokio::time::timeout(END, async {
            while !self.follow(&mut view, slow).await {
                tokio::time::sleep(self.lots.millis(5..300)).await;
            }
        });
        if followed.await.is_err() && !self.network.is_stormy() {
            self.ledger.blame(format!("{} still waits for the end of {job}", self.name));
        }
    }

    /// One stream of a watch; true where there is no more to come.
    async fn follow(&self, view: &mut View, slow: bool) -> bool {
        let minimum_interval = self.lots.one_in(2).then_some(prost_types::Duration::default());
        let request = WatchJobRequest {
            job_id: view.job.clone(),
            after_sequence: view.cursor,
            minimum_interval,
            ..Default::default()
        };
        let before = self.ledger.told(&view.job);
        let mut stream = match self.call(self.stub.clone().watch_job(request)).await {
            Called::Is(stream) => stream,
            Called::Refused(status) => {
                self.refused(&view.job, &status);
                return true;
            }
            Called::Unknown => return false,
        };
        view.begin(before);
        loop {
            match stream.message().await {
                Ok(Some(event)) => view.take(&event),
                Ok(None) => {
                    view.end();
                    return true;
                }
                Err(status) if status.code() == Code::Unavailable => return false,
                Err(status) => {
                    self.refused(&view.job, &status);
                    return true;
                }
            }
            if slow && self.lots.one_in(10) {
                tokio::time::sleep(self.lots.millis(500..8_000)).await;
            } else if self.network.is_stormy() && self.lots.one_in(60) {
                self.ledger.see("a watch is resumed in the middle");
                // It resumes from any message.
                return false;
            }
        }
    }
}
