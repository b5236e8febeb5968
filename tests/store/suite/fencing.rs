//! A worker that lost its lease can record nothing, and nobody else's command passes for another's.

use crate::bench::{Bench, KEEPER};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;

/// Each command that names a lease.
fn commands_under(lease: LeaseToken) -> Vec<Command> {
    vec![
        accept(lease),
        stage(lease, "late"),
        output(lease, 0, "late"),
        output(lease, 3, "late"),
        log(lease, 0, "late"),
        log(lease, 1, "late"),
        complete(lease),
        fail(lease),
        release(lease, SECOND),
        end_lease(lease, KEEPER, LeaseEnd::Expired),
        end_lease(lease, KEEPER, LeaseEnd::Unaccepted),
        end_lease(lease, KEEPER, LeaseEnd::Stalled),
        end_lease(lease, KEEPER, LeaseEnd::Restarted),
        Command::Adopt { epoch: lease.epoch, keeper: Keeper(8) },
    ]
}

fn assert_fenced(bench: &mut Bench, stale: LeaseToken) {
    let before = bench.all_of(stale.job);
    for command in commands_under(stale) {
        let outcome = bench.apply(stale.job, command.clone());
        assert_eq!(outcome.map(|_| ()), Err(Refusal::LeaseLost.into()), "{command:?}");
        assert_eq!(bench.all_of(stale.job), before, "{command:?}");
    }
    bench.reopen();
    assert_eq!(bench.all_of(stale.job), before);
}

/// A job whose first lease has ended, with some history.
fn with_a_lost_lease(bench: &mut Bench) -> LeaseToken {
    let lost = bench.start_and_run(spec("work"));
    bench.step(lost.job, output(lost, 0, "abc"));
    bench.step(lost.job, log(lost, 0, "line"));
    bench.step(lost.job, end_lease(lost, KEEPER, LeaseEnd::Restarted));
    lost
}

pub fn a_lease_that_has_ended_records_nothing(bench: &mut Bench) {
    let lost = with_a_lost_lease(bench);

    assert_fenced(bench, lost);
}

pub fn an_earlier_lease_records_nothing_under_a_later_one(bench: &mut Bench) {
    let lost = with_a_lost_lease(bench);

    let provisional = bench.claim(&["work"], 1)[0].token;
    assert_fenced(bench, lost);
    bench.step(lost.job, accept(provisional));
    assert_fenced(bench, lost);
    bench.step(lost.job, cancel());
    assert_fenced(bench, lost);
}

pub fn a_later_lease_that_was_never_given_records_nothing(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));

    assert_fenced(bench, LeaseToken { epoch: token.epoch + 1, ..token });
}

pub fn a_guessed_secret_records_nothing(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, output(token, 0, "abc"));
    let before = bench.all_of(token.job);

    let guessed = LeaseToken { secret: token.secret ^ 1, ..token };
    // What the keeper says names no secret.
    let by_worker = |command: &Command| !matches!(command, Command::EndLease { .. } | Command::Adopt { .. });
    for command in commands_under(guessed).into_iter().filter(by_worker) {
        let outcome = bench.apply(token.job, command.clone());
        assert_eq!(outcome.map(|_| ()), Err(Refusal::LeaseLost.into()), "{command:?}");
    }

    assert_eq!(bench.all_of(token.job), before);
}

pub fn only_its_keeper_ends_a_lease(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    let other = Keeper(KEEPER.0 + 1);

    let refused = bench.apply(token.job, end_lease(token, other, LeaseEnd::Expired));
    assert_eq!(refused, Err(Refusal::OtherKeeper.into()));
    bench.step(token.job, Command::Adopt { epoch: token.epoch, keeper: other });
    bench.reopen();
    let refused = bench.apply(token.job, end_lease(token, KEEPER, LeaseEnd::Expired));
    assert_eq!(refused, Err(Refusal::OtherKeeper.into()));
    bench.step(token.job, end_lease(token, other, LeaseEnd::Expired));

    assert_eq!(bench.state(token.job), State::Pending);
}

pub fn a_cancelled_job_never_succeeds(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, cancel());
    let before = bench.all_of(token.job);

    assert_eq!(bench.apply(token.job, complete(token)), Err(Refusal::JobCancelled.into()));
    assert_eq!(bench.all_of(token.job), before);
    bench.step(token.job, stop(token));
    assert!(bench.apply(token.job, complete(token)).is_err());

    assert_eq!(bench.state(token.job), State::Cancelled);
}

pub fn a_job_that_is_not_kept_is_not_found(bench: &mut Bench) {
    let job = bench.start(spec("work"));
    let strangers = [
        JobId::default(),
        JobId::new(bench.now.after(SECOND), 0, 1),
        // The same millisecond and counter, but not the id that was given.
        JobId::new(job.create_time, JobId::counter(job.id.ordinal()), u64::MAX),
    ];
    for id in strangers {
        assert_ne!(id, job.id);
        assert_eq!(bench.apply(id, cancel()), Err(Rejection::NotFound));
        assert_eq!(bench.store().get(&[id], Parts::FULL).unwrap(), [None]);
        assert_eq!(bench.store().events(&[(id, 0)], crate::bench::WHOLE).unwrap(), [vec![]]);
        bench.keep_live(id, 0, live(1));
    }
    assert_eq!(bench.state(job.id), State::Pending);
}
