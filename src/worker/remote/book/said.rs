//! What is to be said on `Work`, looked up at the moment when the stream takes it.

use super::{Held, Pages, Reports};
use crate::job::LeaseToken;
use crate::proto::{self, work_request, work_request::Message};
use crate::worker::remote::messages;

/// How many leases one heartbeat renews.
const REPORTS_MAX: usize = 1_000;
/// How many free slots a server is told of.
const SLOTS_MAX: i32 = 10_000;
/// After how many heartbeats a stage is told again that was not answered: one of them may be sent together with it.
const STAGE_HEARTBEATS: u32 = 2;

impl Pages {
    /// Forgets the leases that nobody works under any more, however that came: they end by themselves.
    pub(super) fn forget(&mut self) {
        self.held.retain(|_, held| held.untaken || !held.orders.is_closed());
    }

    /// Lets the next heartbeats name the leases that somebody works under and of which this holds.
    pub(super) fn name(&mut self, wanted: impl Fn(&Held) -> bool) {
        let Self { held, beating, .. } = self;
        for (token, held) in held.iter_mut() {
            if !held.untaken && wanted(held) && !std::mem::replace(&mut held.beats, true) {
                beating.push_back(*token);
            }
        }
    }

    /// What is to be said next, if anything.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        if std::mem::take(&mut self.drain_due) {
            return Some(Message::Drain(work_request::Drain {}));
        }
        if let Some(reports) = self.next_reports() {
            return Some(Message::Heartbeat(proto::HeartbeatRequest { reports }));
        }
        while let Some(token) = self.speaking.pop_front() {
            let Some(held) = self.held.get_mut(&token) else { continue };
            held.speaks = false;
            if let Some(message) = held.next_message(&token) {
                // Behind the others: there may be more.
                self.speak(&token);
                return Some(message);
            }
        }
        if std::mem::take(&mut self.credit_due) && !self.draining {
            let free_slots = i32::try_from(self.wanted).unwrap_or(SLOTS_MAX).min(SLOTS_MAX);
            return Some(Message::Credit(work_request::Credit { free_slots, received: self.received }));
        }
        None
    }

    /// What the next heartbeat says, where one is due.
    fn next_reports(&mut self) -> Option<Vec<proto::Report>> {
        let Self { held, beating, idle_beat_due, .. } = self;
        let named = beating.len().min(REPORTS_MAX);
        let mut reports = Vec::with_capacity(named);
        for token in beating.drain(..named) {
            if let Some(held) = held.get_mut(&token) {
                held.beats = false;
                reports.push(held.beat(&token));
            }
        }
        (std::mem::take(idle_beat_due) || !reports.is_empty()).then_some(reports)
    }
}

impl Held {
    /// What is to be said of the lease on its own.
    fn next_message(&mut self, token: &LeaseToken) -> Option<Message> {
        if std::mem::take(&mut self.accept_due) {
            return Some(Message::Accept(work_request::Accept { lease_token: token.to_string() }));
        }
        let ends = self.end.as_ref().is_some_and(|end| !end.sent);
        let stage_due = !self.stages.is_empty() && self.reports.stage.is_none();
        // The last that it reported is not to come too late.
        if !self.untaken && if ends { self.changed } else { stage_due } {
            let reports = vec![self.report(token)];
            return Some(Message::Heartbeat(proto::HeartbeatRequest { reports }));
        }
        let end = self.end.as_mut().filter(|end| !end.sent)?;
        end.sent = true;
        Some(end.message.clone())
    }

    /// What a heartbeat says of the lease: nothing but that, unless there is news.
    fn beat(&mut self, token: &LeaseToken) -> proto::Report {
        match &mut self.reports.stage {
            // Whether it was recorded is not known, and two reports of one stage at once would be two stages.
            Some(heartbeats) if *heartbeats < STAGE_HEARTBEATS => *heartbeats += 1,
            Some(_) => {
                self.reports = Reports::default();
                return self.report(token);
            }
            None if self.changed || !self.stages.is_empty() => return self.report(token),
            None => {}
        }
        self.reports.asked += 1;
        proto::Report { lease_token: token.to_string(), ..Default::default() }
    }

    /// What is new of the attempt: the first stage that is not recorded, or else what has changed.
    fn report(&mut self, token: &LeaseToken) -> proto::Report {
        let mut progress = self.progress.clone();
        if let Some(stage) = self.stages.front() {
            progress.stage.clone_from(stage);
            self.reports.stage = Some(0);
        }
        self.changed = false;
        self.reports.asked += 1;
        self.reports.carrying = true;
        let progress = (progress != Default::default()).then(|| messages::progress(&progress));
        proto::Report { lease_token: token.to_string(), progress, metrics: self.metrics.clone() }
    }
}
