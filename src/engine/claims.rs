//! Leases ready jobs for workers that wait, and takes back what never reached one.
//!
//! Whose turn it is is decided in `dispatch`, which job is next in the store.

use super::dispatch::Round;
use super::{Engine, Error, Order, Shared};
use crate::job::{Command, LeaseEnd, LeaseToken, Live, Refusal, Snapshot, Timestamp};
use crate::store::{Claim, Claimed, Dealt, Operation, Outcome, Slot};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// No more jobs are claimed at once when their inputs have so many bytes together.
const CLAIM_BYTES: usize = 4 << 20;
/// How long a group waits after a claim that failed.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Somebody who can run jobs.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its own name, for people and for the history.
    pub name: String,
    /// What it can run.
    pub kinds: Arc<[String]>,
    /// It runs in this very process: an attempt begins with its lease, and both end with the process.
    pub in_process: bool,
    /// How long its leases are to last without a sign of it, where that is not the server's own term.
    pub term: Option<Duration>,
}

/// A job that a worker holds.
#[derive(Debug)]
pub struct Leased {
    /// The job, with its input.
    pub snapshot: Snapshot,
    /// Names the lease in every report.
    pub token: LeaseToken,
    /// What the server wants of the worker.
    pub orders: watch::Receiver<Order>,
    /// When the lease ends unless it is renewed, or accepted.
    pub expire_time: Timestamp,
}

/// A worker's place among those that want work. What was leased for it and not taken when it is dropped is given back.
#[derive(Debug)]
pub struct Place {
    engine: Engine,
    id: u64,
    name: String,
    mailbox: UnboundedReceiver<Vec<Leased>>,
    /// Taken from the mailbox, and not handed out yet.
    arrived: Vec<Leased>,
}

/// What the engine has to know of whoever wants work.
#[derive(Debug)]
pub struct Taker {
    worker: Worker,
    mailbox: UnboundedSender<Vec<Leased>>,
}

impl Engine {
    /// Leases up to `count` ready jobs, and waits until there is one. Cancel safe.
    pub async fn lease(&self, worker: &Worker, count: usize) -> Result<Vec<Leased>, Error> {
        let mut place = self.enlist(worker);
        place.offer(count);
        place.next().await
    }

    /// Takes in a worker, which gets nothing before it offers a slot.
    pub fn enlist(&self, worker: &Worker) -> Place {
        // As many may lie in it as the worker has offered slots.
        let (sender, mailbox) = unbounded_channel();
        let taker = Taker { worker: worker.clone(), mailbox: sender };
        let id = self.shared().dispatch.enlist(&worker.kinds, taker);
        Place { engine: self.clone(), id, name: worker.name.clone(), mailbox, arrived: Vec::new() }
    }

    /// Takes back a lease that never reached its worker.
    async fn give_up(&self, token: &LeaseToken) {
        let (keeper, jitter) = (self.shared().store.keeper(), self.shared().jitter());
        let end =
            |cause| Command::EndLease { epoch: token.epoch, keeper, cause, live: Live::default(), jitter };
        let ended = match self.apply(token, end(LeaseEnd::Unaccepted)).await {
            // Its attempt has begun with the lease; that it ends so does not count.
            Err(Error::Refused(Refusal::Accepted)) => self.apply(token, end(LeaseEnd::Restarted)).await,
            other => other,
        };
        if let Err(error) = ended {
            tracing::warn!(%error, job = %token.job, "a lease that nobody waited for stays");
        }
    }
}

impl Place {
    /// The worker can take `free` more jobs than it has taken so far; what it offered before is void.
    pub fn offer(&self, free: usize) {
        let shared = self.engine.shared();
        let held = shared.leases.held_by(&self.name);
        if let Some(round) = shared.dispatch.offer(self.id, free, held) {
            claim(shared, round);
        }
    }

    /// Waits for jobs; there is at least one. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Leased>, Error> {
        if self.arrived.is_empty() {
            let first = self.mailbox.recv().await;
            self.arrived = first.ok_or_else(|| Error::Unavailable("the server is stopping".into()))?;
        }
        while let Ok(leased) = self.mailbox.try_recv() {
            self.arrived.extend(leased);
        }
        if self.arrived.iter().any(|leased| leased.snapshot.job.options.concurrency.is_some()) {
            self.engine.shared().leases.have_let_go().await;
        }
        self.engine.shared().dispatch.taken(self.id, self.arrived.len());
        Ok(std::mem::take(&mut self.arrived))
    }

    /// Waits until the claims are over that the last offer has led to, and those that were under way.
    pub fn looked(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let engine = self.engine.clone();
        async move {
            // What is queued behind a claim is answered behind it; and so behind the one that follows on it.
            for _ in 0..2 {
                engine.shared().committer().barrier().await?;
            }
            Ok(())
        }
    }

    /// Gives back leases that the worker cannot take after all; nothing has happened to their jobs.
    pub fn give_up(&self, tokens: Vec<LeaseToken>) {
        give_up(self.engine.shared(), tokens);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = self.engine.shared();
        shared.dispatch.leave(self.id);
        self.mailbox.close();
        let mut left = std::mem::take(&mut self.arrived);
        while let Ok(leased) = self.mailbox.try_recv() {
            left.extend(leased);
        }
        give_up(shared, left.iter().map(|leased| leased.token).collect());
    }
}

/// Makes a claim; what comes of it goes to its takers on the thread that commits.
pub fn claim(shared: &Arc<Shared>, round: Round<Taker>) {
    let slot = |(id, taker): &(u64, Arc<Taker>)| Slot {
        taker: *id,
        worker: taker.worker.name.clone(),
        secret: shared.chance(),
        term: taker.worker.term,
        in_process: taker.worker.in_process,
    };
    let claim = Claim {
        kinds: Arc::clone(&round.kinds),
        slots: round.slots.iter().map(slot).collect(),
        bytes: CLAIM_BYTES,
    };
    let then = {
        let shared = Arc::clone(shared);
        move |outcome| match outcome {
            Ok(Outcome::Claim(dealt)) => deal(&shared, &round, dealt),
            Ok(_) => unreachable!("an outcome is of its operation's kind"),
            Err(error) => again_later(&shared, round, &error),
        }
    };
    shared.committer().queue_then(Operation::Claim(claim), then);
}

fn deal(shared: &Arc<Shared>, round: &Round<Taker>, dealt: Dealt) {
    let mut takers = Vec::with_capacity(dealt.claimed.len());
    // Together, so that nobody goes away with a part.
    let mut parcels: Vec<(u64, Vec<Leased>)> = Vec::new();
    for Claimed { taker, snapshot, token, .. } in dealt.claimed {
        // A lease that has ended again by now, for example by a cancellation, is passed over.
        let Some((orders, expire_time)) = shared.leases.orders(&token) else { continue };
        takers.push(taker);
        let leased = Leased { snapshot, token, orders, expire_time };
        match parcels.iter_mut().find(|(id, _)| *id == taker) {
            Some((_, parcel)) => parcel.push(leased),
            None => parcels.push((taker, vec![leased])),
        }
    }
    let mut undeliverable = Vec::new();
    for (id, parcel) in parcels {
        let taker = round.slots.iter().find(|(taker, _)| *taker == id).map(|(_, taker)| taker);
        let tokens: Vec<LeaseToken> = parcel.iter().map(|leased| leased.token).collect();
        // A worker that is gone by now must not leave jobs behind that nobody runs.
        if taker.is_none_or(|taker| taker.mailbox.send(parcel).is_err()) {
            undeliverable.extend(tokens);
        }
    }
    give_up(shared, undeliverable);
    for next in shared.dispatch.settle(round, &takers, dealt.exhausted) {
        claim(shared, next);
    }
}

fn again_later(shared: &Arc<Shared>, round: Round<Taker>, error: &Error) {
    tracing::warn!(%error, "no jobs can be leased; trying again");
    shared.dispatch.fail(&round);
    let errand = {
        let shared = Arc::clone(shared);
        async move {
            tokio::time::sleep(TRY_AGAIN).await;
            if let Some(next) = shared.dispatch.resume(&round) {
                claim(&shared, next);
            }
        }
    };
    shared.errands.spawn_on(errand, &shared.runtime);
}

fn give_up(shared: &Arc<Shared>, tokens: Vec<LeaseToken>) {
    if tokens.is_empty() {
        return;
    }
    let engine = Engine(Arc::clone(shared));
    let errand = async move {
        join_all(tokens.iter().map(|token| engine.give_up(token))).await;
    };
    shared.errands.spawn_on(errand, &shared.runtime);
}

/// Lets everybody who waits look again, in case a hint was lost.
pub fn look_again(shared: &Arc<Shared>) {
    for round in shared.dispatch.look() {
        claim(shared, round);
    }
}
