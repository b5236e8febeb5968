//! What is done in one transaction, and what becomes of it when nobody knows whether it was.

use crate::bench::{Bench, KEEPER};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;

pub fn a_rejection_leaves_the_others_in_place(bench: &mut Bench) {
    bench.start(named("r", 1, spec("work")));
    let token = bench.start_and_run(spec("other"));
    let (good, bad) = (bench.submission([spec("new")]), bench.submission([named("r", 2, spec("work"))]));

    let outcomes = bench.commit(vec![
        apply(token.job, output(token, 0, "abc")),
        apply(token.job, output(token, 9, "xyz")),
        bad,
        good,
        apply(JobId::default(), cancel()),
        apply(token.job, output(token, 3, "def")),
    ]);

    let rejected: Vec<bool> = outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Apply(Err(_)) | Outcome::Submit(Err(_))))
        .collect();
    assert_eq!(rejected, [false, true, true, false, true, false]);
    bench.reopen();
    assert_eq!(bench.job(token.job).emitted.channels[0].bytes, 6);
    assert_eq!(bench.history(token.job).len(), 4);
    assert_eq!(bench.claim(&["new"], 2).len(), 1);
}

pub fn a_refusal_keeps_nothing_of_what_it_began(bench: &mut Bench) {
    let job = bench.start(spec("work"));
    let token = bench.claim(&["work"], 1)[0].token;
    let before = bench.all_of(job.id);

    // The lease would be accepted and the output reset before the gap is found.
    let refused = bench.apply(job.id, output(token, 5, "abc"));

    assert_eq!(refused, Err(Refusal::OutputGap { expected: 0 }.into()));
    assert_eq!(bench.all_of(job.id), before);
}

pub fn operations_are_carried_out_in_their_order(bench: &mut Bench) {
    let [first, second] = ["first", "second"].map(|kind| bench.start(spec(kind)).id);
    let wishes = ["first", "second"].map(|kind| bench.wish(&[kind], 1, true));
    let [claim_first, claim_second] = wishes;

    let outcomes =
        bench.commit(vec![apply(first, cancel()), claim_first, claim_second, apply(second, cancel())]);

    assert!(matches!(&outcomes[1], Outcome::Claim(dealt) if dealt.claimed.is_empty()));
    assert!(matches!(&outcomes[2], Outcome::Claim(dealt) if dealt.claimed.len() == 1));
    assert_eq!((bench.state(first), bench.state(second)), (State::Cancelled, State::Cancelling));
}

pub fn what_comes_in_with_a_batch_is_there_for_the_rest_of_it(bench: &mut Bench) {
    let new = bench.submission([named("r", 1, spec("work")), keyed("key", 1)]);
    let repeated = bench.submission([named("r", 1, spec("work"))]);
    let claim = bench.wish(&["work"], 5, true);

    let outcomes = bench.commit(vec![new, repeated, Operation::Sweep { limit: 9, chance: 1 }, claim]);

    let Outcome::Submit(Ok(submitted)) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(matches!(submitted[0], Submitted::Repeated(_)));
    let Outcome::Claim(Dealt { claimed, .. }) = &outcomes[3] else { panic!("{outcomes:?}") };
    assert_eq!(claimed.len(), 2);
    assert_eq!(bench.commit(vec![]).len(), 0);
}

/// Commits, and then says that it does not know. So whoever asked has to ask again.
fn commit_unheard(bench: &Bench, batch: &[Operation]) {
    let committed = bench.commit(batch.to_vec());
    drop(committed);
}

/// Every job, with all that can be read of it.
fn everything(bench: &Bench) -> Vec<(Snapshot, Vec<Event>)> {
    let listed =
        bench.store().list(DEFAULT_TENANT, &Filter::default(), first(1000), Parts::BASIC).unwrap().jobs;
    listed.into_iter().map(|snapshot| bench.all_of(snapshot.job.id)).collect()
}

/// Repeats what was committed without anybody hearing of it: at once, after a restart, and late.
fn assert_repeatable(bench: &mut Bench, batch: Vec<Operation>) {
    let before = everything(bench);
    commit_unheard(bench, &batch);
    let after = everything(bench);
    assert_ne!(after, before, "{batch:?} does nothing");

    for (reopen, later) in [(false, MICROSECOND), (true, MICROSECOND), (false, 3 * SECOND)] {
        bench.wait(later);
        if reopen {
            bench.reopen();
        }
        let repeated = bench.commit(batch.clone());
        assert_eq!(everything(bench), after, "{batch:?} again");
        for outcome in repeated {
            match outcome {
                Outcome::Apply(outcome) => assert_eq!(outcome.expect("a repeat is answered").events, []),
                Outcome::Submit(outcome) => {
                    let submitted = outcome.expect("a repeat is answered");
                    assert!(submitted.iter().all(|one| matches!(one, Submitted::Repeated(_))));
                }
                Outcome::Claim(dealt) => assert!(dealt.claimed.is_empty()),
                Outcome::Sweep(swept) => assert_eq!(swept.transitions, []),
                Outcome::KeepLive | Outcome::Probe => {}
                Outcome::Retry(outcome) => {
                    let submitted = outcome.expect("a repeat is answered");
                    assert!(matches!(submitted, Submitted::Repeated(_)), "{submitted:?}");
                }
                Outcome::Delete(outcome) => assert_eq!(outcome, Err(Rejection::NotFound)),
                Outcome::Prune(pruned) => assert_eq!(pruned.forgotten, []),
            }
        }
    }
}

pub fn a_commit_that_nobody_heard_of_can_be_repeated(bench: &mut Bench) {
    let later = bench.now.after(SECOND);
    let submission = bench.submission([
        named("r", 1, spec("a")),
        named("s", 1, keyed("key", 1)),
        named("t", 1, scheduled(later)),
    ]);
    assert_repeatable(bench, vec![submission]);
    let sweep = Operation::Sweep { limit: 100, chance: 3 };
    bench.wait(SECOND);
    assert_repeatable(bench, vec![sweep]);

    let mut run = |tune: fn(&mut Options)| bench.start_and_run(tuned("b", tune));
    let [worked, done, failed, retried, released, delayed, lost, cancelled, adopted] =
        std::array::from_fn(|_| run(|options| options.retry.initial_interval = 60 * SECOND));
    let permanent = Some(Failure::new("BROKEN", "it broke").permanent());
    let fail_for_good =
        Command::Fail { lease: failed, failure: permanent, retry_delay: None, live: live(1), jitter: 1.0 };
    for (id, command) in [
        (worked.job, stage(worked, "one")),
        (worked.job, output(worked, 0, "abc")),
        (worked.job, log(worked, 0, "line")),
        (done.job, complete(done)),
        (failed.job, fail_for_good),
        (retried.job, fail(retried)),
        (released.job, release(released, std::time::Duration::ZERO)),
        (delayed.job, release(delayed, 60 * SECOND)),
        (cancelled.job, cancel()),
        (cancelled.job, stop(cancelled)),
        (adopted.job, Command::Adopt { epoch: 1, keeper: Keeper(KEEPER.0 + 1) }),
    ] {
        // A stage is a mark in the history: to enter it again is another mark.
        if !matches!(command, Command::EnterStage { .. }) {
            assert_repeatable(bench, vec![apply(id, command)]);
        }
    }
    let kept = Operation::KeepLive(vec![LiveUpdate { job: worked.job, attempt: 1, live: live(5) }]);
    assert_repeatable(bench, vec![kept]);

    // The keeper's own word is refused the second time, since the lease is gone, and does nothing.
    let end = end_lease(lost, KEEPER, LeaseEnd::Expired);
    commit_unheard(bench, &[apply(lost.job, end.clone())]);
    let after = everything(bench);
    assert_eq!(bench.apply(lost.job, end).map(|_| ()), Err(Refusal::LeaseLost.into()));
    assert_eq!(everything(bench), after);
}

pub fn a_lease_that_nobody_heard_of_is_found(bench: &mut Bench) {
    let jobs: Vec<JobId> = (0..4).map(|_| bench.start(spec("work")).id).collect();
    let claims = [bench.wish(&["work"], 2, false), bench.wish(&["work"], 2, true)];

    commit_unheard(bench, &claims);
    let unheard = bench.store().held(None, 100).unwrap();

    assert_eq!(unheard.iter().map(|job| job.id).collect::<Vec<_>>(), jobs);
    for job in unheard {
        let token = job.lease_token().unwrap();
        let accepted = job.lease.unwrap().accepted;
        let cause = if accepted { LeaseEnd::Restarted } else { LeaseEnd::Unaccepted };
        bench.step(job.id, end_lease(token, KEEPER, cause));
    }
    assert_eq!(bench.claim(&["work"], 9).len(), 4);
}
