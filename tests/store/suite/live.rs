//! What is latest-wins of an attempt, and of that attempt only.

use crate::bench::{Bench, KEEPER};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;

pub fn the_latest_that_was_kept_is_shown(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    assert_eq!(bench.snapshot(token.job).live, Live::default());

    for n in 1..=3 {
        bench.keep_live(token.job, 1, live(n));
        assert_eq!(bench.snapshot(token.job).live, live(n));
    }
    bench.step(token.job, cancel());
    bench.keep_live(token.job, 1, live(4));
    bench.reopen();

    assert_eq!(bench.snapshot(token.job).live, live(4));
    assert_eq!(bench.history(token.job).len(), 3, "nothing of it is in the history");
}

pub fn what_belongs_to_another_attempt_is_passed_over(bench: &mut Bench) {
    let first = bench.start_and_run(spec("work"));
    bench.step(first.job, end_lease(first, KEEPER, LeaseEnd::Restarted));
    bench.run(&["work"], 1);
    bench.keep_live(first.job, 2, live(1));

    bench.keep_live(first.job, 1, live(2));
    bench.keep_live(first.job, 3, live(3));
    bench.keep_live(first.job, 0, live(4));

    assert_eq!(bench.snapshot(first.job).live, live(1));
}

pub fn a_job_that_no_worker_has_keeps_nothing(bench: &mut Bench) {
    let pending = bench.start(spec("pending")).id;
    let provisional = bench.start(spec("provisional")).id;
    bench.claim(&["provisional"], 1);
    let retrying = bench.start_and_run(spec("retrying"));
    bench.step(retrying.job, fail(retrying));
    let succeeded = bench.start_and_run(spec("succeeded"));
    bench.step(succeeded.job, complete(succeeded));

    for (id, attempt) in [(pending, 0), (provisional, 0), (retrying.job, 1), (succeeded.job, 1)] {
        bench.keep_live(id, attempt, live(1));
        assert_eq!(bench.snapshot(id).live, Live::default(), "{}", bench.state(id));
    }
}

pub fn a_new_attempt_begins_with_nothing(bench: &mut Bench) {
    let first = bench.start_and_run(spec("work"));
    bench.keep_live(first.job, 1, live(1));
    bench.step(first.job, end_lease(first, KEEPER, LeaseEnd::Restarted));
    assert_eq!(bench.snapshot(first.job).live, live(1), "that of the last attempt, until there is another");

    let second = bench.claim(&["work"], 1)[0].token;
    assert_eq!(bench.snapshot(first.job).live, live(1), "it is not accepted yet");
    bench.step(first.job, accept(second));

    assert_eq!(bench.snapshot(first.job).live, Live::default());
    bench.reopen();
    assert_eq!(bench.snapshot(first.job).live, Live::default());
}

pub fn the_end_of_an_attempt_has_the_last_word(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.keep_live(token.job, 1, live(1));
    let done = Command::Complete { lease: token, result: "1".into(), live: live(2), output_bytes: None };

    bench.step(token.job, done);
    bench.reopen();

    assert_eq!(bench.snapshot(token.job).live, live(2));
}

pub fn an_end_that_says_nothing_leaves_what_was_kept(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.keep_live(token.job, 1, live(1));

    bench.step(token.job, complete(token));

    assert_eq!(bench.snapshot(token.job).live, live(1));
}

pub fn one_call_keeps_those_of_many_jobs(bench: &mut Bench) {
    let tokens = ["a", "b", "c"].map(|kind| bench.start_and_run(spec(kind)));
    let mut updates: Vec<LiveUpdate> = (1..)
        .zip(&tokens)
        .map(|(n, token)| LiveUpdate { job: token.job, attempt: 1, live: live(n) })
        .collect();
    // Of two for one job the later one wins.
    updates.push(LiveUpdate { live: live(9), ..updates[0].clone() });
    updates.insert(0, LiveUpdate { job: JobId::default(), attempt: 1, live: live(7) });

    bench.commit(vec![Operation::KeepLive(updates)]);

    assert_eq!(tokens.map(|token| bench.snapshot(token.job).live), [live(9), live(2), live(3)]);
}
