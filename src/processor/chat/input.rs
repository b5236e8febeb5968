//! What a client asks for, checked, and the request that it becomes.

use super::provider::Provider;
use crate::job::Failure;
use crate::worker::{invalid_input, parse_json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Turns of a conversation; what is longer is no conversation but a mistake.
pub const MESSAGES_MAX: usize = 10_000;
/// Texts that end an answer, as the strictest of the providers limits them.
const STOPS_MAX: usize = 4;

/// The input. A field of another name is an error: what a provider is asked is the server's to allow.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// A question on its own.
    pub prompt: Option<String>,
    /// Or a conversation.
    pub messages: Option<Vec<Message>>,
    model: Option<String>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    seed: Option<i64>,
    stop: Option<Stop>,
    response_format: Option<Map<String, Value>>,
    reasoning_effort: Option<String>,
}

/// A turn of a conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    role: String,
    content: Content,
    name: Option<String>,
}

/// A text, or parts of several forms.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Map<String, Value>>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// What a provider is asked.
#[derive(Debug)]
pub struct Question {
    /// The request's body.
    pub body: Map<String, Value>,
    /// The model, where one is named.
    pub model: Option<String>,
    /// The most tokens that it may write.
    pub cap: Option<u64>,
}

impl Input {
    /// Reads it; what is wrong is told by the name of its field.
    pub fn parse(fields: Map<String, Value>) -> Result<Self, Failure> {
        parse_json(Value::Object(fields))
    }

    /// A question, and all else as it comes.
    pub fn of_prompt(prompt: String) -> Self {
        Self { prompt: Some(prompt), ..Self::default() }
    }

    /// This input behind `shared`, whose fields it may replace, but whose messages come first.
    pub fn behind(self, shared: &Self) -> Self {
        let has_cap = self.max_tokens.or(self.max_completion_tokens).is_some();
        let cap = if has_cap { &self } else { shared };
        let (max_tokens, max_completion_tokens) = (cap.max_tokens, cap.max_completion_tokens);
        let (prompt, messages) = match &shared.messages {
            None => (self.prompt, self.messages),
            Some(first) => {
                let asked = self.prompt.map(Message::of_user);
                let own = asked.into_iter().chain(self.messages.into_iter().flatten());
                (None, Some(first.iter().cloned().chain(own).collect()))
            }
        };
        Self {
            prompt,
            messages,
            max_tokens,
            max_completion_tokens,
            model: self.model.or_else(|| shared.model.clone()),
            temperature: self.temperature.or(shared.temperature),
            top_p: self.top_p.or(shared.top_p),
            frequency_penalty: self.frequency_penalty.or(shared.frequency_penalty),
            presence_penalty: self.presence_penalty.or(shared.presence_penalty),
            seed: self.seed.or(shared.seed),
            stop: self.stop.or_else(|| shared.stop.clone()),
            response_format: self.response_format.or_else(|| shared.response_format.clone()),
            reasoning_effort: self.reasoning_effort.or_else(|| shared.reasoning_effort.clone()),
        }
    }

    /// What `provider` is asked by that.
    pub fn question(self, provider: &Provider) -> Result<Question, Failure> {
        let cap = self.cap(provider)?;
        let model = self.model(provider)?;
        let mut body = provider.defaults.clone();
        let ranges = [
            ("temperature", self.temperature, 0.0, 2.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
        ];
        for (name, value, least, most) in ranges {
            let Some(value) = value else { continue };
            if !(least..=most).contains(&value) {
                return Err(invalid_input(format!("{name} is {value}; it must be from {least} to {most}")));
            }
            body.insert(name.to_owned(), json!(value));
        }
        let stops = match self.stop {
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
            None => Vec::new(),
        };
        if stops.len() > STOPS_MAX || stops.iter().any(String::is_empty) {
            return Err(invalid_input(format!(
                "stop must be a text, or at most {STOPS_MAX}, none of them empty"
            )));
        }
        if !stops.is_empty() {
            body.insert("stop".to_owned(), json!(stops));
        }
        if let Some(seed) = self.seed {
            body.insert("seed".to_owned(), json!(seed));
        }
        if let Some(format) = self.response_format {
            let is_known = |kind: &str| matches!(kind, "text" | "json_object" | "json_schema");
            if !format.get("type").and_then(Value::as_str).is_some_and(is_known) {
                return Err(invalid_input("response_format.type must be text, json_object or json_schema"));
            }
            body.insert("response_format".to_owned(), Value::Object(format));
        }
        if let Some(effort) = self.reasoning_effort {
            if !matches!(effort.as_str(), "none" | "minimal" | "low" | "medium" | "high") {
                return Err(invalid_input("reasoning_effort must be none, minimal, low, medium or high"));
            }
            body.insert("reasoning_effort".to_owned(), json!(effort));
        }
        body.insert("messages".to_owned(), Value::Array(messages(self.prompt, self.messages)?));
        if let Some(model) = &model {
            body.insert("model".to_owned(), json!(model));
        }
        if let Some(cap) = cap {
            body.insert(provider.max_tokens_field.clone(), json!(cap));
        }
        body.insert("stream".to_owned(), json!(true));
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
        body.extend(provider.extra.clone());
        Ok(Question { body, model, cap })
    }

    fn cap(&self, provider: &Provider) -> Result<Option<u64>, Failure> {
        let (name, asked) = match (self.max_tokens, self.max_completion_tokens) {
            (Some(_), Some(_)) => {
                return Err(invalid_input(
                    "max_tokens and max_completion_tokens mean the same; give one of them",
                ));
            }
            (asked, None) => ("max_tokens", asked),
            (None, asked) => ("max_completion_tokens", asked),
        };
        let limit = provider.max_tokens_limit;
        match (asked, limit) {
            (Some(0), _) => Err(invalid_input(format!("{name} is 0; it must be at least 1"))),
            (Some(asked), Some(limit)) if asked > limit => {
                Err(invalid_input(format!("{name} is {asked}; the limit of {} is {limit}", provider.kind)))
            }
            (asked, limit) => Ok(asked.or(provider.max_tokens).or(limit)),
        }
    }

    fn model(&self, provider: &Provider) -> Result<Option<String>, Failure> {
        match &self.model {
            None => Ok(provider.models.first().cloned()),
            Some(model) if provider.models.contains(model) => Ok(Some(model.clone())),
            Some(model) => {
                let known = match provider.models.is_empty() {
                    true => "none can be chosen".to_owned(),
                    false => format!("it must be one of {}", provider.models.join(", ")),
                };
                Err(invalid_input(format!("model is {model:?}; {known}")))
            }
        }
    }
}

impl Message {
    fn of_user(text: String) -> Self {
        Self { role: "user".to_owned(), content: Content::Text(text), name: None }
    }
}

/// The conversation so far.
fn messages(prompt: Option<String>, messages: Option<Vec<Message>>) -> Result<Vec<Value>, Failure> {
    let messages = match (prompt, messages) {
        (Some(prompt), None) if prompt.trim().is_empty() => {
            return Err(invalid_input("prompt is empty; there is nothing to answer"));
        }
        (Some(prompt), None) => return Ok(vec![json!({"role": "user", "content": prompt})]),
        (None, Some(messages)) => messages,
        _ => return Err(invalid_input("either prompt or messages must be given")),
    };
    if !(1..=MESSAGES_MAX).contains(&messages.len()) {
        let text = format!("there are {} messages; it must be 1 to {MESSAGES_MAX}", messages.len());
        return Err(invalid_input(text));
    }
    let written = messages.into_iter().enumerate().map(|(index, message)| {
        if !matches!(message.role.as_str(), "system" | "developer" | "user" | "assistant") {
            let text = format!(
                "messages[{index}].role is {:?}; it must be system, developer, user or assistant",
                message.role
            );
            return Err(invalid_input(text));
        }
        let content = match message.content {
            Content::Text(text) => json!(text),
            Content::Parts(parts) => json!(parts),
        };
        let mut written =
            Map::from_iter([("role".to_owned(), json!(message.role)), ("content".to_owned(), content)]);
        if let Some(name) = message.name {
            written.insert("name".to_owned(), json!(name));
        }
        Ok(Value::Object(written))
    });
    written.collect()
}
