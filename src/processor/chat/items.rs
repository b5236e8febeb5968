//! The questions of a batch: what is common to them, and what each has of its own.

use super::input::{Input, MESSAGES_MAX, Question};
use super::provider::Provider;
use crate::job::Failure;
use crate::worker::{invalid_input, parse_json};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// Questions of one job: more of them are better several jobs, which can be cancelled and tried again one by one.
pub const ITEMS_MAX: usize = 10_000;
/// Characters of a name that a client gives a question.
const ID_CHARACTERS_MAX: usize = 128;

/// The questions.
#[derive(Debug)]
pub struct Items {
    shared: Input,
    own: Vec<Own>,
}

/// What one question has of its own.
#[derive(Debug)]
struct Own {
    /// How its client calls it.
    id: Option<String>,
    input: Input,
}

/// A question as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Prompt(String),
    Fields(Map<String, Value>),
    Other(IgnoredAny),
}

impl Items {
    /// Reads them, and checks all of them before any is asked. `shared` are the fields beside them.
    pub fn parse(items: Value, shared: Map<String, Value>, provider: &Provider) -> Result<Self, Failure> {
        let written: Vec<Written> = parse_json(items).map_err(|failure| within("items", failure))?;
        if !(1..=ITEMS_MAX).contains(&written.len()) {
            let text = format!("there are {} items; it must be 1 to {ITEMS_MAX}", written.len());
            return Err(invalid_input(text));
        }
        let shared = Input::parse(shared)?;
        if shared.prompt.is_some() {
            return Err(invalid_input("prompt stands beside items; each of them has its own"));
        }
        let before = shared.messages.as_ref().map_or(0, Vec::len);
        let example = if before == 0 { Input::of_prompt("?".to_owned()) } else { Input::default() };
        example.behind(&shared).question(provider)?;
        let own = written.into_iter().enumerate().map(|(index, written)| {
            let own = Own::new(written).and_then(|own| {
                own.input.clone().question(provider)?;
                let messages = before + own.input.messages.as_ref().map_or(1, Vec::len);
                if messages > MESSAGES_MAX {
                    let text = format!("there are {messages} messages; it must be 1 to {MESSAGES_MAX}");
                    return Err(invalid_input(text));
                }
                Ok(own)
            });
            own.map_err(|failure| within(&format!("items[{index}]"), failure))
        });
        Ok(Self { own: own.collect::<Result<_, _>>()?, shared })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.own.len()
    }

    /// How the client calls one of them, where it does.
    pub fn id(&self, index: usize) -> Option<&str> {
        self.own[index].id.as_deref()
    }

    /// What the provider is asked by one of them.
    pub fn question(&self, index: usize, provider: &Provider) -> Result<Question, Failure> {
        self.own[index].input.clone().behind(&self.shared).question(provider)
    }
}

impl Own {
    fn new(written: Written) -> Result<Self, Failure> {
        let mut fields = match written {
            Written::Prompt(prompt) => {
                return Ok(Self { id: None, input: Input::of_prompt(prompt) });
            }
            Written::Fields(fields) => fields,
            Written::Other(_) => return Err(invalid_input("it must be a prompt, or an object with one")),
        };
        let id = match fields.remove("id") {
            None => None,
            Some(Value::String(id)) if (1..=ID_CHARACTERS_MAX).contains(&id.chars().count()) => Some(id),
            Some(_) => {
                return Err(invalid_input(format!(
                    "id must be a text of 1 to {ID_CHARACTERS_MAX} characters"
                )));
            }
        };
        Ok(Self { id, input: Input::parse(fields)? })
    }
}

/// The failure, with the name of the part that it is about.
fn within(part: &str, failure: Failure) -> Failure {
    Failure { message: format!("{part}: {}", failure.message), ..failure }
}
