//! What the pieces of an answer say, and what they come to. Servers leave out and add fields as they like, so nothing is needed
//! that can be done without.

use crate::job::Metrics;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::ops::AddAssign;

/// An answer that has come to a good end.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// All of it; missing where it is longer than a result may be.
    pub text: Option<String>,
    /// What ended it.
    pub finish_reason: Ended,
    /// It was the cap that ended it.
    pub truncated: bool,
    /// The model that really answered.
    pub model: Option<String>,
    /// What was read and written for it, where the provider says.
    pub usage: Option<Tokens>,
    /// What that costs, where it has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

/// What ends an answer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// All is said.
    Stop,
    /// The cap.
    Length,
}

/// Tokens of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Read, with those from a cache.
    #[serde(rename = "input_tokens")]
    pub input: u64,
    /// Read from a cache.
    #[serde(rename = "cached_tokens")]
    pub cached: u64,
    /// Written, with those that were thought.
    #[serde(rename = "output_tokens")]
    pub output: u64,
}

impl Tokens {
    /// As an attempt's measurements have them.
    pub fn metrics(&self) -> Metrics {
        let named =
            [("input_tokens", self.input), ("cached_tokens", self.cached), ("output_tokens", self.output)];
        named.into_iter().map(|(name, count)| (name.to_owned(), count as f64)).collect()
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.cached = self.cached.saturating_add(other.cached);
        self.output = self.output.saturating_add(other.output);
    }
}

/// A piece of an answer, or all of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Piece {
    /// The model that really answers.
    pub model: Option<String>,
    /// At most one is asked for; none come with the usage.
    pub choices: Option<Vec<Choice>>,
    /// The last one counts.
    pub usage: Option<Usage>,
    /// Instead of an answer.
    pub error: Option<Value>,
    /// How much of the prompt is read, where llama.cpp is asked to tell.
    pub prompt_progress: Option<Reading>,
}

/// What is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// The next of it, in a stream.
    pub delta: Option<Text>,
    /// All of it, where there is no stream.
    pub message: Option<Text>,
    /// Why it ends here.
    pub finish_reason: Option<String>,
}

/// Texts, any of which may be missing or null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Text {
    /// The answer.
    pub content: Option<Content<Part>>,
    /// What the model thought before it, as one half of the servers calls it.
    pub reasoning_content: Option<String>,
    /// The same, as the other half does; some put more than a text there.
    pub reasoning: Option<Value>,
    /// Why it does not answer.
    pub refusal: Option<String>,
}

impl Text {
    /// What the model thought.
    pub fn thought(&self) -> Option<Cow<'_, str>> {
        let plain = || self.reasoning.as_ref().and_then(Value::as_str);
        let apart = self.reasoning_content.as_deref().or_else(plain).filter(|text| !text.is_empty());
        apart.map(Cow::from).or_else(|| self.content.as_ref()?.thought())
    }

    /// What it says.
    pub fn said(&self) -> Option<Cow<'_, str>> {
        let refusal = || self.refusal.as_deref().filter(|text| !text.is_empty());
        self.content.as_ref().and_then(Content::<Part>::said).or_else(|| refusal().map(Cow::from))
    }
}

/// A text, or what it is put together from, as Mistral's reasoning models have it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Content<P> {
    /// All of it.
    Text(String),
    /// One after the other.
    Parts(Vec<P>),
}

/// A part of an answer; one of another type has neither.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Part {
    /// What the model says.
    pub text: Option<String>,
    /// What it thought. Its parts have none of their own: a copy is made of all that may have some.
    pub thinking: Option<Content<Words>>,
}

/// A part of a thought.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Words {
    /// What it says.
    pub text: Option<String>,
}

impl<P> Content<P> {
    /// All of it, where each part says this.
    fn text(&self, of: impl Fn(&P) -> Option<&str>) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::from(text),
            Self::Parts(parts) => parts.iter().filter_map(of).collect(),
        }
    }
}

impl Content<Part> {
    fn said(&self) -> Option<Cow<'_, str>> {
        Some(self.text(|part| part.text.as_deref())).filter(|text| !text.is_empty())
    }

    fn thought(&self) -> Option<Cow<'_, str>> {
        let Self::Parts(parts) = self else { return None };
        let thoughts = parts.iter().filter_map(|part| part.thinking.as_ref());
        let thoughts: String = thoughts.map(|thought| thought.text(|words| words.text.as_deref())).collect();
        Some(Cow::from(thoughts)).filter(|text| !text.is_empty())
    }
}

/// Tokens that were read and written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Read, with those from a cache.
    pub prompt_tokens: Option<u64>,
    /// Written, with those that were thought.
    pub completion_tokens: Option<u64>,
    /// More of those that were read.
    pub prompt_tokens_details: Option<Details>,
}

impl Usage {
    /// What of it is said; nothing where it is not.
    pub fn tokens(&self) -> Tokens {
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        Tokens {
            input: self.prompt_tokens.unwrap_or(0),
            cached: cached.unwrap_or(0),
            output: self.completion_tokens.unwrap_or(0),
        }
    }
}

/// More of the tokens that were read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Details {
    /// From a cache.
    pub cached_tokens: Option<u64>,
}

/// Tokens of the prompt.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// All of them.
    pub total: u64,
    /// Read so far, with those from a cache.
    pub processed: u64,
}
