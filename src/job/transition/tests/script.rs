//! Random lives: what is asked of a job, by whom and when. They are not likely ones, and time may go back.

use super::life::*;
use crate::job::*;
use bytes::Bytes;
use proptest::prelude::*;
use std::time::Duration;

/// Something asked of a job at some time; which lease it names follows from the job.
#[derive(Clone, Debug)]
pub struct Wanted {
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
pub enum Deed {
    Lease,
    Accept,
    Adopt,
    EnterStage,
    AppendOutput,
    AppendLog,
    Checkpoint,
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
pub enum Grip {
    Own,
    Earlier,
    Forged,
}

/// What was asked of `before`, when, and what came of it.
pub struct Stride {
    pub before: Job,
    pub command: Command,
    pub grip: Grip,
    pub now: Timestamp,
    pub outcome: Result<Transition, Refusal>,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let deed = prop_oneof![
        6 => Just(Deed::Lease),
        2 => Just(Deed::Accept),
        1 => Just(Deed::Adopt),
        2 => Just(Deed::EnterStage),
        4 => Just(Deed::AppendOutput),
        2 => Just(Deed::AppendLog),
        3 => Just(Deed::Checkpoint),
        1 => Just(Deed::Complete),
        3 => Just(Deed::Fail),
        1 => Just(Deed::Stop),
        2 => Just(Deed::Release),
        1 => Just(Deed::EndLease(LeaseEnd::Expired)),
        1 => Just(Deed::EndLease(LeaseEnd::Unaccepted)),
        1 => Just(Deed::EndLease(LeaseEnd::Undelivered)),
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

/// The options of a job, and what is asked of it.
pub fn script() -> impl Strategy<Value = (Options, Vec<Wanted>)> {
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
            term: None,
            accept: flag,
        },
        Deed::Accept => Command::Accept { lease },
        Deed::Adopt => Command::Adopt { epoch: lease.epoch, keeper: KEEPER },
        Deed::EnterStage => Command::EnterStage { lease, name: format!("stage {number}") },
        Deed::AppendOutput => {
            let channel = if number % 2 == 0 { String::new() } else { format!("{}", number % 12) };
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
        Deed::Checkpoint => {
            let known = job.emitted.checkpoint.map_or(0, |checkpoint| checkpoint.number);
            let main = job.emitted.channels.iter().find(|channel| channel.name.is_empty());
            let output_bytes = main.map_or(0, |main| main.bytes).saturating_sub(number % 5);
            Command::Checkpoint {
                lease,
                number: known.saturating_add(number % 3),
                output_bytes: if number == 7 { u64::MAX } else { output_bytes },
                data: Bytes::from(vec![b'c'; (number % 4) as usize]),
            }
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
pub fn walk((options, script): (Options, Vec<Wanted>)) -> (Vec<Stride>, Life) {
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
