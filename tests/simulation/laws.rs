//! What must be true of every job in the end, by its history, its status, and what everybody was told of it.

use crate::client::{Called, Client};
use crate::ledger::{Wish, is_final};
use crate::times::{Times, micros_of};
use longhaul::proto::job::{State, View};
use longhaul::proto::job_event::Event;
use longhaul::proto::*;
use std::collections::{BTreeMap, BTreeSet};

/// How often a job is read at most until it stands still.
const READS_MAX: usize = 20;

impl Client {
    /// Holds all that is kept against all that was told.
    pub async fn check_all(&self) {
        let Some(jobs) = self.all(Default::default()).await else {
            return self.ledger.blame("the jobs cannot be listed".into());
        };
        let mut by_wish: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
        for job in jobs.iter().filter(|job| job.retry_of.is_empty()) {
            let wish = job.labels.get("wish").map_or("", String::as_str);
            by_wish.entry(wish).or_default().push(job);
        }
        let wishes = self.ledger.wishes();
        for (wish, jobs) in &by_wish {
            self.ledger.demand(wishes.contains_key(*wish), || format!("{wish:?} was wished for by nobody"));
            self.ledger.demand(jobs.len() == 1, || format!("{wish} has {} jobs", jobs.len()));
        }
        for (label, wish) in &wishes {
            let Some(ticket) = &wish.ticket else { continue };
            let found =
                by_wish.get(label.as_str()).is_some_and(|jobs| jobs.iter().any(|job| job.id == *ticket));
            let told = self.ledger.told(ticket);
            self.ledger.demand(found || told.may_be_gone, || format!("{ticket} of {label} is lost"));
        }
        self.check_batches(&wishes, &by_wish);
        let there: BTreeSet<&String> = jobs.iter().map(|job| &job.id).collect();
        for ticket in self.ledger.tickets() {
            let told = self.ledger.told(&ticket);
            self.ledger.demand(there.contains(&ticket) || told.may_be_gone, || format!("{ticket} is lost"));
            self.ledger.demand(!there.contains(&ticket) || !told.is_gone, || {
                format!("{ticket} was forgotten and is there")
            });
        }
        for (job, last) in self.ledger.seen() {
            let told = self.ledger.told(&job);
            self.ledger.demand(last == 0 || there.contains(&job) || told.may_be_gone, || {
                format!("{job} was watched and is lost")
            });
        }
        // Before the histories are read, which may still grow.
        let durable = self.ledger.all_durable();
        for job in &jobs {
            self.check(job, &durable).await;
        }
    }

    /// Of what was started together all is there, or nothing.
    fn check_batches(&self, wishes: &BTreeMap<String, Wish>, by_wish: &BTreeMap<&str, Vec<&Job>>) {
        let mut batches: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
        for (label, wish) in wishes {
            let gone = wish.ticket.as_ref().is_some_and(|ticket| self.ledger.told(ticket).may_be_gone);
            if let Some(batch) = wish.batch.filter(|_| !gone) {
                batches.entry(batch).or_default().insert(by_wish.contains_key(label.as_str()));
            }
        }
        let whole = batches.values().all(|there| there.len() == 1);
        self.ledger.demand(whole, || "a part of a batch is there, and a part is not".into());
    }

    async fn check(&self, listed: &Job, durable: &BTreeMap<String, usize>) {
        let id = &listed.id;
        let Some((job, events)) = self.read(id).await else {
            return self.ledger.blame(format!("{id} cannot be read"));
        };
        let demand = |holds: bool, what: &str| {
            self.ledger.demand(holds, || format!("{id}: {what}; its history is {}", told(&events)));
        };
        let (mut state, mut attempt, mut output) = (State::Unspecified, 0, Vec::new());
        let mut written = String::new();
        // What checkpoint the next attempt may be given: the last that was answered, or one that was sent later.
        let mut candidates = BTreeSet::from([String::new()]);
        let mut times = Times::new(&job);
        let states = self.ledger.states(id);
        for (event, number) in events.iter().zip(1..) {
            demand(event.sequence == number, "its events are not numbered without a gap");
            demand(!is_final(state), "it goes on after its end");
            self.ledger.saw(event);
            match event.event.as_ref() {
                Some(Event::StateChange(change)) => {
                    demand(change.previous_state() == state, "it leaves a state that it is not in");
                    state = change.state();
                    if state == State::Running {
                        demand(event.attempt == attempt + 1, "its attempts are not numbered without a gap");
                        attempt = event.attempt;
                        self.check_written(id, &written, durable);
                        written.clear();
                    }
                    if let Some(wrong) = times.pass(event, change) {
                        demand(false, &wrong);
                    }
                    if change.reason == "SERVER_RESTART" {
                        let (began, ended) = times.last_attempt;
                        demand(
                            self.ledger.ends_within(began, ended),
                            "an attempt ended with its server, which went on",
                        );
                    }
                    self.see(change, attempt);
                }
                Some(Event::Output(piece)) if piece.channel.is_empty() => {
                    demand(piece.offset == output.len() as i64, "its output has a gap");
                    if attempt > 0 && written.is_empty() {
                        self.check_base(id, piece, &output, &mut candidates);
                    }
                    output.extend_from_slice(&piece.data);
                    match attempt {
                        // It goes on where another job has left off.
                        0 => candidates = [String::from_utf8_lossy(&output).into_owned()].into(),
                        _ => written.push_str(&String::from_utf8_lossy(&piece.data)),
                    }
                }
                Some(Event::OutputReset(reset)) if reset.channel.is_empty() => {
                    self.ledger.see("output is void");
                    demand(reset.kept_bytes <= output.len() as i64, "a reset keeps more than there is");
                    output.truncate(reset.kept_bytes as usize);
                }
                _ => demand(
                    matches!(state, State::Running | State::Cancelling),
                    "something was sent while it was not at work",
                ),
            }
            demand(event.attempt == attempt, "an event is of another attempt");
            if let Some(shown) = states.get(&event.sequence) {
                demand(*shown == (state, attempt), "it was shown as it never was");
            }
        }
        self.check_written(id, &written, durable);
        demand(state == job.state(), "its status is not that of its history");
        demand(job.attempt == attempt, "its attempt is not that of its history");
        let options = job.options.clone().unwrap_or_default();
        demand(job.counted_attempts == times.counted, "its attempts are counted otherwise");
        let limit = options.retry_policy.map_or(i32::MAX, |retry| retry.maximum_attempts);
        demand(times.counted <= limit, "it was tried too often");
        let took = |duration: &Option<prost_types::Duration>| duration.as_ref().map_or(0, micros_of);
        demand(took(&job.run_duration) == times.ran, "it ran for another time than its history says");
        if state == State::Succeeded {
            self.check_result(&job, &output);
        }
    }

    /// A job and its history as they are at one moment: it may go on while they are read.
    async fn read(&self, id: &str) -> Option<(Job, Vec<JobEvent>)> {
        for _ in 0..READS_MAX {
            let before = self.ledger.told(id);
            let events = self.history(id).await?;
            let request = GetStatusRequest { job_id: id.to_owned(), view: View::Full.into() };
            let Called::Is(job) = self.call(self.stub.clone().get_status(request)).await else { return None };
            self.ledger.shown(&before, &job);
            if job.sequence == events.len() as i64 {
                return Some((job, events));
            }
        }
        None
    }

    /// An attempt was given the last checkpoint that was answered or one that was sent later, and what this keeps of the output is
    /// what is there when the attempt begins to write.
    fn check_base(&self, job: &str, piece: &Output, output: &[u8], candidates: &mut BTreeSet<String>) {
        let text = String::from_utf8_lossy(&piece.data);
        let Some(attempt) = text.split_once('/').and_then(|(nonce, _)| self.ledger.attempt(nonce)) else {
            return self.ledger.blame(format!("{job} has output of {text:?}, which nobody is"));
        };
        let (base, there) = (&attempt.base, String::from_utf8_lossy(output));
        self.ledger
            .demand(*base == there, || format!("{job} has {there:?} where an attempt goes on from {base:?}"));
        self.ledger.demand(candidates.contains(base), || {
            format!("{job} goes on from {base:?}, which is none of {candidates:?}")
        });
        match attempt.recorded.checked_sub(1) {
            Some(last) => *candidates = attempt.checkpoints[last..].iter().cloned().collect(),
            None => candidates.extend(attempt.checkpoints),
        }
    }

    /// What an attempt has left is a beginning of what it has written, with all of it that was said to be durable.
    fn check_written(&self, job: &str, written: &str, durable: &BTreeMap<String, usize>) {
        let Some((nonce, _)) = written.split_once('/') else { return };
        let Some(attempt) = self.ledger.attempt(nonce) else {
            return self.ledger.blame(format!("{job} has output of {nonce}, which nobody is"));
        };
        let perhaps = attempt.text.clone() + &attempt.perhaps;
        self.ledger.demand(perhaps.starts_with(written), || {
            format!("{job} has {:?} where {nonce} has written {:?}", written, attempt.text)
        });
        let durable = durable.get(nonce).copied().unwrap_or_default();
        self.ledger.demand(durable <= written.len(), || {
            format!("{job} has {} of {durable} bytes of {nonce} that were durable", written.len())
        });
    }

    /// What must be seen now and then in the lives of jobs.
    fn see(&self, change: &StateChange, attempt: i32) {
        match change.reason.as_str() {
            "LEASE_EXPIRED" => self.ledger.see("a lease ends"),
            "STALLED" => self.ledger.see("an attempt stalls"),
            "SERVER_RESTART" => self.ledger.see("an attempt ends with its server"),
            "RELEASED" => self.ledger.see("a job is given back"),
            "ATTEMPT_TIMEOUT" => self.ledger.see("an attempt takes too long"),
            "JOB_TIMEOUT" => self.ledger.see("a job takes too long"),
            "START_TIMEOUT" => self.ledger.see("a job expires"),
            "GRACE_PERIOD_ENDED" => self.ledger.see("a grace period ends"),
            "WORKER_STOPPED" => self.ledger.see("a worker stops as it is asked to"),
            _ if attempt > 2 => self.ledger.see("a third attempt"),
            _ => {}
        }
    }

    /// What it has made is what the attempt that completed it has written, all of it and nothing else.
    fn check_result(&self, job: &Job, output: &[u8]) {
        let nonce = job.result.as_ref().and_then(|result| match result.kind.as_ref()? {
            prost_types::value::Kind::StructValue(fields) => fields.fields.get("nonce")?.kind.clone(),
            _ => None,
        });
        let Some(prost_types::value::Kind::StringValue(nonce)) = nonce else {
            return self.ledger.blame(format!("{} has another result than it was given", job.id));
        };
        let told = self.ledger.told(&job.id).completed;
        self.ledger.demand(told.as_ref().is_none_or(|told| *told == nonce), || {
            format!("{} succeeded for {nonce}, and {told:?} was told that it had", job.id)
        });
        let Some(attempt) = self.ledger.attempt(&nonce) else {
            return self.ledger.blame(format!("{} has a result of {nonce}, which nobody is", job.id));
        };
        self.ledger
            .demand(attempt.job == job.id, || format!("{nonce} had {} and not {}", attempt.job, job.id));
        let text = attempt.base.clone() + &attempt.text;
        let perhaps = text.clone() + &attempt.perhaps;
        let is_whole = [&text, &perhaps].into_iter().any(|text| text.as_bytes() == output);
        self.ledger.demand(is_whole, || {
            let output = String::from_utf8_lossy(output);
            format!("{} has the output {output:?} where {nonce} has written {text:?}", job.id)
        });
    }
}

fn told(events: &[JobEvent]) -> String {
    let one = |event: &JobEvent| match &event.event {
        Some(Event::StateChange(change)) => format!("{:?} ({})", change.state(), change.reason),
        Some(Event::Output(piece)) => format!("+{}", piece.data.len()),
        Some(Event::OutputReset(_)) => "reset".to_owned(),
        _ => "other".to_owned(),
    };
    events
        .iter()
        .map(|event| format!("{}.{} {}", event.attempt, event.sequence, one(event)))
        .collect::<Vec<_>>()
        .join(", ")
}
