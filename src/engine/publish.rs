//! What follows from a commit, once it is durable: doorbells ring, idle workers wake, leases take note.

use super::commit::Publish;
use super::{Batch, Shared, claims};
use crate::job::{Event, Job, Live, Place};
use crate::store::{Claimed, Forgotten, Outcome, Submitted};
use std::sync::Arc;

/// Publishes for an engine.
pub struct Publisher(pub Arc<Shared>);

impl Publish for Publisher {
    fn publish(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Submit(Ok(submitted)) => {
                for submitted in submitted {
                    self.submitted(submitted);
                }
            }
            Outcome::Retry(Ok(submitted)) => self.submitted(submitted),
            Outcome::Claim(dealt) => {
                for claimed in &dealt.claimed {
                    self.claimed(claimed);
                }
            }
            Outcome::Apply(Ok(step)) => self.moved(&step.job, &step.events),
            Outcome::Sweep(swept) => {
                for step in &swept.transitions {
                    self.moved(&step.job, &step.events);
                }
                if let Some(due) = swept.next_due {
                    self.0.sweeper.due(due);
                }
            }
            Outcome::Delete(Ok(forgotten)) => {
                self.forgotten(forgotten);
                // More of it may be left.
                self.0.pruner.poke();
            }
            Outcome::Prune(pruned) => {
                pruned.forgotten.iter().for_each(|forgotten| self.forgotten(forgotten));
                if let Some(due) = pruned.next_due {
                    self.0.pruner.due(due);
                }
            }
            Outcome::Submit(Err(_))
            | Outcome::Retry(Err(_))
            | Outcome::Apply(Err(_))
            | Outcome::Delete(Err(_))
            | Outcome::KeepLive
            | Outcome::Probe => {}
        }
    }

    fn committed(&self, batch: Batch) {
        self.0.settings.observers.tell(|observer| observer.committed(batch));
    }

    fn failed(&self, batch: Batch) {
        self.0.settings.observers.tell(|observer| observer.failed(batch));
    }

    fn unknown(&self) {
        // What it has made due, nobody was told.
        self.0.sweeper.poke();
        self.0.adopt.notify_one();
        self.0.changes.lose();
        claims::look_again(&self.0);
    }
}

impl Publisher {
    fn submitted(&self, submitted: &Submitted) {
        if let Submitted::Created(job) = submitted {
            self.0.settings.observers.tell(|observer| observer.created(job));
            self.0.changes.created(job);
            self.lies(job);
        }
    }

    fn forgotten(&self, forgotten: &Forgotten) {
        self.0.hub.compare(forgotten.job.id, None);
        self.0.changes.forgotten(forgotten);
    }

    fn claimed(&self, claimed: &Claimed) {
        let shared = &self.0;
        let job = &claimed.snapshot.job;
        let now = shared.clock.now();
        shared.leases.insert(job, Live::default(), now);
        shared.queues.taken(job, now);
        self.moved(job, &claimed.events);
    }

    fn moved(&self, job: &Job, events: &[Event]) {
        let shared = &self.0;
        shared.settings.observers.tell(|observer| observer.moved(job, events));
        shared.leases.follow(job, shared.clock.now());
        if !events.is_empty() {
            shared.hub.publish(job, events);
            shared.changes.moved(job, events);
        }
        self.lies(job);
    }

    /// Somebody may want to know where a job lies now.
    fn lies(&self, job: &Job) {
        match job.place() {
            Place::Ready => {
                if let Some(round) = self.0.dispatch.hint(&job.kind) {
                    claims::claim(&self.0, round);
                }
            }
            // Its key may have a place for it, or the place that it has left may be for another.
            Place::Blocked => self.0.sweeper.poke(),
            Place::Waiting | Place::Done if job.options.concurrency.is_some() => self.0.sweeper.poke(),
            Place::Waiting | Place::Done | Place::Held => {}
        }
        if let Some(due) = job.next_due() {
            self.0.sweeper.due(due);
        }
        if let Some(purge) = job.purge_time() {
            self.0.pruner.due(purge);
        }
    }
}
