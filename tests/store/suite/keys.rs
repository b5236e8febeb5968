//! Concurrency keys: how many jobs of one may be ready to run or running at once.

use crate::bench::{Bench, KEEPER, ids};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::Claimed;

/// Grants what there is to grant and leases all that is ready.
fn sweep_and_run(bench: &mut Bench) -> Vec<Claimed> {
    bench.sweep();
    bench.run(&["work"], 50)
}

pub fn only_a_sweep_makes_a_job_with_a_key_ready(bench: &mut Bench) {
    let job = bench.start(keyed("key", 1));

    assert!(bench.run(&["work"], 1).is_empty());
    let swept = bench.sweep();

    assert_eq!(swept.transitions.len(), 1);
    assert_eq!(swept.transitions[0].events, [], "to its client it is pending all the time");
    assert_eq!(ids(&bench.run(&["work"], 1)), [job.id]);
}

pub fn a_key_never_exceeds_its_limit_and_nobody_starves(bench: &mut Bench) {
    let mut waiting: Vec<JobId> = (0..11).map(|_| bench.start(keyed("key", 3)).id).collect();
    let other = bench.start(keyed("other", 1)).id;
    let mut running = sweep_and_run(bench);
    assert_eq!(ids(&running).last(), Some(&other));
    bench.step(other, complete(running.pop().unwrap().token));

    let mut served = Vec::new();
    while !running.is_empty() {
        assert!(running.len() <= 3);
        assert!(sweep_and_run(bench).is_empty(), "all places are taken");
        let done = running.remove(0);
        bench.step(done.token.job, complete(done.token));
        served.push(done.token.job);
        assert!(served.len() <= waiting.len());
        if served.len() % 4 == 0 {
            bench.reopen();
        }
        running.extend(sweep_and_run(bench));
    }

    waiting.sort_unstable();
    assert_eq!(served, waiting, "in their order");
}

pub fn the_best_blocked_job_gets_the_place(bench: &mut Bench) {
    let holder = bench.start_and_run(keyed("key", 1));
    let [low, first, second, high] = [-1, 0, 0, 1].map(|priority| {
        let mut spec = keyed("key", 1);
        spec.options.priority = priority;
        bench.start(spec).id
    });

    let mut served = Vec::new();
    let mut token = holder;
    for _ in 0..4 {
        bench.step(token.job, complete(token));
        token = sweep_and_run(bench)[0].token;
        served.push(token.job);
    }

    assert_eq!(served, [high, first, second, low]);
}

pub fn each_job_waits_for_its_own_limit(bench: &mut Bench) {
    let [one, three, two] = [1, 3, 2].map(|limit| bench.start(keyed("key", limit)).id);

    let first = sweep_and_run(bench);
    assert_eq!(ids(&first), [one, three], "one is alone, three has room beside it, two has not");
    bench.step(one, complete(first[0].token));
    let second = sweep_and_run(bench);
    assert_eq!(ids(&second), [two]);
    let alone = bench.start(keyed("key", 1)).id;
    bench.step(three, complete(first[1].token));
    assert!(sweep_and_run(bench).is_empty());
    bench.step(two, complete(second[0].token));
    assert_eq!(ids(&sweep_and_run(bench)), [alone]);
}

pub fn keys_are_each_tenants_own(bench: &mut Bench) {
    let jobs = ["a", "b", "a", "ab"].map(|tenant| bench.start(of_tenant(tenant, keyed("key", 1))).id);
    let near = bench.start(of_tenant("a", keyed("bkey", 1))).id;

    let mut running = ids(&sweep_and_run(bench));

    running.sort_unstable();
    assert_eq!(running, [jobs[0], jobs[1], jobs[3], near]);
}

pub fn whoever_leaves_gives_the_place_back(bench: &mut Bench) {
    type Leave = fn(&mut Bench, LeaseToken);
    let ways: [(&str, Leave); 6] = [
        ("success", |bench, token| drop(bench.step(token.job, complete(token)))),
        ("failure", |bench, token| drop(bench.step(token.job, fail_for(token, 60 * SECOND)))),
        ("cancellation", |bench, token| {
            bench.step(token.job, cancel());
            bench.step(token.job, stop(token));
        }),
        ("a grace period that ended", |bench, token| {
            bench.step(token.job, cancel());
            bench.wait(10 * SECOND);
        }),
        ("a release with a delay", |bench, token| drop(bench.step(token.job, release(token, 60 * SECOND)))),
        ("a cancellation before its start", |bench, token| {
            bench.step(token.job, end_lease(token, KEEPER, LeaseEnd::Restarted));
            bench.step(token.job, cancel());
        }),
    ];
    for (way, leave) in ways {
        let holder = bench.start_and_run(keyed(way, 1));
        let next = bench.start(keyed(way, 1)).id;
        assert!(sweep_and_run(bench).is_empty(), "{way}");

        leave(bench, holder);
        bench.reopen();
        let mut freed = sweep_and_run(bench);
        // The end of a grace period is itself a sweep's work.
        freed.extend(sweep_and_run(bench));
        assert_eq!(ids(&freed), [next], "{way}");
    }
}

pub fn whoever_stays_keeps_the_place(bench: &mut Bench) {
    let holder = bench.start(keyed("key", 1)).id;
    let next = bench.start(keyed("key", 1)).id;
    bench.sweep();

    let still_taken = |bench: &mut Bench, while_: &str| {
        bench.reopen();
        assert_eq!(bench.sweep().transitions, [], "{while_}");
        assert_eq!(bench.job(next).place(), Place::Blocked, "{while_}");
    };
    still_taken(bench, "it is ready");
    let provisional = bench.claim(&["work"], 9).remove(0).token;
    still_taken(bench, "it has a claim that is not accepted");
    bench.step(holder, end_lease(provisional, KEEPER, LeaseEnd::Unaccepted));
    still_taken(bench, "it is ready again");
    let running = bench.run(&["work"], 9).remove(0).token;
    bench.step(holder, release(running, std::time::Duration::ZERO));
    still_taken(bench, "it was given back at once");
    let running = bench.run(&["work"], 9).remove(0).token;
    bench.step(holder, end_lease(running, KEEPER, LeaseEnd::Restarted));
    still_taken(bench, "the server restarted");
    let running = bench.run(&["work"], 9).remove(0).token;
    bench.step(holder, end_lease(running, KEEPER, LeaseEnd::Expired));
    still_taken(bench, "its worker was lost");
    bench.run(&["work"], 9);
    bench.step(holder, cancel());
    still_taken(bench, "it is being cancelled");
}

pub fn places_count_against_the_limit_of_a_sweep(bench: &mut Bench) {
    let jobs: Vec<JobId> = (0..3).map(|n| bench.start(keyed(&n.to_string(), 1)).id).collect();

    let first = bench.sweep_some(2);
    let second = bench.sweep_some(2);

    assert_eq!(first.transitions.iter().map(|step| step.job.id).collect::<Vec<_>>(), jobs[..2]);
    assert_eq!(first.next_due, Some(bench.now));
    assert_eq!(second.transitions.iter().map(|step| step.job.id).collect::<Vec<_>>(), jobs[2..]);
    assert_eq!(second.next_due, None);
}
