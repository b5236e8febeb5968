//! What stays true whatever is asked of a job, and whenever.
//!
//! A life that breaks it is printed, shortened, with its seed. What each command does is told by the table.

use super::script::*;
use crate::job::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;

/// Whether the command names its lease by a token; `Adopt` and `EndLease` know only the number.
fn names_a_token(command: &Command) -> bool {
    match command {
        Command::Accept { .. }
        | Command::EnterStage { .. }
        | Command::AppendOutput { .. }
        | Command::AppendLog { .. }
        | Command::Checkpoint { .. }
        | Command::Complete { .. }
        | Command::Fail { .. }
        | Command::Release { .. } => true,
        Command::Lease { .. }
        | Command::Adopt { .. }
        | Command::EndLease { .. }
        | Command::Cancel { .. }
        | Command::Advance { .. }
        | Command::Grant => false,
    }
}

fn advance(job: &Job, now: Timestamp) -> Job {
    let command = Command::Advance { live: Live::default(), jitter: 0.5 };
    transition(job, command, now).expect("it is never refused").job
}

/// Whether something is due: for a job it is never earlier than its last event.
fn has_come(due: Timestamp, job: &Job, now: Timestamp) -> bool {
    due <= now.max(job.update_time())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn kept_events_are_numbered_without_a_gap(script in script()) {
        let (_, life) = walk(script);

        let numbers: Vec<Sequence> = life.events.iter().map(|event| event.sequence).collect();

        prop_assert_eq!(&numbers, &(1..=numbers.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!(life.job.sequence(), numbers.len() as u64);
    }

    #[test]
    fn a_history_never_goes_back_in_time(script in script()) {
        let (_, life) = walk(script);

        prop_assert!(life.events.is_sorted_by_key(|event| event.time));
        prop_assert!(life.job.start_time.is_none_or(|time| time >= life.job.create_time));
        prop_assert!(life.job.end_time.is_none_or(|time| time >= life.job.start_time.unwrap_or(life.job.create_time)));
    }

    #[test]
    fn a_job_ends_once_and_nothing_happens_afterwards(script in script()) {
        let (_, life) = walk(script);

        let ends = |event: &Event| match &event.body {
            Body::StateChanged(change) => change.state.is_final(),
            _ => false,
        };
        let first_end = life.events.iter().position(ends);

        prop_assert_eq!(first_end.is_some(), life.job.state.is_final());
        prop_assert!(first_end.is_none_or(|index| index + 1 == life.events.len()));
        prop_assert_eq!(life.job.end_time.is_some(), life.job.state.is_final());
    }

    #[test]
    fn what_counts_up_never_falls(script in script()) {
        let (strides, _) = walk(script);

        for Stride { before, outcome, .. } in &strides {
            let Ok(Transition { job, .. }) = outcome else { continue };
            prop_assert!(job.epoch == before.epoch || job.epoch == before.epoch + 1);
            prop_assert!(job.attempt == before.attempt || job.attempt == before.attempt + 1);
            prop_assert!(job.attempt <= job.epoch);
            prop_assert!(job.counted_attempts <= job.attempt);
            prop_assert!(job.counted_attempts <= job.options.retry.maximum_attempts);
            prop_assert!(job.run_duration >= before.run_duration);
            prop_assert!(job.queue_duration >= before.queue_duration);
        }
    }

    #[test]
    fn a_stale_lease_changes_nothing(script in script()) {
        let (strides, _) = walk(script);

        let stale = |stride: &&Stride| {
            (stride.grip != Grip::Own || stride.before.lease.is_none()) && names_a_token(&stride.command)
        };
        for Stride { before, command, outcome, .. } in strides.iter().filter(stale) {
            let Ok(step) = outcome else { continue };
            prop_assert_eq!(&step.job, before, "after {:?}", command);
            prop_assert!(step.events.is_empty() && step.result.is_none() && step.live.is_none());
            prop_assert!(step.checkpoint.is_none());
        }
    }

    #[test]
    fn a_command_that_comes_twice_does_nothing_more(script in script()) {
        let (strides, _) = walk(script);

        for Stride { command, now, outcome, .. } in &strides {
            let Ok(step) = outcome else { continue };
            match command {
                Command::EnterStage { .. } | Command::AppendOutput { reset_to: Some(_), .. } => continue,
                // A retry without a wait is due at once, and is the next thing to do.
                Command::Advance { .. } if step.job.next_due().is_some_and(|due| has_come(due, &step.job, *now)) => continue,
                _ => {}
            }
            match transition(&step.job, command.clone(), *now) {
                Ok(again) => {
                    prop_assert_eq!(&again.job, &step.job, "after {:?}", command);
                    prop_assert!(again.events.is_empty() && again.result.is_none() && again.live.is_none());
                    prop_assert!(again.checkpoint.is_none());
                    prop_assert_eq!(again.answer, step.answer);
                }
                Err(Refusal::NotReady) => {
                    let opens = matches!(command, Command::Lease { .. } | Command::Grant);
                    prop_assert!(opens, "after {:?}", command);
                }
                Err(refusal) => {
                    prop_assert_eq!(refusal, Refusal::LeaseLost);
                    let ends = matches!(command, Command::EndLease { .. });
                    prop_assert!(ends, "after {:?}", command);
                }
            }
        }
    }

    #[test]
    fn a_reset_that_is_repeated_leaves_the_same_output(script in script()) {
        let (strides, _) = walk(script);

        for Stride { command, now, outcome, .. } in &strides {
            let resets = matches!(command, Command::AppendOutput { reset_to: Some(_), .. });
            let Some(step) = outcome.as_ref().ok().filter(|_| resets) else { continue };
            let again = transition(&step.job, command.clone(), *now).expect("what went once goes twice");
            prop_assert_eq!(&again.job.emitted.channels, &step.job.emitted.channels);
        }
    }

    #[test]
    fn a_checkpoint_never_claims_output_that_is_void(script in script()) {
        let (strides, _) = walk(script);

        for Stride { before, command, outcome, .. } in &strides {
            let Ok(Transition { job, events, checkpoint, .. }) = outcome else { continue };
            let main = job.emitted.channels.iter().find(|channel| channel.name.is_empty());
            prop_assert!(job.checkpoint() <= Some(main.map_or(0, |main| main.bytes)), "after {:?}", command);
            // The data comes with the record of it, and an attempt goes on from what was kept.
            let is_new = job.checkpoint().is_some() && before.checkpoint() != job.checkpoint();
            prop_assert!(!is_new || checkpoint.is_some(), "after {:?}", command);
            if job.attempt > before.attempt && !matches!(command, Command::Checkpoint { .. }) {
                let voided = events.iter().filter_map(|event| match &event.body {
                    Body::OutputReset { channel, kept_bytes } if channel.is_empty() => Some(*kept_bytes),
                    _ => None,
                });
                prop_assert!(voided.take(1).all(|kept| kept == before.checkpoint().unwrap_or(0)));
            }
        }
    }

    #[test]
    fn the_time_of_the_next_step_is_honest(script in script(), early in 1..100_000_000i64) {
        let (strides, _) = walk(script);

        for Stride { outcome, .. } in &strides {
            let Ok(Transition { job, .. }) = outcome else { continue };
            let Some(due) = job.next_due() else {
                let never = Timestamp::from_micros(i64::MAX);
                prop_assert_eq!(&advance(job, never), job);
                continue;
            };
            // The first moment that can be told has none before it.
            let before = due.as_micros().checked_sub(early).map(Timestamp::from_micros);
            if let Some(before) = before.filter(|before| !has_come(due, job, *before)) {
                prop_assert_eq!(&advance(job, before), job);
            }
            prop_assert_ne!(&advance(job, due), job);
        }
    }
}

#[test]
fn the_random_lives_see_every_state_and_every_refusal() {
    let mut runner = TestRunner::deterministic();
    let mut states = HashSet::new();
    let mut refusals = HashSet::new();

    for _ in 0..300 {
        let script = script().new_tree(&mut runner).expect("there is always a script").current();
        for Stride { outcome, .. } in walk(script).0 {
            match outcome {
                Ok(step) => states.insert(step.job.state.name()),
                Err(refusal) => refusals.insert(std::mem::discriminant(&refusal)),
            };
        }
    }

    assert_eq!(states.len(), State::ALL.len(), "only {states:?} were reached");
    // All but the limits of output and of channels, which no short life reaches.
    assert_eq!(refusals.len(), 10, "only {refusals:?} were met");
}
