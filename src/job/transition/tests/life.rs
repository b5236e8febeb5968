//! One job under test, with all that has happened to it and the time that it is.
//!
//! It decides nothing: what ought to happen is said by the test.

use crate::job::*;
use bytes::Bytes;
use std::time::Duration;

pub const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
pub const KEEPER: Keeper = Keeper(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// A job and its history.
pub struct Life {
    pub job: Job,
    pub events: Vec<Event>,
    pub now: Timestamp,
    /// From 0 to 1, for the waits.
    pub jitter: f64,
}

/// The options of a wish that leaves everything open.
pub fn options() -> Options {
    let wish = Wish { kind: "k".into(), input: "{}".into(), ..Wish::default() };
    wish.into_spec(DEFAULT_TENANT, &Terms::default()).expect("the wish is sound").options
}

impl Life {
    /// A job that was accepted at [`START`].
    pub fn new(options: Options) -> Self {
        let wish = Wish { kind: "k".into(), input: "{}".into(), ..Wish::default() };
        let spec = wish.into_spec(DEFAULT_TENANT, &Terms::default()).expect("the wish is sound");
        let job = Job::new(JobId::new(START, 7, 99), &Spec { options, ..spec }, START);
        let events = vec![job.first_event()];
        Self { job, events, now: START, jitter: 1.0 }
    }

    /// One that a worker has begun.
    pub fn running(options: Options) -> Self {
        let mut life = Self::new(options);
        life.begin();
        life
    }

    pub fn does(&mut self, command: Command) -> Result<State, Refusal> {
        let step = transition(&self.job, command, self.now)?;
        self.job = step.job;
        self.events.extend(step.events);
        Ok(step.answer)
    }

    pub fn wait(&mut self, duration: Duration) -> &mut Self {
        self.now = self.now.after(duration);
        self
    }

    /// The token of the last lease, whether it holds the job or not.
    pub fn token(&self) -> LeaseToken {
        LeaseToken { job: self.job.id, epoch: self.job.epoch, secret: 42 }
    }

    pub fn claim(&mut self, accept: bool) -> Result<State, Refusal> {
        let worker = "w".to_owned();
        self.does(Command::Lease {
            worker,
            keeper: KEEPER,
            secret: 42,
            in_process: false,
            term: None,
            accept,
        })
    }

    pub fn begin(&mut self) {
        assert_eq!(self.claim(true), Ok(State::Running), "the job is ready");
    }

    pub fn fails(&mut self, failure: Failure) -> Result<State, Refusal> {
        self.fails_with(Some(failure), None)
    }

    pub fn fails_with(
        &mut self,
        failure: Option<Failure>,
        delay: Option<Duration>,
    ) -> Result<State, Refusal> {
        let (lease, jitter) = (self.token(), self.jitter);
        self.does(Command::Fail { lease, failure, retry_delay: delay, live: Live::default(), jitter })
    }

    pub fn ends(&mut self, cause: LeaseEnd) -> Result<State, Refusal> {
        let (epoch, jitter) = (self.job.epoch, self.jitter);
        self.does(Command::EndLease { epoch, keeper: KEEPER, cause, live: Live::default(), jitter })
    }

    pub fn releases(&mut self, delay: Duration) -> Result<State, Refusal> {
        let lease = self.token();
        self.does(Command::Release { lease, reason: "later".into(), delay, live: Live::default() })
    }

    pub fn completes(&mut self) -> Result<State, Refusal> {
        self.completes_with(None)
    }

    pub fn completes_with(&mut self, output_bytes: Option<u64>) -> Result<State, Refusal> {
        let lease = self.token();
        self.does(Command::Complete { lease, result: "1".into(), live: Live::default(), output_bytes })
    }

    pub fn cancel(&mut self, grace: Duration) -> Result<State, Refusal> {
        self.does(Command::Cancel { reason: "enough".into(), grace })
    }

    pub fn advance(&mut self) -> State {
        let jitter = self.jitter;
        self.does(Command::Advance { live: Live::default(), jitter }).expect("it is never refused")
    }

    pub fn outputs(
        &mut self,
        channel: &str,
        reset_to: Option<u64>,
        offset: u64,
        data: impl Into<Bytes>,
    ) -> Result<State, Refusal> {
        let (lease, channel, data) = (self.token(), channel.to_owned(), data.into());
        self.does(Command::AppendOutput { lease, channel, reset_to, offset, data })
    }

    pub fn logs(&mut self, offset: u64, messages: &[&str]) -> Result<State, Refusal> {
        let line = |message: &&str| LogLine { level: LogLevel::Info, message: (*message).to_owned() };
        let lease = self.token();
        self.does(Command::AppendLog { lease, offset, lines: messages.iter().map(line).collect() })
    }

    pub fn checkpoints(
        &mut self,
        number: u64,
        output_bytes: u64,
        data: &'static str,
    ) -> Result<State, Refusal> {
        let (lease, data) = (self.token(), Bytes::from_static(data.as_bytes()));
        self.does(Command::Checkpoint { lease, number, output_bytes, data })
    }

    pub fn enters(&mut self, stage: &str) -> Result<State, Refusal> {
        let lease = self.token();
        self.does(Command::EnterStage { lease, name: stage.to_owned() })
    }

    /// The last step of its life.
    pub fn last_change(&self) -> &StateChange {
        let change = |event: &Event| matches!(event.body, Body::StateChanged(_));
        match &self.events.iter().rfind(|event| change(event)).expect("the first event is one").body {
            Body::StateChanged(change) => change,
            other => unreachable!("{other:?} was just left out"),
        }
    }
}
