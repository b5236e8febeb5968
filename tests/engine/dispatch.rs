//! A worker that waits for work has it as soon as there is some.

use crate::bench::*;
use futures_util::FutureExt;
use longhaul::engine::{Engine, Leased, Order, Worker};
use longhaul::job::*;
use longhaul::store::{Operation, Store, Submission};
use longhaul::worker::{JobSource, LocalSource};
use rstest::rstest;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A worker that waits, until it has got a job.
async fn waiting(bench: &Bench, worker: Worker) -> JoinHandle<Leased> {
    let engine: Engine = bench.engine.clone();
    let waiter = tokio::spawn(async move { lease(&engine, &worker, 1).await.unwrap().remove(0) });
    bench.settle().await;
    assert!(!waiter.is_finished());
    waiter
}

async fn got(waiter: JoinHandle<Leased>) -> JobId {
    within(waiter).await.unwrap().token.job
}

fn keyed(options: &mut Options) {
    options.concurrency = Some(Concurrency { key: "gpu".into(), limit: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_start_wakes_a_worker_that_waits() {
    let bench = Bench::new().await;
    let waiter = waiting(&bench, pool()).await;

    let job = bench.start().await;

    assert_eq!(got(waiter).await, job);
}

#[tokio::test(start_paused = true)]
async fn a_start_wakes_a_call_from_elsewhere_that_had_looked_in_vain() {
    let bench = Bench::new().await;
    let mut call = bench.engine.enlist(&remote());
    call.offer(1);
    within(call.looked()).await.unwrap();
    assert!(at_once(call.next()).await.is_none());

    let job = bench.start().await;

    // Time stands still, so nobody looks again of himself.
    assert_eq!(within(call.next()).await.unwrap().token.job, job);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_becomes_due_wakes_a_worker_that_waits() {
    let bench = Bench::new().await;
    let leased = bench.run().await;
    let delay = 2 * SECOND;
    within(bench.engine.fail(&leased.token, failure(), Some(delay))).await.unwrap();
    let waiter = waiting(&bench, pool()).await;

    bench.pass(delay).await;

    assert_eq!(got(waiter).await, leased.token.job);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_becomes_free_wakes_a_worker_that_waits() {
    let bench = Bench::new().await;
    bench.start_with(keyed).await;
    let first = bench.lease().await;
    let second = bench.start_with(keyed).await;
    let waiter = waiting(&bench, pool()).await;

    bench.complete(&first.token).await;

    assert_eq!(got(waiter).await, second);
}

#[tokio::test(start_paused = true)]
async fn no_job_of_a_key_begins_before_the_handler_that_lost_its_place_has_let_go() {
    let bench = Bench::new().await;
    let bounded = |options: &mut Options| {
        keyed(options);
        options.start_to_close_timeout = Some(SECOND);
        options.retry.maximum_attempts = 1;
    };
    bench.start_with(bounded).await;
    let Leased { orders: handler, .. } = bench.lease().await;
    let second = bench.start_with(bounded).await;
    let third = bench.start_with(keyed).await;

    let waiter = waiting(&bench, pool()).await;
    bench.pass(SECOND * 3 / 2).await;
    assert_eq!(*handler.borrow(), Order::Lost);
    assert_eq!(bench.state(second).await, State::Running);
    assert!(!waiter.is_finished(), "two of one key are at work");
    drop(handler);
    let Leased { token, orders: blocked, .. } = within(waiter).await.unwrap();
    assert_eq!(token.job, second);

    // One that never lets go is not waited for much longer.
    let waiter = waiting(&bench, pool()).await;
    bench.pass(3 * SECOND).await;
    assert_eq!(*blocked.borrow(), Order::Lost);
    assert_eq!(got(waiter).await, third);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_of_the_job_before_it_wakes_a_worker_that_waits() {
    let bench = Bench::new().await;
    let mut other = spec("other");
    keyed(&mut other.options);
    let first = bench.start_spec(other).await;
    bench.settle().await;
    let second = bench.start_with(keyed).await;
    let waiter = waiting(&bench, pool()).await;

    within(bench.engine.cancel(first, String::new(), None)).await.unwrap();

    assert_eq!(got(waiter).await, second);
}

#[tokio::test(start_paused = true)]
async fn two_workers_that_wait_get_one_of_two_jobs_each() {
    let bench = Bench::new().await;
    let (one, two) = (waiting(&bench, pool()).await, waiting(&bench, pool()).await);

    let mut started = [bench.start().await, bench.start().await];

    let mut leased = [got(one).await, got(two).await];
    started.sort();
    leased.sort();
    assert_eq!(leased, started);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_goes_away_passes_its_hint_on() {
    let bench = Bench::new().await;
    let worker = pool();
    let mut first = Box::pin(lease(&bench.engine, &worker, 1));
    for _ in 0..2 {
        // It claims in vain, then it waits.
        assert!(at_once(&mut first).await.is_none());
        bench.settle().await;
    }
    let second = waiting(&bench, pool()).await;

    let job = bench.start().await;
    bench.settle().await;
    assert!(!second.is_finished());
    drop(first);

    assert_eq!(got(second).await, job);
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_another_kind_takes_no_hint() {
    let bench = Bench::new().await;
    let other = waiting(&bench, Worker { kinds: ["other".to_owned()].into(), ..pool() }).await;
    let waiter = waiting(&bench, pool()).await;

    let job = bench.start().await;

    assert_eq!(got(waiter).await, job);
    assert!(!other.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_was_lost_costs_a_moment() {
    let bench = Bench::new().await;
    let waiter = waiting(&bench, pool()).await;

    let submission = Submission { spec: Arc::new(spec("work")), chance: 1 };
    bench.store.commit(vec![Operation::Submit(vec![submission])], bench.engine.now()).unwrap();
    bench.settle().await;
    assert!(!waiter.is_finished());
    bench.pass(5 * SECOND).await;

    assert!(waiter.is_finished());
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn tenants_take_turns_however_much_one_of_them_starts(
    #[values(Kept::Memory, Kept::Sqlite)] kept_in: Kept,
) {
    let bench = Bench::on(kept_in).await;
    let of = |tenant: &str| Spec { tenant: tenant.into(), ..spec("work") };
    for _ in 0..300 {
        bench.start_spec(of("flood")).await;
    }
    for _ in 0..3 {
        for tenant in ["a", "b"] {
            bench.start_spec(of(tenant)).await;
        }
    }

    // By the handful within one claim, and one by one from claim to claim.
    let mut served: Vec<String> = Vec::new();
    for count in [6, 1, 1, 1] {
        let leased = within(lease(&bench.engine, &pool(), count)).await.unwrap();
        served.extend(leased.into_iter().map(|leased| leased.snapshot.job.tenant));
    }

    for round in served.chunks(3) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, ["a", "b", "flood"], "{served:?}");
    }
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn the_best_job_of_a_key_comes_first_and_each_one_comes(
    #[values(Kept::Memory, Kept::Sqlite)] kept_in: Kept,
) {
    let bench = Bench::on(kept_in).await;
    let prioritized = |priority| {
        move |options: &mut Options| {
            keyed(options);
            options.priority = priority;
        }
    };
    let running = bench.start_with(keyed).await;
    bench.settle().await;
    let mut jobs = Vec::new();
    for priority in [0, -1, 5, 0, 5, -1] {
        jobs.push((priority, bench.start_with(prioritized(priority)).await));
    }
    jobs.sort_by_key(|(priority, id)| (-priority, *id));

    let mut order = Vec::new();
    for _ in 0..=jobs.len() {
        let leased = bench.lease().await;
        order.push(leased.token.job);
        bench.complete(&leased.token).await;
    }

    let expected: Vec<JobId> = [running].into_iter().chain(jobs.into_iter().map(|(_, id)| id)).collect();
    assert_eq!(order, expected);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_reached_a_worker_waits_as_long_as_it_takes() {
    let bench = Bench::new().await;
    let job = bench.start().await;

    for _ in 0..2 * limits::UNACCEPTED_MAX {
        let place = bench.engine.enlist(&remote());
        place.offer(1);
        bench.settle().await;
        drop(place);
        bench.settle().await;
    }
    let leased = bench.lease_for(&remote()).await;
    assert!(leased.token.epoch > 2 * limits::UNACCEPTED_MAX, "it was claimed each time");
    bench.pass(10 * SECOND).await;

    assert_eq!(bench.state(job).await, State::Pending);
}

#[tokio::test(start_paused = true)]
async fn nobody_elsewhere_is_given_a_job_by_a_server_that_stops() {
    let bench = Bench::new().await;
    let job = bench.start().await;
    bench.engine.drain(SECOND);

    let place = bench.engine.enlist(&remote());
    place.offer(1);
    bench.settle().await;

    assert_eq!(bench.get(job).await.job.epoch, 0);
    assert_eq!(bench.lease().await.token.job, job, "the pool has a time of its own");
}

#[tokio::test(start_paused = true)]
async fn what_comes_at_once_lies_ready_for_a_pool_and_is_given_back_where_it_wants_no_more() {
    let bench = Bench::new().await;
    let (source, kinds) = (LocalSource::new(bench.engine.clone(), "pool"), pool().kinds);
    let mut first = Box::pin(source.lease(&kinds, 3));
    assert!((&mut first).now_or_never().is_none());

    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(bench.start().await);
    }
    let begun = within(first).await.unwrap().len();
    bench.settle().await;
    let more = if begun < 3 { within(source.lease(&kinds, 3 - begun)).await.unwrap().len() } else { 0 };
    assert_eq!(begun + more, 3);
    for job in &jobs {
        assert_eq!(bench.reasons(*job).await, [reason::CREATED, reason::ACCEPTED]);
    }

    let last = bench.start().await;
    within(source.drain()).await;
    assert!(source.lease(&kinds, 1).now_or_never().is_none(), "it waits for its end");
    bench.settle().await;
    assert_eq!(bench.reasons(last).await, [reason::CREATED], "it took no place any more");
}

/// Starts jobs so large that no two are claimed at once.
async fn start_large(bench: &Bench, count: usize) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for _ in 0..count {
        let input = vec![b' '; 900 << 10].into();
        jobs.push(bench.start_spec(Spec { input, ..spec("work") }).await);
    }
    jobs
}

#[tokio::test(start_paused = true)]
async fn large_jobs_are_there_one_after_the_other_without_a_pause() {
    let bench = Bench::new().await;
    let mut place = bench.engine.enlist(&remote());
    // That nothing is ready is known, so that five are all that is known to be.
    place.offer(1);
    within(place.looked()).await.unwrap();
    place.offer(0);
    let jobs = start_large(&bench, 5).await;

    place.offer(5);
    for job in jobs {
        assert_eq!(within(place.next()).await.unwrap().token.job, job);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_take_its_jobs_keeps_no_more_than_a_few_from_others() {
    let bench = Bench::new().await;
    let jobs = start_large(&bench, 20).await;
    let mut slow = bench.engine.enlist(&remote());
    slow.offer(10_000);
    bench.settle().await;

    let mut claimed = Vec::new();
    for job in &jobs {
        claimed.extend((bench.get(*job).await.job.epoch > 0).then_some(*job));
    }
    assert_eq!(claimed, jobs[..1]);

    // Once it takes them, all of them come.
    for job in &jobs[..10] {
        assert_eq!(within(slow.next()).await.unwrap().token.job, *job);
        bench.settle().await;
    }
    drop(slow);
    bench.settle().await;
    let rest = bench.lease_for(&remote()).await;
    assert_eq!(rest.token.job, jobs[10], "what it had not taken is free at once");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_came_together_are_handed_out_one_by_one_and_the_others_are_given_back() {
    let bench = Bench::new().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(bench.start().await);
    }
    let mut place = bench.engine.enlist(&remote());
    place.offer(3);
    bench.settle().await;

    let first = within(place.next()).await.unwrap();
    drop(place);
    bench.settle().await;
    let others = within(lease(&bench.engine, &remote(), 3)).await.unwrap();

    assert_eq!(first.token.job, jobs[0]);
    assert_eq!(others.iter().map(|leased| leased.token.job).collect::<Vec<_>>(), jobs[1..]);
}
