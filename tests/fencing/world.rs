//! One job, two workers that may be zombies, a canceller, the keeper of leases, crashes, and a network between them.
//!
//! What the server does to the job is `job::transition` and nothing else. Nobody here is honest about its lease: a worker
//! goes on under whatever lease it remembers, and its messages may be late, repeated, out of order, or lost.

use crate::mutant::Mutant;
use longhaul::job::*;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

pub const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
pub const GRACE: Duration = Duration::from_secs(30);

/// How much is let happen, so that the search ends.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub attempts: u32,
    /// Leases that are given.
    pub leases: u32,
    /// Messages on their way at once.
    pub in_flight: usize,
    /// Crashes of a server.
    pub crashes: u64,
}

/// What a worker says under its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Report {
    Accept,
    /// All of the attempt's output: as many bytes as its lease has for a number, so that a mixture shows.
    Output,
    /// With the bytes of output that the worker had written by then.
    Complete {
        bytes: u32,
    },
    Fail,
    /// It stopped, as it was asked to.
    Stop,
    Release,
}

/// A report on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// The number of the lease whose token it carries.
    pub epoch: u32,
    pub report: Report,
}

/// What a worker remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worker {
    Idle,
    /// It was given this lease, and does not know what became of it.
    Working {
        epoch: u32,
        wrote: bool,
        /// How it has said that its attempt ended; it repeats that, and writes nothing more.
        last_word: Option<Report>,
    },
}

/// What a report that ends a lease was answered, where that binds the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Became(State),
    /// A completion came after the cancellation.
    JobCancelled,
}

/// Something that may happen.
#[derive(Clone, Debug)]
pub enum Action {
    /// The server is asked to give an idle worker the job, whether somebody has it or not.
    Lease,
    /// A worker sends a report.
    Send { worker: usize, report: Report },
    /// A message arrives; where it `stays`, it will be able to arrive once more.
    Deliver { message: Message, stays: bool },
    /// The canceller asks for the job to stop.
    Cancel,
    /// A keeper, maybe an earlier one, takes back what it takes for the lease.
    EndLease { epoch: u32, keeper: u64, cause: LeaseEnd },
    /// Time passes until the job has something to do.
    Wait,
    /// A worker loses all that it remembers.
    WorkerCrash { worker: usize },
    /// The server loses all that is on its way, and another one adopts the lease.
    ServerCrash,
}

/// The world as it is, with what was answered to whom.
#[derive(Clone)]
pub struct World {
    pub bounds: Bounds,
    pub mutant: Option<Mutant>,
    pub job: Rc<Job>,
    /// Alike, so kept in order.
    pub workers: [Worker; 2],
    /// Kept in order: the network knows none.
    pub network: Vec<Message>,
    /// The server that keeps leases, from 1.
    pub keeper: u64,
    /// What each report was answered first.
    pub told: BTreeMap<Message, Answer>,
    /// The canceller was answered that the job is being or was cancelled.
    pub told_cancelled: bool,
    /// Whose result the job has, by lease.
    pub result: Option<u32>,
    /// The last lease that ended.
    pub ended: u32,
    /// The lease that the end of the grace period ended.
    pub grace_ended: Option<u32>,
}

/// What two worlds with the same future have in common. The time is left out because no two deadlines of these jobs run at
/// once: what is waited for follows from the state. Histories, counters and names decide nothing.
pub type Essence = (
    (State, u32, u64, u64, Option<bool>, Option<(u32, u8, State)>),
    ([Worker; 2], Vec<Message>, u64),
    (BTreeMap<Message, Answer>, bool, Option<u32>, u32, Option<u32>),
);

impl World {
    /// A job that was just accepted, and nobody at work.
    pub fn new(bounds: Bounds, mutant: Option<Mutant>) -> Self {
        let wish = Wish { kind: "k".into(), input: "{}".into(), ..Wish::default() };
        let wish = Wish { maximum_attempts: bounds.attempts as i32, ..wish };
        let spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).expect("the wish is sound");
        Self {
            bounds,
            mutant,
            job: Rc::new(Job::new(JobId::new(START, 7, 99), &spec, START)),
            workers: [Worker::Idle; 2],
            network: Vec::new(),
            keeper: 1,
            told: BTreeMap::new(),
            told_cancelled: false,
            result: None,
            ended: 0,
            grace_ended: None,
        }
    }

    pub fn token(&self, epoch: u32) -> LeaseToken {
        LeaseToken { job: self.job.id, epoch, secret: secret(epoch) }
    }

    /// Whether this lease holds the job now.
    pub fn holds(&self, epoch: u32) -> bool {
        self.job.lease.is_some() && self.job.epoch == epoch
    }

    /// Leaves out the answers that bind the server no more, so that worlds which differ only by them are one.
    pub fn forget_answers(&mut self) {
        let ended = self.ended;
        self.told
            .retain(|message, answer| message.epoch >= ended || *answer == Answer::Became(State::Succeeded));
    }

    pub fn output_bytes(&self) -> u64 {
        self.job.emitted.channels.iter().map(|channel| channel.bytes).sum()
    }

    pub fn essence(&self) -> Essence {
        let job = &self.job;
        let ended = job.ended_lease.map(|ended| (ended.epoch, ended.by as u8, ended.state));
        let accepted = job.lease.as_ref().map(|lease| lease.accepted);
        // What has ended can neither be retried nor written to.
        let open = |number: u64| if job.state.is_final() { 0 } else { number };
        (
            (
                job.state,
                job.epoch,
                open(job.counted_attempts.into()),
                open(self.output_bytes()),
                accepted,
                ended,
            ),
            (self.workers, self.network.clone(), self.keeper),
            (self.told.clone(), self.told_cancelled, self.result, self.ended, self.grace_ended),
        )
    }

    /// All that may happen next. What has ended cannot change, so there one message at a time shows all that can be told,
    /// and a crash shows nothing new.
    pub fn actions(&self) -> Vec<Action> {
        let mut actions = vec![Action::Cancel];
        for message in &self.network {
            actions.extend([true, false].map(|stays| Action::Deliver { message: *message, stays }));
        }
        let ended = self.job.state.is_final();
        if self.network.len() < if ended { 1 } else { self.bounds.in_flight } {
            for (worker, memory) in self.workers.iter().enumerate() {
                let reports = self.reports(*memory).into_iter();
                actions.extend(reports.map(|report| Action::Send { worker, report }));
            }
        }
        // Whoever is mistaken about the lease is so whatever the cause.
        let expired = |epoch, keeper| Action::EndLease { epoch, keeper, cause: LeaseEnd::Expired };
        let (epoch, keeper) = (self.job.epoch, self.keeper);
        actions.extend((1..=epoch).map(|epoch| expired(epoch, keeper)));
        // Also where somebody has it; but where nobody is there to take it, it would be as if its worker had crashed.
        let idle = self.workers.contains(&Worker::Idle) || self.job.place() != Place::Ready;
        if idle && epoch < self.bounds.leases {
            actions.push(Action::Lease);
        }
        if ended {
            return actions;
        }
        actions.extend((1..keeper).map(|keeper| expired(epoch, keeper)));
        actions.push(Action::EndLease { epoch, keeper, cause: LeaseEnd::Unaccepted });
        if self.job.next_due().is_some() {
            actions.push(Action::Wait);
        }
        if keeper <= self.bounds.crashes {
            actions.push(Action::ServerCrash);
        }
        let crash = |worker| (self.workers[worker] != Worker::Idle).then_some(Action::WorkerCrash { worker });
        actions.extend((0..self.workers.len()).filter_map(crash));
        actions
    }

    /// What a worker may send, whatever it was answered.
    fn reports(&self, memory: Worker) -> Vec<Report> {
        let Worker::Working { epoch, wrote, last_word } = memory else { return Vec::new() };
        let mut reports = Vec::new();
        if !wrote && last_word.is_none() {
            reports.push(Report::Accept);
        }
        match last_word {
            Some(last_word) => reports.push(last_word),
            None => {
                let bytes = if wrote { epoch } else { 0 };
                reports.extend([Report::Complete { bytes }, Report::Fail, Report::Release]);
            }
        }
        if wrote || last_word.is_none() {
            reports.push(Report::Output);
        }
        if self.told_cancelled {
            reports.push(Report::Stop);
        }
        reports.retain(|report| !self.network.contains(&Message { epoch, report: *report }));
        reports
    }
}

pub fn secret(epoch: u32) -> u64 {
    1_000 + u64::from(epoch)
}
