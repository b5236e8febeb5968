//! What becomes of a submission.

use crate::bench::{Bench, QUEUE_MAX};
use crate::builders::*;
use bytes::Bytes;
use longhaul::job::*;
use longhaul::store::*;
use std::time::Duration;

pub fn what_was_submitted_is_what_is_read(bench: &mut Bench) {
    let earlier = bench.start(spec("work")).id;
    let every_byte: Bytes = (0..=255u8).collect();
    let longest = Duration::from_secs(10 * 366 * 24 * 3600);
    let full = Options {
        priority: 100,
        schedule_time: Some(bench.now.after(SECOND)),
        retry: RetryPolicy {
            maximum_attempts: 1000,
            initial_interval: MICROSECOND,
            backoff_coefficient: 999.999,
            maximum_interval: longest,
        },
        schedule_to_start_timeout: Some(MICROSECOND),
        start_to_close_timeout: Some(longest),
        schedule_to_close_timeout: Some(longest),
        progress_timeout: Some(longest),
        concurrency: Some(Concurrency { key: "schlüssel '\u{0}\"".into(), limit: 100_000 }),
        retention: longest,
    };
    let plain = Options { priority: -100, retention: Duration::ZERO, ..Options::default() };
    let labels = (0..32).map(|n| (format!("ключ {n}"), "\u{1f980}'; --".repeat(n))).collect();
    let specs = [
        Spec {
            options: full,
            labels,
            retry_of: Some(earlier),
            trace: Some(Trace { parent: "00-a".into(), state: "b=c".into() }),
            input: every_byte,
            ..named("a b", 255, spec("a.b"))
        },
        Spec { options: plain, input: Bytes::new(), ..of_tenant("other", spec("a.b")) },
        Spec { input: vec![b'x'; 1 << 20].into(), ..spec("large") },
    ];

    let submitted = bench.submit(specs.clone()).unwrap();
    let now = bench.now;
    bench.reopen();

    for (spec, submitted) in specs.into_iter().zip(submitted) {
        let Submitted::Created(job) = submitted else { panic!("{submitted:?} is not new") };
        assert_eq!(*job, Job::new(job.id, &spec, now));
        let expected = Snapshot {
            job: *job,
            labels: spec.labels,
            request_id: spec.request.map(|request| request.id),
            retry_of: spec.retry_of,
            trace: spec.trace,
            input: Some(spec.input),
            result: None,
            live: Live::default(),
            queue_position: None,
        };
        assert_eq!(bench.snapshot(expected.job.id), expected);
        let basic = bench.store().get(&[expected.job.id], Parts::BASIC).unwrap();
        assert_eq!(basic, [Some(Snapshot { input: None, ..expected })]);
    }
}

pub fn a_rejected_submission_takes_in_none_of_its_jobs(bench: &mut Bench) {
    bench.start(named("used", 1, spec("work")));

    let reused =
        bench.submit([spec("a"), named("new", 3, spec("b")), named("used", 2, spec("c")), spec("d")]);

    assert_eq!(reused, Err(Rejection::RequestIdReused { index: 2 }));
    let listed = bench.store().list(DEFAULT_TENANT, &Filter::default(), first(10), Parts::BASIC).unwrap();
    assert_eq!(listed.jobs.len(), 1);
    assert!(bench.claim(&["a", "b", "c", "d"], 4).is_empty());
    let new = bench.submit([named("new", 4, spec("work"))]).unwrap();
    assert!(matches!(new[0], Submitted::Created(_)), "the request id of the rejected one is still free");
}

pub fn a_repeated_request_returns_its_first_job(bench: &mut Bench) {
    let job = bench.start(named("r", 1, spec("work")));
    let token = bench.run(&["work"], 1)[0].token;
    bench.step(job.id, complete(token));
    let before = bench.all_of(job.id);

    let repeated = bench.submit([named("r", 1, spec("work")), spec("other")]).unwrap();

    assert_eq!(repeated[0], Submitted::Repeated(job.id));
    assert!(matches!(repeated[1], Submitted::Created(_)));
    assert_eq!(bench.all_of(job.id), before);
}

pub fn a_request_id_stands_for_one_request_only(bench: &mut Bench) {
    bench.start(named("r", 1, spec("work")));

    assert_eq!(bench.submit([named("r", 2, spec("work"))]), Err(Rejection::RequestIdReused { index: 0 }));
}

pub fn the_same_request_twice_in_one_submission_makes_one_job(bench: &mut Bench) {
    let submitted = bench.submit([spec("a"), named("r", 1, spec("b")), named("r", 1, spec("b"))]).unwrap();
    let differing = bench.submit([named("s", 1, spec("b")), named("s", 2, spec("b"))]);

    let Submitted::Created(first) = &submitted[1] else { panic!("{submitted:?}") };
    assert_eq!(submitted[2], Submitted::Repeated(first.id));
    assert_eq!(differing, Err(Rejection::RequestIdReused { index: 1 }));
    assert_eq!(bench.claim(&["b"], 5).len(), 1);
}

pub fn each_tenant_has_request_ids_of_its_own(bench: &mut Bench) {
    bench.start(of_tenant("a", named("r", 1, spec("work"))));
    bench.start(of_tenant("b", named("r", 2, spec("work"))));
    // Neither name ends where the other begins.
    bench.start(of_tenant("a", named("br", 3, spec("work"))));
    bench.start(of_tenant("ab", named("r", 4, spec("work"))));
}

pub fn request_ids_outlive_a_restart(bench: &mut Bench) {
    let jobs: Vec<JobId> = (0..20).map(|n| bench.start(named(&n.to_string(), n, spec("work"))).id).collect();

    bench.reopen();

    for (n, id) in (0..20).zip(jobs) {
        let name = n.to_string();
        assert_eq!(bench.submit([named(&name, n, spec("work"))]), Ok(vec![Submitted::Repeated(id)]));
        let other = bench.submit([named(&name, n + 100, spec("work"))]);
        assert_eq!(other, Err(Rejection::RequestIdReused { index: 0 }));
    }
}

pub fn a_submission_that_repeats_a_forgotten_job_takes_in_nothing(bench: &mut Bench) {
    let job = bench.start(named("r", 1, spec("work")));
    let token = bench.run(&["work"], 1)[0].token;
    bench.step(job.id, complete(token));
    bench.commit(vec![Operation::Delete(job.id)]);

    let repeated = bench.submit([spec("other"), named("r", 1, spec("work"))]);

    assert_eq!(repeated, Err(Rejection::NotFound), "there is no job to answer with");
    assert!(bench.claim(&["other", "work"], 2).is_empty());
}

pub fn order_is_that_of_acceptance_whatever_the_clock_does(bench: &mut Bench) {
    let later = bench.now.after(10 * SECOND);
    let mut accepted: Vec<Job> = Vec::new();
    for (time, reopen) in
        [(bench.now, false), (later, false), (bench.now, false), (bench.now, true), (later, false)]
    {
        bench.now = time;
        if reopen {
            bench.reopen();
        }
        accepted.push(bench.start(spec("work")));
        for submitted in bench.submit([spec("work"), spec("work")]).unwrap() {
            let Submitted::Created(job) = submitted else { panic!("{submitted:?} is not new") };
            accepted.push(*job);
        }
    }

    assert!(accepted.is_sorted_by(|one, next| one.id < next.id && one.id.ordinal() < next.id.ordinal()));
    assert!(accepted.is_sorted_by_key(|job| job.create_time));
    assert_eq!(accepted.last().unwrap().create_time, later);
    let listed =
        bench.store().list(DEFAULT_TENANT, &Filter::default(), first(100), Parts::BASIC).unwrap().jobs;
    let listed: Vec<Job> = listed.into_iter().rev().map(|snapshot| snapshot.job).collect();
    assert_eq!(listed, accepted);
}

pub fn a_full_queue_takes_in_nothing(bench: &mut Bench) {
    let full = Err(Rejection::QueueFull { limit: QUEUE_MAX });
    let later = bench.now.after(SECOND);
    let retried = bench.start_and_run(spec("retried"));
    bench.step(retried.job, fail(retried));
    let running = bench.start_and_run(spec("running"));
    let named_job = bench.start(named("r", 1, scheduled(later)));
    let rest = QUEUE_MAX as usize - 3;
    bench.submit((0..rest).map(|_| spec("work"))).unwrap();

    assert_eq!(bench.submit([spec("a"), spec("b")]), full, "two where there is one place");
    let last = bench.start(spec("last"));
    assert_eq!(bench.submit([spec("a")]), full);
    bench.reopen();
    assert_eq!(bench.submit([spec("a")]), full);
    assert_eq!(bench.submit([named("r", 1, scheduled(later))]), Ok(vec![Submitted::Repeated(named_job.id)]));
    assert_eq!(bench.submit([]), Ok(vec![]));

    bench.step(running.job, complete(running));
    assert_eq!(bench.submit([spec("a")]), full, "one that ran did not wait");
    let provisional = bench.claim(&["last"], 1)[0].token;
    assert_eq!(bench.submit([spec("a")]), full, "one that is not accepted still waits");
    bench.step(last.id, accept(provisional));
    bench.start(spec("a"));
    assert_eq!(bench.submit([spec("a")]), full);
    bench.step(named_job.id, cancel());
    bench.start(spec("a"));
    assert_eq!(bench.submit([spec("a")]), full);
}

pub fn a_history_never_goes_back_though_the_clock_does(bench: &mut Bench) {
    let begin = bench.now;
    bench.wait(10 * SECOND);
    let job = bench.start(spec("work"));

    bench.now = begin;
    let token = bench.run(&["work"], 1).remove(0).token;
    bench.step(token.job, complete(token));

    let (snapshot, events) = bench.all_of(job.id);
    assert!(events.is_sorted_by_key(|event| event.time));
    let Job { create_time, start_time, end_time, .. } = snapshot.job;
    assert!(Some(create_time) <= start_time && start_time <= end_time);
}
