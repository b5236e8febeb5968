//! Who gets which job.

use crate::bench::{Bench, KEEPER, ids};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;
use std::collections::BTreeSet;
use std::sync::Arc;

pub fn claims_go_by_priority_then_creation(bench: &mut Bench) {
    let priorities = [0, 5, -3, 5, 0, 100, -100];
    let jobs: Vec<JobId> =
        priorities.map(|priority| bench.start(tuned("work", |o| o.priority = priority)).id).into();

    let first = ids(&bench.claim(&["work"], 3));
    bench.reopen();
    let second = ids(&bench.claim(&["work"], 10));

    assert_eq!(first, [jobs[5], jobs[1], jobs[3]]);
    assert_eq!(second, [jobs[0], jobs[4], jobs[2], jobs[6]]);
    assert!(bench.claim(&["work"], 1).is_empty());
}

pub fn only_jobs_of_the_wanted_kinds_are_claimed(bench: &mut Bench) {
    let [a, b, c] = ["a", "b", "c"].map(|kind| bench.start(spec(kind)).id);
    let urgent = bench.start(tuned("c", |options| options.priority = 1)).id;

    assert!(bench.claim(&[], 5).is_empty());
    assert!(bench.claim(&["d", "A", ""], 5).is_empty());
    assert_eq!(ids(&bench.claim(&["c", "a"], 5)), [urgent, a, c]);
    assert_eq!(ids(&bench.claim(&["c", "b", "a"], 5)), [b]);
}

pub fn tenants_take_turns_within_a_claim_and_from_claim_to_claim(bench: &mut Bench) {
    for (tenant, count) in [("a", 5), ("b", 2), ("c", 1)] {
        for priority in 0..count {
            // However urgent, it is its own tenant's turn that it goes by.
            bench.start(of_tenant(tenant, tuned("work", |options| options.priority = priority)));
        }
    }
    bench.start(of_tenant("b", spec("other")));

    let mut turns = Vec::new();
    for count in [2, 2, 1, 1, 9] {
        let claimed = bench.claim(&["work"], count);
        turns.extend(claimed.into_iter().map(|claimed| claimed.snapshot.job.tenant));
    }

    assert_eq!(turns, ["a", "b", "c", "a", "b", "a", "a", "a"]);
}

pub fn no_job_is_claimed_twice(bench: &mut Bench) {
    let all: BTreeSet<JobId> = (0..40).map(|_| bench.start(spec("work")).id).collect();
    let wishes: Vec<Operation> = (0..40).map(|n| bench.wish(&["work"], 2, n % 2 == 0)).collect();
    let (store, now) = (bench.share(), bench.now);

    let claimed: Vec<JobId> = std::thread::scope(|scope| {
        let claimants: Vec<_> = wishes
            .chunks(10)
            .map(|wishes| {
                let store = Arc::clone(&store);
                scope.spawn(move || store.commit(wishes.to_vec(), now).unwrap())
            })
            .collect();
        let outcomes = claimants.into_iter().flat_map(|claimant| claimant.join().unwrap());
        outcomes
            .flat_map(|outcome| match outcome {
                Outcome::Claim(dealt) => ids(&dealt.claimed),
                other => panic!("not the outcome of a claim: {other:?}"),
            })
            .collect()
    });

    assert_eq!(claimed.len(), all.len());
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), all);
}

pub fn a_claim_comes_with_all_that_its_worker_needs(bench: &mut Bench) {
    let wanted = Spec { input: "{\"n\": 1}".into(), ..named("r", 1, spec("work")) };
    let job = bench.start(Spec { labels: [("a".into(), "b".into())].into(), ..wanted });
    let mut wish = wish(&["work"], [u64::MAX, 5], false);
    wish.slots[0].term = Some(60 * SECOND);

    let outcome = bench.commit(vec![Operation::Claim(wish)]).remove(0);

    let Outcome::Claim(Dealt { claimed, exhausted }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((claimed.len(), exhausted), (1, true));
    assert_eq!((claimed[0].taker, claimed[0].snapshot.job.lease_term), (0, Some(60 * SECOND)));
    assert_eq!(claimed[0].token, LeaseToken { job: job.id, epoch: 1, secret: u64::MAX });
    assert_eq!(claimed[0].snapshot, bench.snapshot(job.id));
    let lease = claimed[0].snapshot.job.lease.clone().unwrap();
    let expected = Lease {
        secret: u64::MAX,
        worker: "worker".into(),
        keeper: KEEPER,
        in_process: false,
        accepted: false,
    };
    assert_eq!(lease, expected);
}

pub fn a_provisional_claim_leaves_no_trace(bench: &mut Bench) {
    let job = bench.start(spec("work"));

    let first = bench.claim(&["work"], 1).remove(0);
    assert_eq!(first.events, []);
    assert_eq!(bench.history(job.id), [job.first_event()]);
    assert_eq!((bench.state(job.id), bench.job(job.id).attempt), (State::Pending, 0));
    assert!(bench.claim(&["work"], 1).is_empty(), "nobody else gets it meanwhile");

    bench.step(job.id, end_lease(first.token, KEEPER, LeaseEnd::Unaccepted));
    let second = bench.claim(&["work"], 1).remove(0);
    assert_eq!(bench.history(job.id), [job.first_event()]);
    assert_eq!(second.token.epoch, 2);

    let begun = bench.step(job.id, accept(second.token));
    assert_eq!(bench.history(job.id), [vec![job.first_event()], begun.events].concat());
    assert_eq!((bench.state(job.id), bench.job(job.id).attempt), (State::Running, 1));
}

pub fn a_claim_in_the_process_begins_the_attempt(bench: &mut Bench) {
    let job = bench.start(spec("work"));

    let claimed = bench.run(&["work"], 1).remove(0);

    assert_eq!(claimed.snapshot, bench.snapshot(job.id));
    assert_eq!((claimed.snapshot.job.state, claimed.snapshot.job.attempt), (State::Running, 1));
    assert!(claimed.snapshot.job.lease.is_some_and(|lease| lease.in_process && lease.accepted));
    assert_eq!(bench.history(job.id), [vec![job.first_event()], claimed.events].concat());
}

pub fn only_a_sweep_makes_a_scheduled_job_ready(bench: &mut Bench) {
    let job = bench.start(scheduled(bench.now.after(SECOND)));

    bench.wait(10 * SECOND);
    assert!(bench.claim(&["work"], 1).is_empty());
    bench.sweep();

    assert_eq!(ids(&bench.claim(&["work"], 1)), [job.id]);
}

pub fn a_job_that_has_ended_or_waits_is_never_claimed(bench: &mut Bench) {
    let cancelled = bench.start(spec("work")).id;
    bench.step(cancelled, cancel());
    let succeeded = bench.start_and_run(spec("work"));
    bench.step(succeeded.job, complete(succeeded));
    let retrying = bench.start_and_run(spec("work"));
    bench.step(retrying.job, fail(retrying));
    let released = bench.start_and_run(spec("work"));
    bench.step(released.job, release(released, SECOND));
    let running = bench.start_and_run(spec("work"));

    assert!(bench.claim(&["work"], 9).is_empty());
    bench.reopen();
    assert!(bench.claim(&["work"], 9).is_empty());

    bench.step(running.job, end_lease(running, KEEPER, LeaseEnd::Restarted));
    assert_eq!(ids(&bench.claim(&["work"], 9)), [running.job]);
}

pub fn a_claim_of_several_workers_is_dealt_in_the_order_of_its_slots(bench: &mut Bench) {
    let jobs: Vec<JobId> = (0..3).map(|_| bench.start(spec("work")).id).collect();
    let slot = |taker: u64, in_process: bool| Slot {
        taker,
        worker: format!("worker {taker}"),
        secret: 70 + taker,
        term: (!in_process).then_some(taker as u32 * SECOND),
        in_process,
    };
    let slots = vec![slot(9, false), slot(2, true), slot(9, false), slot(5, false)];

    let claim = Claim { slots, ..wish(&["work"], [], false) };
    let outcome = bench.commit(vec![Operation::Claim(claim)]).remove(0);
    bench.reopen();

    let Outcome::Claim(Dealt { claimed, exhausted }) = outcome else { panic!("{outcome:?}") };
    assert!(exhausted);
    let seen: Vec<_> = claimed.iter().map(|one| (one.token.job, one.taker, one.token.secret)).collect();
    assert_eq!(seen, [(jobs[0], 9, 79), (jobs[1], 2, 72), (jobs[2], 9, 79)]);
    for (one, (worker, term)) in
        claimed.iter().zip([("worker 9", Some(9)), ("worker 2", None), ("worker 9", Some(9))])
    {
        let job = bench.snapshot(one.token.job).job;
        assert_eq!(job.lease.as_ref().unwrap().worker, worker);
        assert_eq!(job.lease_term, term.map(|seconds| seconds * SECOND));
        assert_eq!(job, one.snapshot.job);
    }
}

pub fn a_claim_takes_no_more_bytes_than_it_may_and_at_least_one_job(bench: &mut Bench) {
    for size in [10, 4, 4, 4, 1] {
        bench.start(Spec { input: vec![b'x'; size].into(), ..spec("work") });
    }
    let dealt = |bytes| {
        let claim = Claim { bytes, ..wish(&["work"], 1..6, false) };
        match bench.commit(vec![Operation::Claim(claim)]).remove(0) {
            Outcome::Claim(dealt) => (dealt.claimed.len(), dealt.exhausted),
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(dealt(8), (1, false));
    assert_eq!(dealt(8), (2, false));
    assert_eq!(dealt(8), (2, true));
}

pub fn a_claim_says_that_nothing_is_left_only_where_that_is_so(bench: &mut Bench) {
    for tenant in ["a", "a", "b"] {
        bench.start(of_tenant(tenant, spec("work")));
    }
    let dealt = |count: u64| match bench
        .commit(vec![Operation::Claim(wish(&["work", "other"], 0..count, false))])
        .remove(0)
    {
        Outcome::Claim(dealt) => (dealt.claimed.len(), dealt.exhausted),
        other => panic!("{other:?}"),
    };

    assert_eq!(dealt(2), (2, false));
    assert_eq!(dealt(2), (1, true));
    assert_eq!(dealt(2), (0, true));
}
