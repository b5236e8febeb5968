//! A sound store behind a wrapper that breaks one promise.

use crate::bench::{Fixture, KEEPER, QUEUE_MAX, WHOLE};
use longhaul::job::*;
use longhaul::store::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None at all.
    None,
    /// Each token passes for the one of the lease that holds the job.
    FencingOff,
    /// Each keeper passes for the one of the lease.
    AnyKeeper,
    /// The last commit is lost when the store is closed.
    NotDurable,
    /// After a restart request ids mean nothing any more.
    RequestIdsOfOneLife,
    /// What stands before the rejected one is taken in.
    SomeOfASubmission,
    /// After a rejection nothing more of a batch is done.
    RejectionEndsBatch,
    /// Readers see each operation of a batch as it is done.
    EachOperationAlone,
    NoQueueLimit,
    NoPriority,
    /// Whose turn it is, is forgotten.
    NoTurns,
    /// A claim that gets nothing gets what the last one got.
    ClaimedTwice,
    /// Attempts begin with the claim.
    AlwaysAccepted,
    /// The best job goes to the last slot.
    DealsBackwards,
    /// Every lease has the server's own term.
    TermsForgotten,
    HugeClaims,
    AlwaysExhausted,
    /// A claim makes jobs ready.
    ClaimSweeps,
    OnePlaceTooMany,
    /// Jobs in one state are left out by sweeps.
    NeverDue(State),
    DueTooLate,
    EventLost,
    ResultLost,
    /// A page of history has no limit.
    EndlessPages,
    /// Output is appended wherever it says that it belongs.
    OutputTwice,
    /// What is latest-wins of any attempt passes for the current one's.
    AnyAttempt,
    OldestFirst,
    AnyTenant,
    /// Claims that are not accepted are not among those held.
    OnlyAcceptedHeld,
    /// One part of a filter is not looked at.
    NoStates,
    NoKinds,
    NoLabels,
    NoTimes,
    /// The last job of a page that is not the last is on none.
    BetweenPages,
    HugePages,
    /// Whoever is forgotten is still counted.
    CountsTheForgotten,
    CountsOfAllTenants,
    QueueByAge,
    /// The request id of a retry means nothing.
    RetriesTwice,
    DeletesTheActive,
    /// The request id goes with its job.
    RequestIdsForgotten,
    HistoryStays,
    PrunesTooEarly,
    PrunesWithoutLimit,
}

pub struct MutantFixture {
    flaw: Flaw,
    opened: Option<Arc<Mutant>>,
}

impl MutantFixture {
    pub fn new(flaw: Flaw) -> Self {
        Self { flaw, opened: None }
    }
}

impl Fixture for MutantFixture {
    fn open(&mut self) -> Arc<dyn Store> {
        let store = match &self.opened {
            Some(mutant) if self.flaw == Flaw::NotDurable => mutant.lock(&mutant.before).reopened(),
            Some(mutant) => mutant.lock(&mutant.store).reopened(),
            None => {
                let queue_max = if self.flaw == Flaw::NoQueueLimit { u64::MAX } else { QUEUE_MAX };
                MemoryStore::new(queue_max, KEEPER)
            }
        };
        let forgotten = self.opened.as_ref().map(|mutant| mutant.lock(&mutant.forgotten).clone());
        let forgotten = forgotten.unwrap_or_default();
        let mutant = Mutant {
            flaw: self.flaw,
            reopened: self.opened.is_some(),
            before: Mutex::new(store.reopened()),
            store: Mutex::new(store),
            jobs: Mutex::default(),
            last_claim: Mutex::default(),
            lists: AtomicUsize::new(0),
            forgotten: Mutex::new(forgotten),
        };
        // What it has seen is what it has to sweep.
        if let Some(opened) = &self.opened {
            mutant.lock(&mutant.jobs).clone_from(&opened.lock(&opened.jobs));
        }
        Arc::clone(self.opened.insert(Arc::new(mutant))) as Arc<dyn Store>
    }
}

struct Mutant {
    flaw: Flaw,
    reopened: bool,
    store: Mutex<MemoryStore>,
    /// As it was before the last commit.
    before: Mutex<MemoryStore>,
    jobs: Mutex<Vec<JobId>>,
    last_claim: Mutex<Dealt>,
    lists: AtomicUsize,
    forgotten: Mutex<Vec<(Snapshot, Vec<Event>)>>,
}

impl Mutant {
    /// A case that has failed while it held a lock must not hide behind that.
    fn lock<'m, T>(&self, mutex: &'m Mutex<T>) -> std::sync::MutexGuard<'m, T> {
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn job(&self, id: JobId) -> Option<Job> {
        let found = self.lock(&self.store).get(&[id], Parts::BASIC).ok()?.remove(0)?;
        Some(found.job)
    }

    fn carry_out(&self, operation: Operation, now: Timestamp) -> Outcome {
        self.lock(&self.store).commit(vec![operation], now).expect("it cannot fail").remove(0)
    }

    fn one(&self, operation: Operation, now: Timestamp) -> Outcome {
        match operation {
            Operation::Submit(submissions)
                if self.flaw == Flaw::SomeOfASubmission && submissions.len() > 1 =>
            {
                let each = submissions.into_iter().map(|one| self.one(Operation::Submit(vec![one]), now));
                let each = each.map(|outcome| match outcome {
                    Outcome::Submit(outcome) => outcome,
                    other => panic!("{other:?}"),
                });
                Outcome::Submit(each.collect::<Result<Vec<_>, _>>().map(|all| all.concat()))
            }
            Operation::Submit(mut submissions) => {
                submissions.iter_mut().for_each(|one| self.spoil_spec(Arc::make_mut(&mut one.spec)));
                let outcome = self.carry_out(Operation::Submit(submissions), now);
                if let Outcome::Submit(Ok(submitted)) = &outcome {
                    let new = submitted.iter().filter_map(|one| match one {
                        Submitted::Created(job) => Some(job.id),
                        Submitted::Repeated(_) => None,
                    });
                    self.lock(&self.jobs).extend(new);
                }
                outcome
            }
            Operation::Claim(claim) => self.claim(claim, now),
            Operation::Apply(id, command) => {
                let command = match self.job(id) {
                    Some(job) => self.spoil_command(*command, &job),
                    None => *command,
                };
                self.carry_out(Operation::Apply(id, Box::new(command)), now)
            }
            Operation::Sweep { limit, chance } => self.sweep(limit, chance, now),
            Operation::KeepLive(mut updates) => {
                for update in updates.iter_mut().filter(|_| self.flaw == Flaw::AnyAttempt) {
                    update.attempt = self.job(update.job).map_or(0, |job| job.attempt);
                }
                self.carry_out(Operation::KeepLive(updates), now)
            }
            Operation::Probe => self.carry_out(Operation::Probe, now),
            Operation::Retry(mut retry) => {
                if self.flaw == Flaw::RetriesTwice {
                    retry.request = None;
                }
                self.carry_out(Operation::Retry(retry), now)
            }
            Operation::Delete(id) => self.delete(id, now),
            Operation::Prune { limit } => {
                let limit = if self.flaw == Flaw::PrunesWithoutLimit { usize::MAX } else { limit };
                let early = if self.flaw == Flaw::PrunesTooEarly { 1 } else { 0 };
                self.carry_out(Operation::Prune { limit }, Timestamp::from_micros(now.as_micros() + early))
            }
        }
    }

    fn delete(&self, id: JobId, now: Timestamp) -> Outcome {
        if self.flaw == Flaw::DeletesTheActive {
            let cancel = Command::Cancel { reason: String::new(), grace: Default::default() };
            self.carry_out(Operation::Apply(id, Box::new(cancel)), now);
        }
        let (known, history) = {
            let store = self.lock(&self.store);
            let known = store.get(&[id], Parts::FULL).expect("it cannot fail").remove(0);
            (known, store.events(&[(id, 0)], WHOLE).expect("it cannot fail").remove(0))
        };
        let outcome = self.carry_out(Operation::Delete(id), now);
        if let (Outcome::Delete(Ok(_)), Some(known)) = (&outcome, known) {
            self.lock(&self.forgotten).push((known, history));
        }
        outcome
    }

    fn spoil_spec(&self, spec: &mut Spec) {
        let forgotten = self.lock(&self.forgotten);
        let is_forgotten = |request: &RequestKey| {
            forgotten.iter().any(|(job, _)| job.request_id.as_ref() == Some(&request.id))
        };
        if self.flaw == Flaw::RequestIdsForgotten && spec.request.as_ref().is_some_and(is_forgotten) {
            spec.request = None;
        }
        match (self.flaw, &mut spec.options.concurrency) {
            (Flaw::NoPriority, _) => spec.options.priority = 0,
            (Flaw::OnePlaceTooMany, Some(concurrency)) => concurrency.limit += 1,
            (Flaw::RequestIdsOfOneLife, _) if self.reopened => spec.request = None,
            _ => {}
        }
    }

    fn spoil_command(&self, mut command: Command, job: &Job) -> Command {
        match (self.flaw, &mut command, job.lease_token()) {
            (
                Flaw::FencingOff,
                Command::Accept { lease }
                | Command::EnterStage { lease, .. }
                | Command::AppendOutput { lease, .. }
                | Command::AppendLog { lease, .. }
                | Command::Complete { lease, .. }
                | Command::Fail { lease, .. }
                | Command::Release { lease, .. },
                Some(live),
            ) => *lease = live,
            (Flaw::AnyKeeper, Command::EndLease { keeper, .. }, Some(_)) => {
                *keeper = job.lease.as_ref().map_or(KEEPER, |lease| lease.keeper);
            }
            (Flaw::OutputTwice, Command::AppendOutput { offset, channel, .. }, _) => {
                let known = job.emitted.channels.iter().find(|known| known.name == *channel);
                *offset = known.map_or(0, |known| known.bytes);
            }
            _ => {}
        }
        command
    }

    fn claim(&self, mut claim: Claim, now: Timestamp) -> Outcome {
        match self.flaw {
            Flaw::NoTurns => {
                let mut store = self.lock(&self.store);
                *store = store.reopened();
            }
            Flaw::ClaimSweeps => drop(self.carry_out(Operation::Sweep { limit: 100, chance: 0 }, now)),
            Flaw::DealsBackwards => claim.slots.reverse(),
            Flaw::TermsForgotten => claim.slots.iter_mut().for_each(|slot| slot.term = None),
            Flaw::HugeClaims => claim.bytes = usize::MAX,
            Flaw::AlwaysAccepted => claim.slots.iter_mut().for_each(|slot| slot.in_process = true),
            _ => {}
        }
        let outcome = self.carry_out(Operation::Claim(claim), now);
        let mut last = self.lock(&self.last_claim);
        match outcome {
            Outcome::Claim(dealt) if dealt.claimed.is_empty() && self.flaw == Flaw::ClaimedTwice => {
                Outcome::Claim(last.clone())
            }
            Outcome::Claim(mut dealt) => {
                dealt.exhausted |= self.flaw == Flaw::AlwaysExhausted;
                last.clone_from(&dealt);
                Outcome::Claim(dealt)
            }
            other => other,
        }
    }

    fn sweep(&self, limit: usize, chance: u64, now: Timestamp) -> Outcome {
        let sweep = Operation::Sweep { limit, chance };
        let forgotten = match self.flaw {
            Flaw::NeverDue(state) => state,
            Flaw::DueTooLate => {
                return self.carry_out(sweep, Timestamp::from_micros(now.as_micros() - 1));
            }
            _ => return self.carry_out(sweep, now),
        };
        let mut transitions = Vec::new();
        for id in self.lock(&self.jobs).clone() {
            let due = self.job(id).filter(|job| job.state != forgotten && job.next_due() <= Some(now));
            let Some(job) = due.filter(|job| job.next_due().is_some()) else { continue };
            let command = Command::Advance { live: Live::default(), jitter: 0.0 };
            if let Outcome::Apply(Ok(step)) = self.carry_out(Operation::Apply(job.id, Box::new(command)), now)
            {
                transitions.push(*step);
            }
        }
        // So long ago nothing is due, and only places are given.
        match self.carry_out(sweep, Timestamp::default()) {
            Outcome::Sweep(granted) => {
                transitions.extend(granted.transitions);
                Outcome::Sweep(Swept { transitions, ..granted })
            }
            other => other,
        }
    }
}

impl Store for Mutant {
    fn commit(&self, batch: Vec<Operation>, now: Timestamp) -> Result<Vec<Outcome>, Error> {
        let before = self.lock(&self.store).reopened();
        *self.lock(&self.before) = before;
        if self.flaw == Flaw::None {
            return self.lock(&self.store).commit(batch, now);
        }
        let mut outcomes = Vec::new();
        let mut rejected = false;
        for operation in batch {
            if rejected && self.flaw == Flaw::RejectionEndsBatch {
                outcomes.push(Outcome::Apply(Err(Rejection::NotFound)));
                continue;
            }
            let lists = self.lists.load(Ordering::Acquire);
            outcomes.push(self.one(operation, now));
            rejected |= matches!(outcomes.last(), Some(Outcome::Apply(Err(_)) | Outcome::Submit(Err(_))));
            // Gives a reader a chance, where there is one.
            for _ in 0..1000 {
                if self.flaw != Flaw::EachOperationAlone || self.lists.load(Ordering::Acquire) != lists {
                    break;
                }
                std::thread::yield_now();
            }
        }
        Ok(outcomes)
    }

    fn get(&self, ids: &[JobId], parts: Parts) -> Result<Vec<Option<Snapshot>>, Error> {
        self.lock(&self.store).get(ids, parts)
    }

    fn list(&self, tenant: &str, filter: &Filter, page: Page, parts: Parts) -> Result<Listed, Error> {
        self.lists.fetch_add(1, Ordering::AcqRel);
        let store = self.lock(&self.store);
        let (mut filter, mut page) = (filter.clone(), page);
        match self.flaw {
            Flaw::NoStates => filter.states.clear(),
            Flaw::NoKinds => filter.kinds.clear(),
            Flaw::NoLabels => filter.labels.clear(),
            Flaw::NoTimes => (filter.created_from, filter.created_before) = (None, None),
            Flaw::HugePages => page.bytes = usize::MAX,
            _ => {}
        }
        let filter = &filter;
        let mut listed = store.list(tenant, filter, page, parts)?;
        match self.flaw {
            Flaw::BetweenPages if listed.next.is_some() => drop(listed.jobs.pop()),
            Flaw::OldestFirst => listed.jobs.reverse(),
            Flaw::AnyTenant => {
                listed.jobs.extend(store.list("other", filter, page, parts)?.jobs);
                listed.jobs.truncate(page.jobs);
            }
            _ => {}
        }
        Ok(listed)
    }

    fn count(&self, tenant: &str, kinds: &[String], limit: usize) -> Result<Vec<Count>, Error> {
        let store = self.lock(&self.store);
        let mut counts = store.count(tenant, kinds, limit)?;
        match self.flaw {
            Flaw::CountsOfAllTenants => counts.extend(store.count("other", kinds, limit)?),
            Flaw::CountsTheForgotten => {
                counts.extend(self.lock(&self.forgotten).iter().map(|(gone, _)| Count {
                    kind: gone.job.kind.clone(),
                    state: gone.job.state,
                    jobs: 1,
                }));
            }
            _ => {}
        }
        Ok(counts)
    }

    fn queue(&self, tenant: &str, kind: &str, limit: usize) -> Result<Vec<Rank>, Error> {
        let mut ranks = self.lock(&self.store).queue(tenant, kind, limit)?;
        if self.flaw == Flaw::QueueByAge {
            ranks.sort_by_key(|rank| rank.ordinal);
        }
        Ok(ranks)
    }

    fn events(&self, wanted: &[(JobId, Sequence)], limit: EventLimit) -> Result<Vec<Vec<Event>>, Error> {
        let limit = if self.flaw == Flaw::EndlessPages { WHOLE } else { limit };
        let mut histories = self.lock(&self.store).events(wanted, limit)?;
        for ((id, _), history) in wanted.iter().zip(&mut histories) {
            match self.flaw {
                Flaw::HistoryStays => {
                    let forgotten = self.lock(&self.forgotten);
                    let gone = forgotten.iter().filter(|(gone, _)| gone.job.id == *id);
                    history.extend(gone.flat_map(|(_, history)| history.clone()));
                }
                Flaw::EventLost => history.retain(|event| event.sequence != 3),
                Flaw::ResultLost => {
                    for event in history {
                        if let Body::StateChanged(change) = &mut event.body {
                            change.result = None;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(histories)
    }

    fn held(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Job>, Error> {
        let mut held = self.lock(&self.store).held(after, limit)?;
        if self.flaw == Flaw::OnlyAcceptedHeld {
            held.retain(|job| job.lease.as_ref().is_some_and(|lease| lease.accepted));
        }
        Ok(held)
    }

    fn keeper(&self) -> Keeper {
        KEEPER
    }
}
