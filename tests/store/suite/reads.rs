//! What is read, in which order, and when.

use crate::bench::{Bench, KEEPER};
use crate::builders::*;
use longhaul::job::*;
use longhaul::store::*;

fn listed(bench: &Bench, tenant: &str, page: Page) -> (Vec<JobId>, Option<i64>) {
    let listed = bench.store().list(tenant, &Filter::default(), page, Parts::BASIC).unwrap();
    (listed.jobs.into_iter().map(|snapshot| snapshot.job.id).collect(), listed.next)
}

pub fn jobs_are_read_in_the_order_asked_for(bench: &mut Bench) {
    let [a, b] = ["a", "b"].map(|kind| bench.start(spec(kind)).id);
    let stranger = JobId::new(bench.now.after(SECOND), 0, 0);

    let found = bench.store().get(&[b, stranger, a, b], Parts::FULL).unwrap();

    let found: Vec<_> = found.into_iter().map(|snapshot| snapshot.map(|snapshot| snapshot.job.id)).collect();
    assert_eq!(found, [Some(b), None, Some(a), Some(b)]);
    assert_eq!(bench.store().get(&[], Parts::FULL).unwrap(), []);
}

pub fn a_list_pages_through_a_tenants_jobs_newest_first(bench: &mut Bench) {
    let mut theirs = Vec::new();
    for n in 0..9 {
        bench.start(of_tenant("other", spec("work")));
        theirs.push(bench.start(of_tenant("theirs", spec("work"))).id);
        if n % 3 == 0 {
            bench.wait(SECOND);
        }
    }
    theirs.reverse();

    for limit in 1..=10 {
        let mut read: Vec<JobId> = Vec::new();
        let mut page = first(limit);
        loop {
            let (jobs, next) = listed(bench, "theirs", page);
            assert!(jobs.len() <= limit);
            read.extend(jobs);
            page.before = next;
            if next.is_none() {
                break;
            }
            // What comes in meanwhile is newer than all that is still to come.
            bench.start(of_tenant("other", spec("work")));
        }
        assert_eq!(read, theirs, "{limit} a page");
    }
    assert_eq!(listed(bench, "nobody", first(10)), (vec![], None));
    assert_eq!(listed(bench, "", first(10)), (vec![], None));
}

pub fn a_list_shows_what_a_look_up_shows(bench: &mut Bench) {
    let token = bench.start_and_run(named("r", 1, spec("work")));
    bench.keep_live(token.job, 1, live(4));
    bench.step(token.job, complete(token));
    bench.start(spec("other"));

    for (input, result) in [(false, false), (false, true), (true, false), (true, true)] {
        let parts = Parts { input, result };
        let listed = bench.store().list(DEFAULT_TENANT, &Filter::default(), first(9), parts).unwrap().jobs;
        let ids: Vec<JobId> = listed.iter().map(|snapshot| snapshot.job.id).collect();
        let found = bench.store().get(&ids, parts).unwrap();
        assert_eq!(listed, found.into_iter().flatten().collect::<Vec<_>>());
        assert!(listed.iter().all(|snapshot| snapshot.input.is_some() == input), "{parts:?}");
        assert_eq!(listed[1].result.is_some(), result, "{parts:?}");
    }
}

pub fn held_are_the_jobs_with_a_lease(bench: &mut Bench) {
    let running = bench.start_and_run(spec("running"));
    let ready = bench.start(spec("ready")).id;
    let provisional = bench.start(spec("provisional")).id;
    bench.claim(&["provisional"], 1);
    let cancelling = bench.start_and_run(spec("cancelling"));
    bench.step(cancelling.job, cancel());
    let lapsed = bench.start(spec("lapsed")).id;
    let token = bench.claim(&["lapsed"], 1)[0].token;
    bench.step(lapsed, end_lease(token, KEEPER, LeaseEnd::Unaccepted));
    let succeeded = bench.start_and_run(spec("succeeded"));
    bench.step(succeeded.job, complete(succeeded));
    let failed = bench.start_and_run(spec("failed"));
    bench.step(failed.job, fail(failed));

    bench.reopen();
    let held = bench.store().held(None, 100).unwrap();

    assert_eq!(held, [running.job, provisional, cancelling.job].map(|id| bench.job(id)));
    assert!(bench.job(ready).lease.is_none());
}

pub fn held_pages_in_the_order_of_ids(bench: &mut Bench) {
    let jobs: Vec<JobId> = (0..7).map(|_| bench.start(spec("work")).id).collect();
    bench.run(&["work"], 4);
    bench.claim(&["work"], 4);

    for limit in 1..=8 {
        let mut read: Vec<JobId> = Vec::new();
        while read.len() <= jobs.len() {
            let page = bench.store().held(read.last().copied(), limit).unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            read.extend(page.iter().map(|job| job.id));
        }
        assert_eq!(read, jobs, "{limit} a page");
    }
}

pub fn held_passes_over_what_others_keep(bench: &mut Bench) {
    let tokens: Vec<LeaseToken> = (0..6).map(|_| bench.start_and_run(spec("work"))).collect();
    for token in &tokens[..4] {
        bench.step(token.job, Command::Adopt { epoch: 1, keeper: Keeper(KEEPER.0 + 1) });
    }

    let first = bench.store().held(None, 1).unwrap();
    let second = bench.store().held(Some(tokens[4].job), 1).unwrap();

    assert_eq!(
        first.iter().map(|job| job.id).collect::<Vec<_>>(),
        [tokens[4].job],
        "a page is not cut short"
    );
    assert_eq!(second.iter().map(|job| job.id).collect::<Vec<_>>(), [tokens[5].job]);
    bench.step(tokens[0].job, Command::Adopt { epoch: 1, keeper: KEEPER });
    assert_eq!(bench.store().held(None, 9).unwrap().len(), 3);
}

pub fn the_keeper_keeps_its_name(bench: &mut Bench) {
    assert_eq!(bench.store().keeper(), KEEPER);
    bench.reopen();
    assert_eq!(bench.store().keeper(), KEEPER);
}

pub fn a_reader_sees_a_whole_batch_or_nothing_of_it(bench: &mut Bench) {
    const ROUNDS: usize = 12;
    let batches: Vec<Vec<Operation>> =
        (0..ROUNDS).map(|_| (0..4).map(|_| bench.submission([spec("work")])).collect()).collect();
    let (store, now) = (bench.share(), bench.now);
    let all = Filter::default();
    let count = || store.list(DEFAULT_TENANT, &all, first(1000), Parts::BASIC).unwrap().jobs.len();

    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for (index, batch) in batches.into_iter().enumerate() {
                store.commit(batch, now).unwrap();
                assert_eq!(count(), 4 * (index + 1), "what is answered for is seen");
            }
        });
        let mut most = 0;
        while !writer.is_finished() {
            let seen = count();
            assert_eq!(seen % 4, 0, "{seen} jobs are no whole number of batches");
            assert!(seen >= most, "what was seen is gone");
            most = seen;
        }
        writer.join().unwrap();
    });
}
