//! A handler that does what a test tells it, one thing at a time.

use async_trait::async_trait;
use bytes::Bytes;
use longhaul::job::{Failure, LogLevel, Metrics, Progress};
use longhaul::worker::{Context, Handler};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// The kind that it runs.
pub const KIND: &str = "puppet";

/// What it can be told.
#[derive(Debug)]
pub enum Act {
    Stage(&'static str),
    Output(&'static str, Bytes),
    Progress(f64),
    Metric(&'static str, f64),
    Log(&'static str),
    Return(Result<Bytes, Failure>),
    Panic,
    /// Waits until its job is to stop, then returns.
    AwaitCancel,
    /// Does not listen any more.
    Hang,
}

type Cue = (Act, oneshot::Sender<Result<(), Failure>>);

/// The handler. Only one of its jobs runs at a time.
pub struct Puppet(Arc<Mutex<mpsc::Receiver<Cue>>>);

/// The strings.
#[derive(Clone)]
pub struct Strings(mpsc::Sender<Cue>);

pub fn puppet() -> (Puppet, Strings) {
    let (sender, receiver) = mpsc::channel(1);
    (Puppet(Arc::new(Mutex::new(receiver))), Strings(sender))
}

impl Strings {
    /// Lets the running job do something and waits until it is done.
    pub async fn pull(&self, act: Act) -> Result<(), Failure> {
        let (done, answer) = oneshot::channel();
        super::within(self.0.send((act, done))).await.unwrap();
        // A handler that has ended or was dropped answers no more.
        super::within(answer).await.unwrap_or(Ok(()))
    }

    pub async fn output(&self, text: &'static str) {
        self.pull(Act::Output("", Bytes::from_static(text.as_bytes()))).await.unwrap();
    }

    pub async fn succeed(&self, result: &'static str) {
        self.pull(Act::Return(Ok(Bytes::from_static(result.as_bytes())))).await.unwrap();
    }
}

#[async_trait]
impl Handler for Puppet {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let mut cues = self.0.lock().await;
        loop {
            let (act, done) = cues.recv().await.expect("somebody holds the strings");
            let outcome = match act {
                Act::Stage(name) => context.stage(name).await,
                Act::Output(channel, data) => context.output_to(channel, data).await,
                Act::Progress(fraction) => {
                    context.progress(Progress { fraction: Some(fraction), ..Default::default() })
                }
                Act::Metric(name, value) => context.metrics(Metrics::from([(name.to_owned(), value)])),
                Act::Log(line) => context.log(LogLevel::Warn, line).await,
                Act::Return(result) => return result,
                Act::Panic => panic!("as told"),
                Act::AwaitCancel => {
                    context.cancelled().cancelled().await;
                    return Ok(Bytes::from_static(b"{}"));
                }
                Act::Hang => std::future::pending().await,
            };
            // The test may have stopped listening.
            let _ = done.send(outcome);
        }
    }
}
