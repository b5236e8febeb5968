//! What the pieces of an answer say. Servers leave out and add fields as they like, so nothing is needed that can be done
//! without.

use serde::Deserialize;
use serde_json::Value;

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
    pub content: Option<String>,
    /// What the model thought before it, as one half of the servers calls it.
    pub reasoning_content: Option<String>,
    /// The same, as the other half does; some put more than a text there.
    pub reasoning: Option<Value>,
    /// Why it does not answer.
    pub refusal: Option<String>,
}

impl Text {
    /// What the model thought.
    pub fn thought(&self) -> Option<&str> {
        let plain = || self.reasoning.as_ref().and_then(Value::as_str);
        self.reasoning_content.as_deref().or_else(plain).filter(|text| !text.is_empty())
    }

    /// What it says.
    pub fn said(&self) -> Option<&str> {
        self.content
            .as_deref()
            .filter(|text| !text.is_empty())
            .or(self.refusal.as_deref())
            .filter(|text| !text.is_empty())
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
    /// Tokens that the provider did not have to read again.
    pub fn cached(&self) -> Option<u64> {
        self.prompt_tokens_details.as_ref()?.cached_tokens
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
