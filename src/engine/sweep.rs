//! The engine's own work, in the background: what is due, what a keeper owes its leases, and what makes a lost hint harmless.

use super::commit::received;
use super::leases::Overdue;
use super::{Engine, Error, Shared, claims};
use crate::job::{Command, Job, JobId, Keeper, LeaseEnd, LeaseToken, Live, Refusal, Snapshot, Timestamp};
use crate::store::{Operation, Parts, Store};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

/// How many jobs one sweep moves, so that it does not hold up a batch for long.
const SWEEP_LIMIT: usize = 500;
/// How many jobs one step forgets: about half a millisecond's work.
const PRUNE_LIMIT: usize = 32;
/// How long to wait between two steps, at least.
const PRUNE_PAUSE: Duration = Duration::from_millis(5);
/// How often leases are looked at, and so how late one may end.
const KEEPER_INTERVAL: Duration = Duration::from_millis(250);
/// A look that comes so much too late means that this process was stopped, or had no time to hear anybody.
const LATE: Duration = Duration::from_millis(250);
/// Of such a delay, a longer one is worth a word.
const STOPPED: Duration = Duration::from_secs(2);
/// How many seconds pass before workers that wait look again. A hint that was lost costs no more than this.
const LOOK_AGAIN: u64 = 5;
/// How often what is latest-wins is kept, and watched jobs are compared with the store.
const SECOND: Duration = Duration::from_secs(1);
/// How many attempts' latest-wins parts are kept at each of these times.
const KEPT_MAX: usize = 1_000;
/// How many jobs are asked for at once.
const PAGE: usize = 500;
/// How long to wait before something that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Knows when something is due next.
#[derive(Debug, Default)]
pub struct Sweeper {
    next_due: Mutex<Option<Timestamp>>,
    sooner: Notify,
}

impl Sweeper {
    /// Something is due then. Too early does no harm.
    pub fn due(&self, time: Timestamp) {
        let mut next_due = self.next_due.lock();
        if next_due.is_none_or(|next| time < next) {
            *next_due = Some(time);
            self.sooner.notify_one();
        }
    }

    /// Something may be due now.
    pub fn poke(&self) {
        self.due(Timestamp::default());
    }

    async fn wait(&self, shared: &Shared) {
        loop {
            let sooner = self.sooner.notified();
            let next_due = *self.next_due.lock();
            match next_due {
                Some(due) if due <= shared.clock.now() => {
                    // What becomes due from now on is told again.
                    *self.next_due.lock() = None;
                    return;
                }
                Some(due) => tokio::select! {
                    biased;
                    () = shared.clock.sleep_until(due) => {}
                    () = sooner => {}
                },
                None => sooner.await,
            }
        }
    }
}

/// Does what is due, for as long as the engine lives.
pub async fn sweep(shared: Arc<Shared>) {
    shared.sweeper.poke();
    loop {
        shared.sweeper.wait(&shared).await;
        // An attempt that is about to time out ends with the last that it reported.
        keep_live(&shared);
        let operation = Operation::Sweep { limit: SWEEP_LIMIT, chance: shared.chance() };
        if let Err(error) = received(shared.committer().queue(operation)).await {
            tracing::warn!(%error, "a sweep is tried again");
            tokio::time::sleep(TRY_AGAIN).await;
            shared.sweeper.poke();
        }
    }
}

/// Forgets jobs whose time to be kept is over, in steps so small that nobody has to wait for one.
pub async fn prune(shared: Arc<Shared>) {
    shared.pruner.poke();
    loop {
        shared.pruner.wait(&shared).await;
        let began = Instant::now();
        let operation = Operation::Prune { limit: PRUNE_LIMIT };
        if let Err(error) = received(shared.committer().queue(operation)).await {
            tracing::warn!(%error, "forgetting is tried again");
            tokio::time::sleep(TRY_AGAIN).await;
            shared.pruner.poke();
        }
        // Where others have the store busy, this takes longer, and waits the longer for its next turn.
        tokio::time::sleep(PRUNE_PAUSE.max(began.elapsed())).await;
    }
}

fn keep_live(shared: &Shared) {
    let changed = shared.leases.take_changed(KEPT_MAX);
    if !changed.is_empty() {
        // Nobody waits for it: what is lost is kept again with the next report.
        drop(shared.committer().queue(Operation::KeepLive(changed)));
    }
}

/// Ends the leases whose time is over.
pub async fn keep_leases(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(KEEPER_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = shared.clock.now();
    loop {
        tick.tick().await;
        let now = shared.clock.now();
        let late = now.since(last).saturating_sub(KEEPER_INTERVAL);
        last = now;
        if late > LATE {
            shared.leases.postpone(late);
        }
        if late > STOPPED {
            tracing::warn!(?late, "this process was stopped; every lease gets as much more time");
        }
        let end = |overdue: Overdue| {
            let Overdue { token, cause, live } = overdue;
            let command = end_lease(&shared, token.epoch, cause, live);
            (token, cause, shared.committer().apply(token.job, command))
        };
        let ended: Vec<_> = shared.leases.overdue(now).into_iter().map(end).collect();
        for (token, cause, answer) in ended {
            match answer.await {
                Ok(_) => tracing::info!(job = %token.job, ?cause, "a lease ended"),
                Err(error @ (Error::NotFound | Error::Refused(Refusal::LeaseLost))) => {
                    tracing::debug!(job = %token.job, %error, "a lease was over already");
                    lose(&shared, &token);
                }
                Err(error @ Error::Refused(_)) => {
                    tracing::debug!(job = %token.job, %error, "a lease goes on after all");
                }
                Err(error) => tracing::warn!(%error, job = %token.job, "a lease is ended again later"),
            }
        }
    }
}

/// Once a second: keeps what is latest-wins, and compares what is watched with the store. Every few seconds: lets workers
/// that wait look again.
pub async fn each_second(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval_at(Instant::now() + SECOND, SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for second in 1_u64.. {
        tick.tick().await;
        keep_live(&shared);
        if second.is_multiple_of(LOOK_AGAIN) {
            claims::look_again(&shared);
        }
        let watched = shared.hub.jobs();
        for page in watched.chunks(PAGE) {
            let (store, ids) = (Arc::clone(&shared.store), page.to_vec());
            let read = move || store.get(&ids, Parts::BASIC).map(|found| (ids, found));
            match shared.aside(read).await {
                Ok(Ok((ids, found))) => {
                    for (id, snapshot) in ids.into_iter().zip(found) {
                        shared.hub.compare(id, snapshot.as_ref().map(|snapshot| &snapshot.job));
                        if let Some(snapshot) = snapshot {
                            tell_position(&shared, &snapshot.job);
                        }
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "watched jobs cannot be read"),
                Err(error) => tracing::error!(%error, "watched jobs cannot be read"),
            }
        }
    }
}

/// Tells the watchers of a waiting job where it stands.
fn tell_position(shared: &Shared, job: &Job) {
    let now = shared.clock.now();
    if let Some(position) = shared.queues.position(shared.store.as_ref(), job, now) {
        let start = shared.queues.expected_start(job, position, now);
        shared.hub.publish_position(job, position, start, now);
    }
}

/// Takes over the leases that the store has and this process does not know: after a start, and after a commit of unknown
/// outcome.
pub async fn adopt_again(engine: Engine) {
    loop {
        engine.shared().adopt.notified().await;
        while let Err(error) = adopt(engine.shared()).await {
            tracing::warn!(%error, "leases are adopted again later");
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}

/// Gives those held elsewhere a fresh term, ends those whose process is gone, and forgets those that have ended.
pub async fn adopt(shared: &Arc<Shared>) -> Result<(), Error> {
    // Each of these was durable before the store is read now: one that is not found there has ended.
    let mut known = shared.leases.tokens();
    let mut after: Option<JobId> = None;
    loop {
        let store: Arc<dyn Store> = Arc::clone(&shared.store);
        let page = shared.aside(move || store.held(after, PAGE)).await??;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        // A claim that is durable may be about to be published: after the next commit it has been.
        shared.committer().barrier().await?;
        let now = shared.clock.now();
        let (mut gone, mut held) = (Vec::new(), Vec::new());
        for job in page {
            let (Some(token), Some(lease)) = (job.lease_token(), &job.lease) else { continue };
            known.remove(&token);
            match lease.in_process {
                _ if shared.leases.has(&token) => shared.leases.follow(&job, now),
                true => gone.push(job),
                false => held.push(job),
            }
        }
        if !gone.is_empty()
            && !shared.settings.observers.is_empty()
            && let Err(error) = tell_adopted(shared, &gone).await
        {
            tracing::warn!(%error, "nobody is told of attempts that have ended");
        }
        let ended: Vec<_> = gone
            .iter()
            .map(|job| {
                let command = end_lease(shared, job.epoch, LeaseEnd::Restarted, Live::default());
                shared.committer().apply(job.id, command)
            })
            .collect();
        for answer in ended {
            match answer.await {
                Err(error) if error.is_transient() => return Err(error),
                // One that cannot be ended now has ended, or cannot be read.
                Ok(_) | Err(_) => {}
            }
        }
        let found = tell_adopted(shared, &held).await?;
        for (job, found) in held.into_iter().zip(found) {
            // Progress goes on from where it was kept last.
            let live = found.map(|snapshot| snapshot.live).unwrap_or_default();
            shared.leases.insert(&job, live, now);
        }
    }
    known.iter().for_each(|token| lose(shared, token));
    // What was read may have ended before it was told.
    shared.settings.observers.tell(|observer| observer.compared(&|token| shared.leases.has(token)));
    Ok(())
}

fn lose(shared: &Shared, token: &LeaseToken) {
    shared.leases.lose(token);
    shared.settings.observers.tell(|observer| observer.lost(token));
}

/// Reads jobs, and tells the observers that they are held.
async fn tell_adopted(shared: &Arc<Shared>, jobs: &[Job]) -> Result<Vec<Option<Snapshot>>, Error> {
    let (store, ids) = (Arc::clone(&shared.store), jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    let found = shared.aside(move || store.get(&ids, Parts::BASIC)).await??;
    for (snapshot, job) in found.iter().zip(jobs) {
        if let Some(snapshot) = snapshot
            && snapshot.job.lease_token() == job.lease_token()
        {
            shared.settings.observers.tell(|observer| observer.adopted(snapshot));
        }
    }
    Ok(found)
}

fn end_lease(shared: &Shared, epoch: u32, cause: LeaseEnd, live: Live) -> Command {
    let keeper: Keeper = shared.store.keeper();
    Command::EndLease { epoch, keeper, cause, live, jitter: shared.jitter() }
}
