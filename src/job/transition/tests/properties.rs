//! Random lives: whatever is asked of a job, and whenever, some things stay true.
//!
//! A life that breaks one is printed, shortened, with its seed. What each command ought to do is told by the table.

use super::life::*;
use crate::job::*;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;
use std::time::Duration;

/// Something asked of a job at some time; which lease it names follows from the job.
#[derive(Clone, Debug)]
struct Wanted {
    deed: Deed,
    grip: Grip,
    /// Seconds since the one before; time goes back where they are negative.
    wait: i64,
    jitter: f64,
    /// An offset, a length, a delay: what the deed makes of it.
    number: u64,
    flag: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    Lease,
    Accept,
    Adopt,
    EnterStage,
    AppendOutput,
    AppendLog,
    Complete,
    Fail,
    Stop,
    Release,
    EndLease(LeaseEnd),
    Cancel,
    Advance,
    Grant,
}

/// Which lease a command names.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Grip {
    Own,
    Earlier,
    Forged,
}

/// What was asked of `before`, when, and what came of it.
struct Stride {
    before: Job,
    command: Command,
    grip: Grip,
    now: Timestamp,
    outcome: Result<Transition, Refusal>,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let deed = prop_oneof![
        6 => Just(Deed::Lease),
        2 => Just(Deed::Accept),
        1 => Just(Deed::Adopt),
        2 => Just(Deed::EnterStage),
        4 => Just(Deed::AppendOutput),
        2 => Just(Deed::AppendLog),
        1 => Just(Deed::Complete),
        3 => Just(Deed::Fail),
        1 => Just(Deed::Stop),
        2 => Just(Deed::Release),
        1 => Just(Deed::EndLease(LeaseEnd::Expired)),
        1 => Just(Deed::EndLease(LeaseEnd::Unaccepted)),
        1 => Just(Deed::EndLease(LeaseEnd::Stalled)),
        1 => Just(Deed::EndLease(LeaseEnd::Restarted)),
        1 => Just(Deed::Cancel),
        6 => Just(Deed::Advance),
        3 => Just(Deed::Grant),
    ];
    let grip = prop_oneof![8 => Just(Grip::Own), 1 => Just(Grip::Earlier), 1 => Just(Grip::Forged)];
    let wait = prop_oneof![20 => 0..40i64, 1 => -100..0i64, 1 => any::<i64>()];
    let number = prop_oneof![10 => 0..20u64, 1 => any::<u64>()];
    (deed, grip, wait, 0.0..=1.0, number, any::<bool>()).prop_map(
        |(deed, grip, wait, jitter, number, flag)| Wanted { deed, grip, wait, jitter, number, flag },
    )
}

/// The options that the machine looks at, each with or without.
fn any_options() -> impl Strategy<Value = Options> {
    let timeout = || proptest::option::of((1..300u64).prop_map(Duration::from_secs));
    let schedule = proptest::option::of((-60..60i64).prop_map(|s| moved(START, s)));
    (timeout(), timeout(), timeout(), schedule, 1..5u32, any::<bool>()).prop_map(
        |(start, attempt, life, schedule_time, maximum_attempts, blocked)| {
            let mut options = options();
            options.schedule_to_start_timeout = start;
            options.start_to_close_timeout = attempt;
            options.schedule_to_close_timeout = life;
            options.schedule_time = schedule_time;
            options.retry.maximum_attempts = maximum_attempts;
            options.concurrency = blocked.then(|| Concurrency { key: "c".into(), limit: 1 });
            options
        },
    )
}

fn script() -> impl Strategy<Value = (Options, Vec<Wanted>)> {
    (any_options(), proptest::collection::vec(wanted(), 1..60))
}

fn moved(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(time.as_micros().saturating_add(seconds.saturating_mul(1_000_000)))
}

fn command(wanted: &Wanted, job: &Job) -> Command {
    let Wanted { deed, grip, jitter, number, flag, .. } = wanted.clone();
    let own = LeaseToken { job: job.id, epoch: job.epoch, secret: u64::from(job.epoch) };
    let lease = match grip {
        Grip::Own => own,
        Grip::Earlier => LeaseToken { epoch: own.epoch.wrapping_sub(1), ..own },
        Grip::Forged => LeaseToken { secret: own.secret ^ 1, ..own },
    };
    let live = Live { metrics: [("n".to_owned(), number as f64)].into(), ..Live::default() };
    let delay = Duration::from_secs(if flag { number } else { 0 });
    match deed {
        Deed::Lease => Command::Lease {
            worker: "w".into(),
            keeper: KEEPER,
            secret: u64::from(job.epoch) + 1,
            in_process: false,
            accept: flag,
        },
        Deed::Accept => Command::Accept { lease },
        Deed::Adopt => Command::Adopt { epoch: lease.epoch, keeper: KEEPER },
        Deed::EnterStage => Command::EnterStage { lease, name: format!("stage {number}") },
        Deed::AppendOutput => {
            let channel = format!("{}", number % 12);
            let known = job.emitted.channels.iter().find(|known| known.name == channel);
            let bytes = known.map_or(0, |channel| channel.bytes);
            Command::AppendOutput {
                lease,
                channel,
                reset_to: flag.then_some(number),
                offset: if flag { number } else { bytes.saturating_sub(number % 3) },
                data: Bytes::from(vec![b'x'; (number % 9) as usize]),
            }
        }
        Deed::AppendLog => {
            let offset = if flag { number } else { job.emitted.attempt_log_lines };
            let line = LogLine { level: LogLevel::Info, message: "l".into() };
            Command::AppendLog { lease, offset, lines: vec![line; (number % 4) as usize] }
        }
        Deed::Complete => {
            Command::Complete { lease, result: "1".into(), live, output_bytes: flag.then_some(number) }
        }
        Deed::Fail => {
            let failure = Failure::new(reason::HANDLER_ERROR, "no");
            let failure = Some(Failure { permanent: number == 0, ..failure });
            Command::Fail { lease, failure, retry_delay: flag.then_some(delay), live, jitter }
        }
        Deed::Stop => Command::Fail { lease, failure: None, retry_delay: None, live, jitter },
        Deed::Release => Command::Release { lease, reason: "r".into(), delay, live },
        Deed::EndLease(cause) => {
            let keeper = if grip == Grip::Forged { Keeper(9) } else { KEEPER };
            Command::EndLease { epoch: lease.epoch, keeper, cause, live, jitter }
        }
        Deed::Cancel => Command::Cancel { reason: "enough".into(), grace: delay },
        Deed::Advance => Command::Advance { live, jitter },
        Deed::Grant => Command::Grant,
    }
}

/// Lives the life; that nothing panics on the way is a property too.
fn walk((options, script): (Options, Vec<Wanted>)) -> (Vec<Stride>, Life) {
    let mut life = Life::new(options);
    let mut strides = Vec::new();
    for wanted in script {
        life.now = moved(life.now, wanted.wait);
        let command = command(&wanted, &life.job);
        let before = life.job.clone();
        let outcome = transition(&before, command.clone(), life.now);
        if let Ok(step) = &outcome {
            life.job = step.job.clone();
            life.events.extend(step.events.iter().cloned());
        }
        strides.push(Stride { before, command, grip: wanted.grip, now: life.now, outcome });
    }
    (strides, life)
}

/// Whether the command names its lease by a token; `Adopt` and `EndLease` know only the number.
fn names_a_token(command: &Command) -> bool {
    match command {
        Command::Accept { .. }
        | Command::EnterStage { .. }
        | Command::AppendOutput { .. }
        | Command::AppendLog { .. }
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
    fn a_job_ends_once_and_nothing_happens_afterwards(script in script()) {
        let (_, life) = walk(script);

        let ends = |event: &Event| matches!(&event.body, Body::StateChanged(change) if change.state.is_final());
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
                Command::Advance { .. } if step.job.next_due().is_some_and(|due| due <= *now) => continue,
                _ => {}
            }
            match transition(&step.job, command.clone(), *now) {
                Ok(again) => {
                    prop_assert_eq!(&again.job, &step.job, "after {:?}", command);
                    prop_assert!(again.events.is_empty() && again.result.is_none() && again.live.is_none());
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
            let (Ok(step), Command::AppendOutput { reset_to: Some(_), .. }) = (outcome, command) else { continue };
            let again = transition(&step.job, command.clone(), *now).expect("what went once goes twice");
            prop_assert_eq!(&again.job.emitted.channels, &step.job.emitted.channels);
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
            let before = Timestamp::from_micros(due.as_micros().saturating_sub(early));
            prop_assert_eq!(&advance(job, before), job);
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
    assert_eq!(refusals.len(), 9, "only {refusals:?} were met");
}
