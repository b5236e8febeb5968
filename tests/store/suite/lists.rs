//! What lists, counts and queues show: all that matches and nothing else, at every step of a job.

use crate::bench::{Bench, QUEUE_MAX};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;
use std::collections::HashMap;

fn listed(bench: &Bench, filter: &Filter, page: Page) -> (Vec<JobId>, Option<i64>) {
    let listed = bench.store().list(DEFAULT_TENANT, filter, page, Parts::BASIC).unwrap();
    (listed.jobs.into_iter().map(|snapshot| snapshot.job.id).collect(), listed.next)
}

/// All pages of a list.
fn whole(bench: &Bench, filter: &Filter, jobs: usize) -> Vec<JobId> {
    let (mut all, mut page) = (Vec::new(), first(jobs));
    loop {
        let (ids, next) = listed(bench, filter, page);
        assert!(ids.len() <= jobs);
        all.extend(ids);
        match next {
            Some(next) => page.before = Some(next),
            None => return all,
        }
    }
}

fn labelled(kind: &str, labels: &[(&str, &str)]) -> Spec {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Spec { labels, ..spec(kind) }
}

fn states(states: &[State]) -> Filter {
    Filter { states: states.to_vec(), ..Default::default() }
}

fn kinds(kinds: &[&str]) -> Filter {
    Filter { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), ..Default::default() }
}

fn labels(labels: &[(&str, &str)]) -> Filter {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Filter { labels, ..Default::default() }
}

/// A job in each state, by the state.
fn one_of_each(bench: &mut Bench) -> Vec<(State, JobId)> {
    let due = bench.now.after(1000 * SECOND);
    let mut jobs = vec![(State::Scheduled, bench.start(scheduled(due)).id)];
    jobs.push((State::Pending, bench.start(keyed("key", 1)).id));
    let running = bench.start_and_run(spec("a"));
    jobs.push((State::Running, running.job));
    let retrying = bench.start_and_run(spec("b"));
    bench.step(retrying.job, fail_for(retrying, 1000 * SECOND));
    jobs.push((State::Retrying, retrying.job));
    let cancelling = bench.start_and_run(spec("c"));
    bench.step(cancelling.job, cancel());
    jobs.push((State::Cancelling, cancelling.job));
    let succeeded = bench.start_and_run(spec("d"));
    bench.step(succeeded.job, complete(succeeded));
    jobs.push((State::Succeeded, succeeded.job));
    let failed = bench.start_and_run(tuned("e", |options| options.retry.maximum_attempts = 1));
    bench.step(failed.job, fail(failed));
    jobs.push((State::Failed, failed.job));
    let cancelled = bench.start(spec("f")).id;
    bench.step(cancelled, cancel());
    jobs.push((State::Cancelled, cancelled));
    let expiring = tuned("g", |options| options.schedule_to_start_timeout = Some(MICROSECOND));
    let expired = bench.start(expiring).id;
    bench.wait(MICROSECOND);
    bench.step(expired, Command::Advance { live: Live::default(), jitter: 0.0 });
    jobs.push((State::Expired, expired));
    for (state, id) in &jobs {
        assert_eq!(bench.state(*id), *state);
    }
    assert_eq!(jobs.len(), State::ALL.len());
    jobs
}

pub fn a_list_by_states_has_the_jobs_in_them(bench: &mut Bench) {
    let jobs = one_of_each(bench);

    for (state, id) in &jobs {
        assert_eq!(whole(bench, &states(&[*state]), 10), [*id], "{state:?}");
    }
    for pair in jobs.windows(2) {
        assert_eq!(whole(bench, &states(&[pair[0].0, pair[1].0]), 1), [pair[1].1, pair[0].1]);
    }
    assert_eq!(whole(bench, &states(&State::ALL), 2).len(), jobs.len());
}

pub fn a_list_by_kinds_has_the_jobs_of_them(bench: &mut Bench) {
    let [a, b, again] = ["a", "b", "a"].map(|kind| bench.start(spec(kind)).id);
    bench.step(a, cancel());

    assert_eq!(whole(bench, &kinds(&["a"]), 1), [again, a]);
    assert_eq!(whole(bench, &kinds(&["b"]), 1), [b]);
    assert_eq!(whole(bench, &kinds(&["a", "b", "c"]), 2), [again, b, a]);
    assert_eq!(whole(bench, &kinds(&["c"]), 2), []);
}

pub fn a_list_by_labels_has_the_jobs_with_all_of_them(bench: &mut Bench) {
    let both = bench.start(labelled("a", &[("team", "voice"), ("size", "s")])).id;
    let one = bench.start(labelled("b", &[("team", "voice")])).id;
    // Put together, its key and its value read the same.
    let alike = bench.start(labelled("b", &[("teamv", "oice")])).id;
    bench.start(spec("a"));

    assert_eq!(whole(bench, &labels(&[("team", "voice")]), 1), [one, both]);
    assert_eq!(whole(bench, &labels(&[("team", "voice"), ("size", "s")]), 1), [both]);
    assert_eq!(whole(bench, &labels(&[("teamv", "oice")]), 9), [alike]);
    assert_eq!(whole(bench, &labels(&[("team", "text")]), 9), []);
}

pub fn a_list_by_time_has_what_was_created_within_it(bench: &mut Bench) {
    let mut jobs = Vec::new();
    for n in 0..5 {
        bench.wait(if n == 2 { MICROSECOND } else { SECOND });
        jobs.push(bench.start(spec("work")));
    }

    for (from, job) in jobs.iter().enumerate() {
        for (to, end) in jobs.iter().enumerate() {
            let filter = Filter {
                created_from: Some(job.create_time),
                created_before: Some(end.create_time),
                ..Default::default()
            };
            let within: Vec<JobId> = jobs[from..to.max(from)].iter().rev().map(|job| job.id).collect();
            assert_eq!(whole(bench, &filter, 2), within, "from {from} before {to}");
        }
    }
}

pub fn a_list_by_everything_has_what_matches_everything(bench: &mut Bench) {
    let mut wanted = Vec::new();
    for n in 0..48 {
        let kind = ["a", "b"][n % 2];
        let team = ["voice", "text", "image"][n % 3];
        let id = bench.start(labelled(kind, &[("team", team)])).id;
        if n % 4 < 2 {
            bench.step(id, cancel());
        }
        if kind == "a" && team == "text" && n % 4 < 2 {
            wanted.push(id);
        }
        bench.wait(SECOND);
    }
    wanted.reverse();

    let filter =
        Filter { states: vec![State::Cancelled], kinds: vec!["a".into()], ..labels(&[("team", "text")]) };
    for jobs in 1..=5 {
        assert_eq!(whole(bench, &filter, jobs), wanted, "{jobs} a page");
    }
    bench.reopen();
    assert_eq!(whole(bench, &filter, 3), wanted);
}

pub fn a_page_has_a_limit_of_bytes_and_is_never_empty(bench: &mut Bench) {
    for _ in 0..3 {
        bench.start(Spec { input: vec![b' '; 1_000].into(), ..spec("work") });
    }
    let sizes = |bytes, parts| {
        let page = Page { bytes, ..first(10) };
        let listed = bench.store().list(DEFAULT_TENANT, &Filter::default(), page, parts).unwrap();
        (listed.jobs.len(), listed.next.is_some())
    };

    assert_eq!(sizes(1, Parts::FULL), (1, true));
    assert_eq!(sizes(2_500, Parts::FULL), (2, true));
    assert_eq!(sizes(10_000, Parts::FULL), (3, false));
    for parts in [Parts::BASIC, Parts::RESULT] {
        assert_eq!(sizes(2_500, parts), (3, false), "an input that is not shown takes nothing");
    }
}

pub fn a_list_goes_on_where_it_was_whatever_happens_meanwhile(bench: &mut Bench) {
    let mut jobs: Vec<JobId> = (0..9).map(|_| bench.start(spec("work")).id).collect();
    jobs.reverse();
    let (seen, next) = listed(bench, &Filter::default(), first(3));

    // The last that was seen goes, so does one that is to come; and others come.
    for gone in [jobs[2], jobs[4]] {
        bench.step(gone, cancel());
        bench.delete(gone).unwrap();
    }
    bench.start(spec("work"));
    bench.step(jobs[3], cancel());
    bench.reopen();
    let (rest, end) = listed(bench, &Filter::default(), Page { before: next, ..first(9) });

    assert_eq!(seen, jobs[..3]);
    assert_eq!(rest, [&jobs[3..4], &jobs[5..]].concat());
    assert_eq!(end, None);
}

pub fn jobs_are_counted_by_kind_and_state(bench: &mut Bench) {
    let jobs = one_of_each(bench);
    bench.start(of_tenant("other", spec("a")));
    let counted = |bench: &Bench, kinds: &[&str], limit| {
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let counts = bench.store().count(DEFAULT_TENANT, &kinds, limit).unwrap();
        counts.into_iter().map(|count| (count.kind, count.state, count.jobs)).collect::<Vec<_>>()
    };
    let expected = |bench: &Bench| {
        let mut counts: HashMap<(String, State), u64> = HashMap::new();
        for (_, id) in &jobs {
            let job = bench.job(*id);
            *counts.entry((job.kind, job.state)).or_default() += 1;
        }
        counts
    };

    let all = counted(bench, &[], 100);
    let mut by_kind: HashMap<(String, State), u64> = HashMap::new();
    for (kind, state, jobs) in &all {
        assert!(by_kind.insert((kind.clone(), *state), *jobs).is_none(), "{kind} {state:?} twice");
    }
    assert_eq!(by_kind, expected(bench));
    assert_eq!(counted(bench, &["a", "zzz"], 100), [("a".to_owned(), State::Running, 1)]);
    assert_eq!(counted(bench, &[], 3), all[..3]);
    bench.reopen();
    assert_eq!(counted(bench, &[], 100), all);

    // Gone with the job.
    let (_, ended) = jobs[5];
    bench.delete(ended).unwrap();
    assert_eq!(counted(bench, &["d"], 9), []);
}

pub fn a_queue_shows_who_is_next(bench: &mut Bench) {
    let low = bench.start(tuned("work", |options| options.priority = -1));
    let early = bench.start(spec("work"));
    let late = bench.start(spec("work"));
    let urgent = bench.start(tuned("work", |options| options.priority = 9));
    // None of these is in this queue, or in it yet.
    bench.start(spec("other"));
    bench.start(of_tenant("other", spec("work")));
    bench.start(scheduled(bench.now.after(SECOND)));
    bench.start(keyed("key", 1));
    let ranks = |bench: &Bench, limit| bench.store().queue(DEFAULT_TENANT, "work", limit).unwrap();
    let expected: Vec<Rank> = [&urgent, &early, &late, &low].map(Rank::of).into();

    assert_eq!(ranks(bench, QUEUE_MAX as usize), expected);
    assert_eq!(ranks(bench, 2), expected[..2]);
    bench.run(&["work"], 1);
    assert_eq!(ranks(bench, 9), expected[1..], "who is claimed has left it");
}
