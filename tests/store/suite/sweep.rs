//! What is due, and when.

use crate::bench::{Bench, KEEPER};
use crate::builders::*;
use longhaul::job::*;

/// Sees to it that nothing happens before `due`, that it is known by then, and that it then happens at once.
fn assert_due(bench: &mut Bench, id: JobId, due: Timestamp, state: State, why: &str) {
    let before = bench.all_of(id);
    bench.now = Timestamp::from_micros(due.as_micros() - 1);
    let early = bench.sweep();
    assert_eq!(early.transitions, []);
    assert!(early.next_due.is_some_and(|next| next <= due), "{:?} is too late for {why}", early.next_due);
    assert_eq!(bench.all_of(id), before);

    bench.reopen();
    bench.now = due;
    let swept = bench.sweep();

    assert_eq!(swept.transitions.len(), 1, "{why}");
    let step = &swept.transitions[0];
    assert_eq!((step.job.id, step.job.state), (id, state));
    let Some(Body::StateChanged(change)) = step.events.last().map(|event| &event.body) else {
        panic!("{step:?} is no step to another state");
    };
    assert_eq!(change.reason, why);
    assert_eq!(bench.job(id), step.job);
    assert_eq!(bench.history(id), [before.1, step.events.clone()].concat());
    assert_eq!(bench.sweep().transitions, [], "once is enough");
}

pub fn a_scheduled_job_becomes_ready(bench: &mut Bench) {
    let due = bench.now.after(SECOND);
    let job = bench.start(scheduled(due));

    assert_due(bench, job.id, due, State::Pending, reason::DUE);
}

pub fn a_retried_job_becomes_ready(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, fail_for(token, 7 * SECOND));

    assert_due(bench, token.job, bench.now.after(7 * SECOND), State::Pending, reason::DUE);
}

pub fn a_job_that_was_given_back_becomes_ready(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, release(token, 3 * SECOND));

    assert_due(bench, token.job, bench.now.after(3 * SECOND), State::Pending, reason::DUE);
}

pub fn a_pending_job_expires(bench: &mut Bench) {
    let job = bench.start(tuned("work", |options| options.schedule_to_start_timeout = Some(SECOND)));

    assert_due(bench, job.id, bench.now.after(SECOND), State::Expired, reason::START_TIMEOUT);
}

pub fn a_blocked_job_expires(bench: &mut Bench) {
    bench.start_and_run(keyed("key", 1));
    let mut blocked = keyed("key", 1);
    blocked.options.schedule_to_start_timeout = Some(SECOND);
    let job = bench.start(blocked);
    bench.sweep();

    assert_due(bench, job.id, bench.now.after(SECOND), State::Expired, reason::START_TIMEOUT);
}

pub fn a_claim_that_is_never_accepted_does_not_keep_a_job_from_expiring(bench: &mut Bench) {
    let job = bench.start(tuned("work", |options| options.schedule_to_start_timeout = Some(SECOND)));
    let token = bench.claim(&["work"], 1)[0].token;

    assert_due(bench, job.id, bench.now.after(SECOND), State::Expired, reason::START_TIMEOUT);
    assert!(bench.apply(job.id, accept(token)).is_err());
}

pub fn an_attempt_takes_too_long(bench: &mut Bench) {
    let token = bench.start_and_run(tuned("work", |options| options.start_to_close_timeout = Some(SECOND)));

    let due = bench.now.after(SECOND);
    assert_due(bench, token.job, due, State::Retrying, reason::ATTEMPT_TIMEOUT);
}

pub fn a_job_takes_too_long(bench: &mut Bench) {
    let limited = |kind| tuned(kind, |options| options.schedule_to_close_timeout = Some(60 * SECOND));
    let due = bench.now.after(60 * SECOND);
    let pending = bench.start(limited("pending"));
    let running = bench.start_and_run(limited("running"));
    let retrying = bench.start_and_run(limited("retrying"));
    bench.step(retrying.job, fail_for(retrying, 60 * SECOND));

    bench.now = Timestamp::from_micros(due.as_micros() - 1);
    assert_eq!(bench.sweep().transitions, []);
    bench.now = due;
    let swept = bench.sweep();

    let ended: Vec<JobId> = swept.transitions.iter().map(|step| step.job.id).collect();
    assert_eq!(ended, [pending.id, running.job, retrying.job]);
    for step in swept.transitions {
        assert_eq!(step.job.state, State::Failed);
        assert_eq!(step.job.failure.unwrap().reason, reason::JOB_TIMEOUT);
    }
    assert_eq!(swept.next_due, None);
}

pub fn a_grace_period_ends(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, cancel());

    let due = bench.now.after(10 * SECOND);
    assert_due(bench, token.job, due, State::Cancelled, reason::GRACE_PERIOD_ENDED);
}

pub fn a_timeout_shows_the_last_that_was_kept_of_the_attempt(bench: &mut Bench) {
    let token = bench.start_and_run(tuned("work", |options| options.start_to_close_timeout = Some(SECOND)));
    bench.keep_live(token.job, 1, live(3));

    bench.wait(SECOND);
    bench.sweep();

    let Body::StateChanged(change) = bench.history(token.job).pop().unwrap().body else { panic!() };
    assert_eq!(change.metrics, live(3).metrics);
    assert_eq!(bench.snapshot(token.job).live, live(3));
}

pub fn a_sweep_goes_by_what_is_due_first_and_no_further_than_its_limit(bench: &mut Bench) {
    let start = bench.now;
    let jobs = [5, 3, 4, 1, 2].map(|n| bench.start(scheduled(start.after(n * SECOND))).id);

    assert_eq!(bench.sweep_some(2).next_due, Some(start.after(SECOND)));
    bench.now = start.after(4 * SECOND);
    let first = bench.sweep_some(3);
    let second = bench.sweep_some(3);

    let of = |swept: &longhaul::store::Swept| -> Vec<JobId> {
        swept.transitions.iter().map(|step| step.job.id).collect()
    };
    assert_eq!(of(&first), [jobs[3], jobs[4], jobs[1]]);
    assert_eq!(first.next_due, Some(bench.now), "there may be more to do now");
    assert_eq!(of(&second), [jobs[2]]);
    assert_eq!(second.next_due, Some(start.after(5 * SECOND)));
}

pub fn nothing_is_due_where_nothing_is_limited(bench: &mut Bench) {
    assert_eq!(bench.sweep().next_due, None);
    bench.start(spec("work"));
    let running = bench.start_and_run(spec("other"));
    assert_eq!(bench.sweep().next_due, None);
    bench.step(running.job, complete(running));

    let swept = bench.sweep();

    assert_eq!((swept.transitions, swept.next_due), (vec![], None));
}

pub fn a_lease_has_no_deadline_in_the_store(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));

    bench.wait(1_000_000 * SECOND);
    assert_eq!(bench.sweep().transitions, []);

    let ended = bench.step(token.job, end_lease(token, KEEPER, LeaseEnd::Expired));
    assert_eq!(ended.answer, State::Pending);
}
