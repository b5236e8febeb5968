//! One step of the world: what the server makes of it, who is answered what, and which laws it breaks.

use crate::laws::{Law, Sight};
use crate::search::{Model, Step};
use crate::world::*;
use longhaul::job::*;
use std::rc::Rc;
use std::time::Duration;

type Outcome = Result<State, Refusal>;

impl Model for World {
    type Action = Action;
    type Essence = Essence;
    type Law = Law;
    type Sight = Sight;

    fn essence(&self) -> Essence {
        World::essence(self)
    }

    fn actions(&self) -> Vec<Action> {
        World::actions(self)
    }

    fn after(&self, action: &Action) -> Step<Self> {
        let mut step = Step { world: self.clone(), broken: Vec::new(), seen: Vec::new() };
        match *action {
            Action::Lease => lease(&mut step),
            Action::Send { worker, report } => send(&mut step.world, worker, report),
            Action::Deliver { message, stays } => deliver(self, &mut step, message, stays),
            Action::Cancel => cancel(&mut step),
            Action::EndLease { epoch, keeper, cause } => end_lease(self, &mut step, epoch, keeper, cause),
            Action::Wait => wait(self, &mut step),
            Action::WorkerCrash { worker } => step.world.workers[worker] = Worker::Idle,
            Action::ServerCrash => crash(&mut step),
        }
        step.world.workers.sort();
        if self.job.lease.is_some() && step.world.job.lease.is_none() {
            step.world.ended = self.job.epoch;
            step.world.forget_answers();
        }
        if step.world.told_cancelled && step.world.job.state == State::Succeeded {
            step.broken.push(Law::CancelWins);
        }
        let succeeded = |answer: &&Answer| **answer == Answer::Became(State::Succeeded);
        let successes = step.world.told.iter().filter(|(_, answer)| succeeded(answer));
        for (count, (message, _)) in successes.enumerate() {
            let made_it =
                step.world.job.state == State::Succeeded && step.world.result == Some(message.epoch);
            if count > 0 || !made_it {
                step.broken.push(Law::OneSuccess);
            }
        }
        step
    }
}

/// The server carries out a command: what it keeps, and whether the job still ends once.
fn does(step: &mut Step<World>, command: Command, now: Timestamp) -> Outcome {
    let before = Rc::clone(&step.world.job);
    let Transition { job, events, result, answer, .. } =
        transition(&step.world.believed_job(&command), command, now)?;
    let job = step.world.kept_job(job);
    let ends = |event: &Event| matches!(&event.body, Body::StateChanged(change) if change.state.is_final());
    let whole = match (before.state.is_final(), job.state.is_final()) {
        (true, _) => events.is_empty() && job.state == before.state,
        (false, false) => !events.iter().any(ends),
        (false, true) => {
            events.iter().filter(|event| ends(event)).count() == 1 && ends(&events[events.len() - 1])
        }
    };
    if !whole {
        step.broken.push(Law::OneOutcome);
    }
    if let Some(result) = result {
        step.world.result = std::str::from_utf8(&result).ok().and_then(|text| text.parse().ok());
    }
    step.world.job = Rc::new(job);
    Ok(answer)
}

fn lease(step: &mut Step<World>) {
    let epoch = step.world.job.epoch + 1;
    let (ready, held) = (step.world.job.place() == Place::Ready, step.world.job.lease.is_some());
    let zombies = step.world.workers.iter().filter(|worker| **worker != Worker::Idle).count();
    let (keeper, secret) = (Keeper(step.world.keeper), secret(epoch));
    let command =
        Command::Lease { worker: "w".into(), keeper, secret, in_process: false, term: None, accept: false };
    if does(step, command, START).is_err() {
        step.seen.extend(held.then_some(Sight::SecondLeaseRefused));
        return;
    }
    step.broken.extend((!ready).then_some(Law::OneHolder));
    if let Some(idle) = step.world.workers.iter_mut().find(|worker| **worker == Worker::Idle) {
        *idle = Worker::Working { epoch, wrote: false, last_word: None };
    }
    if zombies == 1 && step.world.network.iter().any(|message| message.epoch + 1 < epoch) {
        step.seen.push(Sight::TwoZombiesAndAHolder);
    }
}

fn send(world: &mut World, worker: usize, report: Report) {
    let Worker::Working { epoch, wrote, last_word } = &mut world.workers[worker] else { return };
    *wrote |= report == Report::Output;
    if matches!(report, Report::Complete { .. } | Report::Fail | Report::Release) {
        *last_word = Some(report);
    }
    world.network.push(Message { epoch: *epoch, report });
    world.network.sort();
}

fn deliver(before: &World, step: &mut Step<World>, message: Message, stays: bool) {
    if !stays {
        step.world.network.retain(|other| *other != message);
    }
    let outcome = does(step, command(before, message), START);
    if !before.holds(message.epoch) {
        if step.world.job != before.job {
            step.broken.push(Law::OneLease);
        }
        if outcome == Err(Refusal::LeaseLost) && before.job.lease.is_some() {
            step.seen.push(Sight::ZombieRefused);
        }
    }
    let let_go = before.job.state == State::Cancelling && outcome == Ok(State::Cancelled);
    step.seen.extend(let_go.then_some(Sight::CancelByWorker));
    let fails = matches!(message.report, Report::Fail | Report::Stop);
    if fails && before.grace_ended == Some(message.epoch) && outcome != Ok(State::Cancelled) {
        step.broken.push(Law::GraceIsTold);
    }
    if let Report::Complete { bytes } = message.report {
        check_completion(before, step, bytes, &outcome);
    }
    let ends = !matches!(message.report, Report::Accept | Report::Output);
    match before.told.get(&message) {
        Some(first) if before.ended <= message.epoch => match Some(*first) == binding(&outcome) {
            true => step.seen.push(Sight::RepeatAnswered),
            false => step.broken.push(Law::SameAnswer),
        },
        Some(_) => {}
        None => {
            let answer = binding(&outcome).filter(|_| ends);
            step.world.told.extend(answer.map(|answer| (message, answer)));
        }
    }
}

fn check_completion(before: &World, step: &mut Step<World>, bytes: u32, outcome: &Outcome) {
    match outcome {
        Ok(State::Succeeded) if before.told_cancelled => step.broken.push(Law::CancelWins),
        Ok(State::Succeeded) if before.job.state != State::Succeeded => {
            step.seen.push(Sight::Success);
            if step.world.output_bytes() != u64::from(bytes) {
                step.broken.push(Law::WholeOutput);
            }
        }
        Err(Refusal::JobCancelled) => step.seen.push(Sight::CompletionRefusedForCancel),
        Err(Refusal::OutputMissing { .. }) => step.seen.push(Sight::CompletionBeforeItsOutput),
        Ok(_) | Err(_) => {}
    }
}

/// What of an answer the server must stand by.
fn binding(outcome: &Outcome) -> Option<Answer> {
    match outcome {
        Ok(state) => Some(Answer::Became(*state)),
        Err(Refusal::JobCancelled) => Some(Answer::JobCancelled),
        Err(_) => None,
    }
}

fn command(world: &World, Message { epoch, report }: Message) -> Command {
    let (lease, live) = (world.believed_token(epoch), Live::default());
    let fail =
        |failure| Command::Fail { lease, failure, retry_delay: None, live: Live::default(), jitter: 1.0 };
    match report {
        Report::Accept => Command::Accept { lease },
        Report::Output => {
            let data = vec![b'x'; epoch as usize].into();
            Command::AppendOutput { lease, channel: String::new(), reset_to: None, offset: 0, data }
        }
        Report::Complete { bytes } => {
            let output_bytes = Some(u64::from(bytes));
            Command::Complete { lease, result: epoch.to_string().into(), live, output_bytes }
        }
        Report::Fail => fail(Some(Failure::new(reason::HANDLER_ERROR, "no"))),
        Report::Stop => fail(None),
        Report::Release => Command::Release { lease, reason: "r".into(), delay: Duration::ZERO, live },
    }
}

fn cancel(step: &mut Step<World>) {
    let waits = step.world.job.state.is_waiting();
    let command = Command::Cancel { reason: "enough".into(), grace: GRACE };
    let outcome = does(step, command, START);
    step.world.told_cancelled |= matches!(outcome, Ok(State::Cancelling | State::Cancelled));
    step.seen.extend(waits.then_some(Sight::CancelAtOnce));
}

fn end_lease(before: &World, step: &mut Step<World>, epoch: u32, keeper: u64, cause: LeaseEnd) {
    let (believed_epoch, believed_keeper) = before.believed_keeper(epoch, keeper);
    let live = Live::default();
    let command =
        Command::EndLease { epoch: believed_epoch, keeper: believed_keeper, cause, live, jitter: 1.0 };
    let outcome = does(step, command, START);
    let mine = before.holds(epoch) && keeper == before.keeper;
    if !mine && step.world.job != before.job {
        step.broken.push(Law::OneKeeper);
    }
    step.seen.extend(match (outcome, before.job.state) {
        (Ok(State::Failed), _) => Some(Sight::FailureByAttempts),
        (Ok(State::Cancelled), _) => Some(Sight::CancelByLease),
        (Err(Refusal::OtherKeeper), _) => Some(Sight::EarlierKeeperRefused),
        _ => None,
    });
}

fn wait(before: &World, step: &mut Step<World>) {
    let now = before.job.next_due().unwrap_or(START);
    let outcome = does(step, Command::Advance { live: Live::default(), jitter: 1.0 }, now);
    if before.job.state == State::Cancelling && outcome == Ok(State::Cancelled) {
        step.world.grace_ended = Some(before.job.epoch);
        step.seen.push(Sight::CancelByGracePeriod);
    }
}

fn crash(step: &mut Step<World>) {
    step.world.network.clear();
    step.world.keeper += 1;
    let command = Command::Adopt { epoch: step.world.job.epoch, keeper: Keeper(step.world.keeper) };
    if does(step, command, START).is_ok() {
        step.seen.push(Sight::LeaseOutlivesItsServer);
    }
}
