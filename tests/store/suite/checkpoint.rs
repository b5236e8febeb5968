//! Where an attempt has got to: kept apart from the job, and handed out with it.

use crate::bench::{Bench, KEEPER, WHOLE};
use crate::builders::*;
use bytes::Bytes;
use longhaul::job::*;
use longhaul::store::*;

/// A job that waits for its second attempt, with a checkpoint of 200 kB behind five bytes of its output.
fn left(bench: &mut Bench) -> JobId {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, output(token, 0, "hello, world"));
    bench.step(token.job, checkpoint(token, 1, 3, "first"));
    bench.step(token.job, checkpoint(token, 2, 5, vec![0xff; 200_000]));
    bench.step(token.job, end_lease(token, KEEPER, LeaseEnd::Expired));
    token.job
}

pub fn a_claim_comes_with_the_last_checkpoint(bench: &mut Bench) {
    let id = left(bench);

    let claimed = bench.run(&["work"], 1).remove(0);

    assert_eq!((claimed.token.job, claimed.snapshot.job.checkpoint()), (id, Some(5)));
    assert_eq!(claimed.checkpoint, vec![0xff; 200_000]);
    assert_eq!(claimed.snapshot, bench.snapshot(id));
    let reset = Body::OutputReset { channel: String::new(), kept_bytes: 5 };
    assert_eq!(claimed.events.last().map(|event| &event.body), Some(&reset));
    bench.step(id, output(claimed.token, 5, " again"));
    assert_eq!(bench.job(id).emitted.channels[0].bytes, 11);
    assert_eq!(bench.history(id), bench.store().events(&[(id, 0)], WHOLE).unwrap()[0]);
}

pub fn a_claim_of_a_job_without_one_comes_without(bench: &mut Bench) {
    left(bench);
    bench.run(&["work"], 1);
    let token = bench.start_and_run(spec("other"));
    bench.step(token.job, output(token, 0, "text"));
    bench.step(token.job, end_lease(token, KEEPER, LeaseEnd::Expired));

    let claimed = bench.claim(&["other"], 1).remove(0);

    assert_eq!((claimed.checkpoint, claimed.snapshot.job.checkpoint()), (Bytes::new(), None));
}

pub fn a_checkpoint_outlives_a_restart_and_a_claim_that_lapses(bench: &mut Bench) {
    let id = left(bench);
    bench.reopen();
    let lapsed = bench.claim(&["work"], 1).remove(0);
    bench.step(id, end_lease(lapsed.token, KEEPER, LeaseEnd::Unaccepted));
    bench.reopen();

    let claimed = bench.claim(&["work"], 1).remove(0);

    for claimed in [lapsed, claimed] {
        assert_eq!((claimed.checkpoint.len(), claimed.snapshot.job.checkpoint()), (200_000, Some(5)));
    }
}

pub fn a_checkpoint_that_is_void_is_not_given(bench: &mut Bench) {
    for void in [0, 1] {
        let id = left(bench);
        let token = bench.run(&["work"], 1).remove(0).token;
        let command = match void {
            0 => checkpoint(token, 1, 0, ""),
            _ => Command::AppendOutput {
                lease: token,
                channel: String::new(),
                reset_to: Some(4),
                offset: 4,
                data: "x".into(),
            },
        };
        bench.step(id, command);
        bench.step(id, end_lease(token, KEEPER, LeaseEnd::Expired));

        let claimed = bench.run(&["work"], 1).remove(0);

        assert_eq!((claimed.checkpoint, claimed.snapshot.job.checkpoint()), (Bytes::new(), None));
        bench.step(id, complete(claimed.token));
    }
}

pub fn a_checkpoint_counts_with_the_bytes_of_a_claim(bench: &mut Bench) {
    let first = left(bench);
    let second = bench.start(spec("work")).id;
    let claim = Claim { bytes: 200_001, ..wish(&["work"], 1..4, true) };

    let outcome = bench.commit(vec![Operation::Claim(claim)]).remove(0);

    let Outcome::Claim(dealt) = outcome else { panic!("{outcome:?}") };
    assert_eq!((crate::bench::ids(&dealt.claimed), dealt.exhausted), (vec![first], false));
    assert_eq!(crate::bench::ids(&bench.run(&["work"], 3)), [second]);
}

pub fn a_forgotten_job_takes_its_checkpoint_along(bench: &mut Bench) {
    let id = left(bench);
    bench.step(id, cancel());

    let forgotten = bench.delete(id).unwrap();

    assert_eq!(forgotten.job.checkpoint(), Some(5));
    // A store that has a part of a job left says so when it is opened.
    bench.reopen();
    assert_eq!(bench.store().get(&[id], Parts::FULL).unwrap(), [None]);
}

/// A job that was cancelled while it waited, with a checkpoint behind 100 kB of output.
fn cancelled(bench: &mut Bench) -> JobId {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, output(token, 0, vec![b'x'; 100_001]));
    bench.step(token.job, checkpoint(token, 1, 100_000, "far"));
    bench.step(token.job, end_lease(token, KEEPER, LeaseEnd::Expired));
    bench.step(token.job, cancel());
    token.job
}

fn created(submitted: Result<Submitted, Rejection>) -> Job {
    match submitted.unwrap() {
        Submitted::Created(job) => *job,
        Submitted::Repeated(id) => panic!("it repeats {id}"),
    }
}

pub fn a_retry_goes_on_from_the_checkpoint(bench: &mut Bench) {
    let old = cancelled(bench);
    let before = bench.all_of(old);

    let job = created(bench.retry_with(old, None, Some(vec![b'x'; 100_000].into())));

    assert_eq!((job.clone(), bench.all_of(old)), (bench.job(job.id), before));
    let pieces: Vec<Event> = bench.history(job.id).split_off(1);
    let length = |event: &Event| match &event.body {
        Body::OutputAppended { offset, data, .. } => (event.attempt, *offset, data.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(pieces.iter().map(length).collect::<Vec<_>>(), [(0, 0, 65_536), (0, 65_536, 34_464)]);
    bench.reopen();
    let claimed = bench.run(&["work"], 1).remove(0);
    assert_eq!((claimed.token.job, &claimed.checkpoint[..]), (job.id, &b"far"[..]));
    assert_eq!(claimed.snapshot.job.checkpoint(), Some(100_000));
    bench.step(job.id, output(claimed.token, 100_000, "y"));
}

pub fn a_retry_begins_anew_where_the_output_does_not_fit(bench: &mut Bench) {
    let old = cancelled(bench);

    for output in [None, Some("".into()), Some(vec![b'x'; 100_001].into())] {
        let job = created(bench.retry_with(old, None, output));

        assert_eq!((job.checkpoint(), job.sequence()), (None, 1));
        let claimed = bench.run(&["work"], 1).remove(0);
        assert_eq!((claimed.token.job, claimed.checkpoint), (job.id, Bytes::new()));
    }
}
