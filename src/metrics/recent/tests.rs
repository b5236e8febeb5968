//! What a page is told of the last minutes.

use super::*;
use crate::job::{DEFAULT_TENANT, Failure, JobId, Metrics, Terms, Wish, reason};

const BEGIN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn at(seconds: u64) -> Timestamp {
    BEGIN.after(Duration::from_secs(seconds))
}

fn job(create_time: Timestamp) -> Job {
    let wish = Wish { kind: "work".to_owned(), ..Wish::default() };
    let spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).unwrap();
    Job::new(JobId::new(create_time, 0, 0), &spec, create_time)
}

fn step(state: State, failure: Option<Failure>, time: Timestamp) -> Event {
    let change = StateChange {
        previous: Some(State::Running),
        state,
        reason: reason::COMPLETED.into(),
        failure,
        worker: None,
        result: None,
        next_attempt_time: None,
        message: String::new(),
        metrics: Metrics::new(),
    };
    Event { sequence: 3, attempt: 1, time, body: Body::StateChanged(Box::new(change)) }
}

fn end(recent: &Recent, state: State, time: Timestamp) {
    recent.moved(&job(BEGIN), &[step(state, None, time)]);
}

#[test]
fn what_happens_is_counted_where_it_belongs() {
    let recent = Recent::default();
    let failure = || Some(Failure::new(reason::HANDLER_ERROR, "broken"));

    recent.created(&job(at(1)));
    recent.moved(&job(at(1)), &[step(State::Running, None, at(2))]);
    recent.moved(&job(at(1)), &[step(State::Retrying, failure(), at(3))]);
    recent.moved(&job(at(1)), &[step(State::Pending, failure(), at(3))]);
    recent.moved(&job(at(1)), &[step(State::Pending, None, at(3))]);
    for state in [State::Succeeded, State::Failed, State::Cancelled, State::Expired] {
        end(&recent, state, at(4));
    }

    let all = recent.minutes(at(5)).all;
    assert_eq!((all.created, all.retried), (1, 2));
    assert_eq!((all.succeeded, all.failed, all.cancelled, all.expired), (1, 1, 1, 1));
}

#[test]
fn a_job_takes_from_when_it_was_to_begin_to_its_end() {
    let recent = Recent::default();
    let mut scheduled = job(BEGIN);
    scheduled.options.schedule_time = Some(at(600));

    recent.moved(&scheduled, &[step(State::Succeeded, None, at(604))]);
    recent.moved(&scheduled, &[step(State::Failed, None, at(700))]);

    let Minutes { slices, all } = recent.minutes(at(700));
    let took = all.p95.unwrap();
    assert!(took.abs_diff(Duration::from_secs(4)) < Duration::from_millis(300), "{took:?}");
    assert_eq!(slices.iter().filter(|slice| slice.p50.is_some()).count(), 1);
}

#[test]
fn slices_are_whole_and_without_a_gap() {
    let recent = Recent::default();

    end(&recent, State::Succeeded, at(0));
    end(&recent, State::Succeeded, at(300));

    let slices = recent.minutes(at(305)).slices;
    assert_eq!(slices.len(), SLICES);
    assert!(slices.windows(2).all(|pair| pair[1].time.since(pair[0].time) == SLICE));
    let counted: Vec<usize> = (0..SLICES).filter(|index| slices[*index].succeeded > 0).collect();
    assert_eq!(counted, [SLICES - 31, SLICES - 1]);
}

#[test]
fn what_is_older_than_a_quarter_of_an_hour_is_not_told_whether_its_place_was_taken_or_not() {
    let recent = Recent::default();
    end(&recent, State::Failed, at(0));
    end(&recent, State::Failed, at(10));
    let quarter = SLICES as u64 * SLICE.as_secs();

    end(&recent, State::Succeeded, at(quarter));

    let all = recent.minutes(at(quarter)).all;
    assert_eq!((all.failed, all.succeeded), (1, 1));
    assert_eq!(recent.minutes(at(3 * quarter)).all.failed, 0);
    let all = recent.minutes(at(3 * quarter)).all;
    assert_eq!(all, Slice { time: all.time, ..Slice::default() });
}

#[test]
fn what_comes_late_is_counted_in_its_own_time_or_not_at_all() {
    let recent = Recent::default();
    let quarter = SLICES as u64 * SLICE.as_secs();
    end(&recent, State::Succeeded, at(quarter));

    end(&recent, State::Failed, at(quarter - 60));
    end(&recent, State::Cancelled, at(0));

    let Minutes { slices, all } = recent.minutes(at(quarter));
    assert_eq!((all.succeeded, all.failed, all.cancelled), (1, 1, 0));
    assert_eq!(slices[SLICES - 7].failed, 1);
}
