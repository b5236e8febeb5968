//! Doing again, and forgetting: what has ended stays as it ended until it is forgotten, and then all of it is gone but its
//! request id, for a day.

use crate::bench::{Bench, WHOLE};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A job that has ended, after an attempt with output and a log.
fn ended(bench: &mut Bench, spec: Spec) -> JobId {
    let token = bench.start_and_run(spec);
    bench.step(token.job, output(token, 0, "output"));
    bench.step(token.job, log(token, 0, "a line"));
    bench.step(token.job, complete(token));
    token.job
}

fn kept_for(retention: Duration, spec: Spec) -> Spec {
    let options = Options { retention, ..spec.options.clone() };
    Spec { options, ..spec }
}

fn request(id: &str, fingerprint: u8) -> Option<RequestKey> {
    Some(RequestKey { id: id.into(), fingerprint: [fingerprint; 32] })
}

fn new(submitted: Result<Submitted, Rejection>) -> Job {
    match submitted.expect("it is accepted") {
        Submitted::Created(job) => *job,
        Submitted::Repeated(id) => panic!("it repeats {id}"),
    }
}

fn assert_gone(bench: &Bench, id: JobId) {
    assert_eq!(bench.store().get(&[id], Parts::FULL).unwrap(), [None]);
    assert_eq!(bench.store().events(&[(id, 0)], WHOLE).unwrap(), [vec![]]);
    let listed = bench.store().list(DEFAULT_TENANT, &Filter::default(), first(100), Parts::FULL).unwrap();
    assert!(listed.jobs.iter().all(|snapshot| snapshot.job.id != id));
    assert_eq!(bench.apply(id, cancel()), Err(Rejection::NotFound));
}

pub fn a_retry_is_a_new_job_with_the_same_wish(bench: &mut Bench) {
    let labels = [("team".to_owned(), "voice".to_owned())].into();
    let wish = Spec { labels, ..tuned("work", |options| options.priority = 3) };
    let first = ended(bench, named("first", 1, wish));
    let before = bench.all_of(first);
    bench.wait(SECOND);

    let again = new(bench.retry(first, None));

    let (old, new) = (bench.snapshot(first), bench.snapshot(again.id));
    assert_eq!((new.job.state, new.job.attempt), (State::Pending, 0));
    assert_eq!(
        (&new.job.kind, &new.job.options, &new.labels, &new.input),
        (&old.job.kind, &old.job.options, &old.labels, &old.input)
    );
    assert_eq!((new.retry_of, new.request_id), (Some(first), None));
    assert_eq!(bench.all_of(first), before, "what has ended stays as it ended");
    assert_eq!(bench.claim(&["work"], 1)[0].token.job, again.id);
}

pub fn a_retry_with_a_request_id_happens_once(bench: &mut Bench) {
    let (one, other) = (ended(bench, spec("work")), ended(bench, spec("work")));

    let again = new(bench.retry(one, request("again", 1)));
    bench.reopen();

    assert_eq!(bench.retry(one, request("again", 1)), Ok(Submitted::Repeated(again.id)));
    assert_eq!(bench.retry(other, request("again", 2)), Err(Rejection::RequestIdReused { index: 0 }));
    // Also where what it repeats is gone.
    bench.delete(one).unwrap();
    assert_eq!(bench.retry(one, request("again", 1)), Ok(Submitted::Repeated(again.id)));
}

pub fn only_what_has_ended_is_retried_or_deleted(bench: &mut Bench) {
    let waiting = bench.start(spec("waiting")).id;
    let running = bench.start_and_run(spec("running")).job;
    let stranger = JobId::new(bench.now.after(SECOND), 0, 0);

    for id in [waiting, running] {
        assert_eq!(bench.retry(id, None), Err(Rejection::Active));
        assert_eq!(bench.delete(id), Err(Rejection::Active));
    }
    assert_eq!(bench.retry(stranger, None), Err(Rejection::NotFound));
    assert_eq!(bench.delete(stranger), Err(Rejection::NotFound));
    assert_eq!([bench.state(waiting), bench.state(running)], [State::Pending, State::Running]);
}

pub fn a_deleted_job_is_gone_with_all_that_belongs_to_it(bench: &mut Bench) {
    let labels = [("team".to_owned(), "voice".to_owned())].into();
    let id = ended(bench, Spec { labels, ..spec("work") });
    let other = ended(bench, spec("work"));
    let kept = bench.all_of(other);

    let forgotten = bench.delete(id).unwrap();

    assert_eq!((forgotten.job.id, forgotten.labels.len()), (id, 1));
    assert_gone(bench, id);
    bench.reopen();
    assert_gone(bench, id);
    assert_eq!(bench.delete(id), Err(Rejection::NotFound));
    assert_eq!(bench.all_of(other), kept);
}

pub fn a_request_id_outlives_its_job_by_a_day(bench: &mut Bench) {
    let id = ended(bench, named("r", 1, spec("work")));
    bench.delete(id).unwrap();
    let again = |bench: &mut Bench, fingerprint| bench.submit([named("r", fingerprint, spec("work"))]);

    bench.wait(DAY - SECOND);
    bench.prune_all();
    bench.reopen();
    assert_eq!(again(bench, 1), Err(Rejection::NotFound), "it is known, and there is no job to answer with");
    assert_eq!(again(bench, 2), Err(Rejection::RequestIdReused { index: 0 }));
    bench.wait(2 * SECOND);
    bench.prune_all();

    // Nobody remembers it any more: whatever it names now is new.
    let submitted = again(bench, 2).unwrap();
    assert!(matches!(&submitted[..], [Submitted::Created(_)]), "{submitted:?}");
    bench.reopen();
    assert!(matches!(again(bench, 2).unwrap()[..], [Submitted::Repeated(_)]));
}

pub fn jobs_are_pruned_when_their_time_is_over_and_not_before(bench: &mut Bench) {
    let short = ended(bench, kept_for(10 * SECOND, spec("work")));
    let long = ended(bench, kept_for(20 * SECOND, spec("work")));
    let active = bench.start(kept_for(Duration::ZERO, spec("work"))).id;

    bench.wait(10 * SECOND - MICROSECOND);
    let early = bench.prune(100);
    assert_eq!((early.forgotten.len(), early.next_due), (0, Some(bench.now.after(MICROSECOND))));
    bench.wait(MICROSECOND);
    let due = bench.prune(100);
    assert_eq!(due.forgotten.iter().map(|gone| gone.job.id).collect::<Vec<_>>(), [short]);
    assert_gone(bench, short);
    bench.wait(1000 * SECOND);
    bench.prune_all();

    assert_gone(bench, long);
    assert_eq!(bench.state(active), State::Pending, "what has not ended is kept");
}

pub fn pruning_goes_in_steps_and_the_longest_over_first(bench: &mut Bench) {
    let mut jobs: Vec<JobId> =
        (1..=10).rev().map(|n| ended(bench, kept_for(n * SECOND, spec("work")))).collect();
    jobs.reverse();
    bench.wait(1000 * SECOND);

    let mut forgotten = Vec::new();
    for more in [true, true, true, false] {
        let step = bench.prune(3);
        assert!(step.forgotten.len() <= 3);
        assert_eq!(step.next_due.is_some_and(|due| due <= bench.now), more);
        forgotten.extend(step.forgotten.iter().map(|gone| gone.job.id));
        bench.reopen();
    }

    assert_eq!(forgotten, jobs);
}

pub fn a_long_history_is_gone_at_once_and_goes_in_steps(bench: &mut Bench) {
    let token = bench.start_and_run(kept_for(SECOND, spec("long")));
    for n in 0..400 {
        bench.step(token.job, log(token, n, "a line"));
    }
    bench.step(token.job, complete(token));
    let short = ended(bench, kept_for(2 * SECOND, spec("work")));
    bench.wait(1000 * SECOND);

    let first = bench.prune(1);
    assert_eq!(first.forgotten.iter().map(|gone| gone.job.id).collect::<Vec<_>>(), [token.job]);
    assert_gone(bench, token.job);
    bench.reopen();
    bench.prune_all();

    assert_gone(bench, short);
    assert_eq!(bench.prune(100).next_due, None, "nothing is left of it");
}

pub fn an_id_is_never_given_again(bench: &mut Bench) {
    let first = bench.start(spec("work")).id;
    let newest = bench.start(spec("work")).id;
    for id in [newest, first] {
        bench.step(id, cancel());
        bench.delete(id).unwrap();
    }

    // The clock stands still, and all that is kept is older.
    let next = bench.start(spec("work")).id;
    assert!(next.ordinal() > newest.ordinal());
    bench.step(next, cancel());
    bench.delete(next).unwrap();
    bench.reopen();
    let last = bench.start(spec("work")).id;

    assert!(last.ordinal() > next.ordinal(), "{last} after {next}");
}
