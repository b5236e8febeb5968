//! What happened to a job, as it is read.

use crate::bench::{Bench, KEEPER, WHOLE};
use crate::builders::*;
use bytes::Bytes;
use longhaul::job::*;
use longhaul::store::*;

/// A job that has been through much, and every event that a step told of.
fn eventful(bench: &mut Bench) -> (JobId, Vec<Event>) {
    let job = bench.start(tuned("work", |options| options.schedule_time = Some(bench.now.after(SECOND))));
    let id = job.id;
    let mut told = vec![job.first_event()];
    bench.wait(SECOND);
    told.extend(bench.sweep().transitions.remove(0).events);

    let first = bench.run(&["work"], 1).remove(0);
    told.extend(first.events);
    let first = first.token;
    for command in [
        stage(first, "one"),
        output(first, 0, "hello"),
        log(first, 0, "a line"),
        output(first, 5, vec![0xff; 200_000]),
        fail(first),
    ] {
        bench.wait(MICROSECOND);
        told.extend(bench.step(id, command).events);
    }
    told.extend(bench.sweep().transitions.remove(0).events);

    let second = bench.claim(&["work"], 1).remove(0).token;
    let again = Command::AppendOutput {
        lease: second,
        channel: "reasoning".into(),
        reset_to: Some(0),
        offset: 0,
        data: "why".into(),
    };
    let done = Command::Complete {
        lease: second,
        result: vec![b'9'; 1 << 20].into(),
        live: live(9),
        output_bytes: Some(3),
    };
    for command in [accept(second), again, stage(second, "two"), done] {
        bench.wait(MICROSECOND);
        told.extend(bench.step(id, command).events);
    }
    (id, told)
}

pub fn a_history_is_all_that_the_steps_told(bench: &mut Bench) {
    let (id, told) = eventful(bench);
    assert!(told.len() > 14);

    assert_eq!(bench.history(id), told);
    bench.reopen();
    assert_eq!(bench.history(id), told);
}

pub fn a_step_that_says_nothing_new_adds_nothing(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    bench.step(token.job, output(token, 0, "abc"));
    bench.step(token.job, log(token, 0, "line"));
    let before = bench.all_of(token.job);

    let repeats = [accept(token), output(token, 0, "abc"), output(token, 1, "b"), log(token, 0, "line")];
    for command in repeats {
        assert_eq!(bench.step(token.job, command).events, []);
    }

    assert_eq!(bench.all_of(token.job), before);
}

pub fn the_first_event_says_how_the_job_began(bench: &mut Bench) {
    let pending = bench.start(spec("work"));
    let due = bench.now.after(SECOND);
    let waiting = bench.start(scheduled(due));
    let overdue = bench.start(scheduled(bench.now));

    for (job, state, next) in [
        (pending, State::Pending, None),
        (waiting, State::Scheduled, Some(due)),
        (overdue, State::Pending, None),
    ] {
        let first = bench.history(job.id).remove(0);
        assert_eq!(first, job.first_event());
        let Body::StateChanged(change) = first.body else { panic!() };
        assert_eq!((change.state, change.next_attempt_time), (state, next));
    }
}

pub fn a_result_comes_with_the_success(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    let result = Bytes::from_static(b"{\"text\": \"done\"}\xff");
    let done = Command::Complete { lease: token, result: result.clone(), live: live(1), output_bytes: None };

    let step = bench.step(token.job, done);
    bench.reopen();

    assert_eq!(step.result, Some(result.clone()));
    let Body::StateChanged(change) = bench.history(token.job).pop().unwrap().body else { panic!() };
    assert_eq!((change.state, change.result), (State::Succeeded, Some(result.clone())));
    assert_eq!(bench.snapshot(token.job).result, Some(result));
    let basic = bench.store().get(&[token.job], Parts::BASIC).unwrap().remove(0).unwrap();
    assert_eq!((basic.input, basic.result), (None, None));
}

pub fn an_empty_result_is_a_result(bench: &mut Bench) {
    let token = bench.start_and_run(spec("work"));
    let done = Command::Complete { lease: token, result: Bytes::new(), live: live(1), output_bytes: None };
    bench.step(token.job, done);

    assert_eq!(bench.snapshot(token.job).result, Some(Bytes::new()));
}

pub fn a_history_can_be_read_from_any_event_on(bench: &mut Bench) {
    let (id, told) = eventful(bench);

    for after in 0..told.len() + 2 {
        let rest = bench.store().events(&[(id, after as Sequence)], WHOLE).unwrap().remove(0);
        assert_eq!(rest, told.get(after..).unwrap_or_default(), "after {after}");
    }
    assert_eq!(bench.store().events(&[(id, Sequence::MAX)], WHOLE).unwrap(), [vec![]]);
}

pub fn a_page_of_history_has_a_limit_of_events(bench: &mut Bench) {
    let (id, told) = eventful(bench);

    for count in 1..=told.len() + 1 {
        let limit = EventLimit { events: count, ..WHOLE };
        for after in 0..told.len() {
            let page = bench.store().events(&[(id, after as Sequence)], limit).unwrap().remove(0);
            assert_eq!(page, told[after..told.len().min(after + count)], "{count} after {after}");
        }
    }
}

pub fn a_page_of_history_has_a_limit_of_bytes_and_is_never_empty(bench: &mut Bench) {
    let (id, told) = eventful(bench);

    for bytes in [0, 1, 70_000, 300_000, 2 << 20] {
        let mut read: Vec<Event> = Vec::new();
        while read.len() < told.len() {
            let cursor = read.last().map_or(0, |event| event.sequence);
            let limit = EventLimit { events: 1000, bytes };
            let page = bench.store().events(&[(id, cursor)], limit).unwrap().remove(0);
            let pieces = page.iter().map(|event| match &event.body {
                Body::OutputAppended { data, .. } => data.len(),
                Body::StateChanged(change) => change.result.as_ref().map_or(0, Bytes::len),
                _ => 0,
            });
            assert!(!page.is_empty(), "there is more after {cursor}");
            assert!(page.len() == 1 || pieces.sum::<usize>() <= bytes, "a page exceeds {bytes} bytes");
            read.extend(page);
        }
        assert_eq!(read, told);
    }
}

pub fn the_histories_of_several_jobs_come_in_one_call(bench: &mut Bench) {
    let (eventful, told) = eventful(bench);
    let plain = bench.start(spec("work"));
    let stranger = JobId::new(bench.now.after(SECOND), 9, 9);

    let wanted = [(plain.id, 0), (eventful, 2), (stranger, 0), (plain.id, 1), (eventful, 0)];
    let histories = bench.store().events(&wanted, EventLimit { events: 3, ..WHOLE }).unwrap();

    let expected = [vec![plain.first_event()], told[2..5].to_vec(), vec![], vec![], told[..3].to_vec()];
    assert_eq!(histories, expected, "each has the limit for itself");
}

pub fn a_claim_that_lapses_is_not_in_the_history(bench: &mut Bench) {
    let job = bench.start(spec("work"));
    for _ in 0..3 {
        let token = bench.claim(&["work"], 1).remove(0).token;
        assert_eq!(bench.step(job.id, end_lease(token, KEEPER, LeaseEnd::Unaccepted)).events, []);
    }

    assert_eq!(bench.history(job.id), [job.first_event()]);
    assert_eq!(bench.job(job.id).epoch, 3);
}
