//! What is said and heard on `Work`: leases, their reports and their ends.

use super::{Book, Held, Pages, Reports, refused};
use crate::engine::Order;
use crate::job::LeaseToken;
use crate::proto::{self, directive::Action, work_request, work_request::Message, work_response};
use crate::worker::remote::{Identity, messages};
use crate::worker::source::{Error, LeasedJob};
use std::time::Duration;
use tokio::sync::watch;

/// How many leases are named in a greeting; the first heartbeat names all.
const TOKENS_MAX: usize = 10_000;

impl Book {
    /// Waits until jobs are wanted.
    pub async fn is_wanted(&self) {
        loop {
            let to_say = self.to_say.notified();
            if self.pages.lock().kinds.is_some() {
                return;
            }
            to_say.await;
        }
    }

    /// Begins another stream: its number, and what it begins with. What was not answered on the last one is said again.
    pub fn begin_work(&self) -> (u64, proto::WorkRequest) {
        let mut pages = self.pages.lock();
        pages.forget();
        pages.work += 1;
        pages.received = 0;
        pages.credit_due = true;
        pages.drain_due = pages.draining;
        pages.idle_beat_due = false;
        pages.beating.clear();
        let Pages { held, speaking, .. } = &mut *pages;
        speaking.clear();
        for (token, held) in held.iter_mut() {
            // A lease that is named in the greeting is accepted with that.
            held.accept_due = false;
            held.changed |= held.reports.carrying;
            held.reports = Reports::default();
            held.beats = false;
            if let Some(end) = &mut held.end {
                end.sent = false;
            }
            held.speaks = true;
            speaking.push_back(*token);
        }
        let worked_on = pages.held.iter().filter(|(_, held)| !held.untaken).take(TOKENS_MAX);
        let lease_tokens = worked_on.map(|(token, _)| token.to_string()).collect();
        let Identity { worker_id, labels } = self.identity.clone();
        let kinds = pages.kinds.iter().flat_map(|kinds| kinds.iter().cloned()).collect();
        let hello = work_request::Hello { worker_id, kinds, lease_tokens, labels };
        let stream = pages.work;
        drop(pages);
        self.moved.notify_waiters();
        (stream, proto::WorkRequest { message: Some(Message::Hello(hello)) })
    }

    /// Lets the stream say nothing more.
    pub fn end_work(&self) {
        self.pages.lock().work += 1;
        self.to_say.notify_waiters();
    }

    /// The next message of a stream; none once it has ended.
    pub async fn next_message(&self, stream: u64) -> Option<proto::WorkRequest> {
        loop {
            let to_say = self.to_say.notified();
            {
                let mut pages = self.pages.lock();
                if pages.work != stream {
                    // It was meant for a later one.
                    self.to_say.notify_one();
                    return None;
                }
                if let Some(message) = pages.next_message() {
                    return Some(proto::WorkRequest { message: Some(message) });
                }
            }
            to_say.await;
        }
    }

    /// A heartbeat is due, for all leases that somebody works under.
    pub fn beat(&self) {
        let mut pages = self.pages.lock();
        pages.forget();
        pages.name(|_| true);
        // Also when idle, so that each side knows that the other is there.
        pages.idle_beat_due = pages.beating.is_empty();
        drop(pages);
        self.moved.notify_waiters();
        self.to_say.notify_one();
    }

    /// What has changed is to be reported.
    pub fn tell_changes(&self) {
        self.pages.lock().name(|held| held.changed && held.reports.stage.is_none());
        self.to_say.notify_one();
    }

    /// Waits until progress has changed.
    pub async fn reported(&self) {
        self.reported.notified().await;
    }

    /// Takes a job that was assigned; it is accepted with that.
    pub fn assign(&self, assignment: proto::Assignment) -> Result<(), &'static str> {
        let token: LeaseToken =
            assignment.lease_token.parse().map_err(|_| "an assignment has no lease token")?;
        let (orders, receiver) = watch::channel(Order::Continue);
        let assignment = messages::assignment(assignment).ok_or("an assignment has no job")?;
        let mut pages = self.pages.lock();
        pages.received += 1;
        pages.wanted = pages.wanted.saturating_sub(1);
        pages.held.insert(token, Held::new(orders, assignment.output_offset));
        if pages.draining || pages.resting {
            pages.give_back(&token);
        } else {
            pages.arrived.push_back(LeasedJob { assignment, token, orders: receiver });
            pages.speak(&token);
        }
        drop(pages);
        self.to_say.notify_one();
        self.arrived.notify_one();
        Ok(())
    }

    /// Does what the server wants of a lease.
    pub fn direct(&self, directive: proto::Directive) {
        let Ok(token) = directive.lease_token.parse::<LeaseToken>() else { return };
        let mut pages = self.pages.lock();
        let Some(held) = pages.held.get_mut(&token) else { return };
        match directive.action() {
            Action::Unspecified | Action::Renewed => {
                if !directive.reason.is_empty() {
                    tracing::warn!(job = %token.job, reason = directive.reason, "a report was not taken");
                }
                self.answer(&mut pages, &token);
            }
            Action::Cancel => {
                let grace = directive.grace.and_then(|grace| grace.try_into().ok());
                let grace = grace.unwrap_or(Duration::ZERO);
                held.orders.send_if_modified(|order| {
                    let continues = *order == Order::Continue;
                    if continues {
                        *order = Order::Cancel { grace };
                    }
                    continues
                });
                // Where it comes unasked, it renews nothing.
                if directive.lease_expire_time.is_some() {
                    self.answer(&mut pages, &token);
                }
            }
            // What has ended by its own report is told by the answer to that.
            Action::LeaseLost if held.end.is_some() => {}
            Action::LeaseLost => {
                held.orders.send_replace(Order::Lost);
                pages.held.remove(&token);
                drop(pages);
                self.moved.notify_waiters();
            }
        }
    }

    /// A report about a lease was answered. Once all are, what they said is known.
    fn answer(&self, pages: &mut Pages, token: &LeaseToken) {
        let Some(held) = pages.held.get_mut(token) else { return };
        held.reports.asked = held.reports.asked.saturating_sub(1);
        if held.reports.asked > 0 || !held.reports.carrying {
            return;
        }
        let Reports { stage, .. } = std::mem::take(&mut held.reports);
        if stage.is_some() {
            let recorded = held.stages.pop_front();
            // What was reported since has waited for that.
            held.changed |= held.stages.is_empty() && recorded.as_ref() != Some(&held.progress.stage);
            if held.changed {
                self.reported.notify_one();
            }
            if !held.stages.is_empty() {
                pages.speak(token);
                self.to_say.notify_one();
            }
            self.moved.notify_waiters();
        }
    }

    /// Takes the answer to the report of an end.
    pub fn acknowledge(&self, ack: work_response::Ack) {
        let Ok(token) = ack.lease_token.parse::<LeaseToken>() else { return };
        let mut pages = self.pages.lock();
        let Some(held) = pages.held.get_mut(&token) else { return };
        let answer = match ack.refusal.as_str() {
            "" => Ok(()),
            // It has been called durable, all of it.
            "OUTPUT_MISSING" if std::mem::replace(&mut held.missed, true) => {
                Err(Error::OutputConflict(ack.message))
            }
            "OUTPUT_MISSING" => Err(Error::Transient(ack.message)),
            refusal => Err(refused(refusal, ack.message)),
        };
        let end = held.end.take();
        if held.untaken || matches!(answer, Ok(()) | Err(Error::Lost(_))) {
            pages.held.remove(&token);
        }
        drop(pages);
        self.moved.notify_waiters();
        if let Some(waiter) = end.and_then(|end| end.waiter) {
            // Whoever asked may have been dropped.
            let _ = waiter.send(answer);
        }
    }
}
