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
                Outcome::Claim(claimed) => ids(&claimed),
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
    let wish = Claim {
        worker: "a worker".into(),
        kinds: ["work".to_owned()].into(),
        secrets: vec![u64::MAX, 5],
        in_process: false,
    };

    let outcome = bench.commit(vec![Operation::Claim(wish)]).remove(0);

    let Outcome::Claim(claimed) = outcome else { panic!("{outcome:?}") };
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].token, LeaseToken { job: job.id, epoch: 1, secret: u64::MAX });
    assert_eq!(claimed[0].snapshot, bench.snapshot(job.id));
    let lease = claimed[0].snapshot.job.lease.clone().unwrap();
    let expected = Lease {
        secret: u64::MAX,
        worker: "a worker".into(),
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
