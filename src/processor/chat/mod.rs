//! Asks a server that speaks the chat API of OpenAI, and writes down what it answers while it does. The page docs/chat.md is
//! its contract.
//!
//! How many requests run at once, and which job is next, is the engine's affair: a provider has slots of its own, and while it
//! wants to be left alone none of them takes a job.

mod answer;
mod attempt;
mod failure;
mod input;
mod provider;
mod stream;

pub use provider::{Key, OnBreak, Prices, Provider};

use crate::job::{Failure, reason};
use crate::worker::{Context, Gate, Handler};
use async_trait::async_trait;
use attempt::Attempt;
use bytes::Bytes;
use failure::Trouble;
use input::Input;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The kind of the provider that is named by flag or variable.
pub const KIND: &str = "chat";

/// Runs jobs by asking a provider.
#[derive(Debug)]
pub struct Chat {
    provider: Arc<Provider>,
    client: reqwest::Client,
    gate: Gate,
    /// Refusals since the last answer.
    refusals: AtomicU32,
}

impl Chat {
    /// Asks `provider`, and closes the gate while it wants no requests.
    pub fn new(provider: Arc<Provider>, gate: Gate) -> reqwest::Result<Self> {
        let client = provider.client()?;
        Ok(Self { provider, client, gate, refusals: AtomicU32::new(0) })
    }
}

#[async_trait]
impl Handler for Chat {
    /// Where it is dropped, the connection is closed, and with that the provider stops.
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let question = context.parse_input::<Input>()?.question(&self.provider)?;
        let answer = tokio::select! {
            biased;
            () = context.cancelled().cancelled() => {
                return Err(Failure::new(reason::HANDLER_ERROR, "stopped as asked"));
            }
            answer = Attempt::run(&self.client, &self.provider, context, question) => answer,
        };
        match answer {
            Err(Trouble::Busy(failure, delay)) => {
                let refusals = self.refusals.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let delay = delay.unwrap_or_else(|| failure::backoff(refusals, context.chance()));
                self.gate.close(delay);
                let message = format!("again in {:.3} s; {}", delay.as_secs_f64(), failure.message);
                Err(context.give_back(Failure { message, ..failure }, delay))
            }
            Err(Trouble::Failed(failure)) => Err(failure),
            Ok(result) => {
                self.refusals.store(0, Ordering::Relaxed);
                Ok(result)
            }
        }
    }
}

#[cfg(test)]
mod tests;
