//! Leases ready jobs for workers that wait, and takes back what never reached one.
//!
//! Whose turn it is is decided in `dispatch`, which job is next in the store.

use super::dispatch::{Given, Round};
use super::{Engine, Error, Order, Shared, Stopping};
use crate::job::{Command, LeaseEnd, LeaseToken, Live, Refusal, Snapshot, Timestamp};
use crate::store::{Claim, Claimed, Dealt, Operation, Outcome, Slot};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// No more jobs are claimed at once when their inputs have so many bytes together: about as many as an answer with jobs has
/// room for, and so what one who does not read costs at most, with what it had before.
const CLAIM_BYTES: usize = 1 << 20;
/// What a job in memory takes beside its input, about.
const JOB_BYTES: usize = 1 << 10;
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
    /// The data of the checkpoint that the attempt goes on from; empty where there is none.
    pub checkpoint: Bytes,
    /// When the lease ends unless it is renewed, or accepted.
    pub expire_time: Timestamp,
}

/// A worker's place among those that want work. What was leased for it and not taken when it is dropped is given back.
#[derive(Debug)]
pub struct Place {
    engine: Engine,
    id: u64,
    name: String,
    in_process: bool,
    mailbox: UnboundedReceiver<Vec<Leased>>,
    /// Taken from the mailbox, and not handed out yet.
    arrived: VecDeque<Leased>,
    /// Some of these are of a concurrency key whose earlier handlers may not have let go.
    keyed: bool,
}

/// What the engine has to know of whoever wants work.
#[derive(Debug)]
pub struct Taker {
    pub(super) worker: Worker,
    mailbox: UnboundedSender<Vec<Leased>>,
}

impl Engine {
    /// Takes in a worker, which gets nothing before it offers a slot.
    pub fn enlist(&self, worker: &Worker) -> Place {
        // As many may lie in it as the worker has offered slots.
        let (sender, mailbox) = unbounded_channel();
        self.shared().roll.note(worker);
        let taker = Taker { worker: worker.clone(), mailbox: sender };
        let id = self.shared().dispatch.enlist(&worker.kinds, taker, !worker.in_process);
        let (name, in_process) = (worker.name.clone(), worker.in_process);
        let (engine, arrived) = (self.clone(), VecDeque::new());
        Place { engine, id, name, in_process, mailbox, arrived, keyed: false }
    }

    /// Takes back a lease that never reached its worker.
    async fn give_up(&self, token: &LeaseToken) {
        let (keeper, jitter) = (self.shared().store.keeper(), self.shared().jitter());
        let end =
            |cause| Command::EndLease { epoch: token.epoch, keeper, cause, live: Live::default(), jitter };
        let ended = match self.apply(token, end(LeaseEnd::Undelivered)).await {
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
    /// The worker can take `free` more jobs than it has taken so far; what it offered before is void. Of a server that is
    /// about to stop, one elsewhere gets nothing.
    pub fn offer(&self, free: usize) {
        let shared = self.engine.shared();
        let closed = !self.in_process && shared.stop.now() != Stopping::No;
        let free = if closed { 0 } else { free };
        let held = shared.leases.held_by(self.in_process, &self.name);
        if let Some(round) = shared.dispatch.offer(self.id, free, held) {
            claim(shared, round);
        }
    }

    /// Takes up to `count` jobs, and waits until there is one. Cancel safe. What more comes for the slots that are left lies
    /// ready for the next call; where this one is dropped before it has any, no more is claimed.
    pub async fn lease(&mut self, count: usize) -> Result<Vec<Leased>, Error> {
        self.offer(count);
        let mut asking = Asking { place: self, done: false };
        let first = asking.place.next().await?;
        let leased = std::iter::once(first).chain(std::iter::from_fn(|| asking.place.more())).collect();
        asking.done = true;
        Ok(leased)
    }

    /// Waits for a job. Cancel safe.
    pub async fn next(&mut self) -> Result<Leased, Error> {
        loop {
            while let Ok(leased) = self.mailbox.try_recv() {
                self.arrive(leased);
            }
            if self.keyed {
                self.engine.shared().leases.have_let_go().await;
                self.keyed = false;
            }
            if let Some(leased) = self.more() {
                return Ok(leased);
            }
            let leased = self.mailbox.recv().await;
            self.arrive(leased.ok_or_else(Error::stopping)?);
        }
    }

    /// Another job that had come when the last was waited for.
    pub fn more(&mut self) -> Option<Leased> {
        let leased = self.arrived.pop_front()?;
        let shared = self.engine.shared();
        if let Some(round) = shared.dispatch.taken(self.id, bytes(&leased.snapshot, &leased.checkpoint)) {
            claim(shared, round);
        }
        Some(leased)
    }

    fn arrive(&mut self, leased: Vec<Leased>) {
        self.keyed |= leased.iter().any(|leased| leased.snapshot.job.options.concurrency.is_some());
        self.arrived.extend(leased);
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

/// Somebody waits at a place. Whoever stops waiting takes nothing.
struct Asking<'a> {
    place: &'a mut Place,
    done: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.place.offer(0);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = self.engine.shared();
        shared.dispatch.leave(self.id);
        self.mailbox.close();
        let mut left: Vec<LeaseToken> = self.arrived.iter().map(|leased| leased.token).collect();
        while let Ok(leased) = self.mailbox.try_recv() {
            left.extend(leased.iter().map(|leased| leased.token));
        }
        give_up(shared, left);
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
    // A lease that has ended again by now, for example by a cancellation, is passed over.
    let kept: Vec<_> = dealt.claimed.iter().map(|claimed| shared.leases.orders(&claimed.token)).collect();
    let given = dealt.claimed.iter().zip(&kept).map(|(claimed, kept)| Given {
        taker: kept.as_ref().map(|_| claimed.taker),
        kind: &claimed.snapshot.job.kind,
        bytes: bytes(&claimed.snapshot, &claimed.checkpoint),
    });
    let given: Vec<Given<'_>> = given.collect();
    // Before anybody can take them.
    let next = shared.dispatch.settle(round, &given, dealt.exhausted);
    // Together, so that nobody goes away with a part.
    let mut parcels: Vec<(u64, Vec<Leased>)> = Vec::new();
    for (Claimed { taker, mut snapshot, token, checkpoint, .. }, kept) in dealt.claimed.into_iter().zip(kept)
    {
        let Some((orders, expire_time)) = kept else { continue };
        shared.settings.observers.tell(|observer| observer.leased(&mut snapshot));
        let leased = Leased { snapshot, token, orders, checkpoint, expire_time };
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
    next.into_iter().for_each(|next| claim(shared, next));
}

/// About how much memory a job takes that lies ready for its worker.
fn bytes(snapshot: &Snapshot, checkpoint: &Bytes) -> usize {
    JOB_BYTES + snapshot.input.as_ref().map_or(0, Bytes::len) + checkpoint.len()
}

fn again_later(shared: &Arc<Shared>, round: Round<Taker>, error: &Error) {
    tracing::warn!(%error, "no jobs can be leased; trying again");
    shared.dispatch.fail(&round);
    let errand = {
        let shared = Arc::clone(shared);
        async move {
            tokio::time::sleep(TRY_AGAIN).await;
            shared.dispatch.resume(&round).into_iter().for_each(|next| claim(&shared, next));
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
