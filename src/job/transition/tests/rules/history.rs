//! What a history keeps beside output: log lines, stages, measurements, the result; and where it ends.

use crate::job::transition::tests::life::*;
use crate::job::*;

fn lines(life: &Life) -> Vec<&str> {
    let line = |event| match event {
        &Event { body: Body::Logged(ref line), .. } => Some(&*line.message),
        _ => None,
    };
    life.events.iter().filter_map(line).collect()
}

#[test]
fn repeated_lines_are_skipped() {
    let mut life = Life::running(options());

    life.logs(0, &["one", "two"]).unwrap();
    life.logs(0, &["one", "two"]).unwrap();
    life.logs(1, &["two", "three"]).unwrap();

    assert_eq!(lines(&life), ["one", "two", "three"]);
}

#[test]
fn missing_lines_are_asked_for() {
    let mut life = Life::running(options());
    life.logs(0, &["one"]).unwrap();

    assert_eq!(life.logs(2, &["three"]), Err(Refusal::LogGap { expected: 1 }));
    assert_eq!(lines(&life), ["one"]);
}

#[test]
fn each_attempt_counts_its_own_lines() {
    let mut life = Life::running(options());
    life.logs(0, &["one", "two"]).unwrap();
    life.ends(LeaseEnd::Expired).unwrap();
    life.begin();

    assert_eq!(life.logs(2, &["three"]), Err(Refusal::LogGap { expected: 0 }));
    life.logs(0, &["again"]).unwrap();

    assert_eq!(lines(&life), ["one", "two", "again"]);
}

#[test]
fn a_log_ends_at_ten_thousand_lines_with_one_that_says_so() {
    let mut life = Life::running(options());
    for hundred in 0..99 {
        life.logs(hundred * 100, &["l"; 100]).unwrap();
    }

    assert_eq!(life.logs(9900, &["l"; 200]), Ok(State::Running));
    assert_eq!(life.logs(10_100, &["late"]), Ok(State::Running));

    let lines = lines(&life);
    assert_eq!(lines.len(), 10_000);
    assert_eq!(lines[9998], "l");
    assert!(lines[9999].contains("the log is full"), "{}", lines[9999]);
}

#[test]
fn the_bound_of_the_log_is_the_jobs_and_not_the_attempts() {
    let mut life = Life::running(options());
    life.logs(0, &["l"; 6000]).unwrap();
    life.releases(std::time::Duration::ZERO).unwrap();
    life.begin();

    life.logs(0, &["l"; 6000]).unwrap();

    assert_eq!(lines(&life).len(), 10_000);
    assert_eq!(life.logs(6000, &["late"]), Ok(State::Running));
}

#[test]
fn a_thousand_stages_are_kept_and_later_ones_are_no_error() {
    let mut life = Life::running(options());
    for stage in 0..1000 {
        life.enters(&stage.to_string()).unwrap();
    }
    let events = life.events.len();

    assert_eq!(life.enters("one more"), Ok(State::Running));

    assert_eq!(life.events.len(), events);
    assert_eq!(life.events[events - 1].body, Body::StageEntered { name: "999".into() });
}

#[test]
fn success_has_its_result_and_the_last_measurements() {
    let life = Life::running(options());
    let metrics: Metrics = [("input_tokens".to_owned(), 7.0)].into();
    let live = Live { metrics: metrics.clone(), ..Live::default() };
    let command = Command::Complete {
        lease: life.token(),
        result: "[1]".into(),
        live: live.clone(),
        output_bytes: None,
    };

    let step = transition(&life.job, command.clone(), life.now).unwrap();

    assert_eq!((step.result.as_deref(), step.live), (Some(&b"[1]"[..]), Some(live)));
    let Body::StateChanged(change) = &step.events[0].body else { panic!("it is a step") };
    assert_eq!((change.result.as_deref(), &change.metrics), (Some(&b"[1]"[..]), &metrics));
    assert_eq!((change.state, change.worker.as_deref()), (State::Succeeded, Some("w")));

    // The repeat of a report whose answer was lost.
    let again = transition(&step.job, command, life.now.after(HOUR)).unwrap();
    assert_eq!((again.answer, again.job, again.events.len()), (State::Succeeded, step.job, 0));
}

#[test]
fn a_job_may_be_forgotten_a_retention_after_its_end() {
    let mut life = Life::running(Options { retention: HOUR, ..options() });

    assert_eq!(life.job.purge_time(), None);
    life.wait(MINUTE).completes().unwrap();

    assert_eq!(life.job.purge_time(), Some(START.after(MINUTE + HOUR)));
}

#[test]
fn every_event_tells_its_attempt_and_its_time() {
    let mut life = Life::new(options());
    life.wait(SECOND).begin();
    life.wait(SECOND).enters("reading").unwrap();
    life.wait(SECOND).ends(LeaseEnd::Expired).unwrap();
    life.wait(SECOND).begin();

    let told: Vec<_> =
        life.events.iter().map(|event| (event.attempt, event.time.since(START).as_secs())).collect();

    assert_eq!(told, [(0, 0), (1, 1), (1, 2), (1, 3), (2, 4)]);
    assert_eq!(life.job.update_time(), START.after(SECOND * 4));
}
