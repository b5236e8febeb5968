//! A fake AI job, honestly named: stages, a duration, output word by word, and failures on demand.
//!
//! It does no work. It is there to try a client, a dashboard or an alarm against a job of known behaviour.

use crate::job::{Failure, Progress, reason};
use crate::worker::{Context, Handler, invalid_input};
use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// The kind that it runs.
pub const KIND: &str = "simulate";

/// With an `error` of 0.5 and this seed attempts one and two fail and the third succeeds.
pub const SEED_THAT_FAILS_TWICE: u64 = 1;

/// The longest run, in seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;
const STEPS_MAX: u32 = 100_000;
/// How long a slow start takes, beside the run itself.
const SLOW_START: Duration = Duration::from_secs(3);
/// How long a silence means that an attempt hangs.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time between two signs of life of a run that is well.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Runs jobs of the kind [`KIND`].
#[derive(Clone, Copy, Debug)]
pub struct Simulate;

/// The input. A field of another name is an error, since it is surely a slip.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Input {
    prompt: String,
    seconds: f64,
    steps: u32,
    output: bool,
    chaos: Chaos,
    seed: Option<u64>,
    /// What a model would be asked with, and no more than that here: there is nothing to sample.
    #[serde(rename = "temperature")]
    _temperature: Option<f64>,
    /// How many words are said at most.
    max_tokens: Option<usize>,
}

/// The probabilities of what can go wrong in an attempt.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Chaos {
    error: f64,
    panic: f64,
    hang: f64,
    slow_start: f64,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            seconds: 6.0,
            steps: 20,
            output: true,
            chaos: Chaos::default(),
            seed: None,
            _temperature: None,
            max_tokens: None,
        }
    }
}

impl Input {
    fn check(&self) -> Result<(), Failure> {
        if !(0.0..=SECONDS_MAX).contains(&self.seconds) {
            return Err(invalid_input(format!(
                "seconds is {}; it must be from 0 to {SECONDS_MAX}",
                self.seconds
            )));
        }
        if self.steps > STEPS_MAX {
            return Err(invalid_input(format!("steps is {}; the limit is {STEPS_MAX}", self.steps)));
        }
        let Chaos { error, panic, hang, slow_start } = self.chaos;
        for (name, p) in [("error", error), ("panic", panic), ("hang", hang), ("slow_start", slow_start)] {
            if !(0.0..=1.0).contains(&p) {
                return Err(invalid_input(format!("chaos.{name} is {p}; it must be from 0 to 1")));
            }
        }
        Ok(())
    }
}

/// What goes wrong in one attempt, and after which part of the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fate {
    slow_start: bool,
    error: Option<f64>,
    panic: Option<f64>,
    hang: Option<f64>,
}

impl Fate {
    /// One draw for each kind of failure.
    fn draw(chaos: Chaos, seed: u64, attempt: u32) -> Self {
        let mut dice = Dice(seed ^ u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut strikes = |probability: f64| {
            let (strikes, at) = (dice.roll() < probability, dice.roll());
            strikes.then_some(at)
        };
        let slow_start = strikes(chaos.slow_start).is_some();
        Self {
            slow_start,
            error: strikes(chaos.error),
            panic: strikes(chaos.panic),
            hang: strikes(chaos.hang),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), written out so that a
/// seed means the same for ever.
struct Dice(u64);

impl Dice {
    /// A number from 0 to 1, without 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[async_trait]
impl Handler for Simulate {
    async fn run(&self, context: &Context) -> Result<Bytes, Failure> {
        let input: Input = context.parse_input()?;
        input.check()?;
        let seed = input.seed.unwrap_or_else(rand::random);
        let fate = Fate::draw(input.chaos, seed, context.assignment.attempt);
        let run = Run { context, input: &input, fate };
        // A run without chaos is one that always succeeds, unless it is told to stop.
        tokio::select! {
            result = run.steps() => result,
            () = context.cancelled().cancelled() => Err(Failure::new(reason::HANDLER_ERROR, "stopped as asked")),
        }
    }

    fn progress_timeout(&self) -> Option<Duration> {
        Some(PROGRESS_TIMEOUT)
    }
}

/// One attempt.
struct Run<'a> {
    context: &'a Context,
    input: &'a Input,
    fate: Fate,
}

impl Run<'_> {
    async fn steps(&self) -> Result<Bytes, Failure> {
        let steps = self.input.steps;
        let mut words = words(&self.input.prompt);
        words.truncate(self.input.max_tokens.unwrap_or(usize::MAX));
        if self.fate.slow_start {
            self.wait(SLOW_START, 0).await?;
        }
        self.context.stage("Starting").await?;
        let mut analyzing = false;
        let mut written = 0;
        for step in 0..=steps {
            let done = f64::from(step) / f64::from(steps.max(1));
            if step > 0 {
                self.wait(Duration::from_secs_f64(self.input.seconds / f64::from(steps)), step - 1).await?;
            }
            self.strike(done).await?;
            if !analyzing && (done >= 0.5 || steps == 0) {
                analyzing = true;
                self.context.stage("Analyzing the prompt").await?;
            }
            let upto = if steps == 0 { words.len() } else { words.len() * step as usize / steps as usize };
            if self.input.output && upto > written {
                self.context.output(words[written..upto].concat()).await?;
                written = upto;
            }
            self.report(step)?;
        }
        if steps == 0 {
            self.wait(Duration::from_secs_f64(self.input.seconds), 0).await?;
        }
        self.context.stage("Done").await?;
        let result = json!({"text": format!("Processed: {}", words.concat()), "seconds": self.input.seconds});
        Ok(result.to_string().into())
    }

    /// Waits, with a sign of life now and then.
    async fn wait(&self, time: Duration, step: u32) -> Result<(), Failure> {
        let mut left = time;
        while !left.is_zero() {
            let part = left.min(SIGN_OF_LIFE);
            tokio::time::sleep(part).await;
            left -= part;
            if !left.is_zero() {
                self.report(step)?;
            }
        }
        Ok(())
    }

    /// Does what fate has in store for this point of the run.
    async fn strike(&self, done: f64) -> Result<(), Failure> {
        let due = |at: Option<f64>| at.is_some_and(|at| at <= done);
        if due(self.fate.error) {
            return Err(Failure::new(reason::HANDLER_ERROR, "a simulated error"));
        }
        if due(self.fate.panic) {
            panic!("a simulated panic");
        }
        if due(self.fate.hang) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn report(&self, step: u32) -> Result<(), Failure> {
        let steps = self.input.steps;
        let fraction = f64::from(step) / f64::from(steps.max(1));
        self.context.progress(Progress {
            fraction: Some(fraction),
            stage: if fraction < 0.5 && steps > 0 { "Starting" } else { "Analyzing the prompt" }.to_owned(),
            completed: i64::from(step),
            total: Some(i64::from(steps)),
            unit: "steps".to_owned(),
            ..Default::default()
        })
    }
}

/// The words of a text, each with the white space behind it, so that together they are the text.
fn words(text: &str) -> Vec<&str> {
    text.split_inclusive(char::is_whitespace).collect()
}

#[cfg(test)]
mod tests;
