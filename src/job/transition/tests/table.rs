//! Every state × command as one table, which must be complete. What the steps record is not told here.

use crate::job::*;
use bytes::Bytes;
use std::time::Duration;

/// `same`: nothing changes and nothing is recorded. A state: the job is there now, changed. Else the refusal's name.
/// `stale` rows name an earlier epoch or another secret; a final job's own lease is the last that it had.
const TABLE: &str = "
                  SCHEDULED PENDING   BLOCKED   CLAIMED     RUNNING       RETRYING  CANCELLING   SUCCEEDED FAILED    CANCELLED    EXPIRED
lease             NotReady  PENDING   NotReady  NotReady    NotReady      NotReady  NotReady     NotReady  NotReady  NotReady     NotReady
lease+accept      NotReady  RUNNING   NotReady  NotReady    NotReady      NotReady  NotReady     NotReady  NotReady  NotReady     NotReady
accept            LeaseLost LeaseLost LeaseLost RUNNING     same          LeaseLost same         LeaseLost LeaseLost LeaseLost    LeaseLost
accept/stale      LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
adopt             LeaseLost LeaseLost LeaseLost PENDING     RUNNING       LeaseLost CANCELLING   LeaseLost LeaseLost LeaseLost    LeaseLost
adopt/stale       LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
stage             LeaseLost LeaseLost LeaseLost RUNNING     RUNNING       LeaseLost CANCELLING   LeaseLost LeaseLost LeaseLost    LeaseLost
stage/stale       LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
output            LeaseLost LeaseLost LeaseLost RUNNING     RUNNING       LeaseLost CANCELLING   LeaseLost LeaseLost LeaseLost    LeaseLost
output/stale      LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
log               LeaseLost LeaseLost LeaseLost RUNNING     RUNNING       LeaseLost CANCELLING   LeaseLost LeaseLost LeaseLost    LeaseLost
log/stale         LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
checkpoint        LeaseLost LeaseLost LeaseLost RUNNING     RUNNING       LeaseLost CANCELLING   LeaseLost LeaseLost LeaseLost    LeaseLost
checkpoint/stale  LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
complete          LeaseLost LeaseLost LeaseLost SUCCEEDED   SUCCEEDED     LeaseLost JobCancelled same      LeaseLost JobCancelled LeaseLost
complete/stale    LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
fail              LeaseLost LeaseLost LeaseLost RETRYING    RETRYING      same      CANCELLED    LeaseLost same      same         LeaseLost
fail/stale        LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
stop              LeaseLost LeaseLost LeaseLost NothingToStop NothingToStop same    CANCELLED    LeaseLost same      same         LeaseLost
release           LeaseLost LeaseLost LeaseLost PENDING     PENDING       LeaseLost CANCELLED    LeaseLost LeaseLost same         LeaseLost
release+delay     LeaseLost LeaseLost LeaseLost SCHEDULED   SCHEDULED     LeaseLost CANCELLED    LeaseLost LeaseLost same         LeaseLost
release/stale     LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
end/expired       LeaseLost LeaseLost LeaseLost PENDING     PENDING       LeaseLost CANCELLED    LeaseLost LeaseLost LeaseLost    LeaseLost
end/unaccepted    LeaseLost LeaseLost LeaseLost PENDING     Accepted      LeaseLost Accepted     LeaseLost LeaseLost LeaseLost    LeaseLost
end/undelivered   LeaseLost LeaseLost LeaseLost PENDING     Accepted      LeaseLost Accepted     LeaseLost LeaseLost LeaseLost    LeaseLost
end/stalled       LeaseLost LeaseLost LeaseLost PENDING     RETRYING      LeaseLost CANCELLED    LeaseLost LeaseLost LeaseLost    LeaseLost
end/restarted     LeaseLost LeaseLost LeaseLost PENDING     PENDING       LeaseLost CANCELLED    LeaseLost LeaseLost LeaseLost    LeaseLost
end/other-keeper  LeaseLost LeaseLost LeaseLost OtherKeeper OtherKeeper   LeaseLost OtherKeeper  LeaseLost LeaseLost LeaseLost    LeaseLost
end/stale         LeaseLost LeaseLost LeaseLost LeaseLost   LeaseLost     LeaseLost LeaseLost    LeaseLost LeaseLost LeaseLost    LeaseLost
cancel            CANCELLED CANCELLED CANCELLED CANCELLED   CANCELLING    CANCELLED same         same      same      same         same
advance/early     same      same      same      same        same          same      same         same      same      same         same
advance/due       PENDING   same      same      same        same          PENDING   CANCELLED    same      same      same         same
grant             NotReady  NotReady  PENDING   NotReady    NotReady      NotReady  NotReady     NotReady  NotReady  NotReady     NotReady
";

const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const KEEPER: Keeper = Keeper(1);

fn live() -> Live {
    Live::default()
}

fn apply(job: Job, command: Command, now: Timestamp) -> Job {
    transition(&job, command, now).expect("the way to the state is open").job
}

fn lease(accept: bool) -> Command {
    Command::Lease { worker: "w".into(), keeper: KEEPER, secret: 42, in_process: false, term: None, accept }
}

fn fail(lease: LeaseToken, permanent: bool) -> Command {
    let failure = Some(Failure { permanent, ..Failure::new(reason::HANDLER_ERROR, "no") });
    Command::Fail { lease, failure, retry_delay: None, live: live(), jitter: 1.0 }
}

fn end(epoch: u32, keeper: Keeper, cause: LeaseEnd) -> Command {
    Command::EndLease { epoch, keeper, cause, live: live(), jitter: 1.0 }
}

fn cancel() -> Command {
    Command::Cancel { reason: "enough".into(), grace: HOUR }
}

fn advance() -> Command {
    Command::Advance { live: live(), jitter: 1.0 }
}

/// A job in the state that heads a column, with the last lease that it had.
fn job_in(column: &str) -> (Job, LeaseToken) {
    let options = Options {
        schedule_time: (column == "SCHEDULED").then(|| NOW.after(HOUR)),
        concurrency: (column == "BLOCKED").then(|| Concurrency { key: "k".into(), limit: 1 }),
        schedule_to_start_timeout: (column == "EXPIRED").then_some(HOUR),
        ..Options::default()
    };
    let spec = Wish { kind: "k".into(), input: "{}".into(), ..Wish::default() };
    let spec = spec.into_spec("default", &Terms::default()).expect("the wish is sound");
    let new = Job::new(JobId::new(NOW, 7, 99), &Spec { options, ..spec }, NOW);
    let token = LeaseToken { job: new.id, epoch: 1, secret: 42 };
    let running = || apply(new.clone(), lease(true), NOW);
    let complete = Command::Complete { lease: token, result: "1".into(), live: live(), output_bytes: None };
    let job = match column {
        "SCHEDULED" | "PENDING" | "BLOCKED" => new,
        "CLAIMED" => apply(new, lease(false), NOW),
        "RUNNING" => running(),
        "RETRYING" => apply(running(), fail(token, false), NOW),
        "CANCELLING" => apply(running(), cancel(), NOW),
        "SUCCEEDED" => apply(running(), complete, NOW),
        "FAILED" => apply(running(), fail(token, true), NOW),
        "CANCELLED" => apply(apply(running(), cancel(), NOW), advance(), NOW.after(HOUR)),
        "EXPIRED" => apply(new, advance(), NOW.after(HOUR)),
        other => panic!("no column is called {other}"),
    };
    (job, token)
}

/// The command that a row is about, under the lease `own`.
fn command_of(row: &str, own: LeaseToken) -> Option<Command> {
    let (deed, manner) = row.split_once('/').unwrap_or((row, ""));
    let lease = match manner {
        "stale" => LeaseToken { epoch: own.epoch - 1, ..own },
        "forged" => LeaseToken { secret: own.secret + 1, ..own },
        _ => own,
    };
    let epoch = lease.epoch;
    let release = |delay| Command::Release { lease, reason: "".into(), delay, live: live() };
    let cause = match manner {
        "unaccepted" => LeaseEnd::Unaccepted,
        "undelivered" => LeaseEnd::Undelivered,
        "stalled" => LeaseEnd::Stalled,
        "restarted" => LeaseEnd::Restarted,
        _ => LeaseEnd::Expired,
    };
    Some(match deed {
        "lease" => self::lease(false),
        "lease+accept" => self::lease(true),
        "accept" => Command::Accept { lease },
        "adopt" => Command::Adopt { epoch, keeper: Keeper(2) },
        "stage" => Command::EnterStage { lease, name: "s".into() },
        "output" => Command::AppendOutput {
            lease,
            channel: "".into(),
            reset_to: None,
            offset: 0,
            data: Bytes::from_static(b"x"),
        },
        "log" => {
            let line = LogLine { level: LogLevel::Info, message: "l".into() };
            Command::AppendLog { lease, offset: 0, lines: vec![line] }
        }
        "checkpoint" => {
            Command::Checkpoint { lease, number: 1, output_bytes: 0, data: Bytes::from_static(b"c") }
        }
        "complete" => Command::Complete { lease, result: "1".into(), live: live(), output_bytes: None },
        "fail" => fail(lease, false),
        "stop" => Command::Fail { lease, failure: None, retry_delay: None, live: live(), jitter: 1.0 },
        "release" => release(Duration::ZERO),
        "release+delay" => release(HOUR),
        "end" => end(epoch, if manner == "other-keeper" { Keeper(9) } else { KEEPER }, cause),
        "cancel" => cancel(),
        "advance" => advance(),
        "grant" => Command::Grant,
        _ => return None,
    })
}

/// The rows that a command must have; a new variant does not compile before it is given some.
fn rows_of(command: &Command) -> &'static [&'static str] {
    match command {
        Command::Lease { .. } => &["lease", "lease+accept"],
        Command::Accept { .. } => &["accept", "accept/stale"],
        Command::Adopt { .. } => &["adopt", "adopt/stale"],
        Command::EnterStage { .. } => &["stage", "stage/stale"],
        Command::AppendOutput { .. } => &["output", "output/stale"],
        Command::AppendLog { .. } => &["log", "log/stale"],
        Command::Checkpoint { .. } => &["checkpoint", "checkpoint/stale"],
        Command::Complete { .. } => &["complete", "complete/stale"],
        Command::Fail { .. } => &["fail", "fail/stale", "stop"],
        Command::Release { .. } => &["release", "release+delay", "release/stale"],
        Command::EndLease { .. } => &[
            "end/expired",
            "end/unaccepted",
            "end/undelivered",
            "end/stalled",
            "end/restarted",
            "end/other-keeper",
            "end/stale",
        ],
        Command::Cancel { .. } => &["cancel"],
        Command::Advance { .. } => &["advance/early", "advance/due"],
        Command::Grant => &["grant"],
    }
}

fn answer(job: &Job, command: Command, now: Timestamp) -> String {
    match transition(job, command, now) {
        Ok(step) if step.job == *job && step.events.is_empty() => "same".into(),
        Ok(step) => step.job.state.to_string(),
        Err(refusal) => format!("{refusal:?}").split(' ').next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn every_command_in_every_state_does_what_the_table_says() {
    let mut lines = TABLE.lines().filter(|line| !line.is_empty());
    let columns: Vec<&str> = lines.next().expect("a head").split_whitespace().collect();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();

    for line in lines {
        let (row, cells) = line.split_once(' ').expect("a row has cells");
        let cells: Vec<&str> = cells.split_whitespace().collect();
        assert_eq!(cells.len(), columns.len(), "row {row} is not complete");
        rows.push(row);
        for (column, expected) in columns.iter().zip(cells) {
            let (job, own) = job_in(column);
            let now = if row == "advance/due" { job.next_due().unwrap_or(NOW) } else { NOW };
            let manners = if row.ends_with("/stale") { vec!["stale", "forged"] } else { vec![""] };
            for manner in manners {
                // Adopt and EndLease name a lease by its number alone, so there is no secret to forge.
                let forged = row.replace("stale", manner);
                if manner == "forged" && (row.starts_with("adopt") || row.starts_with("end")) {
                    continue;
                }
                let name = if manner.is_empty() { row } else { &forged };
                let command = command_of(name, own).expect("the row names a command");
                let got = answer(&job, command, now);
                if got != expected {
                    wrong.push(format!("{name} in {column}: {got}, not {expected}"));
                }
            }
        }
    }

    let (_, own) = job_in("RUNNING");
    for row in &rows {
        let command = command_of(row, own).expect("the row names a command");
        for needed in rows_of(&command) {
            assert!(rows.contains(needed), "there is no row {needed}");
        }
    }
    let deeds: std::collections::HashSet<_> =
        rows.iter().filter_map(|row| Some(std::mem::discriminant(&command_of(row, own)?))).collect();
    assert_eq!(deeds.len(), 14, "a command has no row");
    for state in State::ALL {
        assert!(columns.contains(&state.name()), "there is no column {state}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
