//! Asks a server that speaks the chat API of OpenAI, and writes down what it answers while it does. The page docs/chat.md is
//! its contract.
//!
//! How many requests run at once, and which job is next, is the engine's affair: a provider has slots of its own, and while it
//! wants to be left alone none of them takes a job.

mod answer;
mod batch;
mod caller;
mod exchange;
mod failure;
mod input;
mod items;
mod one;
mod provider;
mod stream;
mod tally;

pub use provider::{Key, OnBreak, Prices, Provider};

use crate::job::{Failure, reason};
use crate::worker::{Context, Gate, Handler};
use async_trait::async_trait;
use bytes::Bytes;
use caller::Caller;
use failure::Trouble;
use input::Input;
use items::Items;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The kind of the provider that is named by flag or variable.
pub const KIND: &str = "chat";

/// Runs jobs by asking a provider.
#[derive(Debug)]
pub struct Chat(Caller);

impl Chat {
    /// Asks `provider`, and closes the gate while it wants no requests.
    pub fn new(provider: Arc<Provider>, gate: Gate) -> reqwest::Result<Self> {
        Ok(Self(Caller::new(provider, gate)?))
    }

    /// Answers what is asked: one question, or a batch of them.
    async fn answer(&self, context: &Context) -> Result<Bytes, Failure> {
        let Self(caller) = self;
        let mut fields = context.parse_input::<Map<String, Value>>()?;
        if let Some(items) = fields.remove("items") {
            let items = Items::parse(items, fields, &caller.provider)?;
            return batch::run(caller, context, &items).await;
        }
        let question = Input::parse(fields)?.question(&caller.provider)?;
        match one::run(caller, context, question).await {
            Ok(result) => Ok(result),
            Err(Trouble::Failed(failure) | Trouble::Barred(failure)) => Err(failure),
            Err(Trouble::Busy(failure, delay)) => {
                let (delay, _) = caller.leave_alone(delay, context.chance());
                Err(give_back(context, failure, delay))
            }
        }
    }
}

#[async_trait]
impl Handler for Chat {
    /// Where it is dropped, all connections are closed, and with that the provider stops.
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        tokio::select! {
            biased;
            () = context.cancelled().cancelled() => Err(Failure::new(reason::HANDLER_ERROR, "stopped as asked")),
            answer = self.answer(context) => answer,
        }
    }
}

/// Gives the job back until the provider wants requests again.
fn give_back(context: &Context, failure: Failure, delay: Duration) -> Failure {
    let message = format!("again in {:.3} s; {}", delay.as_secs_f64(), failure.message);
    context.give_back(Failure { message, ..failure }, delay)
}

#[cfg(test)]
mod tests;
